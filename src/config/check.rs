//! Raw values to checked ones.
//!
//! In: [`Raw`] and where its values came from. Out: a [`Config`], with a problem for each value that is not accepted.
//! Not here: the words for what is accepted (`keys`).
//! Always: checking never stops at a problem; a refused value is stood in for, and the caller throws the result away.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use super::mapping::{Action, Mapping, MetricType, Observation, Pattern, Rule};
use super::problem::{KeyPath, Problem};
use super::raw::{self, Raw};
use super::source::{Merged, show};
use super::syntax::{
    address, are_bounds, are_quantiles, distinct, is_free_label, is_glob, is_label, is_mapping_glob, is_metric_name,
    is_name_part, is_name_template, is_tag,
};
use super::yaml::{self, MappingFile};
use super::{
    BareTags, BucketMethod, Bucketing, Cardinality, Config, DebugApi, Declared, DeclaredKind, Distinct, Format,
    GaugeSign, HeavyHitters, Http, Labels, Listen, Log, LogFormat, LogLevel, MsUnit, Naming, Observer, OwnMetrics,
    Parse, RateLimit, Relay, Reload, Sampling, SamplingMode, Telemetry, Window,
};
use super::{Files, file, keys, web};
use crate::map::regex::Regex;
use crate::model::{RESERVED_PREFIXES, STATSD_EXPORTER_PREFIXES};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 86400);
/// `sun_path` holds 108 bytes with the zero at its end.
const LONGEST_SOCKET_PATH: usize = 107;
/// An identity has one byte for the rule's number.
const MOST_BUCKETING_RULES: usize = 255;

/// Checks everything; the result is only good if `problems` has got no longer.
///
/// Adds the files it reads to `files`, those it cannot read too.
pub(super) fn check(raw: &Raw, merged: &Merged, problems: &mut Vec<Problem>, files: &mut Files) -> Config {
    let mut check = Check { merged, problems, files };
    Config {
        listen: check.listen(&raw.listen),
        http: check.http(&raw.http, &raw.listen),
        parse: check.parse(&raw.parse),
        naming: check.naming(raw),
        observer: check.observer(&raw.observer),
        reload: Reload { watch: raw.reload.watch },
        mapping: check.mapping(raw),
        bucketing: check.bucketing(raw),
        labels: check.labels(raw),
        cardinality: check.cardinality(&raw.cardinality),
        declare: check.declare(raw),
        rate_limit: check.rate_limit(&raw.rate_limit),
        sampling: check.sampling(&raw.sampling),
        distinct: check.distinct(&raw.distinct),
        heavy_hitters: HeavyHitters {
            capacity: check.integer("heavy_hitters.capacity", raw.heavy_hitters.capacity, 0..=100_000) as usize,
        },
        telemetry: Telemetry {
            own_metrics: check.one_of(
                "telemetry.own_metrics",
                &raw.telemetry.own_metrics,
                &[("full", OwnMetrics::Full), ("core", OwnMetrics::Core)],
            ),
            statsd_exporter_metrics: raw.telemetry.statsd_exporter_metrics,
        },
        relay: check.relay(&raw.relay),
        log: check.log(&raw.log),
    }
}

/// Whether a name is, or may be, one that `telemetry.statsd_exporter_metrics` has given away.
fn begins_as_of_statsd_exporter(raw: &Raw, name: &str) -> bool {
    raw.telemetry.statsd_exporter_metrics && STATSD_EXPORTER_PREFIXES.iter().any(|start| name.starts_with(start))
}

fn none_of_statsd_exporter(what: &str) -> String {
    let taken = STATSD_EXPORTER_PREFIXES.join(", ");
    format!("{what}: telemetry.statsd_exporter_metrics takes names that start with {taken}")
}

struct Check<'a> {
    merged: &'a Merged,
    problems: &'a mut Vec<Problem>,
    files: &'a mut Files,
}

impl Check<'_> {
    fn listen(&mut self, raw: &raw::Listen) -> Listen {
        let udp = self.listener("listen.udp", &raw.udp);
        let tcp = self.listener("listen.tcp", &raw.tcp);
        for (key, path) in [("listen.unix_datagram", &raw.unix_datagram), ("listen.unix_stream", &raw.unix_stream)] {
            let named = path.starts_with('/') || (path.starts_with('@') && path.len() > 1);
            let fits = path.is_empty() || (named && path.len() <= LONGEST_SOCKET_PATH);
            self.require(fits && !path.contains('\0'), key);
        }
        if !raw.unix_stream.is_empty() && raw.unix_stream == raw.unix_datagram {
            self.refuse_for("listen.unix_stream", "another path than listen.unix_datagram");
        }
        if [&raw.udp, &raw.tcp, &raw.unix_datagram, &raw.unix_stream].iter().all(|address| address.is_empty()) {
            self.refuse_for("listen.udp", "an address, unless another listener is on");
        }
        let octal = !raw.socket_mode.is_empty() && raw.socket_mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let socket_mode = u32::from_str_radix(&raw.socket_mode, 8).ok().filter(|mode| octal && *mode <= 0o777);
        self.require(socket_mode.is_some(), "listen.socket_mode");
        let named = |path: &String| (!path.is_empty()).then(|| path.clone());
        let workers = self.integer("listen.workers", raw.workers, 0..=256) as usize;
        Listen {
            udp,
            tcp,
            unix_datagram: named(&raw.unix_datagram),
            unix_stream: named(&raw.unix_stream),
            socket_mode: socket_mode.unwrap_or_default(),
            max_connections: self.integer("listen.max_connections", raw.max_connections, 1..=1_000_000) as usize,
            idle_timeout: self.duration("listen.idle_timeout", &raw.idle_timeout, Duration::ZERO..=YEAR),
            receive_buffer_bytes: self.integer(
                "listen.receive_buffer_bytes",
                raw.receive_buffer_bytes,
                4096..=i64::from(i32::MAX / 2),
            ) as usize,
            receive_buffer_asked: self.merged.is_set(&KeyPath::parse("listen.receive_buffer_bytes")),
            max_line_bytes: self.integer("listen.max_line_bytes", raw.max_line_bytes, 64..=65536) as usize,
            workers: (workers > 0).then_some(workers),
            coalesce: self.duration("listen.coalesce", &raw.coalesce, Duration::ZERO..=SECOND),
        }
    }

    /// An address to listen on, or nothing for "".
    fn listener(&mut self, key: &str, text: &str) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let address = address(text);
        self.require(address.is_some(), key);
        address
    }

    fn http(&mut self, raw: &raw::Http, listen: &raw::Listen) -> Http {
        let address = address(&raw.listen);
        self.require(address.is_some(), "http.listen");
        let shared = address.is_some() && address == self::address(&listen.tcp);
        if shared && !raw.listen.ends_with(":0") {
            self.refuse_for("http.listen", "another address than listen.tcp");
        }
        let (web_config_file, web_remarks) = self.web_config_file(&raw.web_config_file).unzip();
        let path = raw.metrics_path.as_str();
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\"<>\\".contains(&byte));
        let ours = path.starts_with("/-/") || path.starts_with("/api/") || path.starts_with("//");
        self.require(path.starts_with('/') && plain && !ours, "http.metrics_path");
        let named = [("openmetrics", Format::OpenMetrics), ("protobuf", Format::Protobuf), ("text", Format::Text)];
        let known = |text: &String| named.iter().find(|(name, _)| name == text).map(|(_, format)| *format);
        let formats: Vec<Format> = raw.formats.iter().filter_map(known).collect();
        let all_known = formats.len() == raw.formats.len();
        self.require(all_known && !formats.is_empty() && distinct(&raw.formats), "http.formats");
        Http {
            listen: address.unwrap_or_default(),
            metrics_path: path.to_owned(),
            formats,
            created_lines: raw.created_lines,
            lifecycle: raw.lifecycle,
            debug_api: self.one_of(
                "http.debug_api",
                &raw.debug_api,
                &[("loopback", DebugApi::Loopback), ("all", DebugApi::All), ("off", DebugApi::Off)],
            ),
            web_config_file,
            web_remarks: web_remarks.unwrap_or_default(),
            max_connections: self.integer("http.max_connections", raw.max_connections, 1..=65536) as usize,
            write_timeout: self.duration("http.write_timeout", &raw.write_timeout, 10 * MILLISECOND..=HOUR),
            drain: self.duration("http.drain", &raw.drain, Duration::ZERO..=HOUR),
        }
    }

    /// Where the web configuration file is, and what in it has no effect; `None` without one. It is read here to tell
    /// its faults, and by the server to go by it.
    fn web_config_file(&mut self, file: &str) -> Option<(PathBuf, Vec<String>)> {
        if file.is_empty() {
            return None;
        }
        let key = KeyPath::parse("http.web_config_file");
        let path = self.merged.directory(&key).unwrap_or(Path::new("")).join(file);
        let mut seen = Vec::new();
        let web = web::read(&path, self.problems, &mut seen);
        self.files.web.extend(seen.into_iter().map(|seen| seen.file));
        match web {
            Ok(web) => Some((path, web.remarks)),
            Err(cause) => {
                let accepted = format!("{} ({}: {cause})", keys::accepted(&key), path.display());
                self.refuse_at(&key, &accepted);
                None
            }
        }
    }

    fn parse(&mut self, raw: &raw::Parse) -> Parse {
        let label = raw.container_id_label.as_str();
        self.require(label.is_empty() || is_free_label(label), "parse.container_id_label");
        Parse {
            dogstatsd_tags: raw.dogstatsd_tags,
            influxdb_tags: raw.influxdb_tags,
            librato_tags: raw.librato_tags,
            signalfx_tags: raw.signalfx_tags,
            gauge_sign: self.one_of(
                "parse.gauge_sign",
                &raw.gauge_sign,
                &[("delta", GaugeSign::Delta), ("absolute", GaugeSign::Absolute)],
            ),
            ms_unit: self.one_of(
                "parse.ms_unit",
                &raw.ms_unit,
                &[("ms", MsUnit::Milliseconds), ("s", MsUnit::Seconds)],
            ),
            bare_tags: self.one_of(
                "parse.bare_tags",
                &raw.bare_tags,
                &[("drop", BareTags::Drop), ("true", BareTags::True)],
            ),
            container_id_label: (!label.is_empty()).then(|| label.to_owned()),
            client_telemetry: raw.client_telemetry,
        }
    }

    fn naming(&mut self, raw: &Raw) -> Naming {
        let begins = begins_as_of_statsd_exporter(raw, &raw.naming.prefix);
        let raw = &raw.naming;
        if begins {
            self.refuse_for("naming.prefix", &none_of_statsd_exporter("another prefix"));
        }
        let taken = RESERVED_PREFIXES.iter().any(|taken| raw.prefix.starts_with(taken));
        self.require(is_name_part(&raw.prefix) && !taken, "naming.prefix");
        self.require(is_name_part(&raw.counter_suffix), "naming.counter_suffix");
        self.require(is_name_part(&raw.timer_suffix), "naming.timer_suffix");
        Naming {
            prefix: raw.prefix.clone(),
            counter_suffix: raw.counter_suffix.clone(),
            timer_suffix: raw.timer_suffix.clone(),
        }
    }

    fn observer(&mut self, raw: &raw::Observer) -> Observer {
        self.one_of("observer.type", &raw.kind, &[("histogram", ()), ("summary", ())]);
        self.require(are_bounds(&raw.buckets), "observer.buckets");
        self.number("observer.native_factor", raw.native_factor, |factor| (1.0..=65536.0).contains(&factor));
        self.integer("observer.native_max_buckets", raw.native_max_buckets, 1..=1600);
        self.require(are_quantiles(&raw.quantiles), "observer.quantiles");
        self.duration("observer.max_age", &raw.max_age, SECOND..=YEAR);
        Observer { bounds: raw.buckets.clone() }
    }

    fn bucketing(&mut self, raw: &Raw) -> Vec<Bucketing> {
        let mut tags_of: BTreeMap<&str, usize> = BTreeMap::new();
        let mut labels: BTreeMap<&str, String> = BTreeMap::new();
        if !raw.parse.container_id_label.is_empty() {
            labels.insert(&raw.parse.container_id_label, "parse.container_id_label".to_owned());
        }
        for name in raw.labels.add.keys() {
            let earlier = labels.insert(name, format!("labels.add.{name}"));
            if let Some(earlier) = earlier {
                let accepted = format!("another label name than that of {earlier}");
                self.refuse_at(&KeyPath::parse("labels.add").join(name), &accepted);
            }
        }
        self.require(raw.bucketing.len() <= MOST_BUCKETING_RULES, "bucketing");
        let mut rules = Vec::with_capacity(raw.bucketing.len());
        for (index, rule) in raw.bucketing.iter().enumerate() {
            let base = KeyPath::parse("bucketing").join(index);
            let tags = rule.tags.clone().unwrap_or_default();
            let tags_fit = tags.iter().all(|tag| is_tag(tag)) && distinct(&tags);
            self.require_at(!tags.is_empty() && tags_fit, &base.join("tags"));
            for (place, tag) in rule.tags.iter().flatten().enumerate() {
                match tags_of.get(tag.as_str()) {
                    Some(earlier) if *earlier != index => {
                        let accepted = format!("a tag that no other rule names (bucketing.{earlier} does)");
                        self.refuse_at(&base.join("tags").join(place), &accepted);
                    }
                    _ => {
                        tags_of.insert(tag, index);
                    }
                }
            }
            let label = rule.label.as_deref().unwrap_or_default();
            self.require_at(is_free_label(label), &base.join("label"));
            if let Some(earlier) = labels.get(label) {
                let accepted = format!("another label name than that of {earlier}");
                self.refuse_at(&base.join("label"), &accepted);
            } else if !label.is_empty() {
                labels.insert(label, base.join("label").to_string());
            }
            rules.push(self.rule(rule, &base, tags));
        }
        rules
    }

    fn rule(&mut self, rule: &raw::Bucketing, base: &KeyPath, tags: Vec<String>) -> Bucketing {
        let ranged = self.one_of_at(&base.join("method"), &rule.method, &[("hash", false), ("range", true)]);
        if rule.size.is_some_and(|size| size < 1) {
            self.require_at(false, &base.join("size"));
        } else if ranged && rule.size.is_none() {
            self.refuse_at(&base.join("size"), "1 or more, which method \"range\" needs");
        }
        let count = self.integer_at(&base.join("count"), rule.count, 1..=1_000_000);
        self.require_at(rule.format.matches("{}").count() == 1, &base.join("format"));
        Bucketing {
            tags,
            label: rule.label.clone().unwrap_or_default(),
            method: if ranged {
                BucketMethod::Range { size: rule.size.unwrap_or(1).max(1) }
            } else {
                BucketMethod::Hash
            },
            count: u32::try_from(count).unwrap_or(1),
            salt: self.salt(&base.join("salt_file"), &rule.salt_file),
            format: rule.format.clone(),
            observers: rule.observers,
        }
    }

    /// The bytes of a salt file less one line ending; none without a file.
    fn salt(&mut self, key: &KeyPath, file: &str) -> Vec<u8> {
        if file.is_empty() {
            return Vec::new();
        }
        let path = self.merged.directory(key).unwrap_or(Path::new("")).join(file);
        let mut salt = match file::read_noted(&path, &mut self.files.own) {
            Ok(salt) => salt,
            Err(cause) => {
                let accepted = format!("{} ({}: {cause})", keys::accepted(key), path.display());
                self.refuse_at(key, &accepted);
                return Vec::new();
            }
        };
        if salt.last() == Some(&b'\n') {
            salt.pop();
            if salt.last() == Some(&b'\r') {
                salt.pop();
            }
        }
        if salt.is_empty() {
            let accepted = format!("{} ({} is empty)", keys::accepted(key), path.display());
            self.refuse_at(key, &accepted);
        }
        salt
    }

    fn labels(&mut self, raw: &Raw) -> Labels {
        let raw = &raw.labels;
        for (place, glob) in raw.drop.iter().enumerate() {
            self.require_at(is_glob(glob), &KeyPath::parse("labels.drop").join(place));
        }
        for name in raw.add.keys() {
            if !is_free_label(name) {
                let accepted = keys::accepted(&KeyPath::parse("labels.add").join("x"));
                self.push(
                    &KeyPath::parse("labels.add").join(name),
                    format!("found {name:?} as name, accepted: {accepted}"),
                );
            }
        }
        Labels {
            drop: raw.drop.clone(),
            add: raw.add.clone().into_iter().collect(),
            max_count: self.integer("labels.max_count", raw.max_count, 1..=1000) as usize,
            max_values: self.integer("labels.max_values", raw.max_values, 1..=1_000_000) as usize,
            max_name_bytes: self.integer("labels.max_name_bytes", raw.max_name_bytes, 8..=65536) as usize,
            max_value_bytes: self.integer("labels.max_value_bytes", raw.max_value_bytes, 8..=65536) as usize,
        }
    }

    fn cardinality(&mut self, raw: &raw::Cardinality) -> Cardinality {
        let new_series = raw.new_series_per_second;
        let new_series = self.integer("cardinality.new_series_per_second", new_series, 0..=i64::from(u32::MAX));
        self.number("cardinality.simplify_at", raw.simplify_at, |share| (0.0..=1.0).contains(&share));
        for (place, name) in raw.keep_labels.iter().enumerate() {
            self.require_at(is_label(name), &KeyPath::parse("cardinality.keep_labels").join(place));
        }
        let limit = 1..=1_000_000_000;
        let per_family = raw.max_series_per_family;
        Cardinality {
            max_series: self.integer("cardinality.max_series", raw.max_series, limit.clone()).unsigned_abs(),
            max_series_per_family: self.integer("cardinality.max_series_per_family", per_family, limit).unsigned_abs(),
            max_families: self.integer("cardinality.max_families", raw.max_families, 1..=1_000_000) as usize,
            max_bytes: self.integer("cardinality.max_bytes", raw.max_bytes, 1 << 20..=i64::MAX).unsigned_abs(),
            new_series_per_second: u32::try_from(new_series).unwrap_or(0),
            simplify_at: raw.simplify_at,
            keep_labels: raw.keep_labels.clone(),
            idle_ttl: self.duration("cardinality.idle_ttl", &raw.idle_ttl, Duration::ZERO..=YEAR),
            zero_first: self.duration("cardinality.zero_first", &raw.zero_first, Duration::ZERO..=HOUR),
            evict_idle_after: self.duration("cardinality.evict_idle_after", &raw.evict_idle_after, 2 * SECOND..=YEAR),
            identity_cache_bytes: self.integer(
                "cardinality.identity_cache_bytes",
                raw.identity_cache_bytes,
                65536..=1 << 30,
            ) as usize,
        }
    }

    fn log(&mut self, raw: &raw::Log) -> Log {
        let levels = [
            ("debug", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("error", LogLevel::Error),
        ];
        Log {
            level: self.one_of("log.level", &raw.level, &levels),
            format: self.one_of("log.format", &raw.format, &[("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)]),
        }
    }

    fn mapping(&mut self, raw: &Raw) -> Mapping {
        let observer = &raw.observer;
        let own = MappingFile {
            histogram: Observation::Histogram {
                bounds: observer.buckets.clone(),
                native_factor: observer.native_factor,
                native_max_buckets: u32::try_from(observer.native_max_buckets).unwrap_or(1),
            },
            summary: Observation::Summary {
                quantiles: observer.quantiles.clone(),
                max_age: humantime::parse_duration(&observer.max_age).unwrap_or(SECOND),
            },
            summaries: observer.kind == "summary",
            ttl: None,
            unordered: false,
            rules: Vec::new(),
        };
        let (file, hash) = self.mapping_file(&raw.mapping.file).unzip();
        let mut defaults = file.unwrap_or(own);
        let mut rules = std::mem::take(&mut defaults.rules);
        let path = &raw.mapping.file;
        for (index, rule) in raw.mapping.rules.iter().flatten().enumerate() {
            rules.push(self.mapping_rule(rule, index, &defaults));
        }
        Mapping {
            file: (!path.is_empty()).then(|| path.into()),
            file_hash: hash.unwrap_or(0),
            rules,
            observation: defaults.observation().clone(),
            ttl: defaults.ttl,
        }
    }

    /// What the mapping file says, and a hash of its text; `None` without one.
    fn mapping_file(&mut self, file: &str) -> Option<(MappingFile, u64)> {
        if file.is_empty() {
            return None;
        }
        let key = KeyPath::parse("mapping.file");
        let path = self.merged.directory(&key).unwrap_or(Path::new("")).join(file);
        let name = path.display().to_string();
        let text = file::read_noted(&path, &mut self.files.own)
            .map_err(|cause| cause.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|cause| format!("no UTF-8: {}", cause.utf8_error())));
        match text {
            Ok(text) => Some((yaml::read(&name, &text, self.problems), xxh64(text.as_bytes(), 0))),
            Err(cause) => {
                let accepted = format!("{} ({name}: {cause})", keys::accepted(&key));
                self.refuse_at(&key, &accepted);
                None
            }
        }
    }

    fn mapping_rule(&mut self, rule: &raw::MappingRule, index: usize, defaults: &MappingFile) -> Rule {
        let base = KeyPath::parse("mapping.rules").join(index);
        let regex = self.choice(&base.join("match_type"), &rule.match_type, &[("glob", false), ("regex", true)]);
        let metric_types =
            [("counter", MetricType::Counter), ("gauge", MetricType::Gauge), ("observer", MetricType::Observer)];
        let metric_type = self.choice(&base.join("match_metric_type"), &rule.match_metric_type, &metric_types);
        let action = self.choice(&base.join("action"), &rule.action, &[("map", Action::Map), ("drop", Action::Drop)]);
        let kinds = [("histogram", false), ("summary", true)];
        let summaries = self.choice(&base.join("observer_type"), &rule.observer_type, &kinds);
        let text = rule.pattern.as_deref().unwrap_or_default();
        let pattern = if regex == Some(true) && !text.is_empty() {
            Regex::new(text).map(Pattern::Regex).unwrap_or_else(|why| {
                self.refuse_at(&base.join("match"), &format!("a regular expression ({why})"));
                Pattern::Glob(String::new())
            })
        } else {
            self.require_at(is_mapping_glob(text), &base.join("match"));
            Pattern::Glob(text.to_owned())
        };
        self.require_at(rule.name.as_deref().is_some_and(is_name_template), &base.join("name"));
        let summary = summaries.unwrap_or(defaults.summaries);
        if let Some(bounds) = &rule.buckets {
            self.require_at(are_bounds(bounds), &base.join("buckets"));
            if summary {
                self.refuse_at(&base.join("buckets"), "none, since the rule's observer type is \"summary\"");
            }
        }
        if let Some(quantiles) = &rule.quantiles {
            self.require_at(are_quantiles(quantiles), &base.join("quantiles"));
            if !summary {
                self.refuse_at(&base.join("quantiles"), "none, since the rule's observer type is \"histogram\"");
            }
        }
        let ttl = rule.ttl.as_ref().map(|ttl| self.duration_at(&base.join("ttl"), ttl, Duration::ZERO..=YEAR));
        self.require_at(rule.scale.is_none_or(f64::is_finite), &base.join("scale"));
        let says = summaries.is_some() || rule.buckets.is_some() || rule.quantiles.is_some();
        let mut observation = if summary { defaults.summary.clone() } else { defaults.histogram.clone() };
        match &mut observation {
            Observation::Histogram { bounds, .. } => rule.buckets.iter().for_each(|given| bounds.clone_from(given)),
            Observation::Summary { quantiles, .. } => {
                rule.quantiles.iter().for_each(|given| quantiles.clone_from(given));
            }
        }
        for name in rule.labels.iter().flat_map(BTreeMap::keys) {
            let observed = metric_type == Some(MetricType::Observer) && observation.reserves(name);
            if !is_label(name) || observed {
                let key = base.join("labels").join(name);
                self.push(&key, format!("found {name:?} as name, accepted: {}", keys::accepted(&key)));
            }
        }
        Rule {
            place: base.to_string(),
            pattern,
            metric_type,
            action: action.unwrap_or(Action::Map),
            name: rule.name.clone().unwrap_or_default(),
            labels: rule.labels.clone().unwrap_or_default().into_iter().collect(),
            honor_labels: rule.honor_labels.unwrap_or(false),
            help: rule.help.clone().filter(|help| !help.is_empty()),
            scale: rule.scale,
            observation: says.then_some(observation),
            ttl,
        }
    }

    fn declare(&mut self, raw: &Raw) -> Vec<Declared> {
        let mut all = Vec::new();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for (index, declared) in raw.declare.iter().flatten().enumerate() {
            let base = KeyPath::parse("declare").join(index);
            let name = declared.name.as_deref().unwrap_or_default();
            let new = names.insert(name);
            self.require_at(is_metric_name(name) && new, &base.join("name"));
            if begins_as_of_statsd_exporter(raw, name) {
                self.refuse_at(&base.join("name"), &none_of_statsd_exporter("another name"));
            }
            let kind = declared.kind.as_deref().unwrap_or_default();
            let kinds = [
                ("counter", DeclaredKind::Counter),
                ("gauge", DeclaredKind::Gauge),
                ("histogram", DeclaredKind::Observer),
                ("summary", DeclaredKind::Observer),
            ];
            let kind = self.one_of_at(&base.join("type"), kind, &kinds);
            let mut series = 1_u64;
            for (label, values) in declared.labels.iter().flatten() {
                let key = base.join("labels").join(label);
                self.require_at(is_free_label(label) && !values.is_empty() && distinct(values), &key);
                series = series.saturating_mul(values.len() as u64);
            }
            if i64::try_from(series).map_or(true, |series| series > raw.cardinality.max_series) {
                let limit = raw.cardinality.max_series;
                let message =
                    format!("found {series} combinations, accepted: at most {limit} (cardinality.max_series)");
                self.push(&base.join("labels"), message);
            }
            let labels = declared.labels.iter().flatten();
            all.push(Declared {
                name: name.to_owned(),
                kind,
                labels: labels.map(|(label, values)| (label.clone(), values.clone())).collect(),
            });
        }
        all
    }

    fn rate_limit(&mut self, raw: &raw::RateLimit) -> RateLimit {
        let mut quota =
            |key, n| NonZeroU32::new(self.integer(key, n, 0..=i64::from(u32::MAX)).try_into().unwrap_or(u32::MAX));
        RateLimit {
            samples_per_second: quota("rate_limit.samples_per_second", raw.samples_per_second),
            family_samples_per_second: quota("rate_limit.family_samples_per_second", raw.family_samples_per_second),
        }
    }

    fn sampling(&mut self, raw: &raw::Sampling) -> Sampling {
        let modes = [("adaptive", SamplingMode::Adaptive), ("fixed", SamplingMode::Fixed), ("off", SamplingMode::Off)];
        let shares = [
            ("sampling.rate", raw.rate),
            ("sampling.min_rate", raw.min_rate),
            ("sampling.target_load", raw.target_load),
        ];
        for (key, share) in shares {
            self.number(key, share, |share| share > 0.0 && share <= 1.0);
        }
        Sampling {
            mode: self.one_of("sampling.mode", &raw.mode, &modes),
            rate: raw.rate,
            min_rate: raw.min_rate,
            target_load: raw.target_load,
            interval: self.duration("sampling.interval", &raw.interval, 100 * MILLISECOND..=60 * SECOND),
        }
    }

    fn relay(&mut self, raw: &raw::Relay) -> Relay {
        for (place, target) in raw.targets.iter().enumerate() {
            let fits = address(target).is_some() && !target.starts_with(':') && !target.ends_with(":0");
            self.require_at(fits, &KeyPath::parse("relay.targets").join(place));
        }
        let packet_bytes = self.integer("relay.packet_bytes", raw.packet_bytes, 64..=65507) as usize;
        Relay { targets: raw.targets.clone(), packet_bytes }
    }

    fn distinct(&mut self, raw: &raw::Distinct) -> Distinct {
        let spans: Vec<Option<Duration>> =
            raw.windows.iter().map(|window| humantime::parse_duration(window).ok()).collect();
        let accepted = SECOND..=Duration::from_secs(31 * 86400);
        let fit = spans.iter().all(|span| span.is_some_and(|span| accepted.contains(&span)));
        self.require((1..=8).contains(&spans.len()) && fit && distinct(&spans), "distinct.windows");
        let windows = raw.windows.iter().zip(spans);
        let registers = usize::try_from(raw.registers).unwrap_or(0);
        self.require((16..=32768).contains(&registers) && registers.is_power_of_two(), "distinct.registers");
        Distinct {
            windows: windows.map(|(text, span)| Window { text: text.clone(), span: span.unwrap_or(SECOND) }).collect(),
            registers,
            export_registers: raw.export_registers,
        }
    }

    fn integer(&mut self, key: &str, value: i64, range: RangeInclusive<i64>) -> i64 {
        self.integer_at(&KeyPath::parse(key), value, range)
    }

    /// The value, or the least one accepted.
    fn integer_at(&mut self, key: &KeyPath, value: i64, range: RangeInclusive<i64>) -> i64 {
        let fits = range.contains(&value);
        self.require_at(fits, key);
        if fits { value } else { *range.start() }
    }

    fn number(&mut self, key: &str, value: f64, fits: impl Fn(f64) -> bool) {
        self.require(value.is_finite() && fits(value), key);
    }

    fn duration(&mut self, key: &str, text: &str, range: RangeInclusive<Duration>) -> Duration {
        self.duration_at(&KeyPath::parse(key), text, range)
    }

    fn duration_at(&mut self, key: &KeyPath, text: &str, range: RangeInclusive<Duration>) -> Duration {
        let duration = humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
        self.require_at(duration.is_some(), key);
        duration.unwrap_or(*range.start())
    }

    fn one_of<T: Copy>(&mut self, key: &str, value: &str, known: &[(&str, T)]) -> T {
        self.one_of_at(&KeyPath::parse(key), value, known)
    }

    /// What `value` stands for, if it is there.
    fn choice<T: Copy>(&mut self, key: &KeyPath, value: &Option<String>, known: &[(&str, T)]) -> Option<T> {
        value.as_deref().map(|value| self.one_of_at(key, value, known))
    }

    /// What `value` stands for, or the first of `known`.
    fn one_of_at<T: Copy>(&mut self, key: &KeyPath, value: &str, known: &[(&str, T)]) -> T {
        let found = known.iter().find(|(name, _)| *name == value);
        self.require_at(found.is_some(), key);
        found.unwrap_or(&known[0]).1
    }

    fn require(&mut self, fits: bool, key: &str) {
        self.require_at(fits, &KeyPath::parse(key));
    }

    fn require_at(&mut self, fits: bool, key: &KeyPath) {
        if !fits {
            self.refuse_at(key, keys::accepted(key));
        }
    }

    fn refuse_for(&mut self, key: &str, accepted: &str) {
        self.refuse_at(&KeyPath::parse(key), accepted);
    }

    fn refuse_at(&mut self, key: &KeyPath, accepted: &str) {
        let found = self.merged.get(key).map_or_else(|| "nothing".to_owned(), show);
        self.push(key, format!("found {found}, accepted: {accepted}"));
    }

    fn push(&mut self, key: &KeyPath, message: String) {
        if !self.merged.is_broken(key) {
            self.problems.push(self.merged.problem(key, message));
        }
    }
}
