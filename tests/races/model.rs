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
    pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
    pub use loom::thread::yield_now;

    /// As few as the longest series of a model takes: each cell costs in every order anew.
    pub const CHUNK: usize = 64;
}
