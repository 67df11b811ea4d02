//! Finds out what a sample is a sample of, without looking at anything twice.
//!
//! In: a parsed line. Out: the words that identify its series, and the answer remembered for them.
//! Not here: names, label text, limits; they run in `map` and `admit`, when an identity is new.
//! Always: the value of a tag that is bucketed under this spelling is replaced before identity; equal keys mean
//! equal name, type, tags and so the same series; the cache stays under its bytes.
//!
//! An identity is type, name and tags as written, in the order written: another order of tags is another identity of
//! the same series. [`key`] says how they become words.

pub mod cache;
pub mod key;
pub mod users;

use foldhash::fast::RandomState;
use memchr::memchr;

use crate::config::{Bucketing, Labels, glob_matches};
use crate::map::name;
use crate::model::SampleType;
use crate::parse::{Line, Sample, scan};
use key::{Keys, Writer};
use users::UserBuckets;

/// The name; with it goes the type.
const NAME: u8 = 1;
/// The rest of a name behind its tags.
const NAME_REST: u8 = 2;
/// A container id.
const CONTAINER: u8 = 3;
/// A run of tags up to their end.
const TAGS: u8 = 4;
/// A run of tags up to one that is replaced by a bucket; with it go rule and bucket.
const BUCKET: u8 = 5;
/// A run of tags up to one that is left out, which must not look like an empty, malformed one.
const GONE: u8 = 6;

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

/// Hears of each value of a bucketed tag before it is replaced.
///
/// Called on the hot path: it must not wait, and not allocate as a rule.
pub trait Seen {
    /// A sample carried `value` in a tag of the bucketing rule number `rule`; `hash` is [`UserBuckets::hash`] of it.
    fn seen(&mut self, rule: u8, hash: u64, value: &[u8]);
}

/// Nobody listens.
impl Seen for () {
    fn seen(&mut self, _: u8, _: u64, _: &[u8]) {}
}

/// The rules for tags, compiled: which are bucketed and which are left out.
///
/// A tag that both name is left out.
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
    /// One name; its first eight bytes, or what it has of them, are compared as one word under a mask.
    Exact { name: Box<[u8]>, word: u64, mask: u64 },
    /// All names that a glob matches.
    Glob(Box<[u8]>),
}

impl TagRules {
    /// Compiles `[[bucketing]]` and `labels.drop`; `container` says whether the `|c:` field is part of an identity.
    pub fn new(bucketing: &[Bucketing], labels: &Labels, container: bool) -> Self {
        let mut patterns = Vec::new();
        for glob in &labels.drop {
            let text = glob.as_bytes();
            let pattern = if glob.contains('*') { Pattern::Glob(text.into()) } else { Pattern::exact(text) };
            patterns.push((pattern, TagAction::Drop));
        }
        for (rule, bucketing) in (0u8..=u8::MAX).zip(bucketing) {
            let exact = |tag: &String| (Pattern::exact(tag.as_bytes()), TagAction::Bucket(rule));
            patterns.extend(bucketing.tags.iter().map(exact));
        }
        let mut first = Box::new([0u64; 256]);
        for (place, (pattern, _)) in patterns.iter().enumerate() {
            let bit = 1 << place.min(63);
            let (Pattern::Exact { name, .. } | Pattern::Glob(name)) = pattern;
            match name.first() {
                None | Some(b'*') => first.iter_mut().for_each(|mask| *mask |= bit),
                Some(byte) => first[usize::from(*byte)] |= bit,
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
        // Most keys begin as no pattern does.
        if key.first().is_some_and(|byte| self.first[usize::from(*byte)] == 0) {
            return TagAction::Keep;
        }
        let found = self.patterns.iter().find(|(pattern, _)| pattern.matches(key));
        found.map_or(TagAction::Keep, |(_, action)| *action)
    }

    /// What becomes of a tag whose key is written `key`, or so once it is made legal.
    ///
    /// Rules name tags as they are written. A spelling that only escaping makes equal to one of them must not slip
    /// through with its raw values: it takes the slow way each time, but it is bucketed or left out all the same.
    pub fn action_as_exposed(&self, key: &[u8]) -> TagAction {
        // Blanks around a key are a slip of the pen: `#a:b, user_id:42`.
        let key = key.trim_ascii();
        match self.action(key) {
            TagAction::Keep if key.iter().any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_') => {
                let mut escaped = Vec::new();
                name::escape(key, &mut escaped);
                self.action(&escaped)
            }
            action => action,
        }
    }

    /// A line, good or bad, as a person may see it: what stands behind the name of a bucketed tag is struck out, in
    /// every dialect, and so are members of sets and the words of events and service checks. Bytes that are no UTF-8 are
    /// replaced.
    ///
    /// Shows no more than the first `most` bytes. Allocates.
    pub fn struck(&self, line: &[u8], most: usize) -> String {
        let line = without_words(line, most);
        let line = &line[..line.len().min(most)];
        let mut out = Vec::with_capacity(line.len());
        let (mut key, mut copied, mut at) = (0, 0, 0);
        while let Some(byte) = line.get(at) {
            at += 1;
            match byte {
                b':' | b'=' => {
                    if let TagAction::Bucket(_) = self.action_as_exposed(&line[key..at - 1]) {
                        // Tags in a name end with it, at its colon; those behind the type at the next field.
                        let end = if *byte == b'=' { b':' } else { b'|' };
                        out.extend_from_slice(&line[copied..at]);
                        out.extend_from_slice("\u{2026}".as_bytes());
                        let length = line[at..].iter().position(|byte| *byte == b',' || *byte == end);
                        at += length.unwrap_or(line.len() - at);
                        copied = at;
                    }
                    key = at;
                }
                b',' | b'|' | b'#' | b'[' | b']' | b' ' => key = at,
                _ => {}
            }
        }
        out.extend_from_slice(&line[copied..]);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Writes the identity of a sample behind those in `keys`; returns its hash, and how many tags `labels.drop` took out. `seen`
    /// hears of the value of each tag that is bucketed under the name it is written by, of observations that lose the
    /// tag too.
    ///
    /// Costs a copy of name and tags, and a hash for each value; allocates only when `keys` has to grow.
    #[inline(always)]
    pub fn identify(
        &self,
        line: &Line<'_>,
        sample: &Sample<'_>,
        keys: &mut Keys,
        state: &RandomState,
        seen: &mut impl Seen,
    ) -> (u64, u64) {
        let mut out = keys.start(line.rest, state);
        out.part(line.name, NAME, sample.kind as u8, 0);
        let observer = sample.kind.is_observer();
        let mut dropped = 0;
        if !line.name_tags.is_empty() || !line.name_rest.is_empty() {
            dropped += self.tags(line.name_tags, line.style.separator(), observer, &mut out, seen);
            out.part(line.name_rest, NAME_REST, 0, 0);
        }
        let container = self.container && !sample.container.is_empty();
        let container_first = container && sample.container_is_first();
        if container_first {
            out.part(sample.container, CONTAINER, 0, 0);
        }
        // Of an event only its type is told apart.
        if !sample.tags.is_empty() && sample.kind != SampleType::Event {
            dropped += self.tags(sample.tags, b':', observer, &mut out, seen);
        }
        if container && !container_first {
            out.part(sample.container, CONTAINER, 0, 0);
        }
        (out.end(), dropped)
    }

    /// Appends the tags of `text` in runs that stretch from one replaced tag to the next.
    #[inline(always)]
    fn tags(&self, text: &[u8], separator: u8, observer: bool, out: &mut Writer<'_>, seen: &mut impl Seen) -> u64 {
        let (mut start, mut copied, mut dropped) = (0, 0, 0);
        while let Some(byte) = text.get(start) {
            let mask = self.first[usize::from(*byte)];
            let end = scan::find(text, start, b',');
            if mask != 0
                && let Some((action, value)) = self.find(mask, text, start, end, separator)
            {
                let run = &text[copied..start];
                copied = end;
                match action {
                    TagAction::Bucket(rule) => {
                        let buckets = &self.buckets[usize::from(rule)];
                        let value = &text[value..end];
                        let hash = buckets.hash(value);
                        seen.seen(rule, hash, value);
                        if !observer || buckets.observers {
                            out.part(run, BUCKET, rule, buckets.number_of(value, hash));
                        } else {
                            out.part(run, GONE, 0, 0);
                        }
                    }
                    _ => {
                        out.part(run, GONE, 0, 0);
                        dropped += 1;
                    }
                }
            }
            start = end + 1;
        }
        out.part(&text[copied..], TAGS, 0, 0);
        dropped
    }

    /// The action for the tag in `text[start..end]` if it is not to be kept, and where its value starts. `mask` says
    /// which patterns to try.
    #[inline]
    fn find(&self, mask: u64, text: &[u8], mut start: usize, end: usize, separator: u8) -> Option<(TagAction, usize)> {
        if separator == b':' && text[start] == b'#' {
            start += 1;
        }
        let mut rest = mask;
        while rest != 0 {
            let place = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let candidates = if place == 63 { place..self.patterns.len() } else { place..place + 1 };
            for (pattern, action) in self.patterns.get(candidates).unwrap_or_default() {
                let Some(length) = pattern.key_length(&text[start..end], separator) else { continue };
                let value = start + length + 1;
                // Only a value can be bucketed; a bare or empty tag is for the label rules to judge.
                let kept = matches!(action, TagAction::Bucket(_)) && value >= end;
                return (!kept).then_some((*action, value));
            }
        }
        None
    }
}

impl Pattern {
    fn exact(name: &[u8]) -> Self {
        let mut word = [0; 8];
        let mut mask = [0; 8];
        for (place, byte) in name.iter().take(8).enumerate() {
            word[place] = *byte;
            mask[place] = 0xFF;
        }
        Self::Exact { name: name.into(), word: u64::from_le_bytes(word), mask: u64::from_le_bytes(mask) }
    }

    fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Exact { name, .. } => **name == *key,
            Self::Glob(text) => glob_matches(text, key),
        }
    }

    /// The length of the key of `tag`, which has a separator or is all key, if this pattern matches it.
    #[inline]
    fn key_length(&self, tag: &[u8], separator: u8) -> Option<usize> {
        match self {
            Self::Exact { name, word, mask } => {
                let ends = tag.get(name.len()).map_or(tag.len() == name.len(), |byte| *byte == separator);
                let begins = match tag.first_chunk() {
                    Some(first) => u64::from_le_bytes(*first) & mask == *word,
                    None => tag.starts_with(name),
                };
                (ends && begins && (name.len() <= 8 || tag.starts_with(name))).then_some(name.len())
            }
            Self::Glob(text) => {
                let length = memchr(separator, tag).unwrap_or(tag.len());
                glob_matches(text, &tag[..length]).then_some(length)
            }
        }
    }
}

/// A line without what is sent to be counted or read and not to tell series apart: members of sets, title and text of
/// events, messages of service checks.
fn without_words(line: &[u8], most: usize) -> Vec<u8> {
    const STRUCK: &[u8] = "\u{2026}".as_bytes();
    let find = |byte| memchr(byte, line);
    if line.starts_with(b"_e{") {
        let head = find(b':').map_or(3, |colon| colon + 1);
        return [&line[..head.min(most)], STRUCK].concat();
    }
    if line.starts_with(b"_sc|") {
        let end = memchr::memmem::find(line, b"|m:").map(|at| at + 3);
        return end.map_or_else(|| line.to_vec(), |end| [&line[..end], STRUCK].concat());
    }
    let Some(colon) = find(b':') else { return line.to_vec() };
    if line.len() > most && find(b'|').is_none() {
        // Too long, and of which type nobody can tell.
        return [&line[..=colon], STRUCK].concat();
    }
    let mut out: Vec<u8> = Vec::with_capacity(line.len());
    let mut parts = line.split(|byte| *byte == b'|').peekable();
    let mut is_first = true;
    while let Some(part) = parts.next() {
        if !is_first {
            out.push(b'|');
        }
        let is_member = parts.peek().is_some_and(|kind| *kind == b"s" || kind.starts_with(b"s:"));
        let value = memchr(b':', part).filter(|_| is_member);
        match value {
            Some(at) => {
                out.extend_from_slice(&part[..=at]);
                out.extend_from_slice(STRUCK);
            }
            None => out.extend_from_slice(part),
        }
        is_first = false;
    }
    out
}

#[cfg(test)]
mod tests;
