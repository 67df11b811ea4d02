//! Numbers that workers add to and scrapes read, in shards.
//!
//! In: values at a [`Cell`]. Out: the same, summed over shards by whoever reads.
//! Always: a cell of a sharded number has one writer, so adding is a load and a store; a chunk of a shard exists only
//! once its writer has written to it; reading never waits for a writer.
//!
//! `Relaxed` is enough throughout: each cell is a number of its own, nothing is published through it, and numbers that
//! must agree (a histogram's count and buckets) are derived from one source when read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Tick;

/// Cells in a chunk: 32 KiB, so that an empty shard costs nothing and a full one little overhead.
pub const CHUNK: usize = 4096;

/// The place of a number (or the first of several in a row) in every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell(u32);

impl Cell {
    /// The cell `n` places behind this one, in the same run.
    #[inline]
    pub const fn plus(self, n: usize) -> Self {
        Self(self.0 + n as u32)
    }

    #[inline]
    const fn chunk(self) -> usize {
        self.0 as usize / CHUNK
    }

    #[inline]
    const fn place(self) -> usize {
        self.0 as usize % CHUNK
    }
}

/// Hands out cells and takes them back; one for all sharded numbers, one for all shared ones.
#[derive(Debug, Default)]
pub struct CellSpace {
    next: u32,
    /// Runs that were given back, by their length. There are as many lengths as kinds of histograms.
    free: Vec<(usize, Vec<Cell>)>,
}

impl CellSpace {
    /// The first of `n` new cells in a row, within one chunk. `None` once four billion are out.
    ///
    /// # Panics
    /// If `n` is larger than a chunk; the longest run is a histogram's, bounded when its bounds are checked.
    pub fn take(&mut self, n: usize) -> Option<Cell> {
        assert!(n <= CHUNK, "a run of cells fits into a chunk");
        if let Some(cell) = self.free.iter_mut().find(|(length, _)| *length == n).and_then(|(_, runs)| runs.pop()) {
            return Some(cell);
        }
        let left = CHUNK - self.next as usize % CHUNK;
        let start = if left >= n { self.next } else { self.next.checked_add(left as u32)? };
        self.next = start.checked_add(n as u32)?;
        Some(Cell(start))
    }

    /// Takes back a run of `n` cells that [`CellSpace::take`] gave. They must be zero again, in every shard.
    pub fn give_back(&mut self, cell: Cell, n: usize) {
        match self.free.iter_mut().find(|(length, _)| *length == n) {
            Some((_, runs)) => runs.push(cell),
            None => self.free.push((n, vec![cell])),
        }
    }
}

type Chunk = Arc<[AtomicU64; CHUNK]>;

/// The cells of one writer, or of all of them for shared numbers.
#[derive(Debug, Default)]
pub struct Shard {
    chunks: Mutex<Vec<Option<Chunk>>>,
}

impl Shard {
    /// Locks the list of chunks for reading. Writers need it only to make a chunk.
    pub fn read(&self) -> ShardReader<'_> {
        ShardReader { chunks: self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Chunk>>> {
        // A list of chunks is whole at every moment, so a panic elsewhere does not spoil it.
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chunk with this number, made if need be.
    fn chunk(&self, number: usize) -> Chunk {
        let mut chunks = self.lock();
        if chunks.len() <= number {
            chunks.resize(number + 1, None);
        }
        chunks[number].get_or_insert_with(|| Arc::new([const { AtomicU64::new(0) }; CHUNK])).clone()
    }
}

/// Reads the cells of a shard.
#[derive(Debug)]
pub struct ShardReader<'a> {
    chunks: MutexGuard<'a, Vec<Option<Chunk>>>,
}

impl ShardReader<'_> {
    /// The number in `cell`; 0 if nobody wrote to its chunk.
    #[inline]
    pub fn get(&self, cell: Cell) -> f64 {
        f64::from_bits(self.bits(cell))
    }

    /// The tick in `cell`; 0 if nobody wrote to its chunk.
    #[inline]
    pub fn tick(&self, cell: Cell) -> Tick {
        self.bits(cell)
    }

    #[inline]
    fn bits(&self, cell: Cell) -> u64 {
        match self.chunks.get(cell.chunk()) {
            Some(Some(chunk)) => chunk[cell.place()].load(Relaxed),
            _ => 0,
        }
    }

    /// Sets `n` cells in a row to zero. Their writer must not know them any more.
    pub fn clear(&self, cell: Cell, n: usize) {
        if let Some(Some(chunk)) = self.chunks.get(cell.chunk()) {
            chunk[cell.place()..cell.place() + n].iter().for_each(|number| number.store(0, Relaxed));
        }
    }
}

/// A worker's own view of a shard: finds a cell without a lock.
#[derive(Debug)]
pub struct ShardWriter {
    shard: Arc<Shard>,
    chunks: Vec<Option<Chunk>>,
}

impl ShardWriter {
    /// A view of `shard`.
    pub fn new(shard: Arc<Shard>) -> Self {
        Self { shard, chunks: Vec::new() }
    }

    #[inline]
    fn atomic(&mut self, cell: Cell) -> &AtomicU64 {
        if !matches!(self.chunks.get(cell.chunk()), Some(Some(_))) {
            self.fetch(cell.chunk());
        }
        match &self.chunks[cell.chunk()] {
            Some(chunk) => &chunk[cell.place()],
            None => unreachable!("fetched above"),
        }
    }

    #[cold]
    fn fetch(&mut self, number: usize) {
        if self.chunks.len() <= number {
            self.chunks.resize(number + 1, None);
        }
        self.chunks[number] = Some(self.shard.chunk(number));
    }

    /// The number in `cell`.
    #[inline]
    pub fn get(&mut self, cell: Cell) -> f64 {
        f64::from_bits(self.atomic(cell).load(Relaxed))
    }

    /// Replaces the number in `cell`.
    #[inline]
    pub fn set(&mut self, cell: Cell, value: f64) {
        self.atomic(cell).store(value.to_bits(), Relaxed);
    }

    /// Notes the tick of the last use in `cell`.
    #[inline]
    pub fn touch(&mut self, cell: Cell, tick: Tick) {
        self.atomic(cell).store(tick, Relaxed);
    }

    /// Adds to a cell that this worker alone writes; `false`, and no change, if the sum's size would pass `most`.
    #[inline]
    pub fn add(&mut self, cell: Cell, value: f64, most: f64) -> bool {
        let atomic = self.atomic(cell);
        let sum = f64::from_bits(atomic.load(Relaxed)) + value;
        let fits = sum.abs() <= most;
        if fits {
            atomic.store(sum.to_bits(), Relaxed);
        }
        fits
    }

    /// Adds to a cell that others write as well; `false`, and no change, if the sum would not be finite.
    pub fn add_shared(&mut self, cell: Cell, value: f64) -> bool {
        let add = |bits| {
            let sum = f64::from_bits(bits) + value;
            sum.is_finite().then(|| sum.to_bits())
        };
        self.atomic(cell).fetch_update(Relaxed, Relaxed, add).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_cells_do_not_cross_chunks_or_overlap() {
        let mut space = CellSpace::default();
        let mut last = 0;
        for n in [1, 14, 1000, 4096, 1, 4095, 2].into_iter().cycle().take(100) {
            let cell = space.take(n).expect("room");
            assert!(cell.0 >= last, "{cell:?} overlaps what ended at {last}");
            assert_eq!(cell.chunk(), cell.plus(n - 1).chunk(), "{n} cells from {cell:?}");
            last = cell.0 + n as u32;
        }
    }

    #[test]
    fn a_sum_stays_within_its_bound() {
        let mut writer = ShardWriter::new(Arc::default());
        let cell = CellSpace::default().take(1).expect("room");
        assert!(writer.add(cell, 9.0, 10.0));
        assert!(!writer.add(cell, 2.0, 10.0));
        assert!(!writer.add(cell, f64::NAN, 10.0));
        assert_eq!(writer.get(cell), 9.0);
    }

    #[test]
    fn readers_see_chunks_that_were_written_and_zero_elsewhere() {
        let shard = Arc::new(Shard::default());
        let mut space = CellSpace::default();
        let cells: Vec<Cell> = (0..3).map(|_| space.take(CHUNK).expect("room")).collect();
        let mut writer = ShardWriter::new(shard.clone());
        writer.set(cells[1], 7.0);
        let values: Vec<f64> = cells.iter().map(|cell| shard.read().get(*cell)).collect();
        assert_eq!(values, [0.0, 7.0, 0.0]);
        assert!(shard.read().chunks[0].is_none(), "a chunk nobody wrote to takes no memory");
    }
}
