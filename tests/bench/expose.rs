//! Cost of a scrape: `cargo bench --bench expose`.
//!
//! - `encode`: user series alone into memory, by type and format; elements are series.
//! - `scrape`: a whole answer over HTTP on the loopback, own metrics included, as it is and compressed; elements are
//!   series. The time is what a client sees.
//! - `gzip`: the text of 100,000 counters in memory, by level; elements are bytes before, and the name tells how many
//!   there are behind.
//! - `record`: known series recorded by one thread, alone, beside a thread that only spins (what the second core costs
//!   the first on this machine) and beside a thread that scrapes a million series without a pause; elements are lines.
//! - `new_series`: series made by one thread, alone and beside the same scrapes; elements are lines.
//!
//! `EXPOSE_SERIES` is the number of series in place of the million.

#![allow(missing_docs, reason = "criterion's macros make items without any")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::Compression;
use flate2::write::GzEncoder;
use statsieve::aggregate::Store;
use statsieve::config::{Config, Format, OwnMetrics, Sources, load};
use statsieve::expose::lifecycle::Lifecycle;
use statsieve::expose::{Exposer, PIECE_BYTES, SeriesSource, http};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{SeriesBooks, Telemetry};

/// Lines in a datagram of about 1,400 bytes.
const LINES: u64 = 24;
/// Lines that are recorded again and again; the identity cache holds them all.
const HOT: u64 = 8192;

const FORMATS: [(&str, Format); 3] =
    [("text", Format::Text), ("openmetrics", Format::OpenMetrics), ("protobuf", Format::Protobuf)];

fn most() -> u64 {
    std::env::var("EXPOSE_SERIES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

fn config() -> Config {
    let set = [
        "cardinality.max_series=10000000",
        "cardinality.max_series_per_family=10000000",
        "cardinality.max_bytes=8000000000",
        "cardinality.new_series_per_second=0",
        "cardinality.identity_cache_bytes=16777216",
        "labels.max_values=1000000",
    ];
    load(&Sources { file: None, set: set.map(str::to_owned).to_vec() }).expect("good settings").config
}

/// A store of one worker with a series for each of `lines` lines, and what records into it.
fn filled(lines: u64, write: impl Fn(u64, &mut String)) -> (Arc<Store>, Pipeline) {
    let store = Arc::new(Store::new(1, Arc::new(SeriesBooks::default())));
    let rules = Arc::new(ArcSwap::from_pointee(Rules::new(&config())));
    let mut pipeline = Pipeline::new(rules, store.clone(), 0);
    datagrams(0..lines, write).iter().for_each(|datagram| pipeline.datagram(datagram));
    (store, pipeline)
}

fn datagrams(lines: std::ops::Range<u64>, write: impl Fn(u64, &mut String)) -> Vec<Vec<u8>> {
    let lines: Vec<u64> = lines.collect();
    let datagram = |numbers: &[u64]| {
        let mut text = String::new();
        numbers.iter().for_each(|n| {
            write(*n, &mut text);
            text.push('\n');
        });
        text.into_bytes()
    };
    lines.chunks(LINES as usize).map(datagram).collect()
}

fn counter(n: u64, out: &mut String) {
    write!(out, "bot.commands:{}|c|#command:c{n},result:ok,chat_type:group", 1 + n % 977).expect("text");
}

/// Pulls all user series, each piece into the same memory.
fn pull(store: &Arc<Store>, format: Format, out: &mut Vec<u8>) -> usize {
    let (mut pieces, mut bytes) = (store.begin(format), 0);
    let mut more = true;
    while more {
        out.clear();
        more = pieces.next(out);
        bytes += black_box(&out[..]).len();
    }
    bytes
}

type Write = fn(u64, &mut String);

fn encode(c: &mut Criterion) {
    const SERIES: u64 = 10_000;
    let kinds: [(&str, Write); 7] = [
        ("counter", |n, out| write!(out, "a.b:{}|c|#k:v{n}", 1 + n % 977).expect("text")),
        ("counter_3_labels", counter),
        ("counter_of_fractions", |n, out| write!(out, "a.b:{}.37|c|#k:v{n}", n % 977).expect("text")),
        ("gauge", |n, out| write!(out, "a.b:{}|g|#k:v{n}", n % 977).expect("text")),
        ("histogram", |n, out| write!(out, "a.b:{}:{}:7.25|ms|#k:v{n}", n % 977, n % 13).expect("text")),
        ("distribution", |n, out| write!(out, "a.b:{}|d|#k:v{n}", n % 977).expect("text")),
        ("set", |n, out| write!(out, "a.b:m{n}|s|#k:v{n}").expect("text")),
    ];
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(SERIES));
    for (kind, write) in kinds {
        let (store, _pipeline) = filled(SERIES, write);
        for (name, format) in FORMATS {
            let mut out = Vec::new();
            group.bench_function(format!("{kind}/{name}"), |b| b.iter(|| pull(&store, format, &mut out)));
        }
    }
    group.finish();
}

fn gzip(c: &mut Criterion) {
    let (store, _pipeline) = filled(100_000, counter);
    let (mut pieces, mut text) = (store.begin(Format::Text), Vec::new());
    while pieces.next(&mut text) {}
    let mut group = c.benchmark_group("gzip");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.sample_size(10);
    for level in 1..=6 {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            text.chunks(PIECE_BYTES).for_each(|piece| encoder.write_all(piece).expect("a vector takes everything"));
            encoder.finish().expect("a vector takes everything").len()
        };
        group.bench_function(format!("level_{level}_to_{}_bytes", compress()), |b| b.iter(compress));
    }
    group.finish();
}

/// Serves `store` on a free port until the process ends.
fn serve(store: &Arc<Store>) -> SocketAddr {
    let telemetry = Telemetry::new(vec![], vec![], Arc::default(), "x", OwnMetrics::Core);
    let exposer = Exposer::new(Box::new(store.clone()), Arc::new(telemetry), Box::new(|| {}));
    let state = Arc::new(http::State::new(&config().http, None, exposer, Arc::new(Lifecycle::default())));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(http::serve(listener, state)).expect("it takes the listener");
    });
    address
}

/// Reads a whole answer and throws it away.
fn fetch(address: SocketAddr, encoding: &str, buffer: &mut [u8]) -> usize {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: {encoding}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut bytes = 0;
    loop {
        match stream.read(buffer).expect("it answers") {
            0 => return bytes,
            more => bytes += more,
        }
    }
}

fn scrape(c: &mut Criterion) {
    let mut group = c.benchmark_group("scrape");
    group.sample_size(10);
    for series in [1000, 100_000, most()] {
        let (store, _pipeline) = filled(series, counter);
        let address = serve(&store);
        group.throughput(Throughput::Elements(series));
        for (name, encoding) in [("plain", "identity"), ("gzip", "gzip")] {
            let mut buffer = vec![0; 1 << 20];
            group.bench_function(format!("{series}/{name}"), |b| b.iter(|| fetch(address, encoding, &mut buffer)));
        }
    }
    group.finish();
}

/// Runs `beside` again and again on a thread of its own while `measure` runs.
fn beside(beside: impl Fn() + Send + Sync, measure: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                beside();
            }
        });
        measure();
        stop.store(true, Relaxed);
    });
}

fn spin() {
    (0..100_000).for_each(|n| _ = black_box(n));
}

fn record(c: &mut Criterion) {
    let (store, mut pipeline) = filled(most(), counter);
    let hot = datagrams(0..HOT, |n, out| counter(n * (most() / HOT).max(1), out));
    let mut all = || hot.iter().for_each(|datagram| pipeline.datagram(black_box(datagram)));
    // Twice, since an identity is remembered at its second sight.
    all();
    all();
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(HOT));
    group.bench_function("alone", |b| b.iter(&mut all));
    beside(spin, || _ = group.bench_function("beside_spinning", |b| b.iter(&mut all)));
    for (name, format) in FORMATS {
        let scrape = || _ = pull(&store, format, &mut Vec::new());
        beside(scrape, || _ = group.bench_function(format!("beside_{name}"), |b| b.iter(&mut all)));
    }
    group.finish();
}

fn new_series(c: &mut Criterion) {
    let (store, mut pipeline) = filled(most(), counter);
    let mut group = c.benchmark_group("new_series");
    group.throughput(Throughput::Elements(LINES));
    group.sample_size(20);
    let mut next = 0;
    let fresh = |from: u64| datagrams(from..from + LINES, |n, out| write!(out, "new.name:1|c|#n:{n}").expect("text"));
    let mut all = |b: &mut criterion::Bencher<'_>| {
        let setup = || {
            next += LINES;
            fresh(next)
        };
        b.iter_batched(setup, |lines| pipeline.datagram(&lines[0]), criterion::BatchSize::PerIteration);
    };
    group.bench_function("alone", &mut all);
    beside(spin, || _ = group.bench_function("beside_spinning", &mut all));
    for (name, format) in FORMATS {
        let scrape = || _ = pull(&store, format, &mut Vec::new());
        beside(scrape, || _ = group.bench_function(format!("beside_{name}"), &mut all));
    }
    group.finish();
}

criterion_group!(benches, encode, scrape, gzip, record, new_series);
criterion_main!(benches);
