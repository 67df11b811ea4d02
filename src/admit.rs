//! The gate: decides what place a series that does not exist yet may take.
//!
//! In: what a series would cost and what is taken already. Out: how far it must give way: full, with its values folded,
//! simplified, merged into the family's overflow series, or refused.
//! Not here: looking series up and making them (`aggregate`, which asks at each rung of the ladder).
//! Beside it: which lines are kept under load (`sampling`), and what is over a quota (`quota`).
//! Always: the sum of what was let in never passes a limit; a gauge is never merged with others, since the merged
//! number would mean nothing.

pub mod quota;
pub mod sampling;

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::{Cardinality, Labels};
use crate::model::closed_set;

closed_set! {
    /// A limit that a family has run into; the `limit` of `statsieve_limited_family_info`.
    pub enum Limit {
        /// `labels.max_values`
        MaxValues = "max_values",
        /// `cardinality.max_series`
        MaxSeries = "max_series",
        /// `cardinality.max_series_per_family`
        MaxSeriesPerFamily = "max_series_per_family",
        /// `cardinality.max_bytes`
        MaxBytes = "max_bytes",
        /// `cardinality.new_series_per_second`
        NewSeriesPerSecond = "new_series_per_second",
    }
}

/// What a series would take, or what is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sample lines of a text scrape.
    pub lines: u64,
    /// Bytes of cells, label text and tables.
    pub bytes: u64,
}

/// The limits on series, of `[cardinality]` and `[labels]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Sample lines of all families.
    pub max_series: u64,
    /// Sample lines of one family.
    pub max_series_per_family: u64,
    /// Families.
    pub max_families: usize,
    /// Bytes of all series.
    pub max_bytes: u64,
    /// Distinct values of one label in one family.
    pub max_values: usize,
    /// Share of `max_series` or `max_series_per_family` past which a new series is simplified.
    pub simplify_at: f64,
    /// Labels that a simplified series keeps.
    pub keep_labels: Vec<String>,
    /// How long a series must have been idle to give way at a limit.
    pub evict_idle_after: Duration,
    /// How long a series may be idle at all, where its family says nothing else; zero is for ever.
    pub idle_ttl: Duration,
    /// How long a new counter is shown as 0.
    pub zero_first: Duration,
}

impl Limits {
    /// The limits as configured.
    pub fn new(cardinality: &Cardinality, labels: &Labels) -> Self {
        Self {
            max_series: cardinality.max_series,
            max_series_per_family: cardinality.max_series_per_family,
            max_families: cardinality.max_families,
            max_bytes: cardinality.max_bytes,
            max_values: labels.max_values,
            simplify_at: cardinality.simplify_at,
            keep_labels: cardinality.keep_labels.clone(),
            evict_idle_after: cardinality.evict_idle_after,
            idle_ttl: cardinality.idle_ttl,
            zero_first: cardinality.zero_first,
        }
    }

    /// The limit that a series of this cost would pass, beside what its family (`family`) and all have taken (`total`).
    pub fn passed(&self, cost: Usage, family: Usage, total: Usage) -> Option<Limit> {
        if total.bytes + cost.bytes > self.max_bytes {
            Some(Limit::MaxBytes)
        } else {
            self.passed_lines(1.0, cost, family, total)
        }
    }

    /// The limit whose share of `simplify_at` a series of this cost would pass.
    pub fn neared(&self, cost: Usage, family: Usage, total: Usage) -> Option<Limit> {
        self.passed_lines(self.simplify_at, cost, family, total)
    }

    fn passed_lines(&self, share: f64, cost: Usage, family: Usage, total: Usage) -> Option<Limit> {
        let passes = |taken: u64, limit: u64| (taken + cost.lines) as f64 > limit as f64 * share;
        if passes(family.lines, self.max_series_per_family) {
            Some(Limit::MaxSeriesPerFamily)
        } else if passes(total.lines, self.max_series) {
            Some(Limit::MaxSeries)
        } else {
            None
        }
    }
}

/// The limits, and the quota on new series.
#[derive(Debug)]
pub struct Gate {
    /// Limits on what is there.
    pub limits: Limits,
    new_series: Option<DefaultDirectRateLimiter>,
}

impl Gate {
    /// A gate with these limits and `new_series_per_second`; 0 is no limit.
    pub fn new(limits: Limits, new_series_per_second: u32) -> Self {
        let quota = NonZeroU32::new(new_series_per_second).map(Quota::per_second);
        Self { limits, new_series: quota.map(RateLimiter::direct) }
    }

    /// Takes one new series out of the quota; `false` if it is used up.
    pub fn may_make_series(&self) -> bool {
        self.new_series.as_ref().is_none_or(|quota| quota.check().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            max_series: 100,
            max_series_per_family: 50,
            max_families: 1,
            max_bytes: 1000,
            max_values: 1,
            simplify_at: 0.8,
            keep_labels: Vec::new(),
            evict_idle_after: Duration::ZERO,
            idle_ttl: Duration::ZERO,
            zero_first: Duration::ZERO,
        }
    }

    #[test]
    fn a_series_fits_up_to_each_limit_and_not_past_it() {
        let used = |lines, bytes| Usage { lines, bytes };
        for (cost, family, total, neared, passed) in [
            (used(1, 10), used(39, 0), used(79, 990), None, None),
            (used(1, 10), used(40, 0), used(79, 0), Some(Limit::MaxSeriesPerFamily), None),
            (used(1, 10), used(10, 0), used(80, 0), Some(Limit::MaxSeries), None),
            (used(1, 10), used(49, 0), used(99, 0), Some(Limit::MaxSeriesPerFamily), None),
            (used(1, 10), used(50, 0), used(60, 0), Some(Limit::MaxSeriesPerFamily), Some(Limit::MaxSeriesPerFamily)),
            (used(1, 10), used(0, 0), used(100, 0), Some(Limit::MaxSeries), Some(Limit::MaxSeries)),
            (used(15, 10), used(35, 0), used(35, 0), Some(Limit::MaxSeriesPerFamily), None),
            (used(15, 10), used(36, 0), used(36, 0), Some(Limit::MaxSeriesPerFamily), Some(Limit::MaxSeriesPerFamily)),
            (used(1, 11), used(0, 0), used(0, 990), None, Some(Limit::MaxBytes)),
        ] {
            let limits = limits();
            let found = (limits.neared(cost, family, total), limits.passed(cost, family, total));
            assert_eq!(found, (neared, passed), "{cost:?} beside {family:?} and {total:?}");
        }
    }

    #[test]
    fn the_quota_on_new_series_lets_a_burst_of_one_second_in() {
        let gate = Gate::new(limits(), 3);
        assert_eq!((0..4).filter(|_| gate.may_make_series()).count(), 3);
        let gate = Gate::new(limits(), 0);
        assert_eq!((0..1000).filter(|_| gate.may_make_series()).count(), 1000);
    }
}
