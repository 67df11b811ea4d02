//! What the sidecar says of itself: the ledger of every line, and its own metrics.
//!
//! In: counts from the workers, once a batch. Out: `statsieve_*` and `process_*` families, for `expose`.
//! Always: label values come from closed sets; one writer per [`Books`], so a count is a plain store; every family is
//! declared here, in [`FAMILIES`], and no other is exposed, but for those of [`statsd_exporter`] if asked for.

pub mod changes;
pub mod history;
mod process;
pub mod refusals;
mod registry;

pub use registry::{ListenerFigures, ProcessFigures, Telemetry};

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::admit::Limit;
use crate::model::{ClientFigure, DropReason, SampleType, TagDropReason, closed_set};

closed_set! {
    /// A kind of listener; the `listener` label.
    pub enum Listener {
        /// UDP.
        Udp = "udp",
        /// TCP.
        Tcp = "tcp",
        /// A unix datagram socket.
        UnixDatagram = "unix_datagram",
        /// A unix stream socket.
        UnixStream = "unix_stream",
    }
}

closed_set! {
    /// What removed a series; the `cause` of `statsieve_series_expired_total`.
    pub enum ExpiryCause {
        /// Nobody wrote to it for its time to live.
        Idle = "idle",
        /// It gave way to another at a limit.
        Evicted = "evicted",
        /// A reload changed what its family is.
        Reload = "reload",
    }
}

closed_set! {
    /// How reading the configuration again ended; the `outcome` of `statsieve_config_reloads_total`.
    pub enum ReloadOutcome {
        /// It is in force.
        Success = "success",
        /// It was refused, and the one before stays.
        Failure = "failure",
    }
}

closed_set! {
    /// Why an HTTP client was not let in; the `reason` of `statsieve_http_refused_total`.
    pub enum HttpRefusal {
        /// TLS could not be negotiated, or not in time; a certificate that is wanted and missing shows here.
        Handshake = "handshake",
        /// What came is no HTTP/1.1 request, or its head is too large.
        Malformed = "malformed",
        /// The quota of `rate_limit` in the web configuration is used up: 429.
        RateLimited = "rate_limited",
        /// No password, or a wrong one: 401.
        Unauthorized = "unauthorized",
    }
}

closed_set! {
    /// What became of a line that was to be relayed, at one target; the `outcome` of `statsieve_relay_lines_total`.
    pub enum RelayOutcome {
        /// It was sent; whether it arrived, nobody tells.
        Sent = "sent",
        /// The target refused, or was too slow.
        Dropped = "dropped",
        /// It does not fit into `relay.packet_bytes`.
        TooLong = "too_long",
    }
}

closed_set! {
    /// Counts of a worker that have no label.
    pub enum Count {
        /// Lines taken up (blank ones are none).
        Lines = "lines",
        /// Client rates that could not be read.
        InvalidRates = "invalid_rates",
        /// Look-ups that found the identity.
        CacheHits = "identity_cache_hits",
        /// Look-ups that did not.
        CacheMisses = "identity_cache_misses",
        /// Identities that gave way to others.
        CacheEvictions = "identity_cache_evictions",
        /// Identities in the cache now (a level, not a sum of events).
        CacheEntries = "identity_cache_entries",
        /// Samples taken by an overflow series.
        OverflowSamples = "overflow_samples",
        /// Samples whose name a mapping rule gave.
        Mapped = "mapping_map",
        /// Samples that no mapping rule was for.
        Unmapped = "mapping_none",
        /// Gauge values with a plus that were read as a change; not exposed.
        GaugesRaised = "gauges_raised",
        /// Gauge values with a minus that were read as a change and came with DogStatsD tags; not exposed.
        GaugesLowered = "gauges_lowered",
    }
}

/// Letters an unknown field can be counted under: `a` to `z`, `A` to `Z`, and `other`.
pub const FIELD_LETTERS: usize = 53;

/// Upper bounds of `statsieve_ingest_latency_seconds`; the last bucket is `+Inf`.
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];

const RECORDED: usize = Count::COUNT;
const DROPPED: usize = RECORDED + SampleType::COUNT;
const TAGS: usize = DROPPED + DropReason::COUNT;
const FIELDS: usize = TAGS + TagDropReason::COUNT;
const CLIENTS: usize = FIELDS + FIELD_LETTERS;
const LATENCY: usize = CLIENTS + ClientFigure::COUNT;
/// Sum of latencies in nanoseconds.
const LATENCY_SUM: usize = LATENCY + LATENCY_BOUNDS.len() + 1;
const CELLS: usize = LATENCY_SUM + 1;

/// What one worker has counted since it started; plain numbers, published once a batch by [`Books::publish`].
#[derive(Clone, Debug)]
pub struct Tally {
    cells: [u64; CELLS],
}

impl Default for Tally {
    fn default() -> Self {
        Self { cells: [0; CELLS] }
    }
}

impl Tally {
    /// Adds `n` to a count without a label.
    #[inline]
    pub fn add(&mut self, count: Count, n: u64) {
        self.cells[count.index()] += n;
    }

    /// Sets a level.
    #[inline]
    pub fn set(&mut self, count: Count, n: u64) {
        self.cells[count.index()] = n;
    }

    /// One sample was recorded.
    #[inline]
    pub fn recorded(&mut self, kind: SampleType) {
        self.cells[RECORDED + kind.index()] += 1;
    }

    /// One line or sample was refused.
    #[inline]
    pub fn dropped(&mut self, reason: DropReason) {
        self.cells[DROPPED + reason.index()] += 1;
    }

    /// `n` tags were left out, or cut.
    #[inline]
    pub fn tags_dropped(&mut self, reason: TagDropReason, n: u64) {
        self.cells[TAGS + reason.index()] += n;
    }

    /// A field was ignored whose first byte is `letter`.
    pub fn unknown_field(&mut self, letter: u8) {
        let place = match letter {
            b'a'..=b'z' => letter - b'a',
            b'A'..=b'Z' => letter - b'A' + 26,
            _ => 52,
        };
        self.cells[FIELDS + usize::from(place)] += 1;
    }

    /// A client told `n` more of a figure of its own.
    pub fn client(&mut self, figure: ClientFigure, n: u64) {
        let cell = &mut self.cells[CLIENTS + figure.index()];
        *cell = cell.saturating_add(n);
    }

    /// A datagram took `nanoseconds` from its arrival in the kernel until the batch that it was read in was done.
    #[inline]
    pub fn latency(&mut self, nanoseconds: u64) {
        let seconds = nanoseconds as f64 * 1e-9;
        let place = LATENCY_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(LATENCY_BOUNDS.len());
        self.cells[LATENCY + place] += 1;
        self.cells[LATENCY_SUM] = self.cells[LATENCY_SUM].wrapping_add(nanoseconds);
    }

    /// A count without a label.
    pub fn get(&self, count: Count) -> u64 {
        self.cells[count.index()]
    }

    /// Samples recorded of one type.
    pub fn recorded_of(&self, kind: SampleType) -> u64 {
        self.cells[RECORDED + kind.index()]
    }

    /// Lines and samples refused for one reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.cells[DROPPED + reason.index()]
    }

    /// Tags left out or cut for one reason.
    pub fn tags_dropped_for(&self, reason: TagDropReason) -> u64 {
        self.cells[TAGS + reason.index()]
    }

    /// What clients told of themselves, added up.
    pub fn client_of(&self, figure: ClientFigure) -> u64 {
        self.cells[CLIENTS + figure.index()]
    }

    /// Unknown fields as `(label, count)`, those that were met.
    pub fn unknown_fields(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        self.cells[FIELDS..FIELDS + FIELD_LETTERS]
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(place, n)| (LETTERS.get(place..place + 1).unwrap_or("other"), *n))
    }

    /// Counts of `statsieve_ingest_latency_seconds` by bucket (not cumulative, `+Inf` last) and the sum in seconds.
    pub fn latencies(&self) -> (&[u64], f64) {
        (&self.cells[LATENCY..LATENCY_SUM], self.cells[LATENCY_SUM] as f64 * 1e-9)
    }

    /// What was counted since `earlier`; levels are those of now.
    pub fn since(&self, earlier: &Tally) -> Tally {
        let mut cells = self.cells;
        cells.iter_mut().zip(&earlier.cells).for_each(|(mine, theirs)| *mine = mine.wrapping_sub(*theirs));
        cells[Count::CacheEntries.index()] = self.cells[Count::CacheEntries.index()];
        Tally { cells }
    }

    /// Samples recorded, of all types.
    pub fn recorded_in_all(&self) -> u64 {
        SampleType::ALL.iter().map(|kind| self.recorded_of(*kind)).sum()
    }

    /// Lines and samples refused, for all reasons.
    pub fn dropped_in_all(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.dropped_for(*reason)).sum()
    }

    /// Lines and samples lost: refused for any reason but the two that are intent.
    pub fn lost(&self) -> u64 {
        self.dropped_in_all() - self.dropped_for(DropReason::Sampled) - self.dropped_for(DropReason::MappingDrop)
    }

    /// Adds another tally to this one, as a scrape does with those of all workers.
    pub fn merge(&mut self, other: &Tally) {
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            *mine = mine.wrapping_add(*theirs);
        }
    }
}

/// A worker's tally where a scrape can read it.
#[derive(Debug)]
pub struct Books {
    cells: [AtomicU64; CELLS],
    /// Bits of doubles.
    sampling_rate: AtomicU64,
    load_ratio: AtomicU64,
}

impl Default for Books {
    fn default() -> Self {
        Self {
            cells: [const { AtomicU64::new(0) }; CELLS],
            sampling_rate: AtomicU64::new(1.0_f64.to_bits()),
            load_ratio: AtomicU64::new(0.0_f64.to_bits()),
        }
    }
}

impl Books {
    /// Makes `tally` visible to scrapes. Only the worker that owns these books calls this.
    ///
    /// `Relaxed` suffices: each cell is an independent count, and at rest all of them are current.
    pub fn publish(&self, tally: &Tally) {
        for (cell, value) in self.cells.iter().zip(&tally.cells) {
            cell.store(*value, Relaxed);
        }
    }

    /// Makes the share of lines kept and the worker's load visible to scrapes. Only the worker that owns these books
    /// calls this.
    pub fn publish_load(&self, sampling_rate: f64, load_ratio: f64) {
        self.sampling_rate.store(sampling_rate.to_bits(), Relaxed);
        self.load_ratio.store(load_ratio.to_bits(), Relaxed);
    }

    /// The share of lines kept, as last published.
    pub fn sampling_rate(&self) -> f64 {
        f64::from_bits(self.sampling_rate.load(Relaxed))
    }

    /// The load of the worker, as last published.
    pub fn load_ratio(&self) -> f64 {
        f64::from_bits(self.load_ratio.load(Relaxed))
    }

    /// The tally as last published.
    pub fn read(&self) -> Tally {
        Tally { cells: std::array::from_fn(|place| self.cells[place].load(Relaxed)) }
    }
}

/// What one socket has taken in, and what the kernel says of its queue.
///
/// One reader thread writes `datagrams` and `bytes`; `kernel_dropped` and `queue_bytes` are refreshed by whoever looks.
#[derive(Debug)]
pub struct SocketBooks {
    /// What kind of socket it is.
    pub listener: Listener,
    /// Datagrams read.
    pub datagrams: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Datagrams that the kernel dropped since the socket was made, as far as it has told.
    pub kernel_dropped: AtomicU64,
    /// Bytes in the socket's queue when last looked at, as the kernel charges them.
    pub queue_bytes: AtomicU64,
    /// Bytes the queue may hold, as the kernel granted them.
    pub queue_limit_bytes: AtomicU64,
    /// Connections that are open, of streams.
    pub connections: AtomicU64,
    /// Connections accepted so far, of streams.
    pub accepted: AtomicU64,
    /// Connections closed at once, since as many as may be were open.
    pub refused: AtomicU64,
    /// Failures to read or to accept.
    pub errors: AtomicU64,
    /// The last attempt failed, and it is tried again.
    pub failing: AtomicBool,
    /// Whether the file of a unix socket does not lead to it.
    pub lost: AtomicBool,
}

impl SocketBooks {
    /// Books of a socket that has taken nothing yet.
    pub fn new(listener: Listener, queue_limit_bytes: u64) -> Self {
        Self {
            listener,
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            kernel_dropped: AtomicU64::new(0),
            queue_bytes: AtomicU64::new(0),
            queue_limit_bytes: AtomicU64::new(queue_limit_bytes),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }
}

/// What the series store holds now and has done; written by the store under its lock.
#[derive(Debug, Default)]
pub struct SeriesBooks {
    /// Series that count against the limits, in sample lines of a text scrape.
    pub sample_lines: AtomicU64,
    /// `cardinality.max_series`.
    pub limit: AtomicU64,
    /// Families that exist.
    pub families: AtomicU64,
    /// Series made so far.
    pub created: AtomicU64,
    /// Bytes that series and families take, as far as they are charged.
    pub bytes: AtomicU64,
    /// New series that kept only some of their labels.
    pub simplified: AtomicU64,
    /// Values that became `other`.
    pub folded: AtomicU64,
    /// Series removed, by [`ExpiryCause`].
    pub expired: [AtomicU64; ExpiryCause::COUNT],
    /// Families that ran into a limit, and which.
    pub limited: Mutex<Vec<(Box<str>, Limit)>>,
}

/// Relayed lines, by [`RelayOutcome`]; each counts once for each target.
#[derive(Debug, Default)]
pub struct RelayBooks {
    /// The counts.
    pub lines: [AtomicU64; RelayOutcome::COUNT],
    /// Datagrams sent.
    pub packets: AtomicU64,
}

/// What a family of our own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in classic buckets.
    Histogram,
    /// Facts as labels of a constant 1; its name ends in `_info`.
    Info,
    /// A counter whose name without `_total` is another family's: OpenMetrics then knows no type for it. Its stem ends
    /// in `_total`.
    Total,
}

/// A family of our own, as it is declared once for every format.
#[derive(Debug)]
pub struct Family {
    /// The name without its unit and without `_total` or `_info`.
    pub stem: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit, which ends the name; empty if it counts things.
    pub unit: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Whether `telemetry.own_metrics = "core"` keeps it.
    pub core: bool,
    /// The `# HELP` text; one line without a backslash, since it is written as it is.
    pub help: &'static str,
}

impl Family {
    const fn new(kind: Kind, stem: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { stem, kind, unit, labels: &[], core: false, help }
    }

    const fn by(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    const fn core(self) -> Self {
        Self { core: true, ..self }
    }

    /// The name that queries use, of a histogram without `_bucket`, `_sum` and `_count`.
    pub fn name(&self) -> String {
        let mut name = self.stem.to_owned();
        if !self.unit.is_empty() {
            name.push('_');
            name.push_str(self.unit);
        }
        match self.kind {
            Kind::Counter => name.push_str("_total"),
            Kind::Info => name.push_str("_info"),
            Kind::Gauge | Kind::Histogram | Kind::Total => {}
        }
        name
    }
}

/// The family that a figure of clients is shown as.
pub fn client_family(figure: ClientFigure) -> &'static Family {
    match figure {
        ClientFigure::Metrics => &CLIENT_METRICS,
        ClientFigure::Packets => &CLIENT_PACKETS,
        ClientFigure::Bytes => &CLIENT_BYTES,
        ClientFigure::Dropped => &CLIENT_DROPPED,
        ClientFigure::DroppedBytes => &CLIENT_DROPPED_BYTES,
        ClientFigure::DroppedMetrics => &CLIENT_DROPPED_METRICS,
    }
}

/// Declares families and the list of all of them at once, so that none can be missing from it.
macro_rules! families {
    ($($name:ident = $kind:ident($stem:literal, $unit:literal, $help:literal)$(.$with:ident($($arg:expr)?))*;)+) => {
        $(static $name: Family = Family::new(Kind::$kind, $stem, $unit, $help)$(.$with($($arg)?))*;)+

        /// Every family declared here, in the order of the exposition.
        pub static FAMILIES: &[&Family] = &[$(&$name,)+];
    };
}

pub mod statsd_exporter;

families! {
    BUILD = Info("statsieve_build", "", "Version, source revision and compiler of this program.")
        .by(&["version", "revision", "rustc"]).core();
    CONFIG = Info("statsieve_config", "", "Hash of the configuration in force; instances that differ run different ones.")
        .by(&["hash"]);
    DATAGRAMS = Counter("statsieve_datagrams", "", "Datagrams read from the sockets.").by(&["listener"]);
    RECEIVED = Counter("statsieve_received", "bytes", "Bytes of the datagrams read.").by(&["listener"]);
    KERNEL_DROPPED = Counter("statsieve_kernel_dropped_datagrams", "",
        "Datagrams the kernel dropped because the socket's queue was full.").by(&["listener"]).core();
    QUEUE = Gauge("statsieve_receive_queue", "bytes", "Memory the kernel charges for datagrams that wait to be read.")
        .by(&["listener"]).core();
    QUEUE_LIMIT = Gauge("statsieve_receive_queue_limit", "bytes",
        "Memory the kernel granted for datagrams that wait to be read.").by(&["listener"]).core();
    CONNECTIONS = Gauge("statsieve_connections", "", "Streams that are open.").by(&["listener"]);
    CONNECTIONS_EVER = Total("statsieve_connections_total", "", "Streams accepted.").by(&["listener"]);
    CONNECTIONS_REFUSED = Counter("statsieve_connections_refused", "",
        "Streams closed at once, since as many as may be were open.").by(&["listener"]);
    LISTENER_UP = Gauge("statsieve_listener_up", "", "Whether a listener works; at 0 it fails and is tried again.")
        .by(&["listener"]);
    LISTENER_ERRORS = Counter("statsieve_listener_errors", "", "Failures to read, or to accept a stream.")
        .by(&["listener"]);
    LINES = Counter("statsieve_lines", "", "Lines taken up; blank ones are none.");
    SAMPLES_RECORDED = Counter("statsieve_samples_recorded", "", "Samples recorded into a series.").by(&["type"]).core();
    SAMPLES_DROPPED = Counter("statsieve_samples_dropped", "",
        "Lines and samples refused, by the one reason for each; sampled and mapping_drop are intent, the rest is loss.")
        .by(&["reason"]).core();
    TAGS_DROPPED = Counter("statsieve_tags_dropped", "", "Tags left out or cut while their sample went on.")
        .by(&["reason"]);
    UNKNOWN_FIELDS = Counter("statsieve_unknown_fields", "",
        "Fields of a line that were ignored, by their first letter.").by(&["field"]);
    INVALID_RATES = Counter("statsieve_invalid_rates", "", "Client sample rates that could not be read and counted as 1.");
    SERIES = Gauge("statsieve_series", "", "Series held for users, in sample lines of a text scrape.").core();
    SERIES_LIMIT = Gauge("statsieve_series_limit", "", "The most that statsieve_series may reach.").core();
    FAMILIES_HELD = Gauge("statsieve_families", "", "Metric names held for users.");
    SERIES_CREATED = Counter("statsieve_series_created", "", "Series made.");
    SERIES_EXPIRED = Counter("statsieve_series_expired", "", "Series removed, by what removed them.").by(&["cause"]);
    SERIES_SIMPLIFIED = Counter("statsieve_series_simplified", "",
        "Times that a new label set kept only some of its labels, near a limit or made too fast.");
    VALUES_FOLDED = Counter("statsieve_label_values_folded", "",
        "Times that a label value became other, since its label had as many as it may have.");
    LIMITED_FAMILY = Gauge("statsieve_limited_family_info", "",
        "Families that ran into a limit, and which; the first twenty.").by(&["family", "limit"]);
    OVERFLOW = Counter("statsieve_overflow_samples", "",
        "Samples that an overflow series took in place of one that a limit refused.");
    CACHE_HITS = Counter("statsieve_identity_cache_hits", "", "Samples whose series was found by its identity.");
    CACHE_MISSES = Counter("statsieve_identity_cache_misses", "", "Samples whose series had to be looked up by its labels.");
    CACHE_EVICTIONS = Counter("statsieve_identity_cache_evictions", "", "Identities that gave way to others.");
    CACHE_ENTRIES = Gauge("statsieve_identity_cache_entries", "", "Identities in the caches of all workers.");
    INGEST_LATENCY = Histogram("statsieve_ingest_latency", "seconds",
        "Time from a datagram's arrival in the kernel until all of its lines were recorded.");
    SAMPLING_RATE = Gauge("statsieve_sampling_rate", "",
        "Share of lines kept; below 1 the rest is sampled out and what is kept weighs more.").by(&["worker"]);
    LOAD = Gauge("statsieve_load_ratio", "",
        "CPU time of a worker in the last interval, as a share of a core or of the CPU quota if that is less.")
        .by(&["worker"]);
    MAPPING_ACTIONS = Counter("statsieve_mapping_actions", "",
        "Samples by what the mapping rules did; none is a name without a rule. What was refused before is not counted.")
        .by(&["action"]);
    MAPPING_RULES = Gauge("statsieve_mapping_rules", "", "Mapping rules in force, those of the mapping file among them.");
    CLIENT_METRICS = Counter("statsieve_client_metrics", "", "Metrics that Datadog clients were given, as they say.");
    CLIENT_PACKETS = Counter("statsieve_client_packets", "", "Datagrams or payloads that Datadog clients sent, as they say.");
    CLIENT_BYTES = Counter("statsieve_client", "bytes", "Bytes that Datadog clients sent, as they say.");
    CLIENT_DROPPED = Counter("statsieve_client_dropped", "",
        "Datagrams or payloads that Datadog clients lost before they were sent, as they say.");
    CLIENT_DROPPED_BYTES = Counter("statsieve_client_dropped", "bytes", "The bytes of those, as the clients say.");
    CLIENT_DROPPED_METRICS = Counter("statsieve_client_dropped_metrics", "",
        "Metrics that Datadog clients lost before they put them into a datagram, as they say.");
    SCRAPES = Counter("statsieve_scrapes", "", "Scrapes answered to the end.").by(&["format"]);
    SCRAPE_DURATION = Histogram("statsieve_scrape_duration", "seconds",
        "Time from the request of a scrape until its last part was handed over; a slow reader is part of it.");
    SCRAPE_SIZE = Gauge("statsieve_scrape", "bytes", "Size of the last scrape before compression.");
    ACCEPT_ERRORS = Counter("statsieve_http_accept_errors", "",
        "Failures to accept an HTTP connection, for want of descriptors or memory.");
    GAVE_WAY = Counter("statsieve_http_connections_gave_way", "",
        "HTTP connections closed for others, since as many as may be were open: they asked for nothing, or read too slowly.");
    HTTP_REFUSED = Counter("statsieve_http_refused", "",
        "TLS handshakes and HTTP requests that were refused before a path was looked at, by why.").by(&["reason"]);
    RELOADS = Counter("statsieve_config_reloads", "", "Times that the configuration was read again, by how that ended.")
        .by(&["outcome"]);
    RELOAD_OK = Gauge("statsieve_config_last_reload_successful", "",
        "Whether the last configuration read is the one in force.").core();
    RELOAD_TIME = Gauge("statsieve_config_last_reload_success_timestamp", "seconds",
        "When the configuration in force was read, in unix time.");
    RELAYED = Counter("statsieve_relay_lines", "", "Lines to be sent on, by what became of them, for each target.")
        .by(&["outcome"]);
    MEMORY_LIMIT = Gauge("statsieve_memory_limit", "bytes",
        "The most memory that the process can take by its configuration, whatever it is sent.").core();
    PROCESS_CPU = Counter("process_cpu", "seconds", "Total user and system CPU time spent in seconds.").core();
    PROCESS_OPEN_FDS = Gauge("process_open_fds", "", "Number of open file descriptors.");
    PROCESS_MAX_FDS = Gauge("process_max_fds", "", "Maximum number of open file descriptors.");
    PROCESS_VIRTUAL = Gauge("process_virtual_memory", "bytes", "Virtual memory size in bytes.");
    PROCESS_VIRTUAL_MAX = Gauge("process_virtual_memory_max", "bytes",
        "Maximum amount of virtual memory available in bytes; 0 is no limit.");
    PROCESS_RESIDENT = Gauge("process_resident_memory", "bytes", "Resident memory size in bytes.").core();
    PROCESS_START = Gauge("process_start_time", "seconds", "Start time of the process since unix epoch in seconds.");
    PROCESS_THREADS = Gauge("process_threads", "", "Number of OS threads in the process.");
    DISTINCT = Gauge("statsieve_distinct", "",
        "Estimate of how many different values a bucketed tag had in a window; a lower bound while sampling is active.")
        .by(&["tag", "window"]);
    // Asked for by a key of its own, so it does not count among the 30 of "core".
    DISTINCT_REGISTER = Gauge("statsieve_distinct_register", "",
        "Registers behind statsieve_distinct, to be merged over instances by their maximum.")
        .by(&["tag", "window", "register"]).core();
}
