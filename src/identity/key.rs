//! The bytes of identities, and their hashes.
//!
//! In: parts of a line, and what stands between them. Out: the key as words, and its hash.
//! Always: keys are equal only if all that was put into them is. Nothing is allocated but for a line longer than any
//! before.
//!
//! A part takes units of four words: its bytes, then zeros, and in the last word of its last unit its length and what
//! it is. So a key can be read from its end, and no two are alike. Bytes go from the line through registers into key
//! and hash at once, without a look at their number where a unit will do: what was just written in pieces is slow to
//! read in others, and no CPU foresees how long a part is.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::{FoldHasher, RandomState};

/// Words of a unit.
const UNIT: usize = 4;
/// Bytes of the shortest key.
pub const SHORTEST_BYTES: usize = 8 * UNIT;
/// Bytes of the parts in a unit, if it is not a part's last, and if it is.
const FULL: usize = 8 * UNIT;
const LAST: usize = FULL - 8;

/// For a word that holds so many bytes of a part, the bits of these; less than none is none, and more than eight all.
const MASKS: [u64; 2 * FULL + 1] = {
    let mut masks = [0; 2 * FULL + 1];
    let mut n = FULL + 1;
    while n <= 2 * FULL {
        masks[n] = if n - FULL < 8 { (1 << (8 * (n - FULL))) - 1 } else { !0 };
        n += 1;
    }
    masks
};

/// Keys one behind the other, and room for the next.
#[derive(Debug, Default)]
pub struct Keys {
    words: Vec<u64>,
    length: usize,
}

impl Keys {
    /// Starts one more key, of parts that lie within `text`, or elsewhere at a cost.
    #[inline(always)]
    pub fn start<'a>(&'a mut self, text: &'a [u8], state: &RandomState) -> Writer<'a> {
        Writer { keys: self, text, even: state.build_hasher(), odd: state.build_hasher() }
    }

    #[cold]
    fn grow(&mut self) {
        self.words.resize(2 * self.length + 16 * UNIT, 0);
    }

    /// Forgets all keys.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Where the next key starts.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.length
    }

    /// The words from one place to another.
    #[inline(always)]
    pub fn words(&self, places: Range<usize>) -> &[u64] {
        &self.words[places]
    }
}

/// Writes one key.
pub struct Writer<'a> {
    keys: &'a mut Keys,
    text: &'a [u8],
    /// Two hashes, which need not wait for each other.
    even: FoldHasher<'static>,
    odd: FoldHasher<'static>,
}

impl Writer<'_> {
    /// Appends a part of less than 64 KiB, a byte that says what it is, another one and a number that go with it.
    #[inline(always)]
    pub fn part(&mut self, part: &[u8], what: u8, with: u8, number: u32) {
        let mark = u64::from(what) | u64::from(with) << 8 | (part.len() as u64) << 16 | u64::from(number) << 32;
        let mut rest = part;
        while rest.len() > LAST {
            let (now, behind) = rest.split_at(rest.len().min(FULL));
            let words = self.load(now);
            self.unit(words);
            rest = behind;
        }
        let [first, second, third, _] = self.load(rest);
        self.unit([first, second, third, mark]);
    }

    /// The hash of the whole key.
    #[inline(always)]
    pub fn end(mut self) -> u64 {
        self.even.write_u64(self.odd.finish());
        self.even.finish()
    }

    /// Up to 32 bytes of a part, and zeros. Reads on in the text where it can.
    #[inline(always)]
    fn load(&self, part: &[u8]) -> [u64; UNIT] {
        // Of a part that is not in the text, this is far behind its end.
        let at = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let Some(bytes) = self.text.get(at..).and_then(|text| text.first_chunk::<FULL>()) else {
            return load_copied(part);
        };
        let (words, _) = bytes.as_chunks();
        std::array::from_fn(|n| u64::from_le_bytes(words[n]) & MASKS[FULL + part.len().min(FULL) - 8 * n])
    }

    #[inline(always)]
    fn unit(&mut self, words: [u64; UNIT]) {
        let start = self.keys.length;
        if self.keys.words.len() < start + UNIT {
            self.keys.grow();
        }
        self.keys.words[start..start + UNIT].copy_from_slice(&words);
        self.keys.length = start + UNIT;
        let [first, second, third, fourth] = words.map(u128::from);
        self.even.write_u128(first | second << 64);
        self.odd.write_u128(third | fourth << 64);
    }
}

/// The same where nothing can be read behind the part.
#[inline(never)]
fn load_copied(part: &[u8]) -> [u64; UNIT] {
    let mut bytes = [0; FULL];
    bytes[..part.len()].copy_from_slice(part);
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|n| u64::from_le_bytes(words[n]))
}

/// Whether two keys are equal.
#[inline(always)]
pub fn same(one: &[u64], other: &[u64]) -> bool {
    let ((one, _), (other, _)) = (one.as_chunks::<UNIT>(), other.as_chunks::<UNIT>());
    let differ = |one: &[u64; UNIT], other: &[u64; UNIT]| (0..UNIT).fold(0, |bits, n| bits | (one[n] ^ other[n]));
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| differ(one, other) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(state: &RandomState, text: &[u8], parts: &[&[u8]]) -> (Vec<u64>, u64) {
        let mut key = Keys::default();
        // What a longer key left behind must not show.
        key.start(&[], state).part(&[b'x'; 1000], 1, 2, 3);
        key.clear();
        let mut writer = key.start(text, state);
        parts.iter().for_each(|part| writer.part(part, 7, 0, 9));
        let hash = writer.end();
        (key.words(0..key.end()).to_vec(), hash)
    }

    #[test]
    fn a_part_is_the_same_wherever_it_lies_and_whatever_is_behind_it() {
        let state = RandomState::default();
        let text: Vec<u8> = (1..=120).collect();
        for start in 0..=text.len() {
            for end in start..=text.len() {
                let part = &text[start..end];
                let copy = part.to_vec();
                assert_eq!(key(&state, &text, &[part]), key(&state, &[], &[&copy]), "{start}..{end}");
            }
        }
    }

    #[test]
    fn keys_of_other_parts_are_others() {
        let state = RandomState::default();
        let long = [b'a'; 90];
        let parts: Vec<Vec<&[u8]>> = (0..90)
            .flat_map(|n| [vec![&long[..n]], vec![&long[..n], b""], vec![b"", &long[..n]], vec![&long[..n], b"a"]])
            .chain([vec![&b"a\0"[..]], vec![b"a\0\0"], vec![b"\0"], vec![b"\0", b"\0"]])
            .collect();
        let keys: Vec<_> = parts.iter().map(|parts| key(&state, &[], parts)).collect();
        for (one, parts_of_one) in keys.iter().zip(&parts) {
            for (other, parts_of_other) in keys.iter().zip(&parts) {
                let equal = parts_of_one == parts_of_other;
                assert_eq!(
                    (same(&one.0, &other.0), one.1 == other.1),
                    (equal, equal),
                    "{parts_of_one:?} {parts_of_other:?}"
                );
            }
        }
        let of = |what, with, number| {
            let mut key = Keys::default();
            key.start(&[], &state).part(b"a", what, with, number);
            key.words(0..key.end()).to_vec()
        };
        assert!(!same(&of(1, 0, 0), &of(2, 0, 0)));
        assert!(!same(&of(1, 1, 0), &of(1, 2, 0)));
        assert!(!same(&of(1, 1, 1), &of(1, 1, 2)));
    }
}
