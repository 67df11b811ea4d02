//! Finds the first of many globs that matches a name, without trying them one by one.
//!
//! In: globs with their rank, and a name cut at its dots. Out: the least rank that matches.
//! Not here: what a rank stands for (`rules`).
//! Always: a glob matches names of as many parts as it has; `*` is one whole part, an empty one too.
//! Cost: a look-up for each part of the name and each way through the tree that may still win. That depends on how the
//! globs overlap, not on how many there are; no node is visited twice.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::config::MetricType;

/// No rule.
const NONE: u32 = u32::MAX;

/// Globs as a tree of their parts.
#[derive(Debug)]
pub(super) struct Globs {
    nodes: Vec<Node>,
    /// Children that stand for a text, by their parent and that text.
    children: HashTable<u32>,
    hasher: RandomState,
    /// Parts of the longest glob.
    longest: usize,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    text: Box<[u8]>,
    /// The child for `*`.
    star: Option<u32>,
    /// The least rank of a glob that ends here, for each type of metric.
    ends: [u32; MetricType::COUNT],
    /// The least rank at or below this node.
    least: [u32; MetricType::COUNT],
    /// How many parts may follow here: a bit for each number, the last for all from 63 on.
    lengths: u64,
}

impl Node {
    fn new(parent: u32, text: &[u8]) -> Self {
        let (ends, least) = ([NONE; MetricType::COUNT], [NONE; MetricType::COUNT]);
        Self { parent, text: text.into(), star: None, ends, least, lengths: 0 }
    }
}

/// A name with the places of its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) name: &'a [u8],
    pub(super) parts: &'a [Range<usize>],
}

impl Default for Globs {
    fn default() -> Self {
        Self { nodes: vec![Node::new(0, &[])], children: HashTable::new(), hasher: RandomState::default(), longest: 0 }
    }
}

impl Globs {
    /// Parts of the longest glob: a name of more matches none.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Adds a glob for one type of metric, or for all. Of equal globs the least rank holds.
    pub(super) fn add(&mut self, glob: &str, kind: Option<MetricType>, rank: u32) {
        let parts: Vec<&str> = glob.split('.').collect();
        self.longest = self.longest.max(parts.len());
        let kinds = match kind {
            Some(kind) => kind.index()..kind.index() + 1,
            None => 0..MetricType::COUNT,
        };
        let mut at = 0;
        for (place, part) in parts.iter().enumerate() {
            self.pass(at, kinds.clone(), rank, parts.len() - place);
            at = self.child_or_new(at, part.as_bytes());
        }
        self.pass(at, kinds.clone(), rank, 0);
        for end in &mut self.nodes[at as usize].ends[kinds] {
            *end = rank.min(*end);
        }
    }

    /// Notes at a node that a glob goes through it.
    fn pass(&mut self, at: u32, kinds: Range<usize>, rank: u32, follow: usize) {
        let node = &mut self.nodes[at as usize];
        node.lengths |= 1 << follow.min(63);
        for least in &mut node.least[kinds] {
            *least = rank.min(*least);
        }
    }

    fn child_or_new(&mut self, parent: u32, part: &[u8]) -> u32 {
        let known = if part == b"*" { self.nodes[parent as usize].star } else { self.child(parent, part) };
        if let Some(child) = known {
            return child;
        }
        let child = u32::try_from(self.nodes.len()).expect("a configuration has fewer parts than that");
        self.nodes.push(Node::new(parent, part));
        if part == b"*" {
            self.nodes[parent as usize].star = Some(child);
        } else {
            let Self { nodes, children, hasher, .. } = self;
            let rehash = |number: &u32| {
                let node = &nodes[*number as usize];
                hash(hasher, node.parent, &node.text)
            };
            children.insert_unique(hash(hasher, parent, part), child, rehash);
        }
        child
    }

    fn child(&self, parent: u32, part: &[u8]) -> Option<u32> {
        let is_it = |number: &u32| {
            let node = &self.nodes[*number as usize];
            node.parent == parent && *node.text == *part
        };
        self.children.find(hash(&self.hasher, parent, part), is_it).copied()
    }

    /// The tree as a digraph for graphviz: a node for each part, those where globs end with what `named` calls their
    /// rule.
    pub(super) fn graph(&self, named: impl Fn(u32) -> String) -> String {
        let mut out =
            String::from("digraph globs {\n  rankdir=LR;\n  node [shape=box];\n  n0 [label=\"\", shape=point];\n");
        for (number, node) in self.nodes.iter().enumerate().skip(1) {
            let mut label = escaped(&String::from_utf8_lossy(&node.text));
            let ends = MetricType::ALL.iter().map(|kind| (kind, node.ends[kind.index()]));
            let mut ends: Vec<_> = ends.filter(|(_, rank)| *rank != NONE).collect();
            let same = ends.len() == MetricType::COUNT && ends.iter().all(|(_, rank)| *rank == ends[0].1);
            if same {
                ends.truncate(1);
            }
            for (kind, rank) in &ends {
                let only = if same { String::new() } else { format!("{kind}: ") };
                label.push_str(&format!("\\n{only}{}", escaped(&named(*rank))));
            }
            let style = if ends.is_empty() { "" } else { ", peripheries=2" };
            let parent = node.parent;
            out.push_str(&format!("  n{number} [label=\"{label}\"{style}];\n  n{parent} -> n{number};\n"));
        }
        out.push_str("}\n");
        out
    }

    /// The least rank of a glob that matches. Allocates nothing.
    pub(super) fn find(&self, kind: MetricType, parts: Parts<'_>) -> Option<u32> {
        let mut found = NONE;
        self.search(0, kind.index(), parts, &mut found);
        (found != NONE).then_some(found)
    }

    /// Goes down from a node as long as something better than `found` may be below it. As deep as the longest glob.
    fn search(&self, at: u32, kind: usize, parts: Parts<'_>, found: &mut u32) {
        let node = &self.nodes[at as usize];
        let follow = 1 << parts.parts.len().min(63);
        if node.least[kind] >= *found || node.lengths & follow == 0 {
            return;
        }
        let Some((part, rest)) = parts.parts.split_first() else {
            *found = node.ends[kind].min(*found);
            return;
        };
        let literal = self.child(at, &parts.name[part.clone()]);
        let least = |child: Option<u32>| child.map_or(NONE, |child| self.nodes[child as usize].least[kind]);
        let (first, second) =
            if least(literal) <= least(node.star) { (literal, node.star) } else { (node.star, literal) };
        for child in [first, second].into_iter().flatten() {
            self.search(child, kind, Parts { parts: rest, ..parts }, found);
        }
    }
}

/// Text as it stands between the quotes of a graph.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}

fn hash(hasher: &RandomState, parent: u32, part: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u32(parent);
    hasher.write(part);
    hasher.finish()
}

/// Cuts a name at its dots; `false` if there are more than `most` parts, and then `out` holds some of them only.
pub(super) fn cut(name: &[u8], most: usize, out: &mut Vec<Range<usize>>) -> bool {
    out.clear();
    let mut start = 0;
    for dot in memchr::memchr_iter(b'.', name) {
        if out.len() >= most {
            return false;
        }
        out.push(start..dot);
        start = dot + 1;
    }
    out.push(start..name.len());
    out.len() <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_a_node_for_each_part_and_tells_which_rule_ends_where() {
        let mut globs = Globs::default();
        globs.add("bot.*", None, 0);
        globs.add("bot.api.x", Some(MetricType::Counter), 1);
        globs.add("bot.api.x", Some(MetricType::Gauge), 2);
        let graph = globs.graph(|rank| format!("\"rule\\\" {rank}"));
        let expected = r#"digraph globs {
  rankdir=LR;
  node [shape=box];
  n0 [label="", shape=point];
  n1 [label="bot"];
  n0 -> n1;
  n2 [label="*\n\"rule\\\" 0", peripheries=2];
  n1 -> n2;
  n3 [label="api"];
  n1 -> n3;
  n4 [label="x\ncounter: \"rule\\\" 1\ngauge: \"rule\\\" 2", peripheries=2];
  n3 -> n4;
}
"#;
        assert_eq!(graph, expected);
    }
}
