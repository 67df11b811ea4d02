//! Writes the exposition and serves it.
//!
//! In: series of users from a [`SeriesSource`], own metrics from `telemetry`. Out: one exposition after another, each
//! pulled piece by piece, over HTTP.
//! Not here: what a series holds (`aggregate`), what an own metric is called (`telemetry`).
//! Always: an exposition is whole or is seen to be cut off; a reader that stops reading stops the writing, and costs no
//! more than a piece or two of memory; families of users come first, then our own, then the end mark.

pub mod http;
pub mod lifecycle;
pub mod negotiate;
pub mod own;
pub mod protobuf;
pub mod report;
pub mod text;
pub mod web;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::aggregate::Store;
use crate::aggregate::shape::Shape;
use crate::config::Format;
use crate::telemetry::Telemetry;

/// About how long a piece is, bytes; one more line may run over it, or the own metrics, which are one piece.
pub const PIECE_BYTES: usize = 64 * 1024;

/// How long making a piece may take, where series take long to read and are short to write. New series wait meanwhile.
const PIECE_TIME: Duration = Duration::from_micros(100);

/// Where a piece that is made under the store's lock ends.
#[derive(Clone, Copy, Debug)]
struct End {
    bytes: usize,
    begun: Instant,
}

impl End {
    /// That of a piece which begins now, behind what is in `out`.
    fn of(out: &[u8]) -> Self {
        Self { bytes: out.len() + PIECE_BYTES, begun: Instant::now() }
    }

    /// Whether it is reached behind a series of this shape. One at least is in a piece, whatever it takes.
    #[inline]
    fn is_reached(self, shape: &Shape, out: &[u8]) -> bool {
        // Sets and summaries are put together of up to thousands of entries; others are as long as what they write.
        let is_slow = matches!(shape, Shape::Set(_) | Shape::Summary(_));
        out.len() >= self.bytes || is_slow && self.begun.elapsed() >= PIECE_TIME
    }
}

/// Series that a scrape can walk.
pub trait SeriesSource: Send + Sync {
    /// Starts a walk over all series, to be written in `format`.
    fn begin(&self, format: Format) -> Box<dyn Pieces>;
}

impl SeriesSource for Arc<Store> {
    fn begin(&self, format: Format) -> Box<dyn Pieces> {
        match format {
            Format::Protobuf => Box::new(Turns::new(self.clone(), protobuf::UserProtobuf::new(self.clone()))),
            Format::Text | Format::OpenMetrics => {
                Box::new(Turns::new(self.clone(), text::UserText::new(self.clone(), format)))
            }
        }
    }
}

/// Pieces made under the store's lock. If new series wait for it, it is left to them between two pieces for as long as
/// it was held; what a piece takes to be compressed and sent counts.
#[derive(Debug)]
struct Turns<P> {
    store: Arc<Store>,
    pieces: P,
    held: Duration,
    freed: Instant,
}

impl<P> Turns<P> {
    fn new(store: Arc<Store>, pieces: P) -> Self {
        Self { store, pieces, held: Duration::ZERO, freed: Instant::now() }
    }
}

impl<P: Pieces> Pieces for Turns<P> {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        // Also once nobody waits any more: who was let in comes again with the next line.
        if self.store.is_wanted() {
            while self.freed.elapsed() < self.held {
                std::thread::yield_now();
            }
        }
        let begun = Instant::now();
        let more = self.pieces.next(out);
        self.freed = Instant::now();
        // It may have taken long because it lost its processor.
        self.held = self.freed.duration_since(begun).min(2 * PIECE_TIME);
        more
    }
}

/// A walk over series: the exposition of them in pieces.
pub trait Pieces: Send {
    /// Appends up to about [`PIECE_BYTES`] to `out`; `false` once there is no more.
    fn next(&mut self, out: &mut Vec<u8>) -> bool;
}

/// Makes expositions.
pub struct Exposer {
    series: Box<dyn SeriesSource>,
    telemetry: Arc<Telemetry>,
    before: Box<dyn Fn() + Send + Sync>,
    started: Duration,
}

impl fmt::Debug for Exposer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposer").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}

impl Exposer {
    /// Joins `series` and the own metrics of `telemetry`; `before` runs at the start of each scrape, to bring figures
    /// up to date that nobody writes in between. It must not wait.
    pub fn new(series: Box<dyn SeriesSource>, telemetry: Arc<Telemetry>, before: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { series, telemetry, before, started: Duration::ZERO }
    }

    /// The own metrics count from so long after 1970, as protobuf tells.
    pub fn started_at(self, started: Duration) -> Self {
        Self { started, ..self }
    }

    /// Starts one scrape.
    pub fn begin(&self, format: Format) -> Exposition {
        let begun = Instant::now();
        self.telemetry.scrape_begun();
        self.refresh();
        Exposition {
            format,
            stage: Stage::Users(self.series.begin(format)),
            telemetry: Arc::clone(&self.telemetry),
            begun,
            started: self.started,
            bytes: 0,
        }
    }

    /// Brings figures up to date that nobody writes between scrapes.
    pub fn refresh(&self) {
        (self.before)();
    }

    /// The own metrics that it writes and counts scrapes in.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }
}

/// One scrape in the making. It counts once it was pulled to its end; one that is dropped before does not.
pub struct Exposition {
    format: Format,
    stage: Stage,
    telemetry: Arc<Telemetry>,
    begun: Instant,
    started: Duration,
    bytes: u64,
}

enum Stage {
    Users(Box<dyn Pieces>),
    Own,
    Done,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, bytes, .. } = self;
        f.debug_struct("Exposition").field("format", format).field("bytes", bytes).finish_non_exhaustive()
    }
}

impl Drop for Exposition {
    fn drop(&mut self) {
        self.telemetry.scrape_over();
    }
}

impl Exposition {
    /// Appends up to about [`PIECE_BYTES`] to `out`, which may be nothing; `false` once the exposition is whole.
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        match &mut self.stage {
            Stage::Users(pieces) => {
                if !pieces.next(out) {
                    self.stage = Stage::Own;
                }
            }
            Stage::Own => {
                self.own(out);
                self.stage = Stage::Done;
            }
            Stage::Done => return false,
        }
        self.bytes += (out.len() - before) as u64;
        if matches!(self.stage, Stage::Done) {
            self.telemetry.scraped(self.format, self.begun.elapsed(), self.bytes);
            return false;
        }
        true
    }

    /// Appends the own metrics and the end mark.
    fn own(&self, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(16 * 1024);
        let registry = self.telemetry.registry();
        let written = match self.format {
            Format::OpenMetrics => own::openmetrics(registry, &mut text),
            Format::Text | Format::Protobuf => own::text(registry, &mut text),
        };
        // Collectors fail only with the writer, and a string takes everything; should one fail all the same, the
        // series of users must not be lost with it.
        if written.is_err() {
            text.clear();
        }
        match self.format {
            Format::Protobuf => return own::protobuf(&text, self.started, out),
            Format::OpenMetrics => text.push_str("# EOF\n"),
            Format::Text => {}
        }
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::OwnMetrics;

    struct Lines(usize);
    impl SeriesSource for Lines {
        fn begin(&self, _: Format) -> Box<dyn Pieces> {
            Box::new(Lines(self.0))
        }
    }
    impl Pieces for Lines {
        fn next(&mut self, out: &mut Vec<u8>) -> bool {
            if self.0 == 0 {
                return false;
            }
            self.0 -= 1;
            out.extend_from_slice(b"a_total 1\n");
            true
        }
    }

    fn exposer(lines: usize) -> (Exposer, Arc<AtomicUsize>) {
        let telemetry = Telemetry::new(vec![], vec![], Arc::default(), "x", OwnMetrics::Core);
        let refreshed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refreshed);
        let before = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        (Exposer::new(Box::new(Lines(lines)), Arc::new(telemetry), Box::new(before)), refreshed)
    }

    fn pull(mut exposition: Exposition) -> String {
        let mut out = Vec::new();
        while exposition.next(&mut out) {}
        assert!(!exposition.next(&mut out), "the end stays the end");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn users_come_first_then_own_metrics_then_the_end_mark_of_openmetrics() {
        let (exposer, refreshed) = exposer(2);
        let text = pull(exposer.begin(Format::Text));
        assert!(text.starts_with("a_total 1\na_total 1\n# HELP statsieve_build_info "), "{text}");
        assert!(!text.contains("# EOF"));
        let open = pull(exposer.begin(Format::OpenMetrics));
        assert!(open.starts_with("a_total 1\na_total 1\n# HELP statsieve_build "), "{open}");
        assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1);
        assert_eq!(refreshed.load(Ordering::Relaxed), 2);
        assert_eq!(exposer.telemetry().scrapes(Format::Text), 1);
        assert_eq!(exposer.telemetry().scrapes(Format::OpenMetrics), 1);
    }

    #[test]
    fn a_piece_ends_by_its_length_and_of_what_takes_long_to_read_by_time_as_well() {
        let set = Shape::set(Duration::from_secs(60), 1024);
        let now = Instant::now();
        let [fresh, old] = [now + Duration::from_secs(3600), now - PIECE_TIME].map(|begun| End { bytes: 4, begun });
        for (end, out, counter_ends, set_ends) in [
            (fresh, &b"123"[..], false, false),
            (fresh, b"1234", true, true),
            (old, b"1", false, true),
            (old, b"1234", true, true),
        ] {
            assert_eq!(end.is_reached(&Shape::Counter, out), counter_ends, "{end:?} {out:?}");
            assert_eq!(end.is_reached(&set, out), set_ends, "{end:?} {out:?}");
        }
    }

    #[test]
    fn a_scrape_that_is_given_up_does_not_count() {
        let (exposer, _) = exposer(2);
        let mut exposition = exposer.begin(Format::Text);
        assert!(exposition.next(&mut Vec::new()));
        drop(exposition);
        assert_eq!(exposer.telemetry().scrapes(Format::Text), 0);
    }
}
