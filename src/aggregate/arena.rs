//! Room that a worker's sketches grow into, out of `cardinality.max_bytes`.
//!
//! In: how many cells a sketch needs. Out: a run of them, or none once the limit is reached.
//! Not here: what is in the cells (`sketch`).
//! Always: what all arenas hold and what is held beside them stay within the limit but for one run of each worker; only
//! its worker takes out of an arena, seldom, and whoever removes a series gives back what it had.

use std::sync::{Arc, PoisonError};

use super::cells::{Cell, CellSpace, Shard, ShardReader, ShardWriter};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering::Relaxed};

/// What may be held, and what is, bytes. The sketches of all workers share one.
#[derive(Debug)]
pub struct Budget {
    most: AtomicU64,
    beside: AtomicU64,
    arenas: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { most: AtomicU64::new(u64::MAX), beside: AtomicU64::new(0), arenas: AtomicU64::new(0) }
    }
}

impl Budget {
    /// Sets the limit.
    pub fn limit(&self, most: u64) {
        self.most.store(most, Relaxed);
    }

    /// Tells what is held beside the arenas.
    pub fn beside(&self, bytes: u64) {
        self.beside.store(bytes, Relaxed);
    }

    /// What the arenas hold.
    pub fn arenas(&self) -> u64 {
        self.arenas.load(Relaxed)
    }

    /// Takes `bytes` if they are there.
    fn take(&self, bytes: u64) -> bool {
        let left = self.most.load(Relaxed).saturating_sub(self.beside.load(Relaxed));
        let grown = |arenas: u64| arenas.checked_add(bytes).filter(|grown| *grown <= left);
        bytes == 0 || self.arenas.fetch_update(Relaxed, Relaxed, grown).is_ok()
    }
}

/// The arena of one worker.
#[derive(Debug)]
pub struct Arena {
    cells: Arc<Shard>,
    space: Mutex<CellSpace>,
    budget: Arc<Budget>,
    /// Runs that are out.
    runs: AtomicUsize,
}

impl Arena {
    /// One that holds nothing yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { cells: Arc::default(), space: Mutex::default(), budget, runs: AtomicUsize::new(0) }
    }

    /// Locks the list of chunks for reading; the worker needs it only to make a chunk.
    pub fn read(&self) -> ShardReader<'_> {
        self.cells.read()
    }

    /// Takes back a run that [`ArenaWriter::take`] gave.
    pub fn give_back(&self, cell: Cell, n: usize) {
        self.space.lock().unwrap_or_else(PoisonError::into_inner).give_back(cell, n);
        self.runs.fetch_sub(1, Relaxed);
    }

    /// How many runs are out.
    #[cfg(test)]
    pub fn runs(&self) -> usize {
        self.runs.load(Relaxed)
    }
}

/// The worker's side of its arena.
#[derive(Debug)]
pub struct ArenaWriter {
    arena: Arc<Arena>,
    cells: ShardWriter,
}

impl ArenaWriter {
    /// The one writer of `arena`.
    pub fn new(arena: Arc<Arena>) -> Self {
        Self { cells: ShardWriter::new(arena.cells.clone()), arena }
    }

    /// A run of `n` cells, with whatever is in them; `None` at the limit. Takes the arena's lock, and then, if its
    /// chunk is new to this worker, waits for who reads the list of them: [`ArenaWriter::run`] of it never waits
    /// afterwards.
    #[cold]
    pub fn take(&mut self, n: usize) -> Option<Cell> {
        let cell = {
            // A panic elsewhere leaves the map whole: nothing in between can panic.
            let mut space = self.arena.space.lock().unwrap_or_else(PoisonError::into_inner);
            self.arena.budget.take(space.growth(n, 1)).then(|| space.take(n)).flatten()?
        };
        self.arena.runs.fetch_add(1, Relaxed);
        // Not under the lock above: whoever reads the list may be about to give back a run.
        self.cells.run(cell, n);
        Some(cell)
    }

    /// Gives back a run.
    #[cold]
    pub fn give_back(&mut self, cell: Cell, n: usize) {
        self.arena.give_back(cell, n);
    }

    /// The cells of a run.
    #[inline]
    pub fn run(&mut self, cell: Cell, n: usize) -> &[AtomicU64] {
        self.cells.run(cell, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_the_limit_leaves() {
        let budget = Arc::new(Budget::default());
        let arena = Arc::new(Arena::new(budget.clone()));
        let mut writer = ArenaWriter::new(arena.clone());
        let first = writer.take(100).expect("room");
        let held = budget.arenas();
        assert!((800..2000).contains(&held), "{held}");
        budget.limit(held + 1000);
        budget.beside(400);
        assert_eq!(writer.take(100), None, "800 bytes are more than the 600 left");
        assert!(writer.take(50).is_some());
        // What is given back is taken again at no cost.
        arena.give_back(first, 100);
        assert!(writer.take(60).is_some() && writer.take(40).is_some());
        assert_eq!((budget.arenas(), arena.runs()), (held + 400, 3));
    }
}
