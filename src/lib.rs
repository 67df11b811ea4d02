//! Statsieve.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "statsieve runs on Linux only: it reads sockets by recvmmsg and counts the kernel's drops from SO_RXQ_OVFL"
);

pub mod command;
pub mod config;
pub mod expose;
pub mod model;
pub mod telemetry;
