//! Tells when every worker has passed a batch boundary, so that what they may have remembered can be taken away.
//!
//! In: series that are to go, from the sweep; batch boundaries, from the workers. Out: for a worker what to forget, for
//! the sweep whether all have forgotten it.
//! Always: a worker records nothing between two boundaries that it was told to forget at the first; a worker that sleeps
//! counts as passed, since it looks before it records again.
//!
//! The order of two pairs of accesses carries this. The sweep writes the round and then reads a worker's mark; the worker
//! writes its mark and then reads the round. `SeqCst` makes a single order of the four, so that either the sweep sees the
//! worker awake and waits, or the worker sees the round and forgets.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use super::Place;
use super::cells::Cell;

/// The mark of a worker that sleeps.
const ASLEEP: u64 = u64::MAX;

/// What a worker has to forget.
#[derive(Debug)]
pub enum Forget {
    /// What the last round takes away.
    Some(Arc<Doomed>),
    /// Everything: it slept through rounds whose contents nobody kept.
    All,
}

/// What a round takes away.
#[derive(Debug, Default)]
pub struct Doomed {
    sharded: HashSet<Cell>,
    shared: HashSet<Cell>,
    /// A family went, so that a name may have another type now.
    pub names: bool,
    round: u64,
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

/// The rounds of one store.
#[derive(Debug)]
pub(super) struct Grace {
    round: AtomicU64,
    doomed: Mutex<Arc<Doomed>>,
    /// For each worker the last round it has passed, or [`ASLEEP`].
    marks: Box<[AtomicU64]>,
}

impl Grace {
    /// For `workers` workers, all of which sleep.
    pub(super) fn new(workers: usize) -> Self {
        let marks = (0..workers).map(|_| AtomicU64::new(ASLEEP)).collect();
        Self { round: AtomicU64::new(0), doomed: Mutex::default(), marks }
    }

    /// Starts a round: every worker is to forget `doomed` at its next boundary. The round before must have been passed.
    pub(super) fn begin(&self, mut doomed: Doomed) {
        // One thread begins rounds, so nobody else moves the number between these lines.
        let round = self.round.load(SeqCst) + 1;
        doomed.round = round;
        *self.doomed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(doomed);
        self.round.store(round, SeqCst);
    }

    /// Whether every worker has passed the last round begun.
    pub(super) fn is_passed(&self) -> bool {
        let round = self.round.load(SeqCst);
        self.marks.iter().all(|mark| mark.load(SeqCst) >= round)
    }
}

/// A worker's side of the rounds.
#[derive(Debug)]
pub struct Passage {
    grace: Arc<Grace>,
    worker: usize,
    passed: u64,
}

impl Passage {
    pub(super) fn new(grace: Arc<Grace>, worker: usize) -> Self {
        Self { grace, worker, passed: 0 }
    }

    /// A batch begins: what has to be forgotten before its first sample, if anything.
    pub fn enter(&mut self) -> Option<Forget> {
        self.grace.marks[self.worker].store(self.passed, SeqCst);
        let round = self.grace.round.load(SeqCst);
        if round == self.passed {
            return None;
        }
        let only_one = round == self.passed + 1;
        self.passed = round;
        let doomed = self.grace.doomed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The next round may be about to begin if the sweep looked while this worker slept: then `doomed` is of that one.
        Some(if only_one && doomed.round == round { Forget::Some(doomed) } else { Forget::All })
    }

    /// What [`Passage::enter`] told is forgotten.
    pub fn forgotten(&self) {
        self.grace.marks[self.worker].store(self.passed, SeqCst);
    }

    /// The batch is over, and nothing is recorded until the next begins.
    pub fn leave(&self) {
        self.grace.marks[self.worker].store(ASLEEP, SeqCst);
    }
}

#[cfg(test)]
mod tests {
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
