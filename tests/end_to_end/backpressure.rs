//! Senders that can be told to wait, at three times what the sidecar takes: unix datagrams, and streams.
//!
//! The kernel drops none of them: it refuses a datagram, and the sender knows of it, or has a stream wait. So the books
//! hold exactly what it took.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Scrape, Sidecar, assert_within, flood_alone};
use crate::overload::{DATAGRAM, LINES, VALUES, reason};
use crate::quota::{GROUPS, HeldDown, datagram, pace, standard_errors_off};

/// What the kernel took of the datagrams that were offered, and what it refused.
#[derive(Default)]
struct Offered {
    taken: u64,
    refused: u64,
}

impl Offered {
    /// Offers one more; nobody waits.
    fn offer(&mut self, sender: &UnixDatagram, datagram: &[u8]) {
        match sender.send(datagram) {
            Ok(_) => self.taken += 1,
            Err(error) => {
                let full = error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ENOBUFS as i32);
                assert!(full, "{error}");
                self.refused += 1;
            }
        }
    }
}

fn datagrams(scrape: &Scrape) -> f64 {
    scrape.value("statsieve_datagrams_total{listener=\"unix_datagram\"}")
}

/// A sender that never waits.
fn sender(path: &str) -> UnixDatagram {
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(path).unwrap();
    sender.set_nonblocking(true).unwrap();
    sender
}

/// A folder for a socket, the path, and the setting that has a sidecar listen there.
fn socket(key: &str) -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").to_str().unwrap().to_owned();
    let setting = format!("listen.{key}={path}");
    (folder, path, setting)
}

/// Waits until each of `sent` datagrams with so many lines was read and booked.
fn at_rest(sidecar: &Sidecar, sent: u64, lines: f64) -> Scrape {
    sidecar.wait_until("what the kernel took is booked", |it| {
        let scrape = it.scrape();
        datagrams(&scrape) == sent as f64 && scrape.lines() == lines * sent as f64
    });
    sidecar.scrape()
}

/// Stops the sidecar while far more is offered than its queue holds, lets it go on, and so again.
#[test]
fn every_unix_datagram_that_the_kernel_took_is_in_the_books_to_the_value() {
    let (_folder, path, setting) = socket("unix_datagram");
    let sidecar = Sidecar::start(&[&setting, "sampling.mode=fixed", "sampling.rate=0.5"]);
    let sender = sender(&path);
    let mut offered = Offered::default();
    for _ in 0..50 {
        sidecar.signal(Signal::SIGSTOP);
        (0..3000).for_each(|_| offered.offer(&sender, DATAGRAM));
        sidecar.signal(Signal::SIGCONT);
        at_rest(&sidecar, offered.taken, LINES);
    }
    let scrape = sidecar.scrape();
    let taken = offered.taken as f64;
    assert!(offered.refused > 0 && taken > 0.0, "{} refused, {taken} taken", offered.refused);
    assert_eq!(scrape.recorded() + scrape.dropped(), VALUES * taken, "{}", scrape.text);
    assert_eq!(reason(&scrape, "malformed_value"), taken);
    let others = scrape.dropped() - reason(&scrape, "malformed_value") - reason(&scrape, "sampled");
    assert_eq!(others, 0.0, "{:?}", scrape.dropped_by_reason());
    assert!(reason(&scrape, "sampled") > 0.0);
    scrape.assert("depth", taken);
    sidecar.stop();
}

/// A tenth of a core, three times as much as it reads of unix datagrams without thinning.
#[test]
fn at_three_times_as_much_every_unix_datagram_is_refused_to_its_sender_or_in_the_books_line_by_line() {
    let _alone = flood_alone();
    let (_folder, path, setting) = socket("unix_datagram");
    let datagram = datagram();
    let rate = {
        let Some(it) = HeldDown::start(&[&setting, "sampling.mode=off"]) else { return };
        let sender = sender(&path);
        let fill = || {
            let mut offered = Offered::default();
            while offered.refused == 0 {
                offered.offer(&sender, &datagram);
            }
            thread::sleep(Duration::from_millis(1));
        };
        fill();
        let (started, before) = (Instant::now(), datagrams(&it.sidecar.scrape()));
        while started.elapsed() < Duration::from_secs(3) {
            fill();
        }
        (datagrams(&it.sidecar.scrape()) - before) / started.elapsed().as_secs_f64()
    };
    let Some(it) = HeldDown::start(&[&setting, "sampling.mode=adaptive"]) else { return };
    let sender = sender(&path);
    let mut offered = Offered::default();
    pace(|| offered.offer(&sender, &datagram), || 3.0 * rate, Duration::from_secs(12));
    let scrape = at_rest(&it.sidecar, offered.taken, GROUPS as f64);
    let values = GROUPS as f64 * offered.taken as f64;
    eprintln!(
        "{rate:.0} datagrams a second are read; taken {} and refused {}; thinned out {} of {values} lines",
        offered.taken,
        offered.refused,
        reason(&scrape, "sampled")
    );
    assert!(offered.refused > 0 && reason(&scrape, "sampled") > 0.0, "{}", scrape.text);
    assert_eq!(scrape.recorded() + scrape.dropped(), values, "{}", scrape.text);
    assert_eq!(scrape.dropped(), reason(&scrape, "sampled"), "{:?}", scrape.dropped_by_reason());
    // One in thirty million is further off (Student's distribution with 99 degrees of freedom).
    assert_within("standard errors off", standard_errors_off(&scrape, datagrams(&scrape)), -6.0..=6.0);
}

/// Connects a stream that can be written to without waiting.
fn connect(sidecar: &Sidecar, listener: &str, path: &str) -> Box<dyn Write> {
    if listener == "tcp" {
        let stream = TcpStream::connect(sidecar.address_of("tcp")).unwrap();
        stream.set_nonblocking(true).unwrap();
        return Box::new(stream);
    }
    let stream = UnixStream::connect(path).unwrap();
    stream.set_nonblocking(true).unwrap();
    Box::new(stream)
}

/// A tenth of a core, and for two seconds a sender that wants to have sent three times what was taken by then.
#[test]
fn at_three_times_as_much_streams_have_their_sender_wait_and_every_line_is_recorded() {
    const TIME: Duration = Duration::from_secs(2);
    let _alone = flood_alone();
    for listener in ["tcp", "unix_stream"] {
        let (_folder, path, setting) = socket("unix_stream");
        let settings = [&setting, "listen.tcp=127.0.0.1:0", "sampling.mode=adaptive", "sampling.interval=300ms"];
        let Some(it) = HeldDown::start(&settings) else { return };
        let mut stream = connect(&it.sidecar, listener, &path);
        let text = [datagram(), b"\n".to_vec()].concat();
        // Lines wanted and begun, the bytes left of these; how often the stream was full, and the rates of sampling
        // then.
        let (mut wanted, mut begun, mut rest) = (0, 0, &text[..0]);
        let (mut waits, mut rates) = (0, Vec::new());
        let started = Instant::now();
        loop {
            if rest.is_empty() {
                if begun >= wanted && started.elapsed() >= TIME {
                    break;
                }
                (begun, rest) = (begun + GROUPS as u64, &text[..]);
            }
            match stream.write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{listener}: {error}");
                    waits += 1;
                    let scrape = it.sidecar.scrape();
                    rates.extend(scrape.of("statsieve_sampling_rate").map(|(_, rate)| rate));
                    if started.elapsed() < TIME {
                        wanted = 3 * scrape.lines() as u64;
                    }
                    assert!(started.elapsed() < TIME + PATIENCE, "{listener}: {begun} of {wanted} lines are sent");
                }
            }
        }
        drop(stream);
        it.sidecar.wait_until("all is taken", |it| it.scrape().lines() == begun as f64);
        let scrape = it.sidecar.scrape();
        eprintln!("{listener}: {begun} lines in {:?}, {waits} waits", started.elapsed());
        assert!(waits > 0, "{listener}: its sender never had to wait");
        assert_eq!((scrape.recorded(), scrape.dropped()), (begun as f64, 0.0), "{:?}", scrape.dropped_by_reason());
        assert_eq!(scrape.sum("bot_messages_total"), begun as f64);
        // Nothing was thinned, and so the sums are exact.
        assert!(rates.iter().all(|rate| *rate == 1.0), "{rates:?}");
        assert_eq!(scrape.value(&format!("statsieve_connections_total{{listener=\"{listener}\"}}")), 1.0);
        it.sidecar.stop();
    }
}
