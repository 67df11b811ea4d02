//! Whoever should take the log does not: the sidecar goes on, and says later what was lost.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;

use crate::harness::{KillOnDrop, Log, get, read_samples, request, wait_for, wait_until};
use crate::service::handed_over;

/// A sidecar of which nothing is known from its log.
struct Mute {
    child: KillOnDrop,
    udp: SocketAddr,
    http: SocketAddr,
    config: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Mute {
    fn start(stderr: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("statsieve.toml");
        fs::write(&config, "").unwrap();
        let (udp, http) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = (udp.local_addr().unwrap(), http.local_addr().unwrap());
        let sockets = vec![(udp.into(), "udp"), (http.into(), "http")];
        let mut command = handed_over(sockets, &["http.lifecycle=true", "http.drain=0s"]);
        let child = command.args(["--config", config.to_str().unwrap()]).stderr(stderr).spawn().unwrap();
        let it = Self { child: KillOnDrop(Some(child)), udp: addresses.0, http: addresses.1, config, _folder: folder };
        wait_until("it is ready", || get(it.http, "/-/ready", &[]).is_ok_and(|reply| reply.status == 200));
        it
    }

    /// Has it log a line of some 100 KiB, and answer a scrape.
    fn log_much(&self) {
        let bad: String = (0..500).map(|n| format!("[not_a_table_of_this_program_{n}]\nkey = {n}\n")).collect();
        fs::write(&self.config, bad).unwrap();
        assert_eq!(request(self.http, "POST", "/-/reload", &[]).unwrap().status, 500);
        let reply = get(self.http, "/metrics", &[]).unwrap();
        assert_eq!(reply.status, 200);
    }

    /// Sends a line and waits until it is recorded.
    fn take(&self, line: &str, series: &str, value: f64) {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(line.as_bytes(), self.udp).unwrap();
        wait_until("the line is recorded", || {
            let text = get(self.http, "/metrics", &[]).unwrap().text();
            read_samples(&text).get(series) == Some(&value)
        });
    }

    fn stop(mut self) {
        assert_eq!(request(self.http, "POST", "/-/quit", &[]).unwrap().status, 200);
        let mut child = self.child.0.take().unwrap();
        wait_until("it has ended", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_reader_of_the_log_that_hangs_holds_nothing_up_and_is_told_what_it_missed() {
    let (reader, writer) = std::io::pipe().unwrap();
    let it = Mute::start(writer);
    // A pipe holds 64 KiB; what may wait beside it is 256.
    for n in 1..=20 {
        it.log_much();
        it.take("hits:1|c", "hits_total", f64::from(n));
    }
    // It reads again: what waited comes, then what is logged from now on, and between the two what is missing.
    let log = Log::default();
    let following = log.follow(reader);
    let find = |text: &str| log.text().lines().find(|line| line.contains(text)).map(str::to_owned);
    wait_until("what waited comes", || find("message=listening").is_some());
    fs::write(&it.config, "# good again\n").unwrap();
    assert_eq!(request(it.http, "POST", "/-/reload", &[]).unwrap().status, 200);
    let told = wait_for("it tells what is missing", || find("lines of this log are lost"));
    let lost: u32 = told.split(' ').find_map(|word| word.strip_prefix("lines=")?.parse().ok()).unwrap();
    let refused = log.text().lines().filter(|line| line.contains("configuration refused")).count() as u32;
    assert_eq!(refused + lost, 20, "{told}");
    assert!(lost > 0, "{told}");
    it.stop();
    following.join().unwrap();
    assert!(find("message=stopped").is_some(), "the last line is there");
}

#[test]
fn a_log_on_a_full_disk_and_one_that_nobody_reads_any_more_cost_lines_of_the_log_alone() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let it = Mute::start(full);
    it.log_much();
    it.take("hits:1|c", "hits_total", 1.0);
    it.stop();

    let (reader, writer) = std::io::pipe().unwrap();
    let it = Mute::start(writer);
    drop(reader);
    it.log_much();
    it.take("hits:1|c", "hits_total", 1.0);
    it.stop();
}

#[test]
fn a_sidecar_ends_although_its_log_is_stuck() {
    let (reader, writer) = std::io::pipe().unwrap();
    let it = Mute::start(writer);
    (0..20).for_each(|_| it.log_much());
    it.stop();
    drop(reader);
}
