//! Remembers the answer for identities that come again.
//!
//! In: identity bytes and their hash. Out: what was stored for them.
//! Always: entries, keys and table stay under the limit in bytes (what an entry's value keeps on the heap, as few do, and
//! the allocator's own share lie beside it); an identity is stored at its second sight, so a
//! stream of one-off values passes by without pushing hot identities out.
//!
//! What gives way is the least recently used by the clock algorithm: a hand goes round, spares what was used since
//! it last came by, and takes the first that was not. A hit costs one flag, no list to relink.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

/// Rows of identities seen once lately, by part of their hash; one more sight in a full row forgets any of the others.
const DOOR_ROWS: usize = 2048;
/// Places in a row.
const ROW: usize = 4;
/// What the table spends on an entry: its `u32`, a control byte, and room to grow.
const TABLE_BYTES: usize = 12;

/// Identities and what they stand for; owned by one worker.
#[derive(Debug)]
pub struct Cache<T> {
    table: HashTable<u32>,
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    limit: usize,
    door: Box<[[u32; ROW]]>,
    /// Draws which place of a row is taken next. Were it always the oldest, identities that come round in turns, more of
    /// them in one row than it has places, would forget one another for ever.
    draw: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Entry<T> {
    hash: u64,
    key: Box<[u8]>,
    /// `None` in a free place.
    value: Option<T>,
    used: bool,
}

impl<T> Cache<T> {
    /// An empty cache that may grow to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            table: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            limit,
            door: vec![[0; ROW]; DOOR_ROWS].into_boxed_slice(),
            draw: 0,
            evictions: 0,
        }
    }

    /// What is stored for `key`.
    #[inline]
    pub fn get(&mut self, hash: u64, key: &[u8]) -> Option<&T> {
        let entries = &self.entries;
        let place = *self.table.find(hash, |place| *entries[*place as usize].key == *key)?;
        let entry = &mut self.entries[place as usize];
        entry.used = true;
        entry.value.as_ref()
    }

    /// Notes a sight of the identity with this hash, and says whether it was seen lately.
    pub fn sighted(&mut self, hash: u64) -> bool {
        let row = &mut self.door[hash as usize % DOOR_ROWS];
        let print = (hash >> 32) as u32 | 1;
        if row.contains(&print) {
            return true;
        }
        // A linear congruential generator by Knuth; its high bits are the good ones.
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        row[(self.draw >> 32) as usize % ROW] = print;
        false
    }

    /// Stores `value` for `key`, in place of what is stored for it; the least recently used give way.
    pub fn insert(&mut self, hash: u64, key: &[u8], value: T) {
        let cost = size_of::<Entry<T>>() + key.len() + TABLE_BYTES;
        if cost > self.limit {
            return;
        }
        while self.bytes + cost > self.limit {
            self.evict();
        }
        let entries = &self.entries;
        let found = self.table.entry(
            hash,
            |place| *entries[*place as usize].key == *key,
            |place| entries[*place as usize].hash,
        );
        let slot = match found {
            Slot::Vacant(slot) => slot,
            Slot::Occupied(slot) => {
                self.entries[*slot.get() as usize].value = Some(value);
                return;
            }
        };
        let entry = Entry { hash, key: key.into(), value: Some(value), used: false };
        self.bytes += cost;
        match self.free.pop() {
            Some(place) => {
                slot.insert(place);
                self.entries[place as usize] = entry;
            }
            None => {
                slot.insert(self.entries.len() as u32);
                self.entries.push(entry);
            }
        }
    }

    /// Takes out the first entry that was not used since the hand last came by. Needs at least one entry.
    fn evict(&mut self) {
        loop {
            self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
            let place = self.hand as u32;
            let entry = &mut self.entries[self.hand];
            if entry.value.is_none() {
                continue;
            }
            if entry.used {
                entry.used = false;
                continue;
            }
            if let Ok(slot) = self.table.find_entry(entry.hash, |other| *other == place) {
                slot.remove();
            }
            self.forget(place);
            self.evictions += 1;
            return;
        }
    }

    /// Takes an entry out that the table does not name any more.
    fn forget(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        self.bytes -= size_of::<Entry<T>>() + entry.key.len() + TABLE_BYTES;
        entry.key = Box::default();
        entry.value = None;
        self.free.push(place);
    }

    /// Takes out all entries that `keep` says no to. Counts as no eviction.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let mut gone = Vec::new();
        let entries = &self.entries;
        self.table.retain(|place| {
            let keeps = entries[*place as usize].value.as_ref().is_some_and(&keep);
            if !keeps {
                gone.push(*place);
            }
            keeps
        });
        gone.into_iter().for_each(|place| self.forget(place));
    }

    /// Forgets everything, as a change of rules demands, and goes on under `limit`. Counts as no eviction.
    pub fn reset(&mut self, limit: usize) {
        let evictions = self.evictions;
        *self = Self::new(limit);
        self.evictions = evictions;
    }

    /// Entries stored now.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Entries that gave way to others since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5bd1_e995_0000_0000
    }

    fn see(cache: &mut Cache<u64>, n: u64) -> bool {
        let key = n.to_le_bytes();
        if cache.get(hash(n), &key).is_some_and(|value| *value == n) {
            return true;
        }
        if cache.sighted(hash(n)) {
            cache.insert(hash(n), &key, n);
        }
        false
    }

    #[test]
    fn an_identity_is_stored_at_its_second_sight() {
        let mut cache = Cache::new(1 << 20);
        assert_eq!([see(&mut cache, 7), see(&mut cache, 7), see(&mut cache, 7)], [false, false, true]);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn equal_hashes_of_unequal_keys_stay_apart() {
        let mut cache = Cache::new(1 << 20);
        for key in [b"a", b"b"] {
            cache.insert(5, key, key[0]);
        }
        assert_eq!((cache.get(5, b"a").copied(), cache.get(5, b"b").copied()), (Some(b'a'), Some(b'b')));
        assert_eq!(cache.get(5, b"c"), None);
    }

    #[test]
    fn one_off_values_do_not_push_hot_identities_out() {
        let mut cache = Cache::new(100 * (size_of::<Entry<u64>>() + 8 + TABLE_BYTES));
        for _ in 0..3 {
            (0..50).for_each(|n| {
                see(&mut cache, n);
            });
        }
        let mut hits = 0;
        for n in 0..100_000u64 {
            see(&mut cache, 1_000_000 + n);
            hits += u64::from(see(&mut cache, n % 50));
        }
        assert_eq!(hits, 100_000);
    }

    #[test]
    fn identities_that_take_turns_in_one_row_are_all_stored() {
        for identities in 1..=4 * ROW as u64 {
            let mut cache = Cache::new(1 << 20);
            // They differ in the upper half alone, so all of them share a row.
            let mut look = |n: u64| {
                let (hash, key) = (n << 33 | 7, n.to_le_bytes());
                let known = cache.get(hash, &key).is_some();
                if !known && cache.sighted(hash) {
                    cache.insert(hash, &key, n);
                }
                known
            };
            (0..200).for_each(|_| (0..identities).for_each(|n| _ = look(n)));
            assert_eq!((0..identities).filter(|n| look(*n)).count() as u64, identities, "of {identities}");
        }
    }

    #[test]
    fn the_limit_in_bytes_holds_and_the_unused_give_way_first() {
        let cost = size_of::<Entry<u64>>() + 8 + TABLE_BYTES;
        let mut cache = Cache::new(10 * cost);
        for n in 0..10 {
            see(&mut cache, n);
            see(&mut cache, n);
        }
        assert_eq!((cache.len(), cache.evictions()), (10, 0));
        (0..5).for_each(|n| assert!(see(&mut cache, n)));
        for n in 100..105 {
            see(&mut cache, n);
            see(&mut cache, n);
            (0..5).for_each(|n| assert!(see(&mut cache, n), "{n}"));
        }
        assert_eq!((cache.len(), cache.evictions()), (10, 5));
        assert!(cache.bytes <= cache.limit);
    }

    #[test]
    fn a_key_larger_than_the_cache_is_not_stored() {
        let mut cache = Cache::new(100);
        cache.insert(1, &[0; 200], 1);
        assert!(cache.is_empty());
    }

    #[test]
    fn what_is_not_retained_makes_room() {
        let mut cache = Cache::new(1 << 20);
        (0..100).for_each(|n| cache.insert(hash(n), &n.to_le_bytes(), n));
        let bytes = cache.bytes;
        cache.retain(|n| n % 2 == 0);
        assert_eq!((cache.len(), cache.bytes, cache.evictions()), (50, bytes / 2, 0));
        for n in 0..100 {
            let found = cache.get(hash(n), &n.to_le_bytes()).copied();
            assert_eq!(found, (n % 2 == 0).then_some(n));
        }
        (100..150).for_each(|n| cache.insert(hash(n), &n.to_le_bytes(), n));
        assert_eq!((cache.len(), cache.bytes, cache.entries.len()), (100, bytes, 100));
    }

    #[test]
    fn a_later_value_takes_the_place_of_an_earlier_one() {
        let mut cache = Cache::new(1 << 20);
        [1, 2].into_iter().for_each(|value| cache.insert(7, b"key", value));
        assert_eq!((cache.get(7, b"key").copied(), cache.len()), (Some(2), 1));
    }
}
