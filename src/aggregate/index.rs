//! A hash table that grows a part at a time, so that nobody ever waits for all of it to be made anew.
//!
//! In: entries, each with a hash that can be told from it again. Out: the entry of a hash.
//! Always: an insertion or a removal moves the entries of one part, two at most, however many parts there are; what a
//! table says that it holds is what it holds, room to grow included; what is far too large for its entries is made
//! smaller.
//!
//! Follows: linear hashing (W. Litwin, 1980): parts are split in turn, whichever is full, so that their number alone
//! tells where an entry is.

use hashbrown::HashTable;

use crate::model::heap_bytes;

/// Entries of a part on average when one more is made. A part has between half of that and twice as many; as hashes
/// scatter, that and three times the root of it still fit into 1,024 places, of which seven in eight may be taken.
const SHARE: usize = 400;
/// A part of no more entries is never made smaller.
const FEW: usize = 4;

/// The table. It has no part before its first entry.
#[derive(Debug)]
pub(super) struct Index<T> {
    parts: Vec<HashTable<T>>,
    len: usize,
    /// What the parts hold, bytes.
    held: usize,
    /// What the largest part ever took, bytes.
    largest: usize,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), len: 0, held: 0, largest: 0 }
    }
}

impl<T> Index<T> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of this hash that is the one.
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts.get(self.part(hash))?.find(hash, is_it)
    }

    /// The same, to be changed; its hash must stay what it is.
    pub(super) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let part = self.part(hash);
        self.parts.get_mut(part)?.find_mut(hash, is_it)
    }

    /// Puts in an entry that is not there. `hash_of` tells the hash of any that is.
    pub(super) fn insert(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        if self.len >= SHARE * self.parts.len() {
            self.split(&hash_of);
        }
        let number = self.part(hash);
        self.change(number, |part| _ = part.insert_unique(hash, entry, hash_of));
        self.len += 1;
    }

    /// Takes out the entry of this hash that is the one. `hash_of` tells the hash of any other.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let number = self.part(hash);
        let (entry, _) = self.parts.get_mut(number)?.find_entry(hash, is_it).ok()?.remove();
        self.len -= 1;
        self.change(number, |part| tidy(part, &hash_of));
        if self.parts.len() > 1 && self.len < SHARE * self.parts.len() / 4 {
            self.join(&hash_of);
        }
        Some(entry)
    }

    /// What the table holds, bytes.
    pub(super) fn bytes(&self) -> usize {
        heap_bytes(self.parts.capacity() * size_of::<HashTable<T>>()) + self.held
    }

    /// Most bytes of new parts that `more` further entries may need; what they replace stands beside them for as long.
    ///
    /// Exact while there is one part. Of several, which of them grow is not looked at: each entry may be one too many
    /// for the largest.
    pub(super) fn room(&self, more: usize) -> usize {
        let splits = (self.len + more).div_ceil(SHARE).saturating_sub(self.parts.len());
        match self.parts.first() {
            None if more == 0 => 0,
            None => list_bytes::<T>(0) + splits * table_bytes::<T>(more, 0),
            Some(only) if self.parts.len() == 1 && splits == 0 => growth(only, more),
            Some(_) => {
                // A part that is split becomes two, neither of which is larger.
                let list = if splits > 0 { list_bytes::<T>(self.parts.len()) } else { 0 };
                list + (splits + more) * heap_bytes(2 * self.largest + 32)
            }
        }
    }

    /// The part that an entry of this hash is in.
    ///
    /// By other bits than those that say where in its part.
    fn part(&self, hash: u64) -> usize {
        let wide = self.parts.len().next_power_of_two();
        let number = (hash >> 32) as usize & (wide - 1);
        // Where there are not twice as many parts yet, it is in the one that is still to be split.
        if number < self.parts.len() { number } else { number & ((wide - 1) / 2) }
    }

    /// The part that is split next: the one that the next number would be a half of.
    fn next_to_split(&self) -> usize {
        let number = self.parts.len();
        number - (number + 1).next_power_of_two() / 2
    }

    /// Makes one part more, out of half the entries of another.
    #[cold]
    fn split(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let (from, number) = (self.next_to_split(), self.parts.len());
        if number == self.parts.capacity() {
            self.parts.reserve_exact((number / 4).max(1));
        }
        self.parts.push(HashTable::new());
        if number == 0 {
            return;
        }
        let whole = std::mem::take(&mut self.parts[from]);
        let moves = whole.iter().filter(|entry| self.part(hash_of(entry)) == number).count();
        let mut halves = [HashTable::with_capacity(whole.len() - moves), HashTable::with_capacity(moves)];
        self.held -= heap_bytes(whole.allocation_size());
        for entry in whole {
            let hash = hash_of(&entry);
            halves[usize::from(self.part(hash) == number)].insert_unique(hash, entry, hash_of);
        }
        for (half, number) in halves.into_iter().zip([from, number]) {
            self.held += heap_bytes(half.allocation_size());
            self.parts[number] = half;
        }
    }

    /// Puts the entries of the last part where they were before it was made.
    #[cold]
    fn join(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let Some(last) = self.parts.pop() else { return };
        self.held -= heap_bytes(last.allocation_size());
        let into = self.next_to_split();
        self.change(into, |part| {
            part.reserve(last.len(), hash_of);
            for entry in last {
                part.insert_unique(hash_of(&entry), entry, hash_of);
            }
        });
        if self.parts.len().max(FEW) * 4 < self.parts.capacity() {
            self.parts.shrink_to(2 * self.parts.len());
        }
    }

    /// Counts anew what a part holds that is changed.
    fn change(&mut self, number: usize, change: impl FnOnce(&mut HashTable<T>)) {
        let part = &mut self.parts[number];
        let before = heap_bytes(part.allocation_size());
        change(part);
        self.held = self.held + heap_bytes(part.allocation_size()) - before;
        self.largest = self.largest.max(part.allocation_size());
    }
}

/// As much of a hash as an entry keeps that has no room for all of it.
pub(super) const fn half(hash: u64) -> u32 {
    hash as u32
}

/// A hash of 64 bits out of half of one, each of its bits as good as another.
pub(super) const fn spread(half: u32) -> u64 {
    // An odd number without a pattern: 2^64 divided by the golden ratio.
    (half as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Bytes of the new table that a part needs for `more` further entries; 0 if there is room.
fn growth<T>(part: &HashTable<T>, more: usize) -> usize {
    if part.len() + more <= part.capacity() { 0 } else { table_bytes::<T>(part.len() + more, part.allocation_size()) }
}

/// Bytes of a table of so many entries that takes the place of another.
fn table_bytes<T>(entries: usize, before: usize) -> usize {
    // Seven of eight places may be taken, and their number is a power of two; to each belongs a byte, and 16 follow.
    let places = (entries * 8).div_ceil(7).next_power_of_two();
    heap_bytes((places * (size_of::<T>() + 1) + 32).max(2 * before))
}

/// Bytes of the list of parts once there is one more than so many.
fn list_bytes<T>(parts: usize) -> usize {
    heap_bytes((parts + (parts / 4).max(1)) * size_of::<HashTable<T>>())
}

/// Makes a part smaller that is less than an eighth full.
fn tidy<T>(part: &mut HashTable<T>, hash_of: impl Fn(&T) -> u64) {
    if part.allocation_size() > (size_of::<T>() + 1) * part.len().max(FEW) * 8 {
        part.shrink_to(2 * part.len(), hash_of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(entry: &u32) -> u64 {
        // Scattered, as hashes are.
        spread(spread(*entry) as u32 ^ (spread(*entry) >> 32) as u32)
    }

    fn held(index: &Index<u32>) -> usize {
        index.parts.iter().map(|part| heap_bytes(part.allocation_size())).sum()
    }

    /// Against a plain set, while entries come and go: everything is found, and what is held is what is told.
    #[test]
    fn entries_that_come_and_go_are_found_however_many_there_are() {
        let mut index = Index::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut there = std::collections::BTreeSet::new();
        for (most, least) in [(20_000, 10), (5000, 1), (50_000, 0)] {
            while there.len() < most {
                let entry = random.u32(..100_000);
                let found = index.find(hash_of(&entry), |other| *other == entry).copied();
                assert_eq!(found, there.get(&entry).copied());
                if there.insert(entry) {
                    let room = index.bytes() + index.room(1);
                    index.insert(hash_of(&entry), entry, hash_of);
                    assert!(index.bytes() <= room, "{} bytes of {room}, with {}", index.bytes(), index.len());
                }
            }
            assert!(index.parts.len() >= most / SHARE);
            assert!(index.parts.iter().all(|part| part.len() <= 3 * SHARE), "no part takes long to be moved");
            while there.len() > least {
                let entry = random.u32(..100_000);
                let removed = index.remove(hash_of(&entry), |other| *other == entry, hash_of);
                assert_eq!(removed.is_some(), there.remove(&entry));
            }
            assert_eq!((index.len(), held(&index)), (there.len(), index.held));
            assert!(there.iter().all(|entry| index.find(hash_of(entry), |other| other == entry).is_some()));
            assert!(index.parts.len() == 1 && index.bytes() < 700, "{} bytes for {}", index.bytes(), there.len());
        }
    }

    #[test]
    fn what_several_entries_need_is_foretold() {
        let mut index = Index::default();
        let mut next = 0..;
        for more in [1, 3, 40, 399, 2, 7].into_iter().cycle().take(400) {
            let new: Vec<u32> = next.by_ref().take(more).collect();
            let room = index.bytes() + index.room(more);
            new.iter().for_each(|entry| index.insert(hash_of(entry), *entry, hash_of));
            assert!(index.bytes() <= room, "{} bytes of {room}, with {}", index.bytes(), index.len());
        }
    }
}
