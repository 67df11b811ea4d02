//! What a sidecar says of itself, before, while and after traffic comes.
//!
//! In: two expositions, and looks at its state in between. Out: [`Ledger`], [`Latency`], [`Point`]s.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::scrape::{Scrape, Source, State};

/// Time between two looks, and the most of it that looking may take.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
const SHARE_OF_LOOKING: u32 = 10;

/// Time between two looks for the end of looking.
const STEP: Duration = Duration::from_millis(50);

/// Longest wait for the last lines, and how long nothing may change meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
const STILL: Duration = Duration::from_secs(2);

/// The books, as they changed between two expositions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Ledger {
    /// Taken by the listener, and dropped by the kernel before that.
    pub(super) datagrams: u64,
    pub(super) kernel_dropped_datagrams: u64,
    pub(super) lines: u64,
    /// By type, those above 0.
    pub(super) recorded: BTreeMap<String, u64>,
    /// By reason, those above 0.
    pub(super) dropped: BTreeMap<String, u64>,
    /// What limits have done: label values, samples, series.
    pub(super) values_folded: u64,
    pub(super) overflow_samples: u64,
    pub(super) series_simplified: u64,
    pub(super) series_expired: u64,
    pub(super) series_created: u64,
    pub(super) cache_hits: u64,
    pub(super) cache_misses: u64,
    pub(super) cpu_seconds: f64,
}

impl Ledger {
    /// What happened between two expositions of one sidecar.
    pub(super) fn between(before: &Scrape, after: &Scrape, listener: &str) -> Self {
        let grown = |series: &str| after.get(series).unwrap_or(0.0) - before.get(series).unwrap_or(0.0);
        let whole = |series: &str| grown(series).max(0.0) as u64;
        let total = |name: &str| after.of(name).map(|(labels, _)| whole(&format!("{name}{labels}"))).sum();
        let each = |name: &str| {
            let value = |labels: &str| labels.split('"').nth(1).unwrap_or_default().to_owned();
            let grown = after.of(name).map(|(labels, _)| (value(labels), whole(&format!("{name}{labels}"))));
            grown.filter(|(_, count)| *count > 0).collect()
        };
        let own = |name: &str| whole(&format!("statsieve_{name}_total{{listener=\"{listener}\"}}"));
        Self {
            datagrams: own("datagrams"),
            kernel_dropped_datagrams: own("kernel_dropped_datagrams"),
            lines: whole("statsieve_lines_total"),
            recorded: each("statsieve_samples_recorded_total"),
            dropped: each("statsieve_samples_dropped_total"),
            values_folded: whole("statsieve_label_values_folded_total"),
            overflow_samples: whole("statsieve_overflow_samples_total"),
            series_simplified: whole("statsieve_series_simplified_total"),
            series_expired: total("statsieve_series_expired_total"),
            series_created: whole("statsieve_series_created_total"),
            cache_hits: whole("statsieve_identity_cache_hits_total"),
            cache_misses: whole("statsieve_identity_cache_misses_total"),
            cpu_seconds: grown("process_cpu_seconds_total"),
        }
    }

    pub(super) fn recorded(&self) -> u64 {
        self.recorded.values().sum()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    pub(super) fn dropped_for(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }

    /// Look-ups that found the identity, of all; `None` if there were none.
    pub(super) fn hit_rate(&self) -> Option<f64> {
        let all = self.cache_hits + self.cache_misses;
        (all > 0).then(|| self.cache_hits as f64 / all as f64)
    }
}

/// From arrival to recorded, in seconds, of datagrams; quantiles are found by a straight line within their bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    /// Datagrams that were timed.
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    /// Bounds, and datagrams up to each; without `+Inf`.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Latency {
    /// Of what came between two expositions; `None` where nothing was timed, as on streams.
    pub(super) fn between(before: &Scrape, after: &Scrape) -> Option<Self> {
        let name = "statsieve_ingest_latency_seconds_bucket";
        let earlier = |bound| before.bucket(name, bound).unwrap_or(0.0);
        let grown = after.buckets(name).iter().map(|(bound, count)| (*bound, (count - earlier(*bound)) as u64));
        let (finite, infinite): (Vec<_>, Vec<_>) = grown.partition(|(bound, _)| bound.is_finite());
        let count = infinite.first().map_or(0, |(_, count)| *count);
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| quantile(&finite, count, share));
        (count > 0).then_some(Self { count, p50, p95, p99, buckets: finite })
    }
}

/// Where `share` of `count` lies among cumulative buckets; past the last bound, that bound.
fn quantile(buckets: &[(f64, u64)], count: u64, share: f64) -> f64 {
    let wanted = share * count as f64;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, up_to) in buckets {
        let up_to = *up_to as f64;
        if up_to >= wanted && up_to > below {
            return low + (bound - low) * (wanted - below) / (up_to - below);
        }
        (low, below) = (*bound, up_to);
    }
    low
}

/// One look at a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Point {
    /// Since the first datagram.
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) taken: u64,
    pub(super) queue_fill: f64,
    pub(super) sampling_rate: f64,
    pub(super) resident_bytes: u64,
}

/// Looks at `source` until `over`, and calls `tick` more often than that.
pub(super) fn watch(
    source: &Source,
    first: State,
    sent: &AtomicU64,
    over: &AtomicBool,
    tick: &dyn Fn(Duration),
) -> Vec<Point> {
    let start = Instant::now();
    let mut points = Vec::new();
    let mut due = start;
    loop {
        let ends = over.load(Relaxed);
        if ends || Instant::now() >= due {
            let (seconds, sent) = (start.elapsed().as_secs_f64(), sent.load(Relaxed));
            let asked = Instant::now();
            // One look that fails is no end; the scrape behind the run tells.
            if let Ok(state) = source.state() {
                points.push(Point {
                    seconds,
                    sent,
                    taken: state.lines.saturating_sub(first.lines),
                    queue_fill: state.queue_fill,
                    sampling_rate: state.sampling_rate,
                    resident_bytes: state.resident_bytes,
                });
            }
            due = Instant::now() + BETWEEN_LOOKS.max(asked.elapsed() * SHARE_OF_LOOKING);
        }
        if ends {
            return points;
        }
        tick(start.elapsed());
        std::thread::sleep(STEP);
    }
}

/// Waits until `lines` more lines than at `first` are in the books, or until nothing changes any more.
///
/// # Errors
/// If the sidecar does not answer.
pub(super) fn settle(source: &Source, first: State, lines: u64) -> std::io::Result<State> {
    let start = Instant::now();
    let mut last = source.state()?;
    let mut changed = Instant::now();
    loop {
        let all = last.lines - first.lines >= lines && last.booked - first.booked >= lines;
        let still = last.queue_bytes == 0 && changed.elapsed() > STILL;
        if all || still || start.elapsed() > PATIENCE {
            return Ok(last);
        }
        std::thread::sleep(STEP);
        let state = source.state()?;
        if (state.lines, state.booked) != (last.lines, last.booked) {
            changed = Instant::now();
        }
        last = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_on_a_line_within_their_bucket() {
        let buckets = [(0.001, 50), (0.002, 90), (0.005, 90), (0.01, 100)];
        for (share, expected) in [(0.25, 0.0005), (0.5, 0.001), (0.7, 0.0015), (0.95, 0.0075), (1.0, 0.01)] {
            let found = quantile(&buckets, 100, share);
            assert!((found - expected).abs() < 1e-12, "{share}: {found}");
        }
        assert_eq!(quantile(&buckets, 200, 0.95), 0.01, "past the last bound");
    }
}
