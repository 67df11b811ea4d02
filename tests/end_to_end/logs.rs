//! What is said in the log of states that somebody should act on: when they begin, and when they are over.

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Sidecar};

/// Sends `lines` until the log has all of `begins`, then waits for all of `ends`; each is there once, though it is sent
/// a hundred times over.
fn assert_told_once(sidecar: &Sidecar, begins: &[&str], ends: &[&str], mut send: impl FnMut(&Sidecar)) {
    let count = |text: &str| sidecar.log().lines().filter(|line| line.contains(text)).count();
    sidecar.wait_until("all begins are told", |it| {
        send(it);
        std::thread::sleep(PATIENCE / 1000);
        begins.iter().all(|text| count(text) > 0)
    });
    for _ in 0..100 {
        send(sidecar);
    }
    sidecar.wait_until("all ends are told", |_| ends.iter().all(|text| count(text) > 0));
    for text in begins.iter().chain(ends) {
        assert_eq!(count(text), 1, "{text} in\n{}", sidecar.log());
    }
}

#[test]
fn what_is_lost_is_told_once_when_it_begins_and_once_when_it_is_over() {
    let sidecar = Sidecar::start(&[
        "listen.workers=1",
        "listen.tcp=127.0.0.1:0",
        "listen.max_connections=1",
        "cardinality.max_series=20",
        "cardinality.idle_ttl=2s",
        "rate_limit.family_samples_per_second=50",
        // Nobody listens at so low a port.
        "relay.targets=[\"127.0.0.1:1\"]",
    ]);
    let sender = sidecar.sender();
    let tcp = sidecar.address_of("tcp");
    let held = TcpStream::connect(tcp).unwrap();
    let mut round = 0;
    let send = |_: &Sidecar| {
        round += 1;
        let gauges: String = (0..30).map(|n| format!("g{n}:1|g\n")).collect();
        sender.send(format!("bad:x|c\ndup_total:1|c\ndup_total:1|g\n{gauges}").as_bytes());
        sender.send("often:1|c\n".repeat(100).as_bytes());
        // One is closed at once, as `held` is there.
        drop(TcpStream::connect(tcp));
    };
    let begins = [
        "samples are refused; ",
        "that another type has taken",
        "samples are over a quota; ",
        "a limit of [cardinality] is reached",
        "relayed lines are lost: ",
        "connections are closed at once, since",
        "near a limit of [cardinality]: ",
    ];
    let ends = [
        "no more samples are refused",
        "no more samples come under a name of another type",
        "no more samples are over a quota",
        "no more samples meet a limit",
        "no more relayed lines are lost",
        "no more connections are closed at once",
        "no longer near a limit of [cardinality]",
    ];
    assert_told_once(&sidecar, &begins, &ends, send);
    drop(held);
    sidecar.stop();
}

#[test]
fn drops_of_the_kernel_are_told_once() {
    let sidecar = Sidecar::start(&["listen.workers=1", "listen.receive_buffer_bytes=4096"]);
    let sender = sidecar.sender();
    let overflow = |it: &Sidecar| {
        it.signal(Signal::SIGSTOP);
        for _ in 0..200 {
            sender.send(&[b'x'; 200]);
        }
        it.signal(Signal::SIGCONT);
        // The next datagram tells of them.
        sender.send(b"hits:1|c");
    };
    assert_told_once(&sidecar, &["the kernel drops datagrams"], &["the kernel drops no more datagrams"], overflow);
    sidecar.stop();
}

#[test]
fn sampling_is_told_when_it_begins_and_when_every_line_is_kept_again() {
    let sidecar = Sidecar::start(&[
        "listen.workers=1",
        "listen.receive_buffer_bytes=65536",
        "sampling.mode=adaptive",
        "sampling.interval=100ms",
        "sampling.target_load=1",
    ]);
    let sender = sidecar.sender();
    let count = |text: &str| sidecar.log().lines().filter(|line| line.contains(text)).count();
    let (begins, ends) = ("overloaded: only a share of the lines is kept", "no longer overloaded");
    sidecar.wait_until("it is told that it samples", |it| {
        it.signal(Signal::SIGSTOP);
        for _ in 0..300 {
            sender.send(&[b'x'; 200]);
        }
        it.signal(Signal::SIGCONT);
        count(begins) == 1
    });
    sidecar.wait_until("it is told that it is over", |_| {
        sender.send(b"hits:1|c");
        count(ends) == 1
    });
    assert_eq!((count(begins), count(ends)), (1, 1), "{}", sidecar.log());
    sidecar.stop();
}
