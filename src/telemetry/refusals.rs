//! The last lines that were refused, for whoever asks why something is missing.
//!
//! In: refused lines from the workers, with users' values struck out. Out: the latest of them, the newest first.
//! Not here: how many there were ([`Tally`](super::Tally)); what may be shown of a line (`identity`).
//! Always: at most [`KEPT`] lines of at most [`MAX_BYTES`] each. A worker offers one line a second for each reason, so
//! a flood of bad lines costs it a comparison each; and it never waits for a reader: a line that finds the list in use
//! is not noted.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, TryLockError};

use crate::clock::Tick;
use crate::model::DropReason;

/// Lines kept.
pub const KEPT: usize = 20;
/// Longest text kept of a line, bytes; what is longer is cut at a character boundary.
pub const MAX_BYTES: usize = 256;

/// One refused line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When.
    pub tick: Tick,
    /// Why.
    pub reason: DropReason,
    /// Its text, or the beginning of it.
    pub text: String,
}

/// The list that all workers share.
#[derive(Debug, Default)]
pub struct Refusals {
    lines: Mutex<VecDeque<Refused>>,
}

impl Refusals {
    /// Adds a line, in place of the oldest if the list is full. Allocates nothing, and waits for nobody.
    pub fn note(&self, tick: Tick, reason: DropReason, mut text: String) {
        let mut lines = match self.lines.try_lock() {
            Ok(lines) => lines,
            // The list is whole at every moment.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if text.len() > MAX_BYTES {
            let end = (0..=MAX_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(Refused { tick, reason, text });
    }

    /// All that are kept, the newest first.
    pub fn latest(&self) -> Vec<Refused> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let refusals = Refusals::default();
        for n in 0..KEPT as u64 + 5 {
            refusals.note(n, DropReason::MalformedLine, format!("line {n}"));
        }
        let latest = refusals.latest();
        assert_eq!(latest.len(), KEPT);
        assert_eq!((latest[0].tick, latest[0].text.as_str()), (KEPT as u64 + 4, "line 24"));
        assert_eq!(latest[KEPT - 1].tick, 5);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let refusals = Refusals::default();
        refusals.note(0, DropReason::LineTooLong, format!("x{}", "ä".repeat(1000)));
        assert_eq!(refusals.latest()[0].text.len(), 255);
    }

    #[test]
    fn a_list_in_use_is_not_waited_for() {
        let refusals = Refusals::default();
        let reader = refusals.lines.lock().unwrap();
        refusals.note(0, DropReason::MalformedLine, "lost".to_owned());
        drop(reader);
        assert_eq!(refusals.latest(), []);
    }
}
