//! What the series of a family keep, and where in their cells.
//!
//! In: what the configuration says of observations and sets. Out: how many cells and sample lines a series takes.
//! Always: the first cell of a series is the tick of its last use; what has a sketch has its version before it.

use std::sync::Arc;
use std::time::Duration;

use super::arena::Arena;
use super::bounds::{self, Bounds};
use super::sketch::bins::{self, Layout};
use super::sketch::grid::{self, Scale};
use super::sketch::{Ring, members};
use crate::config::Observation;
use crate::map::Kind;
use crate::sync::AtomicU64;

/// Native buckets that a histogram has room for among its own cells.
const OWN_NATIVE: u16 = 4;
/// The same for each slice of a summary.
const OWN_SUMMARY: u16 = 2;

/// What a family is, and what each of its series keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A sum in each shard.
    Counter,
    /// A number shared by all workers.
    Gauge,
    /// Counts by classic buckets, a sum, and native buckets beside them.
    Histogram(Arc<Histogram>),
    /// A count, a sum, and the quantiles of a while.
    Summary(Arc<Summary>),
    /// The members of a while, counted once each.
    Set(Arc<Set>),
}

/// A histogram: a count for each classic bucket, then the sum of values, then the sketch of native ones.
#[derive(Debug, PartialEq)]
pub struct Histogram {
    /// Of the classic buckets.
    pub bounds: Arc<Bounds>,
    /// Of the native ones; `None` if there are none.
    pub native: Option<Layout>,
}

/// A summary: the count and the sum of all values, then a ring of sketches.
#[derive(Debug, PartialEq)]
pub struct Summary {
    /// Each with the text of its label.
    quantiles: Box<[(f64, Box<str>)]>,
    pub(super) ring: Ring,
    pub(super) layout: Layout,
}

/// A set: a ring of sketches.
#[derive(Debug, PartialEq)]
pub struct Set {
    pub(super) ring: Ring,
    pub(super) layout: members::Layout,
}

impl Shape {
    /// As observations are to be kept.
    pub fn of(observation: &Observation) -> Self {
        match observation {
            Observation::Histogram { bounds, native_factor, native_max_buckets } => {
                Self::Histogram(Arc::new(Histogram {
                    bounds: Arc::new(Bounds::new(bounds)),
                    native: grid::halvings_for(*native_factor).map(|halvings| Layout {
                        scale: Scale::Native,
                        halvings,
                        most: u16::try_from(*native_max_buckets).unwrap_or(u16::MAX).min(bins::MOST),
                        exact: false,
                        own: OWN_NATIVE,
                    }),
                }))
            }
            Observation::Summary { quantiles, max_age } => Self::Summary(Arc::new(Summary {
                quantiles: quantiles.iter().map(|quantile| (*quantile, bounds::text(*quantile).into())).collect(),
                ring: Ring::new(max_age.as_secs()),
                layout: Layout { scale: Scale::Percent, halvings: 0, most: bins::MOST, exact: true, own: OWN_SUMMARY },
            })),
        }
    }

    /// A set whose members are estimated over `window`, by so many registers.
    pub fn set(window: Duration, registers: usize) -> Self {
        Self::Set(Arc::new(Set { ring: Ring::new(window.as_secs()), layout: members::Layout { registers } }))
    }

    /// What the family is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Counter => Kind::Counter,
            Self::Gauge => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
            Self::Summary(_) => Kind::Summary,
            Self::Set(_) => Kind::Set,
        }
    }

    /// Sample lines that one series costs: of a histogram its buckets, of a summary its quantiles, and `_sum` and
    /// `_count`.
    pub fn lines(&self) -> u64 {
        match self {
            Self::Counter | Self::Gauge | Self::Set(_) => 1,
            Self::Histogram(histogram) => histogram.bounds.lines(),
            Self::Summary(summary) => summary.quantiles.len() as u64 + 2,
        }
    }

    /// Cells that one series needs.
    pub fn cells(&self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 2,
            Self::Histogram(histogram) => {
                histogram.version() + histogram.native.as_ref().map_or(0, |layout| 1 + layout.slot())
            }
            Self::Summary(summary) => Summary::RING + Ring::cells(summary.layout.slot()),
            Self::Set(_) => Set::RING + Ring::cells(members::SLOT),
        }
    }

    /// Gives back what the sketches of a series hold in the arena of a worker; nobody writes to them any more.
    pub(super) fn give_back(&self, cells: &[AtomicU64], arena: &Arena) {
        match self {
            Self::Counter | Self::Gauge => {}
            Self::Histogram(histogram) => {
                if let Some(layout) = &histogram.native {
                    layout.give_back(&cells[histogram.version() + 1..], arena);
                }
            }
            Self::Summary(summary) => {
                Ring::slices(&cells[Summary::RING..]).for_each(|(_, slot)| summary.layout.give_back(slot, arena));
            }
            Self::Set(set) => {
                Ring::slices(&cells[Set::RING..]).for_each(|(_, slot)| set.layout.give_back(slot, arena));
            }
        }
    }
}

impl Histogram {
    /// The cell of the sum.
    pub(super) fn sum(&self) -> usize {
        1 + self.bounds.buckets()
    }

    /// The cell of the sketch's version; the sketch itself is behind it.
    pub(super) fn version(&self) -> usize {
        2 + self.bounds.buckets()
    }
}

impl Summary {
    /// Cells of the numbers: how many values there were, and their sum; then the version, and the ring.
    pub(super) const COUNT: usize = 1;
    pub(super) const SUM: usize = 2;
    pub(super) const VERSION: usize = 3;
    pub(super) const RING: usize = 4;

    /// The quantiles, each with the value of its label.
    pub fn quantiles(&self) -> impl Iterator<Item = (f64, &str)> {
        self.quantiles.iter().map(|(quantile, text)| (*quantile, &**text))
    }

    /// How its sketches lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

impl Set {
    /// Cells of the version and of the ring.
    pub(super) const VERSION: usize = 1;
    pub(super) const RING: usize = 2;
}
