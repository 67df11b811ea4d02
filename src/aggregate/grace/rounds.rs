//! Rounds of forgetting: tells when no worker remembers any more what is to go.
//!
//! In: what is to be forgotten, from one thread at a time; batch boundaries, from the workers. Out: for a worker what
//! to forget, for the other side whether all have forgotten it.
//! Not here: what is forgotten (`grace`), what happens to it then (`sweep`).
//! Always: a worker goes by nothing between two boundaries that it was told to forget at the first; a worker that
//! sleeps counts as passed, since it looks before it records again. What a worker did before a boundary is seen by
//! whoever sees that it has passed it.
//!
//! Beside that it tells whoever watches for it that a batch begins after all workers slept.
//!
//! Two pairs of accesses carry this. One side writes the round and then reads a worker's mark; the worker writes its
//! mark and then reads the round. A fence between the two on each side makes sure that at least one of them sees what
//! the other wrote: either the worker is seen awake and waited for, or it sees the round and forgets. The same goes for
//! a watch: either the worker is seen awake, or it sees that it is watched. They are fences and not `SeqCst` accesses
//! since `tests/races` tries every order of these lines by `loom`, which knows sequential consistency of fences alone;
//! and a worker has one full barrier for each batch so, in place of two.

use std::sync::{Arc, PoisonError};

use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicU64, Mutex, fence};

/// The mark of a worker that sleeps.
const ASLEEP: u64 = u64::MAX;

/// What a worker has to forget.
#[derive(Debug)]
pub enum Forget<T> {
    /// What the last round takes away.
    Some(Arc<T>),
    /// Everything: it slept through rounds whose contents nobody kept.
    All,
}

/// The rounds of one store.
#[derive(Debug)]
pub struct Rounds<T> {
    round: AtomicU64,
    /// What a round takes away, and which.
    doomed: Mutex<(u64, Arc<T>)>,
    /// For each worker the last round it has passed, or [`ASLEEP`].
    marks: Box<[AtomicU64]>,
    /// Not 0 if somebody watches for the next batch.
    watched: AtomicU64,
}

impl<T: Default> Rounds<T> {
    /// For `workers` workers, all of which sleep.
    pub fn new(workers: usize) -> Self {
        let marks = (0..workers).map(|_| AtomicU64::new(ASLEEP)).collect();
        let doomed = Mutex::new((0, Arc::default()));
        Self { round: AtomicU64::new(0), doomed, marks, watched: AtomicU64::new(0) }
    }

    /// Starts a round: every worker is to forget `doomed` at its next boundary. The round before must have been passed.
    pub fn begin(&self, doomed: T) {
        // One thread begins rounds, so nobody else moves the number between these lines.
        let round = self.round.load(Relaxed) + 1;
        *self.doomed.lock().unwrap_or_else(PoisonError::into_inner) = (round, Arc::new(doomed));
        self.round.store(round, Release);
    }

    /// Whether every worker has passed the last round begun.
    pub fn is_passed(&self) -> bool {
        let round = self.round.load(Relaxed);
        fence(SeqCst);
        self.marks.iter().all(|mark| mark.load(Acquire) >= round)
    }
}

impl<T> Rounds<T> {
    /// Watches for the next batch, and says whether every worker sleeps. If so, the first to wake up is told, and
    /// nothing was recorded since that whoever calls this does not see.
    pub fn watch(&self) -> bool {
        self.watched.store(1, Relaxed);
        fence(SeqCst);
        self.marks.iter().all(|mark| mark.load(Acquire) == ASLEEP)
    }

    /// Whether nobody was told of a batch since [`Rounds::watch`].
    pub fn is_watched(&self) -> bool {
        self.watched.load(Relaxed) != 0
    }

    /// Ends the watch, and says whether there was one.
    pub fn end_watch(&self) -> bool {
        // Looked at first, since it is asked at each batch and seldom true.
        self.is_watched() && self.watched.swap(0, Relaxed) != 0
    }
}

/// A worker's side of the rounds.
#[derive(Debug)]
pub struct Passage<T> {
    rounds: Arc<Rounds<T>>,
    worker: usize,
    passed: u64,
}

impl<T> Passage<T> {
    /// That of worker number `worker`, which nobody else may have.
    pub fn new(rounds: Arc<Rounds<T>>, worker: usize) -> Self {
        Self { rounds, worker, passed: 0 }
    }

    /// A batch begins: what has to be forgotten before its first sample, if anything.
    pub fn enter(&mut self) -> Option<Forget<T>> {
        self.mark(self.passed);
        fence(SeqCst);
        let round = self.rounds.round.load(Acquire);
        if round == self.passed {
            return None;
        }
        let only_one = round == self.passed + 1;
        self.passed = round;
        let (of_round, doomed) = self.rounds.doomed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The next round may be about to begin if the sweep looked while this worker slept: then `doomed` is of that
        // one.
        Some(if only_one && of_round == round { Forget::Some(doomed) } else { Forget::All })
    }

    /// Whether somebody watches for this batch, and is to be told. To be asked behind [`Passage::enter`]; ends the watch.
    pub fn ends_watch(&self) -> bool {
        self.rounds.end_watch()
    }

    /// What [`Passage::enter`] told is forgotten.
    pub fn forgotten(&self) {
        self.mark(self.passed);
    }

    /// The batch is over, and nothing is recorded until the next begins.
    pub fn leave(&self) {
        self.mark(ASLEEP);
    }

    fn mark(&self, mark: u64) {
        self.rounds.marks[self.worker].store(mark, Release);
    }
}
