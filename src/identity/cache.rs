//! Remembers the answer for identities that come again.
//!
//! In: the words of an identity and their hash. Out: what was stored for them.
//! Always: entries, keys, table and what the values keep on the heap stay under the limit in bytes, the allocator's
//! share and room to grow included; an identity is stored at its second sight, so a stream of one-off values passes by
//! without pushing hot identities out.
//!
//! What gives way is the least recently used by the clock algorithm: a hand goes round, spares what was used since
//! it last came by, and takes the first that was not. A hit costs one flag, no list to relink.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::key::{SHORTEST_BYTES, same};
use crate::model::heap_bytes;

/// Rows of identities seen once lately, by part of their hash; one more sight in a full row forgets any of the others.
const DOOR_ROWS: usize = 2048;
/// Places in a row.
const ROW: usize = 4;
/// What the table spends on an entry at most: a `u32` and a control byte for each place, of which 7 in 16 are taken
/// when it has just doubled; the table before, half as large, is still there then.
const TABLE_BYTES: usize = (size_of::<u32>() + 1) * 24 / 7 + 1;
/// What a cache takes beside its limit.
pub const BESIDE_BYTES: usize = DOOR_ROWS * ROW * size_of::<u32>();
/// The end of the list of free places.
const NO_PLACE: u32 = u32::MAX;

/// What a [`Cache`] stores.
pub trait Stored {
    /// What it keeps on the heap and shares with nobody, [`heap_bytes`].
    fn heap_bytes(&self) -> usize;
}

/// Identities and what they stand for; owned by one worker.
#[derive(Debug)]
pub struct Cache<T> {
    table: HashTable<u32>,
    /// Has room for all that the limit can ever allow, since it must not double; memory is taken as it is used.
    entries: Vec<Entry<T>>,
    /// The first free place; each names the next in its `hash`.
    free: u32,
    hand: usize,
    bytes: usize,
    limit: usize,
    door: Box<[[u32; ROW]]>,
    /// Draws which place of a row is taken next. Were it always the oldest, identities that come round in turns, more
    /// of them in one row than it has places, would forget one another for ever.
    draw: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Entry<T> {
    hash: u64,
    key: Box<[u64]>,
    /// `None` in a free place.
    value: Option<T>,
    used: bool,
}

impl<T: Stored> Cache<T> {
    /// An empty cache that may grow to `limit` bytes, and 32 KiB beside them.
    pub fn new(limit: usize) -> Self {
        Self {
            table: HashTable::new(),
            entries: Vec::with_capacity(limit / (Self::PLACE_BYTES + heap_bytes(SHORTEST_BYTES))),
            free: NO_PLACE,
            hand: 0,
            bytes: 0,
            limit,
            door: vec![[0; ROW]; DOOR_ROWS].into_boxed_slice(),
            draw: 0,
            evictions: 0,
        }
    }

    /// What a place takes once it was used, with what the table spends on it. It is charged for good: its memory was
    /// touched, and long keys that come after short ones must not have the same again.
    const PLACE_BYTES: usize = size_of::<Entry<T>>() + TABLE_BYTES;

    /// What is stored for `key`.
    #[inline]
    pub fn get(&mut self, hash: u64, key: &[u64]) -> Option<&T> {
        let entries = &self.entries;
        let place = *self.table.find(hash, |place| same(&entries[*place as usize].key, key))?;
        let entry = &mut self.entries[place as usize];
        entry.used = true;
        entry.value.as_ref()
    }

    /// Where something is stored for an identity of this hash; nowhere, for most others.
    #[inline]
    pub fn place(&self, hash: u64) -> u32 {
        self.table.find(hash, |place| self.entries[*place as usize].hash == hash).copied().unwrap_or(NO_PLACE)
    }

    /// What is stored at `place` for some key, and a word of that: for who wants to have them near.
    #[inline]
    pub fn glance(&self, place: u32) -> Option<(u64, &T)> {
        let entry = self.entries.get(place as usize)?;
        Some((*entry.key.first()?, entry.value.as_ref()?))
    }

    /// What is stored for `key`, if that is at `place`.
    #[inline]
    pub fn get_at(&mut self, place: u32, key: &[u64]) -> Option<&T> {
        let entry = self.entries.get_mut(place as usize)?;
        if !same(&entry.key, key) {
            return None;
        }
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
    pub fn insert(&mut self, hash: u64, key: &[u64], value: T) {
        let cost = heap_bytes(size_of_val(key)) + value.heap_bytes();
        if self.entries.len().max(1) * Self::PLACE_BYTES + cost > self.limit {
            return;
        }
        // Ends at the latest when all are out: what is charged then is places, and they leave room as seen above.
        while self.bytes + cost + self.new_place_bytes() > self.limit {
            self.evict();
        }
        let entries = &self.entries;
        let found = self.table.entry(
            hash,
            |place| same(&entries[*place as usize].key, key),
            |place| entries[*place as usize].hash,
        );
        let slot = match found {
            Slot::Vacant(slot) => slot,
            Slot::Occupied(slot) => {
                let kept = |value: &Option<T>| value.as_ref().map_or(0, T::heap_bytes);
                let stored = &mut self.entries[*slot.get() as usize].value;
                let before = kept(stored);
                *stored = Some(value);
                self.bytes = self.bytes + kept(stored) - before;
                return;
            }
        };
        let entry = Entry { hash, key: key.into(), value: Some(value), used: false };
        self.bytes += cost + if self.free == NO_PLACE { Self::PLACE_BYTES } else { 0 };
        match self.entries.get_mut(self.free as usize) {
            Some(free) => {
                slot.insert(self.free);
                self.free = free.hash as u32;
                *free = entry;
            }
            None => {
                slot.insert(self.entries.len() as u32);
                self.entries.push(entry);
            }
        }
    }

    /// What a further entry takes for its place.
    fn new_place_bytes(&self) -> usize {
        if self.free == NO_PLACE { Self::PLACE_BYTES } else { 0 }
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
            self.bytes -= forget(&mut self.entries, &mut self.free, place);
            self.evictions += 1;
            return;
        }
    }

    /// Takes out all entries that `keep` says no to. Counts as no eviction.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let Self { table, entries, free, bytes, .. } = self;
        table.retain(|place| {
            let keeps = entries[*place as usize].value.as_ref().is_some_and(&keep);
            if !keeps {
                *bytes -= forget(entries, free, *place);
            }
            keeps
        });
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

/// Empties the entry at `place`, which the table names no more, and says what its key and value took.
fn forget<T: Stored>(entries: &mut [Entry<T>], free: &mut u32, place: u32) -> usize {
    let entry = &mut entries[place as usize];
    let taken = heap_bytes(size_of_val(&*entry.key)) + entry.value.take().map_or(0, |value| value.heap_bytes());
    entry.key = Box::default();
    entry.hash = (*free).into();
    *free = place;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if an odd number kept its own size on the heap.
    impl Stored for u64 {
        fn heap_bytes(&self) -> usize {
            if *self % 2 == 1 { 32 } else { 0 }
        }
    }

    /// What an entry takes with its place, a key of `key` bytes, and `kept` on the heap.
    fn cost(key: usize, kept: usize) -> usize {
        Cache::<u64>::PLACE_BYTES + heap_bytes(key) + kept
    }

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5bd1_e995_0000_0000
    }

    fn see(cache: &mut Cache<u64>, n: u64) -> bool {
        let key = [n, 0, 0, 0];
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
        for key in [97, 98] {
            cache.insert(5, &[key; 4], key);
        }
        assert_eq!((cache.get(5, &[97; 4]).copied(), cache.get(5, &[98; 4]).copied()), (Some(97), Some(98)));
        assert_eq!(cache.get(5, &[99; 4]), None);
    }

    #[test]
    fn one_off_values_do_not_push_hot_identities_out() {
        let mut cache = Cache::new(100 * cost(32, 32));
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
                let (hash, key) = (n << 33 | 7, [n; 4]);
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
        // Only even numbers, which keep nothing beside themselves.
        let see = |cache: &mut Cache<u64>, n: u64| see(cache, 2 * n);
        let mut cache = Cache::new(10 * cost(32, 0));
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
        cache.insert(1, &[0; 28], 1);
        assert!(cache.is_empty());
    }

    #[test]
    fn what_is_not_retained_makes_room() {
        let mut cache = Cache::new(1 << 20);
        (0..100).for_each(|n| cache.insert(hash(n), &[n; 4], n));
        let bytes = cache.bytes;
        cache.retain(|n| n % 2 == 0);
        assert_eq!((cache.len(), cache.bytes, cache.evictions()), (50, bytes - 50 * (heap_bytes(32) + 32), 0));
        for n in 0..100 {
            let found = cache.get(hash(n), &[n; 4]).copied();
            assert_eq!(found, (n % 2 == 0).then_some(n));
        }
        (100..150).for_each(|n| cache.insert(hash(n), &[n; 4], n));
        assert_eq!((cache.len(), cache.bytes, cache.entries.len()), (100, bytes - 25 * 32, 100));
    }

    #[test]
    fn what_a_value_keeps_on_the_heap_is_counted_when_it_comes_changes_and_goes() {
        let mut cache = Cache::new(1 << 20);
        let mut counted = |value: u64| {
            cache.insert(7, &[1, 2, 3, 4], value);
            cache.bytes
        };
        let (without, with) = (counted(2), counted(1));
        assert_eq!((with - without, counted(4)), (32, without));
        cache.retain(|_| false);
        assert_eq!(cache.bytes, Cache::<u64>::PLACE_BYTES, "the place stays");
    }

    #[test]
    fn the_list_of_entries_has_room_for_all_that_the_limit_allows() {
        let mut cache = Cache::new(100_000);
        let room = cache.entries.capacity();
        for n in 0..10_000_u64 {
            cache.insert(hash(n), &[n as u8 as u64; 4], 2);
            cache.insert(hash(n), &[n; 4], 2 * n);
            assert!(cache.table.allocation_size() <= TABLE_BYTES * 2 / 3 * cache.len().max(28));
        }
        assert_eq!((cache.entries.capacity(), cache.len() > room * 9 / 10), (room, true));
    }

    /// Found by a test of resident memory: places for short keys stayed beside as many bytes of long ones.
    #[test]
    fn long_keys_have_what_places_for_short_ones_left() {
        let mut cache = Cache::new(100_000);
        (0..5000_u64).for_each(|n| cache.insert(hash(n), &[n; 4], 2));
        let places = cache.entries.len() * Cache::<u64>::PLACE_BYTES;
        assert!(places > 50_000, "{places}");
        (0..500_u64).for_each(|n| cache.insert(hash(n), &[n; 128], 2));
        let keys: usize = cache.entries.iter().map(|entry| heap_bytes(size_of_val(&*entry.key))).sum();
        assert!(
            places + keys <= 100_000 && places + keys > 98_000 && cache.bytes == places + keys,
            "{places} and {keys}"
        );
        // What would not fit beside the places pushes nothing out.
        let (entries, evictions) = (cache.len(), cache.evictions());
        cache.insert(1, &[0; 7_500], 2);
        assert_eq!((cache.len(), cache.evictions()), (entries, evictions));
    }

    #[test]
    fn a_later_value_takes_the_place_of_an_earlier_one() {
        let mut cache = Cache::new(1 << 20);
        [1, 2].into_iter().for_each(|value| cache.insert(7, &[1, 2, 3, 4], value));
        assert_eq!((cache.get(7, &[1, 2, 3, 4]).copied(), cache.len()), (Some(2), 1));
    }
}
