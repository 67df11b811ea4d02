//! Lines sent on: as they came, to every target, and no target can slow the sidecar down.

use std::net::UdpSocket;

use nix::sys::signal::Signal;

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

/// Whatever comes in at the socket that lines are sent from is left there, and the kernel keeps no more than a buffer.
#[test]
fn a_target_that_floods_back_slows_nothing_down_and_no_word_of_it_is_taken_for_a_line() {
    let there = target();
    let sidecar =
        Sidecar::start(&["listen.workers=1", &format!("relay.targets=[\"{}\"]", there.local_addr().unwrap())]);
    sidecar.send(&["first:1|c"]);
    let mut buffer = [0; 100];
    let (length, from) = there.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"first:1|c\n");
    let from = std::net::SocketAddr::from(([127, 0, 0, 1], from.port()));
    let before = sidecar.settled(1).value("process_resident_memory_bytes");
    let sender = sidecar.sender();
    for _ in 0..50 {
        for _ in 0..200 {
            // It may be refused for want of room.
            let _ = there.send_to(&b"evil:1|c\n".repeat(100), from);
        }
        sender.send(b"hits:1|c\nhits:1|c");
        assert_eq!(lines(&there, 2, 1400), ["hits:1|c"; 2]);
    }
    sidecar.settled(101);
    sidecar.wait_until("all are counted", |it| it.scrape().sum("statsieve_relay_lines_total") == 101.0);
    let scrape = sidecar.scrape();
    scrape.assert("statsieve_relay_lines_total{outcome=\"sent\"}", 101.0);
    scrape.assert("hits_total", 100.0);
    assert_eq!((scrape.lines(), scrape.get("evil_total")), (101.0, None), "{}", scrape.text);
    let grown = scrape.value("process_resident_memory_bytes") - before;
    assert!(grown < 8e6, "{grown} bytes");
    sidecar.stop();
}

#[test]
fn a_target_that_comes_back_gets_lines_again_and_what_it_missed_is_counted() {
    let there = target();
    let address = there.local_addr().unwrap();
    let sidecar = Sidecar::start(&["listen.workers=1", &format!("relay.targets=[\"{address}\"]")]);
    let (mut sent, mut arrived) = (1.0, 1.0);
    sidecar.send(&["hits:1|c"]);
    assert_eq!(lines(&there, 1, 1400), ["hits:1|c"]);
    drop(there);
    let outcome =
        |it: &Sidecar, name: &str| it.scrape().value(&format!("statsieve_relay_lines_total{{outcome=\"{name}\"}}"));
    sidecar.wait_until("some are lost", |it| {
        it.send(&["hits:1|c"]);
        sent += 1.0;
        outcome(it, "dropped") >= 3.0
    });
    let there = UdpSocket::bind(address).unwrap();
    there.set_nonblocking(true).unwrap();
    sidecar.wait_until("some arrive again", |it| {
        it.send(&["hits:1|c"]);
        sent += 1.0;
        arrived += f64::from(there.recv(&mut [0; 100]).is_ok());
        arrived >= 3.0
    });
    sidecar.settled(sent as u64).assert("hits_total", sent);
    sidecar.wait_until("all are counted", |it| it.scrape().sum("statsieve_relay_lines_total") == sent);
    assert!(outcome(&sidecar, "sent") >= arrived && outcome(&sidecar, "dropped") >= 3.0, "{}", sidecar.scrape().text);
    sidecar.stop();
}

/// An address of the link without its interface is none that anything can be sent to, and no resolver is asked for it.
#[test]
fn a_target_without_an_address_has_its_lines_counted_as_lost_and_is_looked_for_at_each_reload() {
    let there = target();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statsieve.toml");
    let write = |target: &str| std::fs::write(&path, format!("[relay]\ntargets = [\"{target}\"]\n")).unwrap();
    write("[fe80::1]:9125");
    let sidecar = Sidecar::start_with(&["listen.workers=1"], &["--config", path.to_str().unwrap()]);
    let outcome =
        |it: &Sidecar, name: &str| it.scrape().value(&format!("statsieve_relay_lines_total{{outcome=\"{name}\"}}"));
    let told = |it: &Sidecar| it.log().matches("nothing is relayed to this target").count();
    assert_eq!(told(&sidecar), 1, "{}", sidecar.log());
    sidecar.take(&["hits:1|c", "hits:1|c"]);
    sidecar.wait_until("both are lost", |it| outcome(it, "dropped") == 2.0);
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is looked for again", |it| told(it) == 2);
    sidecar.send(&["hits:1|c"]);
    sidecar.wait_until("the third is lost", |it| outcome(it, "dropped") == 3.0);
    write(&there.local_addr().unwrap().to_string());
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is in force", |it| it.log().matches("configuration read again and in force").count() == 2);
    sidecar.send(&["hits:1|c"]);
    assert_eq!(lines(&there, 1, 1400), ["hits:1|c"]);
    sidecar.wait_until("it is counted", |it| outcome(it, "sent") == 1.0);
    let scrape = sidecar.settled(4);
    scrape.assert("hits_total", 4.0);
    scrape.assert("statsieve_relay_lines_total{outcome=\"dropped\"}", 3.0);
    sidecar.stop();
}

#[test]
fn a_sidecar_that_is_its_own_target_takes_each_line_once() {
    let there = target();
    // An address of this machine that no other test binds, so the port stays free.
    let own = UdpSocket::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let targets = format!("relay.targets=[\"{own}\",\"{}\"]", there.local_addr().unwrap());
    let sidecar = Sidecar::start(&["listen.workers=1", &format!("listen.udp={own}"), &targets]);
    assert!(sidecar.log().contains("each line would come back for ever"), "{}", sidecar.log());
    for _ in 0..3 {
        sidecar.send(&["hits:1|c"]);
        assert_eq!(lines(&there, 1, 1400), ["hits:1|c"]);
    }
    sidecar.settled(3);
    sidecar.wait_until("all are counted", |it| it.scrape().sum("statsieve_relay_lines_total") >= 6.0);
    let scrape = sidecar.scrape();
    scrape.assert("hits_total", 3.0);
    scrape.assert("statsieve_lines_total", 3.0);
    scrape.assert("statsieve_relay_lines_total{outcome=\"sent\"}", 3.0);
    scrape.assert("statsieve_relay_lines_total{outcome=\"dropped\"}", 3.0);
    sidecar.stop();
}

/// The configuration names no port: what counts is where it listens, which may also be a socket that was handed over.
#[test]
fn a_reload_that_makes_the_sidecar_its_own_target_is_noticed_by_the_socket_and_not_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statsieve.toml");
    std::fs::write(&path, "").unwrap();
    let sidecar = Sidecar::start_with(&["listen.workers=1"], &["--config", path.to_str().unwrap()]);
    std::fs::write(&path, format!("[relay]\ntargets = [\"{}\"]\n", sidecar.udp)).unwrap();
    sidecar.signal(Signal::SIGHUP);
    sidecar.wait_until("it is told", |it| it.log().contains("each line would come back for ever"));
    sidecar.wait_until("it is in force", |it| it.log().contains("configuration read again and in force"));
    sidecar.send(&["hits:1|c"]);
    let dropped = "statsieve_relay_lines_total{outcome=\"dropped\"}";
    sidecar.wait_until("it is lost", |it| it.scrape().value(dropped) == 1.0);
    sidecar.settled(1).assert("hits_total", 1.0);
    sidecar.stop();
}
