//! Observations by buckets of a growing width: what native histograms and summaries are made of.
//!
//! In: values and their weights. Out: the buckets that have any, merged over shards and slices.
//! Always: no weight is lost; there are never more buckets than [`Layout`] says, as all become twice as wide before
//! there would be (only at their widest may there be up to [`WIDEST`]); where the arena has no room left they become
//! wider earlier, and at their widest a value goes to the nearest.
//!
//! Entries are sorted by key: first the keys, two in a cell, then the weights, then what [`Layout::exact`] adds.

use super::grid::{self, MOST_HALVINGS, Scale};
use super::{Head, change, entries, entries_read};
use crate::aggregate::arena::{Arena, ArenaWriter};
use crate::aggregate::cells::ShardReader;
use crate::sync::{AtomicU64, Ordering::Relaxed, Ordering::Release};

/// Buckets at their widest of all values there are, the negative ones and 0 among them, with room to spare.
pub const WIDEST: u16 = 152;
/// The most buckets that a layout may allow: with exact values a run of them still fits into a chunk.
pub const MOST: u16 = 1600;

/// What the buckets of a sketch are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// The finest of them.
    pub scale: Scale,
    /// How often they are halved from the start.
    pub halvings: u8,
    /// How many there may be; at most [`MOST`].
    pub most: u16,
    /// Whether a bucket whose values are all the same remembers which.
    pub exact: bool,
    /// Those that the slot has room for; even.
    pub own: u16,
}

/// A bucket and what is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Which; see [`grid`].
    pub key: i32,
    /// The weight of its values.
    pub weight: f64,
    /// Their value, if it is always the same; NaN if not, or if that is not kept.
    pub sole: f64,
}

impl Layout {
    /// Cells of a slot: the head, and its own entries.
    pub const fn slot(&self) -> usize {
        1 + self.cells(self.own)
    }

    /// Cells of `room` entries.
    const fn cells(&self, room: u16) -> usize {
        let room = room as usize;
        room / 2 + room + if self.exact { room } else { 0 }
    }

    /// Room of the entries in the slot or the run of `head`.
    #[inline]
    fn room(&self, head: Head) -> u16 {
        if head.run.is_none() { self.own } else { head.room }
    }

    fn key(&self, value: f64, head: Head) -> i32 {
        self.scale.key(value, self.halvings + head.form)
    }

    #[inline]
    fn table<'a>(&self, slot: &'a [AtomicU64], head: Head, arena: &'a mut ArenaWriter) -> Table<'a> {
        let room = self.room(head);
        Table { cells: entries(slot, head, self.cells(room), arena), room: room.into(), exact: self.exact }
    }

    /// Adds a value of some weight to the sketch in `slot`.
    #[inline]
    pub fn add(&self, version: &AtomicU64, slot: &[AtomicU64], arena: &mut ArenaWriter, value: f64, weight: f64) {
        let head = Head::load(&slot[0]);
        let table = self.table(slot, head, arena);
        match table.find(head.len.into(), self.key(value, head)) {
            Ok(place) => table.add(place, weight, value),
            Err(_) => self.add_bucket(version, slot, arena, value, weight),
        }
    }

    /// The same for a value whose bucket is not there yet.
    #[cold]
    fn add_bucket(&self, version: &AtomicU64, slot: &[AtomicU64], arena: &mut ArenaWriter, value: f64, weight: f64) {
        loop {
            let mut head = Head::load(&slot[0]);
            let may_halve = self.halvings + head.form < MOST_HALVINGS;
            let key = self.key(value, head);
            let table = self.table(slot, head, arena);
            let len = usize::from(head.len);
            let place = match table.find(len, key) {
                Ok(place) => return table.add(place, weight, value),
                Err(place) => place,
            };
            if head.len >= self.most && may_halve {
                change(version, || {
                    head.len = table.halve(len) as u16;
                    head.form += 1;
                    head.store(&slot[0]);
                });
            } else if head.len < self.room(head) {
                return change(version, || {
                    table.insert(len, place, Bin { key, weight, sole: value });
                    head.len += 1;
                    head.store(&slot[0]);
                });
            } else if self.grow(version, slot, head, arena) {
                // Now there is room.
            } else if may_halve {
                let table = self.table(slot, head, arena);
                change(version, || {
                    head.len = table.halve(len) as u16;
                    head.form += 1;
                    head.store(&slot[0]);
                });
            } else {
                // The bucket before, or else the one behind, is the nearest that there is.
                return self.table(slot, head, arena).add(place.min(len - 1), weight, value);
            }
        }
    }

    /// Moves the entries to where there is room for twice as many; `false` if there is none.
    fn grow(&self, version: &AtomicU64, slot: &[AtomicU64], head: Head, arena: &mut ArenaWriter) -> bool {
        let most = self.most.max(WIDEST).next_multiple_of(2);
        let room = (self.room(head).saturating_mul(2)).max(8).min(most);
        if room <= self.room(head) {
            return false;
        }
        let Some(run) = arena.take(self.cells(room)) else { return false };
        let table = self.table(slot, head, arena);
        let bins: Vec<Bin> = (0..head.len.into()).map(|place| table.get(place)).collect();
        change(version, || {
            let larger = Head { run: Some(run), room, ..head };
            let table = self.table(slot, larger, arena);
            bins.iter().enumerate().for_each(|(place, bin)| table.set(place, *bin));
            larger.store(&slot[0]);
        });
        // Only now, as whoever gets the run next writes to it.
        if let Some(run) = head.run {
            arena.give_back(run, self.cells(head.room));
        }
        true
    }

    /// Empties a sketch; a run that is much too large for what was in it goes.
    pub fn clear(&self, slot: &[AtomicU64], arena: &mut ArenaWriter) {
        let head = Head::load(&slot[0]);
        match head.run {
            Some(run) if head.len < head.room / 4 => {
                arena.give_back(run, self.cells(head.room));
                Head::default().store(&slot[0]);
            }
            _ => Head { len: 0, form: 0, ..head }.store(&slot[0]),
        }
    }

    /// Gives back what a sketch holds in the arena; nobody writes to it any more.
    pub fn give_back(&self, slot: &[AtomicU64], arena: &Arena) {
        super::give_back(slot, arena, |head| self.cells(head.room));
    }

    /// Copies a sketch into `bins`, and tells how often it was halved. To be called under its version.
    pub fn copy(&self, slot: &[AtomicU64], arena: &ShardReader<'_>, bins: &mut Vec<Bin>) -> u8 {
        let head = Head::load(&slot[0]);
        let room = self.room(head);
        let cells = entries_read(slot, head, self.cells(room), arena);
        // Of two shapes at once it may be anything, but is not kept then.
        let len = if cells.is_empty() { 0 } else { head.len.min(room) };
        let table = Table { cells, room: room.into(), exact: self.exact };
        bins.extend((0..len.into()).map(|place| table.get(place)));
        head.form
    }
}

/// Entries in their cells.
struct Table<'a> {
    cells: &'a [AtomicU64],
    room: usize,
    exact: bool,
}

impl Table<'_> {
    #[inline]
    fn key(&self, place: usize) -> i32 {
        let pair = self.cells[place / 2].load(Relaxed);
        (if place.is_multiple_of(2) { pair } else { pair >> 32 }) as i32
    }

    fn set_key(&self, place: usize, key: i32) {
        let (pair, key) = (&self.cells[place / 2], u64::from(key as u32));
        let other = pair.load(Relaxed);
        let both = if place.is_multiple_of(2) { other & !0xFFFF_FFFF | key } else { other & 0xFFFF_FFFF | key << 32 };
        pair.store(both, Relaxed);
    }

    #[inline]
    fn weight(&self, place: usize) -> &AtomicU64 {
        &self.cells[self.room / 2 + place]
    }

    #[inline]
    fn sole(&self, place: usize) -> &AtomicU64 {
        &self.cells[self.room / 2 + self.room + place]
    }

    fn get(&self, place: usize) -> Bin {
        Bin {
            key: self.key(place),
            weight: f64::from_bits(self.weight(place).load(Relaxed)),
            sole: if self.exact { f64::from_bits(self.sole(place).load(Relaxed)) } else { f64::NAN },
        }
    }

    fn set(&self, place: usize, bin: Bin) {
        self.set_key(place, bin.key);
        self.weight(place).store(bin.weight.to_bits(), Relaxed);
        if self.exact {
            self.sole(place).store(bin.sole.to_bits(), Relaxed);
        }
    }

    /// Where the key is among the first `len`, or else where it belongs.
    #[inline]
    fn find(&self, len: usize, key: i32) -> Result<usize, usize> {
        let (mut start, mut end) = (0, len);
        while start < end {
            let middle = (start + end) / 2;
            match self.key(middle).cmp(&key) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Greater => end = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(start)
    }

    #[inline]
    fn add(&self, place: usize, weight: f64, value: f64) {
        if self.exact {
            let sole = self.sole(place);
            if sole.load(Relaxed) != value.to_bits() {
                sole.store(f64::NAN.to_bits(), Relaxed);
            }
        }
        let cell = self.weight(place);
        // Release: whoever sees this weight sees what was counted before it.
        cell.store((f64::from_bits(cell.load(Relaxed)) + weight).to_bits(), Release);
    }

    fn insert(&self, len: usize, place: usize, bin: Bin) {
        (place..len).rev().for_each(|from| self.set(from + 1, self.get(from)));
        self.set(place, bin);
    }

    /// Makes the first `len` buckets twice as wide, and tells how many are left.
    fn halve(&self, len: usize) -> usize {
        let mut kept = 0;
        for place in 0..len {
            let bin = self.get(place);
            let bin = Bin { key: grid::halved(bin.key), ..bin };
            match kept {
                1.. if self.key(kept - 1) == bin.key => self.set(kept - 1, joined(self.get(kept - 1), bin)),
                _ => {
                    self.set(kept, bin);
                    kept += 1;
                }
            }
        }
        kept
    }
}

/// Two bins of one key as one.
fn joined(a: Bin, b: Bin) -> Bin {
    let sole = if a.sole.to_bits() == b.sole.to_bits() { a.sole } else { f64::NAN };
    Bin { key: a.key, weight: a.weight + b.weight, sole }
}

/// Sketches of one layout, put together.
#[derive(Debug, Default)]
pub struct Merged {
    /// Sorted by key, each of them once.
    bins: Vec<Bin>,
    /// How often they were halved, beyond what the layout says.
    halved: u8,
    merged: Vec<Bin>,
    next: Vec<Bin>,
}

impl Merged {
    /// Forgets everything, but for the memory.
    pub fn clear(&mut self) {
        self.bins.clear();
        self.halved = 0;
    }

    /// Adds what `copy` appends and tells the halvings of.
    pub fn add(&mut self, layout: &Layout, copy: impl FnOnce(&mut Vec<Bin>) -> u8) {
        let mut next = std::mem::take(&mut self.next);
        next.clear();
        let mut halved = copy(&mut next);
        while halved < self.halved {
            halve(&mut next);
            halved += 1;
        }
        while self.halved < halved {
            halve(&mut self.bins);
            self.halved += 1;
        }
        self.merged.clear();
        let (mut ours, mut theirs) = (self.bins.iter().peekable(), next.iter().peekable());
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            self.merged.push(match a.key.cmp(&b.key) {
                std::cmp::Ordering::Less => *ours.next().expect("peeked"),
                std::cmp::Ordering::Greater => *theirs.next().expect("peeked"),
                std::cmp::Ordering::Equal => joined(*ours.next().expect("peeked"), *theirs.next().expect("peeked")),
            });
        }
        self.merged.extend(ours.chain(theirs));
        std::mem::swap(&mut self.bins, &mut self.merged);
        self.next = next;
        while self.bins.len() > layout.most.into() && layout.halvings + self.halved < MOST_HALVINGS {
            halve(&mut self.bins);
            self.halved += 1;
        }
    }

    /// The buckets that have anything, by key.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// How often the finest buckets there are were halved.
    pub fn halvings(&self, layout: &Layout) -> u8 {
        layout.halvings + self.halved
    }

    /// All weights.
    pub fn weight(&self) -> f64 {
        self.bins.iter().map(|bin| bin.weight).sum()
    }

    /// The value that the share `quantile` of all weight is not above; NaN if there is none.
    pub fn quantile(&self, layout: &Layout, quantile: f64) -> f64 {
        let rank = quantile * self.weight();
        let mut below = 0.0;
        let bin = self.bins.iter().find(|bin| {
            below += bin.weight;
            // A sum of weights may miss the whole by a few of its last bits.
            below >= rank * (1.0 - 1e-12)
        });
        match bin.or(self.bins.last()) {
            None => f64::NAN,
            Some(bin) if bin.sole.is_nan() => layout.scale.middle(bin.key, self.halvings(layout)),
            Some(bin) => bin.sole,
        }
    }
}

fn halve(bins: &mut Vec<Bin>) {
    bins.iter_mut().for_each(|bin| bin.key = grid::halved(bin.key));
    bins.dedup_by(|later, earlier| {
        let same = later.key == earlier.key;
        if same {
            *earlier = joined(*earlier, *later);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::steady;
    use super::*;
    use crate::aggregate::arena::Budget;

    const NATIVE: Layout = Layout { scale: Scale::Native, halvings: 5, most: 160, exact: false, own: 4 };
    const SUMMARY: Layout = Layout { scale: Scale::Percent, halvings: 0, most: 1600, exact: true, own: 2 };

    /// One sketch in cells of its own.
    struct Bench {
        layout: Layout,
        version: AtomicU64,
        slot: Vec<AtomicU64>,
        arena: Arc<Arena>,
        writer: ArenaWriter,
        budget: Arc<Budget>,
    }

    impl Bench {
        fn new(layout: Layout) -> Self {
            let budget = Arc::new(Budget::default());
            let arena = Arc::new(Arena::new(budget.clone()));
            let slot = (0..layout.slot()).map(|_| AtomicU64::new(0)).collect();
            let writer = ArenaWriter::new(arena.clone());
            Self { layout, version: AtomicU64::new(0), slot, arena, writer, budget }
        }

        fn add(&mut self, value: f64, weight: f64) {
            self.layout.add(&self.version, &self.slot, &mut self.writer, value, weight);
        }

        fn read(&self) -> Merged {
            let mut merged = Merged::default();
            merged.add(&self.layout, |bins| self.layout.copy(&self.slot, &self.arena.read(), bins));
            merged
        }
    }

    #[test]
    fn every_value_is_in_its_bucket_in_any_order() {
        let mut random = fastrand::Rng::with_seed(3);
        for layout in [NATIVE, SUMMARY, Layout { most: 20, ..NATIVE }] {
            let mut bench = Bench::new(layout);
            let mut values = vec![0.0, -0.0, 1e-300];
            for _ in 0..2000 {
                values.push((random.f64() * 12.0 - 6.0).exp2() * [1.0, -1.0][random.usize(..2)]);
            }
            values.iter().for_each(|value| bench.add(*value, 0.5));
            let merged = bench.read();
            let halvings = merged.halvings(&layout);
            let mut expected = std::collections::BTreeMap::new();
            values.iter().for_each(|value| *expected.entry(layout.scale.key(*value, halvings)).or_insert(0.0) += 0.5);
            let found: Vec<(i32, f64)> = merged.bins().iter().map(|bin| (bin.key, bin.weight)).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            assert_eq!(merged.weight(), 0.5 * 2003.0);
            assert!(merged.bins().len() <= layout.most.into());
            assert_eq!(bench.arena.runs(), 1, "smaller runs were given back");
            layout.give_back(&bench.slot, &bench.arena);
            assert_eq!(bench.arena.runs(), 0);
        }
    }

    #[test]
    fn buckets_become_wider_when_there_would_be_too_many_and_no_sooner() {
        let mut bench = Bench::new(NATIVE);
        (0..160).for_each(|n| bench.add(((f64::from(n) - 0.5) / 8.0).exp2(), 1.0));
        assert_eq!((bench.read().bins().len(), bench.read().halvings(&NATIVE)), (160, 5));
        bench.add(1e9, 1.0);
        let merged = bench.read();
        assert_eq!((merged.halvings(&NATIVE), merged.weight()), (6, 161.0));
        // Of the pairs (1,2], (3,4] and so on each is one, the first and the last bucket have no other, and the new
        // one.
        assert_eq!(merged.bins().len(), 82);
    }

    #[test]
    fn values_of_all_sizes_at_the_widest_are_all_counted() {
        let layout = Layout { most: 10, ..NATIVE };
        let mut bench = Bench::new(layout);
        for n in -140..1020 {
            bench.add(f64::from(n).exp2(), 1.0);
            bench.add(-f64::from(n).exp2(), 1.0);
        }
        let merged = bench.read();
        assert_eq!((merged.halvings(&layout), merged.weight()), (MOST_HALVINGS, 2.0 * 1160.0));
        assert!(merged.bins().len() <= WIDEST.into(), "{}", merged.bins().len());
    }

    #[test]
    fn without_room_in_the_arena_buckets_become_wider_and_no_weight_is_lost() {
        for exact in [false, true] {
            let layout = Layout { exact, ..NATIVE };
            let mut bench = Bench::new(layout);
            bench.budget.limit(0);
            for n in -30..30 {
                bench.add(f64::from(n * 30).exp2(), 1.0);
                bench.add(-f64::from(n * 30).exp2(), 1.0);
            }
            let merged = bench.read();
            assert_eq!((merged.weight(), merged.halvings(&layout), bench.arena.runs()), (120.0, MOST_HALVINGS, 0));
            assert_eq!(merged.bins().len(), 4);
        }
    }

    #[test]
    fn what_was_cleared_begins_anew_and_gives_back_what_is_too_large() {
        let mut bench = Bench::new(SUMMARY);
        (1..=200).for_each(|n| bench.add(f64::from(n), 1.0));
        bench.layout.clear(&bench.slot, &mut bench.writer);
        assert_eq!((bench.read().bins().len(), bench.arena.runs()), (0, 1));
        bench.add(1.0, 1.0);
        bench.layout.clear(&bench.slot, &mut bench.writer);
        assert_eq!((bench.read().bins().len(), bench.arena.runs()), (0, 0));
        bench.add(5.0, 2.0);
        assert_eq!(bench.read().bins(), [Bin { key: Scale::Percent.key(5.0, 0), weight: 2.0, sole: 5.0 }]);
    }

    #[test]
    fn quantiles_are_within_a_percent_and_exact_where_one_value_has_a_bucket() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut bench = Bench::new(SUMMARY);
        let mut all = Vec::new();
        for _ in 0..20_000 {
            let (value, weight) = ((random.f64() * 10.0 - 8.0).exp(), f64::from(random.u32(1..5)));
            bench.add(value, weight);
            all.push((value, weight));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        for quantile in [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let mut below = 0.0;
            let exact = all.iter().find(|(_, weight)| {
                below += weight;
                below >= quantile * total
            });
            let (exact, found) = (exact.expect("one").0, bench.read().quantile(&SUMMARY, quantile));
            assert!((found / exact - 1.0).abs() < 0.01, "{quantile}: {found} for {exact}");
        }

        let mut few = Bench::new(SUMMARY);
        [0.25, 0.25, 7.0, -3.0, 0.0].iter().for_each(|value| few.add(*value, 1.0));
        let quantiles = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0].map(|quantile| few.read().quantile(&SUMMARY, quantile));
        assert_eq!(quantiles, [-3.0, -3.0, 0.0, 0.25, 0.25, 7.0]);
        assert!(Merged::default().quantile(&SUMMARY, 0.5).is_nan());
    }

    #[test]
    fn what_is_merged_is_as_if_it_had_been_one() {
        let mut random = fastrand::Rng::with_seed(5);
        for layout in [NATIVE, SUMMARY, Layout { most: 30, ..NATIVE }] {
            let mut parts = [Bench::new(layout), Bench::new(layout), Bench::new(layout)];
            let mut whole = Bench::new(layout);
            for n in 0..3000 {
                let value = (random.f64() * f64::from(n % 3 + 1) * 9.0).exp2();
                parts[n as usize % 3].add(value, 1.0);
                whole.add(value, 1.0);
            }
            let mut merged = Merged::default();
            for part in &parts {
                merged.add(&layout, |bins| layout.copy(&part.slot, &part.arena.read(), bins));
            }
            let whole = whole.read();
            assert_eq!(merged.halvings(&layout), whole.halvings(&layout));
            assert_eq!(format!("{:?}", merged.bins()), format!("{:?}", whole.bins()));
        }
    }

    #[test]
    fn a_sketch_that_grows_waits_for_no_reader_while_its_version_is_odd() {
        let mut bench = Bench::new(NATIVE);
        let (version, slot) = (std::mem::take(&mut bench.version), std::mem::take(&mut bench.slot));
        let arena = bench.arena.clone();
        std::thread::scope(|scope| {
            let reader = arena.read();
            scope.spawn(|| {
                for n in 0..5 {
                    NATIVE.add(&version, &slot, &mut bench.writer, f64::from(n + 1), 1.0);
                }
            });
            // It has a run, and has to wait for the list of chunks that is being read.
            while arena.runs() == 0 {
                std::thread::yield_now();
            }
            for _ in 0..10_000 {
                assert!(version.load(Relaxed).is_multiple_of(2));
                std::thread::yield_now();
            }
            drop(reader);
        });
        let merged = Bench { version, slot, ..bench }.read();
        assert_eq!(merged.weight(), 5.0);
    }

    #[test]
    fn a_reader_never_sees_a_weight_that_is_not_there_nor_misses_one() {
        let mut bench = Bench::new(SUMMARY);
        let (version, slot) = (std::mem::take(&mut bench.version), std::mem::take(&mut bench.slot));
        let (arena, layout) = (bench.arena.clone(), bench.layout);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(6);
                let mut other: Vec<AtomicU64> = (0..layout.slot()).map(|_| AtomicU64::new(0)).collect();
                for _ in 0..30_000 {
                    layout.add(&version, &slot, &mut bench.writer, (random.f64() * 40.0).exp2(), 1.0);
                    // A neighbour that takes the runs given back, and others.
                    if random.u8(..) == 0 {
                        layout.give_back(&other, &bench.arena);
                        other = (0..layout.slot()).map(|_| AtomicU64::new(0)).collect();
                    }
                    let value = (random.f64() * 40.0).exp2();
                    layout.add(&AtomicU64::new(0), &other, &mut bench.writer, value, 1e9);
                }
            });
            let (mut last, mut bins) = (0.0, Vec::new());
            while last < 30_000.0 {
                steady(&version, || {
                    bins.clear();
                    layout.copy(&slot, &arena.read(), &mut bins)
                });
                let weight: f64 = bins.iter().map(|bin| bin.weight).sum();
                assert!(weight >= last && weight <= 30_000.0, "{weight} after {last}");
                assert!(bins.is_sorted_by(|a, b| a.key < b.key));
                last = weight;
            }
        });
    }
}
