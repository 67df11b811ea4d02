//! The log: lines to stderr, as configured.
//!
//! In: events of `tracing`, and panics. Out: their lines on stderr, in order.
//! Always: nobody who logs waits for whoever reads. A thread of its own writes; what stderr does not take in time (a pipe
//! whose reader hangs) or not at all (a full disk) is lost, and once it takes lines again one of them says how many were.
//! Memory is bounded by [`MOST_BYTES`].

#[allow(unreachable_pub, reason = "tests/races builds it as part of a library")]
mod waiting;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io;
use std::panic;
use std::sync::{LazyLock, Once};
use std::thread;
use std::time::Duration;

use tracing::{error, level_filters::LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use self::waiting::Waiting;
use crate::config::{Config, Log, LogFormat, LogLevel};

/// What may wait to be written, bytes; some two thousand lines. A line that does not fit is lost whole.
const MOST_BYTES: usize = 256 << 10;
/// How long the process waits at its end for the last lines to be taken.
const FLUSH: Duration = Duration::from_secs(1);

static WAITING: LazyLock<Waiting> = LazyLock::new(|| Waiting::new(MOST_BYTES));
static STARTED: Once = Once::new();

thread_local! {
    /// Whether this is the thread that writes.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Writes what comes to `out`, for ever.
fn write_to(mut out: impl io::Write) {
    WRITES.set(true);
    loop {
        // It goes the way of all lines, in the format of all, and past every `log.level`.
        WAITING.write_next(&mut out, |lost| {
            error!(lines = lost, "lines of this log are lost: whoever reads it was too slow, or its disk is full");
        });
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
        match self.0.is_empty() {
            true => {}
            false if WRITES.get() => WAITING.add_own(&self.0),
            false => WAITING.add(&self.0),
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
        let write = || write_to(io::stderr());
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
