//! What others ask of a worker: to go over to another socket, to empty the one it has, to end.
//!
//! In: wishes, from any thread. Out: to the worker the weightiest that it has not taken up; to others whether it has
//! emptied its socket.
//! Not here: how a worker is woken (`worker`), what it does then.
//! Always: a wish that is made while the worker is at another is found by its next look; none is lost behind a
//! weightier one, but what comes behind the wish to end.

use std::sync::PoisonError;

use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicBool, AtomicU8, Mutex};

/// What a worker is asked for, by weight.
pub const NOTHING: u8 = 0;
pub const CHANGE: u8 = 1;
pub const EMPTY: u8 = 2;
pub const STOP: u8 = 3;

/// The wishes; `T` is a socket.
#[derive(Debug)]
pub struct Asked<T> {
    wish: AtomicU8,
    emptied: AtomicBool,
    /// What is to be gone over to.
    next: Mutex<Option<T>>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self { wish: AtomicU8::new(NOTHING), emptied: AtomicBool::new(false), next: Mutex::new(None) }
    }
}

impl<T> Asked<T> {
    /// Makes a wish. Whoever makes it wakes the worker then.
    pub fn ask(&self, wish: u8) {
        self.wish.fetch_max(wish, Relaxed);
    }

    /// Wishes the worker to go over to `next`.
    pub fn change_to(&self, next: T) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        self.ask(CHANGE);
    }

    /// The weightiest wish, which the worker takes up; [`STOP`] stays.
    ///
    /// Taken before it is obeyed, and not behind that: what is asked for meanwhile is found again so. A load as long as
    /// there is nothing. `Relaxed` is enough: what a wish to change stands for is under its lock, and was put there
    /// before the wish was made.
    pub fn take(&self) -> u8 {
        let taken = |wish| matches!(wish, CHANGE | EMPTY).then_some(NOTHING);
        self.wish.fetch_update(Relaxed, Relaxed, taken).unwrap_or_else(|wish| wish)
    }

    /// What is to be gone over to, once. To be asked for whatever the wish: a weightier one covers that to change.
    pub fn next(&self) -> Option<T> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the worker was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.wish.load(Relaxed) == STOP
    }

    /// All that the socket held is in the books.
    pub fn emptied(&self) {
        self.emptied.store(true, Release);
    }

    /// Whether [`Asked::emptied`] was called. Who sees it sees what was recorded before.
    pub fn has_emptied(&self) -> bool {
        self.emptied.load(Acquire)
    }
}
