//! Clients of HTTP that do harm, all at once or one after another: scrapes are answered, and the books are right.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::{PATIENCE, Sidecar, wait_until};

/// What may be open beside connections: sockets, pipes, files of the kernel.
const OTHER_DESCRIPTORS: f64 = 40.0;

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn connect(sidecar: &Sidecar, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first).unwrap();
    stream
}

/// One that takes no more than some KiB into its own queue.
fn connect_narrow(sidecar: &Sidecar, first: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&sidecar.http.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first).unwrap();
    stream
}

/// Sends a line, and sees it and all before it in a scrape.
fn assert_sound(sidecar: &Sidecar, lines: &mut u64, of: &str) {
    sidecar.send(&["hits:1|c"]);
    *lines += 1;
    let scrape = sidecar.settled(*lines);
    scrape.assert("hits_total", *lines as f64);
    assert_eq!((scrape.recorded(), scrape.dropped()), (*lines as f64, 0.0), "{of}");
    let descriptors = scrape.value("process_open_fds");
    assert!(descriptors < 64.0 + OTHER_DESCRIPTORS, "{descriptors} with {of}");
}

#[test]
fn a_thousand_connections_that_say_nothing_or_half_a_request_keep_no_scrape_waiting() {
    let sidecar = Sidecar::start(&[]);
    let mut lines = 0;
    let begun = ["", "GET /metrics HT", "GET /metrics HTTP/1.1\r\nHost: x\r\nX-More: "];
    let held: Vec<TcpStream> = (0..1000).map(|n| connect(&sidecar, begun[n % begun.len()].as_bytes())).collect();
    for _ in 0..5 {
        assert_sound(&sidecar, &mut lines, "a thousand connections");
    }
    let scrape = sidecar.scrape();
    assert!(scrape.value("statsieve_http_connections_gave_way_total") > 900.0, "{}", scrape.text);
    assert_eq!(sidecar.log().lines().filter(|line| line.contains("HTTP")).count(), 0, "{}", sidecar.log());
    drop(held);
    sidecar.stop();
}

#[test]
fn readers_of_a_byte_a_second_give_way_to_a_scrape() {
    let sidecar = Sidecar::start(&["http.max_connections=3", "labels.max_values=100000"]);
    // Some 8 MB, more than the kernel takes off the sidecar's hands.
    let mut lines = 0;
    for part in 0..100 {
        let text: String = (0..50).map(|n| format!("h:1|h|#k:{}\n", part * 50 + n)).collect();
        sidecar.sender().send(text.as_bytes());
        lines += 50;
        sidecar.settled(lines);
    }
    let mut slow: Vec<TcpStream> = (0..3).map(|_| connect_narrow(&sidecar, SCRAPE)).collect();
    let dripping = |slow: &mut Vec<TcpStream>| slow.iter_mut().filter_map(|it| it.read(&mut [0]).ok()).sum::<usize>();
    assert_eq!(dripping(&mut slow), 3);
    // All of them take something each second, so nobody says that they stall. This one waits ten seconds at most.
    let scrape = std::thread::scope(|scope| {
        let asked = scope.spawn(|| sidecar.scrape());
        while !asked.is_finished() {
            dripping(&mut slow);
            std::thread::sleep(Duration::from_millis(500));
        }
        asked.join().unwrap()
    });
    assert_eq!(scrape.lines(), lines as f64);
    wait_until("one gave way", || sidecar.scrape().value("statsieve_http_connections_gave_way_total") >= 1.0);
    drop(slow);
    sidecar.stop();
}

/// Asks over one connection until it ends, or all is over; gives whether the last answer said that it was.
fn ask_again_and_again(address: SocketAddr, over: &AtomicBool) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 4096];
    while !over.load(Relaxed) {
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let length = stream.read(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
        if length == 0 || answer.contains("connection: close") {
            return Ok(length > 0);
        }
    }
    Ok(false)
}

/// Each of them has had an answer and never rests, so none is silent, and none is slow.
#[test]
fn clients_that_ask_again_and_again_on_every_place_keep_no_scrape_waiting() {
    let sidecar = Sidecar::start(&["http.max_connections=4"]);
    let mut lines = 0;
    let (over, farewells) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    // One that rests for too long, where the machine is busy, is cut off without a word.
                    let is_farewell = ask_again_and_again(sidecar.http, &over).unwrap_or(false);
                    farewells.fetch_add(usize::from(is_farewell), Relaxed);
                }
            });
        }
        // Also where an assertion fails: the scope waits for all of them.
        let _over = SetOnDrop(&over);
        for _ in 0..20 {
            assert_sound(&sidecar, &mut lines, "clients that never rest");
        }
    });
    assert!(farewells.into_inner() > 0);
    sidecar.stop();
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn requests_that_come_all_at_once_are_answered_in_their_order() {
    let sidecar = Sidecar::start(&[]);
    let asked = [("/-/healthy", "200 OK"), ("/-/nothing", "404 Not Found"), ("/-/quit", "405 Method Not Allowed")];
    let order: Vec<_> = (0..200).map(|n| asked[n * n % 7 % 3]).collect();
    let mut text = order.iter().map(|(path, _)| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).collect::<String>();
    text.push_str("GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut stream = connect(&sidecar, text.as_bytes());
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let found = answers.split("HTTP/1.1 ").skip(1).map(|answer| answer.lines().next().unwrap());
    assert!(found.eq(order.iter().map(|(_, status)| *status).chain(["200 OK"])), "{answers}");
    assert_sound(&sidecar, &mut 0, "requests all at once");
    sidecar.stop();
}

#[test]
fn what_is_no_sensible_request_costs_its_connection_alone() {
    let sidecar = Sidecar::start(&[]);
    let mut lines = 0;
    let many = "X-Many: x\r\n".repeat(10_000);
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let inputs: [(&str, Vec<u8>); 9] = [
        ("the beginning of TLS", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc][..], &[0xa5; 400]].concat()),
        ("bytes of all kinds", (0..=255).cycle().take(10_000).collect()),
        ("a head of 1 MiB", long.into_bytes()),
        ("ten thousand headers", format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").into_bytes()),
        ("a path of 100 KiB", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100 << 10)).into_bytes()),
        ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        (
            "chunks that are none",
            b"POST /-/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        ),
        (
            "two lengths",
            b"POST /-/quit HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 20\r\n\r\n".to_vec(),
        ),
        ("an absurd method", b"BREW /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec()),
    ];
    for (what, input) in inputs {
        let mut stream = TcpStream::connect(sidecar.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before all of it is out.
        let _ = stream.write_all(&input);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        assert!(
            ["", "HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 405", "HTTP/1.1 414", "HTTP/1.1 431"]
                .contains(&head.as_str()),
            "{what}: {head}"
        );
        assert_sound(&sidecar, &mut lines, what);
    }
    let malformed = |it: &Sidecar| it.scrape().value("statsieve_http_refused_total{reason=\"malformed\"}");
    // All but the chunks and the method, which have heads that can be read.
    sidecar.wait_until("each that is no request is counted", |it| malformed(it) == 7.0);
    // A body without an end, of which nobody reads a byte.
    let mut endless = connect(&sidecar, b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
    endless.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    for _ in 0..1000 {
        if endless.write_all(&[b'x'; 64 << 10]).is_err() {
            break;
        }
    }
    assert_sound(&sidecar, &mut lines, "a body without an end");
    assert_eq!(sidecar.log().lines().count(), 3, "nothing of it is in the log: {}", sidecar.log());
    sidecar.stop();
}

#[test]
fn requests_in_a_row_whose_answers_nobody_reads_take_the_memory_of_one_connection() {
    let sidecar = Sidecar::start(&[]);
    let mut lines = 0;
    assert_sound(&sidecar, &mut lines, "nothing yet");
    let before = sidecar.scrape().value("process_resident_memory_bytes");
    let held: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = connect_narrow(&sidecar, SCRAPE);
            stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let row = SCRAPE.repeat(1000);
            for _ in 0..100 {
                if stream.write_all(&row).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    assert_sound(&sidecar, &mut lines, "requests in a row");
    let grown = sidecar.scrape().value("process_resident_memory_bytes") - before;
    // What `statsieve check` counts for a connection is about 1 MiB.
    assert!(grown < 20.0 * 1024.0 * 1024.0, "{grown} bytes");
    drop(held);
    sidecar.stop();
}

#[test]
fn connections_that_are_reset_in_the_middle_of_an_answer_leave_nothing_behind() {
    let sidecar = Sidecar::start(&[]);
    let mut lines = 0;
    assert_sound(&sidecar, &mut lines, "nothing yet");
    let before = sidecar.scrape().value("process_open_fds");
    for _ in 0..300 {
        let mut stream = connect_narrow(&sidecar, SCRAPE);
        stream.read_exact(&mut [0; 10]).unwrap();
        // Closed with something unread, so the kernel resets it.
        drop(stream);
    }
    assert_sound(&sidecar, &mut lines, "connections that were reset");
    wait_until("all of them are gone", || sidecar.scrape().value("process_open_fds") <= before);
    sidecar.stop();
}
