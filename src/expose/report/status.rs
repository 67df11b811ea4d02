//! `/api/v1/status`: the state of everything in one answer, with a verdict in one sentence.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Report;
use super::cardinality::families;
use super::hints::hints;
use crate::aggregate::census::Census;
use crate::config::{Format, SamplingMode};
use crate::expose::lifecycle::Phase;
use crate::model::{ClientFigure, DropReason, SampleType, TagDropReason};
use crate::telemetry::history::Figures;
use crate::telemetry::{Count, LATENCY_BOUNDS, Listener, Tally};

/// Families shown.
const FAMILIES: usize = 20;
/// What rates are taken over, at least.
const RECENT: Duration = Duration::from_secs(10);
/// What the verdict looks back over, at least.
const MINUTE: Duration = Duration::from_secs(60);
/// Share of samples lost above which all is not well: the target is 0.1 %.
const LOSS: f64 = 0.001;
/// Without a scrape for this long, nobody seems to look.
const UNSEEN: Duration = Duration::from_secs(300);

/// What was counted in a span of time.
struct Span {
    seconds: f64,
    tally: Tally,
    before: Figures,
    now: Figures,
}

impl Span {
    fn new(report: &Report, figures: &Figures, ago: Duration) -> Self {
        let now = report.clock.now();
        let (at, before) = report.telemetry.before(now, ago);
        Self {
            seconds: now.saturating_sub(at).as_secs_f64().max(1e-3),
            tally: figures.tally.since(&before.tally),
            now: figures.clone(),
            before,
        }
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    fn kernel_dropped(&self) -> u64 {
        self.now.sockets.kernel_dropped.saturating_sub(self.before.sockets.kernel_dropped)
    }

    fn datagrams(&self) -> u64 {
        self.now.sockets.datagrams.saturating_sub(self.before.sockets.datagrams)
    }

    /// Share of samples lost: refused, and not on purpose.
    fn loss(&self) -> f64 {
        let (lost, recorded) = (self.tally.lost(), self.tally.recorded_in_all());
        if lost == 0 { 0.0 } else { lost as f64 / (lost + recorded) as f64 }
    }
}

/// The answer.
pub(super) fn status(report: &Report, census: &Census) -> Value {
    let telemetry = &report.telemetry;
    let figures = telemetry.figures();
    let (recent, minute) = (Span::new(report, &figures, RECENT), Span::new(report, &figures, MINUTE));
    let refused = report.refusals.latest();
    let (in_force, hash, read_at) = telemetry.configuration();
    let (level, verdict) = verdict(report, &minute);
    let process = telemetry.process();
    let hints: Vec<Value> =
        hints(census, &figures.tally, &refused, &report.loaded()).iter().map(super::hints::Hint::json).collect();
    json!({
        "verdict": { "level": level, "text": verdict },
        "phase": format!("{:?}", report.lifecycle.phase()).to_lowercase(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": report.clock.now().as_secs_f64(),
        "configuration": {
            "file": report.loaded().file.as_ref().map(|file| file.display().to_string()),
            "overrides": report.loaded().overrides,
            "hash": hash,
            "in_force": in_force,
            "read_at": read_at,
        },
        "listeners": listeners(report),
        "test_line": test_line(report),
        "scrapes": scrapes(report),
        "ledger": ledger(&figures),
        "rates": rates(&recent),
        "cache": cache(&figures.tally, &recent, report),
        "queue": {
            "bytes": figures.sockets.queue_bytes,
            "limit_bytes": figures.sockets.queue_limit_bytes,
            "fill": share(figures.sockets.queue_bytes, figures.sockets.queue_limit_bytes),
        },
        "latency": { "last_minute": latency(&minute.tally), "since_start": latency(&figures.tally) },
        "memory": {
            "resident_bytes": process.resident_bytes,
            "limit_bytes": telemetry.memory_limit(),
            "series_bytes": telemetry.series().bytes.load(Relaxed),
            "series_limit_bytes": report.loaded().config.cardinality.max_bytes,
        },
        "cpu": {
            "seconds": process.cpu_seconds,
            "load": telemetry.loads().iter().map(|(_, load)| *load).collect::<Vec<_>>(),
        },
        "sampling": {
            "mode": match report.loaded().config.sampling.mode {
                SamplingMode::Adaptive => "adaptive",
                SamplingMode::Fixed => "fixed",
                SamplingMode::Off => "off",
            },
            "rates": telemetry.loads().iter().map(|(rate, _)| *rate).collect::<Vec<_>>(),
        },
        "limits": report.limits(),
        "families": families(report, census, FAMILIES),
        "families_in_all": census.families.len(),
        "hints": hints,
        "refused": refused.iter().map(|line| json!({
            "at": report.unix(line.tick),
            "reason": line.reason.label(),
            "line": line.text,
        })).collect::<Vec<_>>(),
    })
}

/// How things are, in one sentence; "ok", "warning" or "critical". The worst that is true is said.
fn verdict(report: &Report, minute: &Span) -> (&'static str, String) {
    let telemetry = &report.telemetry;
    let limit = |used: u64, most: u64| used as f64 / most.max(1) as f64;
    let series = telemetry.series();
    let lines = limit(series.sample_lines.load(Relaxed), series.limit.load(Relaxed));
    let bytes = limit(series.bytes.load(Relaxed), report.loaded().config.cardinality.max_bytes);
    let rate = telemetry.loads().iter().fold(1.0_f64, |least, (rate, _)| least.min(*rate));
    let received = minute.now.sockets.bytes + minute.now.sockets.kernel_dropped > 0;
    let of_late = if minute.seconds < MINUTE.as_secs_f64() { "since the start" } else { "in the last minute" };
    match report.lifecycle.phase() {
        Phase::Starting => return ("warning", "It is starting.".to_owned()),
        Phase::Draining => return ("warning", "It is about to end, after the next scrape.".to_owned()),
        Phase::Ready => {}
    }
    if let [first, ..] = telemetry.failing().as_slice() {
        return ("critical", format!("The listener {first} fails, and is tried again; see the log."));
    }
    if minute.kernel_dropped() > 0 {
        let text = format!(
            "The kernel dropped {} datagrams {of_late}, since the receive buffer was full.",
            minute.kernel_dropped()
        );
        return ("critical", text);
    }
    if minute.loss() > LOSS {
        let reasons = DropReason::ALL
            .iter()
            .filter(|reason| !matches!(reason, DropReason::Sampled | DropReason::MappingDrop))
            .max_by_key(|reason| minute.tally.dropped_for(**reason));
        let most = reasons.map_or("", |reason| reason.label());
        let share = 100.0 * minute.loss();
        return ("critical", format!("{share:.1} % of the samples were refused {of_late}, most of them as {most}."));
    }
    if !telemetry.configuration().0 {
        return ("warning", "The last configuration was refused; it runs by another.".to_owned());
    }
    if !received {
        let addresses: Vec<String> =
            report.listeners.iter().map(|(kind, address)| format!("{kind} {address}")).collect();
        return ("warning", format!("Nothing was received yet; it waits on {}.", addresses.join(" and ")));
    }
    if rate < 1.0 && report.loaded().config.sampling.mode == SamplingMode::Adaptive {
        let text =
            format!("It is overloaded and keeps {:.0} % of the lines, each weighted for the others.", 100.0 * rate);
        return ("warning", text);
    }
    if lines.max(bytes) >= report.loaded().config.cardinality.simplify_at {
        let (share, of) = if lines >= bytes { (lines, "series") } else { (bytes, "bytes") };
        let text = format!("It holds {:.0} % of the {of} it may: new ones lose their labels.", 100.0 * share);
        return ("warning", text);
    }
    match telemetry.last_scrape() {
        Some((ago, _)) if ago <= UNSEEN => {}
        Some((ago, _)) => return ("warning", format!("Nobody has scraped it for {} minutes.", ago.as_secs() / 60)),
        None if report.clock.now() > UNSEEN => return ("warning", "Nobody has scraped it yet.".to_owned()),
        None => {}
    }
    let lines = minute.per_second(minute.tally.get(Count::Lines));
    ("ok", format!("All is well: {lines:.0} lines a second, nothing lost {of_late}."))
}

fn listeners(report: &Report) -> Vec<Value> {
    let figures = report.telemetry.listeners();
    let listener = |(kind, address): &(Listener, String)| {
        let of = figures.iter().find(|(other, _)| other == kind).map(|(_, figures)| *figures).unwrap_or_default();
        json!({
            "listener": kind.label(),
            "address": address,
            "up": of.failing == 0,
            "connections": of.connections,
            "datagrams": of.datagrams,
            "bytes": of.bytes,
            "kernel_dropped_datagrams": of.kernel_dropped,
        })
    };
    report.listeners.iter().map(listener).collect()
}

/// A command that sends one line.
fn test_line(report: &Report) -> Option<String> {
    let (kind, address) = report.listeners.first()?;
    let to = match kind {
        Listener::Udp | Listener::Tcp => {
            let address: SocketAddr = address.parse().ok()?;
            let host = match address.ip() {
                any if any.is_unspecified() => "127.0.0.1".to_owned(),
                ip => ip.to_string(),
            };
            let udp = if *kind == Listener::Udp { "-u " } else { "" };
            format!("{udp}-q0 {host} {}", address.port())
        }
        // nc knows no abstract names.
        _ if address.starts_with('@') => return None,
        Listener::UnixDatagram => format!("-uU -q0 {address}"),
        Listener::UnixStream => format!("-U -q0 {address}"),
    };
    Some(format!("echo 'bot.messages:1|c|#user_id:42' | nc {to}"))
}

fn scrapes(report: &Report) -> Value {
    let telemetry = &report.telemetry;
    let count = |format| telemetry.scrapes(format);
    let http = &report.http;
    let loaded = report.loaded();
    let path = &loaded.config.http.metrics_path;
    let path = if path == "/metrics" { String::new() } else { format!("    metrics_path: {path}\n") };
    json!({
        "last_seconds_ago": telemetry.last_scrape().map(|(ago, _)| ago.as_secs_f64()),
        "last_bytes": telemetry.last_scrape().map(|(_, bytes)| bytes),
        "text": count(Format::Text),
        "openmetrics": count(Format::OpenMetrics),
        "protobuf": count(Format::Protobuf),
        "scrape_configs": format!(
            "scrape_configs:\n  - job_name: bot\n{path}    static_configs:\n      - targets: [\"{http}\"]\n"
        ),
    })
}

/// Where every datagram and line ended.
fn ledger(figures: &Figures) -> Value {
    let tally = &figures.tally;
    let met = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
        counts.filter(|(_, n)| *n > 0).map(|(label, n)| (label.to_owned(), n.into())).collect::<Map<_, _>>()
    };
    json!({
        "datagrams": figures.sockets.datagrams,
        "bytes": figures.sockets.bytes,
        "kernel_dropped_datagrams": figures.sockets.kernel_dropped,
        "lines": tally.get(Count::Lines),
        "recorded": tally.recorded_in_all(),
        "recorded_by_type": met(&mut SampleType::ALL.iter().map(|kind| (kind.label(), tally.recorded_of(*kind)))),
        "recorded_in_overflow": tally.get(Count::OverflowSamples),
        "dropped": tally.dropped_in_all(),
        "lost": tally.lost(),
        "dropped_by_reason": met(&mut DropReason::ALL.iter().map(|why| (why.label(), tally.dropped_for(*why)))),
        "tags_dropped_by_reason":
            met(&mut TagDropReason::ALL.iter().map(|why| (why.label(), tally.tags_dropped_for(*why)))),
        "told_by_clients": met(&mut ClientFigure::ALL.iter().map(|it| (it.label(), tally.client_of(*it)))),
    })
}

fn rates(span: &Span) -> Value {
    let per_second = |count: u64| span.per_second(count);
    let tally = &span.tally;
    json!({
        "seconds": span.seconds,
        "datagrams": per_second(span.datagrams()),
        "bytes": per_second(span.now.sockets.bytes.saturating_sub(span.before.sockets.bytes)),
        "lines": per_second(tally.get(Count::Lines)),
        "recorded": per_second(tally.recorded_in_all()),
        "sampled": per_second(tally.dropped_for(DropReason::Sampled)),
        "lost": per_second(tally.lost()),
        "kernel_dropped_datagrams": per_second(span.kernel_dropped()),
        "new_series": per_second(span.now.created.saturating_sub(span.before.created)),
    })
}

fn cache(tally: &Tally, recent: &Span, report: &Report) -> Value {
    let rate = |tally: &Tally| {
        let (hits, misses) = (tally.get(Count::CacheHits), tally.get(Count::CacheMisses));
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    };
    json!({
        "hits": tally.get(Count::CacheHits),
        "misses": tally.get(Count::CacheMisses),
        "hit_rate": rate(&recent.tally).or_else(|| rate(tally)),
        "hit_rate_since_start": rate(tally),
        "entries": tally.get(Count::CacheEntries),
        "evictions": tally.get(Count::CacheEvictions),
        "limit_bytes_per_worker": report.loaded().config.cardinality.identity_cache_bytes,
    })
}

/// Quantiles of the time from arrival to recorded, seconds; `None` of nothing.
fn latency(tally: &Tally) -> Value {
    let (counts, sum) = tally.latencies();
    let count: u64 = counts.iter().sum();
    if count == 0 {
        return Value::Null;
    }
    json!({
        "count": count,
        "mean": sum / count as f64,
        "p50": quantile(counts, 0.5),
        "p95": quantile(counts, 0.95),
        "p99": quantile(counts, 0.99),
    })
}

/// A quantile by linear interpolation within its bucket, as `histogram_quantile` has it; the last bound for what is
/// beyond. `counts` holds one at least.
fn quantile(counts: &[u64], share: f64) -> f64 {
    let rank = counts.iter().sum::<u64>() as f64 * share;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, upper) in counts.iter().zip(LATENCY_BOUNDS) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            return lower + (upper - lower) * (rank - below) / count;
        }
        (below, lower) = (below + count, upper);
    }
    lower
}

fn share(used: u64, most: u64) -> Option<f64> {
    (most > 0).then(|| used as f64 / most as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket_and_end_at_the_last_bound() {
        let mut counts = [0; LATENCY_BOUNDS.len() + 1];
        counts[3] = 100; // up to 1 ms
        assert!((quantile(&counts, 0.5) - 0.00075).abs() < 1e-12);
        counts[4] = 100; // up to 2 ms
        assert!((quantile(&counts, 0.5) - 0.001).abs() < 1e-12);
        assert!((quantile(&counts, 0.75) - 0.0015).abs() < 1e-12);
        counts[LATENCY_BOUNDS.len()] = 1000;
        assert_eq!(quantile(&counts, 0.99), 1.0);
    }
}
