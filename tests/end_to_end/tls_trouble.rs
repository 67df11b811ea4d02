//! Clients of TLS and HTTP/2 that do harm while a scraper comes every 200 ms: it gets its answer each time, memory
//! stays bounded, and nothing stays open.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use crate::harness::{SetOnDrop, Sidecar, read_samples};
use crate::web::{Folder, Stream, TLS, connect, get};

const CONNECTIONS: usize = 16;
/// What `statsieve check` counts for a connection with TLS, and some for the allocator.
const BYTES_A_CONNECTION: f64 = 2e6;
/// How long a client of this kind waits for anything.
const SHORT: Duration = Duration::from_millis(500);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;
/// Flags: the stream ends, the headers do.
const END: u8 = 1;
const END_HEADERS: u8 = 4;

/// GET /metrics of `bots` by https, out of the static table as far as it goes.
const ASK: &[u8] = b"\x82\x87\x04\x08/metrics\x01\x04bots";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The streams of a client have odd numbers.
fn streams(number: u32) -> impl Iterator<Item = u32> {
    (0..number).map(|n| 2 * n + 1)
}

/// What a client of HTTP/2 sends behind its preface, by what it is.
fn abuses() -> Vec<(&'static str, Vec<u8>)> {
    let ask = |stream| frame(HEADERS, END | END_HEADERS, stream, ASK);
    let endless = (0..200).flat_map(|_| frame(CONTINUATION, 0, 1, &b"\x00\x01x\x7f\x00".repeat(1000)));
    // A header of 3,000 bytes goes into the table, and is then said ten thousand times by its number.
    let bomb = [ASK, &b"\x40\x01x\x7f\xb9\x16"[..], &[b'y'; 3000], &[0xbe; 10_000]].concat();
    vec![
        ("a thousand streams at once", streams(1000).flat_map(ask).collect()),
        (
            "streams that are reset as soon as they are there",
            streams(2000).flat_map(|it| [ask(it), frame(RESET, 0, it, &[0, 0, 0, 8])].concat()).collect(),
        ),
        ("headers without an end", [frame(HEADERS, END, 1, ASK), endless.collect()].concat()),
        ("a header of 30 MB in 13 KiB", frame(HEADERS, END | END_HEADERS, 1, &bomb)),
        ("pings", frame(PING, 0, 0, &[7; 8]).repeat(50_000)),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(50_000)),
        (
            "windows that grow past their most",
            [ask(1), frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(10)].concat(),
        ),
        ("frames of no known kind", frame(0xbe, 0xff, 1, &[0xa5; 16_000]).repeat(100)),
        ("no frames", vec![0xff; 100_000]),
    ]
}

/// Sends what is left of it once nobody takes it any more, reads a little, and goes without a farewell.
fn abuse(sidecar: &Sidecar, folder: &Folder, bytes: &[u8]) -> io::Result<()> {
    let mut stream = connect(sidecar.http, folder.client(None, &["h2"], rustls::ALL_VERSIONS))?;
    stream.sock.set_read_timeout(Some(SHORT))?;
    stream.sock.set_write_timeout(Some(SHORT))?;
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    for part in bytes.chunks(10_000) {
        stream.write_all(part)?;
    }
    stream.read(&mut [0; 1000]).map(drop)
}

/// The beginning of a handshake.
fn hello(folder: &Folder) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut session = ClientConnection::new(folder.any_client(None), "127.0.0.1".try_into().unwrap()).unwrap();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn whatever_clients_of_tls_and_http_2_do_each_scrape_is_answered_and_nothing_stays() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&[&format!("http.max_connections={CONNECTIONS}")]);
    let scrape = || {
        let reply = folder.get(&sidecar, None, "/metrics", "Accept: text/plain\r\n").unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        read_samples(&reply.text())
    };
    sidecar.send(&["hits:1|c"]);
    let before = scrape();
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (hello, abuses) = (hello(&folder), abuses());
    let send = |bytes: &[u8]| -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(sidecar.http)?;
        stream.write_all(bytes)?;
        Ok(stream)
    };
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        scope.spawn(|| {
            let mut held = Vec::new();
            while !over.load(Relaxed) {
                held.extend(send(&hello[..hello.len() / 2]));
                held.extend(send(b"\x16\x03\x01\x40\x00"));
                let _ = send(&[&b"\x16\x03\x01\x02\x00"[..], &[0xa5; 600]].concat());
                let _ = send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
                if held.len() >= 400 {
                    held.clear();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        scope.spawn(|| {
            while !over.load(Relaxed) {
                for (_, bytes) in &abuses {
                    let _ = abuse(&sidecar, &folder, bytes);
                }
                rounds.fetch_add(1, Relaxed);
            }
        });
        let mut asked = 0;
        sidecar.wait_until("all has been done twice", |it| {
            let next = Instant::now() + Duration::from_millis(200);
            it.send(&["hits:1|c"]);
            asked += 1;
            let found = scrape();
            let grown = found["process_resident_memory_bytes"] - before["process_resident_memory_bytes"];
            assert!(grown < CONNECTIONS as f64 * BYTES_A_CONNECTION, "{grown} bytes");
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            asked >= 15 && rounds.load(Relaxed) >= 2
        });
    });
    sidecar.wait_until("nothing is left open", |_| scrape()["process_open_fds"] <= before["process_open_fds"]);
    let (found, lines) = (scrape(), scrape()["statsieve_lines_total"]);
    assert_eq!(found["hits_total"], lines);
    let told = sidecar.log().lines().filter(|line| line.contains("handshake")).count();
    assert!(told <= 2, "once a minute: {}", sidecar.log());
    sidecar.stop();
}

/// Each kind alone, so that none hides behind another; afterwards the only place is free.
#[test]
fn each_abuse_of_http_2_costs_its_connection_alone() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&["http.max_connections=1"]);
    for (what, bytes) in abuses() {
        let _ = abuse(&sidecar, &folder, &bytes);
        let reply = folder.get(&sidecar, None, "/-/ready", "").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reply.status, 200, "{what}");
    }
    sidecar.stop();
}

/// One request after the other, by streams of one connection that never rests. Without an answer to its pings a server
/// does not know when the client has heard that it is to go.
fn ask_again_and_again(stream: &mut Stream, answers_pings: bool, over: &AtomicBool) -> io::Result<()> {
    let path = b"\x82\x87\x04\x0a/-/healthy\x01\x04bots";
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
    for number in streams(1_000_000) {
        stream.write_all(&frame(HEADERS, END | END_HEADERS, number, path))?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload)?;
            if over.load(Relaxed) {
                return Ok(());
            }
            if answers_pings && (head[3], head[4]) == (PING, 0) {
                stream.write_all(&frame(PING, 1, 0, &payload))?;
            }
            // The answer, or that there is none.
            if (head[3] <= HEADERS && head[4] & END != 0) || head[3] == RESET {
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn clients_of_http_2_that_ask_again_and_again_on_every_place_keep_no_scrape_waiting() {
    let folder = Folder::new(TLS);
    let sidecar = folder.start(&["http.max_connections=3"]);
    let mut cut_off = 0.0;
    // One that answers no ping stays for five seconds more.
    for (answers_pings, scrapes) in [(true, 30), (false, 1)] {
        let (over, ended) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let _over = SetOnDrop(&over);
            for _ in 0..3 {
                scope.spawn(|| {
                    let client = folder.client(None, &["h2"], rustls::ALL_VERSIONS);
                    while !over.load(Relaxed) {
                        if let Ok(mut stream) = connect(sidecar.http, client.clone()) {
                            let _ = ask_again_and_again(&mut stream, answers_pings, &over);
                            ended.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            for _ in 0..scrapes {
                let stream = connect(sidecar.http, folder.any_client(None)).unwrap();
                let reply = get(stream, "/metrics", "").unwrap();
                assert_eq!(reply.status, 200);
                cut_off = read_samples(&reply.text())["statsieve_http_connections_gave_way_total"];
            }
        });
        assert!(ended.into_inner() > 0);
    }
    // They go in order, once they ask again. What is cut off lost its processor for longer than a silent one may.
    assert!(cut_off <= 15.0, "{cut_off} of them had to be cut off for 31 scrapes");
    sidecar.stop();
}
