//! The gate: decides what place a series that does not exist yet may take.
//!
//! In: what a series would cost and what is taken already, in sample lines of a text scrape. Out: its own place, the
//! family's overflow series, or none.
//! Beside it: which lines are kept under load (`sampling`), and what is over a quota (`quota`).
//! Always: the sum of what was let in never passes a limit; a gauge is never merged with others, since the merged
//! number would mean nothing.

pub mod quota;
pub mod sampling;

use crate::config::Cardinality;
use crate::map::Kind;

/// Where a new series may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its own place.
    Full,
    /// The family's overflow series takes its samples.
    Overflow,
    /// Nowhere; its samples are dropped as `cardinality`.
    Refused,
}

/// The limits of `[cardinality]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sample lines of all families.
    pub max_series: u64,
    /// Sample lines of one family.
    pub max_series_per_family: u64,
    /// Families.
    pub max_families: usize,
}

impl Limits {
    /// The limits as configured.
    pub fn new(cardinality: &Cardinality) -> Self {
        Self {
            max_series: cardinality.max_series,
            max_series_per_family: cardinality.max_series_per_family,
            max_families: cardinality.max_families,
        }
    }

    /// Where a series of `cost` sample lines may go, beside `family` lines in its family and `total` in all.
    pub fn admit(&self, kind: Kind, cost: u64, family: u64, total: u64) -> Admission {
        if total + cost <= self.max_series && family + cost <= self.max_series_per_family {
            Admission::Full
        } else if kind == Kind::Gauge {
            Admission::Refused
        } else {
            Admission::Overflow
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_fits_up_to_the_limit_and_not_past_it() {
        let limits = Limits { max_series: 100, max_series_per_family: 50, max_families: 1 };
        for (kind, cost, family, total, admission) in [
            (Kind::Counter, 1, 49, 99, Admission::Full),
            (Kind::Counter, 1, 50, 60, Admission::Overflow),
            (Kind::Counter, 1, 0, 100, Admission::Overflow),
            (Kind::Histogram, 15, 35, 35, Admission::Full),
            (Kind::Histogram, 15, 36, 36, Admission::Overflow),
            (Kind::Gauge, 1, 50, 60, Admission::Refused),
        ] {
            assert_eq!(limits.admit(kind, cost, family, total), admission, "{kind:?} {cost} {family} {total}");
        }
    }
}
