//! Lets a connection pull an answer as fast as its reader takes it.
//!
//! In: a finished text, or an exposition in the making. Out: frames of about a piece each, compressed if wished.
//! Always: a frame is made only when the connection has room for it, so a slow reader costs one frame and what the
//! connection holds; a poll makes a bounded number of pieces, so one scrape never keeps another from its turn.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::MAX_BUFFER_BYTES;
use super::places::Busy;
use crate::expose::lifecycle::Lifecycle;
use crate::expose::negotiate::Coding;
use crate::expose::{Exposition, PIECE_BYTES};

/// Bodies shorter than this are not worth compressing, bytes.
const COMPRESS_FROM_BYTES: usize = 1024;

/// Most pieces made in one poll: 1 MiB, some milliseconds with compression.
const PIECES_PER_POLL: usize = 16;

/// What the state of a compressed stream takes.
const GZIP_BYTES: usize = 384 * 1024;

/// What a connection keeps beside its buffers: its task, its head.
const TASK_BYTES: usize = 16 * 1024;

/// The most bytes of a connection, if no piece is longer than its due by more than `over`, and no answer that comes
/// whole longer than `whole`.
///
/// Its request, and what it gathers before it waits for its reader. Then, of a scrape, a frame more in a buffer that
/// doubled, the state of the compression, and the piece before it; or a whole answer, copied once. 600 KiB were
/// measured of compressed scrapes that nobody read on, and 95 of plain ones.
pub fn connection_bytes(over: usize, whole: usize) -> usize {
    let frame = PIECE_BYTES + PIECE_BYTES / 8 + over;
    TASK_BYTES + 2 * MAX_BUFFER_BYTES + (4 * frame + GZIP_BYTES).max(2 * whole)
}

/// Of 7.1 MB of text (100,000 counters) level 1 makes 828 KB in 8.1 ms, level 2 makes 522 KB in 10.4 ms, and levels 3
/// to 6 make 512 KB in 17 to 21 ms.
const LEVEL: Compression = Compression::new(2);

/// The body of an answer.
#[derive(Default)]
pub(super) struct Reply {
    ready: Option<Bytes>,
    rest: Option<Rest>,
    ticket: Option<Ticket>,
    busy: Option<Busy>,
}

/// What has yet to be made.
#[derive(Debug)]
struct Rest {
    exposition: Exposition,
    gzip: Option<Gzip>,
}

#[derive(Debug)]
struct Gzip {
    encoder: GzEncoder<Vec<u8>>,
    /// A piece before it is compressed; kept between pieces for its memory.
    piece: Vec<u8>,
}

/// A scrape that [`Lifecycle`] waits for.
#[derive(Debug)]
pub(super) struct Ticket {
    lifecycle: Arc<Lifecycle>,
    number: u64,
}

impl Ticket {
    pub(super) fn take(lifecycle: &Arc<Lifecycle>) -> Self {
        Self { lifecycle: Arc::clone(lifecycle), number: lifecycle.scrape_begun() }
    }
}

impl Reply {
    /// A text that is finished; empty for `HEAD`.
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self { ready: (!text.is_empty()).then_some(text), ..Self::default() }
    }

    /// Has `busy` hear of each frame, and of the end.
    pub(super) fn keeps(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// A scrape, and whether it goes compressed. Makes about one piece; what fits into that has a known length.
    pub(super) fn scrape(mut exposition: Exposition, coding: Coding, ticket: Ticket) -> (Self, bool) {
        let mut first = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        let mut more = true;
        while more && first.len() < PIECE_BYTES {
            more = exposition.next(&mut first);
        }
        let compress = match coding {
            Coding::Identity => false,
            Coding::Gzip => more || first.len() >= COMPRESS_FROM_BYTES,
            Coding::GzipOnly => true,
        };
        let mut gzip = None;
        if compress {
            let mut started = Gzip { encoder: GzEncoder::new(Vec::new(), LEVEL), piece: first };
            first = Vec::new();
            started.compress_piece();
            if more {
                gzip = Some(started);
            } else {
                first = started.finish();
            }
        }
        let rest = more.then_some(Rest { exposition, gzip });
        let ready = (!first.is_empty()).then(|| first.into());
        (Self { ready, rest, ticket: Some(ticket), busy: None }, compress)
    }
}

impl Gzip {
    /// Takes the piece into the compressed stream.
    fn compress_piece(&mut self) {
        self.encoder.write_all(&self.piece).expect("a vector takes everything");
        self.piece.clear();
    }

    fn finish(self) -> Vec<u8> {
        self.encoder.finish().expect("a vector takes everything")
    }
}

impl Rest {
    /// Makes up to [`PIECES_PER_POLL`] pieces, until about one is there to be sent; `false` once all is made.
    fn make(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(gzip) = &mut self.gzip else {
            out.reserve(PIECE_BYTES + PIECE_BYTES / 8);
            let mut more = true;
            for _ in 0..PIECES_PER_POLL {
                more = self.exposition.next(out);
                if !more || out.len() >= PIECE_BYTES / 2 {
                    break;
                }
            }
            return more;
        };
        for _ in 0..PIECES_PER_POLL {
            let more = self.exposition.next(&mut gzip.piece);
            gzip.compress_piece();
            if !more {
                let gzip = self.gzip.take().expect("it was there above");
                *out = gzip.finish();
                return false;
            }
            if gzip.encoder.get_ref().len() >= PIECE_BYTES / 2 {
                break;
            }
        }
        *out = std::mem::take(gzip.encoder.get_mut());
        true
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.busy.iter().for_each(Busy::goes_on);
        let mut out = self.ready.take();
        if out.is_none()
            && let Some(rest) = &mut self.rest
        {
            let mut made = Vec::new();
            if !rest.make(&mut made) {
                self.rest = None;
            } else if made.is_empty() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            out = (!made.is_empty()).then(|| made.into());
        }
        if self.rest.is_none()
            && let Some(ticket) = self.ticket.take()
        {
            ticket.lifecycle.scrape_over(ticket.number);
        }
        Poll::Ready(out.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let ready = self.ready.as_ref().map_or(0, |text| text.len() as u64);
        if self.rest.is_none() {
            return SizeHint::with_exact(ready);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(ready);
        hint
    }
}
