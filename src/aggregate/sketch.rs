//! What a series keeps that is more than a few numbers: bins of a native histogram or a summary, members of a set.
//!
//! In: values, from the worker whose shard it is. Out: copies of it for whoever reads, to be merged over shards.
//! Here: how a sketch lies in cells, how it changes place, and how it is read meanwhile. Not here: what is in it
//! (`bins`, `members`).
//! Always: one writer, who never waits for a reader; a copy is of one moment as far as the sketch's shape goes, and
//! each number in it is as new as that moment or newer.
//!
//! A sketch begins in the cells of its series, in a slot: its `Head`, and room for a few entries. What outgrows that
//! moves into the worker's arena. Before a change of shape the writer makes the version odd, and even again behind it;
//! the two fences keep a reader who saw any of the change from finding the version it began with, so it looks again.
//! Follows: the sequence lock as in Boehm, "Can seqlocks get along with programming language memory models?" (2012).

pub mod bins;
pub mod grid;
pub mod members;

use super::arena::{Arena, ArenaWriter};
use super::cells::{Cell, ShardReader};
use crate::clock::Tick;
use crate::insight::distinct::SLICES;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, fence, spin_loop, yield_now};

/// Where the entries of a sketch are, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    /// The run in the arena; `None` for the slot itself.
    run: Option<Cell>,
    /// Entries that are there.
    len: u16,
    /// Entries that the run has room for; without meaning in the slot.
    room: u16,
    /// What else there is to know: how often bins were halved, whether members are kept as registers.
    form: u8,
}

impl Head {
    #[inline]
    fn load(cell: &AtomicU64) -> Self {
        let word = cell.load(Relaxed);
        Self {
            run: ((word >> 32) as u32).checked_sub(1).map(Cell::at),
            len: (word & 0xFFF) as u16,
            room: (word >> 12 & 0xFFF) as u16,
            form: (word >> 24) as u8,
        }
    }

    /// Lengths are below 4,096: a run is within a chunk.
    fn store(self, cell: &AtomicU64) {
        let run = self.run.map_or(0, |run| u64::from(run.number()) + 1);
        let word = run << 32 | u64::from(self.form) << 24 | u64::from(self.room) << 12 | u64::from(self.len);
        cell.store(word, Relaxed);
    }
}

/// Changes the shape of what readers copy under `version`. Nothing in `change` may wait for a lock that a reader holds:
/// it waits for the version.
fn change<T>(version: &AtomicU64, change: impl FnOnce() -> T) -> T {
    let before = version.load(Relaxed);
    version.store(before.wrapping_add(1), Relaxed);
    // Whoever reads anything written below this fence, and then the version behind a fence of its own, finds it
    // changed.
    fence(Release);
    let made = change();
    version.store(before.wrapping_add(2), Release);
    made
}

/// Copies by `copy`, until it was done under one version. What it reads may be of two shapes meanwhile.
pub(super) fn steady<T>(version: &AtomicU64, mut copy: impl FnMut() -> T) -> T {
    let mut tries = 0_u32;
    loop {
        let before = version.load(Acquire);
        if before.is_multiple_of(2) {
            let copied = copy();
            fence(Acquire);
            if version.load(Relaxed) == before {
                return copied;
            }
        }
        tries += 1;
        // A change takes a microsecond, but the worker may have lost its processor in the middle of it.
        if tries.is_multiple_of(64) { yield_now() } else { spin_loop() }
    }
}

/// A ring of slots, each for a fifth of a window; the number of its time stands before each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ring {
    /// Seconds of a slice.
    slice: Tick,
}

impl Ring {
    /// For a window of `seconds`; it is no shorter, and a multiple of [`SLICES`] seconds.
    pub fn new(seconds: u64) -> Self {
        Self { slice: seconds.div_ceil(SLICES as u64).max(1) }
    }

    /// Cells of a ring of slots of `slot` cells.
    pub const fn cells(slot: usize) -> usize {
        SLICES * (1 + slot)
    }

    /// The number of the slice at `now`; 0 stands for never.
    fn number(self, now: Tick) -> u64 {
        now / self.slice + 1
    }

    /// The slot to write to at `now`. One that is left from a former round is given to `clear` first.
    #[inline]
    pub(super) fn current<'a>(
        self,
        version: &AtomicU64,
        ring: &'a [AtomicU64],
        now: Tick,
        clear: impl FnOnce(&[AtomicU64]),
    ) -> &'a [AtomicU64] {
        let number = self.number(now);
        let width = ring.len() / SLICES;
        let slice = &ring[(number % SLICES as u64) as usize * width..][..width];
        let (of, slot) = (&slice[0], &slice[1..]);
        if of.load(Relaxed) != number {
            change(version, || {
                clear(slot);
                of.store(number, Relaxed);
            });
        }
        slot
    }

    /// Whether the window at `now` looks at the slice of this number. A worker's clock may be ahead of the reader's.
    pub(super) fn is_live(self, number: u64, now: Tick) -> bool {
        number > 0 && number + SLICES as u64 > self.number(now)
    }

    /// All slots, each behind the number of its slice.
    pub(super) fn slices(ring: &[AtomicU64]) -> impl Iterator<Item = (&AtomicU64, &[AtomicU64])> {
        ring.chunks_exact(ring.len() / SLICES).map(|slice| (&slice[0], &slice[1..]))
    }
}

/// Gives back the run of a sketch that nobody writes to any more; `cells` are those of a run with such a head.
fn give_back(slot: &[AtomicU64], arena: &Arena, cells: impl FnOnce(Head) -> usize) {
    let head = Head::load(&slot[0]);
    if let Some(run) = head.run {
        arena.give_back(run, cells(head));
    }
}

/// The entries of a sketch: in its slot, or in the arena.
fn entries<'a>(slot: &'a [AtomicU64], head: Head, n: usize, arena: &'a mut ArenaWriter) -> &'a [AtomicU64] {
    match head.run {
        None => &slot[1..],
        Some(run) => arena.run(run, n),
    }
}

/// The same for a reader; nothing if that cannot be, as the sketch is just changing.
fn entries_read<'a>(slot: &'a [AtomicU64], head: Head, n: usize, arena: &'a ShardReader<'_>) -> &'a [AtomicU64] {
    match head.run {
        None => &slot[1..],
        Some(run) => arena.run(run, n).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_was_stored() {
        let cell = AtomicU64::new(0);
        assert_eq!(Head::load(&cell), Head::default());
        for head in [
            Head { run: Some(Cell::at(0)), len: 1, room: 2, form: 3 },
            Head { run: Some(Cell::at(u32::MAX - 1)), len: 4095, room: 4095, form: 255 },
            Head { run: None, len: 4, room: 0, form: 12 },
        ] {
            head.store(&cell);
            assert_eq!(Head::load(&cell), head);
        }
    }

    #[test]
    fn a_copy_is_never_half_of_one_shape() {
        let cells: Vec<AtomicU64> = (0..65).map(|_| AtomicU64::new(0)).collect();
        let (version, numbers) = (&cells[0], &cells[1..]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=20_000 {
                    change(version, || numbers.iter().for_each(|cell| cell.store(n, Relaxed)));
                }
            });
            let mut last = 0;
            while last < 20_000 {
                let copy = steady(version, || numbers.iter().map(|cell| cell.load(Relaxed)).collect::<Vec<_>>());
                assert!(copy.iter().all(|n| *n == copy[0]) && copy[0] >= last, "{copy:?}");
                last = copy[0];
            }
        });
    }

    #[test]
    fn a_ring_gives_a_slot_anew_once_its_time_is_over() {
        let ring = Ring::new(10);
        let cells: Vec<AtomicU64> = (0..1 + Ring::cells(1)).map(|_| AtomicU64::new(0)).collect();
        let (version, slots) = (&cells[0], &cells[1..]);
        let live = |now| Ring::slices(slots).filter(move |(number, _)| ring.is_live(number.load(Relaxed), now));
        for now in 0..20 {
            ring.current(version, slots, now, |slot| slot[0].store(0, Relaxed))[0].fetch_add(1, Relaxed);
            let seen: u64 = live(now).map(|(_, slot)| slot[0].load(Relaxed)).sum();
            // Four slices of two seconds, and one or two seconds of the fifth.
            assert_eq!(seen, (now + 1).min(9 + now % 2), "at {now}");
        }
        assert_eq!(live(25).count(), 2);
        assert_eq!(live(100).count(), 0);
        assert_eq!(live(0).count(), 5, "a reader's clock may be behind");
    }
}
