//! Under a service manager: sockets that are handed over and outlive the process, what it is told, the unit files.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Scrape, Sidecar, end_of_start, flood_alone, wait_until};

/// The program as a manager starts it: each descriptor from 3 on, under its name.
pub(crate) fn handed_over(sockets: Vec<(OwnedFd, &str)>, settings: &[&str]) -> Command {
    let count = sockets.len().to_string();
    let names: Vec<&str> = sockets.iter().map(|(_, name)| *name).collect();
    // The shell becomes the program, so that it has the process number which it says.
    let mut command = Command::new("sh");
    command
        .args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_statsieve")])
        .args(["--set", "sampling.mode=off", "--set", "http.drain=300s"])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .env_remove("STATSIEVE_CONFIG")
        .env("LISTEN_FDS", count)
        .env("LISTEN_FDNAMES", names.join(":"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mapped = sockets.into_iter().zip(3..).map(|((parent_fd, _), child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mapped.collect()).unwrap();
    command
}

fn start(sockets: Vec<(OwnedFd, &str)>, settings: &[&str]) -> Sidecar {
    Sidecar::of(handed_over(sockets, settings).spawn().unwrap())
}

/// Asks one that was handed its sockets to stop, reads its last numbers, and waits for its end.
fn last_scrape(sidecar: Sidecar) -> Scrape {
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    let scrape = sidecar.scrape();
    assert_eq!(sidecar.wait().code(), Some(0));
    scrape
}

#[test]
fn a_restart_under_load_loses_nothing() {
    const LINES: u64 = 100_000;
    const A_SECOND: u64 = 50_000;
    let _alone = flood_alone();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Room for all of them: how long the next process takes to start is not what this is about.
    let _ = nix::sys::socket::setsockopt(&udp, nix::sys::socket::sockopt::RcvBufForce, &(128 << 20));
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let sockets = || vec![(udp.try_clone().unwrap().into(), "udp"), (http.try_clone().unwrap().into(), "http")];
    let sent = AtomicU64::new(0);
    let first = start(sockets(), &[]);
    assert_eq!(first.udp, address);
    let (first, second) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let start = Instant::now();
            for n in 0..LINES {
                while start.elapsed() < Duration::from_nanos(n * 1_000_000_000 / A_SECOND) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                sender.send_to(b"hits:1|c", address).unwrap();
                sent.fetch_add(1, Relaxed);
            }
        });
        wait_until("a third is sent", || sent.load(Relaxed) > LINES / 3);
        let first = last_scrape(first);
        let sent_before = sent.load(Relaxed);
        let second = start(sockets(), &[]);
        assert!(sent_before < LINES, "the load went on while there was no process");
        wait_until("all is sent", || sent.load(Relaxed) == LINES);
        (first, second)
    });
    let before = first.value("hits_total");
    assert!(before > 0.0 && before < LINES as f64, "{before}");
    let mut last = None;
    wait_until("the two add up to what was sent", || {
        let scrape = second.scrape();
        let dropped = scrape.kernel_drops();
        let all = before + scrape.get("hits_total").unwrap_or(0.0) + dropped;
        last = Some((scrape.get("hits_total"), dropped));
        all >= LINES as f64
    });
    let scrape = second.scrape();
    let sum = before + scrape.value("hits_total") + scrape.kernel_drops();
    assert_eq!(sum, LINES as f64, "{before} and {last:?}");
    last_scrape(second);
}

#[test]
fn a_kill_costs_at_most_what_came_since_the_last_scrape_and_nothing_that_came_while_no_process_ran() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datagrams");
    let (udp, unix) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UnixDatagram::bind(&path).unwrap());
    let (tcp, http) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let sockets = || {
        vec![
            (udp.try_clone().unwrap().into(), "udp"),
            (unix.try_clone().unwrap().into(), ""),
            (tcp.try_clone().unwrap().into(), "tcp"),
            (http.try_clone().unwrap().into(), "http"),
        ]
    };
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(udp.local_addr().unwrap()).unwrap();
    let to_unix = UnixDatagram::unbound().unwrap();
    to_unix.connect(&path).unwrap();
    let send = |count: usize| (0..count).for_each(|_| assert_eq!(sender.send(b"hits:1|c").unwrap(), 8));
    let (mut sent, mut scraped, mut may_be_lost) = (0.0, 0.0, 0.0);
    // What the next one finds waiting, at least, and what the one before may have read of it.
    let (mut waiting, mut open) = (0.0, 0.0);
    for since_the_scrape in [40, 0, 200] {
        let sidecar = start(sockets(), &[]);
        send(100);
        sent += 100.0;
        sidecar.wait_until("all that waited is taken", |it| {
            it.scrape().get("hits_total").unwrap_or(0.0) >= waiting + 100.0
        });
        // What is read now is what was not read before it was killed.
        sidecar.wait_until("nothing comes any more", |it| {
            let scrape = it.scrape();
            let queued: f64 = scrape.sum("statsieve_receive_queue_bytes");
            queued == 0.0 && scrape.lines() == it.scrape().lines()
        });
        let scrape = sidecar.scrape();
        let found = scrape.value("hits_total");
        assert!((waiting + 100.0..=waiting + 100.0 + open).contains(&found), "{found} of {waiting} and {open}");
        assert_eq!((scrape.recorded(), scrape.dropped(), scrape.kernel_drops()), (found, 0.0, 0.0));
        scraped += found;
        send(since_the_scrape);
        sent += since_the_scrape as f64;
        may_be_lost += since_the_scrape as f64;
        sidecar.signal(Signal::SIGKILL);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&sidecar.wait()), Some(9));

        send(50);
        assert_eq!(to_unix.send(b"hits:1|c").unwrap(), 8);
        let mut stream = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        std::io::Write::write_all(&mut stream, b"hits:1|c\n").unwrap();
        sent += 52.0;
        (waiting, open) = (52.0, since_the_scrape as f64);
    }
    // A scrape that comes while there is no process is answered by the next.
    let address = http.local_addr().unwrap();
    let asked = std::thread::spawn(move || crate::harness::get(address, "/-/healthy", &[]).unwrap().status);
    let sidecar = start(sockets(), &[]);
    assert_eq!(asked.join().unwrap(), 200);
    sidecar.wait_until("all that waited is taken", |it| it.scrape().get("hits_total").unwrap_or(0.0) >= waiting);
    let scrape = last_scrape(sidecar);
    scraped += scrape.value("hits_total");
    let lost = sent - scraped;
    assert!((0.0..=may_be_lost).contains(&lost), "{lost} of {sent} are lost, of which {may_be_lost} may be");
}

#[test]
fn what_the_kernel_dropped_between_two_processes_is_counted_by_the_next() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&udp).set_recv_buffer_size(1).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..1000 {
        sender.send_to(b"hits:1|c", udp.local_addr().unwrap()).unwrap();
    }
    let sidecar = start(vec![(udp.into(), "")], &["http.listen=127.0.0.1:0", "http.drain=100ms"]);
    sidecar.wait_until("it has taken what was kept", |it| it.scrape().get("hits_total").is_some());
    let scrape = sidecar.scrape();
    assert!(scrape.kernel_drops() > 0.0, "{}", scrape.text);
    assert_eq!(scrape.value("hits_total") + scrape.kernel_drops(), 1000.0);
    sidecar.stop();
}

#[test]
fn sockets_of_every_kind_are_taken_and_replace_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let sockets = vec![
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "statsieve.socket"),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "statsieve.socket"),
        (UnixDatagram::bind(at("datagrams")).unwrap().into(), "statsieve.socket"),
        (UnixListener::bind(at("streams")).unwrap().into(), "statsieve.socket"),
        (TcpListener::bind("127.0.0.1:0").unwrap().into(), "tcp"),
        (TcpListener::bind("127.0.0.1:0").unwrap().into(), "http"),
    ];
    // An address that cannot be bound would end it, were it looked at.
    let unused = ["listen.udp=203.0.113.1:8125", "http.listen=203.0.113.1:9102", "listen.tcp=203.0.113.1:8125"];
    let sidecar = start(sockets, &[unused.as_slice(), &["http.drain=100ms"]].concat());
    sidecar.send(&["udp:1|c"]);
    UnixDatagram::unbound().unwrap().send_to(b"datagrams:1|c", at("datagrams")).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(at("streams")).unwrap();
    std::io::Write::write_all(&mut stream, b"streams:1|c\n").unwrap();
    let mut tcp = std::net::TcpStream::connect(sidecar.address_of("tcp")).unwrap();
    std::io::Write::write_all(&mut tcp, b"tcp:1|c\n").unwrap();
    let scrape = sidecar.settled(4);
    for name in ["udp_total", "datagrams_total", "streams_total", "tcp_total"] {
        scrape.assert(name, 1.0);
    }
    assert!(sidecar.log().contains(&format!("address={}", at("streams").display())), "{}", sidecar.log());
    // What another made is not removed.
    sidecar.stop();
    assert!(at("streams").exists() && at("datagrams").exists());
}

#[test]
fn what_waits_in_a_socket_at_the_end_is_the_next_processes_whether_there_is_a_last_scrape_or_not() {
    const LINES: u64 = 20_000;
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _ = nix::sys::socket::setsockopt(&udp, nix::sys::socket::sockopt::RcvBufForce, &(128 << 20));
    let sockets = || vec![(udp.try_clone().unwrap().into(), "udp")];
    let settings = ["http.listen=127.0.0.1:0", "listen.workers=1"];
    let first = start(sockets(), &settings);
    // It finds the signal and the lines at the same moment, and may take some of these.
    first.signal(Signal::SIGSTOP);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(udp.local_addr().unwrap()).unwrap();
    (0..LINES).for_each(|_| assert_eq!(sender.send(b"hits:1|c").unwrap(), 8));
    first.signal(Signal::SIGTERM);
    first.signal(Signal::SIGCONT);
    first.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    let before = first.scrape();
    assert_eq!(first.wait().code(), Some(0));
    let second = start(sockets(), &settings);
    let left = LINES as f64 - before.lines();
    assert!(left > 0.0, "all was taken");
    let scrape = second.settled(left as u64);
    assert_eq!((scrape.value("hits_total"), scrape.kernel_drops() + before.kernel_drops()), (left, 0.0));
    last_scrape(second);
}

#[test]
fn a_stream_of_its_own_is_served_to_the_end_though_another_was_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let tcp = vec![(TcpListener::bind("127.0.0.1:0").unwrap().into(), "tcp")];
    let own = format!("listen.unix_stream={}", path.display());
    let sidecar = start(tcp, &["http.listen=127.0.0.1:0", "listen.udp=127.0.0.1:0", &own]);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it is no longer ready", |it| it.get("/-/ready", &[]).status == 503);
    std::io::Write::write_all(&mut stream, b"hits:1|c\n").unwrap();
    let read = "\"lines\":1,";
    sidecar.wait_until("it is read", |it| it.get("/api/v1/status", &[]).text().replace(' ', "").contains(read));
    sidecar.scrape().assert("hits_total", 1.0);
    assert_eq!(sidecar.wait().code(), Some(0));
}

#[test]
fn each_socket_that_others_reach_is_told_and_not_the_first_alone() {
    let sockets = ["127.0.0.1:0", "0.0.0.0:0"].map(|address| UdpSocket::bind(address).unwrap());
    let port = sockets[1].local_addr().unwrap().port();
    let sockets = sockets.into_iter().map(|socket| (socket.into(), "udp")).collect();
    let sidecar = start(sockets, &["http.listen=127.0.0.1:0", "http.drain=0s"]);
    let log = sidecar.log();
    assert!(log.contains(&format!("listen.udp: 0.0.0.0:{port} can be reached from other machines")), "{log}");
    sidecar.stop();
}

#[test]
fn a_socket_of_no_use_is_an_error_that_says_what_would_be() {
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for (sockets, said) in [
        (vec![(tcp(), "statsieve.socket")], "FileDescriptorName= must be"),
        (vec![(tcp(), "http"), (tcp(), "http")], "is the second one for HTTP"),
        (vec![(udp(), "http")], "HTTP is served by TCP alone"),
        (vec![(udp(), "udp"), (file, "x")], "is none of UDP, TCP, unix datagrams and unix streams"),
    ] {
        let (status, log) = end_of_start(handed_over(sockets, &["http.listen=127.0.0.1:0"]).spawn().unwrap());
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(said), "no {said:?} in\n{log}");
    }
}

#[test]
fn the_manager_is_told_of_readiness_reloads_the_end_and_that_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let n = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("never heard {wanted}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    };
    let mut command = handed_over(Vec::new(), &["listen.udp=127.0.0.1:0", "http.listen=127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let sidecar = Sidecar::of(command.spawn().unwrap());
    hears("READY=1");
    (0..3).for_each(|_| _ = hears("WATCHDOG=1"));
    // Without a descriptor it lives as well. What was sent before may wait here.
    let limited =
        Command::new("prlimit").args([format!("--pid={}", sidecar.pid()), "--nofile=3:64".to_owned()]).status();
    if limited.is_ok_and(|status| status.success()) {
        manager.set_nonblocking(true).unwrap();
        while manager.recv(&mut [0; 4096]).is_ok() {}
        manager.set_nonblocking(false).unwrap();
        (0..3).for_each(|_| _ = hears("WATCHDOG=1"));
        let limits = [format!("--pid={}", sidecar.pid()), "--nofile=64:64".to_owned()];
        assert!(Command::new("prlimit").args(limits).status().unwrap().success());
    }
    sidecar.signal(Signal::SIGHUP);
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    sidecar.signal(Signal::SIGTERM);
    hears("STOPPING=1");
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.wait().code(), Some(0));
}

/// The tool that comes with systemd hands a socket over as systemd itself does.
#[test]
#[ignore = "needs systemd-socket-activate; tests/run installs it"]
fn systemd_itself_starts_it_at_the_first_datagram() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new("systemd-socket-activate")
        .args(["--datagram", &format!("--listen=127.0.0.1:{port}"), "--fdname=udp", env!("CARGO_BIN_EXE_statsieve")])
        .args(["--set", "http.listen=127.0.0.1:0", "--set", "http.drain=100ms"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The tool starts the program at the first datagram; there is nobody to take one that comes before it listens.
    let bound = format!("0100007F:{port:04X} 00000000:0000 ");
    wait_until("it listens", || std::fs::read_to_string("/proc/self/net/udp").unwrap().contains(&bound));
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(("127.0.0.1", port)).unwrap();
    sender.send(b"hits:1|c").unwrap();
    let sidecar = Sidecar::of(child);
    assert_eq!(sidecar.udp.port(), port);
    sidecar.settled(1).assert("hits_total", 1.0);
    sidecar.stop();
}

/// `systemd-analyze verify` ends with 0 even for keys that it does not know, but not silently.
#[test]
#[ignore = "needs systemd-analyze; tests/run installs it"]
fn the_units_are_valid_and_hardened() {
    let folder = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let mut paths = Vec::new();
    for unit in std::fs::read_dir(units).unwrap() {
        let unit = unit.unwrap();
        let text = std::fs::read_to_string(unit.path()).unwrap();
        let path = folder.path().join(unit.file_name());
        std::fs::write(&path, text.replace("/usr/local/bin/statsieve", env!("CARGO_BIN_EXE_statsieve"))).unwrap();
        paths.push(path);
    }
    assert_eq!(paths.len(), 3);
    let verify = Command::new("systemd-analyze").arg("verify").args(&paths).output().unwrap();
    assert!(verify.status.success() && verify.stderr.is_empty(), "{}", String::from_utf8_lossy(&verify.stderr));
    let service = folder.path().join("statsieve.service");
    let security = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15"])
        .arg(service)
        .output()
        .unwrap();
    assert!(security.status.success(), "{}", String::from_utf8_lossy(&security.stdout));
}
