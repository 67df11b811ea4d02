//! What the program does: one module for each subcommand, `run` for none, `statsd_exporter` for that program's flags.
//!
//! In: parsed arguments and a writer. Out: text on the writer, and the exit code.
//! Not here: reading the command line, and exiting (`main`).

pub mod check;
pub mod convert;
mod descriptors;
pub mod explain;
mod fetch;
pub mod healthcheck;
pub mod load;
mod log;
pub mod memory;
pub mod run;
mod service;
pub mod statsd_exporter;
pub mod top;

use std::io::{self, Write};

use crate::expose::report::page::is_unseen;

/// Set when the image or package is built; see `src/build.rs` for the compiler's.
const REVISION: &str = match option_env!("STATSIEVE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Done as asked.
pub const OK: u8 = 0;
/// Something failed, was refused, or is not ready.
pub const FAILED: u8 = 1;
/// The configuration was refused.
pub const BAD_CONFIGURATION: u8 = 2;

/// Writes version, revision, compiler and platform; [`OK`].
///
/// # Errors
/// Those of `out`.
pub fn print_version(out: &mut dyn Write) -> io::Result<u8> {
    writeln!(out, "statsieve, version {} (revision: {REVISION})", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  rust version: {}", env!("STATSIEVE_RUSTC"))?;
    writeln!(out, "  platform:     {}/{}", std::env::consts::OS, std::env::consts::ARCH)?;
    Ok(OK)
}

/// Text of others for a terminal, which it must not drive: what cannot be seen, or turns the direction of writing, is
/// replaced, a character by a character.
fn printable(bytes: &[u8]) -> String {
    let shown = |letter| if is_unseen(letter) { '\u{fffd}' } else { letter };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}
