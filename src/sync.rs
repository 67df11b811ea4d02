//! What threads share memory by, for the modules that `tests/races` runs in every order of threads.
//!
//! There these names are those of `loom`, and chunks are small. What is not tried there takes the standard library's.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;

/// Cells in a chunk: 32 KiB, so that an empty shard costs nothing and a full one little overhead.
pub(crate) const CHUNK: usize = 4096;
