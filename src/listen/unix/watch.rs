//! Watches over the files of unix sockets, by which senders find them.
//!
//! In: sockets that were bound to a path. Out: for one whose file is gone, another socket that is bound there.
//! Not here: what a worker does with it (`worker`, `stream`).
//! Always: what belongs to somebody else stays theirs; as long as a path does not lead here, its listener counts as
//! failing; what begins and what ends is told once.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use socket2::Type;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::{Bound, OwnFile};
use crate::telemetry::{Listener, SocketBooks};

/// How often to look: senders are without a socket for so long. A look is one call to the kernel.
const EVERY: Duration = Duration::from_secs(1);

/// A socket whose file is watched over.
pub struct Watched {
    path: String,
    kind: Type,
    mode: u32,
    file: OwnFile,
    books: Arc<SocketBooks>,
    /// Gives the new socket to who reads the old one.
    hand_over: Box<dyn Fn(OwnedFd) + Send>,
    /// The path does not lead here, and that was told.
    is_lost: bool,
}

/// All of them; dropped at the end, they take their files along.
pub type Files = Arc<Mutex<Vec<Watched>>>;

impl Watched {
    /// Watches over `file` of the socket at `path`, of datagrams or of streams, whose permissions are `mode`.
    pub fn new(
        (path, mode): (&str, u32),
        file: OwnFile,
        books: Arc<SocketBooks>,
        hand_over: impl Fn(OwnedFd) + Send + 'static,
    ) -> Self {
        let kind = if books.listener == Listener::UnixStream { Type::STREAM } else { Type::DGRAM };
        Self { path: path.to_owned(), kind, mode, file, books, hand_over: Box::new(hand_over), is_lost: false }
    }

    /// Binds another socket if the file is gone.
    fn look(&mut self) {
        let listener = self.books.listener.label();
        if self.file.is_there() {
            if self.found() {
                info!(listener, path = self.path, "the file of the socket is there again");
            }
            return;
        }
        match self.bind() {
            Ok((socket, file)) => {
                self.file = file;
                (self.hand_over)(socket);
                warn!(
                    listener,
                    path = self.path,
                    "the file of the socket was gone: it is bound anew, and lines are taken"
                );
                self.found();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    warn!(
                        listener,
                        path = self.path,
                        %error,
                        "the file of the socket is gone and cannot be made anew: lines do not arrive; trying each second"
                    );
                }
                self.books.lost.store(true, Relaxed);
            }
        }
    }

    fn bind(&self) -> io::Result<(OwnedFd, OwnFile)> {
        let bound = if self.kind == Type::STREAM {
            Bound::streams(&self.path, self.mode)
        } else {
            Bound::datagrams(&self.path, self.mode)
        }?;
        let file = bound.file.expect("a socket at a path has a file");
        Ok((bound.socket.into(), file))
    }

    /// The path leads here; says whether it did not before.
    fn found(&mut self) -> bool {
        let was_lost = std::mem::take(&mut self.is_lost);
        if was_lost {
            self.books.lost.store(false, Relaxed);
        }
        was_lost
    }
}

/// Looks at them once a second, until `files` is dropped.
pub async fn watch(files: Weak<Mutex<Vec<Watched>>>) {
    let mut seconds = tokio::time::interval(EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        let Some(files) = files.upgrade() else { return };
        files.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Watched::look);
    }
}
