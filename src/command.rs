//! What the program does besides running: one module for each subcommand.
//!
//! In: parsed arguments and a writer. Out: text on the writer, and the exit code.
//! Not here: reading the command line, and exiting (`main`).

pub mod check;
