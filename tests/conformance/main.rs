//! What statsd_exporter and DogStatsD have lines mean, and what is done better here: lines go through the real stages,
//! and the series that come out are compared, with what was counted beside them.
//!
//! The cases are our own. Each names the rule or behaviour it is about, as the documentation of both and runs of
//! statsd_exporter 0.30 have it; [`rules`] lists the rules. Those that begin with "mended" differ from it on purpose,
//! and the README says so.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]

mod convert;
mod dogstatsd;
mod equivalence;
mod escaping;
mod lines;
mod mapping;
mod rig;
mod rules;
mod sequences;
mod series;
