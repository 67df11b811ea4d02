//! Lines sent on: as they came, to every target, and no target can slow the sidecar down.

use std::net::UdpSocket;

use crate::harness::{PATIENCE, Sidecar};

fn target() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next `n` lines that arrive; each datagram must fit into `most` bytes and end with a newline.
fn lines(target: &UdpSocket, n: usize, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = vec![0; 65_536];
    while lines.len() < n {
        let length = target.recv(&mut buffer).unwrap();
        assert!(length <= most, "{length}");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.ends_with('\n'));
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn raw_lines_reach_every_target_good_or_bad() {
    let (one, two) = (target(), target());
    let targets = [one.local_addr().unwrap(), two.local_addr().unwrap()].map(|address| format!("\"{address}\""));
    let sidecar = Sidecar::start(&[
        "listen.workers=1",
        "relay.packet_bytes=100",
        &format!("relay.targets=[{}]", targets.join(",")),
    ]);
    let long = format!("long:1|c|#k:{}", "x".repeat(100));
    let sender = sidecar.sender();
    sender.send(format!("hits:1|c|#user_id:42\r\n\nbroken\n{long}\nwait:5|ms|@0.5").as_bytes());
    let expected = ["hits:1|c|#user_id:42", "broken", "wait:5|ms|@0.5"];
    assert_eq!(lines(&one, 3, 100), expected);
    assert_eq!(lines(&two, 3, 100), expected);
    sidecar.wait_until("all are counted", |it| it.scrape().sum("statsieve_relay_lines_total") == 8.0);
    let scrape = sidecar.scrape();
    scrape.assert("statsieve_relay_lines_total{outcome=\"sent\"}", 6.0);
    scrape.assert("statsieve_relay_lines_total{outcome=\"too_long\"}", 2.0);
    scrape.assert("hits_total{user_bucket=\"bucket_1\"}", 1.0);
    sidecar.stop();
}

#[test]
fn a_target_that_is_gone_costs_no_line_of_ours() {
    let gone = target();
    let there = target();
    let targets = format!("relay.targets=[\"{}\",\"{}\"]", gone.local_addr().unwrap(), there.local_addr().unwrap());
    drop(gone);
    let sidecar = Sidecar::start(&["listen.workers=1", &targets]);
    let sender = sidecar.sender();
    for n in 0..500 {
        sender.send(b"hits:1|c\nhits:1|c");
        if n % 20 == 19 {
            assert_eq!(lines(&there, 40, 1400).len(), 40);
        }
    }
    let scrape = sidecar.settled(1000);
    scrape.assert("hits_total", 1000.0);
    sidecar.wait_until("all are counted", |it| it.scrape().sum("statsieve_relay_lines_total") == 2000.0);
    let scrape = sidecar.scrape();
    assert!(scrape.value("statsieve_relay_lines_total{outcome=\"dropped\"}") > 0.0);
    assert!(scrape.value("statsieve_relay_lines_total{outcome=\"sent\"}") >= 1000.0);
    sidecar.stop();
}
