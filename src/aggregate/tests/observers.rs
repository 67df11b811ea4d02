//! Observations and sets: what their sketches hold over shards and time, and what becomes of it when series go.

use super::*;
use crate::config::Observation;

const WIDE: Observation = Observation::Histogram { bounds: Vec::new(), native_factor: 1.1, native_max_buckets: 160 };

fn summary(max_age: u64) -> Shape {
    Shape::of(&Observation::Summary { quantiles: vec![0.5, 0.99], max_age: Duration::from_secs(max_age) })
}

impl Bench {
    /// With observations kept like this.
    fn observing(limits: Limits, shape: Shape) -> Self {
        Self { histogram: shape, ..Self::new(limits) }
    }

    fn observe(&self, worker: usize, now: Tick, labels: &str, values: &[f64]) {
        let kind = self.histogram.kind();
        let placed = self.place_at("o", kind, labels, Sight::First, now).expect("a place");
        let mut recorder = self.store.recorder(worker);
        recorder.set_time(now);
        for value in values {
            match kind {
                Kind::Set => recorder.record_member(&placed.place, xxhash(*value)).unwrap(),
                _ => recorder.record(&placed.place, *value, 1.0, false).unwrap(),
            }
        }
    }

    /// Runs that sketches hold, over all workers.
    fn runs(&self) -> usize {
        self.store.arenas.iter().map(|arena| arena.runs()).sum()
    }

    /// How many observations are in native buckets, and how many of these there are.
    fn native(&self) -> (f64, usize) {
        let (reader, mut merged, mut all) = (self.store.read(), Merged::default(), (0.0, 0));
        for family in reader.families().iter().flatten() {
            let Shape::Histogram(histogram) = family.shape() else { continue };
            for series in family.series().iter().flatten() {
                reader.native(histogram, series, &mut merged);
                all = (all.0 + merged.weight(), all.1 + merged.bins().len());
            }
        }
        all
    }
}

fn xxhash(value: f64) -> u64 {
    xxhash_rust::xxh64::xxh64(&value.to_bits().to_le_bytes(), 0)
}

#[test]
fn native_buckets_are_those_of_all_shards_and_hold_every_observation() {
    let bench = Bench::observing(wide(), Shape::of(&WIDE));
    let values: Vec<f64> = (1..=300).map(f64::from).collect();
    bench.observe(0, 1, "", &values);
    bench.observe(1, 1, "", &values[..100]);
    let (count, buckets) = bench.native();
    assert_eq!(count, 400.0);
    // Eight for each power of two, of which the lower ones have not as many whole numbers.
    assert!((45..67).contains(&buckets), "{buckets}");
    assert_eq!(bench.read(), [format!("o{{}} [400.0] {}", 45_150 + 5050)]);
    // One shard is coarser than the other.
    bench.observe(1, 1, "", &(0..200).map(|n| f64::from(n - 100).exp2()).collect::<Vec<_>>());
    let (count, buckets) = bench.native();
    assert!(count == 600.0 && buckets <= 160, "{count} in {buckets}");
}

#[test]
fn a_summary_looks_back_for_its_window_and_counts_for_ever() {
    let bench = Bench::observing(wide(), summary(50));
    let limits = bench.gate.limits.clone();
    let read_at = |now| {
        bench.store.sweep(now, &limits);
        bench.read().pop().unwrap()
    };
    bench.observe(0, 5, "", &[1.0, 2.0, 3.0]);
    assert_eq!(read_at(5), "o{} [2.0, 3.0] 3 6");
    // Another worker, in a later slice.
    bench.observe(1, 25, "", &[7.0]);
    assert_eq!(read_at(26), "o{} [2.0, 7.0] 4 13");
    assert_eq!(read_at(49), "o{} [2.0, 7.0] 4 13");
    assert_eq!(read_at(50), "o{} [7.0, 7.0] 4 13", "the first slice was of the seconds up to 10");
    assert_eq!(read_at(70), "o{} [NaN, NaN] 4 13");
    bench.observe(0, 71, "", &[9.0]);
    assert_eq!(read_at(71), "o{} [9.0, 9.0] 5 22");
}

#[test]
fn quantiles_of_shards_and_slices_are_within_a_percent() {
    let bench = Bench::observing(wide(), summary(100));
    let mut random = fastrand::Rng::with_seed(8);
    let mut all = Vec::new();
    for slice in 0..5 {
        for worker in 0..2 {
            let values: Vec<f64> = (0..500).map(|_| (random.f64() * 12.0 - 9.0).exp()).collect();
            bench.observe(worker, slice * 20, "", &values);
            all.extend(values);
        }
    }
    bench.store.sweep(99, &bench.gate.limits.clone());
    all.sort_by(f64::total_cmp);
    let reader = bench.store.read();
    let family = reader.families()[0].as_ref().unwrap();
    let Shape::Summary(summary) = family.shape() else { panic!("a summary") };
    let mut merged = Merged::default();
    let (count, sum) = reader.summary(summary, family.series().iter().flatten().next().unwrap(), &mut merged);
    assert_eq!((count, merged.weight()), (5000.0, 5000.0));
    assert!((sum / all.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for (rank, quantile) in [(49, 0.01), (2499, 0.5), (4499, 0.9), (4949, 0.99), (4999, 1.0)] {
        let found = merged.quantile(summary.layout(), quantile);
        assert!((found / all[rank] - 1.0).abs() < 0.01, "{quantile}: {found} for {}", all[rank]);
    }
}

#[test]
fn members_are_counted_once_over_shards_and_leave_with_their_window() {
    let bench = Bench::observing(wide(), Shape::set(Duration::from_secs(50), 1024));
    let limits = bench.gate.limits.clone();
    let read_at = |now| {
        bench.store.sweep(now, &limits);
        bench.read().pop().unwrap()
    };
    bench.observe(0, 5, "", &[1.0, 2.0, 1.0]);
    bench.observe(1, 15, "", &[2.0, 3.0]);
    assert_eq!(read_at(15), "o{} 3");
    assert_eq!(read_at(50), "o{} 2");
    assert_eq!(read_at(60), "o{} 0");
    bench.observe(0, 61, "", &(0..10_000).map(f64::from).collect::<Vec<_>>());
    let found: f64 = read_at(61).strip_prefix("o{} ").unwrap().parse().unwrap();
    assert!((found / 10_000.0 - 1.0).abs() < 4.0 * 1.04 / 32.0, "{found}");
}

#[test]
fn what_sketches_hold_is_charged_and_goes_with_their_series() {
    for shape in [Shape::of(&WIDE), summary(50), Shape::set(Duration::from_secs(50), 1024)] {
        let limits = Limits { idle_ttl: Duration::from_secs(10), ..wide() };
        let bench = Bench::observing(limits, shape.clone());
        let bytes = || {
            // The next look at the limits counts anew.
            let _ = bench.place("g", Kind::Gauge, "");
            bench.store.books.bytes.load(Relaxed)
        };
        let values: Vec<f64> = (1..500).map(|n| f64::from(n).powi(3)).collect();
        bench.observe(0, 1, r#"k="0""#, &values[..1]);
        let before = bytes();
        for n in 0..20 {
            bench.observe(n % 2, 1, &format!("k=\"{n}\""), &values);
        }
        let (after, runs) = (bytes(), bench.runs());
        let kind = shape.kind();
        assert!(runs == 20 && after > before + 20 * 900, "{kind:?}: {runs} runs, {before} and then {after}");
        assert!(swept(&bench, 11..20).is_empty());
        assert_eq!(bench.runs(), 0, "{kind:?}");
        // What they held is taken again.
        for n in 0..20 {
            bench.observe(n % 2, 20, &format!("k=\"{n}\""), &values);
        }
        assert!(bytes() <= after + after / 8, "{kind:?}: {} after {after}", bytes());
    }
}

#[test]
fn at_the_limit_in_bytes_observations_become_coarser_and_members_are_refused() {
    let values: Vec<f64> = (-400..400).map(|n| f64::from(n).exp2()).collect();
    for shape in [Shape::of(&WIDE), summary(50)] {
        let bench = Bench::observing(wide(), shape);
        bench.observe(0, 1, "", &[1.0]);
        let used = bench.store.books.bytes.load(Relaxed);
        let bench = Bench { gate: Gate::new(Limits { max_bytes: used + 500, ..wide() }, 0), ..bench };
        bench.observe(0, 1, "", &values);
        assert!(bench.store.books.bytes.load(Relaxed) <= used + 500);
        let line = bench.read().pop().unwrap();
        assert!(line.contains(" 801 ") || bench.native().0 == 801.0, "{line}");
        // What is known still takes everything; what is new finds no room.
        bench.observe(0, 1, "", &values);
        let placed = bench.place("o", bench.histogram.kind(), &format!("k=\"{}\"", "v".repeat(500))).unwrap();
        assert!(placed.overflow);
    }
    let bench = Bench::observing(wide(), Shape::set(Duration::from_secs(50), 1024));
    bench.observe(0, 1, "", &[1.0]);
    let used = bench.store.books.bytes.load(Relaxed);
    let bench = Bench { gate: Gate::new(Limits { max_bytes: used + 64, ..wide() }, 0), ..bench };
    let place = bench.place("o", Kind::Set, "").unwrap().place;
    // The limit is known once something new asks.
    let _ = bench.place("p", Kind::Counter, "");
    let mut recorder = bench.store.recorder(0);
    let refused = (0..100).filter(|n| recorder.record_member(&place, xxhash(f64::from(*n))).is_err()).count();
    assert!(refused > 50, "{refused}");
    assert_eq!(recorder.record_member(&place, xxhash(0.0)), Ok(()), "a member that is known");
}

#[test]
fn two_weeks_of_churn_leave_no_run_behind() {
    for shape in [Shape::of(&WIDE), summary(50), Shape::set(Duration::from_secs(50), 64)] {
        let bench = Bench::observing(Limits { max_series: 60, max_series_per_family: 60, ..wide() }, shape);
        let limits = bench.gate.limits.clone();
        let mut random = fastrand::Rng::with_seed(9);
        let (mut now, mut most) = (1, Vec::new());
        for day in 0..14 {
            for turn in 0..20 {
                for n in 0..10 {
                    let values: Vec<f64> = (0..random.usize(1..200)).map(|_| random.f64() * 100.0).collect();
                    bench.observe(n % 2, now, &format!("k=\"{day}-{turn}-{n}\""), &values);
                }
                now += 1000;
                // Others want the room.
                for n in 0..10 {
                    let labels = format!("k=\"{day}-{turn}+{n}\"");
                    let _ = bench.place_at("o", bench.histogram.kind(), &labels, Sight::Second, now);
                }
                (0..3).for_each(|step| bench.store.sweep(now + step, &limits));
            }
            most.push(bench.store.books.bytes.load(Relaxed));
        }
        let (first, last) = (most[3], most[13]);
        assert!(last <= first + first / 4, "{:?}: {most:?}", bench.histogram.kind());
    }
}

#[test]
fn later_rules_that_want_another_kind_of_observation_make_a_family_anew() {
    let mut bench = Bench::observing(wide(), Shape::of(&WIDE));
    bench.observe(0, 1, "", &[1.0, 100.0, 10_000.0, 1e6, 1e8]);
    assert_eq!(bench.runs(), 1);
    // Of the same age: the first keeps the name.
    bench.histogram = summary(50);
    assert_eq!(bench.place("o", Kind::Summary, "").err(), Some(DropReason::TypeConflict));
    bench.generation = 1;
    bench.observe(0, 2, "", &[5.0]);
    assert_eq!(bench.read(), ["o{} [5.0, 5.0] 1 5"]);
    swept(&bench, 2..6);
    assert_eq!((expired(&bench, ExpiryCause::Reload), bench.runs()), (1, 0));
    // Other quantiles, and another window.
    for (generation, shape) in [
        (2, Shape::of(&Observation::Summary { quantiles: vec![0.5], max_age: Duration::from_secs(50) })),
        (3, Shape::of(&Observation::Summary { quantiles: vec![0.5], max_age: Duration::from_secs(60) })),
        (4, Shape::of(&WIDE)),
        (5, Shape::of(&Observation::Histogram { bounds: vec![], native_factor: 2.0, native_max_buckets: 160 })),
    ] {
        (bench.generation, bench.histogram) = (generation, shape);
        bench.observe(0, 2, "", &[5.0]);
        assert!(bench.read()[0].ends_with(" 5"), "{:?}", bench.read());
    }
    // A counter of that name is still another type.
    bench.generation = 6;
    assert_eq!(bench.place("o", Kind::Counter, "").err(), Some(DropReason::TypeConflict));
}

#[test]
fn a_summary_takes_the_names_that_a_histogram_takes() {
    let bench = Bench::observing(wide(), summary(50));
    bench.observe(0, 1, "", &[1.0]);
    for name in ["o_sum", "o_count", "o_bucket"] {
        assert_eq!(bench.place(name, Kind::Counter, "").err(), Some(DropReason::TypeConflict), "{name}");
    }
    assert_eq!(bench.books()[0], 4);
}

#[test]
fn what_a_batch_of_seconds_records_under_the_time_of_its_beginning_is_seen_by_the_second_look() {
    for shape in [Shape::Counter, Shape::of(&WIDE), summary(50)] {
        let mut bench = Bench::new(Limits { idle_ttl: Duration::from_secs(2), ..wide() });
        let kind = shape.kind();
        bench.histogram = shape;
        let mut worker = bench.store.passage(0);
        assert!(worker.enter().is_none());
        let place = bench.place_at("o", kind, "", Sight::First, 1).unwrap().place;
        let mut recorder = bench.store.recorder(0);
        recorder.set_time(1);
        recorder.record(&place, 1.0, 1.0, false).unwrap();
        // Marked while the batch goes on, and looked at again once it is over.
        swept(&bench, 2..5);
        recorder.record(&place, 2.0, 1.0, false).unwrap();
        worker.leave();
        let read = swept(&bench, 5..6).pop().expect("it stays");
        assert!(read.contains('3'), "{read}");
        assert!(swept(&bench, 6..9).is_empty(), "{kind:?} goes once nobody uses it");
    }
}
