//! The store as plain maps: what each series holds, when it may go and when it has to.
//!
//! In: what was sent, the books before and after, what the store holds. Out: a panic if the two differ.
//! Not here: what a line asks for (`terms`), which order things come in (`pipeline`).
//! Always: all numbers are compared exactly. Where the ladder of limits may lead to several series, the store's word
//! is taken for which, but the limits must allow it, and all else must be as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use statsieve::clock::tick;
use statsieve::config::Format;
use statsieve::model::DropReason;
use statsieve::telemetry::{Count, ExpiryCause};

use super::reader::{self, Labels};
use super::rig::{Rig, dropped, recorded};
use super::terms::{Keeps, Sent, TERMS, Target, Terms};

/// The slices of a window.
const SLICES: u64 = 5;
/// Seconds after which what gave way asks again, whatever it gave way to.
const ASKS_AGAIN: u64 = 60;
/// Seconds for which the lines of what was evicted may be kept for others.
const KEPT: u64 = 10;

/// All numbers of a series: of observations the sum before the counts.
type Numbers = Vec<f64>;

/// Of each worker the slices that it wrote to, by what is left of their number, and their members.
type Rings = Vec<[(u64, BTreeSet<u8>); SLICES as usize]>;

#[derive(Clone, Debug)]
struct Series {
    numbers: Numbers,
    members: Rings,
    made: u64,
    used: u64,
    overflow: bool,
    /// What the last sweep found that it may go for.
    marked: Option<ExpiryCause>,
}

#[derive(Debug)]
struct Family {
    keeps: Keeps,
    ttl: Option<u64>,
    generation: u64,
    series: BTreeMap<String, Series>,
}

/// Everything there is.
pub(super) struct Model {
    families: BTreeMap<String, Family>,
    /// Which of [`TERMS`] is in force, and how many were.
    terms: usize,
    generation: u64,
    now: Duration,
    workers: usize,
    /// Counters made after it are shown as 0.
    shown_until: u64,
    /// Series that a reload replaced: before the last sweep, and since.
    retired: [u64; 2],
    /// For each worker when it last asked for an identity, and whether it keeps the answer.
    asked: HashMap<(usize, String), (u64, bool)>,
    /// When idle series last gave way: for a while their lines are kept for who asked.
    evicted: Option<u64>,
    counted: [u64; 3],
}

/// What the store holds of a family.
fn held(rig: &Rig, name: &str, keeps: &Keeps) -> BTreeMap<String, Numbers> {
    use statsieve::aggregate::shape::Shape;

    let reader = rig.store.read();
    let mut held = BTreeMap::new();
    let Some(family) = reader.families().iter().flatten().find(|family| family.name() == name) else { return held };
    let mut merged = statsieve::aggregate::sketch::bins::Merged::default();
    for series in family.series().iter().flatten() {
        let numbers = match family.shape() {
            Shape::Counter | Shape::Gauge => vec![reader.value(family.kind(), series)],
            Shape::Histogram(histogram) => {
                let mut counts = Vec::new();
                let sum = reader.histogram(histogram, series, &mut counts);
                counts.insert(0, sum);
                counts
            }
            Shape::Summary(summary) => {
                let (count, sum) = reader.summary(summary, series, &mut merged);
                vec![sum, count]
            }
            Shape::Set(set) => vec![reader.members(set, series)],
        };
        assert!(held.insert(series.labels().to_owned(), numbers).is_none(), "{name}: a series twice");
    }
    assert!(!held.is_empty(), "{name} has no series");
    let lines: u64 = family.lines();
    let series = held.keys().filter(|labels| !labels.ends_with("overflow=\"true\"")).count() as u64;
    assert_eq!(lines, series * keeps.lines(), "{name}: lines are counted");
    held
}

impl Series {
    fn new(keeps: &Keeps, workers: usize, made: u64, overflow: bool) -> Self {
        let numbers = match keeps {
            Keeps::Counter | Keeps::Gauge | Keeps::Members(_) => 1,
            Keeps::Buckets(bounds) => bounds.len() + 2,
            Keeps::Quantiles(_) => 2,
        };
        let members = if matches!(keeps, Keeps::Members(_)) { vec![Default::default(); workers] } else { Vec::new() };
        let numbers = vec![0.0; numbers];
        Self { numbers, members, made, used: made, overflow, marked: None }
    }

    /// What it should hold at a time.
    fn at(&self, keeps: &Keeps, now: u64) -> Numbers {
        let Keeps::Members(window) = keeps else { return self.numbers.clone() };
        let current = now / window.div_ceil(SLICES) + 1;
        let live = self.members.iter().flatten().filter(|(slice, _)| *slice > 0 && slice + SLICES > current);
        vec![live.flat_map(|(_, members)| members).collect::<BTreeSet<_>>().len() as f64]
    }

    fn add(&mut self, keeps: &Keeps, sent: &Sent, scale: f64, absolute: bool, worker: usize, now: u64) {
        let weight = f64::from(sent.weight);
        for value in &sent.values {
            let unit = if sent.kind == "ms" { 0.125 } else { 1.0 };
            let number = f64::from(*value) * unit * scale;
            match keeps {
                Keeps::Counter => self.numbers[0] += number * weight,
                Keeps::Gauge => match sent.sign {
                    "+" if !absolute => self.numbers[0] += number,
                    "-" if !absolute => self.numbers[0] -= number,
                    "-" => self.numbers[0] = -number,
                    _ => self.numbers[0] = number,
                },
                Keeps::Buckets(bounds) => {
                    self.numbers[0] += number * weight;
                    let place = bounds.iter().filter(|bound| number > **bound).count();
                    self.numbers[1 + place] += weight;
                }
                Keeps::Quantiles(_) => {
                    self.numbers[0] += number * weight;
                    self.numbers[1] += weight;
                }
                Keeps::Members(window) => {
                    let slice = now / window.div_ceil(SLICES) + 1;
                    let place = &mut self.members[worker][(slice % SLICES) as usize];
                    if place.0 != slice {
                        *place = (slice, BTreeSet::new());
                    }
                    place.1.insert(*value);
                }
            }
        }
    }
}

impl Family {
    /// Lines that count against the limits.
    fn lines(&self) -> u64 {
        self.series.values().filter(|series| !series.overflow).count() as u64 * self.keeps.lines()
    }

    /// Whether a label has no room for a further value.
    fn is_full(&self, label: &str, value: &str, most: usize) -> bool {
        let prefix = format!("{label}=\"");
        let value = format!("{label}=\"{value}\"");
        let parts = self.series.keys().flat_map(|labels| labels.split(','));
        let values: BTreeSet<_> = parts.filter(|part| part.starts_with(&prefix)).collect();
        values.len() >= most && !values.contains(&*value)
    }
}

impl Model {
    pub(super) fn new(terms: usize, workers: usize) -> Self {
        Self {
            families: BTreeMap::new(),
            terms,
            generation: 0,
            now: Duration::ZERO,
            workers,
            shown_until: u64::MAX,
            retired: [0; 2],
            asked: HashMap::new(),
            evicted: None,
            counted: [0; 3],
        }
    }

    fn terms(&self) -> &'static Terms {
        &TERMS[self.terms]
    }

    fn tick(&self) -> u64 {
        tick(self.now)
    }

    fn lines(&self) -> u64 {
        self.families.values().map(Family::lines).sum()
    }

    pub(super) fn reload(&mut self, rig: &Rig, terms: usize) {
        rig.reload(&TERMS[terms].config);
        self.terms = terms;
        self.generation += 1;
        self.asked.clear();
    }

    /// A worker without traffic passes a batch boundary too.
    pub(super) fn rest(&self, rig: &mut Rig, worker: usize) {
        rig.batch(worker, self.now, b"");
    }

    /// A worker takes a datagram of `times` times the same line.
    pub(super) fn take(&mut self, rig: &mut Rig, worker: usize, sent: &Sent, times: usize) {
        let worker = worker % self.workers;
        let before = rig.tally();
        let line = sent.line();
        rig.batch(worker, self.now, vec![&*line; times].join("\n").as_bytes());
        let after = rig.tally();
        let n = (sent.values.len() * times) as u64;
        let count = |reason| after.dropped_for(reason) - before.dropped_for(reason);
        let (recorded, all) = (recorded(&after) - recorded(&before), dropped(&after) - dropped(&before));
        assert_eq!(recorded + all, n, "{line}: each value is recorded or dropped");
        assert_eq!(after.get(Count::Lines) - before.get(Count::Lines), times as u64);
        let overflowed = after.get(Count::OverflowSamples) - before.get(Count::OverflowSamples);
        assert!(overflowed == 0 || overflowed == recorded, "{line}: all or none overflow");

        let terms = self.terms();
        let Some(target) = sent.target(terms) else {
            assert_eq!(count(DropReason::MappingDrop), n, "{line}");
            return;
        };
        self.ask(&target);
        let limits = &terms.config.cardinality;
        let places = target.places(&limits.keep_labels);
        let known = self.families.get(&target.family);
        if known.is_some_and(|family| !family.keeps.is_type_of(&target.keeps)) {
            assert_eq!(count(DropReason::TypeConflict), n, "{line}: {} is something else", target.family);
            return;
        }
        let identity = (worker, format!("{} {} {}", sent.kind, sent.name, places[0]));
        let asks = self.asked.get(&identity).is_none_or(|(at, keeps)| !keeps && self.tick() >= at + ASKS_AGAIN);
        let exists = known.is_some_and(|family| family.series.contains_key(&places[0]));
        let must = asks && (exists || self.has_room(&target));
        if recorded == 0 {
            assert_eq!(count(DropReason::Cardinality), n, "{line}");
            assert!(!must, "{line} was refused though there is room in {}", target.family);
            let is_gauge = target.keeps == Keeps::Gauge;
            assert!(is_gauge || !asks || self.is_out_of_families(&target), "{line} was refused, not merged");
            if asks {
                self.asked.insert(identity, (self.tick(), false));
            }
            return;
        }
        assert_eq!(recorded, n, "{line}");

        let held = held(rig, &target.family, &target.keeps);
        let changed = self.changed(&held, &target, overflowed > 0);
        let places = if overflowed > 0 {
            vec![self.overflow(&target)]
        } else if target.keeps == Keeps::Gauge {
            places[..1].to_vec()
        } else {
            places
        };
        let place = match &changed[..] {
            [changed] => changed.clone(),
            // A gauge was set to what it is, or a member is there already: then it is clear where.
            [] => {
                let has = |place: &&String| held.contains_key(&**place);
                places.iter().find(has).unwrap_or_else(|| panic!("{line}: no place for it in {held:?}")).clone()
            }
            _ => panic!("{line}: several series changed: {changed:?}"),
        };
        assert!(places.contains(&place), "{line} went to {{{place}}}, not to one of {places:?}");
        let full = place == places[0] && overflowed == 0;
        assert!(full || !must, "{line} went to {{{place}}} though there is room in {}", target.family);
        if asks {
            // What gave way to nothing but a full label keeps its answer.
            let folded = place.contains("=\"other\"");
            self.asked.insert(identity, (self.tick(), full || folded));
        }
        self.add(&target, place, sent, worker, times, &held);
    }

    /// What asking for a family does to it, whatever comes of it.
    fn ask(&mut self, target: &Target) {
        let Some(family) = self.families.get_mut(&target.family) else { return };
        if !family.keeps.is_type_of(&target.keeps) {
            return;
        }
        family.ttl = target.ttl;
        if family.generation < self.generation {
            family.generation = self.generation;
            if family.keeps != target.keeps {
                self.retired[1] += family.series.len() as u64;
                self.families.remove(&target.family);
            }
        }
    }

    /// The labels of the overflow series: of that which is there, whatever they would be now.
    fn overflow(&self, target: &Target) -> String {
        let family = self.families.get(&target.family);
        let there = family.and_then(|family| family.series.iter().find(|(_, series)| series.overflow));
        there.map_or_else(|| Target::overflow(self.terms()).to_owned(), |(labels, _)| labels.clone())
    }

    fn is_out_of_families(&self, target: &Target) -> bool {
        let most = self.terms().config.cardinality.max_families;
        !self.families.contains_key(&target.family) && self.families.len() >= most
    }

    /// Whether it gets a series with its full labels, if there is none: no limit is near, and no label full.
    fn has_room(&self, target: &Target) -> bool {
        let terms = self.terms();
        let limits = &terms.config.cardinality;
        let known = self.families.get(&target.family);
        let folds = known.is_some_and(|family| {
            target.open().iter().any(|(name, value)| family.is_full(name, value, terms.config.labels.max_values))
        });
        let share = if target.keeps == Keeps::Gauge { 1.0 } else { limits.simplify_at };
        let fits = |lines: u64, most: u64| (lines + target.keeps.lines()) as f64 <= most as f64 * share;
        !self.is_out_of_families(target)
            && !folds
            && fits(known.map_or(0, Family::lines), limits.max_series_per_family)
            && fits(self.lines(), limits.max_series)
            && self.evicted.is_none_or(|at| self.tick() > at + KEPT)
    }

    /// The series of a family that are not as they were; an overflow series that waits at zero is none.
    fn changed(&mut self, held: &BTreeMap<String, Numbers>, target: &Target, overflowed: bool) -> Vec<String> {
        let overflow = self.overflow(target);
        let (now, workers) = (self.tick(), self.workers);
        let mut nothing = BTreeMap::new();
        let series = self.families.get_mut(&target.family).map_or(&mut nothing, |family| &mut family.series);
        assert!(series.keys().all(|labels| held.contains_key(labels)), "{}: a series is gone", target.family);
        let mut changed = Vec::new();
        for (labels, numbers) in held {
            match series.get(labels) {
                Some(known) if known.at(&target.keeps, now) == *numbers => {}
                None if *labels == overflow && !overflowed && numbers.iter().all(|number| *number == 0.0) => {
                    series.insert(labels.clone(), Series::new(&target.keeps, workers, 0, true));
                }
                _ => changed.push(labels.clone()),
            }
        }
        // Of a family that is new it is added with the first.
        changed
    }

    fn add(
        &mut self,
        target: &Target,
        place: String,
        sent: &Sent,
        worker: usize,
        times: usize,
        held: &BTreeMap<String, Numbers>,
    ) {
        let (now, workers, terms) = (self.tick(), self.workers, self.terms());
        let overflowing = self.overflow(target);
        let overflow = place == overflowing;
        let is_new = self.families.get(&target.family).is_none_or(|family| !family.series.contains_key(&place));
        if is_new && !overflow {
            self.check_limits(target, &place);
        }
        let generation = self.generation;
        let family = self.families.entry(target.family.clone()).or_insert_with(|| Family {
            keeps: target.keeps.clone(),
            ttl: target.ttl,
            generation,
            series: BTreeMap::new(),
        });
        let made = if overflow { 0 } else { now };
        let series = family.series.entry(place).or_insert_with(|| Series::new(&target.keeps, workers, made, overflow));
        for _ in 0..times {
            series.add(&target.keeps, sent, target.scale, terms.absolute, worker, now);
        }
        (series.used, series.marked) = (now, None);
        // Made with the first series of the family, at zero.
        for labels in held.keys().filter(|labels| **labels == overflowing) {
            let new = || Series::new(&target.keeps, workers, 0, true);
            family.series.entry(labels.clone()).or_insert_with(new);
        }
        for (labels, series) in &family.series {
            assert_eq!(held.get(labels), Some(&series.at(&target.keeps, now)), "{}{{{labels}}}", target.family);
        }
    }

    /// What must hold where a series is made.
    fn check_limits(&self, target: &Target, place: &str) {
        let (terms, family) = (self.terms(), self.families.get(&target.family));
        let limits = &terms.config.cardinality;
        assert!(family.is_some() || self.families.len() < limits.max_families, "{}: a family too many", target.family);
        let lines = [family.map_or(0, Family::lines), self.lines()].map(|lines| lines + target.keeps.lines());
        let most = [limits.max_series_per_family, limits.max_series];
        for (lines, most) in lines.into_iter().zip(most) {
            assert!(lines <= most, "{}{{{place}}} is over a limit: {lines} of {most}", target.family);
            let places = target.places(&limits.keep_labels);
            let keeps_all = target.keeps != Keeps::Gauge && target.can_lose(&limits.keep_labels) && place == places[0];
            let near = most as f64 * limits.simplify_at;
            assert!(!keeps_all || lines as f64 <= near, "{}{{{place}}} is not simplified", target.family);
        }
        for (name, value) in target.open() {
            let has = place.split(',').any(|part| *part == format!("{name}=\"{value}\""));
            let full = family.is_some_and(|family| family.is_full(name, value, terms.config.labels.max_values));
            assert!(!has || !full, "{}{{{place}}}: {name} has too many values", target.family);
        }
    }

    /// Time passes, and the program looks at it, with the step of the sweep that is due.
    pub(super) fn sweep(&mut self, rig: &mut Rig, passed: Duration) {
        self.now += passed;
        rig.sweep(self.now);
        let (now, terms) = (self.tick(), self.terms());
        let limits = &terms.config.cardinality;
        let hidden = limits.zero_first.as_secs();
        self.shown_until = if hidden == 0 { u64::MAX } else { now.saturating_sub(hidden) };

        let mut gone = [0; 3];
        gone[ExpiryCause::Reload.index()] = self.retired[0];
        self.retired = [self.retired[1], 0];
        for (name, family) in &mut self.families {
            let held = if family.series.is_empty() { BTreeMap::new() } else { held_or_gone(rig, name, &family.keeps) };
            let before = family.series.len();
            family.series.retain(|labels, series| {
                let is_there = held.get(labels);
                match (series.marked, is_there) {
                    (Some(ExpiryCause::Idle), Some(_)) => panic!("{name}{{{labels}}} is idle and stays"),
                    (Some(cause), None) => gone[cause.index()] += 1,
                    (None, None) => panic!("{name}{{{labels}}} is gone"),
                    (_, Some(numbers)) => assert_eq!(*numbers, series.at(&family.keeps, now), "{name}{{{labels}}}"),
                }
                is_there.is_some()
            });
            assert_eq!(held.len(), family.series.len(), "{name}: of {before} series");
            let only_overflow = family.series.len() == 1;
            let ttl = family.ttl.unwrap_or(limits.idle_ttl.as_secs());
            for series in family.series.values_mut() {
                let idle = now.saturating_sub(series.used);
                series.marked = if series.overflow && !only_overflow {
                    None
                } else if ttl > 0 && idle >= ttl {
                    Some(ExpiryCause::Idle)
                } else if idle >= limits.evict_idle_after.as_secs() && now >= limits.evict_idle_after.as_secs() {
                    Some(ExpiryCause::Evicted)
                } else {
                    None
                };
            }
        }
        self.families.retain(|_, family| !family.series.is_empty());
        let counted = [0, 1, 2].map(|cause: usize| rig.books.expired[cause].load(Relaxed));
        assert_eq!([0, 1, 2].map(|cause: usize| counted[cause] - self.counted[cause]), gone, "idle, evicted, reload");
        self.counted = counted;
        if gone[ExpiryCause::Evicted.index()] > 0 {
            self.evicted = Some(now);
        }
        assert_eq!(rig.books.families.load(Relaxed), self.families.len() as u64);
        assert_eq!(rig.books.sample_lines.load(Relaxed), self.lines());
    }

    /// Nothing is written any more: all series go.
    pub(super) fn end(&mut self, rig: &mut Rig) {
        let forgets = TERMS.iter().position(|terms| !terms.config.cardinality.idle_ttl.is_zero());
        self.reload(rig, forgets.expect("one has a time to live"));
        // The first sweep marks, the next removes; an overflow series goes when it is the last.
        for _ in 0..5 {
            self.sweep(rig, Duration::from_secs(700));
        }
        assert!(self.families.is_empty(), "{:?}", self.families);
        assert_eq!(rig.text(Format::Text), "");
    }

    /// Compares all that the store holds.
    pub(super) fn check(&self, rig: &Rig) {
        let now = self.tick();
        for (name, family) in &self.families {
            let expected = family.series.iter().map(|(labels, series)| (labels.clone(), series.at(&family.keeps, now)));
            assert_eq!(held(rig, name, &family.keeps), expected.collect(), "{name}");
        }
        assert_eq!(rig.store.read().families().iter().flatten().count(), self.families.len());
    }

    /// Compares a scrape in full.
    pub(super) fn compare(&self, rig: &Rig) {
        let found = reader::read(&rig.text(Format::Text), Format::Text);
        found.check_histograms();
        let plain = |((name, mut labels), value): ((String, Labels), f64)| {
            if let Some(le) = labels.get_mut("le") {
                *le = le.parse::<f64>().expect("a bound").to_string();
            }
            ((name, labels), value)
        };
        let found: BTreeMap<_, _> =
            found.samples.into_iter().filter(|((_, labels), _)| !labels.contains_key("quantile")).map(plain).collect();
        let mut expected = BTreeMap::new();
        for (name, family) in &self.families {
            for (text, series) in &family.series {
                let parts = text.split(',').filter_map(|part| part.split_once('='));
                let labels: Labels =
                    parts.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
                let mut line = |suffix: &str, le: Option<f64>, value: f64| {
                    let mut labels = labels.clone();
                    labels.extend(le.map(|le| ("le".to_owned(), le.to_string())));
                    expected.insert((format!("{name}{suffix}"), labels), value);
                };
                let numbers = series.at(&family.keeps, self.tick());
                match &family.keeps {
                    Keeps::Counter if series.made > self.shown_until => line("", None, 0.0),
                    Keeps::Counter | Keeps::Gauge | Keeps::Members(_) => line("", None, numbers[0]),
                    Keeps::Buckets(bounds) => {
                        let mut count = 0.0;
                        for (bound, n) in bounds.iter().chain(&[f64::INFINITY]).zip(&numbers[1..]) {
                            count += n;
                            line("_bucket", Some(*bound), count);
                        }
                        line("_sum", None, numbers[0]);
                        line("_count", None, count);
                    }
                    Keeps::Quantiles(_) => {
                        line("_sum", None, numbers[0]);
                        line("_count", None, numbers[1]);
                    }
                }
            }
        }
        assert_eq!(found, expected, "a scrape");
    }
}

/// The same of a family that may have gone with its last series.
fn held_or_gone(rig: &Rig, name: &str, keeps: &Keeps) -> BTreeMap<String, Numbers> {
    if rig.store.read().has_family(name) { held(rig, name, keeps) } else { BTreeMap::new() }
}
