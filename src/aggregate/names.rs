//! How many different values each label has been sent with, kept or not.
//!
//! In: the labels of what asks for a place for the first time. Out: for each label name an estimate, for whoever looks
//! for the label that grows.
//! Not here: the values that series have ([`super::values`]), which the limits go by.
//! Always: at most [`MOST`] names of [`REGISTERS`] bytes each, whatever is sent; past that a name takes the place of
//! one that nothing new was seen of for [`FORGOTTEN`] seconds.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::clock::Tick;
use crate::insight::distinct::{estimate, place};
use crate::map::labels::LabelSet;
use crate::model::heap_bytes;

/// Label names followed.
pub(super) const MOST: usize = 256;
/// Registers of an estimate, whose standard error is 1.04 / sqrt(256) = 6.5 %.
pub(super) const REGISTERS: usize = 256;
/// Seconds after which a name may be forgotten for another.
const FORGOTTEN: Tick = 3600;

/// What the names followed take at most, if each is `name` bytes long.
pub(super) const fn most_bytes(name: usize) -> usize {
    MOST * (2 * size_of::<LabelName>() + heap_bytes(name) + heap_bytes(REGISTERS) + 16)
}

/// The names followed.
#[derive(Debug, Default)]
pub(super) struct LabelNames {
    index: HashTable<u16>,
    names: Vec<LabelName>,
    /// The tick of the last search for a name to forget: one a second, however many new names come.
    searched: Tick,
}

#[derive(Debug)]
struct LabelName {
    name: Box<str>,
    registers: Box<[u8; REGISTERS]>,
    seen: Tick,
}

impl LabelNames {
    /// Takes in the labels of something new. A look-up and a hash for each label; allocates when a name is new.
    pub(super) fn see(&mut self, hasher: &RandomState, labels: &LabelSet, now: Tick) {
        for (name, value) in labels.iter() {
            let hash = hasher.hash_one(name);
            let names = &self.names;
            let found = self.index.find(hash, |number| names[usize::from(*number)].name.as_bytes() == name).copied();
            if let Some(number) = found.or_else(|| self.follow(hasher, hash, name, now)) {
                let followed = &mut self.names[usize::from(number)];
                followed.seen = now;
                let (register, rank) = place(hasher.hash_one(value), REGISTERS);
                let highest = &mut followed.registers[register];
                *highest = rank.max(*highest);
            }
        }
    }

    /// Follows a name that is new, if there is room for it.
    #[cold]
    fn follow(&mut self, hasher: &RandomState, hash: u64, name: &[u8], now: Tick) -> Option<u16> {
        let new = LabelName {
            name: std::str::from_utf8(name).expect("label names are legal, and so ASCII").into(),
            registers: Box::new([0; REGISTERS]),
            seen: now,
        };
        let number = if self.names.len() < MOST {
            self.names.push(new);
            self.names.len() - 1
        } else {
            if self.searched == now {
                return None;
            }
            self.searched = now;
            let (number, oldest) = self.names.iter_mut().enumerate().min_by_key(|(_, name)| name.seen)?;
            if now.saturating_sub(oldest.seen) < FORGOTTEN {
                return None;
            }
            let old = std::mem::replace(oldest, new);
            if let Ok(entry) =
                self.index.find_entry(hasher.hash_one(old.name.as_bytes()), |other| usize::from(*other) == number)
            {
                entry.remove();
            }
            number
        };
        let number = u16::try_from(number).expect("there are 256 at most");
        let names = &self.names;
        self.index.insert_unique(hash, number, |number| hasher.hash_one(names[usize::from(*number)].name.as_bytes()));
        Some(number)
    }

    /// Each name followed, with the estimate of how many different values it was sent with.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.names.iter().map(|name| (&*name.name, estimate(&*name.registers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(names: &mut LabelNames, hasher: &RandomState, name: &str, value: &str, now: Tick) {
        let mut labels = LabelSet::default();
        labels.add_constant(name.as_bytes(), value.as_bytes());
        names.see(hasher, &labels, now);
    }

    #[test]
    fn the_label_that_grows_is_told_from_one_that_does_not() {
        let (mut names, hasher) = (LabelNames::default(), RandomState::default());
        for n in 0..20_000 {
            see(&mut names, &hasher, "request", &n.to_string(), 1);
            see(&mut names, &hasher, "kind", ["a", "b", "c"][n % 3], 1);
        }
        let found: Vec<(&str, f64)> = names.iter().collect();
        assert_eq!((found[0].0, found[1].0, found[1].1.round()), ("request", "kind", 3.0));
        // Four standard errors.
        assert!((found[0].1 / 20_000.0 - 1.0).abs() < 4.0 * 0.065, "{}", found[0].1);
    }

    #[test]
    fn ever_new_names_take_no_more_room_and_only_the_place_of_what_is_forgotten() {
        let (mut names, hasher) = (LabelNames::default(), RandomState::default());
        for n in 0..10_000 {
            see(&mut names, &hasher, &format!("n{n}"), "v", 1);
        }
        assert_eq!((names.names.len(), names.index.len()), (MOST, MOST));
        see(&mut names, &hasher, "n5", "w", 2000);
        see(&mut names, &hasher, "late", "v", 3000);
        assert!(names.iter().all(|(name, _)| name != "late"));
        see(&mut names, &hasher, "late", "v", 4000);
        assert!(names.iter().any(|(name, _)| name == "late") && names.iter().any(|(name, _)| name == "n5"));
        assert_eq!((names.names.len(), names.index.len()), (MOST, MOST));
        see(&mut names, &hasher, "later", "v", 4000);
        assert!(names.iter().all(|(name, _)| name != "later"), "one search a second");
    }
}
