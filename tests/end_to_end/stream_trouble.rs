//! Senders on streams that do harm: what they send costs themselves, each loss has its name, and others' lines count.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use socket2::SockRef;

use crate::harness::{PATIENCE, Scrape, SetOnDrop, Sidecar, flood_alone};

/// A sidecar that listens on both kinds of streams, and how to reach them.
struct Streams {
    sidecar: Sidecar,
    folder: tempfile::TempDir,
}

impl Streams {
    fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unix = format!("listen.unix_stream={}", folder.path().join("s").display());
        let sidecar = Sidecar::start(&[&["listen.tcp=127.0.0.1:0", unix.as_str()], settings].concat());
        Self { sidecar, folder }
    }

    fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.sidecar.address_of("tcp")).unwrap()
    }

    fn unix(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("s")).unwrap()
    }

    /// Once so many lines are in the books, which must balance, with these lost.
    fn settled(&self, lines: u64, lost: &[(&str, u64)]) -> Scrape {
        let scrape = self.sidecar.settled(lines);
        assert_eq!(scrape.lines(), lines as f64, "{}", scrape.text);
        assert_eq!(scrape.recorded() + scrape.dropped(), lines as f64, "{}", scrape.text);
        let expected: BTreeMap<String, u64> = lost.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
        assert_eq!(scrape.dropped_by_reason(), expected);
        scrape
    }
}

const RESIDENT: &str = "process_resident_memory_bytes";

/// A line whose end is not there may say another number, or belong to another series: `user_id:4` is not `user_id:42`.
#[test]
fn the_line_in_the_middle_of_which_a_connection_broke_is_lost_and_counted_and_none_before_it() {
    let streams = Streams::start(&["bucketing=[]"]);
    // Ended in order: it is a line.
    streams.tcp().write_all(b"ended:1|c\nended:1|c|#user_id:42").unwrap();
    let scrape = streams.settled(2, &[]);
    scrape.assert("ended_total{user_id=\"42\"}", 1.0);
    // Reset.
    let mut reset = streams.tcp();
    reset.write_all(b"reset:1|c\nreset:1|c|#user_id:4").unwrap();
    streams.settled(3, &[]).assert("reset_total", 1.0);
    SockRef::from(&reset).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(reset);
    streams.settled(4, &[("malformed_line", 1)]);
    // A payload that is shorter than its length says.
    streams.unix().write_all(b"\x20\0\0\0short:1|c\nshort:1|c|#user_id:4").unwrap();
    let scrape = streams.settled(6, &[("malformed_line", 2)]);
    scrape.assert("short_total", 1.0);
    for name in ["reset_total{user_id=\"4\"}", "short_total{user_id=\"4\"}"] {
        assert_eq!(scrape.get(name), None, "{}", scrape.text);
    }
    streams.sidecar.stop();
}

#[test]
fn the_beginning_of_a_line_that_nobody_goes_on_with_is_lost_and_counted_once_its_connection_has_been_idle() {
    let streams = Streams::start(&["listen.idle_timeout=1s"]);
    // It vanishes without a word: nothing is closed here, and nothing comes any more.
    let mut gone = streams.tcp();
    gone.write_all(b"idle:1|c\nidle:1|c|#chat:4").unwrap();
    gone.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(gone.read(&mut [0]).unwrap(), 0, "it is closed");
    streams.settled(2, &[("malformed_line", 1)]).assert("idle_total", 1.0);
    streams.sidecar.wait_until("its place is free", |it| it.scrape().sum("statsieve_connections") == 0.0);
    streams.sidecar.stop();
}

#[test]
fn half_open_senders_at_the_limit_cost_a_little_memory_and_give_everything_back() {
    const OPEN: usize = 400;
    let streams = Streams::start(&["listen.max_connections=401"]);
    let mut writer = streams.tcp();
    writer.write_all(b"hits:1|c\n").unwrap();
    let before = streams.settled(1, &[]);
    let mut held: Vec<Box<dyn Write>> = Vec::new();
    for n in 0..OPEN {
        let mut stream: Box<dyn Write> = if n % 2 == 0 { Box::new(streams.tcp()) } else { Box::new(streams.unix()) };
        stream.write_all(b"half:1|").unwrap();
        held.push(stream);
    }
    let open = |it: &Sidecar| it.scrape().sum("statsieve_connections");
    streams.sidecar.wait_until("all are open", |it| open(it) == OPEN as f64 + 1.0);
    let refused: Vec<TcpStream> = (0..200).map(|_| streams.tcp()).collect();
    streams.sidecar.wait_until("as many are refused as are too many", |it| {
        it.scrape().sum("statsieve_connections_refused_total") == refused.len() as f64
    });
    // One that is there goes on, a byte at a time.
    writer.set_nodelay(true).unwrap();
    let received = |it: &Sidecar| it.scrape().value("statsieve_received_bytes_total{listener=\"tcp\"}");
    let so_far = received(&streams.sidecar);
    for (n, byte) in b"hits:1|c|#k:v\n".iter().enumerate() {
        writer.write_all(&[*byte]).unwrap();
        streams.sidecar.wait_until("the byte is taken", |it| received(it) == so_far + n as f64 + 1.0);
    }
    let scrape = streams.settled(2, &[]);
    scrape.assert("hits_total{k=\"v\"}", 1.0);
    let grown = scrape.value(RESIDENT) - before.value(RESIDENT);
    assert!(grown < 8e6, "{grown} bytes");
    drop((held, refused));
    // Ended in order, so each is a line, and none is good.
    streams.settled(2 + OPEN as u64, &[("unknown_type", OPEN as u64)]);
    streams.sidecar.wait_until("all places are free", |it| open(it) == 1.0);
    let descriptors = streams.sidecar.scrape().value("process_open_fds");
    assert!(descriptors <= before.value("process_open_fds") + 4.0, "{descriptors}");
    streams.tcp().write_all(b"hits:1|c").unwrap();
    streams.settled(3 + OPEN as u64, &[("unknown_type", OPEN as u64)]).assert("hits_total", 2.0);
    streams.sidecar.stop();
}

#[test]
fn a_line_without_an_end_and_a_length_of_4_gib_cost_one_line_each_and_no_memory() {
    const MIB: usize = 1 << 20;
    let streams = Streams::start(&[]);
    streams.tcp().write_all(b"hits:1|c").unwrap();
    let before = streams.settled(1, &[]).value(RESIDENT);
    let mut endless = streams.tcp();
    let mut framed = streams.unix();
    framed.write_all(b"\x08\0\0\0hits:1|c\xff\xff\xff\xff").unwrap();
    for n in 0..64 {
        endless.write_all(&[b'x'; MIB]).unwrap();
        if n < 8 {
            // Inside of that length a newline is nothing.
            framed.write_all(&b"evil:1|c\n".repeat(MIB / 9)).unwrap();
        }
        streams.unix().write_all(b"hits:1|c\n").unwrap();
    }
    endless.write_all(b"\nhits:1|c\n").unwrap();
    let scrape = streams.settled(1 + 1 + 64 + 1 + 2, &[("line_too_long", 2)]);
    scrape.assert("hits_total", 67.0);
    assert_eq!(scrape.get("evil_total"), None);
    let grown = scrape.value(RESIDENT) - before;
    assert!(grown < 8e6, "{grown} bytes");
    streams.sidecar.wait_until("every byte is counted", |it| {
        let scrape = it.scrape();
        let bytes =
            |listener: &str| scrape.value(&format!("statsieve_received_bytes_total{{listener=\"{listener}\"}}"));
        let of_unix = 16 + 8 * (MIB / 9 * 9) + 64 * 9;
        (bytes("tcp"), bytes("unix_stream")) == ((64 * MIB + 8 + 10) as f64, of_unix as f64)
    });
    drop((endless, framed));
    streams.sidecar.wait_until("all places are free", |it| it.scrape().sum("statsieve_connections") == 0.0);
    streams.settled(69, &[("line_too_long", 2)]);
    streams.sidecar.stop();
}

/// Its socket is never empty, so whoever reads it never has to wait for it.
#[test]
fn a_sender_that_never_pauses_keeps_no_other_from_its_turn() {
    const MOST_LINES: u64 = 200_000_000;
    let _alone = flood_alone();
    let streams = Streams::start(&[]);
    let over = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let lines = b"hits:1|c\n".repeat(100_000);
            let (mut stream, mut sent) = (streams.tcp(), 0);
            while !over.load(Relaxed) && sent < MOST_LINES {
                stream.write_all(&lines).unwrap();
                sent += 100_000;
            }
            sent
        });
        let _over = SetOnDrop(&over);
        let sidecar = &streams.sidecar;
        sidecar.wait_until("the flood has come", |it| it.scrape().get("hits_total") > Some(0.0));
        let (mut tcp, mut unix) = (streams.tcp(), streams.unix());
        for n in 1..=5 {
            tcp.write_all(b"others:1|c\n").unwrap();
            unix.write_all(b"others:1|c\n").unwrap();
            sidecar.wait_until("others are read", |it| it.scrape().get("others_total") == Some(2.0 * f64::from(n)));
        }
        assert!(!flood.is_finished(), "the flood went on");
        over.store(true, Relaxed);
        flood.join().unwrap()
    });
    streams.settled(flooded + 10, &[]).assert("hits_total", flooded as f64);
}
