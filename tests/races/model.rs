//! The modules that threads share memory in, from the very files of the program, over `loom`: which runs the threads of
//! a test in one order after the other, with every value that an atomic load may give.
//!
//! All other modules are those of the program; what they share among threads is not tried here.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "what is public or used in the program need not be in a model of parts of it"
)]

#[path = "../../src"]
mod program {
    pub mod aggregate;
    #[path = "listen/asked.rs"]
    pub mod asked;
    #[path = "insight/distinct.rs"]
    pub mod distinct;
    pub mod pipeline;
    #[path = "command/log/waiting.rs"]
    pub mod waiting;
}

pub use program::{aggregate, asked, distinct, pipeline, waiting};
pub use statsieve::{admit, clock, config, identity, insight, map, model, parse, relay, telemetry};

/// What the program has in `src/sync.rs`.
pub mod sync {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
    pub use loom::thread::yield_now;

    /// As few as the longest series of a model takes: each cell costs in every order anew.
    pub const CHUNK: usize = 64;

    /// Loom's, with a mark that every access changes.
    ///
    /// Loom tries another order where an access meets the last one of another thread, of which it keeps one. A thread that
    /// loads a number and then stores it, as the one writer of a cell does, meets its own load, and the load of a scrape
    /// before it goes unseen. A mark is met by whoever comes next. It says nothing of the number: who loads that may still
    /// find an old one.
    #[derive(Debug, Default)]
    pub struct AtomicU64 {
        number: loom::sync::atomic::AtomicU64,
        mark: AtomicBool,
    }

    impl AtomicU64 {
        pub fn new(number: u64) -> Self {
            Self { number: loom::sync::atomic::AtomicU64::new(number), mark: AtomicBool::new(false) }
        }

        fn met(&self) -> &loom::sync::atomic::AtomicU64 {
            self.mark.fetch_or(true, Ordering::Relaxed);
            &self.number
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.met().load(order)
        }

        pub fn store(&self, number: u64, order: Ordering) {
            self.met().store(number, order);
        }

        pub fn swap(&self, number: u64, order: Ordering) -> u64 {
            self.met().swap(number, order)
        }

        pub fn fetch_add(&self, number: u64, order: Ordering) -> u64 {
            self.met().fetch_add(number, order)
        }

        pub fn fetch_sub(&self, number: u64, order: Ordering) -> u64 {
            self.met().fetch_sub(number, order)
        }

        pub fn fetch_max(&self, number: u64, order: Ordering) -> u64 {
            self.met().fetch_max(number, order)
        }

        pub fn fetch_update(
            &self,
            stored: Ordering,
            loaded: Ordering,
            to: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            self.met().fetch_update(stored, loaded, to)
        }
    }
}
