//! Mapping rules, checked: what a rule matches, and what becomes of it.
//!
//! Here: the words that the two notations of a rule, `[[mapping.rules]]` and the mapping files of `statsd_exporter`,
//! are read into. Not here: how they are read (`check`, `yaml`), how a rule is found (`crate::map`).
//! Always: rules stand in the order in which they are tried.

use std::path::PathBuf;
use std::time::Duration;

use crate::map::regex::Regex;
use crate::map::rules;
use crate::model::closed_set;

/// Rules without effect that are named one by one; the rest is counted.
const MOST_SHADOWED: usize = 20;

/// `[mapping]`, with what a mapping file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The mapping file, if there is one.
    pub file: Option<PathBuf>,
    /// A hash of its text; 0 without a file.
    pub file_hash: u64,
    /// Rules in the order in which they are tried, but for regular expressions, which come after all globs. Those of
    /// the file come first.
    pub rules: Vec<Rule>,
    /// How observations of names without a rule are kept, and of rules that do not say: as the `defaults` of the
    /// mapping file have it, or else `[observer]`.
    pub observation: Observation,
    /// After how long without a sample a series goes, where no rule says otherwise: the `ttl` of the file's `defaults`.
    /// `None` leaves that to the limits.
    pub ttl: Option<Duration>,
}

/// How observations are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// Counts by classic buckets.
    Histogram {
        /// Upper bounds, ascending, finite, none twice; `+Inf` is not among them.
        bounds: Vec<f64>,
        /// Growth from one bucket of the native histogram to the next; 1 is none.
        native_factor: f64,
        /// Buckets that a native histogram may have before it becomes coarser.
        native_max_buckets: u32,
    },
    /// Quantiles over a while.
    Summary {
        /// From 0 to 1, none twice.
        quantiles: Vec<f64>,
        /// How far back they look; not zero.
        max_age: Duration,
    },
}

impl Observation {
    /// Whether a label of this name means something in what is exposed of it.
    pub fn reserves(&self, label: impl AsRef<[u8]>) -> bool {
        label.as_ref() == self.own_label().as_bytes()
    }

    /// The label that tells the lines of a series apart.
    const fn own_label(&self) -> &'static str {
        match self {
            Self::Histogram { .. } => "le",
            Self::Summary { .. } => "quantile",
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Where it stands: file and line, or `mapping.rules.N`.
    pub place: String,
    /// Names that it is for.
    pub pattern: Pattern,
    /// The type of metric that it is for; `None` is any.
    pub metric_type: Option<MetricType>,
    /// Whether samples are refused.
    pub action: Action,
    /// Template of the name, final but for escaping.
    pub name: String,
    /// Names of labels, legal, and templates of their values.
    pub labels: Vec<(String, String)>,
    /// Whether an incoming tag wins over a label of the rule.
    pub honor_labels: bool,
    /// Help text of the family.
    pub help: Option<String>,
    /// What values are multiplied by, in their base unit; finite.
    pub scale: Option<f64>,
    /// How observations are kept; `None` as those without a rule.
    pub observation: Option<Observation>,
    /// After how long without a sample a series goes: zero is never, `None` as for names without a rule.
    pub ttl: Option<Duration>,
}

/// What names a rule is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Parts between dots, `*` for any one.
    Glob(String),
    /// Found anywhere in the name.
    Regex(Regex),
}

impl Pattern {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Glob(glob) => glob,
            Self::Regex(regex) => regex.as_str(),
        }
    }
}

closed_set! {
    /// What a rule tells types of samples apart by.
    pub enum MetricType {
        /// `c`.
        Counter = "counter",
        /// `g`.
        Gauge = "gauge",
        /// `ms`, `h` and `d`.
        Observer = "observer",
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives name and labels.
    Map,
    /// Refuses the sample.
    Drop,
}

impl Mapping {
    /// Every way in which observations are kept.
    pub fn observations(&self) -> impl Iterator<Item = &Observation> {
        self.rules.iter().filter_map(|rule| rule.observation.as_ref()).chain([&self.observation])
    }

    /// Notes on rules that do not do what they say.
    pub(super) fn remarks(&self, remarks: &mut Vec<String>) {
        let shadowed = rules::shadowed(&self.rules);
        for (later, earlier) in shadowed.iter().take(MOST_SHADOWED) {
            let (later, earlier) = (&self.rules[*later], &self.rules[*earlier]);
            let (place, pattern) = (&later.place, later.pattern.as_str());
            let (first, general) = (&earlier.place, earlier.pattern.as_str());
            remarks.push(format!("{place}: {pattern:?} never matches, {first} comes first ({general:?})"));
        }
        if shadowed.len() > MOST_SHADOWED {
            remarks.push(format!("mapping: {} more rules never match", shadowed.len() - MOST_SHADOWED));
        }
    }
}
