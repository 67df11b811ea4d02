//! Numbers that workers add to and scrapes read, in shards.
//!
//! In: values at a [`Cell`]. Out: the same, summed over shards by whoever reads.
//! Always: a cell of a sharded number has one writer, so adding is a load and a store; a chunk of a shard exists only
//! once its writer has written to it; reading never waits for a writer.
//!
//! `Relaxed` is enough here: each cell is a number of its own, nothing is published through it, and numbers that must
//! agree (a histogram's count and buckets) are derived from one source when read. What is more than numbers (`sketch`)
//! brings its own order.

use std::sync::{Arc, PoisonError};

use crate::clock::Tick;
use crate::model::heap_bytes;
use crate::sync::{AtomicU64, CHUNK, Mutex, MutexGuard, Ordering::Relaxed};

/// The place of a number (or the first of several in a row) in every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell(u32);

impl Cell {
    /// The cell `n` places behind this one, in the same run.
    #[inline]
    pub const fn plus(self, n: usize) -> Self {
        Self(self.0 + n as u32)
    }

    /// Its number; [`Cell::at`] gives it back.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The cell of this number.
    #[inline]
    pub const fn at(number: u32) -> Self {
        Self(number)
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

/// Words of a chunk's map of free cells.
const WORDS: usize = CHUNK / 64;

/// What a chunk costs beside its cells, once: its map, with the allocator's share.
const MAP_BYTES: u64 = (size_of::<FreeMap>() + heap_bytes(size_of::<[u64; WORDS]>())) as u64;

/// The same in each shard: its two counts, the allocator's share, and a pointer in the list of the shard and of its
/// writer, both with room to grow.
const SHARED_CHUNK_BYTES: u64 = 64;

/// Hands out cells and takes them back; one for all sharded numbers, one for all shared ones.
///
/// What was given back is used again for runs of any length: the smallest run of free cells that fits, neighbours
/// counted as one. What no run fits into stays, and counts as taken: memory is what was ever handed out.
#[derive(Debug, Default)]
pub struct CellSpace {
    next: u32,
    /// Free cells before `next`.
    free: usize,
    chunks: Vec<FreeMap>,
}

impl CellSpace {
    /// The first of `n` cells in a row, within one chunk. `None` once four billion are out.
    ///
    /// # Panics
    /// If `n` is larger than a chunk; the longest run is a histogram's, bounded when its bounds are checked.
    pub fn take(&mut self, n: usize) -> Option<Cell> {
        assert!(n <= CHUNK, "a run of cells fits into a chunk");
        if let Some(number) = self.chunk_for(n) {
            let place = self.chunks[number].take(n);
            self.free -= n;
            return Some(Cell((number * CHUNK + place) as u32));
        }
        let left = CHUNK - self.next as usize % CHUNK;
        let skipped = if left >= n { 0 } else { left };
        let start = self.next.checked_add(skipped as u32)?;
        let next = start.checked_add(n as u32)?;
        if skipped > 0 {
            self.give_back(Cell(self.next), skipped);
        }
        self.next = next;
        if self.chunks.len() * CHUNK < next as usize {
            self.chunks.push(FreeMap::default());
        }
        Some(Cell(start))
    }

    /// Takes back a run of `n` cells that [`CellSpace::take`] gave. They must be zero again, in every shard.
    pub fn give_back(&mut self, cell: Cell, n: usize) {
        self.chunks[cell.chunk()].give_back(cell.place(), n);
        self.free += n;
    }

    /// What is held in `shards` shards, in bytes: every cell that was ever handed out, and what is known of them.
    pub fn bytes(&self, shards: u64) -> u64 {
        bytes_of(self.next as usize, self.chunks.len(), shards)
    }

    /// How many bytes more [`CellSpace::take`] would make that; 0 if what was given back will do.
    pub fn growth(&self, n: usize, shards: u64) -> u64 {
        if self.chunk_for(n).is_some() {
            return 0;
        }
        let left = CHUNK - self.next as usize % CHUNK;
        let next = self.next as usize + n + if left >= n { 0 } else { left };
        bytes_of(next, next.div_ceil(CHUNK).max(self.chunks.len()), shards) - self.bytes(shards)
    }

    /// The chunk whose longest free run is the shortest that `n` cells fit into.
    fn chunk_for(&self, n: usize) -> Option<usize> {
        if self.free < n {
            return None;
        }
        let fitting = self.chunks.iter().enumerate().filter(|(_, map)| usize::from(map.longest) >= n);
        fitting.min_by_key(|(_, map)| map.longest).map(|(number, _)| number)
    }
}

fn bytes_of(cells: usize, chunks: usize, shards: u64) -> u64 {
    cells as u64 * 8 * shards + chunks as u64 * (MAP_BYTES + SHARED_CHUNK_BYTES * shards)
}

/// The most that a space can hold, in bytes, once `n` of its runs were taken, the longest of them of `longest` cells.
///
/// A run that does not fit behind the last leaves the rest of a chunk, and others may be too short to fill it: less
/// than a run in each chunk. The last chunk is there as a whole, whatever is used of it.
pub fn most_bytes(n: u64, longest: usize, shards: u64) -> u64 {
    let cells = (n as usize).saturating_mul(longest);
    let chunks = cells.div_ceil((CHUNK + 1).saturating_sub(longest).max(longest)) + 1;
    bytes_of(chunks.saturating_mul(CHUNK), chunks, shards)
}

/// Which cells of a chunk are free: a bit for each.
#[derive(Debug)]
struct FreeMap {
    words: Box<[u64; WORDS]>,
    /// The length of the longest run of free cells.
    longest: u16,
}

impl Default for FreeMap {
    fn default() -> Self {
        Self { words: Box::new([0; WORDS]), longest: 0 }
    }
}

impl FreeMap {
    /// Takes `n` cells out of the shortest run that has as many; there is one.
    fn take(&mut self, n: usize) -> usize {
        let fitting = self.runs().filter(|(_, length)| *length >= n).min_by_key(|(_, length)| *length);
        let (start, _) = fitting.expect("the longest run has room for what was asked");
        self.flip(start, n);
        self.longest = self.runs().map(|(_, length)| length as u16).max().unwrap_or(0);
        start
    }

    fn give_back(&mut self, start: usize, n: usize) {
        self.flip(start, n);
        let end = self.find(start, false);
        let start = (0..start).rev().take_while(|place| self.is_free(*place)).last().unwrap_or(start);
        self.longest = self.longest.max((end - start) as u16);
    }

    /// Start and length of each run of free cells.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = self.find(from, true);
            from = self.find(start, false);
            (start < CHUNK).then_some((start, from - start))
        })
    }

    /// The first cell from `from` on that is free, or is not; [`CHUNK`] if there is none.
    fn find(&self, from: usize, free: bool) -> usize {
        let mut mask = u64::MAX << (from % 64);
        for number in from / 64..WORDS {
            let word = if free { self.words[number] } else { !self.words[number] } & mask;
            if word != 0 {
                return number * 64 + word.trailing_zeros() as usize;
            }
            mask = u64::MAX;
        }
        CHUNK
    }

    fn is_free(&self, place: usize) -> bool {
        self.words[place / 64] & 1 << (place % 64) != 0
    }

    fn flip(&mut self, start: usize, n: usize) {
        (start..start + n).for_each(|place| self.words[place / 64] ^= 1 << (place % 64));
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
        chunks[number].get_or_insert_with(|| Arc::new(std::array::from_fn(|_| AtomicU64::new(0)))).clone()
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

    /// `n` cells in a row of one run; `None` if nobody wrote to their chunk, so that all are 0.
    #[inline]
    pub fn run(&self, cell: Cell, n: usize) -> Option<&[AtomicU64]> {
        match self.chunks.get(cell.chunk()) {
            Some(Some(chunk)) => Some(&chunk[cell.place()..cell.place() + n]),
            _ => None,
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
        &self.chunk(cell)[cell.place()]
    }

    /// `n` cells in a row of one run.
    #[inline]
    pub fn run(&mut self, cell: Cell, n: usize) -> &[AtomicU64] {
        &self.chunk(cell)[cell.place()..cell.place() + n]
    }

    #[inline]
    fn chunk(&mut self, cell: Cell) -> &[AtomicU64; CHUNK] {
        if !matches!(self.chunks.get(cell.chunk()), Some(Some(_))) {
            self.fetch(cell.chunk());
        }
        match &self.chunks[cell.chunk()] {
            Some(chunk) => chunk,
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
    fn what_was_given_back_is_used_for_runs_of_other_lengths() {
        let mut space = CellSpace::default();
        let counters: Vec<Cell> = (0..CHUNK).map(|_| space.take(2).expect("room")).collect();
        let bytes = space.bytes(2);
        assert_eq!((bytes, space.growth(2, 2) > 0), (bytes_of(2 * CHUNK, 2, 2), true));
        // Neighbours in any order become one run: seven counters make room for a histogram.
        for cell in counters.iter().skip(7).take(7).rev().chain(&counters[20..27]) {
            space.give_back(*cell, 2);
        }
        assert_eq!([1, 14, 15].map(|n| space.growth(n, 2) > 0), [false, false, true]);
        let histograms: Vec<Cell> = (0..2).map(|_| space.take(14).expect("room")).collect();
        assert_eq!(histograms, [counters[7], counters[20]]);
        // The shortest that fits, so that the longer one stays whole.
        space.give_back(histograms[0], 14);
        space.give_back(counters[30], 2);
        assert_eq!(space.take(2), Some(counters[30]));
        assert_eq!(space.take(14), Some(histograms[0]));
        assert_eq!((space.bytes(2), space.free), (bytes, 0));
    }

    #[test]
    fn the_end_of_a_chunk_that_a_run_did_not_fit_into_is_used_by_shorter_ones() {
        let mut space = CellSpace::default();
        let first: Vec<Cell> = (0..4).map(|_| space.take(1002).expect("room")).collect();
        let bytes = space.bytes(1);
        assert_eq!(space.growth(1002, 1), bytes_of(CHUNK + 1002, 2, 1) - bytes);
        space.take(1002);
        assert_eq!(space.bytes(1), bytes_of(CHUNK + 1002, 2, 1));
        assert_eq!(space.take(88), Some(first[3].plus(1002)));
        assert_eq!(space.free, 0);
    }

    /// Against a plain list of what is out: no two runs overlap, growth is what was foretold, and the bound holds.
    #[test]
    fn runs_of_all_lengths_come_and_go_and_growth_is_foretold() {
        let mut space = CellSpace::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut out: Vec<(Cell, usize)> = Vec::new();
        let mut most = 0;
        for _ in 0..20_000 {
            if out.len() > 200 || (random.bool() && !out.is_empty()) {
                let (cell, n) = out.swap_remove(random.usize(..out.len()));
                space.give_back(cell, n);
                continue;
            }
            let n = [2, 14, 14, 40, random.usize(1..1003)][random.usize(..5)];
            let expected = space.bytes(3) + space.growth(n, 3);
            let cell = space.take(n).expect("room");
            assert_eq!(space.bytes(3), expected);
            assert_eq!(cell.chunk(), cell.plus(n - 1).chunk());
            let (start, end) = (cell.0, cell.0 + n as u32);
            assert!(out.iter().all(|(other, n)| other.0 + *n as u32 <= start || end <= other.0), "{cell:?} overlaps");
            out.push((cell, n));
            most = most.max(out.iter().map(|(_, n)| n).sum());
            let longest = space.chunks.iter().map(|map| map.runs().map(|run| run.1).max().unwrap_or(0));
            assert!(longest.eq(space.chunks.iter().map(|map| usize::from(map.longest))));
        }
        assert!(space.next as usize <= 3 * most, "{} cells were handed out where {most} were in use", space.next);
        let free: usize = space.chunks.iter().flat_map(FreeMap::runs).map(|run| run.1).sum();
        assert_eq!(free, space.free);
    }

    #[test]
    fn the_most_that_runs_take_is_no_less_than_what_they_took() {
        for longest in [2, 14, 340, 1002, 2000, 4096] {
            for n in [1, 5, 100, 5000] {
                let mut space = CellSpace::default();
                (0..n).for_each(|_| _ = space.take(longest));
                let found = bytes_of(space.chunks.len() * CHUNK, space.chunks.len(), 2);
                assert!(found <= most_bytes(n, longest, 2), "{n} of {longest}: {found}");
            }
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
