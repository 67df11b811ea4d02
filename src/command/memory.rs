//! The most memory that a configuration can lead to.
//!
//! In: a checked configuration. Out: a [`Memory`], part by part; `check` prints it.
//! Always: an upper bound of the process's resident memory, whatever traffic and scrapes do. Not in it: what the kernel
//! keeps for sockets (`listen.receive_buffer_bytes`, buffers of TCP connections) and its page cache, which are no
//! memory of the process.
//!
//! Each module says what it may hold at most, next to the code that holds it; here it is multiplied and added up. What
//! comes new into a series (a sketch, a native histogram) belongs into its cells or is charged to `max_bytes`, and then
//! needs no row. What is new beside the series does.

use super::check::own_lines;
use super::run::MOST_WORKERS;
use crate::aggregate::{self, census};
use crate::config::{Config, Pattern, Rule};
use crate::expose::http::connection_bytes;
use crate::expose::protobuf::{most_metric_bytes, most_observer_bytes};
use crate::expose::report;
use crate::expose::text::most_line_bytes;
use crate::expose::web::TLS_CONNECTION_BYTES;
use crate::identity::cache::BESIDE_BYTES;
use crate::insight::{distinct, heavy};
use crate::listen::worker::BUFFER_BYTES;
use crate::map::regex::CACHE_BYTES;
use crate::model::heap_bytes;
use crate::pipeline::Rules;
use crate::relay;
use crate::telemetry::history;
use crate::telemetry::refusals::{KEPT, MAX_BYTES};

/// Code, data and what is there from the start: 12 MiB were measured of an unoptimised build, of which 1 is no code;
/// and the sweep's lists of 4,096 series, under 1 MiB; and lines of the log that wait, half of one.
const PROGRAM_BYTES: u64 = 16 << 20;
/// A worker beside its buffers: its stack as far as it is used, and the beginning of its part of the heap. 110 KiB were
/// measured.
const WORKER_BYTES: u64 = 256 << 10;
/// Bytes for each of `listen.max_line_bytes` that a worker's buffers grow to: those of the identity, the name, the key
/// and a value, two for each as they double; labels as sent and as rendered, where each byte may become two; and the
/// rest of a name that stands behind its tags.
const LINE_FACTOR: u64 = 16;
/// Bytes for each of `labels.max_name_bytes` that a worker remembers: sixteen keys as sent and as exposed, doubled.
const NAME_FACTOR: u64 = 64;
/// Bytes for each label of those lists that tell where its parts are, doubled.
const LABEL_BYTES: u64 = 128;
/// Own metrics: names, types and help texts, and each line without what the configuration says.
const OWN_HEADER_BYTES: usize = 16 << 10;
const OWN_LINE_BYTES: usize = 96;
/// A mapping rule with two labels, and bytes for each byte written in it: 3.6 KB were measured for a rule of 60 bytes,
/// 4.9 for one of 260, each of 10,000.
const RULE_BYTES: u64 = 4 << 10;
const RULE_FACTOR: u64 = 8;
/// A compiled regex: 34 KB were measured for each of 500. And what a worker remembers of it, which is limited when it
/// is compiled, with the machine that takes over when that is too little.
const REGEX_BYTES: u64 = 64 << 10;
const REGEX_CACHE_BYTES: u64 = 2 * CACHE_BYTES as u64;
/// Names in `statsieve_limited_family_info`.
const LIMITED_NAMES: usize = 20;
/// What the allocator keeps of memory that comes and goes: one part in so many. Sizes of text differ, and between two
/// that live lies what fits nothing.
const ALLOCATOR_PART: u64 = 4;
/// A stream beside the line that it is at: its task and its place with the runtime. 1.6 KB were measured, each of 900.
const STREAM_BYTES: u64 = 6 << 10;

/// What one part of the program may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// The most it may take.
    pub bytes: u64,
    /// What that follows from.
    pub why: String,
}

/// The most memory that a process of some configuration takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its parts, none of which is in another.
    pub parts: Vec<Part>,
}

impl Memory {
    /// The bound that follows from `config`.
    pub fn of(config: &Config) -> Self {
        let (limits, labels) = (&config.cardinality, &config.labels);
        // One for each UDP socket, one for datagrams of a unix socket, one for all streams.
        let listen = &config.listen;
        let streams = listen.tcp.is_some() || listen.unix_stream.is_some();
        let udp = listen.udp.as_ref().map_or(0, |_| listen.workers.unwrap_or(MOST_WORKERS)) as u64;
        let workers = udp + u64::from(listen.unix_datagram.is_some()) + u64::from(streams);
        let line = config.listen.max_line_bytes as u64;
        let rules = Rules::new(config);
        let (cells, overflow_labels) = (rules.most_cells(), rules.overflow_labels);

        let buffers = BUFFER_BYTES as u64
            + LINE_FACTOR * line
            + LABEL_BYTES * labels.max_count as u64
            + NAME_FACTOR * labels.max_name_bytes as u64
            + WORKER_BYTES;
        let caches = workers.saturating_mul((limits.identity_cache_bytes + BESIDE_BYTES) as u64);
        let families = aggregate::most_bytes_outside(
            limits.max_families,
            labels.max_name_bytes,
            &overflow_labels,
            cells,
            workers as usize,
        );
        let families = families.saturating_add((limits.max_families * more_help(config)) as u64);
        let quotas = match config.rate_limit.family_samples_per_second {
            None => 0,
            Some(_) => crate::admit::quota::most_bytes(limits.max_families, workers as usize),
        };
        let (rules, windows) = (config.bucketing.len() as u64, config.distinct.windows.len() as u64);
        let registers = config.distinct.registers as u64;
        let estimates =
            rules.saturating_mul(windows).saturating_mul(registers * (workers * distinct::SLICES as u64 + 2) + 256);
        let capacity = config.heavy_hitters.capacity;
        let heavy = workers
            .saturating_mul(rules)
            .saturating_mul(heavy::most_bytes(capacity) as u64)
            .saturating_add(heavy::answering_bytes(capacity, workers as usize) as u64);
        let over = (3 * most_line(config)).max(most_metric(config)).max(own_text(config));
        let toml = toml_bytes(config);
        let answer = heavy::answer_bytes(capacity).max(report::answer_bytes(labels.max_name_bytes, toml));
        let over_tls = if config.http.web_config_file.is_some() { TLS_CONNECTION_BYTES } else { 0 };
        let connection = (connection_bytes(over, answer) + over_tls) as u64;
        let connections = (config.http.max_connections as u64).saturating_mul(connection);
        let churned = limits.max_bytes.saturating_add(families).saturating_add(caches);
        let allocator =
            (churned / ALLOCATOR_PART).saturating_add((workers.max(1) - 1).saturating_mul(limits.max_bytes));

        let reports = (census::most_bytes(limits.max_families, labels.max_name_bytes) as u64)
            .saturating_add(report::answering_bytes(labels.max_name_bytes, toml) as u64)
            + (KEPT * heap_bytes(MAX_BYTES)) as u64
            + history::MOST_BYTES as u64;
        let streams = match streams {
            true => (listen.max_connections as u64).saturating_mul(STREAM_BYTES + 2 * line),
            false => 0,
        };
        let mapping = mapping_bytes(config, workers);
        let relay = match config.relay.targets.is_empty() {
            true => 0,
            false => (relay::QUEUE as u64 + workers) * heap_bytes(config.relay.packet_bytes) as u64,
        };
        let part = |name, bytes, why: &str| Part { name, bytes, why: why.to_owned() };
        let s = if workers == 1 { "" } else { "s" };
        let parts = vec![
            part("program", PROGRAM_BYTES, "code, and what is there from the start"),
            part(
                "workers",
                workers.saturating_mul(buffers),
                &format!("{workers} worker{s}, each with the longest datagrams in every buffer"),
            ),
            part("identity caches", caches, "cardinality.identity_cache_bytes for each worker"),
            part("series", limits.max_bytes, "cardinality.max_bytes"),
            part(
                "families",
                families,
                &format!("{} names and overflow series, which may lie above max_bytes", limits.max_families),
            ),
            part("quotas", quotas, "rate_limit.family_samples_per_second, by family and worker"),
            part("unique users", estimates, "distinct.registers, by window, rule and worker"),
            part("heavy hitters", heavy, "heavy_hitters.capacity, by rule and worker, and one answer in the making"),
            part(
                "connections",
                connections,
                &format!("{} readers that stopped in the middle of a compressed scrape", config.http.max_connections),
            ),
            part("reports", reports, "what /api/v1/status and /api/v1/cardinality tell, one in the making"),
            part("streams", streams, "listen.max_connections, each in the middle of its longest line"),
            part("mapping", mapping, "rules, compiled, and what each worker remembers of regexes"),
            part("relay", relay, &format!("{} datagrams of relay.packet_bytes that wait", relay::QUEUE)),
            part("allocator", allocator, "free, but between what is in use, or kept for another thread"),
        ];
        Self { parts }
    }

    /// All parts together, bytes.
    pub fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// The bytes of one part.
    ///
    /// # Panics
    /// If there is no part of that name.
    pub fn part(&self, name: &str) -> u64 {
        self.parts.iter().find(|part| part.name == name).expect("the part is one of the table").bytes
    }
}

/// The longest line of a user series.
fn most_line(config: &Config) -> usize {
    most_line_bytes(config.labels.max_name_bytes, most_labels(config).1)
}

/// The longest series in protobuf.
fn most_metric(config: &Config) -> usize {
    let (labels, text) = most_labels(config);
    let value = config.mapping.observations().map(most_observer_bytes).max().unwrap_or(0);
    most_metric_bytes(config.labels.max_name_bytes, aggregate::HELP_BYTES, text, labels, value)
}

/// The most labels of a user series, and the longest text of them.
fn most_labels(config: &Config) -> (usize, usize) {
    let labels = &config.labels;
    // In the line a label has two bytes beside key and value (a bare one, `k,`, becomes `k="true",`), and its value may
    // double when it is escaped; a bucket may be longer than the value it stands for.
    let one = labels.max_name_bytes + 2 * labels.max_value_bytes + 5;
    let sent = (labels.max_count * one).min(2 * config.listen.max_line_bytes + 8 * labels.max_count);
    let made: usize = config.bucketing.iter().map(|rule| rule.label.len() + rule.format.len() + 16).sum();
    let added: usize = labels.add.iter().map(|(name, value)| name.len() + 2 * value.len() + 4).sum();
    (labels.max_count + config.bucketing.len() + labels.add.len(), sent + made + added)
}

/// The longest piece of TOML in a hint: bucketing rules, tags taken out, declared series or bounds, written out.
fn toml_bytes(config: &Config) -> usize {
    let rules: usize = config
        .bucketing
        .iter()
        .map(|rule| {
            rule.tags.iter().map(|tag| tag.len() + 8).sum::<usize>() + rule.label.len() + rule.format.len() + 4352
        })
        .sum();
    let drop: usize = config.labels.drop.iter().map(|glob| glob.len() + 8).sum();
    let declared: usize = config
        .declare
        .iter()
        .map(|declared| {
            let values = declared
                .labels
                .iter()
                .map(|(name, values)| name.len() + 8 + values.iter().map(|value| 2 * value.len() + 8).sum::<usize>());
            declared.name.len() + 64 + values.sum::<usize>()
        })
        .sum();
    rules.max(drop).max(declared).max(24 * (config.observer.bounds.len() + 6)) + 512
}

/// What compiled mapping rules take. Each is in the configuration and in what workers go by; during a reload both the
/// old ones and the new ones are there.
fn mapping_bytes(config: &Config, workers: u64) -> u64 {
    let rule = |rule: &Rule| {
        let labels: usize = rule.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let help = rule.help.as_ref().map_or(0, String::len);
        let written = rule.pattern.as_str().len() + rule.name.len() + labels + help;
        let regex = match rule.pattern {
            Pattern::Glob(_) => 0,
            Pattern::Regex(_) => REGEX_BYTES + workers * REGEX_CACHE_BYTES,
        };
        RULE_BYTES + RULE_FACTOR * written as u64 + regex
    };
    config.mapping.rules.iter().map(rule).fold(0, |sum: u64, bytes| sum.saturating_add(2 * bytes))
}

/// Bytes by which a help text of a rule may be longer than the usual one.
fn more_help(config: &Config) -> usize {
    let longest = config.mapping.rules.iter().filter_map(|rule| rule.help.as_ref()).map(String::len).max().unwrap_or(0);
    longest.saturating_sub(aggregate::HELP_BYTES)
}

/// The longest text of the own metrics, and more than their protobuf.
fn own_text(config: &Config) -> usize {
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let tag = longest(&mut config.bucketing.iter().filter_map(|rule| rule.tags.first()).map(String::len));
    let window = longest(&mut config.distinct.windows.iter().map(|window| window.text.len()));
    let line = OWN_LINE_BYTES + 2 * tag + window;
    (own_lines(config) as usize)
        .saturating_mul(line)
        .saturating_add(OWN_HEADER_BYTES + LIMITED_NAMES * config.labels.max_name_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn of(set: &[&str]) -> Memory {
        let set = set.iter().map(ToString::to_string).collect();
        Memory::of(&load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config)
    }

    #[test]
    fn each_part_follows_its_keys_and_no_other() {
        let default = of(&[]);
        for (set, changed) in [
            (
                "listen.workers=1",
                &["workers", "identity caches", "families", "unique users", "heavy hitters", "allocator"][..],
            ),
            ("listen.max_line_bytes=65536", &["workers", "connections"]),
            ("cardinality.identity_cache_bytes=65536", &["identity caches", "allocator"]),
            ("cardinality.max_bytes=1048576", &["series", "allocator"]),
            ("cardinality.max_families=1", &["families", "reports", "allocator"]),
            ("observer.buckets=[1]", &["families", "allocator"]),
            ("rate_limit.family_samples_per_second=1", &["quotas"]),
            ("distinct.registers=16", &["unique users"]),
            ("heavy_hitters.capacity=10000", &["heavy hitters", "connections"]),
            ("http.max_connections=1", &["connections"]),
            (
                "listen.tcp=:8125",
                &["workers", "identity caches", "families", "unique users", "heavy hitters", "streams", "allocator"],
            ),
            ("relay.targets=['127.0.0.1:9125']", &["relay"]),
            ("mapping.rules=[{match='a.*',name='a'}]", &["mapping"]),
            ("labels.max_count=1", &["workers", "connections"]),
        ] {
            let memory = of(&[set]);
            let differ = default.parts.iter().zip(&memory.parts).filter(|(a, b)| a.bytes != b.bytes);
            let names: Vec<&str> = differ.map(|(part, _)| part.name).collect();
            assert_eq!(names, changed, "{set}");
        }
    }

    #[test]
    fn the_largest_configuration_is_still_a_number() {
        let most = of(&[
            "listen.workers=256",
            "cardinality.max_bytes=9223372036854775807",
            "cardinality.max_families=1000000",
            "labels.max_name_bytes=65536",
            "distinct.registers=32768",
            "distinct.export_registers=true",
            "heavy_hitters.capacity=100000",
            "http.max_connections=65536",
        ]);
        assert_eq!(most.total(), u64::MAX);
    }
}
