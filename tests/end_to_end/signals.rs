//! Signals in a row, too early, or of kinds that nobody needs: reloads and the end come as asked, and no line is lost.

use std::fs::{self, File};
use std::io::Write;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::harness::{Sidecar, spawn, spawn_after, wait_until};

fn reloads(sidecar: &Sidecar) -> f64 {
    sidecar.scrape().value("statsieve_config_reloads_total{outcome=\"success\"}")
}

/// A configuration that takes a while to read: ten thousand rules.
fn large() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules: String =
        (0..10_000).map(|n| format!("[[mapping.rules]]\nmatch = \"bot{n}.*\"\nname = \"bot{n}_$1\"\n")).collect();
    fs::write(file.path(), rules).unwrap();
    file
}

#[test]
fn fifty_hangups_and_two_terminations_in_a_row_reload_and_end_it_with_every_line_in_the_books() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "[labels]\nmax_values = 7\n").unwrap();
    let sidecar = Sidecar::start_with(&["http.drain=300s"], &["--config", file.path().to_str().unwrap()]);
    let sender = sidecar.sender();
    for n in 0..50 {
        sender.send(b"hits:1|c");
        sidecar.signal(Signal::SIGHUP);
        if n % 10 == 9 {
            // Those that come while one is obeyed are one more, so it is one of ten at least.
            sidecar.wait_until("it has read it again", |it| reloads(it) >= f64::from(n / 10 + 1));
        }
    }
    let scrape = sidecar.settled(50);
    scrape.assert("hits_total", 50.0);
    assert_eq!((scrape.recorded(), scrape.dropped()), (50.0, 0.0));
    scrape.assert("statsieve_config_reloads_total{outcome=\"failure\"}", 0.0);
    scrape.assert("statsieve_config_last_reload_successful", 1.0);
    sidecar.signal(Signal::SIGTERM);
    // Two that come before the first is seen are one to the kernel.
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn who_is_asked_to_end_while_it_reloads_ends_with_every_line_in_the_last_scrape() {
    let file = large();
    let sidecar = Sidecar::start_with(&["http.drain=300s"], &["--config", file.path().to_str().unwrap()]);
    let sender = sidecar.sender();
    (0..100).for_each(|_| sender.send(b"hits:1|c"));
    (0..5).for_each(|_| sidecar.signal(Signal::SIGHUP));
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    let scrape = sidecar.scrape();
    scrape.assert("hits_total", 100.0);
    assert_eq!((scrape.recorded(), scrape.dropped(), scrape.kernel_drops()), (100.0, 0.0, 0.0));
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn a_hangup_before_it_is_ready_waits_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statsieve.toml");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    // Open to both sides, so that nobody waits for the other and the pipe does not end.
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    let child = spawn(&[], &["--config", path.to_str().unwrap()]);
    let process = Pid::from_raw(child.id() as i32);
    wait_until("it reads its configuration", || {
        let opened = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        opened.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == path))
    });
    (0..3).for_each(|_| kill(process, Signal::SIGHUP).unwrap());
    file.write_all(b"[labels]\nmax_values = 7\n").unwrap();
    drop(file);
    let sidecar = Sidecar::of(child);
    // Nobody writes into the pipe any more, so what is read is empty; which it was not before.
    sidecar.wait_until("it has read it again", |it| {
        it.scrape().value("statsieve_config_reloads_total{outcome=\"failure\"}") == 1.0
    });
    assert!(sidecar.get("/api/v1/config", &[]).text().contains("\nmax_values = 7\n"));
    sidecar.take(&["hits:1|c"]).assert("hits_total", 1.0);
    sidecar.stop();
}

/// Who asks for the end by a key of the terminal gets it at once; what is there for others changes nothing.
#[test]
fn signals_of_other_kinds_either_end_it_as_they_do_everywhere_or_change_nothing() {
    let sidecar = Sidecar::start(&[]);
    for signal in [Signal::SIGPIPE, Signal::SIGWINCH, Signal::SIGCHLD, Signal::SIGURG, Signal::SIGCONT] {
        sidecar.signal(signal);
    }
    let scrape = sidecar.take(&["hits:1|c"]);
    scrape.assert("hits_total", 1.0);
    assert_eq!((scrape.recorded(), scrape.dropped()), (1.0, 0.0));
    sidecar.stop();
    // What is ignored here is in each child: shells start their background jobs so.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let is_heard = |signal: &Signal| ignored & (1 << (*signal as u32 - 1)) == 0;
    for signal in [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2].into_iter().filter(is_heard) {
        // SIGQUIT would leave the memory of the process in a file.
        let sidecar = Sidecar::of(spawn_after("ulimit -c 0", &[], &[]));
        sidecar.take(&["hits:1|c"]);
        sidecar.signal(signal);
        let status = sidecar.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal as i32), "{signal}: {status}");
    }
}

/// As `nohup` starts it.
#[test]
fn signals_that_are_ignored_at_start_are_obeyed() {
    let sidecar = Sidecar::of(spawn_after("trap '' HUP TERM", &[], &[]));
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it has read it again", |it| reloads(it) == 1.0);
    sidecar.take(&["hits:1|c"]).assert("hits_total", 1.0);
    sidecar.stop();
}
