//! A set of labels in the making, and its text.
//!
//! In: names and values, one at a time. Out: the labels sorted by name, rendered as they stand between the braces of a
//! sample line.
//! Always: no name twice (the later value holds, but never over a constant label); the text of equal sets is equal.

use std::ops::Range;

use crate::model::TagDropReason;
use crate::parse::scan;

/// Where a label comes from, which decides what a limit may do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `labels.add`: no tag can change it.
    Constant,
    /// The configuration bounds its values: user buckets, fixed texts of mapping rules.
    Rule,
    /// A mapping rule took its value from the name: kept near a limit, but nobody bounds its values.
    Captured,
    /// A tag of the client, whose values nobody bounds.
    Tag,
}

/// The value that stands for those past `labels.max_values`.
pub const OTHER: &[u8] = b"other";

/// A label set whose buffers are used again and again.
#[derive(Debug, Default)]
pub struct LabelSet {
    bytes: Vec<u8>,
    labels: Vec<Label>,
}

#[derive(Clone, Debug)]
struct Label {
    name: Range<usize>,
    value: Range<usize>,
    origin: Origin,
    /// Nothing that comes later changes it.
    fixed: bool,
}

impl LabelSet {
    /// Takes everything out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
    }

    /// Adds a label that no tag can change.
    pub fn add_constant(&mut self, name: &[u8], value: &[u8]) {
        self.push(name, value, Origin::Constant, true);
    }

    /// Adds a label of a mapping rule, before any tag is set; a tag may change it only if `honor` says so.
    ///
    /// # Errors
    /// `TooMany` if `most` are there, `Dropped` if a label has that name already.
    pub fn add_mapped(
        &mut self,
        (name, value): (&[u8], &[u8]),
        origin: Origin,
        honor: bool,
        most: usize,
    ) -> Result<(), TagDropReason> {
        if self.labels.iter().any(|label| self.bytes[label.name.clone()] == *name) {
            return Err(TagDropReason::Dropped);
        }
        if self.labels.len() >= most {
            return Err(TagDropReason::TooMany);
        }
        self.push(name, value, origin, !honor);
        Ok(())
    }

    /// Sets a label.
    ///
    /// # Errors
    /// `TooMany` if it is new and `most` are there, `Dropped` if a label that no tag can change has that name.
    pub fn set(&mut self, name: &[u8], value: &[u8], origin: Origin, most: usize) -> Result<(), TagDropReason> {
        let bytes = &self.bytes;
        match self.labels.iter().position(|label| bytes[label.name.clone()] == *name) {
            Some(place) if self.labels[place].fixed => return Err(TagDropReason::Dropped),
            Some(place) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(value);
                self.labels[place].value = start..self.bytes.len();
                self.labels[place].origin = origin;
            }
            None if self.labels.len() >= most => return Err(TagDropReason::TooMany),
            None => self.push(name, value, origin, false),
        }
        Ok(())
    }

    /// Replaces each value that nobody bounds and that `folds` says yes to by [`OTHER`]; returns how many.
    pub fn fold(&mut self, mut folds: impl FnMut(&[u8], &[u8]) -> bool) -> u64 {
        let mut folded = 0;
        let unbounded = |label: &&mut Label| matches!(label.origin, Origin::Tag | Origin::Captured);
        for label in self.labels.iter_mut().filter(unbounded) {
            if folds(&self.bytes[label.name.clone()], &self.bytes[label.value.clone()]) {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(OTHER);
                label.value = start..self.bytes.len();
                folded += 1;
            }
        }
        folded
    }

    /// Takes out the labels of tags that `keep` does not name, and says whether there were any.
    pub fn simplify(&mut self, keep: &[String]) -> bool {
        let (before, bytes) = (self.labels.len(), &self.bytes);
        self.labels.retain(|label| {
            label.origin != Origin::Tag || keep.iter().any(|name| name.as_bytes() == &bytes[label.name.clone()])
        });
        self.labels.len() < before
    }

    fn push(&mut self, name: &[u8], value: &[u8], origin: Origin, fixed: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.labels.push(Label { name: start..middle, value: middle..self.bytes.len(), origin, fixed });
    }

    /// Puts the labels in order of their names.
    pub fn sort(&mut self) {
        let Self { bytes, labels } = self;
        labels.sort_unstable_by(|a, b| bytes[a.name.clone()].cmp(&bytes[b.name.clone()]));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.labels.iter().map(|label| (&self.bytes[label.name.clone()], &self.bytes[label.value.clone()]))
    }

    /// Appends `name="value",...` with backslash, quote and newline escaped, as all text formats have it.
    pub fn render(&self, out: &mut Vec<u8>) {
        // One look at all bytes, in place of one at each value.
        let plain = scan::find_any(&self.bytes, 0, ESCAPED) == self.bytes.len();
        out.reserve(self.bytes.len() + self.labels.len() * "=\"\",".len());
        for (place, (name, value)) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            if plain {
                for part in [name, b"=\"", value, b"\""] {
                    out.extend_from_slice(part);
                }
            } else {
                write_label(name, value, out);
            }
        }
    }
}

/// Appends one `name="value"`.
pub fn write_label(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b"=\"");
    escape(value, out);
    out.push(b'"');
}

/// Bytes that have a backslash in front in a value.
const ESCAPED: [u8; 3] = [b'\\', b'"', b'\n'];

/// Appends a value as it stands between its quotes.
pub fn escape(value: &[u8], out: &mut Vec<u8>) {
    let mut copied = 0;
    loop {
        let at = scan::find_any(value, copied, ESCAPED);
        out.extend_from_slice(&value[copied..at]);
        out.extend_from_slice(match value.get(at) {
            None => return,
            Some(b'\n') => b"\\n",
            Some(b'"') => b"\\\"",
            Some(_) => b"\\\\",
        });
        copied = at + 1;
    }
}

/// A value as it stands between its quotes: itself if nothing in it is escaped, as in most, else in `buffer`.
pub fn escaped<'a>(value: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if scan::find_any(value, 0, ESCAPED) == value.len() {
        return value;
    }
    buffer.clear();
    escape(value, buffer);
    buffer
}

/// The names and escaped values in rendered labels.
pub fn rendered(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        // No name has such a sign.
        let (name, behind) = rest.split_once('=')?;
        let behind = behind.strip_prefix('"')?;
        let mut escaped = false;
        let end = behind.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        rest = behind[end + 1..].strip_prefix(',').unwrap_or(&behind[end + 1..]);
        Some((name, &behind[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(set: &mut LabelSet) -> String {
        let mut out = Vec::new();
        set.sort();
        set.render(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn labels_are_sorted_and_the_last_value_of_a_name_holds() {
        let mut set = LabelSet::default();
        for (name, value) in [("b", "1"), ("a", "x"), ("b", "2"), ("a_", "y")] {
            assert_eq!(set.set(name.as_bytes(), value.as_bytes(), Origin::Tag, 32), Ok(()));
        }
        assert_eq!(text(&mut set), r#"a="x",a_="y",b="2""#);
    }

    #[test]
    fn values_are_escaped() {
        let mut set = LabelSet::default();
        assert_eq!(set.set(b"a", b"q\" b\\ n\n", Origin::Tag, 1), Ok(()));
        assert_eq!(text(&mut set), r#"a="q\" b\\ n\n""#);
    }

    #[test]
    fn the_limit_and_constant_labels_hold() {
        let mut set = LabelSet::default();
        set.add_constant(b"region", b"eu");
        assert_eq!(set.set(b"region", b"us", Origin::Tag, 2), Err(TagDropReason::Dropped));
        assert_eq!(set.set(b"a", b"1", Origin::Tag, 2), Ok(()));
        assert_eq!(set.set(b"b", b"1", Origin::Tag, 2), Err(TagDropReason::TooMany));
        assert_eq!(set.set(b"a", b"2", Origin::Tag, 2), Ok(()));
        assert_eq!(text(&mut set), r#"a="2",region="eu""#);
    }

    #[test]
    fn rendered_labels_are_read_back() {
        let mut set = LabelSet::default();
        for (name, value) in [("a", "q\" b\\"), ("b", ""), ("c", ",x=\"y\"")] {
            assert_eq!(set.set(name.as_bytes(), value.as_bytes(), Origin::Tag, 9), Ok(()));
        }
        let text = text(&mut set);
        let read: Vec<(&str, &str)> = rendered(&text).collect();
        assert_eq!(read, [("a", r#"q\" b\\"#), ("b", ""), ("c", r#",x=\"y\""#)]);
        assert_eq!(rendered("").count(), 0);
    }

    #[test]
    fn only_labels_of_tags_are_folded_or_taken_out() {
        let mut set = LabelSet::default();
        set.add_constant(b"region", b"eu");
        assert_eq!(set.set(b"user_bucket", b"bucket_7", Origin::Rule, 9), Ok(()));
        for name in [b"command", b"version"] {
            assert_eq!(set.set(name, b"x", Origin::Tag, 9), Ok(()));
        }
        assert_eq!(set.fold(|name, value| name == b"command" && value == b"x"), 1);
        assert_eq!(set.fold(|_, value| value == b"eu" || value == b"bucket_7"), 0);
        assert_eq!(text(&mut set), r#"command="other",region="eu",user_bucket="bucket_7",version="x""#);
        assert!(set.simplify(&["version".to_owned()]));
        assert_eq!(text(&mut set), r#"region="eu",user_bucket="bucket_7",version="x""#);
        assert!(!set.simplify(&["version".to_owned()]));
    }

    #[test]
    fn what_a_rule_took_from_the_name_is_folded_and_kept_when_simplified() {
        let mut set = LabelSet::default();
        set.add_mapped((b"part", b"x"), Origin::Captured, false, 9).unwrap();
        set.add_mapped((b"kind", b"x"), Origin::Rule, false, 9).unwrap();
        assert_eq!(set.fold(|_, value| value == b"x"), 1);
        assert!(!set.simplify(&[]));
        assert_eq!(text(&mut set), r#"kind="x",part="other""#);
    }
}
