//! Reads a mapping file of `statsd_exporter` as it is, and holds what reading YAML of any kind takes ([`Reader`]).
//!
//! In: the text of a YAML file. Out: its rules and defaults, checked, with a problem for each thing that is not
//! accepted.
//! Always: reading never stops at a problem, but for text that is no YAML; unknown keys and keys set twice are
//! problems.
//! Follows: the documentation of `statsd_exporter` on mapping. What that program takes and then fails at (bounds that
//! do not rise, a negative `max_age`, quantiles outside 0 to 1, label names that begin with `__`) is refused here.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::mapping::{Action, MetricType, Observation, Pattern, Rule};
use super::problem::{KeyPath, Problem};
use super::syntax::{are_bounds, are_quantiles, go_duration, is_label, is_mapping_glob, is_name_template};
use crate::map::regex::Regex;

/// Values in a file, enough for some hundred thousand rules; what an alias repeats counts again.
const MOST_VALUES: usize = 10_000_000;
/// The peer's own defaults.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
const MAX_AGE: Duration = Duration::from_secs(600);
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const NATIVE_FACTOR: f64 = 1.1;
const NATIVE_MAX_BUCKETS: u32 = 256;

const OBSERVER_TYPES: [(&str, bool); 2] = [("summary", true), ("histogram", false)];
const MATCH_TYPES: [(&str, bool); 2] = [("glob", false), ("regex", true)];
const METRIC_TYPES: [(&str, MetricType); 3] =
    [("counter", MetricType::Counter), ("gauge", MetricType::Gauge), ("observer", MetricType::Observer)];
const ACTIONS: [(&str, Action); 2] = [("map", Action::Map), ("drop", Action::Drop)];

/// Keys of a time gone by, with what took their place.
const REMOVED: [(&str, &str); 3] = [
    ("timer_type", "observer_type"),
    ("buckets", "buckets in histogram_options"),
    ("quantiles", "quantiles in summary_options"),
];

/// A mapping file, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MappingFile {
    /// How observations are kept, of each type.
    pub(super) histogram: Observation,
    pub(super) summary: Observation,
    /// Which of the two holds where nothing else is said.
    pub(super) summaries: bool,
    /// After how long without a sample a series goes; `None` never.
    pub(super) ttl: Option<Duration>,
    /// Whether the most specific glob wins, and not the first.
    pub(super) unordered: bool,
    /// The rules, in the order in which they are tried.
    pub(super) rules: Vec<Rule>,
}

impl MappingFile {
    /// The default of the two ways to keep observations.
    pub(super) fn observation(&self) -> &Observation {
        if self.summaries { &self.summary } else { &self.histogram }
    }
}

/// A value with its places in the text.
pub(super) type Node = Spanned<Content>;

pub(super) enum Content {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(i64::try_from(value).map_or(Content::Number(value as f64), Content::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element()? {
            all.push(value);
        }
        Ok(Content::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Content, A::Error> {
        let mut all = Vec::new();
        while let Some(key) = table.next_key()? {
            all.push((key, table.next_value()?));
        }
        Ok(Content::Table(all))
    }
}

/// Reads a file whose name is `name` and whose text is `text`.
///
/// The rules come out globs first and, where the file disables ordering, the most specific glob first: that makes the
/// earliest rule that matches the one that is most specific from the left.
pub(super) fn read(name: &str, text: &str, problems: &mut Vec<Problem>) -> MappingFile {
    let mut reader = Reader::new(name, text, problems);
    let root = reader.root();
    reader.file(root.as_ref())
}

/// The bytes of a place.
fn span(location: &Location, text: &str) -> Range<usize> {
    let span = location.span();
    let bytes = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    match (bytes(span.byte_offset()), bytes(span.byte_len())) {
        (Some(start), length) if start <= text.len() => start..(start + length.unwrap_or(0)).min(text.len()),
        _ => {
            let line = usize::try_from(location.line()).unwrap_or(1).max(1);
            let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
            start..start
        }
    }
}

/// Gets values out of a file, and notes what is wrong with them.
pub(super) struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
    /// Whether secrets may stand in it: then no line of it is shown, and of values only those that cannot be one.
    is_secret: bool,
}

/// The values of a table, by key.
pub(super) type Fields<'n> = Vec<(&'n str, &'n Node)>;

pub(super) fn get<'n>(fields: &Fields<'n>, key: &str) -> Option<&'n Node> {
    fields.iter().find(|(name, _)| *name == key).map(|(_, node)| *node)
}

impl<'a> Reader<'a> {
    pub(super) fn new(name: &'a str, text: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        // Places are counted behind the mark that some editors put in front.
        Self { name, text: text.strip_prefix('\u{feff}').unwrap_or(text), problems, is_secret: false }
    }

    /// The same for a file with secrets in it.
    pub(super) fn secret(name: &'a str, text: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { is_secret: true, ..Self::new(name, text, problems) }
    }

    /// All of the file; `None` if it is no YAML, which is a problem then.
    pub(super) fn root(&mut self) -> Option<Node> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: MOST_VALUES, max_events: 2 * MOST_VALUES },
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        };
        let text = self.text;
        let error = match serde_saphyr::from_str_with_options(text, options) {
            Ok(root) => return Some(root),
            Err(error) => error,
        };
        let error = error.without_snippet();
        let span = error.location().map_or(text.len()..text.len(), |location| span(&location, text));
        let message = match error {
            serde_saphyr::Error::MultipleDocuments { .. } => "found several documents, accepted: one".to_owned(),
            // The words may hold a piece of the text.
            _ if self.is_secret => "not YAML".to_owned(),
            error => {
                let words = error.render();
                let first = words.lines().next().unwrap_or_default();
                format!("not YAML: {}", first.split(" at line ").next().unwrap_or_default())
            }
        };
        self.push_at(&span, &KeyPath::default(), message);
        None
    }

    /// How many problems there are by now, of this file and of others.
    pub(super) fn problems(&self) -> usize {
        self.problems.len()
    }
}

impl Reader<'_> {
    fn file(&mut self, root: Option<&Node>) -> MappingFile {
        let path = KeyPath::default();
        let fields = root.map(|root| self.table(root, &path, &["defaults", "mappings"])).unwrap_or_default();
        let (mut file, regexes) = self.defaults(get(&fields, "defaults"));
        let Some(list) = get(&fields, "mappings") else { return file };
        let path = path.join("mappings");
        let rules = match &list.value {
            Content::Null => &[][..],
            Content::List(rules) => rules,
            _ => {
                self.refuse(list, &path, "a list of rules");
                &[]
            }
        };
        file.rules.reserve(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let rule = self.rule(rule, &path.join(index), &file, regexes);
            file.rules.extend(rule);
        }
        let specificity = |rule: &Rule| match &rule.pattern {
            Pattern::Glob(glob) if file.unordered => glob.split('.').map(|part| part == "*").collect(),
            _ => Vec::new(),
        };
        file.rules.sort_by_cached_key(|rule| (matches!(rule.pattern, Pattern::Regex(_)), specificity(rule)));
        file
    }

    /// The defaults, without rules, and whether rules are regular expressions where they do not say.
    fn defaults(&mut self, node: Option<&Node>) -> (MappingFile, bool) {
        let path = KeyPath::parse("defaults");
        let known =
            ["observer_type", "match_type", "glob_disable_ordering", "ttl", "summary_options", "histogram_options"];
        let fields = node.map(|node| self.table(node, &path, &known)).unwrap_or_default();
        let peer = MappingFile {
            histogram: Observation::Histogram {
                bounds: BOUNDS.to_vec(),
                native_factor: NATIVE_FACTOR,
                native_max_buckets: NATIVE_MAX_BUCKETS,
            },
            summary: Observation::Summary { quantiles: QUANTILES.to_vec(), max_age: MAX_AGE },
            summaries: true,
            ttl: None,
            unordered: false,
            rules: Vec::new(),
        };
        let summaries = self.one_of(&fields, &path, "observer_type", &OBSERVER_TYPES).unwrap_or(true);
        let regexes = self.one_of(&fields, &path, "match_type", &MATCH_TYPES).unwrap_or(false);
        let unordered = self.boolean(&fields, &path, "glob_disable_ordering").unwrap_or(false);
        let ttl = self.duration(&fields, &path, "ttl").filter(|ttl| !ttl.is_zero());
        let summary = self.summary(&fields, &path, &peer.summary);
        let histogram = self.histogram(&fields, &path, &peer.histogram);
        let (summary, histogram) = (summary.unwrap_or(peer.summary), histogram.unwrap_or(peer.histogram));
        (MappingFile { histogram, summary, summaries, ttl, unordered, rules: Vec::new() }, regexes)
    }

    fn rule(&mut self, node: &Node, path: &KeyPath, file: &MappingFile, regexes: bool) -> Option<Rule> {
        let known = [
            "match",
            "match_type",
            "match_metric_type",
            "name",
            "labels",
            "honor_labels",
            "action",
            "help",
            "observer_type",
            "summary_options",
            "histogram_options",
            "ttl",
            "scale",
        ];
        let before = self.problems.len();
        if !matches!(node.value, Content::Table(_)) {
            self.refuse(node, path, "a table: a rule has match and name");
            return None;
        }
        let fields = self.table(node, path, &known);
        let regex = self.one_of(&fields, path, "match_type", &MATCH_TYPES).unwrap_or(regexes);
        let pattern = self.pattern(&fields, node, path, regex);
        let metric_type = self.one_of(&fields, path, "match_metric_type", &METRIC_TYPES);
        let name = self.string(&fields, path, "name").filter(|name| !name.is_empty());
        let accepted = "letters, digits, _, $1 and ${1}, not starting with a digit";
        match (&name, get(&fields, "name")) {
            (None, _) => self.refuse_missing(node, &path.join("name"), accepted),
            (Some(name), Some(found)) if !is_name_template(name) => self.refuse(found, &path.join("name"), accepted),
            _ => {}
        }
        let honor_labels = self.boolean(&fields, path, "honor_labels").unwrap_or(false);
        let action = self.one_of(&fields, path, "action", &ACTIONS).unwrap_or(Action::Map);
        let help = self.string(&fields, path, "help").filter(|help| !help.is_empty());
        let scale = self.number(&fields, path, "scale");
        let ttl = self.duration(&fields, path, "ttl").filter(|ttl| !ttl.is_zero());
        let observation = self.observation(&fields, path, file);
        let kept = observation.as_ref().unwrap_or(file.observation());
        let labels = self.labels(&fields, path, metric_type.filter(|kind| *kind == MetricType::Observer).map(|_| kept));
        if self.problems.len() > before {
            return None;
        }
        let line = node.referenced.line();
        Some(Rule {
            place: format!("{}:{line}", self.name),
            pattern: pattern?,
            metric_type,
            action,
            name: name?,
            labels,
            honor_labels,
            help,
            scale,
            observation,
            ttl,
        })
    }

    fn pattern(&mut self, fields: &Fields<'_>, rule: &Node, path: &KeyPath, regex: bool) -> Option<Pattern> {
        let text = self.string(fields, path, "match").filter(|text| !text.is_empty());
        let path = path.join("match");
        let accepted = "parts between dots, each `*` or letters, digits, _ and - (a regex: any text)";
        let (Some(text), Some(found)) = (text, get(fields, "match")) else {
            self.refuse_missing(rule, &path, accepted);
            return None;
        };
        if regex {
            return match Regex::new(&text) {
                Ok(regex) => Some(Pattern::Regex(regex)),
                Err(why) => {
                    self.refuse(found, &path, &format!("a regular expression ({why})"));
                    None
                }
            };
        }
        if !is_mapping_glob(&text) {
            self.refuse(found, &path, accepted);
        }
        Some(Pattern::Glob(text))
    }

    /// The labels of a rule; `kept` is how observations are kept if the rule is for these alone.
    fn labels(&mut self, fields: &Fields<'_>, path: &KeyPath, kept: Option<&Observation>) -> Vec<(String, String)> {
        let Some(node) = get(fields, "labels") else { return Vec::new() };
        let path = path.join("labels");
        let mut labels = Vec::new();
        for (name, value) in self.pairs(node, &path) {
            let at = path.join(&name.value);
            let text = self.text_of(value);
            if text.is_none() {
                self.refuse(value, &at, "a text");
            }
            let observed = kept.is_some_and(|kept| kept.reserves(&name.value));
            if name.value.len() < 2 || !is_label(&name.value) || observed {
                let accepted = "a label name of two or more of [a-zA-Z0-9_], not starting with a digit or __, \
                                not le on a histogram or quantile on a summary";
                let found = &name.value;
                self.push(&name.referenced, &at, format!("found {found:?} as name, accepted: {accepted}"));
            }
            labels.push((name.value.clone(), text.unwrap_or_default()));
        }
        labels
    }

    /// How a rule's observations are kept, if it says anything of that.
    fn observation(&mut self, fields: &Fields<'_>, path: &KeyPath, file: &MappingFile) -> Option<Observation> {
        let summaries = self.one_of(fields, path, "observer_type", &OBSERVER_TYPES);
        let summary = self.summary(fields, path, &file.summary);
        let histogram = self.histogram(fields, path, &file.histogram);
        for (key, given, unfit, word) in [
            ("summary_options", summary.is_some(), summaries == Some(false), "histogram"),
            ("histogram_options", histogram.is_some(), summaries == Some(true), "summary"),
        ] {
            if let (true, true, Some(node)) = (given, unfit, get(fields, key)) {
                self.refuse(node, &path.join(key), &format!("none, since the rule's observer type is {word:?}"));
            }
        }
        // Options for one type mean that type, whatever the default.
        match (summaries, summary, histogram) {
            (None, Some(_), Some(_)) => {
                if let Some(node) = get(fields, "histogram_options") {
                    self.refuse(node, &path.join("histogram_options"), "one of the two options, or an observer_type");
                }
                None
            }
            (Some(true), summary, _) => Some(summary.unwrap_or_else(|| file.summary.clone())),
            (Some(false), _, histogram) => Some(histogram.unwrap_or_else(|| file.histogram.clone())),
            (None, summary, histogram) => summary.or(histogram),
        }
    }

    /// What `summary_options` says, over `base`.
    fn summary(&mut self, fields: &Fields<'_>, path: &KeyPath, base: &Observation) -> Option<Observation> {
        let node = get(fields, "summary_options").filter(|node| !matches!(node.value, Content::Null))?;
        let path = path.join("summary_options");
        let fields = self.table(node, &path, &["quantiles", "max_age", "age_buckets", "buf_cap"]);
        let mut quantiles = Vec::new();
        if let Some(list) = self.list(&fields, &path, "quantiles") {
            for (index, each) in list.iter().enumerate() {
                let path = path.join("quantiles").join(index);
                let fields = self.table(each, &path, &["quantile", "error"]);
                self.number(&fields, &path, "error");
                // Left out it is 0, as in the peer.
                quantiles.push(self.number(&fields, &path, "quantile").unwrap_or(0.0));
            }
            if let (false, Some(node)) = (are_quantiles(&quantiles), get(&fields, "quantiles")) {
                self.push(
                    &node.referenced,
                    &path.join("quantiles"),
                    format!("found {quantiles:?}, accepted: at most 100 quantiles from 0 to 1, none twice"),
                );
            }
        }
        let max_age = self.duration(&fields, &path, "max_age").filter(|max_age| !max_age.is_zero());
        for key in ["age_buckets", "buf_cap"] {
            if let Some(node) = get(&fields, key)
                && !matches!(node.value, Content::Null | Content::Integer(0..=4_294_967_295))
            {
                self.refuse(node, &path.join(key), "0 to 4294967295");
            }
        }
        let Observation::Summary { quantiles: base_quantiles, max_age: base_age } = base else { return None };
        Some(Observation::Summary {
            quantiles: if quantiles.is_empty() { base_quantiles.clone() } else { quantiles },
            max_age: max_age.unwrap_or(*base_age),
        })
    }

    /// What `histogram_options` says, over `base`.
    fn histogram(&mut self, fields: &Fields<'_>, path: &KeyPath, base: &Observation) -> Option<Observation> {
        let node = get(fields, "histogram_options").filter(|node| !matches!(node.value, Content::Null))?;
        let path = path.join("histogram_options");
        let (factor, most) = ("native_histogram_bucket_factor", "native_histogram_max_buckets");
        let fields = self.table(node, &path, &["buckets", factor, most]);
        let mut bounds = Vec::new();
        if let Some(list) = self.list(&fields, &path, "buckets") {
            let found: Vec<Option<f64>> = list.iter().map(as_number).collect();
            bounds = found.iter().copied().flatten().collect();
            // `+Inf` is always there.
            if bounds.last() == Some(&f64::INFINITY) {
                bounds.pop();
            }
            let fit = found.iter().all(Option::is_some) && (found.is_empty() || are_bounds(&bounds));
            if let (false, Some(node)) = (fit, get(&fields, "buckets")) {
                self.refuse(node, &path.join("buckets"), "1 to 1000 finite numbers, ascending, none twice");
            }
        }
        let native_factor = self.number(&fields, &path, factor);
        if let (Some(found), Some(node)) = (native_factor, get(&fields, factor))
            && found != 0.0
            && !(1.0..=65536.0).contains(&found)
        {
            self.refuse(node, &path.join(factor), "1 (off) to 65536, or 0 for the default");
        }
        let native_max = match get(&fields, most).map(|node| (node, &node.value)) {
            None | Some((_, Content::Null)) => None,
            Some((_, Content::Integer(n @ 0..=4_294_967_295))) => u32::try_from(*n).ok(),
            Some((node, _)) => {
                self.refuse(node, &path.join(most), "0 to 4294967295");
                None
            }
        };
        let Observation::Histogram { bounds: base_bounds, native_factor: base_factor, native_max_buckets: base_most } =
            base
        else {
            return None;
        };
        Some(Observation::Histogram {
            bounds: if bounds.is_empty() { base_bounds.clone() } else { bounds },
            native_factor: native_factor.filter(|factor| *factor != 0.0).unwrap_or(*base_factor),
            native_max_buckets: native_max.filter(|most| *most != 0).unwrap_or(*base_most),
        })
    }

    /// The fields of a table, with a problem for each that is not known or there already.
    pub(super) fn table<'n>(&mut self, node: &'n Node, path: &KeyPath, known: &[&str]) -> Fields<'n> {
        let mut fields: Fields<'n> = Vec::new();
        for (key, value) in self.pairs(node, path) {
            let name = key.value.as_str();
            if known.contains(&name) {
                fields.push((name, value));
                continue;
            }
            let removed = REMOVED.iter().find(|(old, _)| *old == name);
            let near = known.iter().filter(|known| strsim::osa_distance(name, known) <= 2).min_by_key(|known| {
                // The nearest first.
                strsim::osa_distance(name, known)
            });
            let message = match (removed, near) {
                (Some((_, new)), _) => format!("unknown key: removed from statsd_exporter, now {new}"),
                (None, Some(near)) => format!("unknown key, did you mean {near}?"),
                (None, None) => format!("unknown key, known here: {}", known.join(", ")),
            };
            self.push(&key.referenced, &path.join(name), message);
        }
        fields
    }

    /// What a table holds, with a problem for each key that is there already.
    pub(super) fn pairs<'n>(&mut self, node: &'n Node, path: &KeyPath) -> Vec<(&'n Spanned<String>, &'n Node)> {
        let table = match &node.value {
            Content::Null => return Vec::new(),
            Content::Table(table) => table,
            _ => {
                self.refuse(node, path, "a table");
                return Vec::new();
            }
        };
        let mut pairs: Vec<(&Spanned<String>, &Node)> = Vec::with_capacity(table.len());
        for (key, value) in table {
            if pairs.iter().any(|(known, _)| known.value == key.value) {
                self.push(&key.referenced, &path.join(&key.value), "set twice".to_owned());
            } else {
                pairs.push((key, value));
            }
        }
        pairs
    }

    pub(super) fn list<'n>(&mut self, fields: &Fields<'n>, path: &KeyPath, key: &str) -> Option<&'n [Node]> {
        let node = get(fields, key)?;
        match &node.value {
            Content::Null => None,
            Content::List(list) => Some(list),
            _ => {
                self.refuse(node, &path.join(key), "a list");
                None
            }
        }
    }

    /// What the value stands for; `None` if it is not there or empty.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        path: &KeyPath,
        key: &str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let node = get(fields, key)?;
        let text = match &node.value {
            Content::Null => return None,
            Content::Text(text) if text.is_empty() => return None,
            Content::Text(text) => text.as_str(),
            _ => "",
        };
        let found = known.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
            let (last, others) = names.split_last().expect("each key has values");
            self.refuse(node, &path.join(key), &format!("{} or {last}", others.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn boolean(&mut self, fields: &Fields<'_>, path: &KeyPath, key: &str) -> Option<bool> {
        let node = get(fields, key)?;
        match node.value {
            Content::Null => None,
            Content::Bool(value) => Some(value),
            _ => {
                self.refuse(node, &path.join(key), "true or false");
                None
            }
        }
    }

    /// A finite number.
    fn number(&mut self, fields: &Fields<'_>, path: &KeyPath, key: &str) -> Option<f64> {
        let node = get(fields, key)?;
        if matches!(node.value, Content::Null) {
            return None;
        }
        let number = as_number(node).filter(|number| number.is_finite());
        if number.is_none() {
            self.refuse(node, &path.join(key), "a finite number");
        }
        number
    }

    /// A duration as Go writes it; a bare integer is in nanoseconds.
    pub(super) fn duration(&mut self, fields: &Fields<'_>, path: &KeyPath, key: &str) -> Option<Duration> {
        let node = get(fields, key)?;
        let duration = match &node.value {
            Content::Null => return None,
            Content::Integer(nanoseconds) => u64::try_from(*nanoseconds).ok().map(Duration::from_nanos),
            Content::Text(text) => go_duration(text),
            _ => None,
        };
        if duration.is_none() {
            let accepted = "a duration of at least 0, such as \"30s\" or \"1h30m\" (a bare integer: nanoseconds)";
            self.refuse(node, &path.join(key), accepted);
        }
        duration
    }

    pub(super) fn string(&mut self, fields: &Fields<'_>, path: &KeyPath, key: &str) -> Option<String> {
        let node = get(fields, key)?;
        let text = self.text_of(node);
        if text.is_none() {
            self.refuse(node, &path.join(key), "a text");
        }
        text
    }

    /// The text of a value: numbers and booleans as they are written, nothing for null. `None` for lists and tables.
    pub(super) fn text_of(&self, node: &Node) -> Option<String> {
        match &node.value {
            Content::Text(text) => Some(text.clone()),
            Content::Null => Some(String::new()),
            Content::List(_) | Content::Table(_) => None,
            Content::Bool(_) | Content::Integer(_) | Content::Number(_) => {
                Some(self.text.get(span(&node.defined, self.text)).unwrap_or_default().trim().to_owned())
            }
        }
    }

    pub(super) fn refuse(&mut self, node: &Node, path: &KeyPath, accepted: &str) {
        let found = match &node.value {
            Content::Null => "nothing".to_owned(),
            Content::Table(_) => "a table".to_owned(),
            Content::List(_) if self.is_secret => "a list".to_owned(),
            Content::Text(text) if self.is_secret && !may_be_shown(path, text) => "a text".to_owned(),
            Content::Text(text) => super::source::shorten(&format!("{text:?}")),
            Content::List(_) => self.items(node),
            _ if self.is_secret => "a value of another kind".to_owned(),
            _ => self.text_of(node).unwrap_or_default(),
        };
        self.push(&node.referenced, path, format!("found {found}, accepted: {accepted}"));
    }

    /// A list as it would stand on one line.
    fn items(&self, node: &Node) -> String {
        let Content::List(list) = &node.value else { return String::new() };
        let item = |node: &Node| self.text_of(node).unwrap_or_else(|| "...".to_owned());
        super::source::shorten(&format!("[{}]", list.iter().map(item).collect::<Vec<_>>().join(", ")))
    }

    pub(super) fn refuse_missing(&mut self, node: &Node, path: &KeyPath, accepted: &str) {
        self.push(&node.referenced, path, format!("found nothing, accepted: {accepted}"));
    }

    pub(super) fn push(&mut self, at: &Location, path: &KeyPath, message: String) {
        self.push_at(&span(at, self.text), path, message);
    }

    fn push_at(&mut self, span: &Range<usize>, path: &KeyPath, message: String) {
        if self.is_secret {
            let line = self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
            self.problems.push(Problem::bare(format!("{}:{line}", self.name), path, message));
            return;
        }
        let mut span = span.clone();
        // Of what stretches over lines the first is shown.
        let marked = self.text.get(span.clone()).unwrap_or_default();
        span.end = span.start + marked.find('\n').unwrap_or(marked.len());
        self.problems.push(Problem::in_file(self.name, self.text, &span, path, message).of_mapping_file());
    }
}

/// Whether a text in a file with secrets can be none: not at a key that takes one, nor by its looks.
fn may_be_shown(path: &KeyPath, text: &str) -> bool {
    let secret = ["key", "cert", "client_ca", "basic_auth_users", "tls_server_config"];
    let takes_one = path.is_root() || path.segments().any(|name| name == "basic_auth_users");
    let is_table = path.last().is_some_and(|name| secret.contains(&name));
    !takes_one && !is_table && !text.contains('\n') && !text.contains("-----") && !text.starts_with("$2")
}

fn as_number(node: &Node) -> Option<f64> {
    match node.value {
        Content::Integer(value) => Some(value as f64),
        Content::Number(value) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> (MappingFile, Vec<String>) {
        let mut problems = Vec::new();
        let file = read("m.yml", text, &mut problems);
        (file, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn values_keep_their_text_behind_letters_of_several_bytes_marks_and_carriage_returns() {
        let text = "\u{feff}# caf\u{e9}\r\nmappings:\r\n- match: a # \u{e9}\r\n  name: x\r\n  labels: { kind: 0x1F, level: &a 01.50, more: *a }\r\n";
        let (file, problems) = told(text);
        assert_eq!(problems, [""; 0]);
        let labels: Vec<&str> = file.rules[0].labels.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!((labels, file.rules[0].place.as_str()), (vec!["0x1F", "01.50", "01.50"], "m.yml:3"));
    }

    #[test]
    fn a_problem_behind_an_alias_is_told_where_the_alias_stands() {
        let (_, problems) =
            told("mappings:\n- match: a\n  name: x\n  scale: &s fast\n- match: b\n  name: y\n  scale: *s\n");
        let lines: Vec<&str> = problems.iter().filter_map(|problem| problem.split(' ').next()).collect();
        assert_eq!(lines, ["m.yml:4:", "m.yml:7:"], "{problems:?}");
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_and_not_blown_up() {
        let mut text = String::from("a: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            text += &format!("b{n}: &a{n} [{list}]\n");
        }
        let (_, problems) = told(&text);
        assert!(problems.len() == 1 && problems[0].contains("not YAML"), "{problems:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_a_panic(
            pieces in prop::collection::vec(
                "mappings:|- match: |defaults:|[a-z\u{e9}*.$]{0,4}|: |\n|\n  |- |\\{|\\}|\\[|\\]|, |&a |[*]a|[0-9.]{1,3}|'|\"|#|<<: |labels: |name: |ttl: ",
                0..30,
            ),
        ) {
            let mut problems = Vec::new();
            read("m.yml", &pieces.concat(), &mut problems);
            for problem in problems {
                prop_assert!(!problem.to_string().is_empty());
            }
        }
    }
}
