//! The store alone: places, conflicts, limits and numbers, with names and labels given as text.

use std::time::Duration;

use super::bounds::Bounds;
use super::*;
use crate::admit::{Limit, Limits};
use crate::map::labels::{Origin, rendered};
use crate::telemetry::ExpiryCause;

/// Limits without a rung below the limit itself.
fn limits(max_series: u64, max_series_per_family: u64, max_families: usize) -> Limits {
    Limits {
        max_series,
        max_series_per_family,
        max_families,
        max_bytes: u64::MAX,
        max_values: usize::MAX,
        simplify_at: 1.0,
        keep_labels: Vec::new(),
        evict_idle_after: Duration::from_secs(600),
        idle_ttl: Duration::ZERO,
        zero_first: Duration::ZERO,
    }
}

fn wide() -> Limits {
    limits(1000, 1000, 100)
}

/// Of classic buckets alone.
fn histogram(bounds: &[f64]) -> Shape {
    Shape::Histogram(Arc::new(Histogram { bounds: Arc::new(Bounds::new(bounds)), native: None }))
}

struct Bench {
    store: Store,
    histogram: Shape,
    gate: Gate,
    ttl: Option<Tick>,
    generation: u64,
}

/// Labels given as text are those of tags, but for `user_bucket`, which a rule made.
fn set_of(labels: &str) -> LabelSet {
    let mut set = LabelSet::default();
    for (name, value) in rendered(labels) {
        let origin = if name == "user_bucket" { Origin::Rule } else { Origin::Tag };
        set.set(name.as_bytes(), value.as_bytes(), origin, 99).unwrap();
    }
    set.sort();
    set
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self {
            store: Store::new(2, Arc::default()),
            histogram: histogram(&[1.0, 10.0]),
            gate: Gate::new(limits, 0),
            ttl: None,
            generation: 0,
        }
    }

    fn place(&self, name: &str, kind: Kind, labels: &str) -> Result<Placed, DropReason> {
        self.place_at(name, kind, labels, Sight::First, 1)
    }

    fn place_at(&self, name: &str, kind: Kind, labels: &str, sight: Sight, now: Tick) -> Result<Placed, DropReason> {
        let wanted = self.wanted(name, kind, sight, now);
        self.store.place(wanted, &mut set_of(labels), &mut Vec::new(), &self.gate)
    }

    /// Declares counters without labels, and no others.
    fn declare(&self, names: &[&str]) {
        let mut declaration = Declaration::default();
        for name in names {
            let wanted = self.wanted(name, Kind::Counter, Sight::First, Tick::MAX);
            let (mut labels, mut text) = (LabelSet::default(), Vec::new());
            self.store.declare(wanted, &mut labels, &mut text, &self.gate, &mut declaration).expect("a place");
        }
        self.store.keep(declaration);
    }

    fn wanted<'a>(&'a self, name: &'a str, kind: Kind, sight: Sight, now: Tick) -> Wanted<'a> {
        Wanted {
            name,
            written: name,
            help: None,
            shape: match kind {
                Kind::Counter => &Shape::Counter,
                Kind::Gauge => &Shape::Gauge,
                _ => &self.histogram,
            },
            sample: None,
            ttl: self.ttl,
            generation: self.generation,
            overflow_labels: r#"overflow="true""#,
            sight,
            now,
        }
    }

    /// Records as worker 0; panics if there is no place.
    fn record(&self, name: &str, kind: Kind, labels: &str, value: f64, weight: f64) -> Result<(), DropReason> {
        let placed = self.place(name, kind, labels).expect("a place");
        self.store.recorder(0).record(&placed.place, value, weight, false)
    }

    /// Every series as `name{labels} value`, a histogram's value as `[counts by bucket] sum`.
    fn read(&self) -> Vec<String> {
        let (reader, mut lines) = (self.store.read(), Vec::new());
        for family in reader.families().iter().flatten() {
            for series in family.series().iter().flatten() {
                let (mut counts, mut merged) = (Vec::new(), Merged::default());
                let value = match family.shape() {
                    Shape::Histogram(histogram) => {
                        let sum = reader.histogram(histogram, series, &mut counts);
                        format!("{counts:?} {sum}")
                    }
                    Shape::Summary(summary) => {
                        let (count, sum) = reader.summary(summary, series, &mut merged);
                        let quantiles: Vec<f64> =
                            summary.quantiles().map(|(q, _)| merged.quantile(summary.layout(), q)).collect();
                        format!("{quantiles:?} {count} {sum}")
                    }
                    Shape::Set(set) => reader.members(set, series).round().to_string(),
                    Shape::Counter | Shape::Gauge => reader.value(family.kind(), series).to_string(),
                };
                lines.push(format!("{}{{{}}} {value}", family.name(), series.labels()));
            }
        }
        lines
    }

    fn evicted(&self) -> u64 {
        self.store.books.expired[ExpiryCause::Evicted.index()].load(Relaxed)
    }

    fn books(&self) -> [u64; 3] {
        let SeriesBooks { sample_lines, families, created, .. } = &*self.store.books;
        [sample_lines, families, created].map(|count| count.load(Relaxed))
    }
}

#[test]
fn a_name_belongs_to_the_kind_that_came_first() {
    let bench = Bench::new(wide());
    for (name, first, second) in
        [("a", Kind::Counter, Kind::Gauge), ("b", Kind::Gauge, Kind::Histogram), ("c", Kind::Histogram, Kind::Counter)]
    {
        assert!(bench.place(name, first, "").is_ok());
        assert_eq!(bench.place(name, second, "").err(), Some(DropReason::TypeConflict), "{name}");
        assert_eq!(bench.place(name, second, r#"k="v""#).err(), Some(DropReason::TypeConflict), "{name}");
        assert!(bench.place(name, first, r#"k="v""#).is_ok());
    }
    assert_eq!(bench.books(), [14, 3, 6]);
}

#[test]
fn names_that_a_histogram_exposes_are_taken_both_ways() {
    for suffix in ["_sum", "_count", "_bucket"] {
        for kind in [Kind::Counter, Kind::Gauge, Kind::Histogram] {
            let bench = Bench::new(wide());
            assert!(bench.place("a", Kind::Histogram, "").is_ok());
            let beside = bench.place(&format!("a{suffix}"), kind, "").err();
            assert_eq!(beside, Some(DropReason::TypeConflict), "{kind:?} a{suffix} after histogram a");

            let bench = Bench::new(wide());
            assert!(bench.place(&format!("a{suffix}"), kind, "").is_ok());
            let over = bench.place("a", Kind::Histogram, "").err();
            assert_eq!(over, Some(DropReason::TypeConflict), "histogram a after {kind:?} a{suffix}");
            // Neither counters nor gauges claim such names, unlike in the peer.
            assert!(bench.place("a", Kind::Counter, "").is_ok());
        }
    }
}

#[test]
fn names_of_ours_and_of_prometheus_are_reserved() {
    let bench = Bench::new(wide());
    for name in [
        "statsieve_lines_total",
        "statsieve_",
        "process_cpu_seconds_total",
        "scrape_duration_seconds",
        "up",
        "ALERTS",
        "ALERTS_FOR_STATE",
        "statsd_events_total",
        "statsd_service_check_status",
    ] {
        for kind in [Kind::Counter, Kind::Gauge, Kind::Histogram] {
            assert_eq!(bench.place(name, kind, "").err(), Some(DropReason::TypeConflict), "{name}");
        }
    }
    for name in ["ups", "up_total", "alerts", "processes", "go_goroutines", "statsd_events"] {
        assert!(bench.place(name, Kind::Gauge, "").is_ok(), "{name}");
    }
}

#[test]
fn a_family_past_the_limit_is_refused_and_known_ones_go_on() {
    let bench = Bench::new(Limits { max_families: 1, ..wide() });
    assert_eq!(bench.record("a", Kind::Counter, "", 1.0, 1.0), Ok(()));
    assert_eq!(bench.place("b", Kind::Counter, "").err(), Some(DropReason::Cardinality));
    assert_eq!(bench.record("a", Kind::Counter, r#"k="v""#, 2.0, 1.0), Ok(()));
    assert_eq!(bench.read(), ["a{} 1", r#"a{k="v"} 2"#]);
}

#[test]
fn past_a_limit_counters_and_histograms_overflow_and_gauges_are_dropped() {
    for limits in [Limits { max_series_per_family: 5, ..wide() }, Limits { max_series: 5, ..wide() }] {
        for (kind, own) in [(Kind::Counter, 5), (Kind::Histogram, 1)] {
            let bench = Bench::new(limits.clone());
            for n in 0..20 {
                let placed = bench.place("a", kind, &format!("k=\"{n}\"")).expect("a place");
                assert_eq!(placed.overflow, n >= own, "{kind:?} {n}");
                assert_eq!(bench.store.recorder(0).record(&placed.place, 2.0, 1.0, false), Ok(()));
            }
            let lines = bench.read();
            assert_eq!(lines.len(), own + 1);
            let overflow = match kind {
                Kind::Counter => r#"a{overflow="true"} 30"#,
                _ => r#"a{overflow="true"} [0.0, 19.0, 0.0] 38"#,
            };
            assert_eq!(lines[0], overflow);
            assert_eq!(bench.books(), [5, 1, own as u64 + 1], "the overflow series is no part of the limit");
            // What had a place keeps it.
            assert!(!bench.place("a", kind, r#"k="0""#).expect("a place").overflow);
        }
        let bench = Bench::new(limits.clone());
        for n in 0..20 {
            let placed = bench.place("a", Kind::Gauge, &format!("k=\"{n}\"")).map(|placed| placed.overflow);
            assert_eq!(placed.ok(), (n < 5).then_some(false), "{n}");
        }
        assert_eq!(bench.books(), [5, 1, 5]);
    }
}

#[test]
fn a_gauge_without_room_leaves_no_family_behind() {
    let bench = Bench::new(Limits { max_series: 1, ..wide() });
    assert!(bench.place("a", Kind::Gauge, "").is_ok());
    assert_eq!(bench.place("b", Kind::Gauge, "").err(), Some(DropReason::Cardinality));
    assert!(bench.place("b", Kind::Counter, "").expect("overflow").overflow, "the name is still free");
    assert_eq!(bench.books(), [1, 2, 2]);
}

#[test]
fn a_series_of_the_users_own_named_as_overflow_takes_the_rest() {
    let bench = Bench::new(Limits { max_series: 1, ..wide() });
    assert_eq!(bench.record("a", Kind::Counter, r#"overflow="true""#, 1.0, 1.0), Ok(()));
    assert_eq!(bench.record("a", Kind::Counter, r#"k="v""#, 2.0, 1.0), Ok(()));
    assert_eq!(bench.record("a", Kind::Counter, r#"overflow="true""#, 4.0, 1.0), Ok(()));
    assert_eq!(bench.read(), [r#"a{overflow="true"} 7"#]);
}

#[test]
fn shards_of_all_workers_are_summed() {
    let bench = Bench::new(wide());
    let counter = bench.place("a", Kind::Counter, "").expect("a place").place;
    let histogram = bench.place("b", Kind::Histogram, "").expect("a place").place;
    for worker in 0..2 {
        let mut recorder = bench.store.recorder(worker);
        for _ in 0..3 {
            assert_eq!(recorder.record(&counter, 2.0, 1.0, false), Ok(()));
            assert_eq!(recorder.record(&histogram, 5.0 * worker as f64, 1.5, false), Ok(()));
        }
    }
    assert_eq!(bench.read(), ["a{} 12", "b{} [4.5, 4.5, 0.0] 22.5"]);
}

#[test]
fn gauges_are_one_number_for_all_workers() {
    let bench = Bench::new(wide());
    let gauge = bench.place("a", Kind::Gauge, "").expect("a place").place;
    let mut workers = [bench.store.recorder(0), bench.store.recorder(1)];
    for (worker, value, relative, result) in [
        (0, 5.0, true, "5"),
        (1, -2.0, true, "3"),
        (0, 10.0, false, "10"),
        (1, -12.5, true, "-2.5"),
        (0, -1.0, false, "-1"),
    ] {
        assert_eq!(workers[worker].record(&gauge, value, 1.0, relative), Ok(()));
        assert_eq!(bench.read(), [format!("a{{}} {result}")]);
    }
}

#[test]
fn gauge_deltas_of_workers_at_once_are_all_kept() {
    let bench = Bench::new(wide());
    let gauge = bench.place("a", Kind::Gauge, "").expect("a place").place;
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (mut recorder, gauge) = (bench.store.recorder(worker), gauge.clone());
            scope.spawn(move || {
                (0..10_000).for_each(|_| recorder.record(&gauge, 1.0, 1.0, true).expect("finite"));
            });
        }
    });
    assert_eq!(bench.read(), ["a{} 20000"]);
}

#[test]
fn an_observation_counts_with_its_weight_in_one_bucket() {
    let bench = Bench::new(wide());
    for (value, weight) in [(1.0, 1.0), (1.5, 4.0), (11.0, 0.5), (-3.0, 2.0)] {
        assert_eq!(bench.record("a", Kind::Histogram, "", value, weight), Ok(()));
    }
    assert_eq!(bench.read(), ["a{} [3.0, 4.0, 0.5] 6.5"]);
}

#[test]
fn a_counter_below_zero_is_refused_and_changes_nothing() {
    let bench = Bench::new(wide());
    assert_eq!(bench.record("a", Kind::Counter, "", 2.0, 3.0), Ok(()));
    assert_eq!(bench.record("a", Kind::Counter, "", -1.0, 1.0), Err(DropReason::NegativeCounter));
    assert_eq!(bench.record("a", Kind::Counter, "", -0.0, 1.0), Ok(()));
    assert_eq!(bench.read(), ["a{} 6"]);
}

#[test]
fn what_would_make_a_sum_infinite_is_refused_and_changes_nothing() {
    let bench = Bench::new(wide());
    for (kind, name) in [(Kind::Counter, "c"), (Kind::Histogram, "h")] {
        assert_eq!(bench.record(name, kind, "", 3.0, 1.0), Ok(()));
        for (value, weight) in [(f64::MAX, 1.0), (1.0, f64::INFINITY), (0.0, f64::INFINITY), (1e200, 1e200)] {
            assert_eq!(
                bench.record(name, kind, "", value, weight),
                Err(DropReason::NotFinite),
                "{kind:?} {value} {weight}"
            );
        }
        // As large as it may be, once; not twice.
        assert_eq!(bench.record(name, kind, "", MOST, 1.0), Ok(()));
        assert_eq!(bench.record(name, kind, "", MOST, 1.0), Err(DropReason::NotFinite));
    }
    assert_eq!(bench.read(), [format!("c{{}} {MOST}"), format!("h{{}} [0.0, 1.0, 1.0] {MOST}")]);

    let gauge = bench.place("g", Kind::Gauge, "").expect("a place").place;
    let mut recorder = bench.store.recorder(1);
    assert_eq!(recorder.record(&gauge, f64::MAX, 1.0, false), Ok(()));
    assert_eq!(recorder.record(&gauge, f64::MAX, 1.0, true), Err(DropReason::NotFinite));
    assert_eq!(bench.read()[2], format!("g{{}} {}", f64::MAX));
}

#[test]
fn admits_says_what_record_says_of_a_new_series() {
    for (n, kind) in [Kind::Counter, Kind::Gauge, Kind::Histogram].into_iter().cycle().enumerate().take(3 * 64) {
        let numbers = [0.0, 1.0, -1.0, f64::MAX, MOST, 1e-300, 1e300, f64::INFINITY];
        let (value, weight) = (numbers[n / 3 / 8 % 7], numbers[n / 3 % 8].abs());
        let bench = Bench::new(wide());
        let recorded = bench.record("a", kind, "", value, weight);
        assert_eq!(admits(kind, value, weight), recorded, "{kind:?} {value} {weight}");
    }
}

#[test]
fn a_new_series_that_waits_for_a_reader_is_known_to_wait() {
    let bench = Bench::new(wide());
    assert!(!bench.store.is_wanted());
    std::thread::scope(|scope| {
        let reader = bench.store.read();
        let placed = scope.spawn(|| bench.place("a", Kind::Counter, ""));
        while !bench.store.is_wanted() {
            yield_now();
        }
        assert!(reader.families().is_empty());
        drop(reader);
        assert!(placed.join().expect("no panic").is_ok());
    });
    assert!(!bench.store.is_wanted());
}

#[test]
fn a_place_found_again_is_the_same_series() {
    let bench = Bench::new(wide());
    for _ in 0..3 {
        assert_eq!(bench.record("a", Kind::Counter, r#"k="v""#, 1.0, 1.0), Ok(()));
    }
    assert_eq!((bench.read(), bench.books()), (vec![r#"a{k="v"} 3"#.to_owned()], [1, 1, 1]));
}

/// The labels that the store gave each of `labels` in turn, as series of counter `a`, and which were overflow.
fn ladder(limits: Limits, labels: &[&str]) -> Vec<String> {
    let bench = Bench::new(limits);
    for labels in labels {
        bench.record("a", Kind::Counter, labels, 1.0, 1.0).unwrap();
    }
    bench.read()
}

#[test]
fn a_label_past_its_values_becomes_other_and_the_known_ones_stay() {
    let labels = [r#"k="1",l="x""#, r#"k="2",l="x""#, r#"k="3",l="x""#, r#"k="4",l="x""#, r#"k="2",l="y""#];
    let read = ladder(Limits { max_values: 2, ..wide() }, &labels);
    assert_eq!(read, [r#"a{k="1",l="x"} 1"#, r#"a{k="2",l="x"} 1"#, r#"a{k="other",l="x"} 2"#, r#"a{k="2",l="y"} 1"#]);
}

#[test]
fn a_gauge_past_the_values_of_a_label_is_refused_and_never_merged() {
    let bench = Bench::new(Limits { max_values: 1, ..wide() });
    assert!(bench.place("g", Kind::Gauge, r#"k="1""#).is_ok());
    assert_eq!(bench.place("g", Kind::Gauge, r#"k="2""#).err(), Some(DropReason::Cardinality));
    assert_eq!(bench.read().len(), 1);
    assert_eq!(*bench.store.books.limited.lock().unwrap(), [("g".into(), Limit::MaxValues)]);
}

#[test]
fn near_a_limit_a_series_keeps_what_rules_made_and_what_is_named() {
    let limits =
        Limits { max_series_per_family: 5, simplify_at: 0.6, keep_labels: vec!["command".to_owned()], ..wide() };
    let labels = [
        r#"k="1""#,
        r#"k="2""#,
        r#"k="3""#,
        r#"command="help",k="4",user_bucket="bucket_7""#,
        r#"command="help",k="5",user_bucket="bucket_7""#,
        r#"k="6""#,
        r#"command="stop",k="7",user_bucket="bucket_7""#,
        r#"k="2""#,
    ];
    // Three of five are the share; then two more places for simplified series; then the overflow series, there from 0
    // on.
    assert_eq!(
        ladder(limits, &labels),
        [
            r#"a{overflow="true"} 1"#,
            r#"a{k="1"} 1"#,
            r#"a{k="2"} 2"#,
            r#"a{k="3"} 1"#,
            r#"a{command="help",user_bucket="bucket_7"} 2"#,
            "a{} 1",
        ]
    );
}

#[test]
fn over_the_quota_of_new_series_one_is_simplified_and_asks_again_a_second_later() {
    let mut bench = Bench::new(wide());
    bench.gate = Gate::new(wide(), 2);
    let again: Vec<Retry> =
        (0..4).map(|n| bench.place("a", Kind::Counter, &format!("k=\"{n}\"")).unwrap().again).collect();
    assert_eq!(again, [Retry::Never, Retry::Never, Retry::NextSecond, Retry::NextSecond]);
    assert_eq!(bench.read(), [r#"a{k="0"} 0"#, r#"a{k="1"} 0"#, "a{} 0"]);
    assert_eq!(*bench.store.books.limited.lock().unwrap(), [("a".into(), Limit::NewSeriesPerSecond)]);
    assert!(bench.place("g", Kind::Gauge, r#"k="9""#).is_ok(), "gauges are never simplified");
}

#[test]
fn past_the_bytes_counts_as_at_the_limit() {
    let bench = Bench::new(Limits { max_bytes: 2000, ..wide() });
    let places: Vec<Placed> =
        (0..20).map(|n| bench.place("a", Kind::Counter, &format!("k=\"{n:0100}\"")).unwrap()).collect();
    let own = places.iter().filter(|placed| !placed.overflow).count();
    assert!((3..10).contains(&own), "{own} series of about 250 bytes in 2,000");
    assert!(bench.store.books.bytes.load(Relaxed) <= 2000 + 300, "the overflow series may lie above");
    assert_eq!(*bench.store.books.limited.lock().unwrap(), [("a".into(), Limit::MaxBytes)]);
}

#[test]
fn idle_series_give_way_to_a_second_sight_the_longest_idle_first() {
    let bench = Bench::new(Limits { max_series: 3, ..wide() });
    let limits = bench.gate.limits.clone();
    for (n, tick) in [(0, 30), (1, 10), (2, 20)] {
        let labels = format!("k=\"{n}\"");
        let placed = bench.place_at("a", Kind::Counter, &labels, Sight::First, 1).unwrap();
        let mut recorder = bench.store.recorder(0);
        recorder.set_time(tick);
        recorder.record(&placed.place, 7.0, 1.0, false).unwrap();
    }
    let ask = |n: u32, sight, now| bench.place_at("a", Kind::Counter, &format!("k=\"{n}\""), sight, now).unwrap();
    // A first sight moves nobody, and neither does a second one while nothing is idle for long enough.
    assert!(ask(10, Sight::First, 700).overflow);
    bench.store.sweep(700, &limits);
    bench.store.sweep(701, &limits);
    assert_eq!(bench.books()[2], 4);
    let asked = ask(10, Sight::Second, 609);
    assert_eq!((asked.overflow, asked.again), (true, Retry::AfterSweep));
    bench.store.sweep(609, &limits);
    bench.store.sweep(610, &limits);
    assert!(ask(10, Sight::Again, 611).overflow, "nothing was idle for ten minutes");
    // At tick 615 the one used at 10 has been, and only that one.
    ask(10, Sight::Second, 615);
    bench.store.sweep(615, &limits);
    assert!(bench.read().contains(&r#"a{k="1"} 7"#.to_owned()), "marked, but not gone yet");
    bench.store.sweep(616, &limits);
    let asked = ask(10, Sight::Again, 617);
    assert_eq!((asked.overflow, asked.again), (false, Retry::Never));
    let expected = [r#"a{k="0"} 7"#, r#"a{k="10"} 0"#, r#"a{k="2"} 7"#, r#"a{overflow="true"} 0"#];
    let mut read = bench.read();
    read.sort();
    assert_eq!(read, expected, "and its cells begin at 0 again");
    assert_eq!(bench.evicted(), 1);
}

#[test]
fn time_in_which_the_process_did_not_run_is_no_idle_time() {
    for (limits, cause) in [
        (Limits { max_series: 1, ..wide() }, ExpiryCause::Evicted),
        (Limits { idle_ttl: Duration::from_secs(600), ..wide() }, ExpiryCause::Idle),
    ] {
        let bench = Bench::new(limits);
        let limits = bench.gate.limits.clone();
        let place = bench.place_at("a", Kind::Counter, r#"k="1""#, Sight::First, 1).unwrap().place;
        let mut recorder = bench.store.recorder(0);
        recorder.set_time(5);
        recorder.record(&place, 1.0, 1.0, false).unwrap();
        let gone = || bench.store.books.expired[cause.index()].load(Relaxed);
        bench.store.resumed(100);
        for (now, expected) in [(698, 0), (699, 0), (700, 0), (701, 1)] {
            bench.place_at("a", Kind::Counter, r#"k="2""#, Sight::Second, now).unwrap();
            recorder.set_time(now);
            bench.store.sweep(now, &limits);
            assert_eq!(gone(), expected, "{cause:?} at {now}");
        }
    }
}

#[test]
fn a_series_that_is_used_after_it_was_marked_stays() {
    for returns_by_record in [true, false] {
        let bench = Bench::new(Limits { max_series: 1, ..wide() });
        let limits = bench.gate.limits.clone();
        let place = bench.place_at("a", Kind::Counter, r#"k="1""#, Sight::First, 1).unwrap().place;
        let mut recorder = bench.store.recorder(0);
        recorder.set_time(5);
        recorder.record(&place, 1.0, 1.0, false).unwrap();
        bench.place_at("a", Kind::Counter, r#"k="2""#, Sight::Second, 1000).unwrap();
        bench.store.sweep(1000, &limits);
        if returns_by_record {
            recorder.set_time(1000);
            recorder.record(&place, 1.0, 1.0, false).unwrap();
        } else {
            bench.place_at("a", Kind::Counter, r#"k="1""#, Sight::First, 1000).unwrap();
        }
        bench.store.sweep(1001, &limits);
        let value = if returns_by_record { 2 } else { 1 };
        assert_eq!(bench.read()[1], format!(r#"a{{k="1"}} {value}"#));
        assert_eq!(bench.evicted(), 0);
    }
}

#[test]
fn a_worker_in_a_batch_holds_the_removal_up_until_it_has_forgotten() {
    let bench = Bench::new(Limits { max_series: 1, ..wide() });
    let limits = bench.gate.limits.clone();
    let place = bench.place_at("a", Kind::Counter, r#"k="1""#, Sight::First, 1).unwrap().place;
    let mut worker = bench.store.passage(0);
    assert!(worker.enter().is_none());
    bench.place_at("a", Kind::Counter, r#"k="2""#, Sight::Second, 1000).unwrap();
    bench.store.sweep(1000, &limits);
    for now in 1001..1005 {
        bench.store.sweep(now, &limits);
        assert_eq!(bench.evicted(), 0);
    }
    match worker.enter() {
        Some(grace::Forget::Some(doomed)) => assert!(doomed.contains(&place)),
        other => panic!("{other:?}"),
    }
    bench.store.sweep(1005, &limits);
    assert_eq!(bench.evicted(), 0, "told, and not forgotten yet");
    worker.forgotten();
    bench.store.sweep(1006, &limits);
    assert_eq!(bench.evicted(), 1);
}

#[test]
fn a_family_goes_with_its_last_series_and_its_name_is_free_again() {
    let bench = Bench::new(Limits { max_series: 1, ..wide() });
    let limits = bench.gate.limits.clone();
    assert!(bench.place_at("a", Kind::Gauge, r#"k="1""#, Sight::First, 1).is_ok());
    assert_eq!(bench.place_at("a", Kind::Counter, "", Sight::First, 1).err(), Some(DropReason::TypeConflict));
    bench.place_at("b", Kind::Counter, "", Sight::Second, 1000).unwrap();
    (1000..1003).for_each(|now| bench.store.sweep(now, &limits));
    assert!(bench.place_at("a", Kind::Counter, "", Sight::First, 1003).is_ok());
    let used = bench.store.books.bytes.load(Relaxed);
    assert!(bench.store.passage(1).enter().is_some(), "workers forget that the name was refused");
    assert!(used > 0);
}

#[test]
fn two_weeks_of_churn_leave_the_tables_as_they_were() {
    let bench = Bench::new(Limits { max_series: 50, max_series_per_family: 50, ..wide() });
    let limits = bench.gate.limits.clone();
    let mut now = 1;
    let mut steady = Vec::new();
    for day in 0..14 {
        for turn in 0..30 {
            for n in 0..10 {
                let labels = format!("day=\"{day}\",k=\"{turn}-{n}\"");
                for (name, kind) in [("a", Kind::Counter), ("g", Kind::Gauge), ("h", Kind::Histogram)] {
                    // What finds no place is refused or overflows.
                    let _ = bench.place_at(name, kind, &labels, Sight::Second, now);
                }
            }
            now += 1000;
            (0..3).for_each(|step| bench.store.sweep(now + step, &limits));
        }
        if day > 0 {
            steady.push((bench.store.books.bytes.load(Relaxed), bench.books()[0]));
        }
    }
    let most = steady.iter().map(|(bytes, _)| *bytes).max().unwrap();
    assert!(steady.iter().all(|(bytes, lines)| *bytes * 2 >= most && *lines <= 50), "{steady:?}");
}

#[test]
fn what_is_counted_in_bytes_is_no_more_than_what_was_checked_before() {
    let bench =
        Bench::new(Limits { max_bytes: 200_000, max_series: u64::MAX, max_series_per_family: u64::MAX, ..wide() });
    let used = || bench.store.books.bytes.load(Relaxed);
    let mut random = fastrand::Rng::with_seed(7);
    let mut full = 0;
    for n in 0..5000 {
        let (name, kind) = [("a", Kind::Counter), ("g", Kind::Gauge), ("h", Kind::Histogram)][random.usize(..3)];
        let labels = format!("k=\"{n}\",l=\"{}\"", "x".repeat(random.usize(..300)));
        let before = used();
        let overflow = bench.place(name, kind, &labels).is_ok_and(|placed| placed.overflow);
        full += u64::from(used() == before);
        assert!(used() <= 200_000 || overflow, "{n}");
    }
    assert!(used() > 190_000 && full > 1000, "{} bytes", used());
}

#[test]
fn at_the_limit_in_bytes_what_is_idle_makes_room_whatever_its_kind() {
    let bench = Bench::new(Limits { max_bytes: 100_000, ..limits(u64::MAX, u64::MAX, 100) });
    let limits = bench.gate.limits.clone();
    let mut counters = 0;
    while !bench.place_at("a", Kind::Counter, &format!("k=\"{counters}\""), Sight::First, 1).unwrap().overflow {
        counters += 1;
    }
    let mut histograms = 0;
    let mut now = 1000;
    for turn in 0..50 {
        let labels = format!("k=\"{}{turn}\"", "h".repeat(100));
        bench.place_at("h", Kind::Histogram, &labels, Sight::Second, now).unwrap();
        (0..2).for_each(|step| bench.store.sweep(now + step, &limits));
        let placed = bench.place_at("h", Kind::Histogram, &labels, Sight::Again, now + 2).unwrap();
        histograms += u32::from(!placed.overflow);
        now += 4;
        assert!(bench.store.books.bytes.load(Relaxed) <= 100_000 + 1000);
    }
    assert!(histograms >= 30, "{histograms} of 50 found a place");
    assert!(bench.evicted() < counters, "not everything went for them: {} of {counters}", bench.evicted());
}

#[test]
fn a_family_that_was_large_holds_little_once_it_is_small_again() {
    for pinned in [0, 2999] {
        let bench = Bench::new(limits(3000, 3000, 100));
        let limits = bench.gate.limits.clone();
        let bytes = || bench.store.books.bytes.load(Relaxed);
        let label = |n: u32| format!("k=\"{n}\"");
        let place = |n: u32, now| bench.place_at("a", Kind::Counter, &label(n), Sight::First, now).unwrap().place;
        let places: Vec<Place> = (0..3000).map(|n| place(n, 1)).collect();
        let full = bytes();
        let mut recorder = bench.store.recorder(0);
        recorder.set_time(1000);
        recorder.record(&places[pinned], 1.0, 1.0, false).unwrap();
        for n in 0..3000 {
            bench.place_at("b", Kind::Counter, &label(n), Sight::Second, 1000).unwrap();
        }
        (1000..1002).for_each(|now| bench.store.sweep(now, &limits));
        assert_eq!(bench.evicted(), 2999 + 1, "all but the pinned one, and the overflow series of b");
        // Every cell was handed out once: two of eight bytes in two shards for each series.
        let cells = 3000 * 32 + 2000;
        // A series in the last place holds those before it, and nothing else.
        let places = if pinned == 0 { 0 } else { 3750 * 32 + 4096 * 4 };
        assert!(bytes() < cells + places + 2000, "{full} bytes, then {}, pinned {pinned}", bytes());
        // They are taken first, and once they are free the end is cut off; one place is the overflow series'.
        bench.store.sweep(1007, &limits);
        (0..100).for_each(|n| _ = place(n, 1007));
        let reader = bench.store.read();
        let last = reader.families()[0].as_ref().unwrap().series().len();
        assert_eq!(last, if pinned == 0 { 1 + 1 + 99 } else { 1 + 3000 });
    }
}

#[test]
fn a_family_at_its_own_limit_takes_no_place_from_others() {
    let bench = Bench::new(Limits { max_series_per_family: 2, ..wide() });
    let limits = bench.gate.limits.clone();
    for (name, labels) in [("a", r#"k="1""#), ("a", r#"k="2""#), ("b", ""), ("c", "")] {
        bench.place_at(name, Kind::Counter, labels, Sight::First, 1).unwrap();
    }
    assert!(bench.place_at("a", Kind::Counter, r#"k="3""#, Sight::Second, 1000).unwrap().overflow);
    (1000..1003).for_each(|now| bench.store.sweep(now, &limits));
    assert_eq!(bench.evicted(), 1);
    let left = bench.read();
    assert!(["b{} 0", "c{} 0"].iter().all(|series| left.contains(&(*series).to_owned())), "{left:?}");
    assert!(!bench.place_at("a", Kind::Counter, r#"k="3""#, Sight::Again, 1003).unwrap().overflow);
}

#[test]
fn room_that_was_made_for_one_who_asked_is_not_given_to_a_passer_by() {
    let bench = Bench::new(Limits { max_series: 1, ..wide() });
    let limits = bench.gate.limits.clone();
    bench.place_at("a", Kind::Counter, r#"k="1""#, Sight::First, 1).unwrap();
    bench.place_at("a", Kind::Counter, r#"k="2""#, Sight::Second, 1000).unwrap();
    (1000..1002).for_each(|now| bench.store.sweep(now, &limits));
    assert_eq!(bench.evicted(), 1);
    assert!(bench.place_at("a", Kind::Counter, r#"k="3""#, Sight::First, 1002).unwrap().overflow);
    assert_eq!(bench.place_at("g", Kind::Gauge, "", Sight::First, 1002).err(), Some(DropReason::Cardinality));
    assert!(!bench.place_at("a", Kind::Counter, r#"k="2""#, Sight::Again, 1002).unwrap().overflow);
    // Room that nobody came for is free again after a few seconds.
    bench.place_at("a", Kind::Counter, r#"k="4""#, Sight::Second, 2000).unwrap();
    (2000..2002).for_each(|now| bench.store.sweep(now, &limits));
    assert!(bench.place_at("g", Kind::Gauge, "", Sight::First, 2002).is_err());
    bench.store.sweep(2007, &limits);
    assert!(bench.place_at("g", Kind::Gauge, "", Sight::First, 2008).is_ok());
}

/// Sweeps at each of these seconds; gives what is left.
fn swept(bench: &Bench, seconds: std::ops::Range<Tick>) -> Vec<String> {
    let limits = bench.gate.limits.clone();
    seconds.for_each(|now| bench.store.sweep(now, &limits));
    bench.read()
}

fn expired(bench: &Bench, cause: ExpiryCause) -> u64 {
    bench.store.books.expired[cause.index()].load(Relaxed)
}

#[test]
fn series_past_their_time_to_live_go_and_come_back_from_zero() {
    let mut bench = Bench::new(Limits { idle_ttl: Duration::from_secs(100), ..wide() });
    let mut recorder = bench.store.recorder(0);
    for (name, kind) in [("a", Kind::Counter), ("g", Kind::Gauge), ("h", Kind::Histogram)] {
        let placed = bench.place_at(name, kind, "", Sight::First, 1).unwrap();
        recorder.set_time(if name == "g" { 50 } else { 1 });
        recorder.record(&placed.place, 5.0, 1.0, false).unwrap();
    }
    bench.ttl = Some(20);
    bench.place_at("short", Kind::Counter, "", Sight::First, 1).unwrap();
    bench.ttl = Some(0);
    bench.place_at("long", Kind::Counter, "", Sight::First, 1).unwrap();
    assert_eq!(swept(&bench, 2..21).len(), 5);
    assert_eq!(swept(&bench, 21..24).len(), 4, "its rule gives it 20 seconds");
    assert_eq!(swept(&bench, 24..101).len(), 4);
    assert_eq!(swept(&bench, 101..104), ["g{} 5", "long{} 0"], "100 seconds after the last sample");
    assert_eq!(swept(&bench, 104..149).len(), 2);
    assert_eq!(swept(&bench, 149..153), ["long{} 0"], "a rule that says 0 keeps it for ever");
    assert_eq!((expired(&bench, ExpiryCause::Idle), bench.evicted()), (4, 0));
    let placed = bench.place_at("a", Kind::Counter, "", Sight::First, 200).unwrap();
    recorder.record(&placed.place, 1.0, 1.0, false).unwrap();
    assert!(bench.read().contains(&"a{} 1".to_owned()), "its cells are zero again");
}

#[test]
fn a_time_to_live_that_later_rules_give_holds_for_a_family_that_is_there() {
    let mut bench = Bench::new(wide());
    bench.place_at("a", Kind::Counter, "", Sight::First, 1).unwrap();
    assert_eq!(swept(&bench, 2..50).len(), 1);
    (bench.ttl, bench.generation) = (Some(20), 1);
    bench.place_at("a", Kind::Counter, "", Sight::First, 50).unwrap();
    assert!(swept(&bench, 50..74).is_empty());
}

#[test]
fn a_series_used_while_it_is_about_to_go_stays() {
    let bench = Bench::new(Limits { idle_ttl: Duration::from_secs(10), ..wide() });
    let limits = bench.gate.limits.clone();
    let placed = bench.place_at("a", Kind::Counter, "", Sight::First, 1).unwrap();
    let mut recorder = bench.store.recorder(0);
    bench.store.sweep(11, &limits);
    recorder.set_time(11);
    recorder.record(&placed.place, 7.0, 1.0, false).unwrap();
    bench.store.sweep(12, &limits);
    assert_eq!((bench.read(), expired(&bench, ExpiryCause::Idle)), (vec!["a{} 7".to_owned()], 0));
}

#[test]
fn a_family_larger_than_one_look_is_gone_in_time() {
    let bench = Bench::new(Limits { idle_ttl: Duration::from_secs(10), ..limits(u64::MAX, u64::MAX, 100) });
    for n in 0..10_000 {
        bench.place_at("a", Kind::Counter, &format!("k=\"{n}\""), Sight::First, 1).unwrap();
    }
    assert!(swept(&bench, 11..30).is_empty());
    assert_eq!(expired(&bench, ExpiryCause::Idle), 10_000);
    assert_eq!(bench.store.books.families.load(Relaxed), 0);
}

#[test]
fn other_bounds_of_later_rules_make_a_family_anew_and_nothing_else_does() {
    let mut bench = Bench::new(wide());
    for (name, kind) in [("a", Kind::Counter), ("h", Kind::Histogram), ("i", Kind::Histogram)] {
        bench.record(name, kind, r#"k="1""#, 5.0, 1.0).unwrap();
    }
    let old = bench.place("h", Kind::Histogram, r#"k="1""#).unwrap();
    // Rules of the same age that want other bounds, as two mapping rules for one name may: the first keeps it.
    let first = std::mem::replace(&mut bench.histogram, histogram(&[2.0]));
    bench.record("h", Kind::Histogram, r#"k="1""#, 5.0, 1.0).unwrap();
    assert!(bench.read().contains(&r#"h{k="1"} [0.0, 2.0, 0.0] 10"#.to_owned()), "{:?}", bench.read());
    // Later rules.
    bench.generation = 1;
    bench.record("h", Kind::Histogram, r#"k="1""#, 5.0, 1.0).unwrap();
    bench.record("a", Kind::Counter, r#"k="1""#, 5.0, 1.0).unwrap();
    // A worker that has not seen them yet still writes where it did; nobody sees that any more.
    bench.store.recorder(1).record(&old.place, 5.0, 1.0, false).unwrap();
    let found = [r#"a{k="1"} 10"#, r#"h{k="1"} [0.0, 1.0] 5"#, r#"i{k="1"} [0.0, 1.0, 0.0] 5"#];
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(bench.read()), found);
    assert_eq!(bench.store.books.families.load(Relaxed), 3);
    assert_eq!(bench.store.books.sample_lines.load(Relaxed), 1 + 4 + 5);
    let bytes = bench.store.books.bytes.load(Relaxed);
    // Asked for with the bounds it has, it stays.
    bench.histogram = first;
    bench.record("i", Kind::Histogram, r#"k="1""#, 5.0, 1.0).unwrap();
    assert_eq!(sorted(swept(&bench, 2..5))[2], r#"i{k="1"} [0.0, 2.0, 0.0] 10"#);
    assert_eq!(expired(&bench, ExpiryCause::Reload), 1);
    assert!(bench.store.books.bytes.load(Relaxed) < bytes, "what the old one held is given back");
    // Its cells are zero for whoever gets them next.
    bench.place("j", Kind::Histogram, "").unwrap();
    assert!(bench.read().contains(&"j{} [0.0, 0.0, 0.0] 0".to_owned()), "{:?}", bench.read());
}

#[test]
fn a_replaced_family_waits_for_a_worker_in_a_batch() {
    let mut bench = Bench::new(wide());
    let limits = bench.gate.limits.clone();
    bench.record("h", Kind::Histogram, "", 5.0, 1.0).unwrap();
    let mut worker = bench.store.passage(1);
    assert!(worker.enter().is_none());
    (bench.generation, bench.histogram) = (1, histogram(&[2.0]));
    bench.place("h", Kind::Histogram, "").unwrap();
    (2..6).for_each(|now| bench.store.sweep(now, &limits));
    assert_eq!(expired(&bench, ExpiryCause::Reload), 0);
    worker.leave();
    (6..8).for_each(|now| bench.store.sweep(now, &limits));
    assert_eq!(expired(&bench, ExpiryCause::Reload), 1);
}

#[test]
fn a_new_counter_is_shown_as_zero_for_a_while_and_nothing_else_is() {
    let bench = Bench::new(Limits { zero_first: Duration::from_secs(15), ..wide() });
    let limits = bench.gate.limits.clone();
    let shown = |now| {
        bench.store.sweep(now, &limits);
        let reader = bench.store.read();
        let families = reader.families().iter().flatten();
        let value = |family: &Family| reader.shown(family.kind(), family.series().iter().flatten().next().unwrap());
        families.map(value).collect::<Vec<f64>>()
    };
    shown(100);
    for (name, kind) in [("a", Kind::Counter), ("g", Kind::Gauge)] {
        let placed = bench.place_at(name, kind, "", Sight::First, 100).unwrap();
        bench.store.recorder(0).record(&placed.place, 5.0, 1.0, false).unwrap();
    }
    let declared = bench.place_at("declared", Kind::Counter, "", Sight::First, Tick::MAX).unwrap();
    bench.store.recorder(0).record(&declared.place, 3.0, 1.0, false).unwrap();
    assert_eq!(shown(100), [0.0, 5.0, 3.0]);
    assert_eq!(shown(114), [0.0, 5.0, 3.0]);
    assert_eq!(shown(115), [5.0, 5.0, 3.0]);
}

#[test]
fn what_is_declared_stays_and_what_is_no_longer_lives_by_its_time_from_then_on() {
    let bench = Bench::new(Limits { idle_ttl: Duration::from_secs(10), ..wide() });
    let limits = bench.gate.limits.clone();
    let names = |ticks: std::ops::RangeInclusive<Tick>| {
        ticks.for_each(|now| bench.store.sweep(now, &limits));
        let mut names: Vec<String> =
            bench.store.read().families().iter().flatten().map(|it| it.name().to_owned()).collect();
        names.sort();
        names.concat()
    };
    // One of each was there before.
    for name in ["a", "b", "x"] {
        bench.place(name, Kind::Counter, "").unwrap();
    }
    bench.declare(&["a", "b", "c", "d"]);
    assert_eq!(names(1..=10), "abcdx");
    assert_eq!(names(11..=50), "abcd");
    // Marked, or about to be, is no reason to go for one that is declared meanwhile.
    bench.declare(&["a", "c"]);
    assert_eq!(names(51..=60), "abcd");
    bench.place_at("e", Kind::Counter, "", Sight::First, 51).unwrap();
    assert_eq!(names(61..=61), "abcde", "it is marked");
    bench.declare(&["a", "c", "d", "e"]);
    assert_eq!(names(62..=100), "acde");
    bench.declare(&[]);
    bench.place_at("e", Kind::Counter, "", Sight::First, 101).unwrap();
    assert_eq!(names(101..=110), "acde");
    assert_eq!(names(111..=115), "");
}

mod observers;
