//! `statsieve convert`: a `statsd_exporter` mapping file as this program's TOML.
//!
//! In: the path of a YAML file. Out: TOML on the writer, or every problem of the file with its place.
//! Not here: how the two are read and written (`config`).

use std::io::{self, Write};
use std::path::Path;

use super::{BAD_CONFIGURATION, OK};
use crate::config::convert::to_toml;

/// Writes the TOML of the mapping file `path`.
///
/// Returns the exit code: [`OK`], or [`BAD_CONFIGURATION`] with the problems in place of the TOML.
///
/// # Errors
/// Those of `out`.
pub fn convert(path: &Path, out: &mut dyn Write) -> io::Result<u8> {
    match to_toml(path) {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            Ok(OK)
        }
        Err(problems) => {
            out.write_all(problems.render_with_carets().as_bytes())?;
            Ok(BAD_CONFIGURATION)
        }
    }
}
