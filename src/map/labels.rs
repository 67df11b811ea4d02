//! A set of labels in the making, and its text.
//!
//! In: names and values, one at a time. Out: the labels sorted by name, rendered as they stand between the braces of a
//! sample line.
//! Always: no name twice (the later value holds, but never over a constant label); the text of equal sets is equal.

use std::ops::Range;

use crate::model::TagDropReason;

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
    constant: bool,
}

impl LabelSet {
    /// Takes everything out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.labels.clear();
    }

    /// Adds a label that no tag can change.
    pub fn add_constant(&mut self, name: &[u8], value: &[u8]) {
        self.push(name, value, true);
    }

    /// Sets a label.
    ///
    /// # Errors
    /// `TooMany` if it is new and `most` are there, `Dropped` if a constant label has that name.
    pub fn set(&mut self, name: &[u8], value: &[u8], most: usize) -> Result<(), TagDropReason> {
        let bytes = &self.bytes;
        match self.labels.iter().position(|label| bytes[label.name.clone()] == *name) {
            Some(place) if self.labels[place].constant => return Err(TagDropReason::Dropped),
            Some(place) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(value);
                self.labels[place].value = start..self.bytes.len();
            }
            None if self.labels.len() >= most => return Err(TagDropReason::TooMany),
            None => self.push(name, value, false),
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8], value: &[u8], constant: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.labels.push(Label { name: start..middle, value: middle..self.bytes.len(), constant });
    }

    /// Puts the labels in order of their names.
    pub fn sort(&mut self) {
        let Self { bytes, labels } = self;
        labels.sort_unstable_by(|a, b| bytes[a.name.clone()].cmp(&bytes[b.name.clone()]));
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.labels.iter().map(|label| (&self.bytes[label.name.clone()], &self.bytes[label.value.clone()]))
    }

    /// Appends `name="value",...` with backslash, quote and newline escaped, as all text formats have it.
    pub fn render(&self, out: &mut Vec<u8>) {
        for (place, (name, value)) in self.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write_label(name, value, out);
        }
    }
}

/// Appends one `name="value"`.
pub fn write_label(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b"=\"");
    for byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
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
            assert_eq!(set.set(name.as_bytes(), value.as_bytes(), 32), Ok(()));
        }
        assert_eq!(text(&mut set), r#"a="x",a_="y",b="2""#);
    }

    #[test]
    fn values_are_escaped() {
        let mut set = LabelSet::default();
        assert_eq!(set.set(b"a", b"q\" b\\ n\n", 1), Ok(()));
        assert_eq!(text(&mut set), r#"a="q\" b\\ n\n""#);
    }

    #[test]
    fn the_limit_and_constant_labels_hold() {
        let mut set = LabelSet::default();
        set.add_constant(b"region", b"eu");
        assert_eq!(set.set(b"region", b"us", 2), Err(TagDropReason::Dropped));
        assert_eq!(set.set(b"a", b"1", 2), Ok(()));
        assert_eq!(set.set(b"b", b"1", 2), Err(TagDropReason::TooMany));
        assert_eq!(set.set(b"a", b"2", 2), Ok(()));
        assert_eq!(text(&mut set), r#"a="2",region="eu""#);
    }
}
