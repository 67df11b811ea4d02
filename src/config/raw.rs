//! The file as it is written: one struct for each table, plain types, nothing checked.
//!
//! In: the merged tables. Out: values for `check`, and the text of the configuration in force.
//! Not here: what the keys mean (`config.toml` says so) and what they accept (`keys`).
//! Always: no field has a default of its own, so a key missing in `config.toml` fails every test; the optional ones
//! are those that stand there in a comment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A table of the file: its fields are its keys, in the order of `config.toml`.
macro_rules! raw_table {
    ($(#[$doc:meta])* $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Serialize)]
        pub(super) struct $name { $($(#[$meta])* pub(super) $field: $type,)+ }
    };
}

raw_table! {
    /// The whole file.
    Raw {
        listen: Listen,
        http: Http,
        parse: Parse,
        naming: Naming,
        observer: Observer,
        reload: Reload,
        mapping: Mapping,
        bucketing: Vec<Bucketing>,
        labels: Labels,
        cardinality: Cardinality,
        declare: Option<Vec<Declare>>,
        rate_limit: RateLimit,
        sampling: Sampling,
        distinct: Distinct,
        heavy_hitters: HeavyHitters,
        relay: Relay,
        telemetry: Telemetry,
        log: Log,
    }
}

raw_table! { Listen {
    udp: String,
    tcp: String,
    unix_datagram: String,
    unix_stream: String,
    socket_mode: String,
    receive_buffer_bytes: i64,
    max_line_bytes: i64,
    workers: i64,
    coalesce: String,
    max_connections: i64,
    idle_timeout: String,
} }

raw_table! { Http {
    listen: String,
    metrics_path: String,
    formats: Vec<String>,
    lifecycle: bool,
    debug_api: String,
    web_config_file: String,
    max_connections: i64,
    write_timeout: String,
    created_lines: bool,
    drain: String,
} }

raw_table! { Parse {
    dogstatsd_tags: bool,
    influxdb_tags: bool,
    librato_tags: bool,
    signalfx_tags: bool,
    gauge_sign: String,
    ms_unit: String,
    bare_tags: String,
    container_id_label: String,
    client_telemetry: bool,
} }

raw_table! { Naming {
    prefix: String,
    counter_suffix: String,
    timer_suffix: String,
} }

raw_table! { Observer {
    #[serde(rename = "type")]
    kind: String,
    buckets: Vec<f64>,
    native_factor: f64,
    native_max_buckets: i64,
    quantiles: Vec<f64>,
    max_age: String,
} }

raw_table! { Reload {
    watch: bool,
} }

raw_table! { Mapping {
    file: String,
    rules: Option<Vec<MappingRule>>,
} }

raw_table! { MappingRule {
    #[serde(rename = "match")]
    pattern: Option<String>,
    match_type: Option<String>,
    match_metric_type: Option<String>,
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    action: Option<String>,
    help: Option<String>,
    observer_type: Option<String>,
    buckets: Option<Vec<f64>>,
    quantiles: Option<Vec<f64>>,
    ttl: Option<String>,
    scale: Option<f64>,
    honor_labels: Option<bool>,
} }

raw_table! { Bucketing {
    /// Not taken from the default element, so a rule may lack them; `check` refuses that.
    tags: Option<Vec<String>>,
    label: Option<String>,
    method: String,
    count: i64,
    size: Option<i64>,
    salt_file: String,
    format: String,
    observers: bool,
} }

raw_table! { Labels {
    drop: Vec<String>,
    add: BTreeMap<String, String>,
    max_count: i64,
    max_name_bytes: i64,
    max_values: i64,
    max_value_bytes: i64,
} }

raw_table! { Cardinality {
    max_series: i64,
    max_series_per_family: i64,
    max_families: i64,
    max_bytes: i64,
    new_series_per_second: i64,
    simplify_at: f64,
    keep_labels: Vec<String>,
    idle_ttl: String,
    evict_idle_after: String,
    zero_first: String,
    identity_cache_bytes: i64,
} }

raw_table! { Declare {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    labels: Option<BTreeMap<String, Vec<String>>>,
} }

raw_table! { RateLimit {
    samples_per_second: i64,
    family_samples_per_second: i64,
} }

raw_table! { Sampling {
    mode: String,
    rate: f64,
    min_rate: f64,
    target_load: f64,
    interval: String,
} }

raw_table! { Distinct {
    windows: Vec<String>,
    registers: i64,
    export_registers: bool,
} }

raw_table! { HeavyHitters {
    capacity: i64,
} }

raw_table! { Relay {
    targets: Vec<String>,
    packet_bytes: i64,
} }

raw_table! { Telemetry {
    own_metrics: String,
    statsd_exporter_metrics: bool,
} }

raw_table! { Log {
    level: String,
    format: String,
} }
