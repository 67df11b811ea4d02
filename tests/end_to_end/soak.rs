//! Mixed load over every transport for a long time, with series that come and go, reloads, and scrapes in every format:
//! memory stays flat, and each format alone accounts for every sample that was sent.
//!
//! The short form is a test like any other. The long one is told by the environment; `tests/long` does:
//! `STATSIEVE_SOAK_SECONDS` (with reloads every ten seconds and scrapes every second), `STATSIEVE_SOAK_RATE` (lines a
//! second) and `STATSIEVE_SOAK_REPORT` (a Markdown file to write).
//!
//! Accounting is that of Prometheus: the increases between scrapes are added up, series by series, a series that went
//! and came back from 0. So a sample that goes with its series before it was ever shown is missed, as is one that a
//! reload or an expiry loses, or that one format shows and another does not.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Scrape, Sidecar, flood_alone, read_samples, wait_until};
use crate::protobuf;

const TRANSPORTS: [&str; 4] = ["udp", "unix_datagram", "tcp", "unix_stream"];
/// Lines in one datagram, or in one write to a stream.
const GROUP: u64 = 20;
/// What is scraped each time: a name, `Accept`, `Accept-Encoding`.
const FORMATS: [(&str, &str, &str); 6] = [
    ("text 0.0.4", "text/plain;version=0.0.4", ""),
    ("text 0.0.4, gzip", "text/plain;version=0.0.4", "gzip"),
    ("OpenMetrics 1.0.0", "application/openmetrics-text;version=1.0.0", ""),
    ("OpenMetrics 1.0.0, gzip", "application/openmetrics-text;version=1.0.0", "gzip"),
    ("protobuf", protobuf::PROTOBUF, ""),
    ("protobuf, gzip", protobuf::PROTOBUF, "gzip"),
];
/// Names of which nothing may be lost, and those they have under the second configuration. A sum in seconds is in
/// 64ths, so that nothing is rounded.
const SUMS: [(&str, &str); 10] = [
    ("soak_messages_total", "soak_messages_total"),
    ("soak_requests_total", "soak_requests_total"),
    ("soak_moved_total", "soak_moved_away_total"),
    ("soak_half_total", "soak_half_total"),
    ("soak_latency_seconds_count", "soak_latency_seconds_count"),
    ("soak_latency_seconds_sum", "soak_latency_seconds_sum"),
    ("soak_size_count", "soak_size_count"),
    ("soak_size_sum", "soak_size_sum"),
    ("soak_wait_count", "soak_wait_count"),
    ("statsd_events_total", "statsd_events_total"),
];

/// How long, how fast.
struct Plan {
    length: Duration,
    between_scrapes: Duration,
    between_reloads: Duration,
    /// After which an idle series goes: what one configuration of the four leaves out does not, what three leave out
    /// does well before its own comes again. One that goes and is back before anybody looks could have any total then.
    idle: Duration,
    /// Lines a second, over all transports.
    rate: u64,
    report: Option<String>,
}

impl Plan {
    fn of_environment() -> Self {
        let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect("a whole number"));
        let report = std::env::var("STATSIEVE_SOAK_REPORT").ok();
        let rate = number("STATSIEVE_SOAK_RATE");
        match number("STATSIEVE_SOAK_SECONDS") {
            Some(seconds) => Self {
                length: Duration::from_secs(seconds),
                between_scrapes: Duration::from_secs(1),
                between_reloads: Duration::from_secs(10),
                idle: Duration::from_secs(15),
                rate: rate.unwrap_or(20_000),
                report,
            },
            None => Self {
                length: Duration::from_secs(16),
                between_scrapes: Duration::from_millis(500),
                between_reloads: Duration::from_secs(4),
                idle: Duration::from_secs(7),
                rate: rate.unwrap_or(3_000),
                report,
            },
        }
    }

    /// What stands in the configuration file at the `number`th reload.
    fn configuration(&self, number: u64, folder: &Path) -> String {
        let at = |name: &str| folder.join(name).display().to_string();
        let mut text = format!(
            "[listen]\nunix_datagram = {:?}\nunix_stream = {:?}\ntcp = \"127.0.0.1:0\"\n\
             [observer]\nbuckets = [0.25, 1, 4]\n\
             [cardinality]\nidle_ttl = \"{}s\"\n",
            at("datagram"),
            at("stream"),
            self.idle.as_secs(),
        );
        // A limit that holds everything; one that folds; other buckets of users and another name; an empty change.
        text += match number % 4 {
            1 => "max_series = 1500\n",
            2 => "max_series = 50000\n[[bucketing]]\ntags = [\"user_id\"]\nlabel = \"user_bucket\"\ncount = 50\n",
            _ => "max_series = 50000\n",
        };
        text += match number % 4 {
            1 => "[labels]\nmax_values = 100\n",
            _ => "[labels]\nmax_values = 20000\n",
        };
        text += "[[mapping.rules]]\nmatch = \"soak.wait\"\nname = \"soak_wait\"\nobserver_type = \"summary\"\n";
        if number % 4 == 2 {
            text += "[[mapping.rules]]\nmatch = \"soak.moved\"\nname = \"soak_moved_away_total\"\n";
        }
        text
    }
}

/// What was sent over one transport.
#[derive(Default)]
struct Sent {
    sums: BTreeMap<&'static str, f64>,
    datagrams: u64,
    lines: u64,
    /// Samples, more than lines where a line holds several values.
    samples: u64,
    malformed: u64,
    /// The level of this transport's own gauge at the end, and the sum of all changes of the common one.
    level: f64,
    depth: f64,
}

impl Sent {
    fn add(&mut self, name: &'static str, value: f64) {
        *self.sums.entry(name).or_default() += value;
    }

    /// Writes the next line: mostly counters and timings of a bot, and a little of everything else.
    fn line(&mut self, transport: &str, random: &mut fastrand::Rng, seconds: u64, text: &mut String) {
        let n = random.u64(1..4);
        self.lines += 1;
        self.samples += 1;
        let end = match random.u32(..100) {
            0..35 => {
                self.add("soak_messages_total", n as f64);
                let kind = ["message", "command", "callback"][random.usize(..3)];
                write!(text, "soak.messages:{n}|c|#user_id:{},kind:{kind}", random.u64(..1_000_000))
            }
            // Chats that are busy for five seconds and never heard of again.
            35..50 => {
                self.add("soak_requests_total", n as f64);
                write!(text, "soak.requests:{n}|c|#chat:{}", (seconds / 5) * 1000 + random.u64(..300))
            }
            50..70 => {
                self.add("soak_latency_seconds_count", 1.0);
                let sixteenths = random.u64(..100);
                self.add("soak_latency_seconds_sum", sixteenths as f64 / 16.0);
                let command = random.u32(..20);
                write!(text, "soak.latency:{}|ms|#command:{command}", sixteenths as f64 * 62.5)
            }
            70..75 => {
                self.samples += 2;
                self.add("soak_size_count", 3.0);
                self.add("soak_size_sum", (n + n + 7) as f64);
                write!(text, "soak.size:{n}:{n}:7|d|#user_id:{}", random.u64(..1000))
            }
            75..80 => {
                self.add("soak_wait_count", 1.0);
                write!(text, "soak.wait:{n}|h|#queue:{}", random.u32(..5))
            }
            80..84 => {
                self.add("soak_moved_total", n as f64);
                write!(text, "soak.moved:{n}|c|#k:{}", random.u32(..10))
            }
            84..88 => {
                self.add("soak_half_total", 2.0 * n as f64);
                write!(text, "soak.half:{n}|c|@0.5")
            }
            88..92 => {
                self.level = random.u64(..1000) as f64;
                write!(text, "soak.level:{}|g|#from:{transport}", self.level)
            }
            92..95 => {
                let change = random.i64(-5..6);
                self.depth += change as f64;
                write!(text, "soak.depth:{change:+}|g")
            }
            95..97 => write!(text, "soak.seen:{}|s", random.u64(..100_000)),
            97 => {
                self.add("statsd_events_total", 1.0);
                write!(text, "_e{{5,4}}:title|text")
            }
            98 => write!(text, "_sc|soak.check|{}", random.u32(..4)),
            _ => {
                self.malformed += 1;
                write!(text, "soak.messages:{n}x|c")
            }
        };
        end.expect("text takes everything");
        text.push('\n');
    }

    fn merge(&mut self, other: &Self) {
        for (name, value) in &other.sums {
            self.add(name, *value);
        }
        self.lines += other.lines;
        self.samples += other.samples;
        self.malformed += other.malformed;
        self.depth += other.depth;
    }
}

/// One way to send: a group of lines at a time, waiting where the transport has its sender wait.
enum Way {
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    Tcp(TcpStream),
    Stream(UnixStream),
}

impl Way {
    fn new(transport: &str, sidecar: &Sidecar, folder: &Path) -> Self {
        let patience = Some(PATIENCE);
        match transport {
            "udp" => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(sidecar.udp).unwrap();
                Self::Udp(socket)
            }
            "unix_datagram" => {
                let socket = UnixDatagram::unbound().unwrap();
                socket.connect(folder.join("datagram")).unwrap();
                socket.set_write_timeout(patience).unwrap();
                Self::Datagram(socket)
            }
            "tcp" => {
                let stream = TcpStream::connect(sidecar.address_of("tcp")).unwrap();
                stream.set_write_timeout(patience).unwrap();
                Self::Tcp(stream)
            }
            _ => {
                let stream = UnixStream::connect(folder.join("stream")).unwrap();
                stream.set_write_timeout(patience).unwrap();
                Self::Stream(stream)
            }
        }
    }

    fn send(&mut self, text: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(text).unwrap(), text.len()),
            Self::Datagram(socket) => assert_eq!(socket.send(text).unwrap(), text.len()),
            Self::Tcp(stream) => stream.write_all(text).unwrap(),
            Self::Stream(stream) => stream.write_all(text).unwrap(),
        }
    }
}

/// Sends at `rate` lines a second until told to stop. A late sender catches up by no more than a tenth of a second's
/// lines at once, or it would flood.
fn send(transport: &str, mut way: Way, rate: u64, stop: &AtomicBool, lines: &AtomicU64) -> Sent {
    let (mut sent, mut random, mut text) = (Sent::default(), fastrand::Rng::with_seed(1), String::new());
    let started = Instant::now();
    let mut due = started;
    while !stop.load(Relaxed) {
        text.clear();
        for _ in 0..GROUP {
            sent.line(transport, &mut random, started.elapsed().as_secs(), &mut text);
        }
        way.send(text.as_bytes());
        sent.datagrams += 1;
        lines.fetch_add(GROUP, Relaxed);
        due += Duration::from_secs(GROUP) / rate as u32;
        let now = Instant::now();
        due = due.max(now.checked_sub(Duration::from_millis(100)).unwrap_or(now));
        thread::sleep(due.saturating_duration_since(now));
    }
    sent
}

/// What one format has shown so far.
#[derive(Default)]
struct Account {
    last: HashMap<String, f64>,
    increases: BTreeMap<&'static str, f64>,
    seen: Option<Instant>,
    longest_gap: Duration,
    took: Vec<Duration>,
    bytes: u64,
}

impl Account {
    fn take(&mut self, scrape: &Scrape, started: Instant) {
        if let Some(before) = self.seen.replace(started) {
            self.longest_gap = self.longest_gap.max(started - before);
        }
        let mut shown = HashMap::with_capacity(self.last.len());
        for (name, renamed) in SUMS {
            let also = (renamed != name).then_some(renamed);
            for (own, series, value) in
                [Some(name), also].into_iter().flatten().flat_map(|own| scrape.of(own).map(move |(s, v)| (own, s, v)))
            {
                let series = format!("{own}{series}");
                let before = self.last.get(&series).copied().unwrap_or(0.0);
                // Less than before is a series that went and came back; any other fall adds up to too much.
                let increase = if value < before { value } else { value - before };
                *self.increases.entry(name).or_default() += increase;
                shown.insert(series, value);
            }
        }
        self.last = shown;
    }
}

/// Scrapes in one format; gives what it shows, how long it took to the last byte, and how many bytes that were.
fn scrape(sidecar: &Sidecar, accept: &str, coding: &str) -> (Scrape, Duration, usize) {
    let mut headers = vec![("Accept", accept)];
    if !coding.is_empty() {
        headers.push(("Accept-Encoding", coding));
    }
    let started = Instant::now();
    let reply = sidecar.get("/metrics", &headers);
    let (took, length) = (started.elapsed(), reply.body.len());
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-encoding").unwrap_or_default(), coding);
    let content_type = reply.header("content-type").unwrap().to_owned();
    let mut body = Vec::new();
    match coding {
        "" => body = reply.body,
        _ => _ = GzDecoder::new(&reply.body[..]).read_to_end(&mut body).expect("a whole gzip"),
    }
    let (text, samples) = if content_type.starts_with("application/vnd.google.protobuf") {
        (String::new(), protobuf::samples(&protobuf::decode(&body)))
    } else {
        let text = String::from_utf8(body).expect("an exposition is UTF-8");
        let samples = read_samples(&text);
        (text, samples)
    };
    (Scrape { content_type, text, samples }, took, length)
}

/// A figure of `/proc/PID/status`, KiB or a number.
fn of_process(sidecar: &Sidecar, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_ascii_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(sidecar: &Sidecar) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().count() as u64
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    times[((times.len() - 1) as f64 * share).round() as usize]
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Seconds that the hypervisor kept the cores of this machine from it.
fn stolen() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    text.lines()
        .next()
        .unwrap()
        .split_ascii_whitespace()
        .nth(8)
        .map_or(0.0, |ticks| ticks.parse().unwrap_or(0.0) / 100.0)
}

#[test]
fn under_mixed_load_with_churn_reloads_and_scrapes_no_format_misses_a_sample_and_memory_stays() {
    let _alone = flood_alone();
    let plan = Plan::of_environment();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    fs::write(&file, plan.configuration(0, folder.path())).unwrap();
    let sidecar = Sidecar::start_with(&[], &["--config", file.to_str().unwrap()]);
    let limit = sidecar.scrape().value("statsieve_memory_limit_bytes") as u64;
    let (stop, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let senders = TRANSPORTS.map(|transport| {
        let way = Way::new(transport, &sidecar, folder.path());
        let (stop, lines, rate) = (stop.clone(), lines.clone(), plan.rate / TRANSPORTS.len() as u64);
        thread::spawn(move || send(transport, way, rate, &stop, &lines))
    });
    let halt = StopOnDrop(&stop);

    let mut accounts: [Account; FORMATS.len()] = Default::default();
    let (started, stolen_before) = (Instant::now(), stolen());
    let (mut next_scrape, mut next_reload, mut reloads) = (started, started + plan.between_reloads, 0_u64);
    let (mut resident, mut handles, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    while started.elapsed() < plan.length {
        for (account, (_, accept, coding)) in accounts.iter_mut().zip(FORMATS) {
            let begun = Instant::now();
            let (scrape, took, bytes) = scrape(&sidecar, accept, coding);
            account.take(&scrape, begun);
            account.took.push(took);
            account.bytes += bytes as u64;
        }
        resident.push(of_process(&sidecar, "VmRSS") * 1024);
        handles.push(descriptors(&sidecar));
        threads.push(of_process(&sidecar, "Threads"));
        for path in ["/", "/api/v1/status", "/api/v1/cardinality"] {
            assert_eq!(sidecar.get(path, &[]).status, 200, "{path}");
        }
        if Instant::now() >= next_reload {
            reloads += 1;
            fs::write(&file, plan.configuration(reloads, folder.path())).unwrap();
            sidecar.signal(Signal::SIGHUP);
            next_reload += plan.between_reloads;
        }
        next_scrape = (next_scrape + plan.between_scrapes).max(Instant::now());
        thread::sleep(next_scrape.saturating_duration_since(Instant::now()));
    }
    let length = started.elapsed();
    drop(halt);
    let parts = senders.map(|sender| sender.join().expect("a sender sends to the end"));
    let mut sent = Sent::default();
    parts.iter().for_each(|part| sent.merge(part));

    // What the kernel lost of UDP is known by the datagram, and nothing else may be missing.
    let udp = parts[0].datagrams as f64;
    let of_udp = |scrape: &Scrape| scrape.value("statsieve_datagrams_total{listener=\"udp\"}") + scrape.kernel_drops();
    sidecar.wait_until("every datagram is read or lost", |it| of_udp(&it.scrape()) == udp);
    let lost = sidecar.scrape().kernel_drops() as u64;
    let expected = sent.lines - lost * GROUP;
    let last = sidecar.settled(expected);
    for (account, (_, accept, coding)) in accounts.iter_mut().zip(FORMATS) {
        let begun = Instant::now();
        account.take(&scrape(&sidecar, accept, coding).0, begun);
    }

    assert_eq!(of_udp(&last), udp);
    assert_eq!(last.lines(), expected as f64);
    let reason = |name: &str| last.value(&format!("statsieve_samples_dropped_total{{reason=\"{name}\"}}"));
    let refused = reason("malformed_value");
    // At its limit the second configuration takes no new gauge.
    assert_eq!(last.dropped(), refused + reason("cardinality"), "{:?}", last.dropped_by_reason());
    let booked = last.recorded() + last.dropped();
    let success = "statsieve_config_reloads_total{outcome=\"success\"}";
    wait_until("all reloads are done", || sidecar.scrape().value(success) + 1.0 > reloads as f64);
    assert_eq!(sidecar.scrape().value("statsieve_config_reloads_total{outcome=\"failure\"}"), 0.0);
    if lost == 0 {
        assert_eq!((booked, refused), (sent.samples as f64, sent.malformed as f64));
        last.assert("soak_depth", sent.depth);
        for (transport, part) in TRANSPORTS.iter().zip(&parts) {
            last.assert(&format!("soak_level{{from=\"{transport}\"}}"), part.level);
        }
    } else {
        assert!(booked < sent.samples as f64 && booked >= (sent.samples - lost * GROUP * 3) as f64, "{booked}");
    }
    for (account, (format, ..)) in accounts.iter().zip(FORMATS) {
        // Had all been as late as that, other series could have gone, and have been back before a look.
        let seen_in_time = account.longest_gap < plan.idle - plan.between_reloads - Duration::from_secs(1);
        for (name, total) in &sent.sums {
            let found = account.increases.get(name).copied().unwrap_or(0.0);
            if lost == 0 && seen_in_time {
                assert_eq!(found, *total, "{name} as {format} shows it");
            } else {
                assert!(found <= *total, "{name} as {format} shows it: {found} of {total}");
            }
        }
    }

    let peak = of_process(&sidecar, "VmHWM") * 1024;
    assert!(peak <= limit, "{peak} bytes, of a bound of {limit}");
    for (what, counts) in [("descriptors", &handles), ("threads", &threads)] {
        let (first, second) = counts.split_at(counts.len() / 2);
        // A connection more may be open just then; a leak would show in the hundreds of scrapes.
        assert!(second.iter().max() <= first.iter().max().map(|most| most + 8).as_ref(), "{what} grow: {counts:?}");
    }
    let quarter = resident.len() / 4;
    let (before, after) = (median(&resident[quarter..2 * quarter]), median(&resident[3 * quarter..]));
    if plan.length >= Duration::from_secs(600) {
        assert!(after as f64 <= before as f64 * 1.02 + 524_288.0, "memory grew from {before} to {after} bytes");
    }
    let went = last.sum("statsieve_series_expired_total");
    assert!(went > 0.0, "nothing expired:\n{}", last.text);

    let mut took: Vec<Duration> = accounts.iter().flat_map(|account| account.took.iter().copied()).collect();
    took.sort_unstable();
    let slow = took.iter().filter(|time| **time > Duration::from_millis(100)).count();
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    let mut report = String::from("| soak | |\n|---|---:|\n");
    let mut row = |what: &str, figure: String| writeln!(report, "| {what} | {figure} |").unwrap();
    row("length", format!("{:.0} s", length.as_secs_f64()));
    row("lines sent, over UDP, unix datagrams, TCP and unix streams", sent.lines.to_string());
    row("datagrams lost by the kernel (UDP)", lost.to_string());
    row("lines lost otherwise", "0".to_owned());
    row("lines refused, as they had to be", (sent.malformed).to_string());
    row("samples of new gauges refused at the limit", reason("cardinality").to_string());
    row("reloads", reloads.to_string());
    row("series that expired", went.to_string());
    row("scrapes, in six formats", took.len().to_string());
    row("a scrape takes, median", format!("{:.1} ms", quantile(&took, 0.5).as_secs_f64() * 1e3));
    row("99 of 100 take at most", format!("{:.1} ms", quantile(&took, 0.99).as_secs_f64() * 1e3));
    row("the slowest", format!("{:.1} ms", took.last().unwrap().as_secs_f64() * 1e3));
    row("scrapes over 100 ms", slow.to_string());
    row("bytes of a scrape, mean", (accounts[0].bytes / accounts[0].took.len() as u64).to_string());
    row("resident memory in the second quarter, median", mebibytes(before));
    row("in the last quarter", mebibytes(after));
    row("at most", mebibytes(peak));
    row("time that the machine's cores were kept from it", format!("{:.1} s", stolen() - stolen_before));
    eprintln!("{report}");
    if let Some(path) = &plan.report {
        fs::write(path, &report).unwrap();
    }
    sidecar.stop();
}

/// Has the senders stop, also if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
