//! A sidecar of its own for a scenario: this very program, on ports that the kernel picks.
//!
//! In: settings. Out: where it listens. Always: it ends when the value is dropped.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Sources;

/// Longest wait for a start, and for an end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whatever the configuration says: it listens for this scenario alone, serves plain text, and ends when told.
const OWN: [&str; 12] = [
    "listen.udp=127.0.0.1:0",
    "listen.tcp=",
    "listen.unix_datagram=",
    "listen.unix_stream=",
    "http.listen=127.0.0.1:0",
    "http.metrics_path=/metrics",
    "http.formats=[\"text\"]",
    "http.web_config_file=",
    "http.drain=0s",
    "telemetry.own_metrics=full",
    "log.level=info",
    "log.format=logfmt",
];

/// A running child.
#[derive(Debug)]
pub(super) struct Sidecar {
    child: Child,
    pub(super) udp: String,
    pub(super) http: String,
}

impl Sidecar {
    /// Starts one with `settings` under those of `sources`, and waits until it serves.
    ///
    /// # Errors
    /// If it cannot start; the message holds what it said.
    pub(super) fn start(settings: &[&str], sources: &Sources) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_remove("STATSIEVE_CONFIG");
        if let Some(file) = &sources.file {
            command.arg("--config").arg(file);
        }
        for setting in settings.iter().copied().chain(sources.set.iter().map(String::as_str)).chain(OWN) {
            command.args(["--set", setting]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = child.stderr.take();
        let mut sidecar = Self { child, udp: String::new(), http: String::new() };
        let (told, lines) = mpsc::channel();
        // Reads to the end, so that the child never waits for us.
        std::thread::spawn(move || {
            for line in log.into_iter().flat_map(|log| BufReader::new(log).lines()).map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        while sidecar.http.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = lines.recv_timeout(left) else {
                return Err(io::Error::other(format!("the sidecar does not start:\n{said}")));
            };
            // HTTP is logged last.
            match address_in(&line) {
                Some(("udp", address)) => sidecar.udp = address.to_owned(),
                Some(("http", address)) => sidecar.http = address.to_owned(),
                _ => {}
            }
            said.push_str(&line);
            said.push('\n');
        }
        Ok(sidecar)
    }

    /// The most memory that it has had resident so far, in bytes.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().map(Pid::from_raw);
        // All of these fail only if it is gone already.
        let _ = pid.map(|pid| kill(pid, Signal::SIGTERM));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Listener and address of a line that tells of one.
fn address_in(line: &str) -> Option<(&str, &str)> {
    let value = |key| line.split_ascii_whitespace().find_map(|pair| pair.strip_prefix(key));
    line.contains("message=listening").then_some(())?;
    Some((value("listener=")?, value("address=")?.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_log() {
        let line = "ts=1 level=info message=listening listener=udp address=127.0.0.1:5 workers=2";
        assert_eq!(address_in(line), Some(("udp", "127.0.0.1:5")));
        assert_eq!(address_in("level=info message=stopped scraped=true"), None);
    }
}
