//! Reads the configuration and hands out what is checked.
//!
//! In: the built-in `config.toml`, a file merged over it key by key, and `--set` overrides. Out: a [`Config`] that
//! nothing needs to check again, or every [`Problem`] at once.
//! Not here: what the values are used for; compiling rules (each stage does that from the checked values).
//! Always: the text of `config.toml` is the only source of defaults; a key stands there and in `raw`, or in neither.

mod check;
pub mod convert;
pub(crate) mod file;
mod keys;
mod mapping;
pub mod paste;
mod problem;
mod raw;
mod source;
mod syntax;
mod waiting;
mod web;
mod yaml;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use self::problem::KeyPath;
pub use file::Known;
pub use mapping::{Action, Mapping, MetricType, Observation, Pattern, Rule};
pub use problem::{Problem, Problems};
pub use syntax::glob_matches;
pub use web::{Seen, Stamp, Web, load as load_web};

/// A configuration that was read and checked, with what a start-up says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What the program runs by.
    pub config: Config,
    /// The configuration in force as TOML, every key written out. Secrets stand in it as paths of files only.
    pub text: String,
    /// 16 hexadecimal digits of xxh64 of `text`, its seed 0 or that hash of the mapping file's text: equal on instances
    /// that run by the same keys and rules.
    pub hash: String,
    /// The file that was read over the defaults.
    pub file: Option<PathBuf>,
    /// How many keys the command line set.
    pub overrides: usize,
    /// The files that were read: itself, and such as those of salts. Not those of the web configuration, which the
    /// server follows itself.
    pub files: Vec<Known>,
    /// Those.
    web_files: Vec<Known>,
    /// Those of all files that hold not a byte.
    empty: Vec<PathBuf>,
    /// Lines of `text`, by number, as they will be after a restart.
    waiting: Vec<(usize, String)>,
}

/// The files that a configuration is read from.
#[derive(Default)]
struct Files {
    own: Vec<Known>,
    /// The web configuration, and what it names.
    web: Vec<Known>,
}

/// Every key with what it accepts, in words; `*` stands for an index, or for a name that the user chooses.
pub fn accepted() -> impl Iterator<Item = (&'static str, &'static str)> {
    keys::KEYS.iter().copied()
}

/// Reads the defaults, the file over them and the overrides over both.
///
/// # Errors
/// As [`load_over`].
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    load_over(None, sources)
}

/// The same with a preset: its defaults come under the file, its flags between the file and the overrides.
///
/// Reads the file, the mapping file and the salt files it names; for start and reload, not for the hot path.
///
/// # Errors
/// Every problem of the file and the overrides at once. A file that cannot be read, or is no TOML, is the only
/// problem told, since nothing else can be known then. The files that were read come with them.
pub fn load_over(preset: Option<&Preset>, sources: &Sources) -> Result<Loaded, Problems> {
    let mut merged = source::Merged::new();
    let mut problems = Vec::new();
    if let Some(preset) = preset {
        merged.add_preset(preset.defaults, &mut problems);
    }
    let mut files = Files::default();
    if let Some(path) = &sources.file
        && let Err(refused) = merged.add_file(path, &mut problems, &mut files.own)
    {
        return Err(refused.of(files.own));
    }
    let flags = preset.map_or(&[][..], |preset| &preset.flags);
    for flag in flags {
        merged.add_flag(flag);
    }
    for argument in &sources.set {
        merged.add_override(argument, &mut problems);
    }
    let raw = merged.read(&mut problems);
    let config = check::check(&raw, &merged, &mut problems, &mut files);
    let Files { own: files, web: web_files } = files;
    if !problems.is_empty() {
        return Err(Problems::new(problems).of([files, web_files].concat()));
    }
    let text = toml::to_string(&raw).expect("tables of plain values and lists can be written as TOML");
    let hash = waiting::hash(&text, config.mapping.file_hash);
    let (file, overrides) = (sources.file.clone(), flags.len() + sources.set.len());
    let mapping = config.mapping.file.clone().filter(|_| config.mapping.file_hash == xxh64(&[], 0));
    // One that was cut to nothing would else open a door that TLS or a password held shut.
    let is_empty = |path: &PathBuf| file::read(path).is_ok_and(|bytes| bytes.trim_ascii().is_empty());
    let web = config.http.web_config_file.clone().filter(is_empty);
    let empty = file.clone().filter(|_| merged.is_empty_file()).into_iter().chain(mapping).chain(web).collect();
    Ok(Loaded { config, text, hash, file, overrides, files, web_files, empty, waiting: Vec::new() })
}

impl Loaded {
    /// Refuses files that hold nothing any more, though they did when `before` was read: whoever writes a file has it
    /// empty for a moment, and a full disk leaves it so. One that is meant to say nothing can hold a comment.
    ///
    /// # Errors
    /// A problem for each such file.
    pub fn not_emptied_since(self, before: &Self) -> Result<Self, Problems> {
        let emptied = self.empty.iter().filter(|file| !before.empty.contains(file));
        let message = "is empty, and was not before: is it being written, or is the disk full? A comment in it says that \
                       it is meant";
        let problem = |file: &PathBuf| Problem::bare(file.display().to_string(), &KeyPath::default(), message);
        match emptied.map(problem).collect::<Vec<_>>() {
            problems if problems.is_empty() => Ok(self),
            problems => Err(Problems::new(problems).of([self.files, self.web_files].concat())),
        }
    }
}

impl Config {
    /// The configuration of the built-in defaults alone.
    ///
    /// # Panics
    /// If the built-in `config.toml` does not pass its own checks, which a test rules out.
    pub fn default_checked() -> Self {
        load(&Sources::default()).expect("the built-in defaults pass their checks; a test loads them").config
    }

    /// Notes for whoever reviews the configuration: what can be reached from elsewhere, and what to do.
    pub fn exposures(&self) -> Vec<String> {
        let addresses = [
            ("listen.udp", self.listen.udp.as_ref()),
            ("listen.tcp", self.listen.tcp.as_ref()),
            ("http.listen", Some(&self.http.listen)),
        ];
        let open = addresses.iter().filter_map(|(key, address)| self.exposure(key, address.as_ref()?));
        open.collect()
    }

    /// The same for one address, which the configuration or a service manager gives for `key`; `None` on the loopback.
    pub fn exposure(&self, key: &str, address: &str) -> Option<String> {
        let advice = match (key, &self.http.web_config_file) {
            ("http.listen", None) => {
                "whoever reaches it reads all metrics: take the loopback, let only Prometheus through, or ask for a \
                 password or a certificate by http.web_config_file"
            }
            ("http.listen", Some(_)) => {
                "whoever reaches it reads all metrics, unless http.web_config_file asks for a password or a certificate"
            }
            _ => {
                "whoever reaches it can write any metric, since StatsD has no passwords: take the loopback or a unix \
                 socket, or let only the bot through"
            }
        };
        let is_open = !syntax::is_loopback(address);
        is_open.then(|| format!("{key}: {address} can be reached from other machines; {advice}"))
    }

    /// The same: rules without effect.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for (index, rule) in self.bucketing.iter().enumerate() {
            for tag in &rule.tags {
                let drops = |glob: &&String| glob_matches(glob.as_bytes(), tag.as_bytes());
                if let Some(glob) = self.labels.drop.iter().find(drops) {
                    remarks.push(format!(
                        "bucketing.{index}.tags: {tag:?} never arrives, labels.drop takes it out ({glob:?})"
                    ));
                }
            }
        }
        if self.sampling.mode != SamplingMode::Fixed && self.sampling.rate < 1.0 {
            remarks.push("sampling.rate: has no effect unless sampling.mode is \"fixed\"".to_owned());
        }
        self.mapping.remarks(&mut remarks);
        remarks.extend(self.http.web_remarks.iter().cloned());
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
    /// `[reload]`
    pub reload: Reload,
    /// `[mapping]`
    pub mapping: Mapping,
    /// `[[bucketing]]`, in the order of the file; no tag stands in two of them.
    pub bucketing: Vec<Bucketing>,
    /// `[labels]`
    pub labels: Labels,
    /// `[cardinality]`
    pub cardinality: Cardinality,
    /// `[[declare]]`, in the order of the file; no name twice.
    pub declare: Vec<Declared>,
    /// `[rate_limit]`
    pub rate_limit: RateLimit,
    /// `[sampling]`
    pub sampling: Sampling,
    /// `[distinct]`
    pub distinct: Distinct,
    /// `[heavy_hitters]`
    pub heavy_hitters: HeavyHitters,
    /// `[relay]`
    pub relay: Relay,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[log]`
    pub log: Log,
    // are checked when read; the issue that brings the feature gives them a struct here.
}

/// Where lines come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// `host:port` to receive UDP on, resolved when bound; `None` is off. An empty host in the file became `0.0.0.0`.
    pub udp: Option<String>,
    /// The same for connections of TCP. At least one of the four is on.
    pub tcp: Option<String>,
    /// Absolute path of a unix datagram socket, or `@name` for an abstract one; `None` is off.
    pub unix_datagram: Option<String>,
    /// The same for streams.
    pub unix_stream: Option<String>,
    /// Permissions of the files of unix sockets.
    pub socket_mode: u32,
    /// Streams open at a time, at least 1.
    pub max_connections: usize,
    /// A stream that sends nothing for this long is closed; zero never closes one.
    pub idle_timeout: Duration,
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
    /// Whether OpenMetrics text has `_created` lines.
    pub created_lines: bool,
    /// Whether `/-/reload` and `/-/quit` are obeyed.
    pub lifecycle: bool,
    /// Who may see `/api/v1/top` and `/api/v1/config`.
    pub debug_api: DebugApi,
    /// The web configuration file; `None` serves plain HTTP to everyone. It was read, and was good.
    pub web_config_file: Option<PathBuf>,
    /// What is in that file and has no effect.
    pub web_remarks: Vec<String>,
    /// Connections served at a time; a further one waits in the kernel's backlog. At least 1.
    pub max_connections: usize,
    /// A reader that takes nothing for this long is cut off.
    pub write_timeout: Duration,
    /// How long to wait for a last scrape once asked to stop.
    pub drain: Duration,
}

/// Who may see what is under `/api/v1/`; values of bucketed tags are among it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugApi {
    /// Clients on this machine.
    Loopback,
    /// Everyone who reaches the HTTP port.
    All,
    /// Nobody: the paths do not exist.
    Off,
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
    /// Whether what Datadog clients tell of themselves is summed; otherwise these are metrics like any other.
    pub client_telemetry: bool,
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

/// When the configuration is read again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// When one of its files changes.
    pub watch: bool,
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
    /// Distinct values of one label in one family; later ones become `other`.
    pub max_values: usize,
    /// Longest metric name and tag key, bytes.
    pub max_name_bytes: usize,
    /// Longest label value, bytes; longer ones are cut.
    pub max_value_bytes: usize,
}

/// Limits on series, in sample lines of a text scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Cardinality {
    /// Of all families.
    pub max_series: u64,
    /// Of one family.
    pub max_series_per_family: u64,
    /// Families; past it a new name is dropped.
    pub max_families: usize,
    /// Bytes of cells, label text and tables.
    pub max_bytes: u64,
    /// New series in a second; 0 is no limit.
    pub new_series_per_second: u32,
    /// Share of either limit past which a new series is simplified, 0 to 1.
    pub simplify_at: f64,
    /// Labels that a simplified series keeps; legal names.
    pub keep_labels: Vec<String>,
    /// How long a series may be idle before it goes, limits or not; zero is for ever.
    pub idle_ttl: Duration,
    /// How long a new counter is shown as 0 before its value is; zero shows it at once.
    pub zero_first: Duration,
    /// How long a series must have been idle to give way at a limit.
    pub evict_idle_after: Duration,
    /// Bytes of identity cache for each worker.
    pub identity_cache_bytes: usize,
}

/// Where raw lines are sent on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// `host:port` each, looked up at start, at reload and every 30 seconds; empty is off.
    pub targets: Vec<String>,
    /// Largest datagram, bytes.
    pub packet_bytes: usize,
}

/// Quotas on samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Samples in a second, of all families together; `None` is no limit.
    pub samples_per_second: Option<NonZeroU32>,
    /// Samples in a second of one family; `None` is no limit.
    pub family_samples_per_second: Option<NonZeroU32>,
}

/// Thinning of datagrams' lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// When lines are thinned.
    pub mode: SamplingMode,
    /// Share of lines kept in [`SamplingMode::Fixed`]; above 0, at most 1.
    pub rate: f64,
    /// The least share in [`SamplingMode::Adaptive`]; above 0, at most 1.
    pub min_rate: f64,
    /// Share of a core, or of the CPU quota if that is less, that a worker should use; above 0, at most 1.
    pub target_load: f64,
    /// How often the share is decided anew; not zero.
    pub interval: Duration,
}

/// When lines are thinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingMode {
    /// While a worker is loaded, as much as it takes.
    Adaptive,
    /// Always, to one share.
    Fixed,
    /// Never.
    Off,
}

/// Series that exist from the start: every combination of the label values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Family name as exposed.
    pub name: String,
    /// What the family is.
    pub kind: DeclaredKind,
    /// Label names, each with its values, at least one.
    pub labels: Vec<(String, Vec<String>)>,
}

/// What a declared family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations, kept as `[observer]` says.
    Observer,
}

impl Declared {
    /// Every combination of its labels; one without labels if there are none.
    pub fn combinations(&self) -> Vec<Vec<(&str, &str)>> {
        let mut all = vec![Vec::new()];
        for (name, values) in &self.labels {
            let longer = |labels: &Vec<_>| {
                let labels = labels.clone();
                values.iter().map(move |value| [labels.clone(), vec![(name.as_str(), value.as_str())]].concat())
            };
            all = all.iter().flat_map(longer).collect();
        }
        all
    }
}

/// Estimates of how many different values a bucketed tag has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distinct {
    /// Time spans to look back over, none twice, at least one.
    pub windows: Vec<Window>,
    /// Registers of an estimate, a power of two from 16 to 65536.
    pub registers: usize,
    /// Whether the registers themselves are exposed.
    pub export_registers: bool,
}

/// A time span as it was written, for the label, and as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// As configured, such as `5m`.
    pub text: String,
    /// At least a second.
    pub span: Duration,
}

/// Which values of a bucketed tag send most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeavyHitters {
    /// Values followed for each tag; 0 is off.
    pub capacity: usize,
}

/// How much the sidecar says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Which own metrics are exposed.
    pub own_metrics: OwnMetrics,
    /// Whether those of `statsd_exporter` stand beside them, under its names.
    pub statsd_exporter_metrics: bool,
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

/// Another program's defaults and flags, in terms of our keys: what this one goes by in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Built-in TOML, merged over the defaults and under the file. Must load; a test has to say so.
    pub defaults: &'static str,
    /// Applied in order after the file and before `--set`.
    pub flags: Vec<Flag>,
}

/// One flag of another program.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// As `--flag=value`, which problems are told by.
    pub written: String,
    /// The dotted key that it stands for.
    pub key: &'static str,
    /// The value of that key, of the type that the key has.
    pub value: toml::Value,
}

/// A duration as Go programs take it on their command line: `200ms`, `1h30m`; `None` for anything else.
pub fn go_duration(text: &str) -> Option<Duration> {
    syntax::go_duration(text)
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;
    use xxhash_rust::xxh64::xxh64;

    use super::*;

    fn with(set: &[&str]) -> Sources {
        Sources { file: None, set: set.iter().map(ToString::to_string).collect() }
    }

    fn good(set: &[&str]) -> Loaded {
        load(&with(set)).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn bad(set: &[&str]) -> String {
        load(&with(set)).expect_err(&format!("{set:?} has problems")).to_string()
    }

    #[test]
    fn the_defaults_are_checked_into_what_the_program_runs_by() {
        let loaded = good(&[]);
        let seconds = Duration::from_secs;
        let expected = Config {
            listen: Listen {
                udp: Some("127.0.0.1:8125".to_owned()),
                tcp: None,
                unix_datagram: None,
                unix_stream: None,
                socket_mode: 0o660,
                max_connections: 1024,
                idle_timeout: Duration::from_secs(300),
                receive_buffer_bytes: 8_388_608,
                receive_buffer_asked: false,
                max_line_bytes: 8192,
                workers: None,
                coalesce: Duration::from_millis(2),
            },
            http: Http {
                listen: "127.0.0.1:9102".to_owned(),
                metrics_path: "/metrics".to_owned(),
                formats: vec![Format::OpenMetrics, Format::Protobuf, Format::Text],
                created_lines: false,
                lifecycle: false,
                debug_api: DebugApi::Loopback,
                web_config_file: None,
                web_remarks: vec![],
                max_connections: 64,
                write_timeout: seconds(30),
                drain: seconds(2),
            },
            parse: Parse {
                dogstatsd_tags: true,
                influxdb_tags: true,
                librato_tags: true,
                signalfx_tags: true,
                gauge_sign: GaugeSign::Delta,
                ms_unit: MsUnit::Milliseconds,
                bare_tags: BareTags::Drop,
                container_id_label: None,
                client_telemetry: true,
            },
            naming: Naming {
                prefix: String::new(),
                counter_suffix: "_total".to_owned(),
                timer_suffix: "_seconds".to_owned(),
            },
            observer: Observer { bounds: vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0] },
            reload: Reload { watch: false },
            relay: Relay { targets: vec![], packet_bytes: 1400 },
            mapping: Mapping {
                file: None,
                file_hash: 0,
                rules: Vec::new(),
                observation: Observation::Histogram {
                    bounds: vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
                    native_factor: 1.1,
                    native_max_buckets: 160,
                },
                ttl: None,
            },
            bucketing: vec![Bucketing {
                tags: vec!["user_id".to_owned()],
                label: "user_bucket".to_owned(),
                method: BucketMethod::Hash,
                count: 100,
                salt: Vec::new(),
                format: "bucket_{}".to_owned(),
                observers: false,
            }],
            labels: Labels {
                drop: ["dd.internal.*", "message_id", "update_id"].map(str::to_owned).to_vec(),
                add: Vec::new(),
                max_count: 32,
                max_values: 200,
                max_name_bytes: 256,
                max_value_bytes: 256,
            },
            cardinality: Cardinality {
                max_series: 10_000,
                max_series_per_family: 5_000,
                max_families: 2_000,
                max_bytes: 64 << 20,
                new_series_per_second: 10_000,
                simplify_at: 0.8,
                keep_labels: Vec::new(),
                idle_ttl: Duration::ZERO,
                zero_first: Duration::ZERO,
                evict_idle_after: Duration::from_secs(600),
                identity_cache_bytes: 4_194_304,
            },
            rate_limit: RateLimit { samples_per_second: None, family_samples_per_second: None },
            sampling: Sampling {
                mode: SamplingMode::Adaptive,
                rate: 1.0,
                min_rate: 0.01,
                target_load: 0.5,
                interval: seconds(1),
            },
            declare: Vec::new(),
            distinct: Distinct {
                windows: [("5m", 300), ("24h", 86_400)]
                    .map(|(text, span)| Window { text: text.to_owned(), span: seconds(span) })
                    .to_vec(),
                registers: 1024,
                export_registers: false,
            },
            heavy_hitters: HeavyHitters { capacity: 100 },
            telemetry: Telemetry { own_metrics: OwnMetrics::Full, statsd_exporter_metrics: false },
            log: Log { level: LogLevel::Info, format: LogFormat::Logfmt },
        };
        assert_eq!(loaded.config, expected);
        assert_eq!(loaded.config, Config::default_checked());
        assert_eq!(loaded.hash, format!("{:016x}", xxh64(loaded.text.as_bytes(), 0)));
    }

    #[test]
    fn the_last_override_wins() {
        let loaded = good(&["listen.workers=1", "listen.workers=3"]);
        assert_eq!(loaded.config.listen.workers, Some(3));
    }

    #[test]
    fn overrides_are_text_where_the_default_is() {
        for argument in ["listen.udp=0.0.0.0:8125", "listen.udp=\"0.0.0.0:8125\"", "listen.udp=:8125"] {
            assert_eq!(good(&[argument]).config.listen.udp.as_deref(), Some("0.0.0.0:8125"), "{argument}");
        }
        assert_eq!(good(&["parse.bare_tags=true"]).config.parse.bare_tags, BareTags::True);
        assert_eq!(good(&["naming.counter_suffix="]).config.naming.counter_suffix, "");
        let added = good(&["labels.add.region=eu", "labels.add.cell=5"]).config.labels.add;
        assert_eq!(added, [("cell".to_owned(), "5".to_owned()), ("region".to_owned(), "eu".to_owned())]);
    }

    #[test]
    fn overrides_reach_into_lists_and_replace_them() {
        let rules = good(&["bucketing.0.count=16"]).config.bucketing;
        assert_eq!((rules[0].count, rules[0].label.as_str()), (16, "user_bucket"));
        assert_eq!(good(&["labels.drop.0=noise"]).config.labels.drop, ["noise", "message_id", "update_id"]);
        assert_eq!(good(&["labels.drop=[\"noise\"]"]).config.labels.drop, ["noise"]);
        assert_eq!(good(&["bucketing=[]"]).config.bucketing, []);
        let rules = good(&["bucketing=[{tags=[\"a\"], label=\"b\"}]", "bucketing.0.format=b{}"]).config.bucketing;
        assert_eq!((rules[0].count, rules[0].format.as_str()), (100, "b{}"));
        assert_eq!(good(&["labels={max_count=3}"]).config.labels.max_value_bytes, 256, "tables merge");
    }

    #[test]
    fn overrides_that_do_not_fit_are_told_with_the_argument() {
        for (argument, problem) in [
            ("listen.workers=-1", "listen.workers: found -1, accepted: 0 (one per core, at most 2) to 256"),
            ("listen.workers=many", "listen.workers: found many, accepted: 0 (one per core, at most 2) to 256"),
            ("listen.upd=0.0.0.0:1", "listen.upd: unknown key, did you mean listen.udp?"),
            ("lables.max_count=1", "lables: unknown key, did you mean labels?"),
            (
                "bucketing.1.count=5",
                "bucketing.1.count: found index 1, accepted: an index below 1, the length of the list",
            ),
            ("listen.udp.port=1", "listen.udp.port: found a name inside of a value, accepted: the key of a table"),
            ("listen=3", "listen: found 3, accepted: a table"),
            ("http.lifecycle=yes", "http.lifecycle: found yes, accepted: true or false"),
            ("listen..udp=1", "found \"listen..udp\" as the key, accepted: names with a dot between them"),
            ("listen.udp", "found no \"=\", accepted: KEY=VALUE"),
            (
                "http.web_config_file=no/such.yml",
                "http.web_config_file: found \"no/such.yml\", accepted: the path of a web configuration file that can \
                 be read, or \"\" for none (no/such.yml: No such file or directory (os error 2))",
            ),
            ("listen.udp=", "listen.udp: found \"\", accepted: an address, unless another listener is on"),
        ] {
            assert_eq!(bad(&[argument]), format!("--set {argument}: {problem}"));
        }
    }

    #[test]
    fn all_overrides_that_do_not_fit_are_told_at_once() {
        let found = bad(&["listen.workers=many", "log.level=loud", "log.formt=json"]);
        assert_eq!(found.lines().count(), 3, "{found}");
    }

    #[test]
    fn the_hash_follows_the_values_and_not_how_they_came() {
        assert_eq!(good(&["listen.workers=0"]).hash, good(&[]).hash);
        assert_ne!(good(&["listen.workers=1"]).hash, good(&[]).hash);
    }

    proptest::proptest! {
        /// Whatever is typed, the answer is a configuration or problems.
        #[test]
        fn no_override_is_a_panic(
            key in proptest::sample::select(keys::KEYS).prop_map(|(key, _)| key.replace('*', "0")),
            cut in 0_usize..4,
            more in "(\\.[a-z0-9\"]{0,3})?",
            value in r#"-?[0-9]{1,19}|[a-z\[\]{}="',.:é]{0,8}|\[\]|\[[0-9a-z", ]{0,6}\]|\{ ?[a-z]{0,3} = [0-9] ?\}|nan"#,
        ) {
            let kept: Vec<&str> = key.split('.').take(key.split('.').count().saturating_sub(cut).max(1)).collect();
            let argument = format!("{}{more}={value}", kept.join("."));
            if let Err(problems) = load(&with(&[&argument, "bucketing.0.count=5"])) {
                proptest::prop_assert!(problems.count() > 0 && !problems.render_with_carets().is_empty());
            }
        }
    }
}
