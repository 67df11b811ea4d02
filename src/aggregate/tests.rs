//! The store alone: places, conflicts, limits and numbers, with names and labels given as text.

use super::*;

const WIDE: Limits = Limits { max_series: 1000, max_series_per_family: 1000, max_families: 100 };

struct Bench {
    store: Store,
    bounds: Arc<Bounds>,
    limits: Limits,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self { store: Store::new(2, Arc::default()), bounds: Arc::new(Bounds::new(&[1.0, 10.0])), limits }
    }

    fn place(&self, name: &str, kind: Kind, labels: &str) -> Result<Placed, DropReason> {
        let overflow_labels = r#"overflow="true""#;
        let wanted = Wanted { name, written: name, kind, bounds: &self.bounds, labels, overflow_labels };
        self.store.place(wanted, &self.limits)
    }

    /// Records as worker 0; panics if there is no place.
    fn record(&self, name: &str, kind: Kind, labels: &str, value: f64, weight: f64) -> Result<(), DropReason> {
        let placed = self.place(name, kind, labels).expect("a place");
        self.store.recorder(0).record(&placed.place, value, weight, false)
    }

    /// Every series as `name{labels} value`, a histogram's value as `[counts by bucket] sum`.
    fn read(&self) -> Vec<String> {
        let (reader, mut lines) = (self.store.read(), Vec::new());
        for family in reader.families() {
            for series in family.series() {
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

    fn books(&self) -> [u64; 3] {
        let SeriesBooks { sample_lines, families, created, .. } = &*self.store.books;
        [sample_lines, families, created].map(|count| count.load(Relaxed))
    }
}

#[test]
fn a_name_belongs_to_the_kind_that_came_first() {
    let bench = Bench::new(WIDE);
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
            let bench = Bench::new(WIDE);
            assert!(bench.place("a", Kind::Histogram, "").is_ok());
            let beside = bench.place(&format!("a{suffix}"), kind, "").err();
            assert_eq!(beside, Some(DropReason::TypeConflict), "{kind:?} a{suffix} after histogram a");

            let bench = Bench::new(WIDE);
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
    let bench = Bench::new(WIDE);
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
    let bench = Bench::new(Limits { max_families: 1, ..WIDE });
    assert_eq!(bench.record("a", Kind::Counter, "", 1.0, 1.0), Ok(()));
    assert_eq!(bench.place("b", Kind::Counter, "").err(), Some(DropReason::Cardinality));
    assert_eq!(bench.record("a", Kind::Counter, r#"k="v""#, 2.0, 1.0), Ok(()));
    assert_eq!(bench.read(), ["a{} 1", r#"a{k="v"} 2"#]);
}

#[test]
fn past_a_limit_counters_and_histograms_overflow_and_gauges_are_dropped() {
    for limits in [Limits { max_series_per_family: 5, ..WIDE }, Limits { max_series: 5, ..WIDE }] {
        for (kind, own) in [(Kind::Counter, 5), (Kind::Histogram, 1)] {
            let bench = Bench::new(limits);
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
        let bench = Bench::new(limits);
        for n in 0..20 {
            let placed = bench.place("a", Kind::Gauge, &format!("k=\"{n}\"")).map(|placed| placed.overflow);
            assert_eq!(placed.ok(), (n < 5).then_some(false), "{n}");
        }
        assert_eq!(bench.books(), [5, 1, 5]);
    }
}

#[test]
fn a_gauge_without_room_leaves_no_family_behind() {
    let bench = Bench::new(Limits { max_series: 1, ..WIDE });
    assert!(bench.place("a", Kind::Gauge, "").is_ok());
    assert_eq!(bench.place("b", Kind::Gauge, "").err(), Some(DropReason::Cardinality));
    assert!(bench.place("b", Kind::Counter, "").expect("overflow").overflow, "the name is still free");
    assert_eq!(bench.books(), [1, 2, 2]);
}

#[test]
fn a_series_of_the_users_own_named_as_overflow_takes_the_rest() {
    let bench = Bench::new(Limits { max_series: 1, ..WIDE });
    assert_eq!(bench.record("a", Kind::Counter, r#"overflow="true""#, 1.0, 1.0), Ok(()));
    assert_eq!(bench.record("a", Kind::Counter, r#"k="v""#, 2.0, 1.0), Ok(()));
    assert_eq!(bench.record("a", Kind::Counter, r#"overflow="true""#, 4.0, 1.0), Ok(()));
    assert_eq!(bench.read(), [r#"a{overflow="true"} 7"#]);
}

#[test]
fn shards_of_all_workers_are_summed() {
    let bench = Bench::new(WIDE);
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
    let bench = Bench::new(WIDE);
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
    let bench = Bench::new(WIDE);
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
    let bench = Bench::new(WIDE);
    for (value, weight) in [(1.0, 1.0), (1.5, 4.0), (11.0, 0.5), (-3.0, 2.0)] {
        assert_eq!(bench.record("a", Kind::Histogram, "", value, weight), Ok(()));
    }
    assert_eq!(bench.read(), ["a{} [3.0, 4.0, 0.5] 6.5"]);
}

#[test]
fn a_counter_below_zero_is_refused_and_changes_nothing() {
    let bench = Bench::new(WIDE);
    assert_eq!(bench.record("a", Kind::Counter, "", 2.0, 3.0), Ok(()));
    assert_eq!(bench.record("a", Kind::Counter, "", -1.0, 1.0), Err(DropReason::NegativeCounter));
    assert_eq!(bench.record("a", Kind::Counter, "", -0.0, 1.0), Ok(()));
    assert_eq!(bench.read(), ["a{} 6"]);
}

#[test]
fn what_would_make_a_sum_infinite_is_refused_and_changes_nothing() {
    let bench = Bench::new(WIDE);
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
        let bench = Bench::new(WIDE);
        let recorded = bench.record("a", kind, "", value, weight);
        assert_eq!(admits(kind, value, weight), recorded, "{kind:?} {value} {weight}");
    }
}

#[test]
fn a_place_found_again_is_the_same_series() {
    let bench = Bench::new(WIDE);
    for _ in 0..3 {
        assert_eq!(bench.record("a", Kind::Counter, r#"k="v""#, 1.0, 1.0), Ok(()));
    }
    assert_eq!((bench.read(), bench.books()), (vec![r#"a{k="v"} 3"#.to_owned()], [1, 1, 1]));
}
