//! Stops a build for anything but Linux, and hands the compiler's version to `statsieve_build_info`.
//!
//! Always: on Linux it cannot fail. A compiler that does not say its version is "unknown", and no repository is asked
//! for a revision: `STATSIEVE_REVISION` in the environment names it, so a build from an archive gives the same result.

use std::process::Command;

#[allow(clippy::print_stdout, reason = "it is how a build script speaks to cargo")]
fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        println!(
            "cargo::error=statsieve runs on Linux only: it reads sockets by recvmmsg and counts the kernel's drops from \
             SO_RXQ_OVFL"
        );
    }
    let version = std::env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        // "rustc 1.95.0 (0123456789 2026-04-14)"
        .and_then(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=STATSIEVE_RUSTC={version}");
    println!("cargo::rerun-if-changed=src/build.rs");
}
