//! The metrics that `statsd_exporter` has of itself, under its names, for whoever runs this program in its place.
//!
//! In: the books that all own metrics come from. Out: `statsd_exporter_*`, `statsd_metric_mapper_cache_*` and
//! `promhttp_metric_handler_*` families, once asked for by `telemetry.statsd_exporter_metrics`.
//! Not here: whether they are asked for (`config`); names of the bot that begin so, which `map` refuses.
//! Always: nothing is counted a second time; a figure that the books do not hold is left out, and one that differs from
//! that program's says so in its help. No label comes from the network.
//! Follows: the metrics of `statsd_exporter` 0.30.

use std::fmt;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::registry::{Ledger, Out};
use super::*;
use crate::config::OwnMetrics;

closed_set! {
    /// What samples are recorded as; the `type` of `statsd_exporter_events_total`.
    pub enum EventType {
        /// `c`, and events, which are counted.
        Counter = "counter",
        /// `g`, service checks, and sets, which are shown as gauges.
        Gauge = "gauge",
        /// `ms`, `h` and `d`.
        Observer = "observer",
    }
}

closed_set! {
    /// The `reason` of `statsd_exporter_sample_errors_total`.
    pub enum SampleError {
        /// No line of StatsD, or no UTF-8.
        MalformedLine = "malformed_line",
        /// Tags in the name and behind the type.
        MixedTaggingStyles = "mixed_tagging_styles",
        /// A part is empty.
        MalformedComponent = "malformed_component",
        /// The value is no finite number.
        MalformedValue = "malformed_value",
        /// A rate that cannot be read or applied.
        InvalidSampleFactor = "invalid_sample_factor",
        /// A type that is not known.
        IllegalEvent = "illegal_event",
    }
}

closed_set! {
    /// The `reason` of `statsd_exporter_events_error_total`: the first two are that program's, for the others it has no
    /// word, and they are called what they are called in `statsieve_samples_dropped_total`.
    pub enum EventError {
        /// A counter below zero.
        IllegalNegativeCounter = "illegal_negative_counter",
        /// No name is left.
        EmptyMetricName = "empty_metric_name",
        /// Longer than `labels.max_name_bytes`.
        NameTooLong = "name_too_long",
        /// A tag that no scrape could show.
        ReservedLabel = "reserved_label",
        /// Over a quota.
        RateLimited = "rate_limited",
        /// At a limit.
        Cardinality = "cardinality",
    }
}

/// What is told where that program tells its version: one that nobody takes for its own.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-statsieve");

/// Codes that `promhttp_metric_handler_requests_total` knows; but for the first, none is ever answered.
const CODES: [&str; 3] = ["200", "500", "503"];

/// Sample lines of all of it.
pub const MOST_LINES: usize = EventType::COUNT + SampleError::COUNT + EventError::COUNT + CODES.len() + 25;

families! {
    BUILD = Info("statsd_exporter_build", "", "Version and revision of the program in place of statsd_exporter.")
        .by(&["version", "revision"]);
    EVENTS = Counter("statsd_exporter_events", "",
        "Samples recorded, by what they are; a sampled observation is one, whatever its rate.").by(&["type"]);
    EVENTS_UNMAPPED = Counter("statsd_exporter_events_unmapped", "", "Samples that no mapping rule was for.");
    EVENTS_ACTIONS = Counter("statsd_exporter_events_actions", "", "Samples that a mapping rule named, or dropped.")
        .by(&["action"]);
    EVENTS_ERROR = Counter("statsd_exporter_events_error", "", "Samples that could be read and were refused, by why.")
        .by(&["reason"]);
    EVENTS_CONFLICT = Counter("statsd_exporter_events_conflict", "",
        "Samples whose name belongs to a metric of another type, or is reserved; of all types and names together.");
    UDP_PACKETS = Counter("statsd_exporter_udp_packets", "", "Datagrams read from UDP.");
    UDP_DROPS = Counter("statsd_exporter_udp_packet_drops", "",
        "Datagrams that the kernel dropped since the socket's queue was full; there is no queue behind it.");
    TCP_CONNECTIONS = Counter("statsd_exporter_tcp_connections", "", "TCP connections accepted.");
    TCP_ERRORS = Counter("statsd_exporter_tcp_connection_errors", "",
        "TCP connections that could not be accepted, or were closed at once since too many were open.");
    TCP_TOO_LONG = Counter("statsd_exporter_tcp_too_long_lines", "",
        "Lines longer than listen.max_line_bytes, of any listener; the connection goes on.");
    UNIXGRAM_PACKETS = Counter("statsd_exporter_unixgram_packets", "", "Datagrams read from the unix socket.");
    LINES = Counter("statsd_exporter_lines", "", "Lines taken up; blank ones are none.");
    SAMPLES = Counter("statsd_exporter_samples", "", "Samples of lines that could be read, recorded or refused.");
    SAMPLE_ERRORS = Counter("statsd_exporter_sample_errors", "",
        "Lines and samples that could not be read, by why; after invalid_sample_factor a sample may have gone on.")
        .by(&["reason"]);
    TAG_ERRORS = Counter("statsd_exporter_tag_errors", "", "Tags left out for want of a key or a value.");
    RELOADS = Counter("statsd_exporter_config_reloads", "", "Times that the configuration was read again.")
        .by(&["outcome"]);
    LOADED_MAPPINGS = Gauge("statsd_exporter_loaded_mappings", "", "Mapping rules in force.");
    METRICS = Gauge("statsd_exporter_metrics_total", "", "Metric names held now, of all types together.");
    RELAY_PACKETS = Counter("statsd_exporter_relay_packets", "", "Datagrams sent on.").by(&["target"]);
    RELAY_LONG = Counter("statsd_exporter_relay_long_lines", "", "Lines too long to be sent on.").by(&["target"]);
    RELAY_LINES = Counter("statsd_exporter_relay_lines_relayed", "", "Lines sent on.").by(&["target"]);
    CACHE_LENGTH = Gauge("statsd_metric_mapper_cache_length", "",
        "Identities in the caches of all workers, which remember what mapping and limits made of a sample.");
    CACHE_GETS = Counter("statsd_metric_mapper_cache_gets", "", "Look-ups in these caches.");
    CACHE_HITS = Counter("statsd_metric_mapper_cache_hits", "", "Look-ups that found the identity.");
    REQUESTS = Counter("promhttp_metric_handler_requests", "", "Scrapes answered to the end, by the code of the answer.")
        .by(&["code"]);
    IN_FLIGHT = Gauge("promhttp_metric_handler_requests_in_flight", "", "Scrapes being answered, this one included.");
}

/// Where a refused line or sample is counted there.
enum CountedAs {
    /// It could not be read; whether it counts among the samples.
    Sample(SampleError, bool),
    /// It could be read.
    Event(EventError),
    /// Its name is taken.
    Conflict,
    /// A rule dropped it.
    Action,
    /// It was too long to be looked at.
    TooLong,
    /// Thinned out, which that program never does: a sample, and no error.
    Nowhere,
}

const fn counted_as(reason: DropReason) -> CountedAs {
    match reason {
        DropReason::MalformedLine | DropReason::InvalidUtf8 => CountedAs::Sample(SampleError::MalformedLine, false),
        DropReason::MixedTagStyles => CountedAs::Sample(SampleError::MixedTaggingStyles, false),
        DropReason::MalformedField => CountedAs::Sample(SampleError::MalformedComponent, true),
        DropReason::MalformedValue | DropReason::NotFinite => CountedAs::Sample(SampleError::MalformedValue, true),
        DropReason::SampleRate => CountedAs::Sample(SampleError::InvalidSampleFactor, true),
        DropReason::UnknownType => CountedAs::Sample(SampleError::IllegalEvent, true),
        DropReason::NegativeCounter => CountedAs::Event(EventError::IllegalNegativeCounter),
        DropReason::EmptyName => CountedAs::Event(EventError::EmptyMetricName),
        DropReason::NameTooLong => CountedAs::Event(EventError::NameTooLong),
        DropReason::ReservedLabel => CountedAs::Event(EventError::ReservedLabel),
        DropReason::RateLimited => CountedAs::Event(EventError::RateLimited),
        DropReason::Cardinality => CountedAs::Event(EventError::Cardinality),
        DropReason::TypeConflict => CountedAs::Conflict,
        DropReason::MappingDrop => CountedAs::Action,
        DropReason::LineTooLong => CountedAs::TooLong,
        DropReason::Sampled => CountedAs::Nowhere,
    }
}

const fn event_type(kind: SampleType) -> EventType {
    match kind {
        SampleType::Counter | SampleType::Event => EventType::Counter,
        SampleType::Gauge | SampleType::ServiceCheck | SampleType::Set => EventType::Gauge,
        SampleType::Timer | SampleType::Histogram | SampleType::Distribution => EventType::Observer,
    }
}

/// What a tally holds, in the terms of `statsd_exporter`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Restated {
    samples: u64,
    events: [u64; EventType::COUNT],
    sample_errors: [u64; SampleError::COUNT],
    event_errors: [u64; EventError::COUNT],
    conflicts: u64,
    too_long: u64,
}

impl Restated {
    fn of(tally: &Tally) -> Self {
        let mut found = Self::default();
        for kind in SampleType::ALL {
            found.events[event_type(*kind).index()] += tally.recorded_of(*kind);
            found.samples += tally.recorded_of(*kind);
        }
        for reason in DropReason::ALL {
            let n = tally.dropped_for(*reason);
            let is_sample = match counted_as(*reason) {
                CountedAs::Sample(error, is_sample) => {
                    found.sample_errors[error.index()] += n;
                    is_sample
                }
                CountedAs::Event(error) => {
                    found.event_errors[error.index()] += n;
                    true
                }
                CountedAs::Conflict => {
                    found.conflicts += n;
                    true
                }
                CountedAs::TooLong => {
                    found.too_long += n;
                    false
                }
                CountedAs::Action | CountedAs::Nowhere => true,
            };
            found.samples += if is_sample { n } else { 0 };
        }
        // Counted there as an error as well, though its sample goes on.
        found.sample_errors[SampleError::InvalidSampleFactor.index()] += tally.get(Count::InvalidRates);
        found
    }
}

/// Reads the books at each scrape and tells them in those terms.
#[derive(Debug)]
pub(super) struct StatsdExporter(pub(super) Arc<Ledger>);

impl Collector for StatsdExporter {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = &self.0;
        // Asked for by a key of their own, "core" or not.
        let mut out = Out { encoder, level: OwnMetrics::Full };
        let tally = ledger.tally();
        let restated = Restated::of(&tally);
        let listeners = ledger.listeners();
        let of = |kind| listeners.iter().find(|(found, _)| *found == kind).map(|(_, sum)| *sum).unwrap_or_default();
        let (udp, tcp) = (of(Listener::Udp), of(Listener::Tcp));

        out.info(&BUILD, &[VERSION, option_env!("STATSIEVE_REVISION").unwrap_or("unknown")])?;
        out.counters(&EVENTS, EventType::ALL.iter().map(|kind| (kind.label(), restated.events[kind.index()])))?;
        out.counter(&EVENTS_UNMAPPED, tally.get(Count::Unmapped))?;
        let actions = [("map", tally.get(Count::Mapped)), ("drop", tally.dropped_for(DropReason::MappingDrop))];
        out.counters(&EVENTS_ACTIONS, actions.into_iter())?;
        let errors = EventError::ALL.iter();
        out.counters(&EVENTS_ERROR, errors.map(|why| (why.label(), restated.event_errors[why.index()])))?;
        out.counter(&EVENTS_CONFLICT, restated.conflicts)?;
        out.counter(&UDP_PACKETS, udp.datagrams)?;
        out.counter(&UDP_DROPS, udp.kernel_dropped)?;
        out.counter(&TCP_CONNECTIONS, tcp.accepted)?;
        out.counter(&TCP_ERRORS, tcp.errors + tcp.refused)?;
        out.counter(&TCP_TOO_LONG, restated.too_long)?;
        out.counter(&UNIXGRAM_PACKETS, of(Listener::UnixDatagram).datagrams)?;
        out.counter(&LINES, tally.get(Count::Lines))?;
        out.counter(&SAMPLES, restated.samples)?;
        let errors = SampleError::ALL.iter();
        out.counters(&SAMPLE_ERRORS, errors.map(|why| (why.label(), restated.sample_errors[why.index()])))?;
        let tags = [TagDropReason::Malformed, TagDropReason::Bare];
        out.counter(&TAG_ERRORS, tags.iter().map(|reason| tally.tags_dropped_for(*reason)).sum())?;
        out.counters(&RELOADS, ledger.reloads())?;
        out.gauge(&LOADED_MAPPINGS, ledger.mapping_rules.load(Relaxed))?;
        out.gauge(&METRICS, ledger.series.families.load(Relaxed))?;
        let targets = ledger.relay_targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !targets.is_empty() {
            let lines = |outcome: RelayOutcome| ledger.relay.lines[outcome.index()].load(Relaxed);
            for (family, n) in [
                (&RELAY_PACKETS, ledger.relay.packets.load(Relaxed)),
                (&RELAY_LONG, lines(RelayOutcome::TooLong)),
                (&RELAY_LINES, lines(RelayOutcome::Sent)),
            ] {
                out.counters(family, [(&*targets, n)].into_iter())?;
            }
        }
        let (hits, misses) = (tally.get(Count::CacheHits), tally.get(Count::CacheMisses));
        out.gauge(&CACHE_LENGTH, tally.get(Count::CacheEntries))?;
        out.counter(&CACHE_GETS, hits + misses)?;
        out.counter(&CACHE_HITS, hits)?;
        let scrapes: u64 = ledger.scrapes.iter().map(|n| n.load(Relaxed)).sum();
        out.counters(&REQUESTS, CODES.into_iter().zip([scrapes, 0, 0]))?;
        out.gauge(&IN_FLIGHT, ledger.scrapes_in_flight.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expose::own;
    use crate::model::STATSD_EXPORTER_PREFIXES;

    fn exposed(tally: &Tally, sockets: Vec<Arc<SocketBooks>>, targets: &[&str]) -> String {
        let worker = Arc::new(Books::default());
        worker.publish(tally);
        let telemetry = Telemetry::new(vec![worker], sockets, Arc::default(), "x", OwnMetrics::Core);
        let telemetry = telemetry.with_statsd_exporter();
        telemetry.set_relay_targets(&targets.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut text = String::new();
        own::text(telemetry.registry(), &mut text).unwrap();
        text
    }

    fn is_one(line: &str) -> bool {
        STATSD_EXPORTER_PREFIXES.iter().any(|start| line.starts_with(start))
    }

    #[test]
    fn all_of_them_bear_names_that_users_may_not_take_and_are_as_many_as_check_says() {
        let text = exposed(&Tally::default(), vec![], &["127.0.0.1:9125", "[::1]:9125"]);
        assert_eq!(text.lines().filter(|line| is_one(line)).count(), MOST_LINES, "{text}");
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let exposed: Vec<&str> = types.filter(|name| is_one(name)).collect();
        let declared: Vec<String> = FAMILIES.iter().map(|family| family.name()).collect();
        assert_eq!(exposed, declared);
        for family in FAMILIES {
            assert!(!family.help.contains(['\\', '\n']) && family.help.ends_with('.'), "{}", family.help);
        }
        assert!(
            text.contains("statsd_exporter_relay_packets_total{target=\"127.0.0.1:9125,[::1]:9125\"} 0\n"),
            "{text}"
        );
        assert!(!exposed_without_relay().contains("relay"), "nothing is said of a relay that is not");
    }

    fn exposed_without_relay() -> String {
        let text = exposed(&Tally::default(), vec![], &[]);
        text.lines().filter(|line| is_one(line)).collect()
    }

    #[test]
    fn the_books_are_restated_and_nothing_is_lost_or_counted_twice() {
        let mut tally = Tally::default();
        SampleType::ALL.iter().for_each(|kind| tally.recorded(*kind));
        DropReason::ALL.iter().for_each(|reason| tally.dropped(*reason));
        tally.add(Count::InvalidRates, 10);
        let restated = Restated::of(&tally);
        assert_eq!(restated.events, [2, 3, 3]);
        // Of lines: no line, no UTF-8, too long, mixed tags. The rest are samples.
        assert_eq!(restated.samples, (SampleType::COUNT + DropReason::COUNT - 4) as u64);
        assert_eq!(restated.sample_errors, [2, 1, 1, 2, 11, 1]);
        assert_eq!(restated.event_errors, [1; EventError::COUNT]);
        assert_eq!((restated.conflicts, restated.too_long), (1, 1));
        let counted = restated.sample_errors.iter().chain(&restated.event_errors).sum::<u64>() + 2;
        // Thinned, and dropped by a rule, are no errors; an invalid rate is one beside its sample.
        assert_eq!(counted, (DropReason::COUNT - 2) as u64 + 10);
    }

    #[test]
    fn sockets_count_under_their_old_names() {
        let socket = |kind, n: u64| {
            let books = SocketBooks::new(kind, 0);
            books.datagrams.store(n, Relaxed);
            books.kernel_dropped.store(n + 1, Relaxed);
            books.accepted.store(n + 2, Relaxed);
            books.refused.store(n + 3, Relaxed);
            books.errors.store(n + 4, Relaxed);
            Arc::new(books)
        };
        let sockets = vec![
            socket(Listener::Udp, 10),
            socket(Listener::Udp, 20),
            socket(Listener::Tcp, 100),
            socket(Listener::UnixDatagram, 1000),
            socket(Listener::UnixStream, 7),
        ];
        let text = exposed(&Tally::default(), sockets, &[]);
        for line in [
            "statsd_exporter_udp_packets_total 30",
            "statsd_exporter_udp_packet_drops_total 32",
            "statsd_exporter_tcp_connections_total 102",
            "statsd_exporter_tcp_connection_errors_total 207",
            "statsd_exporter_unixgram_packets_total 1000",
            "# TYPE statsd_exporter_metrics_total gauge",
            "promhttp_metric_handler_requests_total{code=\"503\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
