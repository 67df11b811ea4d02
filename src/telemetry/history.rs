//! What the books said a while ago, so that a page can tell rates without a Prometheus.
//!
//! In: all counts, every few seconds while there is something to count. Out: those of a moment at least so long ago.
//! Always: a little over a minute is kept, whatever happens; nothing here runs on the way of a line.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{ListenerFigures, Tally};

/// How often counts are kept.
const STEP: Duration = Duration::from_secs(5);
/// How many: a minute and a step.
const KEPT: usize = 14;

/// What all of it takes, bytes.
pub const MOST_BYTES: usize = 2 * KEPT * size_of::<(Duration, Figures)>();

/// All counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of all workers.
    pub tally: Tally,
    /// Of all sockets.
    pub sockets: ListenerFigures,
    /// Series made.
    pub created: u64,
}

/// The counts of the last minute.
#[derive(Debug, Default)]
pub struct History {
    /// The oldest first.
    kept: Mutex<VecDeque<(Duration, Figures)>>,
}

impl History {
    /// Keeps the counts if the last ones are a step old; to be called about once a second.
    pub fn note(&self, now: Duration, figures: impl FnOnce() -> Figures) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.back().is_some_and(|(at, _)| now.saturating_sub(*at) < STEP) {
            return;
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((now, figures()));
    }

    /// Keeps `figures` as those of each step up to `now` that nothing was kept at, since nothing has changed.
    pub fn rested(&self, now: Duration, figures: &Figures) {
        for steps in (0..KEPT as u32).rev() {
            if let Some(at) = now.checked_sub(steps * STEP) {
                self.note(at, || figures.clone());
            }
        }
    }

    /// The latest counts that are at least `ago` old at `now`, and when they were taken; of a younger process, nothing
    /// at the time 0.
    pub fn before(&self, now: Duration, ago: Duration) -> (Duration, Figures) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().rev().find(|(at, _)| now.saturating_sub(*at) >= ago);
        found.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Count;

    #[test]
    fn counts_of_a_minute_ago_are_found_to_the_step() {
        let history = History::default();
        let seconds = Duration::from_secs;
        let figures = |lines| {
            let mut figures = Figures::default();
            figures.tally.add(Count::Lines, lines);
            figures
        };
        let before = |now, ago| {
            let (at, figures) = history.before(seconds(now), seconds(ago));
            (at.as_secs(), figures.tally.get(Count::Lines))
        };
        assert_eq!(before(3, 60), (0, 0), "a young process has counted since its start");
        for second in 1..=300 {
            history.note(seconds(second), || figures(second * 10));
        }
        assert_eq!(before(300, 10), (286, 2860));
        assert_eq!(before(300, 60), (236, 2360));
        assert!(history.kept.lock().unwrap().len() <= KEPT);
        // After a long sleep the latest counts are the nearest.
        assert_eq!(before(1000, 60), (296, 2960));
    }

    #[test]
    fn what_rested_has_the_same_counts_all_the_while() {
        let history = History::default();
        let seconds = Duration::from_secs;
        let figures = |lines| {
            let mut figures = Figures::default();
            figures.tally.add(Count::Lines, lines);
            figures
        };
        let before = |now, ago| {
            let (at, figures) = history.before(seconds(now), seconds(ago));
            (at.as_secs(), figures.tally.get(Count::Lines))
        };
        history.rested(seconds(3), &figures(0));
        (4..=20).for_each(|second| history.note(seconds(second), || figures(second)));
        history.rested(seconds(1000), &figures(20));
        (1001..=1010).for_each(|second| history.note(seconds(second), || figures(second)));
        assert_eq!([before(1010, 10), before(1010, 20), before(1010, 60)], [(1000, 20), (990, 20), (950, 20)]);
        // A rest shorter than a minute leaves what was before it.
        let history = History::default();
        (1..=10).for_each(|second| history.note(seconds(second), || figures(second)));
        history.rested(seconds(30), &figures(10));
        let kept: Vec<u64> = history.kept.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(kept, [1, 6, 15, 20, 25, 30]);
    }
}
