//! Members of a set, counted once each: by HyperLogLog, over a window.
//!
//! In: hashes of members. Out: registers, merged by maximum over shards and slices.
//! Not here: what registers say (`insight::distinct`), the window (`Ring`).
//! Always: a member that was taken is counted; one that finds no room in the arena is refused.
//!
//! While there are few, each takes half a cell: register and rank, in the order in which they came. From
//! `MOST_LISTED` on, or where it takes no more cells, there is a byte for each register.

use super::{Head, change, entries, entries_read};
use crate::aggregate::arena::{Arena, ArenaWriter};
use crate::aggregate::cells::ShardReader;
use crate::insight::distinct;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Members listed one by one: some thirty cells are looked through for each.
const MOST_LISTED: usize = 64;
/// Cells of the slot's own entries.
const OWN: usize = 2;
/// [`Head::form`] of registers.
const REGISTERS: u8 = 1;
/// Cells of a slot: the head, and its own entries.
pub const SLOT: usize = 1 + OWN;

/// How members are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// A power of two from 16 to 32,768: a run of them fits into a chunk.
    pub registers: usize,
}

impl Layout {
    /// Cells of all registers.
    fn dense(self) -> usize {
        self.registers / 8
    }

    /// Cells of the entries in the slot or the run of `head`.
    fn cells(self, head: Head) -> usize {
        match head {
            Head { run: None, .. } => OWN,
            Head { form: REGISTERS, .. } => self.dense(),
            Head { room, .. } => usize::from(room) / 2,
        }
    }

    /// Counts the member with this hash; `false` if there is no room to. Changes what it does under `version`.
    pub fn add(self, version: &AtomicU64, slot: &[AtomicU64], arena: &mut ArenaWriter, hash: u64) -> bool {
        let (register, rank) = distinct::place(hash, self.registers);
        loop {
            let head = Head::load(&slot[0]);
            let cells = entries(slot, head, self.cells(head), arena);
            if head.form == REGISTERS {
                raise(cells, register, rank);
                return true;
            }
            let len = usize::from(head.len);
            if let Some(place) = (0..len).find(|place| listed(cells, *place).0 == register) {
                if listed(cells, place).1 < rank {
                    list(cells, place, register, rank);
                }
                return true;
            }
            if len < 2 * cells.len() {
                list(cells, len, register, rank);
                change(version, || Head { len: head.len + 1, ..head }.store(&slot[0]));
                return true;
            }
            if !self.grow(version, slot, head, arena) {
                return false;
            }
        }
    }

    /// Moves the entries to where there is room for more; `false` if there is none.
    #[cold]
    fn grow(self, version: &AtomicU64, slot: &[AtomicU64], head: Head, arena: &mut ArenaWriter) -> bool {
        let (own, len) = (self.cells(head), usize::from(head.len));
        let cells = entries(slot, head, own, arena);
        let members: Vec<(usize, u8)> = (0..len).map(|place| listed(cells, place)).collect();
        let larger = 2 * own;
        let dense = len >= MOST_LISTED || larger >= self.dense();
        let n = if dense { self.dense() } else { larger };
        // Sixteen registers have room where the first four members were.
        let run = if dense && n <= OWN { None } else { Some(arena.take(n)) };
        let run = match run {
            Some(None) => return false,
            Some(run) => run,
            None => None,
        };
        change(version, || {
            let moved = match dense {
                true => Head { run, len: 0, room: 0, form: REGISTERS },
                false => Head { run, len: head.len, room: 2 * n as u16, form: 0 },
            };
            let cells = entries(slot, moved, n, arena);
            cells.iter().for_each(|cell| cell.store(0, Relaxed));
            for (place, (register, rank)) in members.into_iter().enumerate() {
                match dense {
                    true => raise(cells, register, rank),
                    false => list(cells, place, register, rank),
                }
            }
            moved.store(&slot[0]);
        });
        if let Some(run) = head.run {
            arena.give_back(run, own);
        }
        true
    }

    /// Empties a sketch, and gives back its run.
    pub fn clear(self, slot: &[AtomicU64], arena: &mut ArenaWriter) {
        let head = Head::load(&slot[0]);
        if let Some(run) = head.run {
            arena.give_back(run, self.cells(head));
        }
        slot.iter().for_each(|cell| cell.store(0, Relaxed));
    }

    /// Gives back what a sketch holds in the arena; nobody writes to it any more.
    pub fn give_back(self, slot: &[AtomicU64], arena: &Arena) {
        super::give_back(slot, arena, |head| self.cells(head));
    }

    /// Appends each member that is there as register and rank to `members`. To be called under the sketch's version.
    pub fn copy(self, slot: &[AtomicU64], arena: &ShardReader<'_>, members: &mut Vec<(usize, u8)>) {
        let head = Head::load(&slot[0]);
        let cells = entries_read(slot, head, self.cells(head), arena);
        match head.form {
            REGISTERS => {
                let ranks = cells.iter().flat_map(|cell| cell.load(Relaxed).to_le_bytes());
                members.extend(ranks.enumerate().filter(|(_, rank)| *rank > 0));
            }
            _ => members.extend((0..usize::from(head.len).min(2 * cells.len())).map(|place| listed(cells, place))),
        }
    }
}

/// A listed member.
fn listed(cells: &[AtomicU64], place: usize) -> (usize, u8) {
    let word = cells[place / 2].load(Relaxed) >> (place % 2 * 32);
    ((word >> 8 & 0xFF_FFFF) as usize, word as u8)
}

fn list(cells: &[AtomicU64], place: usize, register: usize, rank: u8) {
    let (cell, shift) = (&cells[place / 2], place % 2 * 32);
    let member = (register as u64) << 8 | u64::from(rank);
    cell.store(cell.load(Relaxed) & !(0xFFFF_FFFF << shift) | member << shift, Relaxed);
}

/// Raises a register to a rank.
fn raise(cells: &[AtomicU64], register: usize, rank: u8) {
    let (cell, shift) = (&cells[register / 8], register % 8 * 8);
    let word = cell.load(Relaxed);
    if ((word >> shift) as u8) < rank {
        cell.store(word & !(0xFF << shift) | u64::from(rank) << shift, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregate::arena::Budget;

    fn hash(n: u64) -> u64 {
        xxhash_rust::xxh64::xxh64(&n.to_le_bytes(), 0)
    }

    #[test]
    fn members_are_the_registers_they_would_be_from_the_start() {
        for registers in [16, 64, 1024, 32_768] {
            let layout = Layout { registers };
            let arena = Arc::new(Arena::new(Arc::default()));
            let mut writer = ArenaWriter::new(arena.clone());
            let slot: Vec<AtomicU64> = (0..SLOT).map(|_| AtomicU64::new(0)).collect();
            let version = AtomicU64::new(0);
            let mut expected = vec![0; registers];
            for n in 0..3000_u64 {
                assert!(layout.add(&version, &slot, &mut writer, hash(n / 2)));
                let (register, rank) = distinct::place(hash(n / 2), registers);
                expected[register] = rank.max(expected[register]);
                if n.is_power_of_two() || n == 2999 {
                    let (mut found, mut members) = (vec![0; registers], Vec::new());
                    layout.copy(&slot, &arena.read(), &mut members);
                    members.iter().for_each(|(register, rank)| found[*register] = *rank);
                    assert_eq!(found, expected, "{registers} registers, {n}");
                    assert_eq!(members.len(), expected.iter().filter(|rank| **rank > 0).count());
                }
            }
            assert_eq!(arena.runs(), usize::from(registers > 16));
            layout.clear(&slot, &mut writer);
            let mut members = Vec::new();
            layout.copy(&slot, &arena.read(), &mut members);
            assert_eq!((members.len(), arena.runs()), (0, 0));
        }
    }

    #[test]
    fn members_without_room_are_refused_and_those_that_are_there_are_not() {
        let budget = Arc::new(Budget::default());
        budget.limit(0);
        let mut writer = ArenaWriter::new(Arc::new(Arena::new(budget)));
        let slot: Vec<AtomicU64> = (0..SLOT).map(|_| AtomicU64::new(0)).collect();
        let (layout, version) = (Layout { registers: 1024 }, AtomicU64::new(0));
        let taken: Vec<bool> = (0..6).map(|n| layout.add(&version, &slot, &mut writer, hash(n))).collect();
        assert_eq!(taken, [true, true, true, true, false, false]);
        assert!(layout.add(&version, &slot, &mut writer, hash(0)));
    }
}
