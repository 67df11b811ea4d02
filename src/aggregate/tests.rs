//! The store alone: places, conflicts, limits and numbers, with names and labels given as text.

use std::time::Duration;

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
    }
}

fn wide() -> Limits {
    limits(1000, 1000, 100)
}

struct Bench {
    store: Store,
    bounds: Arc<Bounds>,
    gate: Gate,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self {
            store: Store::new(2, Arc::default()),
            bounds: Arc::new(Bounds::new(&[1.0, 10.0])),
            gate: Gate::new(limits, 0),
        }
    }

    fn place(&self, name: &str, kind: Kind, labels: &str) -> Result<Placed, DropReason> {
        self.place_at(name, kind, labels, Sight::First, 1)
    }

    /// Labels given as text are those of tags, but for `user_bucket`, which a rule made.
    fn place_at(&self, name: &str, kind: Kind, labels: &str, sight: Sight, now: Tick) -> Result<Placed, DropReason> {
        let overflow_labels = r#"overflow="true""#;
        let bounds = &self.bounds;
        let wanted =
            Wanted { name, written: name, help: None, kind, timed: false, bounds, overflow_labels, sight, now };
        let mut set = LabelSet::default();
        for (name, value) in rendered(labels) {
            let origin = if name == "user_bucket" { Origin::Rule } else { Origin::Tag };
            set.set(name.as_bytes(), value.as_bytes(), origin, 99).unwrap();
        }
        set.sort();
        self.store.place(wanted, &mut set, &mut Vec::new(), &self.gate)
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
                let value = if family.kind() == Kind::Histogram {
                    let mut counts = Vec::new();
                    let sum = reader.histogram(family.bounds(), series, &mut counts);
                    format!("{counts:?} {sum}")
                } else {
                    reader.value(family.kind(), series).to_string()
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
            assert_eq!(lines[own], overflow);
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
    // Three of five are the share; then two more places for simplified series; then the overflow series, there from 0 on.
    assert_eq!(
        ladder(limits, &labels),
        [
            r#"a{k="1"} 1"#,
            r#"a{k="2"} 2"#,
            r#"a{k="3"} 1"#,
            r#"a{overflow="true"} 1"#,
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
        assert_eq!(bench.read()[0], format!(r#"a{{k="1"}} {value}"#));
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
