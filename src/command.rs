//! What the program does: one module for each subcommand, and `run` for none.
//!
//! In: parsed arguments and a writer. Out: text on the writer, and the exit code.
//! Not here: reading the command line, and exiting (`main`).

pub mod check;
pub mod convert;
pub mod explain;
pub mod healthcheck;
pub mod memory;
pub mod run;

/// Done as asked.
pub const OK: u8 = 0;
/// Something failed, was refused, or is not ready.
pub const FAILED: u8 = 1;
/// The configuration was refused.
pub const BAD_CONFIGURATION: u8 = 2;
