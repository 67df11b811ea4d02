//! What series cost in memory and time, and what an idle sidecar costs: `cargo bench --bench memory`.
//!
//! Prints two tables in Markdown. Each line of the first is measured in a process of its own, through the library: all
//! series are of one family and are sent twice, so that identity caches are in it as well. The second is of the real
//! program on its built-in defaults. Bytes are resident ones as the kernel counts them.
//!
//! `cargo bench --bench memory -- series` and `-- process` print one of the two.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot go on says so by panicking"
)]

use std::fmt::Write as _;
use std::fs::{read_dir, read_to_string};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::time::{ClockId, clock_gettime};
use statsieve::aggregate::Store;
use statsieve::config::{Sources, load};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, SeriesBooks};

/// Lines in a datagram of about 1,400 bytes.
const LINES: u64 = 24;
/// Datagrams in a batch, as a worker reads them.
const BATCH: u64 = 64;
/// Starts of the program, of which the median is told.
const STARTS: usize = 20;
/// Runs of each measurement of series, of which the median is told.
const RUNS: usize = 3;
/// How long the idle program is left alone before it is looked at, and then looked at.
const SETTLES: Duration = Duration::from_secs(8);
const LOOKED_AT: Duration = Duration::from_secs(10);

/// Room for a million series.
const ROOMY: [&str; 6] = [
    "cardinality.max_series=1000000000",
    "cardinality.max_series_per_family=1000000000",
    "cardinality.max_bytes=8589934592",
    "cardinality.new_series_per_second=0",
    "labels.max_values=1000000",
    "sampling.mode=off",
];

/// A kind of series: its name, what it is sent as, and what the configuration says of it.
struct Kind {
    name: &'static str,
    value: &'static str,
    set: &'static [&'static str],
    series: &'static [u64],
}

const KINDS: [Kind; 6] = [
    Kind { name: "counter", value: "1|c", set: &[], series: &[100_000, 1_000_000] },
    Kind { name: "gauge", value: "1|g", set: &[], series: &[100_000, 1_000_000] },
    Kind { name: "histogram, default bounds", value: "12.5|ms", set: &[], series: &[100_000] },
    Kind {
        name: "histogram, without native buckets",
        value: "12.5|ms",
        set: &["observer.native_factor=1"],
        series: &[100_000],
    },
    Kind { name: "summary", value: "12.5|ms", set: &["observer.type=summary"], series: &[100_000] },
    Kind { name: "set", value: "member|s", set: &[], series: &[100_000] },
];

/// What was measured of so many series of a kind.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// Resident bytes of each.
    bytes: f64,
    /// Bytes that the store says it holds, of each.
    charged: f64,
    /// CPU time from datagram to series and recorded sample, microseconds.
    made_us: f64,
    /// The same for each line of the second round.
    again_us: f64,
    /// The longest that one line took when each came alone, milliseconds of CPU time.
    longest_ms: f64,
}

/// What the program itself, or a person, may ask for.
const WORDS: [&str; 4] = ["measure", "pauses", "series", "process"];

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if std::env::args().all(|argument| argument != "--bench")
        && !arguments.first().is_some_and(|word| WORDS.contains(&word.as_str()))
    {
        // As one of all targets that `cargo test` runs: a round, to see that it works.
        arguments = vec!["round".to_owned()];
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["measure", kind, series] => measure(&KINDS[kind.parse::<usize>().unwrap()], series.parse().unwrap()),
        ["pauses", kind, series] => pauses(&KINDS[kind.parse::<usize>().unwrap()], series.parse().unwrap()),
        ["round"] => (0..KINDS.len()).for_each(|kind| _ = of_runs(kind, 1000)),
        ["series"] => print!("{}", series()),
        ["process"] => print!("{}", process()),
        _ => print!("{}\n{}", series(), process()),
    }
}

fn series() -> String {
    let mut table = String::from(
        "| series of one family | number | resident bytes each | charged bytes each | CPU us each, new | CPU us, known | \
         longest line, CPU ms |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (number, kind) in KINDS.iter().enumerate() {
        for series in kind.series {
            let all = of_runs(number, *series);
            let median = |figure: fn(&Figures) -> f64| median(all.iter().map(figure).collect());
            writeln!(
                table,
                "| {} | {series} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
                kind.name,
                median(|figures| figures.bytes),
                median(|figures| figures.charged),
                median(|figures| figures.made_us),
                median(|figures| figures.again_us),
                median(|figures| figures.longest_ms),
            )
            .unwrap();
        }
    }
    table
}

/// The figures of some runs, each of them in two processes.
fn of_runs(kind: usize, series: u64) -> Vec<Figures> {
    let tell = |what: &str| -> Vec<f64> {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([what, &kind.to_string(), &series.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{what} failed");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_ascii_whitespace().map(|figure| figure.parse().unwrap()).collect()
    };
    let run = |_| {
        let (measured, paused) = (tell("measure"), tell("pauses"));
        let [bytes, charged, made_us, again_us] = measured[..] else { panic!("four figures") };
        Figures { bytes, charged, made_us, again_us, longest_ms: paused[0] }
    };
    (0..RUNS).map(run).collect()
}

/// In a process of its own: prints the bytes and the CPU time of each of so many series.
fn measure(kind: &Kind, series: u64) {
    let (mut pipeline, books, of_series) = pipeline(kind);
    // The first series, twice and thrice, brings what all share.
    (0..3).for_each(|_| _ = round(&mut pipeline, &books, kind, 0..1));
    let (before, charged) = (resident(), of_series.bytes.load(std::sync::atomic::Ordering::Relaxed));
    let made = round(&mut pipeline, &books, kind, 1..series);
    let again = round(&mut pipeline, &books, kind, 1..series);
    let created = of_series.created.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(created, series, "each is a series");
    let bytes = (resident() - before) as f64;
    let charged = (of_series.bytes.load(std::sync::atomic::Ordering::Relaxed) - charged) as f64;
    let us = |time: Duration| time.as_secs_f64() * 1e6 / series as f64;
    println!("{} {} {} {}", bytes / series as f64, charged / series as f64, us(made), us(again));
}

/// In a process of its own: prints the longest that one new series took.
fn pauses(kind: &Kind, series: u64) {
    let (mut pipeline, books, _) = pipeline(kind);
    let mut line = String::new();
    let mut longest = Duration::ZERO;
    pipeline.begin(Duration::ZERO);
    for number in 0..series {
        line.clear();
        write_line(kind, number, &mut line);
        let before = cpu();
        pipeline.datagram(black_box(line.as_bytes()));
        longest = longest.max(cpu() - before);
    }
    pipeline.end(&books);
    println!("{}", longest.as_secs_f64() * 1e3);
}

/// The stages of the first of two workers, with room.
fn pipeline(kind: &Kind) -> (Pipeline, Books, Arc<SeriesBooks>) {
    let books = Arc::new(SeriesBooks::default());
    let store = Arc::new(Store::new(2, books.clone()));
    let set = ROOMY.iter().chain(kind.set).map(ToString::to_string).collect();
    let rules = Rules::new(&load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config);
    (Pipeline::new(Arc::new(ArcSwap::from_pointee(rules)), store, 0), Books::default(), books)
}

/// Sends a line of each series, and says how much CPU time that took.
fn round(pipeline: &mut Pipeline, books: &Books, kind: &Kind, series: std::ops::Range<u64>) -> Duration {
    let mut spent = Duration::ZERO;
    let mut datagrams: Vec<String> = vec![String::new(); BATCH as usize];
    let mut next = series.start;
    while next < series.end {
        for datagram in &mut datagrams {
            datagram.clear();
            let end = (next + LINES).min(series.end);
            (next..end).for_each(|number| {
                write_line(kind, number, datagram);
                datagram.push('\n');
            });
            next = end;
        }
        let before = cpu();
        pipeline.begin(Duration::ZERO);
        datagrams.iter().for_each(|datagram| pipeline.datagram(black_box(datagram.as_bytes())));
        pipeline.end(books);
        spent += cpu() - before;
    }
    spent
}

fn write_line(kind: &Kind, number: u64, out: &mut String) {
    write!(out, "bot.commands:{}|#command:c{number},result:ok", kind.value).unwrap();
}

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn resident() -> u64 {
    let statm = read_to_string("/proc/self/statm").unwrap();
    statm.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A running sidecar.
struct Sidecar {
    process: Child,
    /// From its start to the answer that it is ready.
    ready: Duration,
}

impl Sidecar {
    fn start() -> Self {
        let started = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_statsieve"))
            .args(["--set", "listen.udp=127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let http = lines.find_map(|line| Some(line.unwrap().split_once("listener=http address=")?.1.to_owned()));
        let address = http.expect("the log tells where it serves");
        let mut answer = String::new();
        while !answer.starts_with("HTTP/1.1 200") {
            answer.clear();
            let mut stream = TcpStream::connect(&*address).unwrap();
            stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        let ready = started.elapsed();
        // Whatever it says from now on, nobody waits for.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, ready }
    }

    /// A figure of `/proc/<pid>/status`, MiB.
    fn mib(&self, name: &str) -> f64 {
        let status = read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// CPU time and voluntary context switches of all threads so far.
    fn spent(&self) -> (Duration, u64) {
        let (mut time, mut switches) = (Duration::ZERO, 0);
        for task in read_dir(format!("/proc/{}/task", self.process.id())).unwrap() {
            let path = task.unwrap().path();
            let ran = read_to_string(path.join("schedstat")).unwrap();
            time += Duration::from_nanos(ran.split_ascii_whitespace().next().unwrap().parse().unwrap());
            let status = read_to_string(path.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            switches += line.trim().parse::<u64>().unwrap();
        }
        (time, switches)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn process() -> String {
    // The first brings the program into the page cache.
    drop(Sidecar::start());
    let starts: Vec<(f64, f64)> = (0..STARTS)
        .map(|_| {
            let sidecar = Sidecar::start();
            (sidecar.ready.as_secs_f64() * 1e3, sidecar.spent().0.as_secs_f64() * 1e3)
        })
        .collect();
    let sidecar = Sidecar::start();
    std::thread::sleep(SETTLES);
    let (time, switches) = sidecar.spent();
    std::thread::sleep(LOOKED_AT);
    let (later, more) = sidecar.spent();
    let a_second = |n: f64| n / LOOKED_AT.as_secs_f64();
    format!(
        "| idle, on built-in defaults | |\n|---|---:|\n| ms to ready, median of {STARTS} | {:.1} |\n| CPU ms to ready | {:.1} |\n| resident MiB | {:.2} |\n| of which \
         anonymous | {:.2} |\n| CPU ms/s | {:.3} |\n| voluntary context switches/s | {:.1} |\n",
        median(starts.iter().map(|(ready, _)| *ready).collect()),
        median(starts.iter().map(|(_, cpu)| *cpu).collect()),
        sidecar.mib("VmRSS"),
        sidecar.mib("RssAnon"),
        a_second((later - time).as_secs_f64() * 1e3),
        a_second((more - switches) as f64),
    )
}
