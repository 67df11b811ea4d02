//! Says in the log when something begins that somebody should act on, and when it is over.
//!
//! In: the books, once a second while there is traffic. Out: a line at the begin, with what to do, and one at the end,
//! with how much it was.
//! Not here: what a listener, the configuration or a relay's address meets at once, which is logged where it happens.
//! Always: at most a line a minute for the begin of each state, and one for its end, whatever is sent; nothing of this
//! is on the way of a line.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tracing::{info, warn};

use super::history::Figures;
use super::{Count, RelayOutcome, Telemetry};
use crate::config::{Config, SamplingMode};
use crate::model::DropReason;

/// A state is over when nothing of it was seen for this long.
const LINGER: Duration = Duration::from_secs(10);
/// The begin of a state is told once in this time.
const GUARD: Duration = Duration::from_secs(60);

/// What is worth a line.
struct Kind {
    begins: &'static str,
    ends: &'static str,
    /// How often it has happened so far, or `None` for what is a level.
    count: fn(&Seen<'_>) -> Option<u64>,
    /// Of a level: whether it is so now.
    holds: fn(&Seen<'_>) -> bool,
}

/// What is looked at.
struct Seen<'a> {
    telemetry: &'a Telemetry,
    figures: &'a Figures,
    config: &'a Config,
}

fn never(_: &Seen<'_>) -> bool {
    false
}

const KINDS: [Kind; 9] = [
    Kind {
        begins: "the kernel drops datagrams, since the receive buffer is full; raise net.core.rmem_max and \
                 listen.receive_buffer_bytes, or give more CPU",
        ends: "the kernel drops no more datagrams",
        count: |seen| Some(seen.figures.sockets.kernel_dropped),
        holds: never,
    },
    Kind {
        begins: "samples are refused; / lists the last such lines, and statsieve explain says what would be right",
        ends: "no more samples are refused",
        count: |seen| {
            let apart = [DropReason::TypeConflict, DropReason::Cardinality, DropReason::RateLimited];
            Some(seen.figures.tally.lost() - apart.iter().map(|why| seen.figures.tally.dropped_for(*why)).sum::<u64>())
        },
        holds: never,
    },
    Kind {
        begins: "samples come under a name that another type has taken; give one of the two another name",
        ends: "no more samples come under a name of another type",
        count: |seen| Some(seen.figures.tally.dropped_for(DropReason::TypeConflict)),
        holds: never,
    },
    Kind {
        begins: "samples are over a quota; send fewer, or raise it in [rate_limit]",
        ends: "no more samples are over a quota",
        count: |seen| Some(seen.figures.tally.dropped_for(DropReason::RateLimited)),
        holds: never,
    },
    Kind {
        begins: "a limit of [cardinality] is reached: samples go to overflow series or are dropped; \
                 /api/v1/cardinality names the label that grows, to bucket, drop or allow",
        ends: "no more samples meet a limit of [cardinality]",
        count: |seen| {
            let tally = &seen.figures.tally;
            Some(tally.get(Count::OverflowSamples) + tally.dropped_for(DropReason::Cardinality))
        },
        holds: never,
    },
    Kind {
        begins: "relayed lines are lost: a target does not take them, or not as fast as they come; see relay.targets",
        ends: "no more relayed lines are lost",
        count: |seen| Some(seen.telemetry.relay().lines[RelayOutcome::Dropped.index()].load(Relaxed)),
        holds: never,
    },
    Kind {
        begins: "connections are closed at once, since as many as may be are open; raise listen.max_connections",
        ends: "no more connections are closed at once",
        count: |seen| Some(seen.figures.sockets.refused),
        holds: never,
    },
    Kind {
        begins: "overloaded: only a share of the lines is kept, each weighted for the others; give more CPU, or more \
                 listen.workers and senders",
        ends: "no longer overloaded: every line is kept",
        count: |_| None,
        holds: |seen| {
            let adaptive = seen.config.sampling.mode == SamplingMode::Adaptive;
            adaptive && seen.telemetry.loads().iter().any(|(rate, _)| *rate < 1.0)
        },
    },
    Kind {
        begins: "near a limit of [cardinality]: new series lose their labels; /api/v1/cardinality names what grows",
        ends: "no longer near a limit of [cardinality]",
        count: |_| None,
        holds: |seen| {
            let (series, limits) = (seen.telemetry.series(), &seen.config.cardinality);
            let share = |used: u64, most: u64| used as f64 / most.max(1) as f64;
            let lines = share(series.sample_lines.load(Relaxed), limits.max_series);
            lines.max(share(series.bytes.load(Relaxed), limits.max_bytes)) >= limits.simplify_at
        },
    },
];

/// One state as it was last seen. Times are since the start.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The last count.
    count: u64,
    /// Since when, and the count before.
    open: Option<(Duration, u64)>,
    last: Duration,
    told_at: Option<Duration>,
    /// Whether the begin of what is open was told.
    is_told: bool,
    /// Whether it is a level that was so at the last look.
    holds: bool,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It has begun.
    Begun,
    /// It is over, after so long and so many.
    Over(Duration, u64),
}

impl State {
    /// Looks at a count, or at whether it is so; says what is to be told.
    fn look(&mut self, now: Duration, count: Option<u64>, holds: bool) -> Option<Change> {
        self.holds = holds;
        let before = self.count;
        self.count = count.unwrap_or(before);
        if holds || self.count > before {
            self.open.get_or_insert((now, before));
            self.last = now;
        }
        let (since, first) = self.open?;
        if now.saturating_sub(self.last) >= LINGER {
            self.open = None;
            return std::mem::take(&mut self.is_told).then(|| Change::Over(self.last - since, self.count - first));
        }
        if self.is_told || self.told_at.is_some_and(|at| now.saturating_sub(at) < GUARD) {
            return None;
        }
        (self.is_told, self.told_at) = (true, Some(now));
        Some(Change::Begun)
    }
}

/// All states.
#[derive(Debug, Default)]
pub struct Changes {
    states: [State; KINDS.len()],
}

impl Changes {
    /// Looks at the books and logs what has begun or is over; to be called once a second.
    pub fn look(&mut self, now: Duration, telemetry: &Telemetry, config: &Config) {
        let figures = telemetry.figures();
        let seen = Seen { telemetry, figures: &figures, config };
        for (kind, state) in KINDS.iter().zip(&mut self.states) {
            let count = (kind.count)(&seen);
            let more = count.map(|count| count.saturating_sub(state.count));
            match state.look(now, count, (kind.holds)(&seen)) {
                None => {}
                Some(Change::Begun) => match more {
                    Some(so_far) => warn!(so_far, "{}", kind.begins),
                    None => warn!("{}", kind.begins),
                },
                Some(Change::Over(took, in_all)) => {
                    let seconds = took.as_secs();
                    match more {
                        Some(_) => info!(in_all, seconds, "{}", kind.ends),
                        None => info!(seconds, "{}", kind.ends),
                    }
                }
            }
        }
    }

    /// Whether the end of something is still to be told, though nothing comes any more. A level that is so stays so.
    pub fn is_waiting(&self) -> bool {
        self.states.iter().any(|state| state.open.is_some() && !state.holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_flood_is_told_once_and_its_end_once() {
        let mut state = State::default();
        let mut told = Vec::new();
        for second in 1..=100 {
            let count = if second <= 40 { 1000 * second } else { 40_000 };
            told.extend(state.look(seconds(second), Some(count), false).map(|change| (second, change)));
        }
        assert_eq!(told, [(1, Change::Begun), (50, Change::Over(seconds(39), 40_000))]);
    }

    #[test]
    fn what_comes_and_goes_is_told_once_a_minute_and_what_stays_is_never_missed() {
        let mut state = State::default();
        let mut told = Vec::new();
        // A second in every fifteen, and from 160 on all the time.
        for second in 1..=300 {
            let holds = (second % 15 == 0 && second <= 150) || second >= 160;
            told.extend(state.look(seconds(second), None, holds).map(|change| (second, change)));
        }
        let begun: Vec<u64> = told.iter().filter(|(_, change)| *change == Change::Begun).map(|(at, _)| *at).collect();
        assert_eq!(begun, [15, 75, 135, 195]);
        assert!(told.len() == 7, "and each has its end but the last: {told:?}");
        assert_eq!(state.look(seconds(320), None, false), Some(Change::Over(seconds(150), 0)));
    }
}
