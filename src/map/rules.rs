//! Mapping rules, compiled: finds the rule of a name, and fills in its name and labels.
//!
//! In: the raw name of a sample without its tags, and the type of metric. Out: the rule that is for it.
//! Not here: names without a rule, tags, limits (`crate::map`).
//! Always: globs are tried before regular expressions; of each the earliest rule that matches wins, and the type of
//! metric is part of matching.
//! Follows: the matching rules of `statsd_exporter`'s documentation.

use std::collections::HashMap;
use std::ops::Range;

use super::glob::{self, Globs, Parts};
use super::name;
use super::regex::Regex;
use super::template::{Captures, Template};
use crate::config::{Action, MetricType, Pattern, Rule};

/// Rules, compiled.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Compiled>,
    globs: Globs,
    /// Rules with a regular expression, in order.
    regexes: Vec<u32>,
}

/// One rule.
#[derive(Debug)]
struct Compiled {
    metric_type: Option<MetricType>,
    matcher: Matcher,
    action: Action,
    name: Template,
    /// The name, escaped, if it is always the same.
    constant: Option<Vec<u8>>,
    labels: Vec<(String, Template)>,
}

#[derive(Debug)]
enum Matcher {
    /// The places of the stars.
    Glob(Vec<usize>),
    Regex(Regex),
}

/// Buffers of a search.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    parts: Vec<Range<usize>>,
}

/// A rule that was found.
pub(super) struct Found<'a> {
    /// Its place among the rules.
    pub(super) rule: u32,
    compiled: &'a Compiled,
    captures: Captures<'a>,
}

impl Rules {
    /// Compiles checked rules.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut all = Self::default();
        for (place, rule) in (0..).zip(rules) {
            let matcher = match &rule.pattern {
                Pattern::Glob(glob) => {
                    all.globs.add(glob, rule.metric_type, place);
                    let parts = glob.split('.').enumerate();
                    Matcher::Glob(parts.filter(|(_, part)| *part == "*").map(|(place, _)| place).collect())
                }
                Pattern::Regex(regex) => {
                    all.regexes.push(place);
                    Matcher::Regex(regex.clone())
                }
            };
            let template = |text: &str| match &matcher {
                Matcher::Glob(stars) => Template::for_glob(text, stars.len()),
                Matcher::Regex(regex) => Template::for_regex(text, regex),
            };
            let name = template(&rule.name);
            let constant = name.is_constant().then(|| {
                let (mut raw, mut escaped) = (Vec::new(), Vec::new());
                name.write(&Captures::Parts { name: &[], parts: &[], stars: &[] }, &mut raw);
                name::escape(&raw, &mut escaped);
                escaped
            });
            let labels = rule.labels.iter().map(|(label, text)| (label.clone(), template(text))).collect();
            let (metric_type, action) = (rule.metric_type, rule.action);
            all.rules.push(Compiled { metric_type, matcher, action, name, constant, labels });
        }
        all
    }

    /// The rule for a name. Allocates for regular expressions that match.
    pub(super) fn find<'a>(&'a self, kind: MetricType, raw: &'a [u8], scratch: &'a mut Scratch) -> Option<Found<'a>> {
        let parts = &mut scratch.parts;
        let fits = self.globs.longest() > 0 && glob::cut(raw, self.globs.longest(), parts);
        let by_glob = if fits { self.globs.find(kind, Parts { name: raw, parts }) } else { None };
        if let Some(rule) = by_glob {
            let compiled = &self.rules[rule as usize];
            let Matcher::Glob(stars) = &compiled.matcher else { return None };
            return Some(Found { rule, compiled, captures: Captures::Parts { name: raw, parts, stars } });
        }
        if self.regexes.is_empty() {
            return None;
        }
        let text = std::str::from_utf8(raw).ok()?;
        self.regexes.iter().find_map(|rule| {
            let compiled = &self.rules[*rule as usize];
            let Matcher::Regex(regex) = &compiled.matcher else { return None };
            // Most rules do not match, and finding that out needs no groups.
            if compiled.metric_type.is_some_and(|only| only != kind) || !regex.is_match(text) {
                return None;
            }
            let captures = Captures::Groups { name: raw, groups: regex.captures(text)? };
            Some(Found { rule: *rule, compiled, captures })
        })
    }
}

impl Found<'_> {
    /// Whether the rule refuses the sample.
    pub(super) fn drops(&self) -> bool {
        self.compiled.action == Action::Drop
    }

    /// Writes the name, escaped, into `out`; `buffer` is used on the way.
    pub(super) fn write_name(&self, buffer: &mut Vec<u8>, out: &mut Vec<u8>) {
        out.clear();
        match &self.compiled.constant {
            Some(name) => out.extend_from_slice(name),
            None => {
                buffer.clear();
                self.compiled.name.write(&self.captures, buffer);
                name::escape(buffer, out);
            }
        }
    }

    /// Calls `each` with each label, its value, and whether the value is the same for all names; `buffer` is used on
    /// the way.
    pub(super) fn labels(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(&str, &[u8], bool)) {
        for (label, value) in &self.compiled.labels {
            buffer.clear();
            value.write(&self.captures, buffer);
            each(label, buffer, value.is_constant());
        }
    }
}

/// The globs of rules as a digraph for graphviz, as they are searched.
pub(crate) fn graph(rules: &[Rule]) -> String {
    let mut globs = Globs::default();
    for (place, rule) in (0..).zip(rules) {
        if let Pattern::Glob(glob) = &rule.pattern {
            globs.add(glob, rule.metric_type, place);
        }
    }
    globs.graph(|rank| {
        let rule = &rules[rank as usize];
        let becomes = if rule.action == Action::Drop { "dropped" } else { &rule.name };
        format!("{}: {becomes}", rule.place)
    })
}

/// Rules that never match, since an earlier one is for all their names and types: each with that one.
///
/// Of regular expressions, only those that are written alike are compared.
pub(crate) fn shadowed(rules: &[Rule]) -> Vec<(usize, usize)> {
    let (mut globs, mut parts) = (Globs::default(), Vec::new());
    for (place, rule) in (0..).zip(rules) {
        if let Pattern::Glob(glob) = &rule.pattern {
            globs.add(glob, rule.metric_type, place);
        }
    }
    let mut regexes: HashMap<(&str, MetricType), usize> = HashMap::new();
    let mut found = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        let kinds = rule.metric_type.as_ref().map_or(MetricType::ALL, std::slice::from_ref);
        let first = match &rule.pattern {
            Pattern::Glob(text) => {
                // As a name, `*` is a part that only a star matches, so what matches is at least as general.
                let name = text.as_bytes();
                glob::cut(name, usize::MAX, &mut parts);
                let first = |kind: &MetricType| globs.find(*kind, Parts { name, parts: &parts });
                kinds.iter().filter_map(first).map(|first| first as usize).max()
            }
            Pattern::Regex(regex) => {
                let first = |kind: &MetricType| *regexes.entry((regex.as_str(), *kind)).or_insert(place);
                kinds.iter().map(first).max()
            }
        };
        if let Some(first) = first.filter(|first| *first < place) {
            found.push((place, first));
        }
    }
    found
}

#[cfg(test)]
mod tests;
