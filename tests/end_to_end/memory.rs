//! Resident memory against the formula: each part of it is driven to its worst, in a process of its own.
//!
//! The figure asserted is that of [`Memory::of`] for the very settings of the sidecar; the peak counts as the kernel
//! knows it. So that a formula far too wide fails as well, what was driven has to reach a share of its part.

use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use statsieve::command::memory::Memory;
use statsieve::config::{Config, Sources, load};

use crate::harness::{Sender, Sidecar, get, wait_until};
use crate::protobuf::PROTOBUF;

/// A store that ends at its bytes alone, and nothing beside it that is large.
const BYTES_ALONE: [&str; 9] = [
    "listen.workers=1",
    "listen.coalesce=0s",
    "http.max_connections=4",
    "cardinality.identity_cache_bytes=65536",
    "cardinality.max_series=1000000000",
    "cardinality.max_series_per_family=1000000000",
    "cardinality.new_series_per_second=0",
    "cardinality.simplify_at=1",
    "labels.max_values=1000000",
];

/// A sidecar with the formula of its settings.
struct Bounded {
    sidecar: Sidecar,
    memory: Memory,
    /// Resident once it was scraped for the first time.
    idle: u64,
    sent: u64,
}

impl Bounded {
    fn start(settings: &[&str]) -> Self {
        let set = settings.iter().map(ToString::to_string).collect();
        let config: Config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
        let sidecar = Sidecar::start(settings);
        let mut bounded = Self { sidecar, memory: Memory::of(&config), idle: 0, sent: 0 };
        bounded.idle = bounded.exposed("process_resident_memory_bytes");
        bounded
    }

    /// Sends lines, each as a datagram, and never more than the smallest receive buffer holds.
    fn send(&mut self, lines: impl Iterator<Item = String>) {
        self.send_over(&[self.sidecar.sender()], lines);
    }

    fn send_over(&mut self, senders: &[Sender], lines: impl Iterator<Item = String>) {
        let mut unread = 0;
        for (number, line) in lines.enumerate() {
            // A datagram is charged for its pages as well.
            unread += 2 * line.len() + 1024;
            if unread > 150_000 {
                self.wait_until_read();
                unread = 2 * line.len();
            }
            senders[number % senders.len()].send(line.as_bytes());
            self.sent += 1;
        }
        self.wait_until_read();
        wait_until("all lines are taken", || self.exposed("statsieve_lines_total") >= self.sent);
    }

    /// Waits until the kernel's queues are empty. A scrape would tell as well, but this one may be long.
    fn wait_until_read(&self) {
        let port = format!(":{:04X}", self.sidecar.udp.port());
        wait_until("the queue is empty", || {
            let table = read_to_string("/proc/net/udp").unwrap();
            let mut ours = table.lines().map(|row| row.split_ascii_whitespace()).filter_map(|mut columns| {
                let (address, queues) = (columns.nth(1)?, columns.nth(2)?);
                address.ends_with(&port).then(|| queues.ends_with(":00000000"))
            });
            ours.all(|is_empty| is_empty)
        });
    }

    /// A figure of the sidecar's own, out of a whole scrape.
    fn exposed(&self, name: &str) -> u64 {
        let text = get(self.sidecar.http, "/metrics", &[]).unwrap().text();
        let line = text.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap() as u64
    }

    /// The most that was ever resident.
    fn peak(&self) -> u64 {
        let status = read_to_string(format!("/proc/{}/status", self.sidecar.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Whether the bound held, and `part` of it was driven to `share` at least.
    fn check(self, what: &str, part: &str, share: f64) {
        let resident = self.exposed("process_resident_memory_bytes");
        let (peak, total, part_bytes) = (self.peak(), self.memory.total(), self.memory.part(part));
        let driven = (peak - self.idle) as f64 / part_bytes as f64;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let told = format!(
            "{what}: {} resident, {} at most, {} when idle; {} of {part}, of which {driven:.2} were driven; {} in all",
            mib(resident),
            mib(peak),
            mib(self.idle),
            mib(part_bytes),
            mib(total)
        );
        assert!(resident <= peak && peak <= total, "{told}\n{:#?}", self.memory);
        assert!(driven >= share, "{told}");
        self.sidecar.stop();
    }
}

/// `count` tags with values of 256 bytes, no two alike.
fn long_tags(number: u64, count: u64) -> String {
    let tags: Vec<String> = (0..count).map(|tag| format!("label_{tag}:{:0>256}", number * 100 + tag)).collect();
    tags.join(",")
}

/// A name of 249 bytes, to which a suffix may come.
fn long_name(number: u64) -> String {
    format!("name_{number:0>244}")
}

#[test]
fn series_of_each_type_with_the_longest_names_and_labels_stay_under_the_formula() {
    for kind in ["c", "g", "h"] {
        let mut bounded = Bounded::start(
            &[
                &BYTES_ALONE[..],
                &["cardinality.max_bytes=16777216", "cardinality.max_families=50", "listen.max_line_bytes=16384"],
            ]
            .concat(),
        );
        let line = |n: u64| format!("{}:1|{kind}|#{}", long_name(n % 50), long_tags(n, 32));
        // Some 9 KB each, so 1,900 are at the limit.
        bounded.send((0..3000).map(line));
        bounded.check(&format!("long series |{kind}"), "series", 0.7);
    }
}

#[test]
fn series_of_each_type_with_the_shortest_labels_stay_under_the_formula() {
    for kind in ["c", "g", "ms"] {
        let mut bounded = Bounded::start(
            &[&BYTES_ALONE[..], &["cardinality.max_bytes=8388608", "cardinality.max_families=50"]].concat(),
        );
        bounded.send((0..2500).map(|datagram| {
            let line = |n: u64| format!("a{}:1|{kind}|#k:{}", n % 10, datagram * 20 + n);
            (0..20).map(line).collect::<Vec<_>>().join("\n")
        }));
        bounded.check(&format!("short series |{kind}"), "series", 0.5);
    }
}

/// Many bounds and long names: what lies above `max_bytes` is many times as much here.
#[test]
fn families_made_past_the_bytes_stay_under_the_formula() {
    let bounds: Vec<String> = (0..500).map(|bound| bound.to_string()).collect();
    let bounds = format!("observer.buckets=[{}]", bounds.join(","));
    let settings = ["cardinality.max_bytes=1048576", "cardinality.max_families=3000", bounds.as_str()];
    let mut bounded = Bounded::start(&[&BYTES_ALONE[..], &settings].concat());
    bounded.send((0..4000).map(|n| format!("{}:1|h|#k:{n}", long_name(n))));
    let families = bounded.exposed("statsieve_families");
    assert_eq!(families, 3000);
    bounded.check("families", "families", 0.7);
}

/// Each identity loses a tag, which its answer keeps on the heap, and none is like the one before.
#[test]
fn full_identity_caches_stay_under_the_formula() {
    let settings =
        ["cardinality.identity_cache_bytes=8388608", "cardinality.max_series=10", "listen.max_line_bytes=4096"];
    let mut bounded = Bounded::start(&[&BYTES_ALONE[..], &settings].concat());
    let twice = |line: String| [line.clone(), line].join("\n");
    let short = |datagram: u64| (0..30).map(move |n| twice(format!("a:1|c|#k:{},x", datagram * 30 + n)));
    bounded.send((0..3000).map(|datagram| short(datagram).collect::<Vec<_>>().join("\n")));
    let entries = bounded.exposed("statsieve_identity_cache_entries");
    assert!(entries > 30_000, "{entries} entries");
    // The longest keys push out the shortest, and the other way round.
    bounded.send((0..4000).map(|n| twice(format!("b:1|c|#{},x", long_tags(n, 12)))));
    bounded.send((3000..4000).map(|datagram| short(datagram).collect::<Vec<_>>().join("\n")));
    bounded.check("identity caches", "identity caches", 0.8);
}

/// Values that take six bytes for each of theirs in the answer, asked for by several at once.
#[test]
fn heavy_hitters_of_the_longest_values_stay_under_the_formula() {
    let settings = ["heavy_hitters.capacity=4000", "cardinality.max_bytes=1048576"];
    let mut bounded = Bounded::start(&[&BYTES_ALONE[..], &settings].concat());
    bounded.send((0..4200).map(|n| format!("a:1|c|#user_id:{n:\u{1}>256}")));
    let answers: Vec<_> = (0..3)
        .map(|_| {
            let http = bounded.sidecar.http;
            std::thread::spawn(move || get(http, "/api/v1/top?tag=user_id", &[]).unwrap())
        })
        .collect();
    for answer in answers {
        let body = answer.join().unwrap().body;
        assert!(body.len() > 4000 * 6 * 250, "{}", body.len());
    }
    bounded.check("heavy hitters", "heavy hitters", 0.5);
}

/// Every connection but one asks for a compressed scrape that hardly compresses, and stops reading on the way.
#[test]
fn readers_that_stop_stay_under_the_formula() {
    let settings = ["http.max_connections=7", "cardinality.max_bytes=16777216", "http.write_timeout=1m"];
    let mut random = fastrand::Rng::with_seed(1);
    for accept in ["text/plain", PROTOBUF] {
        let mut bounded = Bounded::start(&[&BYTES_ALONE[..], &settings].concat());
        bounded.send((0..5500).map(|_| {
            let tags: Vec<String> =
                (0..32).map(|n| format!("k{n}:{:x}{:x}", random.u128(..), random.u128(..))).collect();
            format!("a:1|c|#{}", tags.join(","))
        }));
        bounded.idle = bounded.exposed("process_resident_memory_bytes");
        let mut readers: Vec<TcpStream> = (0..6).map(|_| ask_for_gzip(bounded.sidecar.http, accept)).collect();
        for _ in 0..4 {
            for reader in &mut readers {
                reader.read_exact(&mut [0; 10_000]).unwrap();
            }
        }
        bounded.check(&format!("connections, {accept}"), "connections", 0.4);
        drop(readers);
    }
}

fn ask_for_gzip(http: SocketAddr, accept: &str) -> TcpStream {
    let mut stream = TcpStream::connect(http).unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nAccept-Encoding: gzip\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// All of it at once by two workers, with quotas, while series of ever other lengths give way to one another and
/// scrapes go on: what the allocator cannot use again is part of the formula too.
#[test]
fn everything_at_once_stays_under_the_formula() {
    let settings = [
        "listen.workers=2",
        "cardinality.max_bytes=4194304",
        "cardinality.max_series=20000",
        "cardinality.max_series_per_family=20000",
        "cardinality.max_families=300",
        "cardinality.simplify_at=1",
        "cardinality.evict_idle_after=2s",
        "cardinality.identity_cache_bytes=1048576",
        "labels.max_values=1000000",
        "heavy_hitters.capacity=500",
        "http.max_connections=8",
        "rate_limit.family_samples_per_second=1000000",
        "mapping.rules=[{match='bot.*',name='$1',observer_type='summary',match_metric_type='observer'}]",
    ];
    let mut bounded = Bounded::start(&settings);
    let senders: Vec<Sender> = (0..8).map(|_| bounded.sidecar.sender()).collect();
    let http = bounded.sidecar.http;
    let mut gone = 0;
    let mut turn = 0;
    // Short labels first, then ever longer ones, then short ones again, until much has given way.
    while turn < 8 || gone < 500 {
        let tags = [1, 3, 9, 27, 3, 1, 14, 2][turn as usize % 8];
        let lines = 4000 / (tags + 3);
        let line = |n: u64| {
            let number = turn * 100_000 + n;
            // Few observations, since each of their lines repeats the labels in a scrape.
            let (name, value) = match number % 80 {
                0 => ("hist.name", "1:2:9:70:500:4000:30000|h"),
                20 => ("wait", "1:2:9:70:500:4000:30000|d"),
                40 => ("users", "member|s"),
                _ => ("name", ["1|c", "1|g"][number as usize % 2]),
            };
            format!("bot.{name}_{}:{value}|#user_id:{number:0>200},bare,{}", number % 400, long_tags(number, tags))
        };
        let scrape = std::thread::spawn(move || {
            for _ in 0..2 {
                get(http, "/metrics", &[("Accept-Encoding", "gzip")]).unwrap();
                get(http, "/api/v1/top?tag=user_id", &[]).unwrap();
            }
        });
        // Three sights: one to be seen, one to ask, and one that finds what was made room for.
        (0..3).for_each(|_| bounded.send_over(&senders, (0..lines).map(line)));
        scrape.join().unwrap();
        gone = bounded.exposed("statsieve_series_expired_total{cause=\"evicted\"}");
        turn += 1;
        assert!(turn < 60, "{gone} series gave way");
    }
    bounded.check("everything", "series", 0.6);
}
