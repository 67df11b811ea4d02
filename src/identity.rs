//! Finds out what a sample is a sample of, without looking at anything twice.
//!
//! In: a parsed line. Out: the bytes that identify its series, and the answer remembered for them.
//! Not here: names, label text, limits; they run in `map` and `admit`, when an identity is new.
//! Always: a bucketed tag's value is replaced before identity, so it never tells two series apart; equal bytes mean
//! equal name, type, tags and so the same series; the cache stays under its bytes.
//!
//! Identity bytes are type, name and tags as written, in the order written: another order of tags is another identity
//! of the same series. Bytes 0xF8 to 0xFF, which no UTF-8 text holds, separate the parts.

pub mod cache;
pub mod users;

use memchr::memchr;

use crate::config::{Bucketing, Labels};
use crate::map::name;
use crate::parse::{Line, Sample};
use users::UserBuckets;

/// Between name and tags.
const TAGS: u8 = 0xFF;
/// Before the four bytes of a bucket number.
const BUCKET: u8 = 0xFE;
/// Before a container id.
const CONTAINER: u8 = 0xFD;
/// Before the tags in a name.
const NAME_TAGS: u8 = 0xFC;
/// Before the rest of a name behind its tags.
const NAME_REST: u8 = 0xFB;
/// In place of a tag that is left out, which must not look like an empty, malformed one.
const GONE: u8 = 0xFA;

/// What becomes of one tag before identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagAction {
    /// It is part of the identity as it is.
    Keep,
    /// It is left out.
    Drop,
    /// Its value is replaced by a bucket of the rule with this number.
    Bucket(u8),
}

/// The rules for tags, compiled: which are bucketed and which are left out.
///
/// A bucketing rule names its tags, so it goes before a glob of `labels.drop` that matches as well.
pub struct TagRules {
    buckets: Vec<UserBuckets>,
    patterns: Vec<(Pattern, TagAction)>,
    /// For each first byte of a tag, which of `patterns` can match it. Bit 63 stands for all from the 64th on.
    first: Box<[u64; 256]>,
    container: bool,
}

/// A tag name to look for.
#[derive(Debug)]
enum Pattern {
    Exact(Box<[u8]>),
    Glob(Box<[u8]>),
}

impl TagRules {
    /// Compiles `[[bucketing]]` and `labels.drop`; `container` says whether the `|c:` field is part of an identity.
    pub fn new(bucketing: &[Bucketing], labels: &Labels, container: bool) -> Self {
        let mut patterns = Vec::new();
        for (rule, bucketing) in (0u8..=u8::MAX).zip(bucketing) {
            let exact = |tag: &String| (Pattern::Exact(tag.as_bytes().into()), TagAction::Bucket(rule));
            patterns.extend(bucketing.tags.iter().map(exact));
        }
        for glob in &labels.drop {
            let text = glob.as_bytes().into();
            let pattern = if glob.contains('*') { Pattern::Glob(text) } else { Pattern::Exact(text) };
            patterns.push((pattern, TagAction::Drop));
        }
        let mut first = Box::new([0u64; 256]);
        for (place, (pattern, _)) in patterns.iter().enumerate() {
            let bit = 1 << place.min(63);
            match pattern {
                Pattern::Exact(text) | Pattern::Glob(text) => match text.first() {
                    None | Some(b'*') => first.iter_mut().for_each(|mask| *mask |= bit),
                    Some(byte) => first[usize::from(*byte)] |= bit,
                },
            }
        }
        // A DogStatsD tag may carry its own leading `#`, so any pattern may stand behind it.
        if !patterns.is_empty() {
            first[usize::from(b'#')] = u64::MAX;
        }
        Self { buckets: bucketing.iter().map(UserBuckets::new).collect(), patterns, first, container }
    }

    /// The rules of `[[bucketing]]`, in their order.
    pub fn buckets(&self) -> &[UserBuckets] {
        &self.buckets
    }

    /// What becomes of a tag with this key.
    pub fn action(&self, key: &[u8]) -> TagAction {
        let found = self.patterns.iter().find(|(pattern, _)| pattern.matches(key));
        found.map_or(TagAction::Keep, |(_, action)| *action)
    }

    /// What becomes of a tag whose key is written `key`, or so once it is made legal.
    ///
    /// Rules name tags as they are written. A spelling that only escaping makes equal to one of them must not slip
    /// through with its raw values: it takes the slow way each time, but it is bucketed or left out all the same.
    pub fn action_as_exposed(&self, key: &[u8]) -> TagAction {
        match self.action(key) {
            TagAction::Keep if key.iter().any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_') => {
                let mut escaped = Vec::new();
                name::escape(key, &mut escaped);
                self.action(&escaped)
            }
            action => action,
        }
    }

    /// Writes the identity of a sample into `out` and returns how many tags `labels.drop` took out.
    ///
    /// Costs a copy of name and tags; allocates only when `out` has to grow.
    #[inline]
    pub fn identify(&self, line: &Line<'_>, sample: &Sample<'_>, out: &mut Vec<u8>) -> u64 {
        out.clear();
        out.push(sample.kind as u8);
        out.extend_from_slice(line.name);
        let observer = sample.kind.is_observer();
        let mut dropped = 0;
        if !line.name_tags.is_empty() || !line.name_rest.is_empty() {
            out.push(NAME_TAGS);
            dropped += self.push_tags(line.name_tags, line.style.separator(), observer, out);
            out.push(NAME_REST);
            out.extend_from_slice(line.name_rest);
        }
        out.push(TAGS);
        if !sample.tags.is_empty() {
            dropped += self.push_tags(sample.tags, b':', observer, out);
        }
        if self.container && !sample.container.is_empty() {
            out.push(CONTAINER);
            out.extend_from_slice(sample.container);
        }
        dropped
    }

    /// Copies the tags of `text`, in runs that stretch from one replaced tag to the next.
    #[inline]
    fn push_tags(&self, text: &[u8], separator: u8, observer: bool, out: &mut Vec<u8>) -> u64 {
        let (mut start, mut copied, mut dropped) = (0, 0, 0);
        while let Some(byte) = text.get(start) {
            let mask = self.first[usize::from(*byte)];
            let end = memchr(b',', &text[start..]).map_or(text.len(), |length| start + length);
            if mask != 0 {
                let piece = &text[start..end];
                match self.piece_action(mask, piece, separator) {
                    (TagAction::Keep, _) => {}
                    (TagAction::Drop, _) => {
                        out.extend_from_slice(&text[copied..start]);
                        out.push(GONE);
                        copied = end;
                        dropped += 1;
                    }
                    (TagAction::Bucket(rule), value) => {
                        out.extend_from_slice(&text[copied..start]);
                        copied = end;
                        let buckets = &self.buckets[usize::from(rule)];
                        if !observer || buckets.observers {
                            let number = buckets.number(&piece[value..]).to_le_bytes();
                            out.extend_from_slice(&[BUCKET, rule, number[0], number[1], number[2], number[3]]);
                        } else {
                            out.push(GONE);
                        }
                    }
                }
            }
            start = end + 1;
        }
        out.extend_from_slice(&text[copied..]);
        dropped
    }

    /// What becomes of `key:value`, and where the value starts. `mask` says which patterns to try.
    #[inline]
    fn piece_action(&self, mask: u64, piece: &[u8], separator: u8) -> (TagAction, usize) {
        let skip = usize::from(separator == b':' && piece.first() == Some(&b'#'));
        let tag = &piece[skip..];
        let mut rest = mask;
        while rest != 0 {
            let place = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let candidates = if place == 63 { place..self.patterns.len() } else { place..place + 1 };
            for (pattern, action) in self.patterns.get(candidates).unwrap_or_default() {
                let key = match pattern {
                    Pattern::Exact(key) => match tag.get(key.len()) {
                        Some(byte) if *byte == separator && tag.starts_with(key) => key.len(),
                        None if *tag == **key => key.len(),
                        _ => continue,
                    },
                    Pattern::Glob(_) => {
                        let key = memchr(separator, tag).unwrap_or(tag.len());
                        if !pattern.matches(&tag[..key]) {
                            continue;
                        }
                        key
                    }
                };
                // Only a value can be bucketed; a bare or empty tag is for the label rules to judge.
                if matches!(action, TagAction::Bucket(_)) && key + 1 >= tag.len() {
                    return (TagAction::Keep, 0);
                }
                return (*action, skip + key + 1);
            }
        }
        (TagAction::Keep, 0)
    }
}

impl Pattern {
    fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Exact(text) => **text == *key,
            Self::Glob(text) => glob(text, key),
        }
    }
}

/// Whether `*`, which stands for any run of bytes, makes `pattern` equal to `text`; linear in both but for retries at
/// the last `*`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    p = after;
                    t = from + 1;
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
