//! The values that each label of a family has on living series.
//!
//! In: the rendered labels of a series that is made or removed. Out: whether a label has room for a further value.
//! Always: a value is counted as often as series have it, so what expires makes room; values are kept as hashes, and two
//! that share one only count as one.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::map::labels::rendered;

/// What a value costs in its table: key, count, and room to grow.
pub(super) const VALUE_BYTES: u64 = 32;

/// Values by label.
#[derive(Debug, Default)]
pub(super) struct LabelValues {
    labels: Vec<(Box<str>, HashMap<u64, u32, RandomState>)>,
}

impl LabelValues {
    /// Whether `value`, escaped, would be one more of `label` than `most`.
    pub(super) fn is_one_too_many(&self, hasher: &RandomState, label: &[u8], value: &[u8], most: usize) -> bool {
        let values = self.labels.iter().find(|(name, _)| name.as_bytes() == label);
        values.is_some_and(|(_, values)| values.len() >= most && !values.contains_key(&hasher.hash_one(value)))
    }

    /// A series with these labels is made.
    pub(super) fn add(&mut self, hasher: &RandomState, labels: &str) {
        for (name, value) in rendered(labels) {
            let place = self.labels.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
                self.labels.push((name.into(), HashMap::default()));
                self.labels.len() - 1
            });
            *self.labels[place].1.entry(hasher.hash_one(value.as_bytes())).or_default() += 1;
        }
    }

    /// A series with these labels is removed.
    pub(super) fn remove(&mut self, hasher: &RandomState, labels: &str) {
        for (name, value) in rendered(labels) {
            let Some(place) = self.labels.iter().position(|(known, _)| **known == *name) else { continue };
            let values = &mut self.labels[place].1;
            let hash = hasher.hash_one(value.as_bytes());
            if let Some(count) = values.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    values.remove(&hash);
                }
            }
            if values.is_empty() {
                self.labels.swap_remove(place);
            }
        }
    }
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
        assert!(values.labels.is_empty());
    }
}
