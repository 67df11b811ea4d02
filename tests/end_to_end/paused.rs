//! A process that is stopped for longer than its series live, while lines keep coming in.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::harness::{Sidecar, wait_until};
use crate::kernel_drops::all_threads_are_stopped;

const TIME_TO_LIVE: u64 = 4;
/// Longer than that, and than what counts as a pause.
const PAUSE: Duration = Duration::from_millis(6500);

/// Three senders of UDP to two workers, one of unix datagrams and one of TCP, all the while.
#[test]
fn after_a_pause_longer_than_series_live_what_was_queued_is_counted_and_no_series_is_gone_before_it_can_be_scraped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.sock");
    let sidecar = Sidecar::start(&[
        "listen.workers=2",
        "listen.receive_buffer_bytes=32768",
        &format!("listen.unix_datagram={}", path.display()),
        "listen.tcp=127.0.0.1:0",
        &format!("cardinality.idle_ttl={TIME_TO_LIVE}s"),
        "sampling.mode=adaptive",
    ]);
    let udp: Vec<_> = (0..3).map(|_| sidecar.sender()).collect();
    let unix = UnixDatagram::unbound().unwrap();
    unix.set_nonblocking(true).unwrap();
    unix.connect(&path).unwrap();
    let mut tcp = TcpStream::connect(sidecar.address_of("tcp")).unwrap();
    // Over TCP, so that it is exact.
    tcp.write_all(b"before:3|c\n").unwrap();
    sidecar.settled(1);
    tcp.write_all(b"before:4|c\n").unwrap();
    sidecar.settled(2).assert("before_total", 7.0);

    sidecar.signal(Signal::SIGSTOP);
    wait_until("every thread is stopped", || all_threads_are_stopped(sidecar.pid().as_raw()));
    let stopped = Instant::now();
    let (mut of_udp, mut taken, mut refused, mut of_tcp) = (0, 0, 0, 0);
    while stopped.elapsed() < PAUSE {
        for sender in &udp {
            sender.send(b"udp:1|c\nudp:1|c");
            of_udp += 1;
        }
        match unix.send(b"unix:1|c") {
            Ok(_) => taken += 1,
            Err(error) => {
                let full = error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ENOBUFS as i32);
                assert!(full, "{error}");
                refused += 1;
            }
        }
        tcp.write_all(b"tcp:1|c\n").unwrap();
        of_tcp += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let resumed = Instant::now();
    sidecar.signal(Signal::SIGCONT);

    // What was queued is read, and what was not queued is known to the kernel or its sender.
    let value = |of: &str, listener: &str| format!("statsieve_{of}_total{{listener=\"{listener}\"}}");
    sidecar.wait_until("read and dropped are what was sent", |it| {
        let scrape = it.scrape();
        let read = scrape.value(&value("datagrams", "udp"));
        let lines = 2.0 + 2.0 * read + f64::from(taken + of_tcp);
        assert!(read + scrape.kernel_drops() <= f64::from(of_udp), "more than was sent:\n{}", scrape.text);
        read + scrape.kernel_drops() == f64::from(of_udp)
            && scrape.value(&value("datagrams", "unix_datagram")) == f64::from(taken)
            && scrape.lines() == lines
            && scrape.recorded() + scrape.dropped() == lines
    });
    let scrape = sidecar.scrape();
    assert!(scrape.kernel_drops() > 0.0 && refused > 0, "{refused} refused\n{}", scrape.text);
    assert!(scrape.dropped_by_reason().keys().all(|reason| reason == "sampled"), "{:?}", scrape.dropped_by_reason());
    scrape.assert("tcp_total", f64::from(of_tcp));

    // The series that nobody wrote to lives for its whole time yet, and not for ever. Ticks are whole seconds.
    sidecar.wait_until("the idle series is gone", |it| {
        let scrape = it.scrape();
        let lived = resumed.elapsed();
        match scrape.get("before_total") {
            Some(value) => assert_eq!(value, 7.0),
            None => assert!(lived >= Duration::from_secs(TIME_TO_LIVE - 1), "{lived:?} after it went on it is gone"),
        }
        scrape.get("before_total").is_none()
    });
    assert!(sidecar.log().contains("the process did not run for a while"), "{}", sidecar.log());
    // And nothing is thinned any more.
    sidecar.wait_until("all lines are kept again", |it| {
        it.scrape().of("statsieve_sampling_rate").all(|(_, rate)| rate == 1.0)
    });
    assert_eq!(sidecar.get("/-/ready", &[]).status, 200);
    sidecar.stop();
}
