//! File descriptors: raised as far as may be, kept for scrapes, and all used up; UDP goes on, and nothing is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit};

use crate::harness::{PATIENCE, Reply, Scrape, Sidecar, read_reply, read_samples, spawn_after};

/// One HTTP connection for several requests: it was there before there were no descriptors left.
pub(crate) struct Kept(TcpStream);

impl Kept {
    pub(crate) fn connect(sidecar: &Sidecar) -> Self {
        let stream = TcpStream::connect(sidecar.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, path: &str) {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Reply {
        let (mut bytes, mut part) = (Vec::new(), [0; 65_536]);
        loop {
            let length = self.0.read(&mut part).unwrap();
            assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..length]);
            if let Some(reply) = read_reply(&bytes) {
                return reply;
            }
        }
    }

    fn get(&mut self, path: &str) -> Reply {
        self.ask(path);
        self.answer()
    }

    pub(crate) fn scrape(&mut self) -> Scrape {
        let text = self.get("/metrics").text();
        Scrape { samples: read_samples(&text), text, ..Scrape::default() }
    }
}

/// Lines of a log that hold all of these words.
fn count(log: &str, words: [&str; 2]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn errors(scrape: &Scrape, kind: &str) -> f64 {
    match kind {
        "HTTP" => scrape.value("statsieve_http_accept_errors_total"),
        _ => scrape.value(&format!("statsieve_listener_errors_total{{listener=\"{kind}\"}}")),
    }
}

#[test]
fn without_descriptors_udp_and_open_connections_go_on_and_what_waits_is_taken_once_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let sidecar = Sidecar::start(&[
        "listen.tcp=127.0.0.1:0",
        &format!("listen.unix_stream={}", path.display()),
        "listen.workers=1",
    ]);
    let mut kept = Kept::connect(&sidecar);
    let before = kept.scrape().value("process_open_fds");
    let limit = before as u64 + 8;
    let process = format!("--pid={}", sidecar.pid());
    let limited = Command::new("prlimit").args([&process, &format!("--nofile={limit}:{limit}")]).status();
    if !limited.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no prlimit here that can limit a process");
        return;
    }

    let started = Instant::now();
    let (mut tcp, mut unix) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let mut stream = TcpStream::connect(sidecar.address_of("tcp")).unwrap();
        stream.write_all(b"hits:1|c\n").unwrap();
        tcp.push(stream);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"hits:1|c\n").unwrap();
        unix.push(stream);
    }
    sidecar.wait_until("there are none left", |_| {
        let scrape = kept.scrape();
        errors(&scrape, "tcp") > 0.0 && errors(&scrape, "unix_stream") > 0.0
    });
    // Behind them, so that HTTP finds no descriptor either, and more than one: a file that a scrape held open while the
    // streams found nothing leaves its descriptor to whoever comes next.
    let mut waiting: Vec<Kept> = (0..8).map(|_| Kept::connect(&sidecar)).collect();
    waiting.iter_mut().for_each(|connection| connection.ask("/-/healthy"));
    let mut lines = 80.0;

    // They are tried again ever more slowly, up to once a second, not in a circle, which would be hundreds of times; one
    // that finds such a descriptor begins anew.
    let kinds = ["tcp", "unix_stream", "HTTP"];
    sidecar.wait_until("each was tried again and again", |_| {
        let scrape = kept.scrape();
        let tried = started.elapsed().as_secs_f64();
        let most = 60.0 + 2.0 * tried;
        kinds.iter().all(|kind| {
            let errors = errors(&scrape, kind);
            assert!(errors <= most, "{errors} failures of {kind}, more than {most}");
            errors >= 8.0 && tried > 3.0
        })
    });
    // UDP is recorded meanwhile, and shown to whoever is connected.
    sidecar.send(&["hits:1|c"; 50]);
    lines += 50.0;
    sidecar.wait_until("the datagrams are taken", |_| kept.scrape().value("hits_total") >= 50.0);
    let scrape = kept.scrape();
    assert!(scrape.lines() < lines, "some of the streams wait");
    let log = sidecar.log();
    for kind in kinds {
        let (failed, again) = (count(&log, ["cannot accept", kind]), count(&log, ["accepted again", kind]));
        assert_eq!(failed, again + 1, "{kind} in {log}");
        assert!((failed as f64) < errors(&scrape, kind) / 2.0, "each failure of {kind} is told: {log}");
    }
    scrape.assert("statsieve_listener_up{listener=\"tcp\"}", 0.0);
    scrape.assert("statsieve_listener_up{listener=\"unix_stream\"}", 0.0);
    let ready = kept.get("/-/ready");
    assert_eq!((ready.status, ready.text().as_str()), (503, "failing, and tried again: tcp, unix_stream\n"));

    // The streams that are served go, and with them their descriptors.
    drop((tcp, unix));
    waiting.iter_mut().for_each(|connection| assert_eq!(connection.answer().status, 200));
    drop((waiting, kept));
    sidecar.wait_until("it is ready", |it| it.get("/-/ready", &[]).status == 200);
    let scrape = sidecar.settled(lines as u64);
    scrape.assert("hits_total", lines);
    assert_eq!((scrape.recorded(), scrape.dropped(), scrape.kernel_drops()), (lines, 0.0, 0.0), "{}", scrape.text);
    for kind in ["tcp", "unix_stream"] {
        scrape.assert(&format!("statsieve_connections_total{{listener=\"{kind}\"}}"), 40.0);
        assert!(count(&sidecar.log(), [kind, "accepted again"]) >= 1, "{}", sidecar.log());
    }
    sidecar.wait_until("all descriptors are free again", |it| it.scrape().get("process_open_fds") <= Some(before));
    sidecar.stop();
}

#[test]
fn a_low_limit_is_raised_to_what_is_allowed() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let sidecar = Sidecar::of(spawn_after("ulimit -Sn 60", &["listen.tcp=127.0.0.1:0"], &[]));
    sidecar.scrape().assert("process_max_fds", hard as f64);
    assert_eq!(count(&sidecar.log(), ["too low", ""]), usize::from(hard < 1300), "{}", sidecar.log());
    sidecar.stop();
}

#[test]
fn under_a_limit_too_low_for_the_configuration_streams_leave_enough_for_scrapes() {
    const STREAMS: usize = 300;
    let settings = ["listen.tcp=127.0.0.1:0", "listen.workers=1", "http.max_connections=20"];
    let sidecar = Sidecar::of(spawn_after("ulimit -n 150", &settings, &[]));
    let log = sidecar.log();
    let told = log.lines().find(|line| line.contains("too low")).unwrap_or_else(|| panic!("it is not told: {log}"));
    let figure = |key: &str| -> f64 {
        let found = told.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
        found.unwrap_or_else(|| panic!("no {key} in {told}"))
    };
    let served = figure("streams");
    assert_eq!((figure("limit"), figure("needed")), (150.0, 40.0 + 2.0 * 2.0 + 21.0 + 1025.0));
    // All who ask for HTTP are served beside them.
    let _silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(sidecar.http).unwrap()).collect();
    let mut streams: Vec<TcpStream> =
        (0..STREAMS).map(|_| TcpStream::connect(sidecar.address_of("tcp")).unwrap()).collect();
    let value = |scrape: &Scrape, of: &str| scrape.value(&format!("statsieve_{of}{{listener=\"tcp\"}}"));
    sidecar.wait_until("all are served or closed", |it| {
        let scrape = it.scrape();
        value(&scrape, "connections") + value(&scrape, "connections_refused_total") == STREAMS as f64
    });
    let scrape = sidecar.scrape();
    assert_eq!(value(&scrape, "connections"), served);
    // Those that are closed may or may not have heard of it.
    streams.iter_mut().for_each(|stream| _ = stream.write_all(b"hits:1|c\n"));
    let scrape = sidecar.settled(served as u64);
    scrape.assert("hits_total", served);
    assert_eq!((scrape.recorded(), scrape.dropped()), (served, 0.0));
    assert_eq!((errors(&scrape, "tcp"), errors(&scrape, "HTTP")), (0.0, 0.0), "{}", sidecar.log());
    sidecar.stop();
}

/// Standard error is closed: what the program opens first gets its number, and must not be written into.
#[test]
fn standard_streams_that_are_closed_are_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.sock");
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-", env!("CARGO_BIN_EXE_statsieve")])
        .args(["--set", "http.listen=127.0.0.1:0", "--set", "listen.udp="])
        .args(["--set", &format!("listen.unix_datagram={}", path.display())])
        .env_remove("STATSIEVE_CONFIG")
        .stdin(Stdio::null());
    let child = crate::harness::KillOnDrop(Some(command.spawn().unwrap()));
    let process = child.0.as_ref().unwrap().id();
    crate::harness::wait_until("it listens", || path.exists());
    for descriptor in 0..3 {
        let target = std::fs::read_link(format!("/proc/{process}/fd/{descriptor}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"), "descriptor {descriptor}");
    }
}
