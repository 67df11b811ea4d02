//! Reads the configuration and hands out what is checked.
//!
//! In: the built-in `config.toml`, a file merged over it key by key, and `--set` overrides. Out: a [`Config`] that
//! nothing needs to check again, or every [`Problem`] at once.
//! Not here: what the values are used for; compiling rules (each stage does that from the checked values).
//! Always: the text of `config.toml` is the only source of defaults; a key stands there and in `raw`, or in neither.

mod check;
mod keys;
mod problem;
mod raw;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

pub use problem::{Problem, Problems};

/// A configuration that was read and checked, with what a start-up says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What the program runs by.
    pub config: Config,
    /// Dotted keys set away from their defaults that have no effect in this version; worth one warning.
    pub pending: Vec<String>,
    /// The configuration in force as TOML, every key written out. Secrets stand in it as paths of files only.
    pub text: String,
    /// 16 hexadecimal digits of xxh64 (seed 0) of `text`: equal on instances that run by the same keys.
    pub hash: String,
}

/// Reads the defaults, the file over them and the overrides over both.
///
/// Reads the file and the salt files it names; for start and reload, not for the hot path.
///
/// # Errors
/// Every problem of the file and the overrides at once. A file that cannot be read, or is no TOML, is the only
/// problem told, since nothing else can be known then.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut merged = source::Merged::new();
    let mut problems = Vec::new();
    if let Some(path) = &sources.file {
        merged.add_file(path, &mut problems).map_err(|problem| Problems::new(vec![problem]))?;
    }
    for argument in &sources.set {
        merged.add_override(argument, &mut problems);
    }
    let raw = merged.read(&mut problems);
    let config = check::check(&raw, &merged, &mut problems);
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    let text = toml::to_string(&raw).expect("tables of plain values and lists can be written as TOML");
    let hash = format!("{:016x}", xxh64(text.as_bytes(), 0));
    Ok(Loaded { config, pending: merged.pending(), text, hash })
}

impl Config {
    /// The configuration of the built-in defaults alone.
    ///
    /// # Panics
    /// If the built-in `config.toml` does not pass its own checks, which a test rules out.
    pub fn default_checked() -> Self {
        load(&Sources::default()).expect("the built-in defaults pass their checks; a test loads them").config
    }

    /// Notes for whoever reviews the configuration: what is reachable from elsewhere, and rules without effect.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for (key, address) in [("listen.udp", self.listen.udp.as_ref()), ("http.listen", Some(&self.http.listen))] {
            if let Some(address) = address.filter(|address| !check::is_loopback(address)) {
                remarks.push(format!("{key}: {address} can be reached from other machines"));
            }
        }
        for (index, rule) in self.bucketing.iter().enumerate() {
            for tag in &rule.tags {
                if let Some(glob) = self.labels.drop.iter().find(|glob| check::glob_matches(glob, tag)) {
                    remarks.push(format!(
                        "bucketing.{index}.tags: {tag:?} never arrives, labels.drop takes it out ({glob:?})"
                    ));
                }
            }
        }
        remarks
    }
}

/// The configuration in force; every value is within its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[listen]`
    pub listen: Listen,
    /// `[http]`
    pub http: Http,
    /// `[parse]`
    pub parse: Parse,
    /// `[naming]`
    pub naming: Naming,
    /// `[observer]`
    pub observer: Observer,
    /// `[[bucketing]]`, in the order of the file; no tag stands in two of them.
    pub bucketing: Vec<Bucketing>,
    /// `[labels]`
    pub labels: Labels,
    /// `[cardinality]`
    pub cardinality: Cardinality,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[log]`
    pub log: Log,
    // Tables whose feature does not exist yet (reload, mapping, declare, rate_limit, sampling, distinct, heavy_hitters,
    // relay) are checked when read; the issue that brings the feature gives them a struct here.
}

/// Where lines come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// `host:port` to receive UDP on, resolved when bound; `None` is off. An empty host in the file became `0.0.0.0`.
    pub udp: Option<String>,
    /// Asked of the kernel for each socket, bytes; what it grants is exposed.
    pub receive_buffer_bytes: usize,
    /// Whether the user's file or `--set` names `receive_buffer_bytes`: a shortfall is then a warning.
    pub receive_buffer_asked: bool,
    /// Longest line taken, bytes.
    pub max_line_bytes: usize,
    /// Worker threads; `None` chooses by the CPU quota.
    pub workers: Option<usize>,
    /// How long datagrams may gather before they are read; zero reads each at once.
    pub coalesce: Duration,
}

/// Where scrapes come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// `host:port`, resolved when bound.
    pub listen: String,
    /// Path of the exposition; starts with `/`.
    pub metrics_path: String,
    /// Formats offered, none twice, at least one.
    pub formats: Vec<Format>,
    /// Connections served at a time; a further one waits in the kernel's backlog. At least 1.
    pub max_connections: usize,
    /// A reader that takes nothing for this long is cut off.
    pub write_timeout: Duration,
    /// How long to wait for a last scrape once asked to stop.
    pub drain: Duration,
}

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

/// Which dialects are read, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parse {
    /// `|#key:value,...`
    pub dogstatsd_tags: bool,
    /// `name,key=value`
    pub influxdb_tags: bool,
    /// `name#key=value`
    pub librato_tags: bool,
    /// `name[key=value]`
    pub signalfx_tags: bool,
    /// Whether a signed gauge value is a change (StatsD) or a plain value (Datadog Agent).
    pub gauge_sign: GaugeSign,
    /// Whether `ms` values are in seconds already.
    pub ms_unit: MsUnit,
    /// Whether a bare tag becomes `tag="true"`; otherwise it is dropped and counted.
    pub bare_tags: BareTags,
    /// Label for the `|c:` field; `None` leaves it out.
    pub container_id_label: Option<String>,
}

/// How `+5|g` and `-5|g` are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaugeSign {
    /// A change of the gauge.
    Delta,
    /// Its new value.
    Absolute,
}

/// The unit of `|ms` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsUnit {
    /// Milliseconds, divided by 1,000.
    Milliseconds,
    /// Seconds, taken as they are.
    Seconds,
}

/// What becomes of a tag without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareTags {
    /// Left out and counted.
    Drop,
    /// `tag="true"`.
    True,
}

/// Names of families that no mapping rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Put in front of every name; legal in a metric name, or empty.
    pub prefix: String,
    /// Put behind a counter's name that does not end so.
    pub counter_suffix: String,
    /// Put behind a timer's name that does not end so, in place of `_ms` or `_milliseconds`.
    pub timer_suffix: String,
}

/// How observations without a rule of their own are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Observer {
    /// Upper bounds, ascending, finite, none twice; `+Inf` is not among them.
    pub bounds: Vec<f64>,
}

/// One `[[bucketing]]` rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucketing {
    /// Tags whose values are replaced; not empty.
    pub tags: Vec<String>,
    /// The label that stands in for them; a legal label name.
    pub label: String,
    /// How a value finds its bucket.
    pub method: BucketMethod,
    /// Number of buckets, at least 1.
    pub count: u32,
    /// Put in front of each value before it is hashed; empty without a `salt_file`. Never shown.
    pub salt: Vec<u8>,
    /// Text of a bucket: `{}` stands once for its number.
    pub format: String,
    /// Whether observations keep the label; otherwise they lose the tag.
    pub observers: bool,
}

/// How a value finds its user bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketMethod {
    /// xxh64 (seed 0) of salt and value, modulo the count.
    Hash,
    /// `(id // size) % count` on 64-bit integers, rounded down as Python does; anything else by `Hash`.
    Range {
        /// Ids that share a bucket in a row; at least 1.
        size: i64,
    },
}

/// Limits and rules for labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Globs on tag names (`*` matches any run of characters); a tag that matches is left out before identity.
    pub drop: Vec<String>,
    /// Constant labels of every user series, sorted by name; legal names.
    pub add: Vec<(String, String)>,
    /// Most labels on a series.
    pub max_count: usize,
    /// Longest metric name and tag key, bytes.
    pub max_name_bytes: usize,
    /// Longest label value, bytes; longer ones are cut.
    pub max_value_bytes: usize,
}

/// Limits on series, in sample lines of a text scrape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cardinality {
    /// Of all families.
    pub max_series: u64,
    /// Of one family.
    pub max_series_per_family: u64,
    /// Families; past it a new name is dropped.
    pub max_families: usize,
    /// Bytes of identity cache for each worker.
    pub identity_cache_bytes: usize,
}

/// How much the sidecar says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Which own metrics are exposed.
    pub own_metrics: OwnMetrics,
}

/// Which own metrics are exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnMetrics {
    /// All.
    Full,
    /// At most 30 series.
    Core,
}

/// Logs, to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least level written.
    pub level: LogLevel,
    /// How a line is written.
    pub format: LogFormat,
}

/// The least level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Changes of state.
    Info,
    /// What needs a look.
    Warn,
    /// What fails.
    Error,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Where the configuration came from besides the built-in defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A file merged over the defaults; none is read unasked.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` texts of `--set`, applied in order after the file.
    pub set: Vec<String>,
}
