//! TCP and unix sockets: every line arrives, one sender's faults are its own, and nothing is lost where the sender can
//! be made to wait.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Scrape, Sidecar, start_in_vain, wait_until};

fn tcp(sidecar: &Sidecar) -> TcpStream {
    TcpStream::connect(sidecar.address_of("tcp")).unwrap()
}

fn of(scrape: &Scrape, metric: &str, listener: &str) -> f64 {
    scrape.value(&format!("statsieve_{metric}{{listener=\"{listener}\"}}"))
}

/// A payload behind its length, as clients of DogStatsD write it.
fn frame(payload: &[u8]) -> Vec<u8> {
    [&u32::try_from(payload.len()).unwrap().to_le_bytes()[..], payload].concat()
}

/// Waits until the other side closes.
fn assert_closed(mut stream: impl Read) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn lines_over_tcp_arrive_however_they_are_cut() {
    let sidecar = Sidecar::start(&["listen.tcp=127.0.0.1:0", "listen.max_line_bytes=100"]);
    let mut stream = tcp(&sidecar);
    stream.set_nodelay(true).unwrap();
    let text = format!("a:1|c\r\nb:2|c\n\na:{}|c\nb:3|c\nlast:1|c", "1".repeat(300));
    for piece in text.as_bytes().chunks(7) {
        stream.write_all(piece).unwrap();
    }
    drop(stream);
    let scrape = sidecar.settled(5);
    for (series, value) in [
        ("a_total", 1.0),
        ("b_total", 5.0),
        ("last_total", 1.0),
        ("statsieve_samples_dropped_total{reason=\"line_too_long\"}", 1.0),
        ("statsieve_lines_total", 5.0),
        ("statsieve_received_bytes_total{listener=\"tcp\"}", text.len() as f64),
        ("statsieve_connections_total{listener=\"tcp\"}", 1.0),
    ] {
        scrape.assert(series, value);
    }
    sidecar.wait_until("the connection is over", |it| of(&it.scrape(), "connections", "tcp") == 0.0);
    sidecar.stop();
}

#[test]
fn a_unix_stream_takes_lengths_and_newlines_from_different_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream.sock");
    let sidecar = Sidecar::start(&[&format!("listen.unix_stream={}", path.display())]);
    let mut framed = UnixStream::connect(&path).unwrap();
    let mut plain = UnixStream::connect(&path).unwrap();
    for round in 0..50 {
        framed.write_all(&frame(b"hits:1|c|#by:length\nwait:5|ms")).unwrap();
        plain.write_all(b"hits:1|c|#by:newline\nwait:5|ms").unwrap();
        plain.write_all(if round == 49 { b"" } else { b"\n" }).unwrap();
    }
    framed.write_all(&frame(&[b'x'; 40_000])).unwrap();
    framed.write_all(&frame(b"hits:1|c|#by:length")).unwrap();
    drop(plain);
    let scrape = sidecar.settled(202);
    scrape.assert("hits_total{by=\"length\"}", 51.0);
    scrape.assert("hits_total{by=\"newline\"}", 50.0);
    scrape.assert("wait_seconds_count", 100.0);
    scrape.assert("statsieve_samples_dropped_total{reason=\"line_too_long\"}", 1.0);
    assert_eq!(of(&scrape, "connections_total", "unix_stream"), 2.0);
    sidecar.stop();
    assert!(!path.exists(), "the file goes with the sidecar");
}

#[test]
fn unix_datagrams_arrive_over_a_file_with_its_mode_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datagram.sock");
    drop(UnixDatagram::bind(&path).unwrap());
    let settings = [&format!("listen.unix_datagram={}", path.display()), "listen.socket_mode=0622"];
    let sidecar = Sidecar::start(&settings);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
    let client = UnixDatagram::unbound().unwrap();
    client.connect(&path).unwrap();
    // The client waits when the queue is full, so nothing is lost however fast it is.
    for n in 0..5000 {
        client.send(format!("hits:1|c|#k:{}\nwait:5|ms", n % 3).as_bytes()).unwrap();
    }
    // More than a UDP datagram can carry: its tail is lost, and said to be.
    let long = "hits:1|c|#k:0\n".repeat(6000);
    let client = UnixDatagram::unbound().unwrap();
    client.connect(&path).unwrap();
    client.send(long.as_bytes()).unwrap();
    sidecar.wait_until("the long one is taken", |it| {
        it.scrape().get("statsieve_samples_dropped_total{reason=\"line_too_long\"}") == Some(1.0)
    });
    let scrape = sidecar.scrape();
    scrape.assert("wait_seconds_count", 5000.0);
    assert_eq!(scrape.recorded() + scrape.dropped(), scrape.lines());
    assert_eq!(scrape.sum("hits_total") + 5000.0 + 1.0, scrape.lines());
    assert_eq!(
        (of(&scrape, "datagrams_total", "unix_datagram"), of(&scrape, "listener_up", "unix_datagram")),
        (5001.0, 1.0)
    );
    assert!(scrape.value("statsieve_ingest_latency_seconds_count") >= 5001.0, "{}", scrape.text);
    // A second sidecar does not take the file from the first, and a file that is no socket stays what it is.
    let (status, log) = start_in_vain(&settings);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("another process listens there"), "{log}");
    sidecar.stop();
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    let (status, log) = start_in_vain(&settings);
    assert_eq!((status.code(), fs::read_to_string(&path).unwrap().as_str()), (Some(1), "precious"), "{log}");
}

#[test]
fn without_udp_other_listeners_do_and_abstract_names_need_no_file() {
    let name = format!("statsieve-test-{}", std::process::id());
    let sidecar = Sidecar::start(&["listen.udp=", &format!("listen.unix_datagram=@{name}")]);
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
    let client = UnixDatagram::unbound().unwrap();
    client.connect_addr(&address.unwrap()).unwrap();
    client.send(b"hits:1|c").unwrap();
    let scrape = sidecar.settled(1);
    scrape.assert("hits_total", 1.0);
    assert!(scrape.get("statsieve_datagrams_total{listener=\"udp\"}").is_none());
    assert!(!Path::new(&name).exists());
    sidecar.stop();
}

#[test]
fn connections_over_the_limit_are_closed_and_counted_and_idle_ones_make_room() {
    let settings = ["listen.tcp=127.0.0.1:0", "listen.max_connections=2", "listen.idle_timeout=500ms"];
    let sidecar = Sidecar::start(&settings);
    let (mut first, second) = (tcp(&sidecar), tcp(&sidecar));
    sidecar.wait_until("two are open", |it| of(&it.scrape(), "connections", "tcp") == 2.0);
    let third = tcp(&sidecar);
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_closed(third);
    let scrape = sidecar.scrape();
    assert_eq!((of(&scrape, "connections_total", "tcp"), of(&scrape, "connections_refused_total", "tcp")), (3.0, 1.0));
    // The second says nothing; the first does all the time.
    second.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut sent = 0.0;
    sidecar.wait_until("the idle one is closed", |it| {
        first.write_all(b"hits:1|c\n").unwrap();
        sent += 1.0;
        of(&it.scrape(), "connections", "tcp") == 1.0
    });
    let mut fourth = tcp(&sidecar);
    fourth.write_all(b"hits:1|c\n").unwrap();
    sidecar.settled(sent as u64 + 1).assert("hits_total", sent + 1.0);
    sidecar.stop();
}

/// A sidecar that does not get to run for a while has its senders wait; then everything is there, and nothing is
/// thinned.
#[test]
fn streams_slow_their_senders_down_and_lose_nothing() {
    const LINES: usize = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream.sock");
    let sidecar = Sidecar::start(&[
        "listen.tcp=127.0.0.1:0",
        &format!("listen.unix_stream={}", path.display()),
        "sampling.mode=fixed",
        "sampling.rate=0.1",
    ]);
    sidecar.signal(Signal::SIGSTOP);
    let tcp = tcp(&sidecar);
    let unix = UnixStream::connect(&path).unwrap();
    let stalled =
        |result: std::io::Result<usize>| result.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    // Both are full in the end; how much that takes is the kernel's to say, of TCP some megabytes.
    let line = b"hits:1|c|#k:v\n";
    let most = 100 * LINES;
    let fill = |stream: &mut dyn Write| (0..most).take_while(|_| !stalled(stream.write(line))).count();
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    let before = [fill(&mut &tcp), fill(&mut &unix)];
    assert!(before.iter().all(|n| *n < most), "{before:?}");
    tcp.set_nonblocking(false).unwrap();
    unix.set_nonblocking(false).unwrap();
    sidecar.signal(Signal::SIGCONT);
    // Lines may have been cut where the buffers were full, so what follows begins with a newline.
    std::thread::scope(|scope| {
        for mut stream in [Box::new(&tcp) as Box<dyn Write + Send>, Box::new(&unix)] {
            scope.spawn(move || {
                stream.write_all(b"\n").unwrap();
                (0..LINES / 100).for_each(|_| stream.write_all(&b"hits:1|c|#k:w\n".repeat(100)).unwrap());
            });
        }
    });
    drop((tcp, unix));
    sidecar.wait_until("all is taken", |it| it.scrape().get("hits_total{k=\"w\"}") == Some(2.0 * LINES as f64));
    let scrape = sidecar.scrape();
    assert_eq!(scrape.recorded() + scrape.dropped(), scrape.lines());
    assert_eq!(scrape.value("statsieve_samples_dropped_total{reason=\"sampled\"}"), 0.0);
    // A line that was cut is short by a few bytes at most.
    let cut = scrape.dropped();
    assert!(cut <= 2.0, "{:?}", scrape.dropped_by_reason());
    sidecar.stop();
}

#[test]
fn what_streams_sent_before_the_signal_is_in_the_last_scrape() {
    let sidecar = Sidecar::start(&["listen.tcp=127.0.0.1:0", "http.drain=30s"]);
    let mut stream = tcp(&sidecar);
    stream.write_all(&b"hits:1|c\n".repeat(10_000)).unwrap();
    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_until("it drains", |it| it.try_get("/-/ready", &[]).is_some_and(|reply| reply.status == 503));
    sidecar.scrape().assert("hits_total", 10_000.0);
    assert_eq!(sidecar.wait().code(), Some(0));
}

/// The limit on open files of a process, soft and hard.
fn limit_files(sidecar: &Sidecar, most: u32) {
    let limit = format!("--nofile={most}:4096");
    let status = Command::new("prlimit").args(["--pid", &sidecar.pid().to_string(), &limit]).status();
    assert!(status.unwrap().success());
}

/// Without descriptors no connection can be accepted; everything else goes on, and so does that once there are some.
#[test]
fn a_listener_that_fails_shows_it_and_comes_back() {
    let sidecar = Sidecar::start(&["listen.tcp=127.0.0.1:0"]);
    // A connection that is there already can be asked all the time.
    let mut http = TcpStream::connect(sidecar.http).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ready = || {
        http.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut reply = vec![0; 4096];
        let length = http.read(&mut reply).unwrap();
        String::from_utf8_lossy(&reply[..length]).into_owned()
    };
    assert!(ready().starts_with("HTTP/1.1 200"));
    limit_files(&sidecar, 3);
    let mut late = tcp(&sidecar);
    late.write_all(b"hits:1|c\n").unwrap();
    wait_until("readiness says what fails", || {
        let reply = ready();
        reply.starts_with("HTTP/1.1 503") && reply.contains("failing, and tried again: tcp")
    });
    sidecar.send(&["over.udp:1|c"]);
    limit_files(&sidecar, 1024);
    wait_until("it is ready again", || ready().starts_with("HTTP/1.1 200"));
    let scrape = sidecar.settled(2);
    scrape.assert("hits_total", 1.0);
    scrape.assert("over_udp_total", 1.0);
    assert!(of(&scrape, "listener_errors_total", "tcp") >= 1.0);
    assert_eq!((of(&scrape, "listener_up", "tcp"), of(&scrape, "listener_errors_total", "udp")), (1.0, 0.0));
    assert!(sidecar.log().contains("cannot accept connections"), "{}", sidecar.log());
    sidecar.stop();
}
