//! What the pipeline is run under in `pipeline`, and what a line means under it, by the words of the README.
//!
//! In: a line in parts. Out: the family and the labels that it asks for, or that a rule drops it.
//! Not here: what was recorded (`model`).
//! Always: numbers are whole, or sums of eighths, so sums are equal and not nearly equal.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::LazyLock;

use statsieve::config::Config;
use xxhash_rust::xxh64::xxh64;

use super::rig;

/// What a family keeps of its samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Keeps {
    Counter,
    Gauge,
    /// Counts up to each bound.
    Buckets(&'static [f64]),
    /// A summary of so many quantiles.
    Quantiles(usize),
    /// Members over so many seconds.
    Members(u64),
}

impl Keeps {
    /// Sample lines that a series costs.
    pub(super) fn lines(&self) -> u64 {
        match self {
            Self::Counter | Self::Gauge | Self::Members(_) => 1,
            Self::Buckets(bounds) => bounds.len() as u64 + 3,
            Self::Quantiles(quantiles) => *quantiles as u64 + 2,
        }
    }

    fn observes(&self) -> bool {
        matches!(self, Self::Buckets(_) | Self::Quantiles(_))
    }

    /// Whether a reload may put one in the place of the other.
    pub(super) fn is_type_of(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) || (self.observes() && other.observes())
    }
}

/// A configuration, and what of it the model goes by; its limits are in `config`.
pub(super) struct Terms {
    pub(super) config: Config,
    users: u64,
    observer: Keeps,
    members: u64,
    pub(super) absolute: bool,
    bot: bool,
    without_l: bool,
    rules: bool,
}

/// Rules that name, drop, scale, and keep otherwise.
const RULES: &str = r#"mapping.rules=[
    {match="c1",name="named",labels={by="rule"},ttl="2s"},
    {match="c2",name="gone",action="drop"},
    {match="c3",name="scaled",scale=2.0},
    {match="d.*",name="parts",labels={part="$1"}},
    {match="h1",name="timed",observer_type="summary",quantiles=[0.5]},
    {match="h2",name="h2",buckets=[1,3]},
    {match="y",name="y"}]"#;

/// All terms; a reload goes from one to another.
pub(super) static TERMS: LazyLock<Vec<Terms>> = LazyLock::new(|| {
    let of = |set: &[&str]| Terms {
        config: rig::config(&[set, &["cardinality.identity_cache_bytes=65536"]].concat()),
        users: 100,
        observer: Keeps::Buckets(&[1.0, 5.0]),
        members: 300,
        absolute: false,
        bot: false,
        without_l: false,
        rules: false,
    };
    vec![
        of(&["observer.buckets=[1,5]"]),
        Terms {
            users: 3,
            ..of(&[
                "observer.buckets=[1,5]",
                "bucketing.0.count=3",
                "cardinality.max_series=60",
                "cardinality.max_series_per_family=24",
                "cardinality.max_families=5",
                "cardinality.keep_labels=[\"k\"]",
            ])
        },
        Terms {
            observer: Keeps::Buckets(&[2.0, 4.0, 8.0]),
            members: 10,
            without_l: true,
            ..of(&[
                "observer.buckets=[2,4,8]",
                "distinct.windows=[\"10s\"]",
                "labels.max_values=3",
                "labels.drop=[\"l\"]",
                "cardinality.idle_ttl=3s",
            ])
        },
        Terms {
            observer: Keeps::Quantiles(1),
            absolute: true,
            bot: true,
            ..of(&[
                "observer.type=summary",
                "observer.quantiles=[0.9]",
                "observer.max_age=10s",
                "parse.gauge_sign=absolute",
                "labels.add.bot=b",
                "cardinality.max_series=20",
                "cardinality.evict_idle_after=2s",
            ])
        },
        Terms { rules: true, ..of(&["observer.buckets=[1,5]", "cardinality.zero_first=5s", RULES]) },
    ]
});

/// Members of which no two share a register, so that small sets are counted exactly.
pub(super) static MEMBERS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let names = (0..64).map(|n| format!("m{n}"));
    let mut registers = BTreeSet::new();
    let kept: Vec<_> = names.filter(|name| registers.insert(xxh64(name.as_bytes(), 0) >> 54)).collect();
    assert!(kept.len() > 48, "{kept:?}");
    kept
});

/// A line in parts.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Numbers, or places of [`MEMBERS`].
    pub(super) values: Vec<u8>,
    /// Before the number of a gauge: nothing, `+` or `-`.
    pub(super) sign: &'static str,
    /// How many events a sample stands for.
    pub(super) weight: u8,
    pub(super) k: Option<u8>,
    pub(super) l: Option<u8>,
    pub(super) user: Option<u8>,
}

/// What a line asks for.
pub(super) struct Target {
    pub(super) family: String,
    pub(super) keeps: Keeps,
    pub(super) ttl: Option<u64>,
    pub(super) scale: f64,
    /// Labels of whose values there may be any number: of tags, which may be lost, and out of the name.
    open: Vec<(&'static str, String)>,
    /// How many of them, the first ones, are of tags.
    tags: usize,
    /// Labels that somebody answers for.
    fixed: Vec<(&'static str, String)>,
}

impl Sent {
    pub(super) fn line(&self) -> String {
        let mut line = self.name.clone();
        for value in &self.values {
            _ = match self.kind {
                "s" => write!(line, ":{}", MEMBERS[usize::from(*value) % MEMBERS.len()]),
                "ms" => write!(line, ":{}", u32::from(*value) * 125),
                _ => write!(line, ":{}{value}", self.sign),
            };
        }
        line += &format!("|{}", self.kind);
        if self.weight > 1 {
            line += &format!("|@{}", 1.0 / f64::from(self.weight));
        }
        let tags = [("k", self.k), ("l", self.l), ("user_id", self.user)];
        let tags: Vec<_> = tags.iter().filter_map(|(name, value)| Some(format!("{name}:{}", (*value)?))).collect();
        if tags.is_empty() { line } else { line + "|#" + &tags.join(",") }
    }

    /// `None` if a rule drops it.
    pub(super) fn target(&self, terms: &Terms) -> Option<Target> {
        let mut fixed = Vec::new();
        let observes = matches!(self.kind, "h" | "ms");
        if let Some(user) = self.user.filter(|_| !observes) {
            let bucket = xxh64(user.to_string().as_bytes(), 0) % terms.users;
            fixed.push(("user_bucket", format!("bucket_{bucket}")));
        }
        if terms.bot {
            fixed.push(("bot", "b".to_owned()));
        }
        let (k, l) = (self.k.map(|k| ("k", k.to_string())), self.l.map(|l| ("l", l.to_string())));
        let open: Vec<_> = k.into_iter().chain(l.filter(|_| !terms.without_l)).collect();
        let (suffix, keeps) = match self.kind {
            "c" => ("_total", Keeps::Counter),
            "g" => ("", Keeps::Gauge),
            "s" => ("", Keeps::Members(terms.members)),
            "ms" => ("_seconds", terms.observer.clone()),
            _ => ("", terms.observer.clone()),
        };
        let (family, tags) = (self.name.replace('.', "_") + suffix, open.len());
        let mut target = Target { family, keeps, ttl: None, scale: 1.0, open, tags, fixed };
        if terms.rules {
            match &*self.name {
                "c1" => {
                    target.family = "named".to_owned();
                    target.fixed.push(("by", "rule".to_owned()));
                    target.ttl = Some(2);
                }
                "c2" => return None,
                "h1" => (target.family, target.keeps) = ("timed".to_owned(), Keeps::Quantiles(1)),
                "h2" => (target.family, target.keeps) = ("h2".to_owned(), Keeps::Buckets(&[1.0, 3.0])),
                "c3" => (target.family, target.scale) = ("scaled".to_owned(), 2.0),
                "y" => target.family = "y".to_owned(),
                name => {
                    if let Some(part) = name.strip_prefix("d.") {
                        target.family = "parts".to_owned();
                        target.open.push(("part", part.to_owned()));
                    }
                }
            }
        }
        Some(target)
    }
}

impl Target {
    /// The labels it may end up with: in full, and as limits may have folded and taken out some of them.
    pub(super) fn places(&self, keep: &[String]) -> Vec<String> {
        let mut places = Vec::new();
        for folded in 0..1 << self.open.len() {
            let value = |at: usize, value: &str| if folded >> at & 1 == 1 { "other" } else { value }.to_owned();
            let open = || self.open.iter().enumerate().map(|(at, (name, text))| (*name, value(at, text)));
            places.push(rendered(open().chain(self.fixed.iter().cloned())));
            let kept = open().enumerate().filter(|(at, (name, _))| *at >= self.tags || is_kept(name, keep));
            places.push(rendered(kept.map(|(_, label)| label).chain(self.fixed.iter().cloned())));
        }
        places
    }

    /// Whether it has labels that a simplified series loses.
    pub(super) fn can_lose(&self, keep: &[String]) -> bool {
        self.open[..self.tags].iter().any(|(name, _)| !is_kept(name, keep))
    }

    /// The labels of overflow series.
    pub(super) fn overflow(terms: &Terms) -> &'static str {
        if terms.bot { "bot=\"b\",overflow=\"true\"" } else { "overflow=\"true\"" }
    }

    pub(super) fn open(&self) -> &[(&'static str, String)] {
        &self.open
    }
}

fn is_kept(name: &str, keep: &[String]) -> bool {
    keep.iter().any(|keep| keep == name)
}

fn rendered(labels: impl Iterator<Item = (&'static str, String)>) -> String {
    let mut labels: Vec<_> = labels.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    labels.sort();
    labels.join(",")
}
