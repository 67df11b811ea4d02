//! All at once, on real threads: workers record, rules are swapped, idle series go, and three scrapers read, one in
//! each format.
//!
//! In rounds: in each, every thread does its share beside the others, however long it takes. Behind a round nobody is
//! at work, and all sums are exact. Between rounds and within them, what must only rise only rises, and each scrape is
//! right in itself.
//!
//! Thirty rounds in the suite. `STATSIEVE_STRESS_SECONDS=600` goes on for as long; `STATSIEVE_STRESS_SEED` has a run
//! sends what another sent, whose seed is printed.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::MetricFamily;
use prost::Message;
use statsieve::aggregate::Store;
use statsieve::clock::tick;
use statsieve::config::{Format, Sources, load};
use statsieve::expose::SeriesSource;
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, ExpiryCause, SeriesBooks, Tally};

const WORKERS: usize = 3;
/// Rounds of the short run.
const ROUNDS: usize = 30;
/// Batches of each worker, reloads, sweeps and scrapes in each format in a round.
const BATCHES: usize = 150;
const RELOADS: usize = 4;
const SWEEPS: usize = 4;
const SCRAPES: usize = 3;

/// A series as the text has it, `{}` left out where there are no labels, and its value.
type Seen = BTreeMap<String, f64>;

/// What changes from one reload to the next: buckets, a mapping, room for the series of a family.
const VARIANTS: [&[&str]; 4] = [
    &["observer.buckets=[1,4]", "cardinality.max_series_per_family=40"],
    &["observer.buckets=[2]", "cardinality.max_series_per_family=1000"],
    &["observer.buckets=[1,2,3]", "cardinality.max_series_per_family=30"],
    &["observer.type=summary", "cardinality.max_series_per_family=1000"],
];

fn rules(variant: usize, generation: u64) -> Rules {
    let always = [
        "bucketing=[]",
        "cardinality.new_series_per_second=0",
        "cardinality.idle_ttl=0s",
        "cardinality.evict_idle_after=365d",
        "labels.max_values=1000000",
    ];
    // Some keep what they have, some come and go, one is called otherwise each time.
    let rules = format!(
        "mapping.rules=[{{match='kept_h',name='kept_h',\
         observer_type='histogram',buckets=[1,2]}},{{match='kept_s',name='kept_s',\
         observer_type='summary'}},{{match='brief.*',name='brief',labels={{k='$1'}},ttl='2s'}},\
         {{match='moved',name='moved_{}'}}]",
        variant % 2
    );
    let set = always.iter().chain(VARIANTS[variant]).map(ToString::to_string).chain([rules]).collect();
    let config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
    let mut rules = Rules::new(&config);
    rules.generation = generation;
    rules
}

struct Rig {
    rules: Arc<ArcSwap<Rules>>,
    store: Arc<Store>,
    books: Arc<SeriesBooks>,
    /// Second that it is.
    clock: AtomicU64,
}

struct Worker {
    pipeline: Pipeline,
    books: Books,
    random: fastrand::Rng,
    /// The sums of what was sent, by the beginning of the name.
    sent: BTreeMap<&'static str, f64>,
    lines: u64,
}

impl Worker {
    /// Takes its batches of a round.
    fn round(&mut self, rig: &Rig) {
        for _ in 0..BATCHES {
            self.pipeline.begin(Duration::from_secs(rig.clock.load(SeqCst)));
            let mut datagrams = Vec::new();
            for _ in 0..self.random.u64(1..4) {
                let [k, n, brief] = [8, 5, 60].map(|most| self.random.u64(0..most));
                let n = n + 1;
                let text = format!(
                    "kept:{n}|c|#k:{k}\nkept_h:{n}|h|#k:{k}\nkept_s:{n}:1|h|#k:{k}\nflood:{n}|c|#k:{brief}\n\
                     turned:{n}|h|#k:{k}\nbrief.{brief}:{n}|c\nmoved:{n}|c|#k:{k}\nmember:{k}|s\nlevel:{k}|g|#k:{k}"
                );
                datagrams.push(text);
                self.lines += 9;
                let n = n as f64;
                let sums = [
                    ("kept_total", n),
                    ("kept_h_sum", n),
                    ("kept_h_count", 1.0),
                    ("kept_s_sum", n + 1.0),
                    ("kept_s_count", 2.0),
                    ("flood_total", n),
                    ("moved_", n),
                    ("turned_sum", n),
                    ("brief_total", n),
                ];
                sums.into_iter().for_each(|(name, more)| *self.sent.entry(name).or_default() += more);
            }
            // Rules may change between them, while samples of the one before wait.
            self.pipeline.datagrams(datagrams.iter().map(String::as_bytes));
            self.pipeline.end(&self.books);
        }
    }
}

/// What one scraper saw last of what only rises.
struct Scraper {
    format: Format,
    last: Seen,
}

impl Scraper {
    /// A scrape that is right in itself, and behind the last.
    fn scrape(&mut self, rig: &Rig) -> Seen {
        let (mut pieces, mut bytes) = (rig.store.begin(self.format), Vec::new());
        while pieces.next(&mut bytes) {
            // As others do who scrape over a network.
            thread::yield_now();
        }
        let seen = match self.format {
            Format::Protobuf => of_messages(&bytes),
            _ => of_text(std::str::from_utf8(&bytes).unwrap()),
        };
        for (key, value) in &seen {
            if let Some(series) = key.strip_suffix(",le=\"+Inf\"") {
                let count = seen[&series.replacen("_bucket", "_count", 1)];
                assert_eq!(*value, count, "{:?}: {key} and its count", self.format);
            }
            if let Some(labels) = key.strip_prefix("level,k=") {
                assert_eq!(format!("\"{value}\""), labels, "a number of another series");
            }
        }
        let rises = |key: &&String| key.starts_with("kept") && !key.contains("quantile");
        for key in self.last.keys().filter(rises) {
            let (before, now) = (self.last[key], seen.get(key).copied());
            assert!(now.is_some_and(|now| now >= before), "{:?}: {key} was {before} and is {now:?}", self.format);
        }
        self.last.clone_from(&seen);
        seen
    }
}

/// Adds a number; no series may be there twice.
fn add(seen: &mut Seen, name: &str, labels: &str, value: f64) {
    let key = if labels.is_empty() { name.to_owned() } else { format!("{name},{labels}") };
    assert_eq!(seen.insert(key, value), None, "{name}{{{labels}}} is there twice");
}

fn of_text(text: &str) -> Seen {
    let mut seen = Seen::new();
    let (mut le, mut below) = (String::new(), 0.0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let (labels, value) = (labels.strip_suffix('}').unwrap(), value.parse::<f64>().unwrap());
        if name.ends_with("_bucket") {
            let of = format!("{name}{}", labels.rsplit_once("le=").unwrap().0);
            assert!(of != le || value >= below, "{line}: {below} before it");
            (le, below) = (of, value);
        }
        add(&mut seen, name, labels, value);
    }
    seen
}

fn of_messages(mut bytes: &[u8]) -> Seen {
    let mut seen = Seen::new();
    while !bytes.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut bytes).unwrap();
        let name = &family.name;
        for metric in &family.metric {
            let labels: Vec<String> =
                metric.label.iter().map(|label| format!("{}=\"{}\"", label.name, label.value)).collect();
            let labels = labels.join(",");
            let with = |more: &str| if labels.is_empty() { more.to_owned() } else { format!("{labels},{more}") };
            if let Some(counter) = &metric.counter {
                add(&mut seen, name, &labels, counter.value);
            } else if let Some(gauge) = &metric.gauge {
                add(&mut seen, name, &labels, gauge.value);
            } else if let Some(summary) = &metric.summary {
                add(&mut seen, &format!("{name}_count"), &labels, summary.sample_count as f64);
                add(&mut seen, &format!("{name}_sum"), &labels, summary.sample_sum);
            } else if let Some(histogram) = &metric.histogram {
                let count = histogram.sample_count as f64;
                add(&mut seen, &format!("{name}_count"), &labels, count);
                add(&mut seen, &format!("{name}_sum"), &labels, histogram.sample_sum);
                add(&mut seen, &format!("{name}_bucket"), &with("le=\"+Inf\""), count);
                let classic: Vec<u64> = histogram.bucket.iter().map(|bucket| bucket.cumulative_count).collect();
                assert!(classic.is_sorted() && classic.last() <= Some(&histogram.sample_count), "{histogram:?}");
                // Each is the difference to the one before.
                let natives = histogram.positive_delta.iter().scan(0, |native, delta| {
                    *native += delta;
                    Some(*native)
                });
                let (mut native, mut all) = (0, true);
                natives.for_each(|n| (native, all) = (native + n, all && n > 0));
                assert!(all && native as f64 <= count, "{histogram:?}");
            }
        }
    }
    seen
}

/// The sum of all series of names that begin so.
fn sum(seen: &Seen, name: &str) -> f64 {
    seen.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum()
}

#[test]
fn while_rules_change_series_go_and_all_is_read_no_count_is_lost_or_moves_back() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("STATSIEVE_STRESS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let until = number("STATSIEVE_STRESS_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    eprintln!("STATSIEVE_STRESS_SEED={seed}");
    let books = Arc::<SeriesBooks>::default();
    let rig = Rig {
        rules: Arc::new(ArcSwap::from_pointee(rules(0, 0))),
        store: Arc::new(Store::new(WORKERS, books.clone())),
        books,
        clock: AtomicU64::new(1),
    };
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|n| Worker {
            pipeline: Pipeline::new(rig.rules.clone(), rig.store.clone(), n),
            books: Books::default(),
            random: fastrand::Rng::with_seed(seed ^ n as u64),
            sent: BTreeMap::new(),
            lines: 0,
        })
        .collect();
    let mut scrapers =
        [Format::Text, Format::OpenMetrics, Format::Protobuf].map(|format| Scraper { format, last: Seen::new() });
    let mut generation = 0;
    let mut rounds = 0;
    while until.map_or(rounds < ROUNDS, |until| Instant::now() < until) {
        rounds += 1;
        thread::scope(|scope| {
            let rig = &rig;
            workers.iter_mut().for_each(|worker| _ = scope.spawn(|| worker.round(rig)));
            scrapers.iter_mut().for_each(|it| _ = scope.spawn(|| (0..SCRAPES).for_each(|_| _ = it.scrape(rig))));
            scope.spawn(|| {
                for _ in 0..RELOADS {
                    generation += 1;
                    rig.rules.store(Arc::new(rules(generation as usize % VARIANTS.len(), generation)));
                    rig.store.stir();
                }
            });
            scope.spawn(|| {
                for _ in 0..SWEEPS {
                    let now = rig.clock.fetch_add(1, SeqCst);
                    rig.store.sweep(tick(Duration::from_secs(now)), &rig.rules.load().gate.limits);
                    thread::yield_now();
                }
            });
        });
        let mut sent = BTreeMap::new();
        workers.iter().flat_map(|worker| &worker.sent).for_each(|(name, n)| *sent.entry(*name).or_default() += *n);
        for scraper in &mut scrapers {
            let seen = scraper.scrape(&rig);
            for (name, sent) in &sent {
                let found = sum(&seen, name);
                let lost = match *name {
                    // Their series went, or were made anew for other buckets.
                    "brief_total" | "turned_sum" => found > *sent,
                    _ => found != *sent,
                };
                assert!(!lost, "{:?}, round {rounds}: {name} is {found}, of {sent} sent", scraper.format);
            }
        }
        let mut tally = Tally::default();
        workers.iter().for_each(|worker| tally.merge(&worker.books.read()));
        let lines: u64 = workers.iter().map(|worker| worker.lines).sum();
        // One line in nine has two values; gauges that find no room and types that change in the middle are dropped.
        assert_eq!(tally.recorded_in_all() + tally.dropped_in_all(), lines + lines / 9, "round {rounds}");
    }
    let went = |cause: ExpiryCause| rig.books.expired[cause.index()].load(SeqCst);
    let lines: u64 = workers.iter().map(|worker| worker.lines).sum();
    let (idle, reload) = (went(ExpiryCause::Idle), went(ExpiryCause::Reload));
    eprintln!("{rounds} rounds, {lines} lines, {generation} reloads; {idle} series went idle, {reload} by reloads");
    assert!(idle > 0 && reload > 0, "nothing went, so nothing was shown");
}
