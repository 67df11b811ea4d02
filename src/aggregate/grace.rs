//! What the sweep takes away, and how every worker comes to have forgotten it: at a batch boundary ([`rounds`]).
//!
//! In: series that are to go, from the sweep. Out: for a worker whether a place is among them.

pub mod rounds;

use std::collections::HashSet;

use super::Place;
use super::cells::Cell;

/// The rounds of one store.
pub(super) type Grace = rounds::Rounds<Doomed>;

/// A worker's side of them.
pub type Passage = rounds::Passage<Doomed>;

/// What a worker has to forget.
pub type Forget = rounds::Forget<Doomed>;

/// What a round takes away.
#[derive(Debug, Default)]
pub struct Doomed {
    sharded: HashSet<Cell>,
    shared: HashSet<Cell>,
    /// A family went, so that a name may have another type now.
    pub names: bool,
}

impl Doomed {
    /// Adds a series.
    pub(super) fn add(&mut self, place: &Place) {
        match place {
            Place::Gauge(cell) => self.shared.insert(*cell),
            Place::Counter(cell) | Place::Histogram(cell, _) | Place::Summary(cell, _) | Place::Set(cell, _) => {
                self.sharded.insert(*cell)
            }
        };
    }

    /// Whether a series is among them.
    pub fn contains(&self, place: &Place) -> bool {
        match place {
            Place::Gauge(cell) => self.shared.contains(cell),
            Place::Counter(cell) | Place::Histogram(cell, _) | Place::Summary(cell, _) | Place::Set(cell, _) => {
                self.sharded.contains(cell)
            }
        }
    }

    /// Whether there is nothing to forget.
    pub(super) fn is_empty(&self) -> bool {
        self.sharded.is_empty() && self.shared.is_empty() && !self.names
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_round_is_passed_once_every_worker_has_forgotten_or_sleeps() {
        let grace = Arc::new(Grace::new(2));
        let mut workers = [Passage::new(grace.clone(), 0), Passage::new(grace.clone(), 1)];
        assert!(grace.is_passed());
        assert!(workers[0].enter().is_none());
        grace.begin(Doomed { names: true, ..Doomed::default() });
        assert!(!grace.is_passed(), "worker 0 is in a batch that began before");
        workers[0].leave();
        assert!(grace.is_passed());
        assert!(matches!(workers[1].enter(), Some(Forget::Some(doomed)) if doomed.names));
        assert!(!grace.is_passed(), "worker 1 was told and has not forgotten");
        workers[1].forgotten();
        assert!(grace.is_passed());
        assert!(workers[1].enter().is_none(), "a round is told once");
        workers[1].leave();
        grace.begin(Doomed::default());
        assert!(matches!(workers[1].enter(), Some(Forget::Some(doomed)) if !doomed.names));
        assert!(matches!(workers[0].enter(), Some(Forget::All)), "worker 0 slept through two rounds");
    }
}
