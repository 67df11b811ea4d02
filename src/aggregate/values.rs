//! The values that each label of a family has on living series.
//!
//! In: the rendered labels of a series that is made or removed. Out: whether a label has room for a further value.
//! Always: a value is counted as often as series have it, so what expires makes room; values are kept as hashes of 64
//! bits, and two that share one only count as one. Half of each would not do: of millions of values that are tried
//! against a full label, one or the other would pass for one that is there.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::index::Index;
use crate::map::labels::rendered;

/// Values by label. Two flat tables, so that a label name costs no more than a value, and neither is ever searched.
#[derive(Debug, Default)]
pub(super) struct LabelValues {
    /// By name and value: how many series have it.
    series: Index<Counted>,
    /// By name: how many values it has.
    values: Index<Counted>,
}

/// How often what has this hash is there.
#[derive(Debug)]
struct Counted {
    hash: u64,
    times: u32,
}

impl LabelValues {
    /// Whether `value`, escaped, would be one more of `label` than `most`.
    pub(super) fn is_one_too_many(&self, hasher: &RandomState, label: &[u8], value: &[u8], most: usize) -> bool {
        let full = times(&self.values, hasher.hash_one(label)) as usize >= most;
        full && times(&self.series, hasher.hash_one((label, value))) == 0
    }

    /// How many values the label has whose name has this hash.
    pub(super) fn count(&self, label: u64) -> u64 {
        times(&self.values, label).into()
    }

    /// A series with these labels is made.
    pub(super) fn add(&mut self, hasher: &RandomState, labels: &str) {
        for (name, pair) in hashes(hasher, labels) {
            if add_one(&mut self.series, pair) {
                add_one(&mut self.values, name);
            }
        }
    }

    /// A series with these labels is removed.
    pub(super) fn remove(&mut self, hasher: &RandomState, labels: &str) {
        for (name, pair) in hashes(hasher, labels) {
            if take_one(&mut self.series, pair) {
                take_one(&mut self.values, name);
            }
        }
    }

    /// What the tables hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.series.bytes() + self.values.bytes()
    }

    /// Most bytes of new tables that a series of so many labels may need.
    pub(super) fn room(&self, labels: usize) -> usize {
        self.series.room(labels) + self.values.room(labels)
    }
}

/// For each label a hash of its name, and of its name with its value.
fn hashes(hasher: &RandomState, labels: &str) -> impl Iterator<Item = (u64, u64)> {
    rendered(labels)
        .map(|(name, value)| (hasher.hash_one(name.as_bytes()), hasher.hash_one((name.as_bytes(), value.as_bytes()))))
}

fn times(counts: &Index<Counted>, hash: u64) -> u32 {
    counts.find(hash, |counted| counted.hash == hash).map_or(0, |counted| counted.times)
}

/// Counts one more of `hash`, and says whether that was the first.
fn add_one(counts: &mut Index<Counted>, hash: u64) -> bool {
    if let Some(counted) = counts.find_mut(hash, |counted| counted.hash == hash) {
        counted.times += 1;
        return false;
    }
    counts.insert(hash, Counted { hash, times: 1 }, |counted| counted.hash);
    true
}

/// Counts one less of `hash`, and says whether that was the last.
fn take_one(counts: &mut Index<Counted>, hash: u64) -> bool {
    let Some(counted) = counts.find_mut(hash, |counted| counted.hash == hash) else { return false };
    counted.times -= 1;
    let is_last = counted.times == 0;
    if is_last {
        counts.remove(hash, |counted| counted.hash == hash, |counted| counted.hash);
    }
    is_last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_as_long_as_a_series_has_it() {
        let (hasher, mut values) = (RandomState::default(), LabelValues::default());
        for labels in [r#"a="1",b="x""#, r#"a="2",b="x""#, r#"a="1",b="y""#] {
            values.add(&hasher, labels);
        }
        let full = |values: &LabelValues, value: &str| values.is_one_too_many(&hasher, b"a", value.as_bytes(), 2);
        assert_eq!([full(&values, "1"), full(&values, "2"), full(&values, "3")], [false, false, true]);
        values.remove(&hasher, r#"a="1",b="x""#);
        assert!(full(&values, "3"), "another series has it still");
        values.remove(&hasher, r#"a="1",b="y""#);
        assert!(!full(&values, "3"));
        values.remove(&hasher, r#"a="2",b="x""#);
        assert!(values.series.is_empty() && values.values.is_empty());
    }

    /// Half of each hash would let some six of these through.
    #[test]
    fn of_millions_of_values_none_passes_for_one_that_a_full_label_has() {
        let (mut values, hasher) = (LabelValues::default(), RandomState::default());
        (0..5000).for_each(|n| values.add(&hasher, &format!("k=\"{n}\"")));
        let mut text = itoa::Buffer::new();
        let mut passes = |n: u64| !values.is_one_too_many(&hasher, b"k", text.format(n).as_bytes(), 5000);
        assert_eq!((0..5000).filter(|n| passes(*n)).count(), 5000);
        assert_eq!((1_000_000..6_000_000).filter(|n| passes(*n)).count(), 0);
    }
}
