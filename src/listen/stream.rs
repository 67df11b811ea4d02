//! Streams: all connections of TCP and unix sockets, in one thread.
//!
//! In: sockets that listen. Out: each line through the pipeline, its counts in the books.
//! Not here: cutting bytes into lines (`frame`).
//! Always: nothing is lost: what is not read yet waits in the kernel, and then the sender does, so there is nothing to
//! thin; a line counts once its sender has ended it, or the stream, and not if the connection broke in the middle of
//! it; connections stay under `listen.max_connections`, further ones are closed at once and counted; none keeps the
//! others from their turn; a listener that fails is tried again, and takes no other along.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;
use tracing::{info, warn};

use super::asked::{EMPTY, STOP};
use super::frame::{Framing, Piece};
use super::worker::Control;
use super::{Backoff, unix};
use crate::clock::Clock;
use crate::pipeline::Pipeline;
use crate::telemetry::{Books, Listener, SocketBooks};

/// Read at once from one connection, bytes.
const READ_BYTES: usize = 65_536;
/// Read from one connection, bytes, before all others have their turn.
const TURN_BYTES: usize = READ_BYTES;
/// What a read costs whatever it brings, in bytes that could have been taken in meanwhile.
const READ_COST: usize = 1024;
/// A stream from which nothing comes for this long, twice, holds nothing any more.
const QUIET: Duration = Duration::from_millis(2);
/// The longest wait for that.
const DRAIN: Duration = Duration::from_secs(1);

/// A socket that listens for connections.
#[derive(Debug)]
pub enum Incoming {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Incoming {
    /// What it is, and the address as a configuration would name it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<(Listener, String)> {
        Ok(match self {
            Self::Tcp(listener) => (Listener::Tcp, listener.local_addr()?.to_string()),
            Self::Unix(listener) => (Listener::UnixStream, unix::written(&listener.local_addr()?)),
        })
    }
}

/// Limits on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at a time.
    pub max_connections: usize,
    /// A connection that sends nothing for this long is closed; zero never closes one.
    pub idle_timeout: Duration,
    /// Longest line, bytes.
    pub max_line_bytes: usize,
}

/// Serves all streams.
pub struct Worker {
    /// Each listener with its books.
    pub listeners: Vec<(Incoming, Arc<SocketBooks>)>,
    /// Limits on connections.
    pub limits: Limits,
    /// The clock of the process.
    pub clock: Clock,
    /// The stages of this worker, exact.
    pub pipeline: Pipeline,
    /// Its books.
    pub books: Arc<Books>,
    /// What it is told by.
    pub control: Arc<Control>,
    /// Listeners that take the place of those with the same books.
    pub anew: UnboundedReceiver<(Incoming, Arc<SocketBooks>)>,
}

/// What all connections share; one thread holds it.
struct Shared {
    limits: Limits,
    clock: Clock,
    pipeline: RefCell<Pipeline>,
    books: Arc<Books>,
    buffer: RefCell<Box<[u8]>>,
    open: Cell<usize>,
    /// Reads so far.
    reads: Cell<u64>,
    /// Told of a task that panicked.
    broken: Rc<Notify>,
}

impl Worker {
    /// Serves until asked to stop, takes what has arrived by then, and returns.
    ///
    /// # Errors
    /// If there can be no runtime, or it cannot take a listener.
    pub fn run(mut self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Rc::new(Shared {
            limits: self.limits,
            clock: self.clock,
            pipeline: RefCell::new(self.pipeline),
            books: self.books,
            buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            open: Cell::new(0),
            reads: Cell::new(0),
            broken: Rc::default(),
        });
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let accept = |listener, socket: &Arc<SocketBooks>| {
                let retired = Rc::new(Notify::new());
                let accepting = shared.clone().accept(Accepting::new(listener)?, socket.clone(), retired.clone());
                keep(accepting, &shared.broken);
                io::Result::Ok(retired)
            };
            let mut accepting = Vec::new();
            for (listener, socket) in self.listeners {
                accepting.push((accept(listener, &socket)?, socket));
            }
            loop {
                let asked = tokio::select! {
                    asked = self.control.heard() => asked,
                    // Its message is in the log. A listener that nobody accepts for would look as if it were up.
                    () = shared.broken.notified() => panic!("a task of the streams panicked"),
                    Some((listener, socket)) = self.anew.recv() => {
                        let new = accept(listener, &socket)?;
                        let old = accepting.iter_mut().find(|(_, other)| Arc::ptr_eq(other, &socket));
                        if let Some((old, _)) = old {
                            std::mem::replace(old, new).notify_one();
                        }
                        continue;
                    }
                };
                shared.quiet().await;
                if matches!(asked, EMPTY | STOP) {
                    self.control.emptied();
                }
                if asked == STOP {
                    return Ok(());
                }
            }
        })
    }
}

/// Runs a task that nothing goes on without: `broken` is told if it panics.
fn keep(task: impl Future<Output = ()> + 'static, broken: &Rc<Notify>) {
    struct Tells(Rc<Notify>);
    impl Drop for Tells {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.notify_one();
            }
        }
    }
    let tells = Tells(broken.clone());
    tokio::task::spawn_local(async move {
        task.await;
        drop(tells);
    });
}

/// A listener of the runtime.
enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// A connection.
enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn new(listener: Incoming) -> io::Result<Self> {
        Ok(match listener {
            Incoming::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Incoming::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        })
    }
}

impl Stream {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn framing(&self, max_line_bytes: usize) -> Framing {
        match self {
            Self::Tcp(_) => Framing::newlines(max_line_bytes),
            Self::Unix(_) => Framing::told_apart(max_line_bytes),
        }
    }
}

/// One of the connections that are open, as long as it is.
struct Place {
    shared: Rc<Shared>,
    socket: Arc<SocketBooks>,
}

impl Place {
    /// One more connection, if it may be.
    fn take(shared: &Rc<Shared>, socket: &Arc<SocketBooks>) -> Option<Self> {
        if shared.open.get() >= shared.limits.max_connections {
            return None;
        }
        shared.open.set(shared.open.get() + 1);
        socket.connections.fetch_add(1, Relaxed);
        Some(Self { shared: shared.clone(), socket: socket.clone() })
    }

    /// Takes in what the connection sends, to its end.
    async fn serve(self, stream: Stream) {
        let Self { shared, socket } = &self;
        let mut framing = stream.framing(shared.limits.max_line_bytes);
        let mut took = 0;
        let is_whole = loop {
            // One whose sender is faster than it is read never has to wait.
            if took >= TURN_BYTES {
                tokio::task::yield_now().await;
                took = 0;
            }
            if !shared.in_time(stream.readable()).await {
                break false;
            }
            match shared.read(&stream, &mut framing, socket) {
                Ok(length) => took += READ_COST + length,
                Err(is_whole) => break is_whole,
            }
        };
        shared.take(socket, 0, |out| framing.finish(is_whole, out));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.open.set(self.shared.open.get() - 1);
        self.socket.connections.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    /// Accepts connections, until nobody waits for that and it is `retired`. A failure is waited out, told once, and
    /// shown until it is over.
    async fn accept(self: Rc<Self>, listener: Accepting, socket: Arc<SocketBooks>, retired: Rc<Notify>) {
        let kind = socket.listener.label();
        let mut backoff = Backoff::default();
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = backoff.accept(listener.accept()) => outcome,
                () = retired.notified() => return,
            };
            if !matches!(outcome, Some(Err(_))) && backoff.succeeded() {
                info!(listener = kind, "connections are accepted again");
                socket.failing.store(false, Relaxed);
            }
            match outcome {
                Some(Ok(stream)) => {
                    socket.accepted.fetch_add(1, Relaxed);
                    match Place::take(&self, &socket) {
                        Some(place) => keep(place.serve(stream), &self.broken),
                        None => {
                            socket.refused.fetch_add(1, Relaxed);
                            // Who logs that may be at rest, as no line has come.
                            self.pipeline.borrow().stir();
                        }
                    }
                }
                None => {}
                Some(Err(error)) if Backoff::is_no_fault(&error) => {}
                Some(Err(error)) => {
                    socket.errors.fetch_add(1, Relaxed);
                    if !backoff.is_failing() {
                        warn!(listener = kind, %error, "cannot accept connections, trying again");
                    }
                    // Each time, since another that is retired may have taken it back.
                    socket.failing.store(true, Relaxed);
                    tokio::time::sleep(backoff.failed()).await;
                }
            }
        }
    }

    /// Whether a connection had something to say before its time was up.
    async fn in_time(&self, readable: impl Future<Output = io::Result<()>>) -> bool {
        if self.limits.idle_timeout.is_zero() {
            return readable.await.is_ok();
        }
        matches!(tokio::time::timeout(self.limits.idle_timeout, readable).await, Ok(Ok(())))
    }

    /// Reads once and takes in what came; says how many bytes. Nothing else runs meanwhile.
    ///
    /// # Errors
    /// Once no more can come: whether its sender has ended the stream; otherwise it broke.
    fn read(&self, stream: &Stream, framing: &mut Framing, socket: &SocketBooks) -> Result<usize, bool> {
        let mut buffer = self.buffer.borrow_mut();
        match stream.try_read(&mut buffer) {
            Ok(0) => Err(true),
            Ok(length) => {
                self.take(socket, length, |out| framing.feed(&buffer[..length], out));
                Ok(length)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(_) => Err(false),
        }
    }

    /// Takes what `feed` gives through the pipeline, and publishes the counts.
    fn take(&self, socket: &SocketBooks, length: usize, feed: impl FnOnce(&mut dyn FnMut(Piece<'_>))) {
        self.reads.set(self.reads.get() + 1);
        let mut pipeline = self.pipeline.borrow_mut();
        pipeline.begin(self.clock.now());
        feed(&mut |piece| match piece {
            Piece::Lines(text) => pipeline.datagram(text),
            Piece::TooLong => pipeline.too_long(),
            Piece::CutShort => pipeline.cut_short(),
        });
        pipeline.end(&self.books);
        socket.bytes.fetch_add(length as u64, Relaxed);
    }

    /// Waits until nothing comes any more: what has arrived by now is in the books.
    async fn quiet(&self) {
        let until = self.clock.now() + DRAIN;
        let (mut before, mut quiet) = (self.reads.get(), 0);
        while quiet < 2 && self.clock.now() < until {
            tokio::time::sleep(QUIET).await;
            quiet = if self.reads.get() == before { quiet + 1 } else { 0 };
            before = self.reads.get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panics_is_told_and_one_that_ends_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let broken = Rc::default();
            keep(async {}, &broken);
            tokio::time::timeout(QUIET, broken.notified()).await.expect_err("nothing is broken");
            keep(async { panic!("a panic for the test") }, &broken);
            broken.notified().await;
        });
    }
}
