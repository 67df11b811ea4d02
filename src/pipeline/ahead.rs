//! Samples that were read and wait to be recorded.
//!
//! In: samples whose identities are known. Out: the same, in order.
//! Always: what is read of a line is read from the line again if it is needed after all, so that little waits.
//!
//! To find a series and to change its numbers means to wait for memory, several times in turn, where the CPU's caches
//! have lost them: all of them while a worker sleeps, some while it reads. What several samples wait for comes at once.

use crate::config::Parse;
use crate::model::{Refusal, SampleType};
use crate::parse::{Line, Sample, Values, message};

/// Samples that wait at most: as many as a CPU can fetch lines of memory for at once. More would only wait longer.
pub(super) const DEPTH: usize = 12;

/// Samples in the order in which they were read.
pub(super) struct Ahead<'a> {
    len: usize,
    samples: [Known<'a>; DEPTH],
}

/// A sample whose identity is known.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Its line.
    pub text: &'a [u8],
    /// The byte of the line where its value starts.
    pub from: usize,
    pub reading: Reading<'a>,
    /// Hash of its identity.
    pub hash: u64,
    /// Where its identity ends among those of all that wait.
    pub key_end: usize,
    /// Where the cache seems to hold it.
    pub place: u32,
}

/// What of a sample is recorded.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub kind: SampleType,
    pub values: Values<'a>,
    /// Events that each value stands for.
    pub weight: f64,
    /// It has tags as DogStatsD writes them.
    pub tagged: bool,
}

impl<'a> Known<'a> {
    /// The line, and the sample as it stood there.
    ///
    /// # Errors
    /// None: it could be read before.
    pub(super) fn read_again(&self, dialects: &Parse) -> Result<(Line<'a>, Sample<'a>), Refusal> {
        if message::is_message(self.text) {
            return message::message(self.text, dialects);
        }
        let line = Line::parse(self.text, dialects)?;
        let sample = line.sample(self.from)?;
        Ok((line, sample))
    }
}

impl<'a> Reading<'a> {
    #[inline(always)]
    pub(super) fn of(sample: &Sample<'a>) -> Self {
        Self { kind: sample.kind, values: sample.values, weight: sample.weight, tagged: !sample.tags.is_empty() }
    }
}

impl<'a> Ahead<'a> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        let reading = Reading { kind: SampleType::Counter, values: Values::One(0.0), weight: 0.0, tagged: false };
        let none = Known { text: &[], from: 0, reading, hash: 0, key_end: 0, place: 0 };
        Self { len: 0, samples: [none; DEPTH] }
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.len == DEPTH
    }

    /// Adds a sample; there must be room for it.
    #[inline(always)]
    pub(super) fn push(&mut self, known: Known<'a>) {
        self.samples[self.len] = known;
        self.len += 1;
    }

    /// Those that wait.
    #[inline(always)]
    pub(super) fn samples(&mut self) -> &mut [Known<'a>] {
        &mut self.samples[..self.len]
    }

    /// Nothing waits any more.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}
