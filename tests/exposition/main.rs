//! The HTTP side from the outside: what is on the wire for each request, and what a bad client can do.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod client;
mod lint;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Gauge, Metric, MetricFamily, MetricType,
};
use prost::Message;
use statsieve::config::{Config, DebugApi, Format, Http, OwnMetrics};
use statsieve::expose::http::{self, State};
use statsieve::expose::lifecycle::Lifecycle;
use statsieve::expose::{Exposer, PIECE_BYTES, Pieces, SeriesSource};
use statsieve::identity::Seen;
use statsieve::insight::Insight;
use statsieve::listen::bind_tcp;
use statsieve::telemetry::{Listener, SocketBooks, Telemetry};

use client::{Answer, Client, PATIENCE};

const LINE: &[u8] = b"bot_messages_total{n=\"0123456789\"} 1\n";
const LINES_A_PIECE: usize = PIECE_BYTES / LINE.len();

/// A family of one gauge, delimited.
static MESSAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let metric = Metric { gauge: Some(Gauge { value: 1.0 }), ..Metric::default() };
    let name = "bot_level".to_owned();
    let kind = MetricType::Gauge.into();
    MetricFamily { name, r#type: kind, metric: vec![metric], ..MetricFamily::default() }
        .encode_length_delimited_to_vec()
});

/// The families of an exposition in protobuf.
fn decode(mut body: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !body.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut body).expect("a whole message"));
    }
    families
}

/// Pieces for a scrape in OpenMetrics or protobuf; one in text has a single line.
struct Source {
    pieces: usize,
    made: Arc<AtomicUsize>,
}

struct Walk {
    left: usize,
    piece: &'static [u8],
    made: Arc<AtomicUsize>,
}

impl SeriesSource for Source {
    fn begin(&self, format: Format) -> Box<dyn Pieces> {
        let made = Arc::clone(&self.made);
        if format == Format::OpenMetrics && self.pieces > 0 {
            static PIECE: LazyLock<Vec<u8>> = LazyLock::new(|| LINE.repeat(LINES_A_PIECE));
            Box::new(Walk { left: self.pieces, piece: &PIECE, made })
        } else if format == Format::Protobuf {
            Box::new(Walk { left: self.pieces.max(1), piece: &MESSAGE, made })
        } else {
            Box::new(Walk { left: 1, piece: b"# TYPE bot_level gauge\nbot_level 1\n", made })
        }
    }
}

impl Pieces for Walk {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        self.left -= 1;
        out.extend_from_slice(self.piece);
        self.made.fetch_add(1, SeqCst);
        self.left > 0
    }
}

struct Server {
    address: SocketAddr,
    lifecycle: Arc<Lifecycle>,
    telemetry: Arc<Telemetry>,
    made: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

struct Setup {
    http: Http,
    header_timeout: Duration,
    answer_grace: Duration,
    pieces: usize,
    source: Option<Box<dyn SeriesSource>>,
}

fn setup() -> Setup {
    Setup {
        http: Http {
            listen: "127.0.0.1:0".to_owned(),
            metrics_path: "/metrics".to_owned(),
            formats: vec![Format::OpenMetrics, Format::Protobuf, Format::Text],
            created_lines: false,
            lifecycle: false,
            debug_api: DebugApi::Loopback,
            web_config_file: None,
            web_remarks: vec![],
            max_connections: 64,
            write_timeout: PATIENCE,
            drain: Duration::ZERO,
        },
        header_timeout: PATIENCE,
        answer_grace: 2 * PATIENCE,
        pieces: 0,
        source: None,
    }
}

impl Setup {
    fn start(self) -> Server {
        let sockets = vec![Arc::new(SocketBooks::new(Listener::Udp, 1 << 20))];
        let telemetry = Arc::new(Telemetry::new(vec![], sockets, Arc::default(), "c0ffee", OwnMetrics::Full));
        let lifecycle = Arc::new(Lifecycle::default());
        let made = Arc::new(AtomicUsize::new(0));
        let source = self.source.unwrap_or_else(|| Box::new(Source { pieces: self.pieces, made: Arc::clone(&made) }));
        let exposer = Exposer::new(source, Arc::clone(&telemetry), Box::new(|| {}));
        let insight = Arc::new(Insight::new(&Config::default_checked()));
        insight.watch(0).seen(0, 0, b"42");
        let mut state = State::new(&self.http, None, exposer, Arc::clone(&lifecycle));
        state = state.with_insight(Box::new(move || Arc::clone(&insight)));
        state.header_timeout = self.header_timeout;
        state.answer_grace = self.answer_grace;
        let listener = bind_tcp(&self.http.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(http::serve(listener, Arc::new(state))).unwrap();
        });
        Server { address, lifecycle, telemetry, made, thread: Some(thread) }
    }
}

impl Server {
    fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut client = Client::connect(self.address);
        client.request(method, path, headers);
        if method == "HEAD" { client.head().unwrap() } else { client.answer().unwrap() }
    }

    fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask("GET", path, headers)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
/// What Prometheus sends once native histograms are turned on.
const ACCEPT_PROTOBUF: &str = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                               encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                               application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
const ACCEPT_OPEN: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[test]
fn the_format_is_the_one_asked_for() {
    let server = setup().start();
    for (headers, kind, end) in [
        (&[][..], TEXT, "\n"),
        (&["Accept: */*"][..], TEXT, "\n"),
        (&[ACCEPT_OPEN][..], OPEN, "\n# EOF\n"),
        // Several lines are one list.
        (&["Accept: text/plain;q=0.1", "X-Between: 1", "Accept: application/openmetrics-text"][..], OPEN, "\n# EOF\n"),
        (
            &["Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.2"][..],
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            "\n# EOF\n",
        ),
    ] {
        let answer = server.get("/metrics?name=x", headers);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(kind), "{headers:?}");
        assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-encoding"), None);
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length, answer.body.len(), "what fits in a piece says its length");
        assert!(answer.text().starts_with("# TYPE bot_level gauge\nbot_level 1\n"));
        assert!(answer.text().ends_with(end));
    }
}

#[test]
fn protobuf_is_delimited_families_and_is_given_only_for_its_whole_name() {
    let server = setup().start();
    let answer = server.get("/metrics", &[ACCEPT_PROTOBUF]);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(PROTOBUF)));
    assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, answer.body.len());
    let families = decode(&answer.body);
    assert_eq!(families[0], decode(&MESSAGE)[0], "series of users come first");
    let names: Vec<&str> = families[1..].iter().map(|family| family.name.as_str()).collect();
    assert!(names.contains(&"statsieve_lines_total") && names.contains(&"process_threads"), "{names:?}");
    assert_eq!(server.telemetry.scrapes(Format::Protobuf), 1);
    for accept in [
        "Accept: application/vnd.google.protobuf",
        "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
        "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
        "Accept: application/vnd.google.protobuf;encoding=delimited",
        "Accept: application/*",
    ] {
        assert_eq!(server.get("/metrics", &[accept]).header("content-type"), Some(TEXT), "{accept}");
    }
    assert_eq!(server.telemetry.scrapes(Format::Protobuf), 1);
}

#[test]
fn formats_that_are_not_offered_are_not_given() {
    for (formats, expected) in [
        (&[Format::Protobuf, Format::Text][..], [TEXT, PROTOBUF]),
        (&[Format::OpenMetrics, Format::Text], [OPEN, OPEN]),
        (&[Format::Text], [TEXT, TEXT]),
        // Nobody who did not ask for protobuf gets it.
        (&[Format::Protobuf], [TEXT, PROTOBUF]),
    ] {
        let mut setup = setup();
        setup.http.formats = formats.to_vec();
        let server = setup.start();
        for (accept, kind) in [ACCEPT_OPEN, ACCEPT_PROTOBUF].into_iter().zip(expected) {
            let answer = server.get("/metrics", &[accept]);
            assert_eq!(answer.header("content-type"), Some(kind), "{accept} of {formats:?}");
        }
    }
}

#[test]
fn head_has_the_headers_of_get_without_a_scrape() {
    let server = setup().start();
    let mut client = Client::connect(server.address);
    let headers = [ACCEPT_OPEN, "Accept-Encoding: gzip"];
    client.request("GET", "/metrics", &headers);
    let get = client.answer().unwrap();
    let made = server.made.load(SeqCst);
    client.request("HEAD", "/metrics", &headers);
    let head = client.head().unwrap();
    assert_eq!(head.status, 200);
    for name in ["content-type", "content-encoding", "vary", "x-content-type-options"] {
        assert!(get.header(name).is_some());
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!(head.header("content-length"), None, "it is not known without making the body");
    assert_eq!(server.made.load(SeqCst), made, "nothing was made");
    // The connection goes on, so nothing of a body was sent.
    let path = "/-/healthy";
    client.request("GET", path, &[]);
    let get = client.answer().unwrap();
    client.request("HEAD", path, &[]);
    let head = client.head().unwrap();
    assert_eq!(head.status, 200);
    for name in ["content-type", "content-length", "x-content-type-options"] {
        assert_eq!(head.header(name), get.header(name), "{name} of {path}");
    }
    assert_eq!(server.telemetry.scrapes(Format::OpenMetrics), 1);
    assert_eq!(server.ask("HEAD", "/metrics", &[ACCEPT_PROTOBUF]).header("content-type"), Some(PROTOBUF));
    assert_eq!(server.telemetry.scrapes(Format::Protobuf), 0);
}

#[test]
fn paths_and_methods_are_matched_exactly() {
    let server = setup().start();
    for (method, path, status) in [
        ("GET", "/metrics/", 404),
        ("GET", "/Metrics", 404),
        ("GET", "//", 404),
        ("GET", "/-/reload", 404),
        ("POST", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/-/ready", 405),
        ("DELETE", "/-/healthy", 405),
        ("OPTIONS", "/-/healthy", 405),
        ("GET", "/-/healthy", 200),
    ] {
        let answer = server.ask(method, path, &[]);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD"), "{method} {path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(server.telemetry.scrapes(Format::Text), 0);
}

#[test]
fn gzip_is_given_only_where_it_is_asked_for_and_holds_the_same_text() {
    let mut setup = setup();
    setup.pieces = 12;
    let server = setup.start();
    for (coding, compressed) in [
        ("gzip", true),
        ("gzip, deflate", true),
        ("gzip, identity;q=0", true),
        ("gzip;q=0", false),
        ("identity", false),
        ("*", false),
    ] {
        for accept in ["Accept: text/plain", ACCEPT_OPEN, ACCEPT_PROTOBUF] {
            let answer = server.get("/metrics", &[accept, &format!("Accept-Encoding: {coding}")]);
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-encoding"), compressed.then_some("gzip"), "{coding}");
            let mut text = answer.body.clone();
            if compressed {
                text.clear();
                flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut text).unwrap();
                assert!(answer.body.len() < text.len() / 2);
            }
            if accept == ACCEPT_PROTOBUF {
                let families = decode(&text);
                assert!(families.len() > 30 && families[..12].iter().all(|family| family.name == "bot_level"));
                continue;
            }
            let text = String::from_utf8(text).unwrap();
            if accept == ACCEPT_OPEN {
                assert_eq!(text.matches("bot_messages_total{n=").count(), 12 * LINES_A_PIECE);
                assert!(text.ends_with("\n# EOF\n"));
            } else {
                assert!(text.contains("bot_level 1\n") && text.contains("process_threads "));
            }
        }
    }
    for coding in ["identity;q=0", "*;q=0", "identity;q=0, br"] {
        let answer = server.get("/metrics", &[&format!("Accept-Encoding: {coding}")]);
        assert_eq!(answer.status, 406, "{coding}");
        assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
    }
}

#[test]
fn own_metrics_are_well_formed_in_both_formats() {
    let server = setup().start();
    // Twice: the second holds what the first one counted.
    for _ in 0..2 {
        for (accept, open) in [("Accept: text/plain", false), (ACCEPT_OPEN, true)] {
            let answer = server.get("/metrics", &[accept]);
            let families = lint::check(answer.text(), open);
            let expected = if open { "statsieve_lines" } else { "statsieve_lines_total" };
            assert!(families.contains(&expected.to_owned()), "{families:?}");
        }
    }
    let text = server.get("/metrics", &[]);
    assert!(text.text().contains("\nstatsieve_scrapes_total{format=\"openmetrics\"} 2\n"));
    assert!(text.text().contains("\nstatsieve_scrape_duration_seconds_count 4\n"));
}

#[test]
fn a_client_of_http_1_0_gets_an_answer_that_ends_with_the_connection() {
    let mut setup = setup();
    setup.pieces = 3;
    let server = setup.start();
    let mut client = Client::connect(server.address);
    client.send("GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n");
    // It may close its half at once, as a shell's `nc` does.
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let answer = client.answer().unwrap();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.text().ends_with("\n# EOF\n"));
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = setup().start();
    let long = format!("X-Long: {}", "x".repeat(20_000));
    let many = vec!["X-Many: 1"; 100];
    for headers in [&[long.as_str()][..], &many] {
        let mut client = Client::connect(server.address);
        client.request("GET", "/metrics", headers);
        assert_eq!(client.head().unwrap().status, 431);
    }
    assert_eq!(server.get("/-/healthy", &[]).status, 200);
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off() {
    let mut setup = setup();
    setup.pieces = 3200;
    setup.http.max_connections = 1;
    setup.http.write_timeout = Duration::from_millis(200);
    let server = setup.start();
    let mut stalled = Client::connect(server.address);
    stalled.request("GET", "/metrics", &[ACCEPT_OPEN]);
    assert_eq!(stalled.head().unwrap().status, 200);
    // The only connection is taken until the server gives the stalled one up.
    assert_eq!(server.get("/-/healthy", &[]).text(), "healthy\n");
    let end = loop {
        match stalled.chunk() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(end.is_some(), "what was cut off must not look whole");
    assert_eq!(server.telemetry.scrapes(Format::OpenMetrics), 0);
}

#[test]
fn a_request_that_does_not_arrive_is_given_up() {
    for beginning in ["", "GET /metrics HTTP/1.1\r\nHost: x\r\n"] {
        let mut setup = setup();
        setup.header_timeout = Duration::from_millis(200);
        let server = setup.start();
        let mut client = Client::connect(server.address);
        client.send(beginning);
        let mut rest = Vec::new();
        // Ends once the server closes; the client's own patience would be an error.
        client.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(server.get("/-/healthy", &[]).status, 200);
    }
}

#[test]
fn a_request_that_trickles_in_does_not_put_off_its_deadline() {
    let mut setup = setup();
    setup.header_timeout = Duration::from_millis(200);
    let server = setup.start();
    let mut client = Client::connect(server.address);
    client.send("GET /metrics HTTP/1.1\r\nX-Slow: ");
    client.stream.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    until("the connection is closed", || {
        let sent = client.stream.get_mut().write_all(b"x");
        sent.is_err() || client.stream.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
    });
}

#[test]
fn over_the_limit_the_one_that_has_been_silent_longest_gives_way() {
    let mut setup = setup();
    setup.http.max_connections = 2;
    let server = setup.start();
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(server.address)).collect();
    for client in &mut held {
        client.request("GET", "/-/healthy", &[]);
        assert_eq!(client.answer().unwrap().status, 200);
    }
    // The second has something to say now and then, the first has not.
    held[1].request("GET", "/-/healthy", &[]);
    assert_eq!(held[1].answer().unwrap().status, 200);
    let mut third = Client::connect(server.address);
    third.request("GET", "/-/healthy", &[]);
    assert_eq!(third.answer().unwrap().status, 200);
    assert_eq!(held[0].stream.read(&mut [0]).unwrap(), 0, "the first is closed");
    held[1].request("GET", "/-/healthy", &[]);
    assert_eq!(held[1].answer().unwrap().status, 200);
    // As many as want to, one after another.
    for _ in 0..10 {
        let mut client = Client::connect(server.address);
        client.request("GET", "/-/healthy", &[]);
        assert_eq!(client.answer().unwrap().status, 200);
    }
}

/// Two readers that take nothing of an answer, and have all connections.
fn stalled(setup: Setup) -> (Server, Vec<Client>) {
    let server = setup.start();
    let clients = (0..2).map(|_| {
        let mut client = Client::connect(server.address);
        client.request("GET", "/metrics", &[ACCEPT_OPEN]);
        assert_eq!(client.head().unwrap().status, 200);
        client
    });
    let clients = clients.collect();
    (server, clients)
}

#[test]
fn over_the_limit_an_answer_is_safe_as_long_as_a_scraper_waits_for_one() {
    for grace in [Duration::from_millis(300), 2 * PATIENCE] {
        let mut setup = setup();
        (setup.pieces, setup.http.max_connections, setup.answer_grace) = (3200, 2, grace);
        let (server, mut held) = stalled(setup);
        let mut third = Client::connect(server.address);
        third.request("GET", "/-/healthy", &[]);
        if grace > PATIENCE {
            third.stream.get_ref().set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            let error = third.stream.read(&mut [0]).unwrap_err();
            assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
            third.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
            // Who reads on gets all of it.
            let whole = std::iter::from_fn(|| held[1].chunk().unwrap()).map(|chunk| chunk.len()).sum::<usize>();
            assert!(whole > 1 << 20, "{whole}");
        }
        assert_eq!(third.answer().unwrap().status, 200);
        if grace < PATIENCE {
            let end = std::iter::repeat_with(|| held[0].chunk()).find(|chunk| !matches!(chunk, Ok(Some(_))));
            assert!(end.unwrap().is_err(), "what was cut off must not look whole");
        }
    }
}

#[test]
fn readiness_says_why_not() {
    let server = setup().start();
    let ready = |server: &Server| {
        let answer = server.get("/-/ready", &[]);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        (answer.status, answer.text().to_owned())
    };
    assert_eq!(ready(&server), (503, "starting: the listeners are not bound yet\n".to_owned()));
    server.lifecycle.set_ready();
    assert_eq!(ready(&server), (200, "ready\n".to_owned()));
    server.lifecycle.begin_drain();
    assert_eq!(ready(&server), (503, "draining: the process ends after the next scrape\n".to_owned()));
    assert_eq!(server.get("/-/healthy", &[]).status, 200);
    assert_eq!(server.get("/metrics", &[]).status, 200);
}

#[test]
fn draining_ends_with_the_next_scrape_or_the_limit() {
    let server = setup().start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    server.lifecycle.begin_drain();
    assert!(!runtime.block_on(server.lifecycle.drained(Duration::from_millis(20))));

    let drained = server.lifecycle.drained(PATIENCE);
    let waiter = std::thread::spawn(move || runtime.block_on(drained));
    server.ask("HEAD", "/-/ready", &[]);
    assert!(!waiter.is_finished(), "a look at readiness is no scrape");
    assert_eq!(server.get("/metrics", &[]).status, 200);
    assert!(waiter.join().unwrap());
}

#[test]
fn stopping_lets_an_answer_under_way_end_and_takes_no_more() {
    let mut setup = setup();
    setup.pieces = 800;
    let server = setup.start();
    let mut client = Client::connect(server.address);
    client.request("GET", "/metrics", &[ACCEPT_OPEN]);
    until("the scrape begins", || server.made.load(SeqCst) > 0);
    server.lifecycle.stop();
    let answer = client.answer().unwrap();
    assert!(answer.body.ends_with(b"\n# EOF\n"));
    until("the listener is closed", || std::net::TcpStream::connect(server.address).is_err());
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_big_exposition_costs_no_memory_and_holds_up_no_other() {
    const PIECES: usize = 3200;
    let mut setup = setup();
    setup.pieces = PIECES;
    let server = setup.start();
    let before = resident();
    let mut big = Client::connect(server.address);
    big.request("GET", "/metrics", &[ACCEPT_OPEN]);
    let head = big.head().unwrap();
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    // Nobody reads now: others are served, and what was made for the first stays within the kernel's buffers.
    for _ in 0..5 {
        assert!(server.get("/metrics", &[]).text().contains("bot_level 1\n"));
    }
    let made = server.made.load(SeqCst) * PIECE_BYTES;
    assert!(made < 32 << 20, "{made} bytes were made without a reader");
    // Somebody reads as fast as it goes: others are served as well.
    let reader = std::thread::spawn(move || {
        let (mut bytes, mut highest) = (0, 0);
        while let Some(chunk) = big.chunk().unwrap() {
            bytes += chunk.len();
            highest = highest.max(resident());
        }
        (bytes, highest)
    });
    for _ in 0..5 {
        assert!(server.get("/metrics", &[]).text().contains("bot_level 1\n"));
    }
    let (bytes, highest) = reader.join().unwrap();
    let users = PIECES * LINES_A_PIECE * LINE.len();
    assert!((users + 1000..users + 64 * 1024).contains(&bytes), "{bytes}");
    let grown = highest.saturating_sub(before);
    assert!(grown < 48 << 20, "memory grew by {grown} bytes");
    assert_eq!(server.telemetry.scrapes(Format::OpenMetrics), 1);
}

#[test]
fn a_scrape_that_panics_reaches_no_other() {
    struct Faulty;
    impl SeriesSource for Faulty {
        fn begin(&self, format: Format) -> Box<dyn Pieces> {
            assert_ne!(format, Format::OpenMetrics, "on purpose");
            Box::new(Walk { left: 1, piece: b"a 1\n", made: Arc::default() })
        }
    }
    let mut setup = setup();
    setup.http.max_connections = 1;
    setup.source = Some(Box::new(Faulty));
    let server = setup.start();
    for _ in 0..3 {
        let mut client = Client::connect(server.address);
        client.request("GET", "/metrics", &[ACCEPT_OPEN]);
        assert!(client.answer().is_err());
    }
    assert_eq!(server.get("/metrics", &[]).status, 200);
}

#[test]
fn the_list_of_the_loudest_is_for_those_who_may_see_it() {
    let json = "application/json";
    for (api, method, path, status, kind, body) in [
        (
            DebugApi::Loopback,
            "GET",
            "/api/v1/top?tag=user_id",
            200,
            json,
            r#""values":[{"value":"42","count":1,"error":0}]"#,
        ),
        (DebugApi::All, "GET", "/api/v1/top?tag=user%5fid", 200, json, r#"{"tag":"user_id","observed":1,"#),
        (
            DebugApi::Loopback,
            "GET",
            "/api/v1/top",
            200,
            json,
            r#"{"tags":[{"tag":"user_id","observed":1,"sampled":1,"error_bound":0}]}"#,
        ),
        (
            DebugApi::Loopback,
            "GET",
            "/api/v1/top?tag=chat_id",
            404,
            json,
            r#"{"error":"no list for the tag \"chat_id\"; there are: user_id"}"#,
        ),
        (DebugApi::Loopback, "POST", "/api/v1/top", 405, "text/plain; charset=utf-8", "method not allowed"),
        (DebugApi::Off, "GET", "/api/v1/top", 404, "text/plain; charset=utf-8", "not found"),
        (DebugApi::Off, "POST", "/api/v1/top", 404, "text/plain; charset=utf-8", "not found"),
        (DebugApi::All, "GET", "/api/v1/", 404, "text/plain; charset=utf-8", "not found"),
    ] {
        let mut setup = setup();
        setup.http.debug_api = api;
        let server = setup.start();
        let answer = server.ask(method, path, &[]);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)), "{api:?} {method} {path}");
        let found = String::from_utf8(answer.body).unwrap();
        assert!(found.contains(body), "{api:?} {method} {path}: {found}");
        if status == 200 {
            let head = server.ask("HEAD", path, &[]);
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_eq!(head.header("content-length"), Some(found.len().to_string().as_str()));
        }
    }
}
