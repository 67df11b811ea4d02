//! The log: lines to stderr, as configured.
//!
//! In: events of `tracing`, and panics. Out: their lines on stderr, in order.
//! Always: nobody who logs waits for whoever reads. A thread of its own writes; what stderr does not take in time (a pipe
//! whose reader hangs) or not at all (a full disk) is lost, and once it takes lines again one of them says how many were.
//! Memory is bounded by [`MOST_BYTES`].

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::mem;
use std::panic;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{error, level_filters::LevelFilter, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Config, Log, LogFormat, LogLevel};

/// What may wait to be written, bytes; some two thousand lines. A line that does not fit is lost whole.
const MOST_BYTES: usize = 256 << 10;
/// How long the process waits at its end for the last lines to be taken.
const FLUSH: Duration = Duration::from_secs(1);

static WAITING: Waiting = Waiting { state: Mutex::new(State::new()), changed: Condvar::new() };
static STARTED: Once = Once::new();

/// Lines on their way.
struct Waiting {
    state: Mutex<State>,
    /// There is something to write, or nothing any more.
    changed: Condvar,
}

struct State {
    /// Whole lines, in order.
    lines: Vec<u8>,
    /// Lines that were lost and not told of.
    lost: u64,
    /// What was taken out of `lines` is being written.
    is_writing: bool,
}

impl State {
    const fn new() -> Self {
        Self { lines: Vec::new(), lost: 0, is_writing: false }
    }

    fn add(&mut self, line: &[u8]) {
        match self.lines.len() + line.len() <= MOST_BYTES {
            true => self.lines.extend_from_slice(line),
            false => self.lost += 1,
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        self.lock().add(line);
        self.changed.notify_all();
    }

    /// Writes what comes to `out`, for ever.
    fn write_to(&self, mut out: impl io::Write) {
        loop {
            self.write_next(&mut out);
        }
    }

    /// Waits for lines and writes them; tells of those that were lost as soon as one gets through.
    fn write_next(&self, out: &mut impl io::Write) {
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
            state.is_writing = false;
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
            // It goes the way of all lines, in the format of all.
            warn!(lines = lost, "lines of this log are lost: whoever reads it was too slow, or its disk is full");
        }
        self.changed.notify_all();
    }

    /// Waits until all is written, `at_most` so long.
    fn flush(&self, at_most: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let _ = self.changed.wait_timeout_while(self.lock(), at_most, is_busy);
    }
}

/// A line in the making: handed over whole when dropped.
#[derive(Debug, Default)]
struct Line(Vec<u8>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            WAITING.add(&self.0);
        }
    }
}

struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line::default()
    }
}

/// Sends the log to stderr, as configured; what it returns has it go by another configuration.
///
/// # Panics
/// If the process may not start a thread, which it could not do its work without either.
pub(super) fn start(config: &Config) -> impl Fn(&Config) + Send + Sync + use<> {
    STARTED.call_once(|| {
        let write = || WAITING.write_to(io::stderr());
        thread::Builder::new().name("log".to_owned()).spawn(write).expect("a thread for the log");
        // The usual hook writes to stderr itself, and a worker that fails would wait there in place of being told of.
        panic::set_hook(Box::new(|panic| {
            let backtrace = Backtrace::capture();
            let shown = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
            let thread = thread::current();
            error!(thread = thread.name(), backtrace = shown, "a fault of the program: {panic}");
        }));
    });
    let (level_layer, set_level) = reload::Layer::new(level(config.log));
    let (format_layer, set_format) = reload::Layer::new(format(config.log));
    // Only a test that runs twice in one process finds a subscriber there already; the first one serves both.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(format_layer).with(level_layer));
    move |config| {
        // They fail only if the subscriber is gone, and nobody hears of anything then.
        let _ = set_level.reload(level(config.log));
        let _ = set_format.reload(format(config.log));
    }
}

/// Waits until what was logged is out, for a second at most; before the process ends.
pub(super) fn flush() {
    WAITING.flush(FLUSH);
}

fn level(log: Log) -> LevelFilter {
    match log.level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

fn format(log: Log) -> Box<dyn Layer<Registry> + Send + Sync> {
    match log.format {
        LogFormat::Logfmt => Box::new(tracing_logfmt::builder().with_target(false).layer().with_writer(Lines)),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
            Box::new(json.with_writer(Lines))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_lost_by_the_line_and_counted() {
        let mut state = State::new();
        let line = [b'x'; MOST_BYTES / 4];
        for _ in 0..6 {
            state.add(&line);
        }
        assert_eq!((state.lines.len(), state.lost), (MOST_BYTES, 2));
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
        let waiting = Waiting { state: Mutex::new(State::new()), changed: Condvar::new() };
        waiting.add(b"one\n");
        waiting.add(b"two\n");
        waiting.write_next(&mut Full);
        assert_eq!(waiting.lock().lost, 2);
        waiting.flush(Duration::ZERO);
        waiting.add(b"three\n");
        let mut out = Vec::new();
        waiting.write_next(&mut out);
        assert_eq!((out.as_slice(), waiting.lock().lost), (&b"three\n"[..], 0));
    }
}
