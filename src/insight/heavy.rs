//! The values that send most, by Space-Saving over a sample of the stream.
//!
//! In: every n-th value, n random around [`MEAN_GAP`]; every one while few were seen. Out: a list by estimated count.
//! Always: at most `capacity` values of at most [`MAX_VALUE_BYTES`] each are held; what is followed was counted too
//! high by no more than its `error`, and never too low, but for the error of sampling.
//! Follows: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in data streams"
//! (2005).
//!
//! # How far off a count can be
//!
//! A value that is not followed takes the place of the least one and its count, which becomes its `error`. The least
//! count is at most N / capacity for a stream of N, so no count is too high by more, and every value that sends more
//! than N / capacity is there. Each worker has a list; a value that a full list does not hold is given that list's
//! least count when lists are merged, so the bounds add up to N / capacity again.
//!
//! The first [`EXACT`] values of a worker and tag all count. After that one in 64 does, with weight 64, which is right
//! on average; the standard error of a count c is then below 8 * sqrt(c): 8 % at 10,000, 0.8 % at a million.
//!
//! Counts begin with the process and are not forgotten.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::model::heap_bytes;

/// Longest value held, bytes; longer ones are cut at a character boundary.
pub const MAX_VALUE_BYTES: usize = 256;
/// One value in so many is looked at, on average, and counts for so many.
pub const MEAN_GAP: u32 = 64;
/// Values of a worker and tag that are all looked at, before gaps begin.
pub const EXACT: u32 = 4096;
/// Room for a value from the start, so that ids that follow one another find their place without a new allocation.
const USUAL_VALUE_BYTES: usize = 32;

/// Which values of a stream to look at: no two gaps alike, so that no pattern in the stream can hide from them.
#[derive(Debug)]
pub struct Gate {
    left: u32,
    gap: u32,
    exact: u32,
    state: u64,
}

impl Gate {
    /// `seed` decides the gaps.
    pub fn new(seed: u64) -> Self {
        Self { left: 1, gap: 1, exact: EXACT, state: seed }
    }

    /// Whether to look at this value.
    #[inline]
    pub fn opens(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// To be called when it opened: how many values passed since the last time, this one included, and how many this
    /// one stands for.
    pub fn pass(&mut self) -> (u32, u32) {
        let passed = self.gap;
        let weight = if self.exact > 0 { 1 } else { MEAN_GAP };
        self.exact = self.exact.saturating_sub(1);
        self.gap = if self.exact > 0 { 1 } else { self.random_gap() };
        self.left = self.gap;
        (passed, weight)
    }

    /// From 1 to 127, each as likely; by splitmix64.
    fn random_gap(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        1 + (((z >> 32) * u64::from(2 * MEAN_GAP - 1)) >> 32) as u32
    }
}

/// The values of one worker and tag that send most.
///
/// Holds, for each of `capacity` values, the value (32 bytes or its length, at most [`MAX_VALUE_BYTES`]) and about 80
/// bytes beside it, taken as values come.
pub struct Sketch {
    slots: Vec<Slot>,
    /// Numbers of slots, the least count first: a binary heap.
    heap: Vec<u32>,
    table: HashTable<u32>,
    /// Seeded: values are outside input.
    hasher: RandomState,
    capacity: usize,
    observed: u64,
    sampled: u64,
}

/// The most bytes that a [`Sketch`] holds: its lists double, and stand beside the old ones while they do.
pub const fn most_bytes(capacity: usize) -> usize {
    let of_value = heap_bytes(MAX_VALUE_BYTES) + 3 * (size_of::<Slot>() + size_of::<u32>());
    let places = ((2 * capacity + 2) * 8 / 7 + 1).next_power_of_two();
    if capacity == 0 { 0 } else { capacity * of_value + heap_bytes(places * (size_of::<u32>() + 1) + 16) }
}

/// The longest answer on the wire: a value, each byte of it written as `\u0001`, with two counts and the words around
/// them.
pub const fn answer_bytes(capacity: usize) -> usize {
    capacity * (6 * MAX_VALUE_BYTES + 90) + 512
}

/// The most bytes that one answer takes while it is made: a copy of each value of each worker, all of them in a table,
/// the list as JSON with a small table for each value, and its text, which doubles.
pub const fn answering_bytes(capacity: usize, workers: usize) -> usize {
    let copy = heap_bytes(MAX_VALUE_BYTES) + 3 * size_of::<(Vec<u8>, u64, u64)>();
    capacity * (2 * workers * copy + 1024) + 3 * answer_bytes(capacity)
}

/// A value that is followed.
struct Slot {
    value: Vec<u8>,
    hash: u64,
    count: u64,
    error: u64,
    /// Its place in the heap.
    place: u32,
}

/// A copy of what one sketch knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    values: Vec<(Vec<u8>, u64, u64)>,
    /// The most that a value may have sent that is not among them.
    least: u64,
    observed: u64,
    sampled: u64,
}

/// What sends most of one tag, over all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// The first tag of the bucketing rule.
    pub tag: String,
    /// Samples that carried the tag, up to the last one looked at: a few dozen for each worker may be missing.
    pub observed: u64,
    /// How many of them were looked at.
    pub sampled: u64,
    /// No count is too high by more, and no value that is missing sent more; sampling comes on top.
    pub error_bound: u64,
    /// By count, the highest first.
    pub values: Vec<Heavy>,
}

/// A value with the estimate of how many samples carried it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// As sent, cut to 256 bytes.
    pub value: String,
    /// The estimate.
    pub count: u64,
    /// How much of it may belong to others.
    pub error: u64,
}

impl Sketch {
    /// Follows up to `capacity` values, at least 1.
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            heap: Vec::new(),
            // Twice the capacity, so that the marks of removed entries are cleared in place and never by growing.
            table: HashTable::with_capacity(2 * capacity + 2),
            hasher: RandomState::default(),
            capacity,
            observed: 0,
            sampled: 0,
        }
    }

    /// Takes in one value of `passed` that came by, to stand for `weight` of them.
    ///
    /// Allocates for the first `capacity` values, and where a value is longer than any its place held before.
    pub fn add(&mut self, value: &[u8], passed: u32, weight: u32) {
        self.observed += u64::from(passed);
        self.sampled += 1;
        let value = cut(value);
        let weight = u64::from(weight);
        let hash = self.hasher.hash_one(value);
        let slots = &mut self.slots;
        if let Some(found) = self.table.find(hash, |slot| slots[*slot as usize].value == value) {
            let slot = &mut slots[*found as usize];
            slot.count += weight;
            let place = slot.place as usize;
            self.sink(place);
        } else if slots.len() < self.capacity {
            let number = slots.len() as u32;
            let mut bytes = Vec::with_capacity(value.len().max(USUAL_VALUE_BYTES));
            bytes.extend_from_slice(value);
            slots.push(Slot { value: bytes, hash, count: weight, error: 0, place: number });
            self.heap.push(number);
            self.table.insert_unique(hash, number, |slot| slots[*slot as usize].hash);
            self.rise(number as usize);
        } else if let Some(least) = self.heap.first().copied() {
            let slot = &mut slots[least as usize];
            if let Ok(entry) = self.table.find_entry(slot.hash, |number| *number == least) {
                entry.remove();
            }
            slot.value.clear();
            // No more than it needs, so that a place never takes more than its longest value.
            slot.value.reserve_exact(value.len());
            slot.value.extend_from_slice(value);
            slot.hash = hash;
            slot.error = slot.count;
            slot.count += weight;
            self.table.insert_unique(hash, least, |slot| slots[*slot as usize].hash);
            self.sink(0);
        }
    }

    /// A copy; costs one for each value.
    pub fn snapshot(&self) -> Snapshot {
        let full = self.slots.len() == self.capacity;
        let least = self.heap.first().map_or(0, |slot| self.slots[*slot as usize].count);
        Snapshot {
            values: self.slots.iter().map(|slot| (slot.value.clone(), slot.count, slot.error)).collect(),
            least: if full { least } else { 0 },
            observed: self.observed,
            sampled: self.sampled,
        }
    }

    fn count_at(&self, place: usize) -> u64 {
        self.slots[self.heap[place] as usize].count
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            self.slots[self.heap[place] as usize].place = place as u32;
        }
    }

    /// Moves a slot down whose count has grown.
    fn sink(&mut self, mut place: usize) {
        loop {
            let children = (2 * place + 1..2 * place + 3).take_while(|child| *child < self.heap.len());
            match children.min_by_key(|child| self.count_at(*child)) {
                Some(child) if self.count_at(child) < self.count_at(place) => {
                    self.swap(place, child);
                    place = child;
                }
                _ => return,
            }
        }
    }

    /// Moves a slot up that is new.
    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.count_at(place) < self.count_at((place - 1) / 2) {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
    }
}

/// At most [`MAX_VALUE_BYTES`] of a value, whole characters.
fn cut(value: &[u8]) -> &[u8] {
    let mut end = value.len().min(MAX_VALUE_BYTES);
    while end > 0 && value.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
        end -= 1;
    }
    &value[..end]
}

/// Adds up what several workers saw; keeps the `capacity` values with the highest counts.
pub fn merge(tag: &str, snapshots: Vec<Snapshot>, capacity: usize) -> Top {
    let error_bound = snapshots.iter().map(|snapshot| snapshot.least).sum();
    let observed = snapshots.iter().map(|snapshot| snapshot.observed).sum();
    let sampled = snapshots.iter().map(|snapshot| snapshot.sampled).sum();
    // As if every worker had put off the value by its least count, and those that hold it take that back.
    let mut sums: HashMap<Vec<u8>, (u64, u64)> = HashMap::new();
    for snapshot in snapshots {
        for (value, count, error) in snapshot.values {
            let sum = sums.entry(value).or_insert((error_bound, error_bound));
            sum.0 = sum.0 - snapshot.least + count;
            sum.1 = sum.1 - snapshot.least + error;
        }
    }
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let mut values: Vec<Heavy> =
        sums.into_iter().map(|(value, (count, error))| Heavy { value: text(value), count, error }).collect();
    values.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    values.truncate(capacity);
    Top { tag: tag.to_owned(), observed, sampled, error_bound, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User ids by Zipf's law: the first of 50,000 twice as often as the second, and so on.
    struct Zipf {
        shares: Vec<f64>,
        state: u64,
    }

    impl Zipf {
        fn new(seed: u64) -> Self {
            let mut sum = 0.0;
            let shares = (1..=50_000).map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            });
            Self { shares: shares.collect(), state: seed }
        }

        fn user(&mut self) -> usize {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let total = self.shares[self.shares.len() - 1];
            let at = (self.state >> 11) as f64 / (1_u64 << 53) as f64 * total;
            self.shares.partition_point(|share| *share < at)
        }
    }

    fn feed(sketch: &mut Sketch, gate: &mut Gate, value: &[u8]) {
        if gate.opens() {
            let (passed, weight) = gate.pass();
            sketch.add(value, passed, weight);
        }
    }

    #[test]
    fn the_ten_loudest_of_a_zipf_stream_are_found_with_counts_within_the_bound() {
        for seed in 1..=4 {
            let mut zipf = Zipf::new(seed);
            let mut true_counts = vec![0_u64; 50_001];
            let mut workers: Vec<_> = (0..2).map(|n| (Sketch::new(100), Gate::new(seed * 10 + n))).collect();
            let total = 2_000_000_u64;
            for number in 0..total {
                let user = zipf.user();
                true_counts[user] += 1;
                let (sketch, gate) = &mut workers[number as usize % 2];
                feed(sketch, gate, user.to_string().as_bytes());
            }
            let top = merge("user_id", workers.iter().map(|(sketch, _)| sketch.snapshot()).collect(), 100);
            assert!(total - top.observed < 2 * 127, "{}", top.observed);
            let looks = total / 64 + 2 * u64::from(EXACT);
            assert!(top.sampled.abs_diff(looks) < looks / 20, "{} of {looks}", top.sampled);
            assert!(top.error_bound <= total / 100 + total / 500, "{}", top.error_bound);
            assert_eq!(top.values.len(), 100);
            // The tenth is a tenth more than the eleventh: within the noise of sampling it may be any of the next few.
            let found: Vec<usize> = top.values.iter().map(|heavy| heavy.value.parse().unwrap()).collect();
            for user in 0..10 {
                assert!(found[..14].contains(&user), "{user} is not in {:?}", &found[..14]);
            }
            for heavy in &top.values[..14] {
                let sent = true_counts[heavy.value.parse::<usize>().unwrap()] as f64;
                let sampling = 4.0 * 8.0 * sent.sqrt();
                assert!(heavy.error <= top.error_bound);
                assert!(heavy.count as f64 >= sent - sampling, "{heavy:?}: sent {sent}");
                assert!((heavy.count - heavy.error) as f64 <= sent + sampling, "{heavy:?}: sent {sent}");
            }
        }
    }

    #[test]
    fn without_sampling_no_count_is_too_low_or_too_high_by_more_than_n_over_capacity() {
        let mut zipf = Zipf::new(9);
        let mut true_counts = vec![0_u64; 50_001];
        let mut sketch = Sketch::new(50);
        for _ in 0..100_000 {
            let user = zipf.user();
            true_counts[user] += 1;
            sketch.add(user.to_string().as_bytes(), 1, 1);
        }
        let top = merge("user_id", vec![sketch.snapshot()], 50);
        assert!(top.error_bound <= 100_000 / 50);
        assert_eq!(top.values.iter().map(|heavy| heavy.count).sum::<u64>(), 100_000, "Space-Saving loses no count");
        for heavy in &top.values {
            let sent = true_counts[heavy.value.parse::<usize>().unwrap()];
            assert!(heavy.count >= sent && heavy.count - heavy.error <= sent, "{heavy:?}: sent {sent}");
            assert!(heavy.error <= top.error_bound);
        }
        let found: Vec<&str> = top.values[..5].iter().map(|heavy| heavy.value.as_str()).collect();
        assert_eq!(found, ["0", "1", "2", "3", "4"]);
    }

    #[test]
    fn a_few_values_are_counted_exactly() {
        let (mut sketch, mut gate) = (Sketch::new(10), Gate::new(1));
        for n in 0..EXACT {
            feed(&mut sketch, &mut gate, if n % 4 == 0 { b"quiet" } else { b"loud" });
        }
        let top = merge("t", vec![sketch.snapshot()], 10);
        let values: Vec<(&str, u64, u64)> = top.values.iter().map(|h| (h.value.as_str(), h.count, h.error)).collect();
        assert_eq!(values, [("loud", 3072, 0), ("quiet", 1024, 0)]);
        assert_eq!((top.observed, top.sampled, top.error_bound), (4096, 4096, 0));
    }

    #[test]
    fn gaps_differ_and_are_64_on_average() {
        let mut gate = Gate::new(7);
        gate.exact = 0;
        let gaps: Vec<u32> = (0..10_000).map(|_| gate.random_gap()).collect();
        let mean = gaps.iter().sum::<u32>() as f64 / 1e4;
        assert!((63.0..65.0).contains(&mean), "{mean}");
        assert_eq!((gaps.iter().min(), gaps.iter().max()), (Some(&1), Some(&127)));
    }

    #[test]
    fn a_value_that_one_worker_does_not_follow_is_given_its_least_count() {
        let (mut full, mut half) = (Sketch::new(2), Sketch::new(2));
        for (value, times) in [("a", 5), ("b", 3)] {
            (0..times).for_each(|_| full.add(value.as_bytes(), 1, 1));
        }
        half.add(b"c", 1, 1);
        let top = merge("t", vec![full.snapshot(), half.snapshot()], 2);
        let values: Vec<(&str, u64, u64)> = top.values.iter().map(|h| (h.value.as_str(), h.count, h.error)).collect();
        assert_eq!(values, [("a", 5, 0), ("c", 4, 3)]);
        assert_eq!((top.error_bound, top.observed), (3, 9));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "ä".repeat(200);
        assert_eq!(cut(long.as_bytes()).len(), 256);
        assert_eq!(cut(format!("x{long}").as_bytes()).len(), 255);
        assert_eq!(cut(b"short"), b"short");
    }

    /// Values that come once each go through the least place, again and again.
    #[test]
    fn memory_stays_the_same_under_ever_new_values() {
        let mut sketch = Sketch::new(100);
        (0..1000_u32).for_each(|n| sketch.add(&n.to_le_bytes(), 1, 1));
        let bytes = sketch.table.allocation_size();
        (1000..200_000_u32).for_each(|n| sketch.add(&n.to_le_bytes(), 1, 1));
        assert_eq!((sketch.slots.len(), sketch.table.len(), sketch.table.allocation_size()), (100, 100, bytes));
        for (place, number) in sketch.heap.iter().enumerate() {
            assert_eq!(sketch.slots[*number as usize].place as usize, place);
            assert!(sketch.count_at(place.saturating_sub(1) / 2) <= sketch.count_at(place));
        }
    }
}
