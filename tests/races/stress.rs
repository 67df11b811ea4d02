//! Workers that record to series which come and go, as fast as they can, while a sweep takes away what is idle.
//!
//! What went is known exactly, so that at the end every sample can be accounted for, series by series. The clock is
//! moved by hand, and only when no worker is in a batch of an earlier second: a worker's samples are a second old at
//! most then, and what goes has been idle for [`IDLE`] seconds. So nobody recorded to it since, and its total is what
//! it was before the sweep, unless a sample was lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use statsieve::aggregate::Store;
use statsieve::clock::tick;
use statsieve::config::{Format, Sources, load};
use statsieve::expose::SeriesSource;
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, SeriesBooks};

const WORKERS: usize = 3;
/// Seconds after which a series may go.
const IDLE: u64 = 3;
/// Batches in a second, at least.
const BATCHES: u64 = 20;
/// The mark of a worker that is in no batch.
const OUT: u64 = u64::MAX;
/// Label values that come and go.
const VALUES: u64 = 40;
/// Those that come back, seldom, just when they are about to go or have just gone.
const RETURNING: u64 = 150;

/// A family's name and a series' labels, as they stand in the text.
type Key = (String, String);

/// A label value that is in use this second.
fn value(now: u64, random: &mut fastrand::Rng) -> u64 {
    if random.bool() {
        // Six of them at a time; each comes again much later.
        return (now / 4 + random.u64(..6)) % VALUES;
    }
    let value = random.u64(..RETURNING);
    let every = IDLE + value % 3;
    if now.is_multiple_of(every) { VALUES + value } else { VALUES + RETURNING }
}

struct Rig {
    rules: Arc<ArcSwap<Rules>>,
    store: Arc<Store>,
    books: Arc<SeriesBooks>,
    /// The second it is.
    clock: AtomicU64,
    /// The second that each worker's batch began in, or [`OUT`].
    batches: [AtomicU64; WORKERS],
    /// Batches that are over.
    done: AtomicU64,
    /// A thread failed; the others need not go on.
    failed: AtomicBool,
}

/// Tells the others if a thread fails.
struct Watch<'a>(&'a AtomicBool);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(thread::panicking(), SeqCst);
    }
}

/// What there is at a moment: totals, and which series it is that has these labels now.
struct Seen {
    totals: BTreeMap<Key, f64>,
    which: HashMap<Key, (u64, Duration)>,
}

impl Rig {
    fn new(set: &[&str]) -> Self {
        let always = ["cardinality.new_series_per_second=0", "observer.buckets=[1]", "labels.max_values=1000000"];
        let rule = "mapping.rules=[{match='s',name='s',observer_type='summary'}]";
        let set = always.iter().chain(&[rule]).chain(set).map(ToString::to_string).collect();
        let config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
        let books = Arc::<SeriesBooks>::default();
        Self {
            rules: Arc::new(ArcSwap::from_pointee(Rules::new(&config))),
            store: Arc::new(Store::new(WORKERS, books.clone())),
            books,
            clock: AtomicU64::new(1),
            batches: [const { AtomicU64::new(OUT) }; WORKERS],
            done: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// Records until the clock says `end`; gives the sum of what was sent to each series, and how many samples that
    /// were.
    fn work(&self, worker: usize, end: u64) -> (BTreeMap<Key, f64>, u64) {
        let _watch = Watch(&self.failed);
        let (mut pipeline, books) = (Pipeline::new(self.rules.clone(), self.store.clone(), worker), Books::default());
        let mut random = fastrand::Rng::with_seed(worker as u64);
        let (mut sent, mut samples, mut text) = (BTreeMap::new(), 0, String::new());
        loop {
            let now = self.clock.load(SeqCst);
            if now >= end || self.failed.load(SeqCst) {
                return (sent, samples);
            }
            self.batches[worker].store(now, SeqCst);
            if self.clock.load(SeqCst) != now {
                continue;
            }
            pipeline.begin(Duration::from_secs(now));
            for _ in 0..random.u64(1..8) {
                let value = value(now, &mut random);
                let n = random.u64(1..4);
                text.clear();
                text.push_str(&format!("c:{n}|c|#k:{value}\nh:{n}|h|#k:{value}\ng:{value}|g|#k:{value}\n"));
                text.push_str(&format!("s:{n}:{value}|h|#k:{value}\nu:{value}|s|#k:{value}"));
                pipeline.datagram(text.as_bytes());
                samples += 6;
                let labels = format!("k=\"{value}\"");
                for (name, more) in [("c_total", n), ("h_sum", n), ("h_count", 1), ("s_sum", n + value), ("s_count", 2)]
                {
                    *sent.entry((name.to_owned(), labels.clone())).or_default() += more as f64;
                }
            }
            pipeline.end(&books);
            self.batches[worker].store(OUT, SeqCst);
            self.done.fetch_add(1, SeqCst);
            // Now and then one sleeps through some rounds.
            if random.u64(..200) == 0 {
                thread::sleep(Duration::from_micros(random.u64(..500)));
            }
        }
    }

    /// The totals of all series, and which they are.
    fn look(&self) -> Seen {
        let (mut pieces, mut text) = (self.store.begin(Format::Text), Vec::new());
        while pieces.next(&mut text) {}
        let mut totals = BTreeMap::new();
        for line in std::str::from_utf8(&text).unwrap().lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let value: f64 = value.parse().unwrap();
            match name {
                // A cell that is another's now, or was not cleared, would show here.
                "g" => assert!(value == 0.0 || labels == format!("k=\"{value}\""), "{line}"),
                // A set has one member, or none once its window is over.
                "u" => assert!(value <= 1.0 || labels.contains("overflow"), "{line}"),
                "h_bucket" | "s" => {}
                _ => _ = totals.insert((name.to_owned(), labels.to_owned()), value),
            }
        }
        // Nobody but the caller removes any, so all of those are there yet.
        let reader = self.store.read();
        let mut which = HashMap::new();
        for family in reader.families().iter().flatten() {
            for series in family.series().iter().flatten() {
                let is = (family.serial(), reader.made(series));
                which.insert((family.name().to_owned(), series.labels().to_owned()), is);
            }
        }
        Seen { totals, which }
    }

    /// Sweeps until the clock says `end`, and gives the totals of what went.
    fn sweep(&self, end: u64) -> BTreeMap<Key, f64> {
        let _watch = Watch(&self.failed);
        let (mut gone, mut enough) = (BTreeMap::new(), BATCHES);
        loop {
            let now = self.clock.load(SeqCst);
            if now >= end || self.failed.load(SeqCst) {
                return gone;
            }
            let before = self.look();
            self.store.sweep(tick(Duration::from_secs(now)), &self.rules.load().gate.limits);
            let after = self.look();
            for (key, total) in before.totals {
                let base = key.0.strip_suffix("_sum").or(key.0.strip_suffix("_count")).unwrap_or(&key.0);
                let family = (base.to_owned(), key.1.clone());
                if before.which.get(&family) != after.which.get(&family) {
                    *gone.entry(key).or_default() += total;
                }
            }
            if self.done.load(SeqCst) >= enough && self.batches.iter().all(|batch| batch.load(SeqCst) >= now) {
                self.clock.store(now + 1, SeqCst);
                enough = self.done.load(SeqCst) + BATCHES;
            }
        }
    }

    /// Lets all of them run; gives what was sent and what is left or went of it.
    fn run(&self, end: u64) -> [BTreeMap<Key, f64>; 2] {
        thread::scope(|scope| {
            let working = [0, 1, 2].map(|worker| scope.spawn(move || self.work(worker, end)));
            let mut found = self.sweep(end);
            let (mut sent, mut samples) = (BTreeMap::new(), 0);
            for (of_one, n) in working.map(|worker| worker.join().unwrap()) {
                samples += n;
                of_one.into_iter().for_each(|(key, sum)| *sent.entry(key).or_default() += sum);
            }
            let went: u64 = self.books.expired.iter().map(|count| count.load(SeqCst)).sum();
            eprintln!("{samples} samples, {went} series went");
            assert!(went > 100, "{went} series went, too few to show anything");
            self.look().totals.into_iter().for_each(|(key, total)| *found.entry(key).or_default() += total);
            [sent, found]
        })
    }
}

#[test]
fn every_sample_is_in_the_series_it_was_sent_to_or_went_with_it() {
    let rig = Rig::new(&[&format!("cardinality.idle_ttl={IDLE}s")]);
    let [sent, found] = rig.run(300);
    assert_eq!(sent, found);
}

#[test]
fn where_series_give_way_to_others_every_sample_is_in_its_own_or_in_the_overflow_series() {
    // Room for a few of them; a value takes eleven lines.
    let limits = ["cardinality.max_series=100", "cardinality.max_series_per_family=100", "cardinality.simplify_at=1"];
    let rig = Rig::new(&[&limits[..], &[&format!("cardinality.evict_idle_after={IDLE}s")]].concat());
    let [sent, found] = rig.run(300);
    for name in ["c_total", "h_sum", "h_count", "s_sum", "s_count"] {
        let sum = |of: &BTreeMap<Key, f64>| of.iter().filter(|(key, _)| key.0 == name).map(|it| it.1).sum::<f64>();
        assert_eq!(sum(&sent), sum(&found), "{name}");
    }
    for (key, sum) in found.iter().filter(|(key, _)| key.1 != "overflow=\"true\"") {
        assert!(*sum <= sent[key], "{key:?}: {sum}, of {} sent", sent[key]);
    }
}
