//! Keeps the sidecar's own metrics and hands them to a scrape.
//!
//! In: books that others write. Out: a `prometheus_client` registry whose collectors read those books when they are
//! asked, so nothing is counted twice and nothing is copied between scrapes.
//! Not here: names, help and labels (`telemetry`), text (`expose::own`).
//! Always: a histogram's `_count` is the sum of its buckets; a family without a series is not exposed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::history::{Figures, History};
use super::statsd_exporter::StatsdExporter;
use super::*;
use crate::config::{Format, OwnMetrics};
use crate::insight::distinct::Estimate;

/// Upper bounds of `statsieve_scrape_duration_seconds`; the last bucket is `+Inf`.
const SCRAPE_BOUNDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// The formats with the label text each is counted under.
const FORMATS: [(Format, &str); 3] =
    [(Format::Text, "text"), (Format::OpenMetrics, "openmetrics"), (Format::Protobuf, "protobuf")];

/// The sidecar's own metrics: reads the books of all workers and sockets, and keeps those of scrapes and reloads.
#[derive(Debug)]
pub struct Telemetry {
    ledger: Arc<Ledger>,
    registry: Registry,
}

impl Telemetry {
    /// Own metrics over these books: one of `workers` for each worker, one of `sockets` for each socket.
    ///
    /// `config_hash` names the configuration in force, which counts as read now.
    pub fn new(
        workers: Vec<Arc<Books>>,
        sockets: Vec<Arc<SocketBooks>>,
        series: Arc<SeriesBooks>,
        config_hash: &str,
        level: OwnMetrics,
    ) -> Self {
        let level = Level::new(level);
        let ledger = Arc::new(Ledger {
            level: level.clone(),
            workers,
            sockets,
            series,
            config_hash: Mutex::new(config_hash.to_owned()),
            reload_successful: AtomicBool::new(true),
            reload_time_ms: AtomicU64::new(unix_ms()),
            reloads: Default::default(),
            scrapes: Default::default(),
            scrape_duration: Histogram::new(SCRAPE_BOUNDS),
            scrape_bytes: AtomicU64::new(0),
            scraped_ms: AtomicU64::new(0),
            scrapes_in_flight: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            gave_way: AtomicU64::new(0),
            http_refused: Default::default(),
            relay: Arc::default(),
            relay_targets: Mutex::default(),
            mapping_rules: AtomicU64::new(0),
            memory_limit: AtomicU64::new(0),
            history: History::default(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&ledger)));
        registry.register_collector(Box::new(Process { level }));
        Self { ledger, registry }
    }

    /// Shows the estimates that `read` gives at each scrape, and their registers if it says so.
    pub fn with_distinct(mut self, read: impl Fn() -> (Vec<Estimate>, bool) + Send + Sync + 'static) -> Self {
        let level = self.ledger.level.clone();
        self.registry.register_collector(Box::new(Distinct { level, read: Box::new(read) }));
        self
    }

    /// Shows the metrics of `statsd_exporter` as well.
    pub fn with_statsd_exporter(mut self) -> Self {
        self.registry.register_collector(Box::new(StatsdExporter(Arc::clone(&self.ledger))));
        self
    }

    /// What an encoder of own metrics walks.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The tallies of all workers as last published, added up.
    pub fn tally(&self) -> Tally {
        self.ledger.tally()
    }

    /// What the sockets of each kind have taken in, for the kinds that have a socket.
    pub fn listeners(&self) -> Vec<(Listener, ListenerFigures)> {
        self.ledger.listeners()
    }

    /// Everything counted so far.
    pub fn figures(&self) -> Figures {
        self.ledger.figures()
    }

    /// Keeps the counts of `now`, the time since the start, every few seconds; to be called about once a second.
    pub fn remember(&self, now: Duration) {
        self.ledger.history.note(now, || self.ledger.figures());
    }

    /// Keeps `figures` as those of all the time since the last were kept, up to `now`.
    pub fn rested(&self, now: Duration, figures: &Figures) {
        self.ledger.history.rested(now, figures);
    }

    /// The counts as they were at least `ago` before `now`, and at what time; see [`History::before`].
    pub fn before(&self, now: Duration, ago: Duration) -> (Duration, Figures) {
        self.ledger.history.before(now, ago)
    }

    /// Share of lines kept and load, by worker.
    pub fn loads(&self) -> Vec<(f64, f64)> {
        self.ledger.workers.iter().map(|books| (books.sampling_rate(), books.load_ratio())).collect()
    }

    /// Whether the last configuration read is the one in force, its hash, and when it was read, in seconds since 1970.
    pub fn configuration(&self) -> (bool, String, f64) {
        let read_at = self.ledger.reload_time_ms.load(Relaxed) as f64 / 1e3;
        (self.ledger.reload_successful.load(Relaxed), self.ledger.config_hash().clone(), read_at)
    }

    /// What the kernel tells of the process; asks it.
    pub fn process(&self) -> ProcessFigures {
        let now = process::Process::read();
        ProcessFigures { cpu_seconds: now.cpu_seconds, resident_bytes: now.resident_bytes }
    }

    /// The kinds of listeners of which one fails now, and is tried again.
    pub fn failing(&self) -> Vec<Listener> {
        self.ledger.listeners().into_iter().filter(|(_, sum)| sum.failing > 0).map(|(kind, _)| kind).collect()
    }

    /// The books of relayed lines.
    pub fn relay(&self) -> &Arc<RelayBooks> {
        &self.ledger.relay
    }

    /// What the series store holds.
    pub fn series(&self) -> &SeriesBooks {
        &self.ledger.series
    }

    /// A scrape begins; [`Self::scrape_over`] has to follow, however it ends.
    pub fn scrape_begun(&self) {
        self.ledger.scrapes_in_flight.fetch_add(1, Relaxed);
    }

    /// A scrape is over, to its end or given up.
    pub fn scrape_over(&self) {
        self.ledger.scrapes_in_flight.fetch_sub(1, Relaxed);
    }

    /// A scrape was made to its end, in `took`, of `bytes` before compression.
    pub fn scraped(&self, format: Format, took: Duration, bytes: u64) {
        self.ledger.scrapes[place(format)].fetch_add(1, Relaxed);
        self.ledger.scrape_duration.observe(took.as_secs_f64());
        self.ledger.scrape_bytes.store(bytes, Relaxed);
        self.ledger.scraped_ms.store(unix_ms(), Relaxed);
    }

    /// How long ago the last scrape was over, and its size before compression; `None` if there was none.
    pub fn last_scrape(&self) -> Option<(Duration, u64)> {
        let at = self.ledger.scraped_ms.load(Relaxed);
        let ago = Duration::from_millis(unix_ms().saturating_sub(at));
        (at > 0).then(|| (ago, self.ledger.scrape_bytes.load(Relaxed)))
    }

    /// Scrapes answered to the end in one format.
    pub fn scrapes(&self, format: Format) -> u64 {
        self.ledger.scrapes[place(format)].load(Relaxed)
    }

    /// An HTTP connection could not be accepted.
    pub fn accept_failed(&self) {
        self.ledger.accept_errors.fetch_add(1, Relaxed);
    }

    /// An HTTP connection was closed for another.
    pub fn gave_way(&self) {
        self.ledger.gave_way.fetch_add(1, Relaxed);
    }

    /// An HTTP client was not let in.
    pub fn refused_http(&self, why: HttpRefusal) {
        self.ledger.http_refused[why.index()].fetch_add(1, Relaxed);
    }

    /// So many mapping rules are in force from now on.
    pub fn set_mapping_rules(&self, rules: usize) {
        self.ledger.mapping_rules.store(rules as u64, Relaxed);
    }

    /// The process can take so many bytes at most from now on.
    pub fn set_memory_limit(&self, bytes: u64) {
        self.ledger.memory_limit.store(bytes, Relaxed);
    }

    /// The most memory that the process can take, bytes.
    pub fn memory_limit(&self) -> u64 {
        self.ledger.memory_limit.load(Relaxed)
    }

    /// Lines are sent on to these from now on.
    pub fn set_relay_targets(&self, targets: &[String]) {
        *self.ledger.relay_targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.join(",");
    }

    /// The configuration was read again and is in force from now on.
    pub fn reload_succeeded(&self, hash: &str) {
        hash.clone_into(&mut self.ledger.config_hash());
        self.ledger.reload_time_ms.store(unix_ms(), Relaxed);
        self.ledger.reload_successful.store(true, Relaxed);
        self.ledger.reloads[ReloadOutcome::Success.index()].fetch_add(1, Relaxed);
    }

    /// The configuration was read again and refused; the one before it stays.
    pub fn reload_failed(&self) {
        self.ledger.reload_successful.store(false, Relaxed);
        self.ledger.reloads[ReloadOutcome::Failure.index()].fetch_add(1, Relaxed);
    }

    /// The configuration was refused at start, and others are in force.
    pub fn config_refused(&self) {
        self.ledger.reload_successful.store(false, Relaxed);
    }

    /// Shows all own metrics from now on, or the core of them.
    pub fn set_level(&self, level: OwnMetrics) {
        self.ledger.level.set(level);
    }
}

/// What the sockets of one kind have taken in, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerFigures {
    /// Datagrams read.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams the kernel dropped, as far as it has told.
    pub kernel_dropped: u64,
    /// Bytes that wait to be read, as the kernel charges them.
    pub queue_bytes: u64,
    /// The most that may wait.
    pub queue_limit_bytes: u64,
    /// Connections open now.
    pub connections: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections closed at once for want of a place.
    pub refused: u64,
    /// Failures to read or to accept.
    pub errors: u64,
    /// Sockets that fail now.
    pub failing: u64,
}

impl ListenerFigures {
    fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.kernel_dropped += other.kernel_dropped;
        self.queue_bytes += other.queue_bytes;
        self.queue_limit_bytes += other.queue_limit_bytes;
        self.connections += other.connections;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.errors += other.errors;
        self.failing += other.failing;
    }
}

/// What the kernel tells of the process; `None` for what it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// CPU time used so far.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
}

/// Milliseconds since 1970; 0 if the clock stands before that.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn place(format: Format) -> usize {
    match format {
        Format::Text => 0,
        Format::OpenMetrics => 1,
        Format::Protobuf => 2,
    }
}

/// Which own metrics are shown; all collectors look at the same.
#[derive(Clone, Debug)]
struct Level(Arc<AtomicBool>);

impl Level {
    fn new(level: OwnMetrics) -> Self {
        let shown = Self(Arc::default());
        shown.set(level);
        shown
    }

    fn set(&self, level: OwnMetrics) {
        self.0.store(level == OwnMetrics::Core, Relaxed);
    }

    fn get(&self) -> OwnMetrics {
        if self.0.load(Relaxed) { OwnMetrics::Core } else { OwnMetrics::Full }
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    level: Level,
    workers: Vec<Arc<Books>>,
    sockets: Vec<Arc<SocketBooks>>,
    pub(super) series: Arc<SeriesBooks>,
    config_hash: Mutex<String>,
    reload_successful: AtomicBool,
    reload_time_ms: AtomicU64,
    reloads: [AtomicU64; ReloadOutcome::COUNT],
    pub(super) scrapes: [AtomicU64; FORMATS.len()],
    pub(super) scrapes_in_flight: AtomicU64,
    scrape_duration: Histogram,
    scrape_bytes: AtomicU64,
    /// When the last scrape was over, milliseconds since 1970; 0 if there was none.
    scraped_ms: AtomicU64,
    accept_errors: AtomicU64,
    gave_way: AtomicU64,
    http_refused: [AtomicU64; HttpRefusal::COUNT],
    pub(super) relay: Arc<RelayBooks>,
    /// With commas between them.
    pub(super) relay_targets: Mutex<String>,
    pub(super) mapping_rules: AtomicU64,
    /// Bytes; 0 until it is told.
    memory_limit: AtomicU64,
    history: History,
}

impl Ledger {
    pub(super) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for books in &self.workers {
            sum.merge(&books.read());
        }
        sum
    }

    pub(super) fn listeners(&self) -> Vec<(Listener, ListenerFigures)> {
        let mut kinds: [Option<ListenerFigures>; Listener::COUNT] = Default::default();
        for socket in &self.sockets {
            kinds[socket.listener.index()].get_or_insert_default().add(&ListenerFigures {
                datagrams: socket.datagrams.load(Relaxed),
                bytes: socket.bytes.load(Relaxed),
                kernel_dropped: socket.kernel_dropped.load(Relaxed),
                queue_bytes: socket.queue_bytes.load(Relaxed),
                queue_limit_bytes: socket.queue_limit_bytes.load(Relaxed),
                connections: socket.connections.load(Relaxed),
                accepted: socket.accepted.load(Relaxed),
                refused: socket.refused.load(Relaxed),
                errors: socket.errors.load(Relaxed),
                failing: u64::from(socket.failing.load(Relaxed) || socket.lost.load(Relaxed)),
            });
        }
        Listener::ALL.iter().filter_map(|kind| kinds[kind.index()].map(|sum| (*kind, sum))).collect()
    }

    pub(super) fn reloads(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ReloadOutcome::ALL.iter().map(|how| (how.label(), self.reloads[how.index()].load(Relaxed)))
    }

    fn figures(&self) -> Figures {
        let mut sockets = ListenerFigures::default();
        self.listeners().iter().for_each(|(_, figures)| sockets.add(figures));
        Figures { tally: self.tally(), sockets, created: self.series.created.load(Relaxed) }
    }

    /// A poisoned lock still guards a whole hash: it is only ever assigned.
    fn config_hash(&self) -> MutexGuard<'_, String> {
        self.config_hash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Ledger {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder, level: self.level.get() };
        let tally = self.tally();
        let listeners = self.listeners();
        let full = self.level.get() == OwnMetrics::Full;
        // A stream is read only as fast as it is taken, and only UDP queues tell their fill.
        let datagram_kinds =
            || listeners.iter().filter(|(kind, _)| matches!(kind, Listener::Udp | Listener::UnixDatagram));
        let udp = || listeners.iter().filter(|(kind, _)| *kind == Listener::Udp);

        let build = [
            env!("CARGO_PKG_VERSION"),
            option_env!("STATSIEVE_REVISION").unwrap_or("unknown"),
            option_env!("STATSIEVE_RUSTC").unwrap_or("unknown"),
        ];
        out.info(&BUILD, &build)?;
        out.info(&CONFIG, &[self.config_hash().as_str()])?;

        out.counters(&DATAGRAMS, datagram_kinds().map(|(kind, sum)| (kind.label(), sum.datagrams)))?;
        out.counters(&RECEIVED, listeners.iter().map(|(kind, sum)| (kind.label(), sum.bytes)))?;
        out.counters(&KERNEL_DROPPED, datagram_kinds().map(|(kind, sum)| (kind.label(), sum.kernel_dropped)))?;
        out.gauges(&QUEUE, udp().map(|(kind, sum)| (kind.label(), sum.queue_bytes)))?;
        out.gauges(&QUEUE_LIMIT, udp().map(|(kind, sum)| (kind.label(), sum.queue_limit_bytes)))?;

        let streams = || listeners.iter().filter(|(kind, _)| matches!(kind, Listener::Tcp | Listener::UnixStream));
        out.gauges(&CONNECTIONS, streams().map(|(kind, sum)| (kind.label(), sum.connections)))?;
        out.gauges(&CONNECTIONS_EVER, streams().map(|(kind, sum)| (kind.label(), sum.accepted)))?;
        out.counters(&CONNECTIONS_REFUSED, streams().map(|(kind, sum)| (kind.label(), sum.refused)))?;
        out.gauges(&LISTENER_UP, listeners.iter().map(|(kind, sum)| (kind.label(), u64::from(sum.failing == 0))))?;
        out.counters(&LISTENER_ERRORS, listeners.iter().map(|(kind, sum)| (kind.label(), sum.errors)))?;

        out.counter(&LINES, tally.get(Count::Lines))?;
        if full {
            out.counters(
                &SAMPLES_RECORDED,
                SampleType::ALL.iter().map(|kind| (kind.label(), tally.recorded_of(*kind))),
            )?;
        } else {
            // The eight types are most of what 30 series could hold; a sum over them reads the same either way.
            out.counter(&SAMPLES_RECORDED, tally.recorded_in_all())?;
        }
        out.counters(
            &SAMPLES_DROPPED,
            DropReason::ALL.iter().map(|reason| (reason.label(), tally.dropped_for(*reason))),
        )?;
        out.counters(
            &TAGS_DROPPED,
            TagDropReason::ALL.iter().map(|reason| (reason.label(), tally.tags_dropped_for(*reason))),
        )?;
        out.counters(&UNKNOWN_FIELDS, tally.unknown_fields())?;
        out.counter(&INVALID_RATES, tally.get(Count::InvalidRates))?;

        out.gauge(&SERIES, self.series.sample_lines.load(Relaxed))?;
        out.gauge(&SERIES_LIMIT, self.series.limit.load(Relaxed))?;
        out.gauge(&FAMILIES_HELD, self.series.families.load(Relaxed))?;
        out.counter(&SERIES_CREATED, self.series.created.load(Relaxed))?;
        let causes = ExpiryCause::ALL.iter();
        let expired = causes.map(|cause| (cause.label(), self.series.expired[cause.index()].load(Relaxed)));
        out.counters(&SERIES_EXPIRED, expired)?;
        out.counter(&SERIES_SIMPLIFIED, self.series.simplified.load(Relaxed))?;
        out.counter(&VALUES_FOLDED, self.series.folded.load(Relaxed))?;
        out.limited(&LIMITED_FAMILY, &self.series.limited.lock().unwrap_or_else(PoisonError::into_inner))?;
        out.counter(&OVERFLOW, tally.get(Count::OverflowSamples))?;
        out.counter(&CACHE_HITS, tally.get(Count::CacheHits))?;
        out.counter(&CACHE_MISSES, tally.get(Count::CacheMisses))?;
        out.counter(&CACHE_EVICTIONS, tally.get(Count::CacheEvictions))?;
        out.gauge(&CACHE_ENTRIES, tally.get(Count::CacheEntries))?;

        let (counts, sum) = tally.latencies();
        if let Some(mut family) = out.family(&INGEST_LATENCY)? {
            let bounds = LATENCY_BOUNDS.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            family.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)?;
        }

        out.workers(&SAMPLING_RATE, self.workers.iter().map(|books| books.sampling_rate()))?;
        out.workers(&LOAD, self.workers.iter().map(|books| books.load_ratio()))?;

        let actions = [
            ("map", tally.get(Count::Mapped)),
            ("drop", tally.dropped_for(DropReason::MappingDrop)),
            ("none", tally.get(Count::Unmapped)),
        ];
        out.counters(&MAPPING_ACTIONS, actions.into_iter())?;
        out.gauge(&MAPPING_RULES, self.mapping_rules.load(Relaxed))?;
        ClientFigure::ALL.iter().try_for_each(|it| out.counter(client_family(*it), tally.client_of(*it)))?;

        out.counters(
            &SCRAPES,
            FORMATS.iter().map(|(format, label)| (*label, self.scrapes[place(*format)].load(Relaxed))),
        )?;
        if let Some(family) = out.family(&SCRAPE_DURATION)? {
            self.scrape_duration.encode(family)?;
        }
        out.gauge(&SCRAPE_SIZE, self.scrape_bytes.load(Relaxed))?;
        out.counter(&ACCEPT_ERRORS, self.accept_errors.load(Relaxed))?;
        out.counter(&GAVE_WAY, self.gave_way.load(Relaxed))?;
        let reasons = HttpRefusal::ALL.iter();
        out.counters(&HTTP_REFUSED, reasons.map(|why| (why.label(), self.http_refused[why.index()].load(Relaxed))))?;
        out.counters(&RELOADS, self.reloads())?;
        out.gauge(&RELOAD_OK, u64::from(self.reload_successful.load(Relaxed)))?;
        if let Some(mut family) = out.family(&RELOAD_TIME)? {
            family.encode_gauge(&(self.reload_time_ms.load(Relaxed) as f64 / 1e3))?;
        }
        let outcomes = RelayOutcome::ALL.iter();
        out.counters(
            &RELAYED,
            outcomes.map(|outcome| (outcome.label(), self.relay.lines[outcome.index()].load(Relaxed))),
        )?;
        out.gauge(&MEMORY_LIMIT, self.memory_limit.load(Relaxed))?;
        Ok(())
    }
}

/// `process_*`, read from the kernel at each scrape; what it does not tell is left out.
#[derive(Debug)]
struct Process {
    level: Level,
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = process::Process::read();
        let mut out = Out { encoder, level: self.level.get() };
        if let Some(seconds) = now.cpu_seconds
            && let Some(mut family) = out.family(&PROCESS_CPU)?
        {
            family.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        for (family, value) in [
            (&PROCESS_OPEN_FDS, now.open_fds),
            (&PROCESS_MAX_FDS, now.max_fds),
            (&PROCESS_VIRTUAL, now.virtual_bytes),
            (&PROCESS_VIRTUAL_MAX, now.virtual_max_bytes),
            (&PROCESS_RESIDENT, now.resident_bytes),
            (&PROCESS_START, now.start_seconds),
            (&PROCESS_THREADS, now.threads),
        ] {
            if let Some(value) = value {
                out.gauge(family, value)?;
            }
        }
        Ok(())
    }
}

/// `statsieve_distinct` and its registers, merged over the workers at each scrape.
struct Distinct {
    level: Level,
    /// The estimates, and whether their registers are shown.
    read: Box<dyn Fn() -> (Vec<Estimate>, bool) + Send + Sync>,
}

impl fmt::Debug for Distinct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distinct").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Collector for Distinct {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (estimates, registers) = (self.read)();
        if estimates.is_empty() {
            return Ok(());
        }
        let mut out = Out { encoder, level: self.level.get() };
        let [tag, window] = [DISTINCT.labels[0], DISTINCT.labels[1]];
        if let Some(mut family) = out.family(&DISTINCT)? {
            for found in &estimates {
                let labels = [(tag, found.tag.as_str()), (window, found.window.as_str())];
                family.encode_family(&labels)?.encode_gauge(&found.value())?;
            }
        }
        if registers && let Some(mut family) = out.family(&DISTINCT_REGISTER)? {
            for found in &estimates {
                for (number, rank) in found.registers.iter().enumerate() {
                    let number = number.to_string();
                    let labels = [
                        (tag, found.tag.as_str()),
                        (window, found.window.as_str()),
                        (DISTINCT_REGISTER.labels[2], number.as_str()),
                    ];
                    family.encode_family(&labels)?.encode_gauge(&u64::from(*rank))?;
                }
            }
        }
        Ok(())
    }
}

/// Writes declared families, leaving out those that the level does not show.
pub(super) struct Out<'a> {
    pub(super) encoder: DescriptorEncoder<'a>,
    pub(super) level: OwnMetrics,
}

impl Out<'_> {
    /// Opens a family; `None` if it is not shown.
    fn family(&mut self, family: &'static Family) -> Result<Option<MetricEncoder<'_>>, fmt::Error> {
        if self.level == OwnMetrics::Core && !family.core {
            return Ok(None);
        }
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
            Kind::Total => MetricType::Unknown,
        };
        let unit: Option<&'static Unit> = match family.unit {
            "bytes" => Some(&Unit::Bytes),
            "seconds" => Some(&Unit::Seconds),
            _ => None,
        };
        self.encoder.encode_descriptor(family.stem, family.help, unit, kind).map(Some)
    }

    pub(super) fn counter(&mut self, family: &'static Family, value: u64) -> fmt::Result {
        match self.family(family)? {
            Some(mut metric) => metric.encode_counter::<NoLabelSet, u64, f64>(&value, None),
            None => Ok(()),
        }
    }

    pub(super) fn gauge(&mut self, family: &'static Family, value: u64) -> fmt::Result {
        match self.family(family)? {
            Some(mut metric) => metric.encode_gauge(&value),
            None => Ok(()),
        }
    }

    /// One series per value of the family's only label.
    pub(super) fn counters<'l>(
        &mut self,
        family: &'static Family,
        values: impl Iterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        self.labelled(family, values, |metric, value| metric.encode_counter::<NoLabelSet, u64, f64>(&value, None))
    }

    /// One series per value of the family's only label.
    fn gauges(&mut self, family: &'static Family, values: impl Iterator<Item = (&'static str, u64)>) -> fmt::Result {
        self.labelled(family, values, |metric, value| metric.encode_gauge(&value))
    }

    /// One series per worker, by its number: those are as many as threads, and none comes from the network.
    fn workers(&mut self, family: &'static Family, values: impl Iterator<Item = f64>) -> fmt::Result {
        let mut values = values.enumerate().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        if let Some(mut metric) = self.family(family)? {
            for (worker, value) in values {
                metric.encode_family(&[(family.labels[0], worker.to_string().as_str())])?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn labelled<'l>(
        &mut self,
        family: &'static Family,
        values: impl Iterator<Item = (&'l str, u64)>,
        write: impl Fn(&mut MetricEncoder<'_>, u64) -> fmt::Result,
    ) -> fmt::Result {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        if let Some(mut metric) = self.family(family)? {
            for (label, value) in values {
                write(&mut metric.encode_family(&[(family.labels[0], label)])?, value)?;
            }
        }
        Ok(())
    }

    /// A constant 1 for each family and the limit that it ran into.
    fn limited(&mut self, family: &'static Family, limited: &[(Box<str>, Limit)]) -> fmt::Result {
        if limited.is_empty() {
            return Ok(());
        }
        if let Some(mut metric) = self.family(family)? {
            for (name, limit) in limited {
                let labels = [(family.labels[0], &**name), (family.labels[1], limit.label())];
                metric.encode_family(&labels)?.encode_gauge(&1u64)?;
            }
        }
        Ok(())
    }

    /// A constant 1 with the family's labels, which `values` gives in order.
    pub(super) fn info(&mut self, family: &'static Family, values: &[&str]) -> fmt::Result {
        let labels: Vec<(&str, &str)> = family.labels.iter().copied().zip(values.iter().copied()).collect();
        match self.family(family)? {
            Some(mut metric) => metric.encode_info(&labels),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::expose::own;

    fn telemetry(level: OwnMetrics, kinds: &[Listener]) -> (Telemetry, [Arc<Books>; 2], Vec<Arc<SocketBooks>>) {
        let workers = [Arc::new(Books::default()), Arc::new(Books::default())];
        let sockets: Vec<_> = kinds.iter().map(|kind| Arc::new(SocketBooks::new(*kind, 1000))).collect();
        let telemetry = Telemetry::new(workers.to_vec(), sockets.clone(), Arc::default(), "c0ffee", level);
        let estimate = |window: &str| Estimate {
            tag: "user_id".to_owned(),
            window: window.to_owned(),
            registers: [&[1, 1][..], &[0; 14]].concat(),
        };
        let telemetry =
            telemetry.with_distinct(move || (vec![estimate("5m"), estimate("24h")], level == OwnMetrics::Full));
        (telemetry, workers, sockets)
    }

    fn text(telemetry: &Telemetry) -> String {
        let mut out = String::new();
        own::text(telemetry.registry(), &mut out).unwrap();
        out
    }

    fn samples(text: &str) -> BTreeMap<&str, f64> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(series, value)| (series, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn tallies_of_all_workers_and_sockets_are_added_up_when_asked() {
        let (telemetry, workers, sockets) =
            telemetry(OwnMetrics::Full, &[Listener::Udp, Listener::Udp, Listener::UnixDatagram]);
        let mut tally = Tally::default();
        tally.add(Count::Lines, 5);
        tally.recorded(SampleType::Gauge);
        tally.dropped(DropReason::Sampled);
        tally.dropped(DropReason::MappingDrop);
        tally.add(Count::Mapped, 7);
        tally.add(Count::Unmapped, 8);
        for (n, figure) in (1..).zip(ClientFigure::ALL) {
            tally.client(*figure, n);
        }
        tally.tags_dropped(TagDropReason::Bare, 2);
        tally.unknown_field(b'z');
        tally.set(Count::CacheEntries, 3);
        tally.latency(900_000);
        workers[0].publish(&tally);
        tally.latency(5_000_000_000);
        workers[1].publish(&tally);
        workers[1].publish_load(0.64, 0.75);
        for socket in &sockets {
            socket.datagrams.store(4, Relaxed);
            socket.kernel_dropped.store(1, Relaxed);
            socket.queue_bytes.store(10, Relaxed);
        }
        sockets[1].errors.store(3, Relaxed);
        sockets[1].failing.store(true, Relaxed);
        telemetry.series().created.store(9, Relaxed);
        telemetry.set_mapping_rules(12);
        telemetry.set_memory_limit(1 << 28);
        telemetry.gave_way();
        telemetry.refused_http(HttpRefusal::Unauthorized);
        telemetry.scraped(Format::OpenMetrics, Duration::from_millis(2), 1234);

        let text = text(&telemetry);
        let found = samples(&text);
        for (series, expected) in [
            ("statsieve_lines_total", 10.0),
            ("statsieve_samples_recorded_total{type=\"gauge\"}", 2.0),
            ("statsieve_samples_recorded_total{type=\"service_check\"}", 0.0),
            ("statsieve_samples_dropped_total{reason=\"sampled\"}", 2.0),
            ("statsieve_samples_dropped_total{reason=\"cardinality\"}", 0.0),
            ("statsieve_tags_dropped_total{reason=\"bare\"}", 4.0),
            ("statsieve_unknown_fields_total{field=\"z\"}", 2.0),
            ("statsieve_identity_cache_entries", 6.0),
            ("statsieve_datagrams_total{listener=\"udp\"}", 8.0),
            ("statsieve_datagrams_total{listener=\"unix_datagram\"}", 4.0),
            ("statsieve_listener_up{listener=\"udp\"}", 0.0),
            ("statsieve_listener_up{listener=\"unix_datagram\"}", 1.0),
            ("statsieve_listener_errors_total{listener=\"udp\"}", 3.0),
            ("statsieve_kernel_dropped_datagrams_total{listener=\"udp\"}", 2.0),
            ("statsieve_receive_queue_bytes{listener=\"udp\"}", 20.0),
            ("statsieve_receive_queue_limit_bytes{listener=\"udp\"}", 2000.0),
            ("statsieve_series_created_total", 9.0),
            ("statsieve_ingest_latency_seconds_bucket{le=\"0.0005\"}", 0.0),
            ("statsieve_ingest_latency_seconds_bucket{le=\"0.001\"}", 2.0),
            ("statsieve_ingest_latency_seconds_bucket{le=\"1.0\"}", 2.0),
            ("statsieve_ingest_latency_seconds_bucket{le=\"+Inf\"}", 3.0),
            ("statsieve_ingest_latency_seconds_count", 3.0),
            ("statsieve_ingest_latency_seconds_sum", 5.0018),
            ("statsieve_sampling_rate{worker=\"0\"}", 1.0),
            ("statsieve_sampling_rate{worker=\"1\"}", 0.64),
            ("statsieve_load_ratio{worker=\"0\"}", 0.0),
            ("statsieve_load_ratio{worker=\"1\"}", 0.75),
            ("statsieve_mapping_actions_total{action=\"map\"}", 14.0),
            ("statsieve_mapping_actions_total{action=\"drop\"}", 2.0),
            ("statsieve_mapping_actions_total{action=\"none\"}", 16.0),
            ("statsieve_mapping_rules", 12.0),
            ("statsieve_memory_limit_bytes", 268_435_456.0),
            ("statsieve_http_connections_gave_way_total", 1.0),
            ("statsieve_http_refused_total{reason=\"handshake\"}", 0.0),
            ("statsieve_http_refused_total{reason=\"unauthorized\"}", 1.0),
            ("statsieve_client_metrics_total", 2.0),
            ("statsieve_client_packets_total", 4.0),
            ("statsieve_client_bytes_total", 6.0),
            ("statsieve_client_dropped_total", 8.0),
            ("statsieve_client_dropped_bytes_total", 10.0),
            ("statsieve_client_dropped_metrics_total", 12.0),
            ("statsieve_scrapes_total{format=\"openmetrics\"}", 1.0),
            ("statsieve_scrapes_total{format=\"protobuf\"}", 0.0),
            ("statsieve_scrape_bytes", 1234.0),
            ("statsieve_scrape_duration_seconds_bucket{le=\"0.0025\"}", 1.0),
            ("statsieve_config_info{hash=\"c0ffee\"}", 1.0),
            ("statsieve_distinct_register{tag=\"user_id\",window=\"5m\",register=\"1\"}", 1.0),
            ("statsieve_distinct_register{tag=\"user_id\",window=\"24h\",register=\"15\"}", 0.0),
            ("statsieve_config_last_reload_successful", 1.0),
        ] {
            assert_eq!(found.get(series), Some(&expected), "{series}");
        }
        assert_eq!(found.keys().filter(|series| series.contains("unknown_fields")).count(), 1);
        // Two values, as they are too few to meet in one register.
        assert!((found["statsieve_distinct{tag=\"user_id\",window=\"5m\"}"] - 2.0).abs() < 0.2);
        assert!(!text.contains("listener=\"tcp\""), "a kind without a socket is not exposed");
        assert!(!text.contains("queue_bytes{listener=\"unix_datagram\"}"), "only UDP tells its fill");
        assert!(found["process_resident_memory_bytes"] > 1e6);
        assert!(found["process_start_time_seconds"] > 1e9);
        assert_eq!(telemetry.tally().get(Count::Lines), 10);
        assert_eq!(telemetry.listeners()[0].1.datagrams, 8);
    }

    #[test]
    fn the_books_may_be_read_any_number_of_times_without_counting_twice() {
        let (telemetry, workers, _) = telemetry(OwnMetrics::Full, &[Listener::Udp]);
        let mut tally = Tally::default();
        tally.add(Count::Lines, 7);
        workers[0].publish(&tally);
        for _ in 0..3 {
            assert_eq!(samples(&text(&telemetry))["statsieve_lines_total"], 7.0);
        }
    }

    #[test]
    fn core_is_at_most_30_series_whatever_was_counted() {
        let (telemetry, workers, _) = telemetry(OwnMetrics::Core, Listener::ALL);
        let mut tally = Tally::default();
        SampleType::ALL.iter().for_each(|kind| tally.recorded(*kind));
        DropReason::ALL.iter().for_each(|reason| tally.dropped(*reason));
        (0..=255).for_each(|letter| tally.unknown_field(letter));
        workers[0].publish(&tally);
        let text = text(&telemetry);
        let found = samples(&text);
        assert!(found.len() <= 30, "{} series:\n{text}", found.len());
        assert_eq!(found["statsieve_samples_recorded_total"], 8.0);
        assert_eq!(found.keys().filter(|series| series.starts_with("statsieve_samples_dropped_total{")).count(), 18);
    }

    #[test]
    fn what_is_declared_is_what_is_exposed_in_the_same_order() {
        let (telemetry, workers, _) = telemetry(OwnMetrics::Full, Listener::ALL);
        let mut tally = Tally::default();
        tally.unknown_field(b'x');
        workers[0].publish(&tally);
        telemetry.series().limited.lock().unwrap().push(("a_total".into(), Limit::MaxValues));
        let text = text(&telemetry);
        assert!(text.contains("statsieve_limited_family_info{family=\"a_total\",limit=\"max_values\"} 1\n"));
        let exposed: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let declared: Vec<String> = FAMILIES.iter().map(|family| family.name()).collect();
        assert_eq!(exposed, declared);
        for family in FAMILIES {
            let help = format!("# HELP {} {}\n", family.name(), family.help);
            assert!(text.contains(&help), "{help}");
            assert!(!family.help.contains(['\\', '\n']) && family.help.ends_with('.'), "{}", family.help);
            let labels: BTreeSet<&str> = family.labels.iter().copied().collect();
            for line in text.lines().filter(|line| {
                line.strip_prefix(family.name().as_str()).is_some_and(|rest| rest.starts_with(['{', ' ']))
            }) {
                let inside = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
                let found: BTreeSet<&str> =
                    inside.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
                assert_eq!(found, labels, "{line}");
            }
        }
    }

    #[test]
    fn a_refused_configuration_leaves_the_hash_and_says_so() {
        let (telemetry, ..) = telemetry(OwnMetrics::Full, &[]);
        telemetry.reload_failed();
        let refused = text(&telemetry);
        assert_eq!(samples(&refused)["statsieve_config_info{hash=\"c0ffee\"}"], 1.0);
        assert_eq!(samples(&refused)["statsieve_config_last_reload_successful"], 0.0);
        telemetry.reload_succeeded("beef");
        let applied = text(&telemetry);
        assert_eq!(samples(&applied)["statsieve_config_info{hash=\"beef\"}"], 1.0);
        assert_eq!(samples(&applied)["statsieve_config_last_reload_successful"], 1.0);
        for outcome in ["success", "failure"] {
            let series = format!("statsieve_config_reloads_total{{outcome=\"{outcome}\"}}");
            assert_eq!(samples(&applied)[series.as_str()], 1.0, "{outcome}");
        }
    }

    #[test]
    fn the_level_can_be_changed_while_it_runs() {
        let (telemetry, ..) = telemetry(OwnMetrics::Full, &[Listener::Udp]);
        telemetry.set_level(OwnMetrics::Core);
        assert!(!text(&telemetry).contains("statsieve_lines_total"));
        telemetry.set_level(OwnMetrics::Full);
        assert!(text(&telemetry).contains("statsieve_lines_total"));
    }
}
