//! The values that each label of a family has on living series.
//!
//! In: the rendered labels of a series that is made or removed. Out: whether a label has room for a further value.
//! Always: a value is counted as often as series have it, so what expires makes room; values are kept as hashes, and two
//! that share one only count as one.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::map::labels::rendered;

/// What a label of a series costs at most: an entry for its value and one for its name, each with room to grow.
pub(super) const LABEL_BYTES: u64 = 80;

/// Values by label. Two flat tables, so that a label name costs no more than a value, and neither is ever searched.
#[derive(Debug, Default)]
pub(super) struct LabelValues {
    /// By name and value: how many series have it.
    series: HashMap<u64, u32, RandomState>,
    /// By name: how many values it has.
    values: HashMap<u64, u32, RandomState>,
}

impl LabelValues {
    /// Whether `value`, escaped, would be one more of `label` than `most`.
    pub(super) fn is_one_too_many(&self, hasher: &RandomState, label: &[u8], value: &[u8], most: usize) -> bool {
        let full = self.values.get(&hasher.hash_one(label)).is_some_and(|count| *count as usize >= most);
        full && !self.series.contains_key(&hasher.hash_one((label, value)))
    }

    /// How many values the label has whose name has this hash.
    pub(super) fn count(&self, label: u64) -> u64 {
        self.values.get(&label).copied().unwrap_or(0).into()
    }

    /// A series with these labels is made.
    pub(super) fn add(&mut self, hasher: &RandomState, labels: &str) {
        for (name, value) in rendered(labels) {
            let count = self.series.entry(hasher.hash_one((name.as_bytes(), value.as_bytes()))).or_default();
            *count += 1;
            if *count == 1 {
                *self.values.entry(hasher.hash_one(name.as_bytes())).or_default() += 1;
            }
        }
    }

    /// A series with these labels is removed.
    pub(super) fn remove(&mut self, hasher: &RandomState, labels: &str) {
        for (name, value) in rendered(labels) {
            let is_last = take_one(&mut self.series, hasher.hash_one((name.as_bytes(), value.as_bytes())));
            if is_last {
                take_one(&mut self.values, hasher.hash_one(name.as_bytes()));
            }
        }
    }
}

/// Counts one less under `key`, and says whether that was the last.
fn take_one(counts: &mut HashMap<u64, u32, RandomState>, key: u64) -> bool {
    let Some(count) = counts.get_mut(&key) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(&key);
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
