//! What holds for every input: the books balance, the exposition can be read, the store equals a plain model.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]

mod any_input;
mod limits;
mod model;
mod reader;
#[allow(dead_code, reason = "the fuzz targets use more of it")]
mod rig;

use proptest::test_runner::Config;

/// How many cases; small enough for every `cargo test`, `PROPTEST_CASES` runs more.
fn cases(n: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(n);
    Config { cases, failure_persistence: None, ..Config::default() }
}
