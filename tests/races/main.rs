//! Series that are taken away while workers record: no sample is lost, and none ends up in another series.
//!
//! In every order of a few steps ([`every_order`]), and in millions of steps as they come ([`stress`]).

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that cannot go on says so by panicking"
)]

mod every_order;
mod stress;

/// What rounds are made of: here of `loom`, which runs the threads of a test in one order after the other.
mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

// The very file that is in the program.
#[path = "../../src/aggregate/grace/rounds.rs"]
#[allow(unreachable_pub, reason = "what is public in the program is not in a test")]
mod rounds;
