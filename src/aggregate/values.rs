//! The values that each label of a family has on living series.
//!
//! In: the rendered labels of a series that is made or removed. Out: whether a label has room for a further value.
//! Always: a value is counted as often as series have it, so what expires makes room; values are kept as hashes, and
//! two that share one only count as one.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::family::{table_room, tidy};
use crate::map::labels::rendered;
use crate::model::heap_bytes;

/// Values by label. Two flat tables, so that a label name costs no more than a value, and neither is ever searched.
#[derive(Debug, Default)]
pub(super) struct LabelValues {
    /// By name and value: how many series have it.
    series: HashTable<Counted>,
    /// By name: how many values it has.
    values: HashTable<Counted>,
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
        for (name, value) in rendered(labels) {
            if add_one(&mut self.series, hasher.hash_one((name.as_bytes(), value.as_bytes()))) {
                add_one(&mut self.values, hasher.hash_one(name.as_bytes()));
            }
        }
    }

    /// A series with these labels is removed.
    pub(super) fn remove(&mut self, hasher: &RandomState, labels: &str) {
        for (name, value) in rendered(labels) {
            if take_one(&mut self.series, hasher.hash_one((name.as_bytes(), value.as_bytes()))) {
                take_one(&mut self.values, hasher.hash_one(name.as_bytes()));
            }
        }
        tidy(&mut self.series, |counted| counted.hash);
        tidy(&mut self.values, |counted| counted.hash);
    }

    /// What the tables hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        heap_bytes(self.series.allocation_size()) + heap_bytes(self.values.allocation_size())
    }

    /// Most bytes of new tables that a series of so many labels may need.
    pub(super) fn room(&self, labels: usize) -> usize {
        table_room(&self.series, labels) + table_room(&self.values, labels)
    }
}

fn times(counts: &HashTable<Counted>, hash: u64) -> u32 {
    counts.find(hash, |counted| counted.hash == hash).map_or(0, |counted| counted.times)
}

/// Counts one more of `hash`, and says whether that was the first.
fn add_one(counts: &mut HashTable<Counted>, hash: u64) -> bool {
    let entry = counts.entry(hash, |counted| counted.hash == hash, |counted| counted.hash);
    let mut entry = entry.or_insert(Counted { hash, times: 0 });
    let counted = entry.get_mut();
    counted.times += 1;
    counted.times == 1
}

/// Counts one less of `hash`, and says whether that was the last.
fn take_one(counts: &mut HashTable<Counted>, hash: u64) -> bool {
    let Ok(mut entry) = counts.find_entry(hash, |counted| counted.hash == hash) else { return false };
    entry.get_mut().times -= 1;
    let is_last = entry.get().times == 0;
    if is_last {
        entry.remove();
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
}
