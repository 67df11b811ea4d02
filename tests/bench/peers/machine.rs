//! What the figures were measured on.

use std::fs;
use std::process::Command;

/// One sentence: processor, cores, kernel, compiler.
pub(crate) fn describe() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // What this thread may use would be less, since it is kept on one.
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{}, {cores} cores, Linux {}, {}", processor(&text), kernel(), compiler())
}

fn processor(text: &str) -> String {
    // ARM names no model.
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    // "rustc 1.90.0 (hash date)"
    said.split_ascii_whitespace()
        .nth(1)
        .map_or_else(|| "an unknown rustc".to_owned(), |version| format!("rustc {version}"))
}
