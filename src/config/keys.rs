//! What every key accepts, in words.
//!
//! Here: the one table that type errors, range errors and suggestions take their words from.
//! Always: each key of `raw` stands in [`KEYS`] once; `*` stands for an index, or for a name that the user chooses.

use super::problem::KeyPath;

const ADDRESS_OR_OFF: &str = "\"host:port\", \":port\", \"[::1]:port\", or \"\" for off";
const SOCKET_OR_OFF: &str = "an absolute path or an abstract name \"@name\" of at most 107 bytes, or \"\" for off";
const BOOLEAN: &str = "true or false";
const LIMIT: &str = "1 to 1000000000";
const QUOTA: &str = "0 (no limit) to 4294967295";
const SHARE: &str = "a number above 0, at most 1";
const BOUNDS: &str = "1 to 1000 finite numbers, ascending, none twice";
const QUANTILES: &str = "at most 100 numbers from 0 to 1, none twice";
const OBSERVER_TYPE: &str = "\"histogram\" or \"summary\"";
const NEW_LABEL: &str = "a label name: [a-zA-Z_][a-zA-Z0-9_]*, not starting with __, none of le, quantile, overflow";

/// Every key with what it accepts.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("listen.udp", ADDRESS_OR_OFF),
    ("listen.tcp", ADDRESS_OR_OFF),
    ("listen.unix_datagram", SOCKET_OR_OFF),
    ("listen.unix_stream", SOCKET_OR_OFF),
    ("listen.socket_mode", "octal permissions as a string, \"0\" to \"0777\""),
    ("listen.receive_buffer_bytes", "4096 to 1073741823"),
    ("listen.max_line_bytes", "64 to 65536"),
    ("listen.workers", "0 (one per core, at most 2) to 256"),
    ("listen.coalesce", "a duration, \"0s\" (read each at once) to \"1s\""),
    ("listen.max_connections", "1 to 1000000"),
    ("listen.idle_timeout", "a duration, \"0s\" (never) to \"365d\""),
    ("http.listen", "\"host:port\", \":port\" or \"[::1]:port\""),
    ("http.metrics_path", "a path that starts with \"/\" and is none of \"//...\", \"/-/...\", \"/api/...\""),
    ("http.formats", "a list of \"openmetrics\", \"protobuf\", \"text\", at least one, none twice"),
    ("http.lifecycle", BOOLEAN),
    ("http.debug_api", "\"loopback\", \"all\" or \"off\""),
    ("http.web_config_file", "the path of a web configuration file that can be read, or \"\" for none"),
    ("http.max_connections", "1 to 65536"),
    ("http.write_timeout", "a duration, \"10ms\" to \"1h\""),
    ("http.created_lines", BOOLEAN),
    ("http.drain", "a duration, \"0s\" (do not wait) to \"1h\""),
    ("parse.dogstatsd_tags", BOOLEAN),
    ("parse.influxdb_tags", BOOLEAN),
    ("parse.librato_tags", BOOLEAN),
    ("parse.signalfx_tags", BOOLEAN),
    ("parse.gauge_sign", "\"delta\" or \"absolute\""),
    ("parse.ms_unit", "\"ms\" or \"s\""),
    ("parse.bare_tags", "\"drop\" or \"true\""),
    (
        "parse.container_id_label",
        "\"\" (none), or a label name: [a-zA-Z_][a-zA-Z0-9_]*, not starting with __, \
                                  none of le, quantile, overflow",
    ),
    ("parse.client_telemetry", BOOLEAN),
    (
        "naming.prefix",
        "\"\", or [a-zA-Z_:][a-zA-Z0-9_:]* of at most 128 characters, not starting with statsieve_, process_ or scrape_",
    ),
    ("naming.counter_suffix", "\"\", or [a-zA-Z_:][a-zA-Z0-9_:]* of at most 128 characters"),
    ("naming.timer_suffix", "\"\", or [a-zA-Z_:][a-zA-Z0-9_:]* of at most 128 characters"),
    ("observer.type", OBSERVER_TYPE),
    ("observer.buckets", BOUNDS),
    ("observer.native_factor", "1 (off) to 65536"),
    ("observer.native_max_buckets", "1 to 1600"),
    ("observer.quantiles", QUANTILES),
    ("observer.max_age", "a duration, \"1s\" to \"365d\""),
    ("reload.watch", BOOLEAN),
    ("mapping.file", "the path of a mapping file that can be read, or \"\" for none"),
    ("mapping.rules", "a list of tables, [[mapping.rules]]"),
    ("mapping.rules.*.match", "parts between dots, each `*` or letters, digits, _ and - (a regex: any text)"),
    ("mapping.rules.*.match_type", "\"glob\" or \"regex\""),
    ("mapping.rules.*.match_metric_type", "\"counter\", \"gauge\" or \"observer\""),
    ("mapping.rules.*.name", "letters, digits, _, $1 and ${1}, not starting with a digit"),
    ("mapping.rules.*.labels", "a table of label names with text as values"),
    (
        "mapping.rules.*.labels.*",
        "text under a label name: [a-zA-Z_][a-zA-Z0-9_]*, not starting with __, \
         not le on a histogram or quantile on a summary",
    ),
    ("mapping.rules.*.action", "\"map\" or \"drop\""),
    ("mapping.rules.*.help", "a text"),
    ("mapping.rules.*.observer_type", OBSERVER_TYPE),
    ("mapping.rules.*.buckets", BOUNDS),
    ("mapping.rules.*.quantiles", QUANTILES),
    ("mapping.rules.*.ttl", "a duration, \"0s\" (never) to \"365d\""),
    ("mapping.rules.*.scale", "a finite number"),
    ("mapping.rules.*.honor_labels", BOOLEAN),
    ("bucketing", "a list of at most 255 tables, [[bucketing]]"),
    ("bucketing.*.tags", "a list of tag names, at least one, none empty or with any of , : = | #"),
    ("bucketing.*.label", NEW_LABEL),
    ("bucketing.*.method", "\"hash\" or \"range\""),
    ("bucketing.*.count", "1 to 1000000"),
    ("bucketing.*.size", "1 or more"),
    ("bucketing.*.salt_file", "the path of a file that can be read and is not empty, or \"\" for none"),
    ("bucketing.*.format", "a text with {} in it exactly once"),
    ("bucketing.*.observers", BOOLEAN),
    (
        "labels.drop",
        "a list of globs on tag names: `*` is any run of characters; no spaces, none of , : = | # ? [ ] { }",
    ),
    ("labels.add", "a table of label names with text as values"),
    (
        "labels.add.*",
        "text under a label name: [a-zA-Z_][a-zA-Z0-9_]*, not starting with __, \
                      none of le, quantile, overflow",
    ),
    ("labels.max_count", "1 to 1000"),
    ("labels.max_name_bytes", "8 to 65536"),
    ("labels.max_values", "1 to 1000000"),
    ("labels.max_value_bytes", "8 to 65536"),
    ("cardinality.max_series", LIMIT),
    ("cardinality.max_series_per_family", LIMIT),
    ("cardinality.max_families", "1 to 1000000"),
    ("cardinality.max_bytes", "1048576 or more"),
    ("cardinality.new_series_per_second", QUOTA),
    ("cardinality.simplify_at", "0 to 1"),
    ("cardinality.keep_labels", "a list of label names: [a-zA-Z_][a-zA-Z0-9_]*, not starting with __"),
    ("cardinality.idle_ttl", "a duration, \"0s\" (until the limits need the place) to \"365d\""),
    ("cardinality.evict_idle_after", "a duration, \"2s\" to \"365d\""),
    ("cardinality.zero_first", "a duration, \"0s\" (at once) to \"1h\""),
    ("cardinality.identity_cache_bytes", "65536 to 1073741824"),
    ("declare", "a list of tables, [[declare]]"),
    ("declare.*.name", "a metric name: [a-zA-Z_:][a-zA-Z0-9_:]*, in one [[declare]] only"),
    ("declare.*.type", "\"counter\", \"gauge\", \"histogram\" or \"summary\""),
    ("declare.*.labels", "a table of label names, each with a list of values"),
    (
        "declare.*.labels.*",
        "a list of values, at least one, under a label name: [a-zA-Z_][a-zA-Z0-9_]*, \
                            not starting with __, none of le, quantile, overflow",
    ),
    ("rate_limit.samples_per_second", QUOTA),
    ("rate_limit.family_samples_per_second", QUOTA),
    ("sampling.mode", "\"adaptive\", \"fixed\" or \"off\""),
    ("sampling.rate", SHARE),
    ("sampling.min_rate", SHARE),
    ("sampling.target_load", SHARE),
    ("sampling.interval", "a duration, \"100ms\" to \"1m\""),
    ("distinct.windows", "a list of 1 to 8 durations, \"1s\" to \"31d\", none twice"),
    ("distinct.registers", "a power of two, 16 to 32768"),
    ("distinct.export_registers", BOOLEAN),
    ("heavy_hitters.capacity", "0 (off) to 100000"),
    ("relay.targets", "a list of \"host:port\""),
    ("relay.packet_bytes", "64 to 65507"),
    ("telemetry.own_metrics", "\"full\" or \"core\""),
    ("telemetry.statsd_exporter_metrics", BOOLEAN),
    ("log.level", "\"debug\", \"info\", \"warn\" or \"error\""),
    ("log.format", "\"logfmt\" or \"json\""),
];

/// What is accepted at `path`; for an element of a list, what the list accepts.
pub(super) fn accepted(path: &KeyPath) -> &'static str {
    let mut path = path.clone();
    while !path.is_root() {
        if let Some((_, words)) = KEYS.iter().find(|(pattern, _)| matches(pattern, &path)) {
            return words;
        }
        if KEYS.iter().any(|(pattern, _)| starts_with(pattern, &path)) {
            return "a table";
        }
        path = path.parent();
    }
    "a table"
}

/// What to say of a key that nobody knows: the nearest known one, or the ones that are there.
pub(super) fn suggestion(path: &KeyPath) -> String {
    let Some(name) = path.last() else { return "unknown key".to_owned() };
    let parent = path.parent();
    let depth = parent.len();
    let mut names: Vec<&str> = Vec::new();
    for (pattern, _) in KEYS {
        let Some(next) = pattern.split('.').nth(depth) else { continue };
        if (depth == 0 || starts_with(pattern, &parent)) && next != "*" && !names.contains(&next) {
            names.push(next);
        }
    }
    let most = (name.len() / 3).clamp(1, 3);
    let near =
        names.iter().map(|known| (strsim::osa_distance(name, known), known)).filter(|(far, _)| *far <= most).min();
    if let Some((_, known)) = near {
        return format!("unknown key, did you mean {}?", parent.join(known));
    }
    let elsewhere = KEYS.iter().find(|(pattern, _)| !pattern.contains('*') && pattern.rsplit('.').next() == Some(name));
    if let Some((pattern, _)) = elsewhere {
        return format!("unknown key, did you mean {pattern}?");
    }
    let whose = if depth == 0 { "known tables".to_owned() } else { format!("known in {parent}") };
    format!("unknown key, {whose}: {}", names.join(", "))
}

fn segment_matches(pattern: &str, segment: &str) -> bool {
    pattern == "*" || pattern == segment
}

/// Whether `path` is what `pattern` describes.
fn matches(pattern: &str, path: &KeyPath) -> bool {
    pattern.split('.').count() == path.len()
        && pattern.split('.').zip(path.segments()).all(|(p, s)| segment_matches(p, s))
}

/// Whether `pattern` describes something inside of `path`.
fn starts_with(pattern: &str, path: &KeyPath) -> bool {
    pattern.split('.').count() > path.len()
        && pattern.split('.').zip(path.segments()).all(|(p, s)| segment_matches(p, s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_the_key() {
        for (typed, said) in [
            ("listen.upd", "unknown key, did you mean listen.udp?"),
            ("lables", "unknown key, did you mean labels?"),
            ("bucketing.3.cuont", "unknown key, did you mean bucketing.3.count?"),
            ("labels.max_series", "unknown key, did you mean cardinality.max_series?"),
            ("reload.signal", "unknown key, known in reload: watch"),
            ("mapping.rules.0.nam", "unknown key, did you mean mapping.rules.0.name?"),
        ] {
            assert_eq!(suggestion(&KeyPath::parse(typed)), said);
        }
    }

    #[test]
    fn an_element_accepts_what_its_list_does() {
        assert_eq!(accepted(&KeyPath::parse("labels.drop.4")), accepted(&KeyPath::parse("labels.drop")));
        assert_eq!(accepted(&KeyPath::parse("listen")), "a table");
        assert_eq!(accepted(&KeyPath::parse("bucketing.7")), "a table");
    }
}
