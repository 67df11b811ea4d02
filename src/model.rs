//! The words that every stage shares: what a sample can be, and why one is refused.
//!
//! Here: closed sets of small `Copy` values, each with the label text it is counted under; what an allocation costs.
//! Not here: anything that holds input, allocates, or belongs to one stage alone.
//! Always: a line or sample that is not recorded has exactly one [`DropReason`].

/// What `bytes` in one allocation take: the allocator puts 8 bytes in front, rounds up to 16, and gives no less than
/// 32.
///
/// Source: glibc `malloc/malloc.c`, `request2size` on 64 bits; what is mapped by itself is rounded up to a page.
pub const fn heap_bytes(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}

/// Declares a closed set: an enum whose variants each have a fixed label value, in a fixed order.
macro_rules! closed_set {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every member, in the order of declaration.
            pub const ALL: &[$name] = &[$($name::$variant,)+];
            /// How many members there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label value that this member is counted under.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }

            /// Its place in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}
pub(crate) use closed_set;

/// Beginnings of metric names that user series must not take: our own, and those of Prometheus.
pub const RESERVED_PREFIXES: [&str; 3] = ["statsieve_", "process_", "scrape_"];

/// The same while `telemetry.statsd_exporter_metrics` exposes metrics of that program.
pub const STATSD_EXPORTER_PREFIXES: [&str; 3] =
    ["statsd_exporter_", "statsd_metric_mapper_cache_", "promhttp_metric_handler_"];

/// The counter of events, by alert type.
pub const EVENTS: &str = "statsd_events_total";
/// The gauge of service checks, by check.
pub const SERVICE_CHECKS: &str = "statsd_service_check_status";

closed_set! {
    /// What a line says it carries; the second `|` part, or the prefix of an event or service check.
    pub enum SampleType {
        /// `c`: something that happened, `n` times.
        Counter = "counter",
        /// `g`: the size of something now.
        Gauge = "gauge",
        /// `ms`: how long something took.
        Timer = "timer",
        /// `h`: an observation, in whatever unit.
        Histogram = "histogram",
        /// `d`: the same, from clients that aggregate globally.
        Distribution = "distribution",
        /// `s`: a member of a set, to be counted once.
        Set = "set",
        /// `_e{}`: a DogStatsD event.
        Event = "event",
        /// `_sc`: a DogStatsD service check.
        ServiceCheck = "service_check",
    }
}

impl SampleType {
    /// Whether its values are observed into a distribution (`ms`, `h`, `d`).
    pub const fn is_observer(self) -> bool {
        matches!(self, Self::Timer | Self::Histogram | Self::Distribution)
    }
}

closed_set! {
    /// Why a line or sample was not recorded; the `reason` of `statsieve_samples_dropped_total`.
    pub enum DropReason {
        /// No colon, no type, or nothing that reads as a sample; or a stream that broke in the middle of a line.
        MalformedLine = "malformed_line",
        /// The value is no number.
        MalformedValue = "malformed_value",
        /// A part after the type is empty.
        MalformedField = "malformed_field",
        /// A client's rate that cannot be applied: negative, or above 1 on an observation.
        SampleRate = "sample_rate",
        /// The type is none that is known.
        UnknownType = "unknown_type",
        /// Tags in the name and DogStatsD tags on one line.
        MixedTagStyles = "mixed_tag_styles",
        /// Bytes that are no UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// Longer than `listen.max_line_bytes`.
        LineTooLong = "line_too_long",
        /// A counter below zero.
        NegativeCounter = "negative_counter",
        /// NaN, an infinity, or a value that would make a sum one.
        NotFinite = "not_finite",
        /// The name belongs to a family of another type, or to us or Prometheus.
        TypeConflict = "type_conflict",
        /// A tag key that is empty or starts with `__`, or `le`, `quantile` where they have a meaning.
        ReservedLabel = "reserved_label",
        /// No name is left.
        EmptyName = "empty_name",
        /// The name is longer than `labels.max_name_bytes`.
        NameTooLong = "name_too_long",
        /// A mapping rule says so.
        MappingDrop = "mapping_drop",
        /// Thinned out under load; what was kept is weighted for it.
        Sampled = "sampled",
        /// Over a quota of `[rate_limit]`.
        RateLimited = "rate_limited",
        /// At a limit of `[cardinality]`, with no overflow series to take it.
        Cardinality = "cardinality",
    }
}

closed_set! {
    /// What Datadog clients tell of themselves and is summed over all of them; the label is what they call it.
    pub enum ClientFigure {
        /// Metrics that the application gave to them.
        Metrics = "metrics",
        /// Datagrams, or payloads of a stream, that they sent.
        Packets = "packets_sent",
        /// Bytes that they sent.
        Bytes = "bytes_sent",
        /// Datagrams that they could not send, or had no room for.
        Dropped = "packets_dropped",
        /// Their bytes.
        DroppedBytes = "bytes_dropped",
        /// Metrics that never became part of a datagram, since the client could not keep up with the application.
        DroppedMetrics = "metric_dropped_on_receive",
    }
}

closed_set! {
    /// Why one tag was left out, or cut, while its sample went on; the `reason` of `statsieve_tags_dropped_total`.
    pub enum TagDropReason {
        /// A key without a value, or nothing at all.
        Malformed = "malformed",
        /// A word without a value, where `parse.bare_tags` is "drop".
        Bare = "bare",
        /// The value was cut to `labels.max_value_bytes`.
        Truncated = "truncated",
        /// Past `labels.max_count`.
        TooMany = "too_many",
        /// The key is longer than `labels.max_name_bytes`.
        NameTooLong = "name_too_long",
        /// A glob of `labels.drop` matches its key.
        Dropped = "dropped",
    }
}

/// A refused line or sample: why, and at which byte of the line (0 is the first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why; each variant is one `reason` label.
    pub reason: DropReason,
    /// The byte where it shows, for the caret of `explain`.
    pub at: u32,
}

impl Refusal {
    /// A refusal at byte `at`; lines are shorter than 4 GiB, so the cast keeps every offset.
    #[inline]
    pub const fn new(reason: DropReason, at: usize) -> Self {
        Self { reason, at: at as u32 }
    }
}
