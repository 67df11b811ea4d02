//! The whole program, from socket to scrape.
//!
//! Every test starts its own sidecar on ports the kernel picks, waits for conditions (never for a fixed time), reads
//! the exposition and stops what it started. Tests that need programs from outside Rust are ignored in a plain
//! `cargo test`; `tests/run` installs those programs and runs everything.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that cannot go on says so by panicking; its helpers are documented where the name is not enough"
)]

mod harness;
#[path = "../exposition/lint.rs"]
mod lint;
#[path = "../files/promise.rs"]
mod promise;

mod backpressure;
mod books;
mod browser;
mod clients;
mod clock_steps;
mod command_line;
mod dashboards;
mod datagram_trouble;
mod deploy;
mod descriptors;
mod drop_in;
mod escaping;
mod exposition;
mod exposure;
mod fleet;
mod flood;
mod ground_truth;
mod hostile;
mod http_trouble;
mod idle;
mod insight;
mod interface;
mod kernel_drops;
mod limits;
mod load;
mod log_trouble;
mod logs;
mod mapping;
mod memory;
mod memory_limit;
mod observers;
mod odd_files;
mod overload;
mod page;
mod paused;
mod privacy;
mod prometheus;
mod protobuf;
mod quota;
mod recording;
mod relay;
mod release;
mod reload;
mod report;
mod rules;
mod secrets;
mod service;
mod signals;
mod soak;
mod socket_files;
mod start_and_stop;
mod stream_trouble;
mod tls_trouble;
mod tools;
mod top;
mod transports;
mod web;
