//! What statsd_exporter does with a mapping file, and what is done better here: lines go through the real stages under
//! such a file, and the series that come out are compared.
//!
//! The cases are our own. Each names the behaviour it is about, as the documentation and runs of statsd_exporter 0.30
//! have it; those that begin with "mended" differ from it on purpose, and the README says so.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]

mod convert;
mod escaping;
mod mapping;
mod rig;
