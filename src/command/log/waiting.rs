//! Lines that wait for the thread that writes them.
//!
//! In: whole lines, from any thread. Out: the same to one writer, in order.
//! Always: nobody who adds a line waits for what is written; what waits is bounded, and a line beyond that is lost and
//! counted; each line that was lost is told of once, and what tells of it is never lost for want of room.

use std::io;
use std::mem;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard};

/// Lines on their way.
pub struct Waiting {
    /// What may wait, bytes, beside one line that tells of lost ones.
    most_bytes: usize,
    state: Mutex<State>,
    /// There is something to write, or nothing any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines, in order.
    lines: Vec<u8>,
    /// Lines that were lost and not told of.
    lost: u64,
    /// What was taken out of `lines` is being written, or what was lost told of.
    is_writing: bool,
}

impl Waiting {
    /// Nothing waits, and no more than `most_bytes` ever do.
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; if there is no room for the whole of it, it is lost.
    pub fn add(&self, line: &[u8]) {
        self.add_within(line, self.most_bytes);
    }

    /// Adds a line of the writer itself, for which there is room always: it has just taken all that waited, so there is
    /// one such line at most.
    pub fn add_own(&self, line: &[u8]) {
        self.add_within(line, usize::MAX);
    }

    fn add_within(&self, line: &[u8], most_bytes: usize) {
        {
            let mut state = self.lock();
            match state.lines.len().saturating_add(line.len()) <= most_bytes {
                true => state.lines.extend_from_slice(line),
                false => state.lost += 1,
            }
        }
        self.changed.notify_all();
    }

    /// Waits for lines and writes them to `out`; has `tell` tell of those that were lost as soon as some get through,
    /// by a line for [`Waiting::add_own`].
    pub fn write_next(&self, out: &mut impl io::Write, tell: impl FnOnce(u64)) {
        let lines = {
            let mut state = self.lock();
            while state.lines.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_writing = true;
            mem::take(&mut state.lines)
        };
        let outcome = out.write_all(&lines).and_then(|()| out.flush());
        let lost = {
            let mut state = self.lock();
            match outcome {
                Ok(()) => mem::take(&mut state.lost),
                // Some of them may have got through; how many cannot be known.
                Err(_) => {
                    state.lost += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                    0
                }
            }
        };
        if lost > 0 {
            tell(lost);
        }
        // Behind the telling, so that who waits for the end of all this sees it out as well.
        self.lock().is_writing = false;
        self.changed.notify_all();
    }

    /// Waits until all is written, `at_most` so long.
    pub fn flush(&self, at_most: Duration) {
        let begun = Instant::now();
        let mut state = self.lock();
        while state.is_writing || !state.lines.is_empty() {
            let left = at_most.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 4096;

    /// Bytes that wait, and lines that were lost and not told of.
    fn waits(waiting: &Waiting) -> (usize, u64) {
        let state = waiting.lock();
        (state.lines.len(), state.lost)
    }

    #[test]
    fn what_does_not_fit_is_lost_by_the_line_and_counted() {
        let waiting = Waiting::new(MOST);
        let line = [b'x'; MOST / 4];
        (0..6).for_each(|_| waiting.add(&line));
        assert_eq!(waits(&waiting), (MOST, 2));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_until_one_can() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let waiting = Waiting::new(MOST);
        waiting.add(b"one\n");
        waiting.add(b"two\n");
        waiting.write_next(&mut Full, |_| unreachable!("nothing got through"));
        assert_eq!(waits(&waiting), (0, 2));
        waiting.flush(Duration::ZERO);
        waiting.add(b"three\n");
        let (mut out, mut told) = (Vec::new(), 0);
        waiting.write_next(&mut out, |lost| told = lost);
        assert_eq!((out.as_slice(), told, waits(&waiting)), (&b"three\n"[..], 2, (0, 0)));
    }

    /// Found by a model in `tests/races`: the number was forgotten with the line that told it.
    #[test]
    fn how_many_are_lost_is_told_though_others_have_filled_what_may_wait() {
        let waiting = Waiting::new(8);
        waiting.add(b"first\n");
        waiting.add(b"lost one\n");
        let mut out = Vec::new();
        waiting.write_next(&mut out, |lost| {
            waiting.add(b"between\n");
            waiting.add_own(format!("{lost} lost\n").as_bytes());
        });
        waiting.write_next(&mut out, |_| unreachable!("none was lost"));
        assert_eq!(out, b"first\nbetween\n1 lost\n");
    }
}
