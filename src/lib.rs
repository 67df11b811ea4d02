//! Statsieve.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "statsieve runs on Linux only: it reads sockets by recvmmsg and counts the kernel's drops from SO_RXQ_OVFL"
);

pub mod admit;
pub mod aggregate;
pub mod command;
pub mod config;
pub mod expose;
pub mod identity;
pub mod listen;
pub mod map;
pub mod model;
pub mod parse;
pub mod pipeline;
pub mod telemetry;
