//! The whole way of a sample in every order: the program's own pipeline, store and sweep, over `loom`.
//!
//! Threads are workers that take a datagram or two, a sweep, a reload, and scrapes that read all there is. Rules are
//! swapped by `arc-swap` itself, which loom does not see into; a number beside has it try workers that find the old ones
//! and the new ones. A scrape reads what the text of one is made of, not the text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use loom::thread::JoinHandle;
use model::aggregate::Store;
use model::aggregate::shape::Shape;
use model::aggregate::sketch::bins::Merged;
use model::pipeline::{Pipeline, Rules};
use model::sync::AtomicU64;
use model::sync::Ordering::{Acquire, Release};
use statsieve::clock::tick;
use statsieve::config::{Sources, load};
use statsieve::insight::distinct;
use statsieve::telemetry::{Books, ExpiryCause, SeriesBooks};
use xxhash_rust::xxh64::xxh64;

use super::{in_every_order, start};

/// When series are used before the threads of a test begin, and when they record.
const AGO: u64 = 1;
const NOW: u64 = 10;
/// What was used ago goes.
const EXPIRES: &str = "cardinality.idle_ttl=3s";

fn rules(generation: u64, set: &[&str]) -> Arc<Rules> {
    let always = [
        "bucketing=[]",
        "cardinality.new_series_per_second=0",
        "cardinality.identity_cache_bytes=65536",
        "distinct.registers=16",
        "observer.buckets=[1]",
        "mapping.rules=[{match='s',name='s',observer_type='summary'}]",
    ];
    let set = always.iter().chain(set).map(ToString::to_string).collect();
    let mut rules =
        Rules::new(&load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config);
    rules.generation = generation;
    Arc::new(rules)
}

/// What there is, by name: a number, or how many observations or members.
type Seen = BTreeMap<String, f64>;

#[derive(Clone)]
struct Rig {
    rules: Arc<ArcSwap<Rules>>,
    store: Arc<Store>,
    books: Arc<SeriesBooks>,
    /// Batches that are over.
    done: Arc<AtomicU64>,
    /// Reloads so far, by which loom knows of what it does not see.
    reloads: Arc<AtomicU64>,
}

impl Rig {
    fn new(rules: &Arc<Rules>, workers: usize) -> Self {
        let books = Arc::<SeriesBooks>::default();
        let store = Arc::new(Store::new(workers, books.clone()));
        Self {
            rules: Arc::new(ArcSwap::new(rules.clone())),
            store,
            books,
            done: Arc::default(),
            reloads: Arc::default(),
        }
    }

    /// A worker that remembers the series of these lines, which it has seen twice.
    fn worker(&self, number: usize, remembered: &str) -> Worker {
        let pipeline = Pipeline::new(self.rules.clone(), self.store.clone(), number);
        let mut worker =
            Worker { pipeline, books: Books::default(), done: self.done.clone(), reloads: self.reloads.clone() };
        (0..2).for_each(|_| worker.batch(AGO, remembered));
        worker
    }

    fn reload(&self, rules: &Arc<Rules>) {
        // Before and behind: a worker is let in before the rules change only where loom knows of something.
        self.reloads.fetch_add(1, Release);
        self.rules.store(rules.clone());
        self.reloads.fetch_add(1, Release);
    }

    fn sweep(&self, times: usize) {
        let rules = self.rules.load_full();
        (0..times).for_each(|_| self.store.sweep(tick(Duration::from_secs(NOW)), &rules.gate.limits));
    }

    fn sweeping(&self, times: usize) -> JoinHandle<()> {
        let rig = self.clone();
        start(move || rig.sweep(times))
    }

    fn went(&self, cause: ExpiryCause) -> f64 {
        self.books.expired[cause.index()].load(std::sync::atomic::Ordering::SeqCst) as f64
    }

    /// Reads all there is, as a scrape does.
    fn look(&self) -> Seen {
        let reader = self.store.read();
        let (mut seen, mut merged, mut counts) = (Seen::new(), Merged::default(), Vec::new());
        for family in reader.families().iter().flatten() {
            for series in family.series().iter().flatten() {
                let value = match family.shape() {
                    Shape::Counter | Shape::Gauge => reader.value(family.kind(), series),
                    Shape::Histogram(histogram) => {
                        reader.native(histogram, series, &mut merged);
                        reader.histogram(histogram, series, &mut counts);
                        let count: f64 = counts.iter().sum();
                        assert!(merged.weight() <= count, "{} in native buckets, of {count}", merged.weight());
                        merged.weight()
                    }
                    Shape::Summary(summary) => {
                        let (count, _) = reader.summary(summary, series, &mut merged);
                        assert!(merged.weight() <= count, "{} in quantiles, of {count}", merged.weight());
                        merged.weight()
                    }
                    Shape::Set(set) => reader.members(set, series),
                };
                let bins = merged.bins();
                assert!(bins.iter().all(|bin| bin.weight.fract() == 0.0 && bin.weight >= 1.0), "{bins:?}");
                assert!(bins.is_sorted_by(|a, b| a.key < b.key), "{bins:?}");
                merged.clear();
                let name = family.name().trim_end_matches("_total").to_owned();
                assert_eq!(seen.insert(name, value), None, "{} is there twice", family.name());
            }
        }
        seen
    }
}

struct Worker {
    pipeline: Pipeline,
    books: Books,
    done: Arc<AtomicU64>,
    reloads: Arc<AtomicU64>,
}

impl Worker {
    fn batch(&mut self, now: u64, lines: &str) {
        self.pipeline.begin(Duration::from_secs(now));
        self.reloads.load(Acquire);
        self.pipeline.datagram(lines.as_bytes());
        self.pipeline.end(&self.books);
        self.done.fetch_add(1, Release);
    }

    /// Takes these batches in a thread of its own.
    fn working(mut self, batches: &'static [&'static str]) -> JoinHandle<Self> {
        start(move || {
            batches.iter().for_each(|lines| self.batch(NOW, lines));
            self
        })
    }
}

fn of(seen: &Seen, name: &str) -> f64 {
    seen.get(name).copied().unwrap_or(0.0)
}

#[test]
fn a_series_that_two_workers_make_at_once_is_one_and_no_scrape_misses_what_was_recorded_before() {
    let rules = rules(0, &[]);
    in_every_order(1, move || {
        let rig = Rig::new(&rules, 2);
        let working = [0, 1].map(|n| {
            let pipeline = Pipeline::new(rig.rules.clone(), rig.store.clone(), n);
            Worker { pipeline, books: Books::default(), done: rig.done.clone(), reloads: rig.reloads.clone() }
                .working(&["c:1|c"])
        });
        let least = rig.done.load(Acquire) as f64;
        let seen = of(&rig.look(), "c");
        assert!(least <= seen && seen <= 2.0, "{seen}, and {least} before");
        working.into_iter().for_each(|it| _ = it.join().unwrap());
        assert_eq!(of(&rig.look(), "c"), 2.0);
    });
}

#[test]
fn no_change_of_a_gauge_is_lost_when_two_workers_make_one_at_once() {
    let rules = rules(0, &[]);
    in_every_order(1, move || {
        let rig = Rig::new(&rules, 2);
        rig.worker(0, "").batch(NOW, "g:5|g");
        let working = [0, 1].map(|n| rig.worker(n, "").working(&["g:+1|g"]));
        let seen = of(&rig.look(), "g");
        assert!((5.0..=7.0).contains(&seen), "{seen}");
        working.into_iter().for_each(|it| _ = it.join().unwrap());
        assert_eq!(of(&rig.look(), "g"), 7.0);
    });
}

#[test]
fn a_series_that_expires_takes_nothing_with_it_that_was_recorded_since() {
    let rules = rules(0, &[EXPIRES]);
    in_every_order(2, move || {
        let rig = Rig::new(&rules, 1);
        let working = rig.worker(0, "c:1|c").working(&["c:1|c", "d:1|c\nc:1|c"]);
        rig.sweep(2);
        working.join().unwrap();
        let seen = rig.look();
        assert_eq!((of(&seen, "c"), of(&seen, "d")), (4.0 - 2.0 * rig.went(ExpiryCause::Idle), 1.0));
    });
}

#[test]
fn the_cells_of_a_series_that_expired_are_empty_for_the_next_whoever_still_remembered_it() {
    let rules = rules(0, &[EXPIRES]);
    in_every_order(1, move || {
        let rig = Rig::new(&rules, 2);
        let working = [(0, &["c:1|c"]), (1, &["d:1|c"])].map(|(n, batches)| rig.worker(n, "c:1|c").working(batches));
        rig.sweep(2);
        working.into_iter().for_each(|it| _ = it.join().unwrap());
        let seen = rig.look();
        assert_eq!((of(&seen, "c"), of(&seen, "d")), (5.0 - 4.0 * rig.went(ExpiryCause::Idle), 1.0));
    });
}

#[test]
fn a_scrape_sees_a_series_whole_until_it_has_expired() {
    let rules = rules(0, &[EXPIRES]);
    in_every_order(2, move || {
        let rig = Rig::new(&rules, 1);
        let worker = rig.worker(0, "c:1|c\nh:1|h");
        let sweeping = rig.sweeping(2);
        for _ in 0..2 {
            let seen = rig.look();
            assert!(matches!(seen.get("c"), None | Some(2.0)) && matches!(seen.get("h"), None | Some(2.0)), "{seen:?}");
        }
        sweeping.join().unwrap();
        drop(worker);
        assert_eq!((rig.went(ExpiryCause::Idle), rig.look().len()), (2.0, 0));
    });
}

/// Reads while a worker that has seen `before` takes `line`: the count of it is that from before, or that with the line,
/// which it tells.
fn is_read_whole(interruptions: usize, set: &[&str], before: &'static str, line: &'static str) -> f64 {
    let rules = rules(0, set);
    let (name, told) = (&before[..1], Arc::new(std::sync::Mutex::new(0.0)));
    let tells = told.clone();
    in_every_order(interruptions, move || {
        let rig = Rig::new(&rules, 1);
        let mut worker = rig.worker(0, "");
        worker.batch(NOW, before);
        let first = of(&rig.look(), name);
        let working = start(move || worker.batch(NOW, line));
        let seen = of(&rig.look(), name);
        working.join().unwrap();
        let end = of(&rig.look(), name);
        assert!((seen == first || seen == end) && first < end, "{first}, then {seen}, then {end}");
        *tells.lock().unwrap() = end;
    });
    *told.lock().unwrap()
}

#[test]
fn a_native_bucket_is_never_ahead_of_the_count_it_belongs_to() {
    assert_eq!(is_read_whole(2, &[], "h:1|h", "h:1|h"), 2.0);
}

#[test]
fn a_native_histogram_is_read_whole_while_its_buckets_become_wider() {
    // Neighbours at first, which become one.
    let end = is_read_whole(1, &["observer.native_max_buckets=2"], "h:1.25:1.35|h", "h:1.15|h");
    assert_eq!(end, 3.0);
}

#[test]
fn a_summary_is_read_whole_while_it_outgrows_its_series() {
    assert_eq!(is_read_whole(1, &[], "s:1:2|h", "s:4|h"), 3.0);
}

#[test]
fn a_set_is_read_whole_while_its_list_becomes_registers() {
    // Four members are listed; the fifth has registers written over them.
    let register = |member: &u64| distinct::place(xxh64(member.to_string().as_bytes(), 0), 16).0;
    let mut members: Vec<u64> = Vec::new();
    for member in 0.. {
        if members.iter().all(|other| register(other) != register(&member)) {
            members.push(member);
        }
        if members.len() == 5 {
            break;
        }
    }
    let lines: Vec<String> = members.iter().map(|member| format!("u:{member}|s")).collect();
    let [before, line] = [lines[..4].join("\n"), lines[4].clone()].map(|text| &*text.leak());
    let end = is_read_whole(1, &[], before, line);
    assert!((4.0..=7.0).contains(&end), "{end}");
}

#[test]
fn a_reload_that_makes_a_family_anew_leaves_the_others_and_the_next_in_its_cells_exact() {
    // As many buckets as before, so that the next family has room in the cells of the old one.
    let (before, after) = (rules(0, &[]), rules(1, &["observer.buckets=[2]"]));
    in_every_order(2, move || {
        let rig = Rig::new(&before, 2);
        let [first, mut second] = [0, 1].map(|n| rig.worker(n, "h:1|h\nc:1|c"));
        let working = first.working(&["h:1|h\nc:1|c"]);
        rig.reload(&after);
        second.batch(NOW, "h:1|h\nc:1|c");
        rig.sweep(1);
        second.batch(NOW, "i:1|h");
        let mut first = working.join().unwrap();
        first.batch(NOW, "h:1|h\nc:1|c");
        let seen = rig.look();
        assert_eq!((of(&seen, "c"), of(&seen, "i")), (7.0, 1.0));
        // What a worker that is at a datagram records for the old family goes with that.
        assert!((2.0..=3.0).contains(&of(&seen, "h")), "{seen:?}");
        rig.sweep(3);
        assert_eq!(rig.went(ExpiryCause::Reload), 1.0);
        first.batch(NOW, "j:1|h\nk:1|c\nl:1|c\nm:1|c");
        let seen = rig.look();
        assert!(["i", "j", "k", "l", "m"].iter().all(|name| of(&seen, name) == 1.0), "{seen:?}");
    });
}

#[test]
fn a_worker_that_still_goes_by_old_rules_does_not_undo_what_new_ones_made() {
    let (before, after) = (rules(0, &[]), rules(1, &["observer.buckets=[1,2]"]));
    in_every_order(2, move || {
        let rig = Rig::new(&before, 2);
        let [first, mut second] = [0, 1].map(|n| rig.worker(n, ""));
        let working = first.working(&["h:1|h"]);
        rig.reload(&after);
        second.batch(NOW, "h:1|h");
        working.join().unwrap();
        second.batch(NOW, "h:1|h");
        let seen = rig.look();
        assert!((2.0..=3.0).contains(&of(&seen, "h")), "{seen:?}");
    });
}

#[test]
fn a_scrape_sees_a_family_once_and_whole_while_a_reload_makes_it_anew() {
    let (before, after) = (rules(0, &[]), rules(1, &["observer.buckets=[1,2]"]));
    in_every_order(2, move || {
        let rig = Rig::new(&before, 1);
        let working = rig.worker(0, "h:1|h\nc:1|c").working(&["h:1|h\nc:1|c"]);
        rig.reload(&after);
        for _ in 0..2 {
            let seen = rig.look();
            // A series is there a moment before its first number.
            assert!((0.0..=3.0).contains(&of(&seen, "h")) && (2.0..=3.0).contains(&of(&seen, "c")), "{seen:?}");
        }
        working.join().unwrap();
        assert_eq!(of(&rig.look(), "c"), 3.0);
    });
}
