//! Holds the series: makes them, adds samples to them, lets a scrape read them.
//!
//! In: a name, kind and label text when an identity is new ([`Store::place`]); values afterwards ([`Recorder`]). Out:
//! families and their numbers ([`Store::read`]).
//! Not here: names and labels (`map`), the limits' meaning (`admit`), text (`expose`).
//! Always: a recorded sample is in the next scrape; a histogram's count is the sum of its buckets; no sum is ever
//! infinite; recording into a known series takes no lock.

pub mod bounds;
pub mod cells;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use std::hash::BuildHasher;

use crate::admit::{Admission, Limits};
use crate::map::Kind;
use crate::model::DropReason;
use crate::telemetry::SeriesBooks;
use bounds::Bounds;
use cells::{Cell, CellSpace, Shard, ShardReader, ShardWriter};

/// The largest size of a number in one cell: sixteen million of them (shards times buckets) still have a finite sum.
const MOST: f64 = f64::MAX / 16_777_216.0;

/// Whether a series without samples would take this one, which stands for `weight` events.
///
/// # Errors
/// What [`Recorder::record`] would say.
pub fn admits(kind: Kind, value: f64, weight: f64) -> Result<(), DropReason> {
    let fits = (value * weight).abs() <= MOST;
    match kind {
        Kind::Counter if value < 0.0 => Err(DropReason::NegativeCounter),
        Kind::Counter if !fits => Err(DropReason::NotFinite),
        Kind::Histogram if !fits || weight > MOST => Err(DropReason::NotFinite),
        _ => Ok(()),
    }
}

/// Name of the label that marks a family's overflow series.
pub const OVERFLOW_LABEL: &str = "overflow";

/// Names, or their beginnings, that user series must not take: ours, the scraper's, and what Prometheus makes itself.
const RESERVED_PREFIXES: [&str; 3] = ["statsieve_", "process_", "scrape_"];
const RESERVED_NAMES: [&str; 5] =
    ["up", "ALERTS", "ALERTS_FOR_STATE", "statsd_events_total", "statsd_service_check_status"];

/// Names that a histogram exposes beside its own.
const OBSERVER_SUFFIXES: [&str; 3] = ["_sum", "_count", "_bucket"];

/// Where the values of one series go; what the identity cache remembers.
#[derive(Clone, Debug)]
pub enum Place {
    /// A sum in the worker's own shard.
    Counter(Cell),
    /// A number shared by all workers.
    Gauge(Cell),
    /// Bucket counts, then the sum, in the worker's own shard.
    Histogram(Cell, Arc<Bounds>),
}

impl Kind {
    /// Sample lines that one series costs.
    pub fn lines(self, bounds: &Bounds) -> u64 {
        if self == Self::Histogram { bounds.lines() } else { 1 }
    }
}

/// A place found, and whether it is an overflow series'.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where values go.
    pub place: Place,
    /// The series is the family's overflow series, since a limit was reached.
    pub overflow: bool,
    /// The number of its family, the same for all of the family's series.
    pub family: u32,
}

/// What a new identity asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Family name, legal.
    pub name: &'a str,
    /// The name as the client wrote it, for the family's help text.
    pub written: &'a str,
    /// What the family is.
    pub kind: Kind,
    /// Bounds, if this makes a histogram family.
    pub bounds: &'a Arc<Bounds>,
    /// Rendered labels, see `map::labels`.
    pub labels: &'a str,
    /// Rendered labels of the overflow series.
    pub overflow_labels: &'a str,
}

/// All series of the process.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    shards: Vec<Arc<Shard>>,
    gauges: Arc<Shard>,
    books: Arc<SeriesBooks>,
}

#[derive(Debug, Default)]
struct Inner {
    families: Vec<Family>,
    by_name: HashTable<u32>,
    hasher: RandomState,
    sharded: CellSpace,
    shared: CellSpace,
    /// Sample lines of all series that count against the limits.
    lines: u64,
    created: u64,
}

/// All series of one name.
#[derive(Debug)]
pub struct Family {
    name: Box<str>,
    help: Box<str>,
    kind: Kind,
    bounds: Arc<Bounds>,
    series: Vec<Series>,
    index: HashTable<u32>,
    lines: u64,
    overflow: Option<u32>,
}

/// One label set of a family.
#[derive(Debug)]
pub struct Series {
    labels: Box<str>,
    cell: Cell,
}

impl Store {
    /// An empty store with a shard for each of `workers`.
    pub fn new(workers: usize, books: Arc<SeriesBooks>) -> Self {
        let shards = (0..workers).map(|_| Arc::default()).collect();
        Self { inner: Mutex::default(), shards, gauges: Arc::default(), books }
    }

    /// What worker number `worker` records with. One recorder for each worker, or sums go wrong.
    pub fn recorder(&self, worker: usize) -> Recorder {
        Recorder { shard: ShardWriter::new(self.shards[worker].clone()), gauges: ShardWriter::new(self.gauges.clone()) }
    }

    /// Finds the place of a series, and makes it if limits allow.
    ///
    /// Takes the store's lock for a look-up or an insertion.
    ///
    /// # Errors
    /// `TypeConflict` if the name is reserved, taken by another kind, or clashes with a histogram's `_sum`, `_count` or
    /// `_bucket`; `Cardinality` past the limit on families, or at a limit where nothing may be merged.
    pub fn place(&self, wanted: Wanted<'_>, limits: &Limits) -> Result<Placed, DropReason> {
        let mut inner = self.lock();
        let placed = inner.place(wanted, limits);
        self.books.sample_lines.store(inner.lines, Relaxed);
        self.books.families.store(inner.families.len() as u64, Relaxed);
        self.books.created.store(inner.created, Relaxed);
        placed
    }

    /// Locks the store for reading; new series wait meanwhile, samples of known ones do not.
    pub fn read(&self) -> Reader<'_> {
        Reader {
            inner: self.lock(),
            shards: self.shards.iter().map(|shard| shard.read()).collect(),
            gauges: self.gauges.read(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below leaves the tables whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn place(&mut self, wanted: Wanted<'_>, limits: &Limits) -> Result<Placed, DropReason> {
        let number = self.family(wanted, limits)?;
        let Self { families, hasher, sharded, shared, lines, created, .. } = self;
        let family = &mut families[number as usize];
        let hash = hasher.hash_one(wanted.labels);
        let found = family.index.find(hash, |place| *family.series[*place as usize].labels == *wanted.labels);
        if let Some(place) = found {
            let overflow = family.overflow == Some(*place);
            return Ok(Placed { place: family.place(*place), overflow, family: number });
        }
        let cost = family.kind.lines(&family.bounds);
        let (labels, overflow) = match limits.admit(family.kind, cost, family.lines, *lines) {
            Admission::Full => (wanted.labels, false),
            Admission::Refused => return Err(DropReason::Cardinality),
            Admission::Overflow => match family.overflow {
                Some(place) => return Ok(Placed { place: family.place(place), overflow: true, family: number }),
                None => (wanted.overflow_labels, true),
            },
        };
        let space = if family.kind == Kind::Gauge { shared } else { sharded };
        let cell = space.take(family.cells()).ok_or(DropReason::Cardinality)?;
        let place = family.insert(labels, cell, hasher);
        *created += 1;
        if overflow {
            family.overflow = Some(place);
        } else {
            family.lines += cost;
            *lines += cost;
        }
        Ok(Placed { place: family.place(place), overflow, family: number })
    }

    /// The number of the family, made if it may be.
    fn family(&mut self, wanted: Wanted<'_>, limits: &Limits) -> Result<u32, DropReason> {
        let hash = self.hasher.hash_one(wanted.name);
        if let Some(number) = self.find(wanted.name) {
            let kind = self.families[number as usize].kind;
            return if kind == wanted.kind { Ok(number) } else { Err(DropReason::TypeConflict) };
        }
        if self.clashes(wanted.name, wanted.kind) {
            return Err(DropReason::TypeConflict);
        }
        // A family is made with a series in it or not at all, so a refused gauge leaves nothing behind.
        let cost = wanted.kind.lines(wanted.bounds);
        let refused = limits.admit(wanted.kind, cost, 0, self.lines) == Admission::Refused;
        if refused || self.families.len() >= limits.max_families {
            return Err(DropReason::Cardinality);
        }
        let number = self.families.len() as u32;
        self.families.push(Family {
            name: wanted.name.into(),
            // Cut, since what a legal name was made from may be much longer than it.
            help: format!("Received as {:.256} ({}).", wanted.written, wanted.kind.word()).into(),
            kind: wanted.kind,
            bounds: wanted.bounds.clone(),
            series: Vec::new(),
            index: HashTable::new(),
            lines: 0,
            overflow: None,
        });
        let (families, hasher) = (&self.families, &self.hasher);
        self.by_name.insert_unique(hash, number, |number| hasher.hash_one(&*families[*number as usize].name));
        Ok(number)
    }

    fn find(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.by_name.find(hash, |number| *self.families[*number as usize].name == *name).copied()
    }

    /// Whether a new family of this name would share an exposed name with another, with us, or with Prometheus.
    fn clashes(&self, name: &str, kind: Kind) -> bool {
        let reserved = RESERVED_NAMES.contains(&name) || RESERVED_PREFIXES.iter().any(|start| name.starts_with(start));
        let under_observer = OBSERVER_SUFFIXES
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(|base| self.find(base).is_some_and(|number| self.families[number as usize].kind == Kind::Histogram));
        let over_others = kind == Kind::Histogram
            && OBSERVER_SUFFIXES.iter().any(|suffix| self.find(&format!("{name}{suffix}")).is_some());
        reserved || under_observer || over_others
    }
}

impl Family {
    /// The name, as exposed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the family is for, unescaped.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// What the family is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A histogram's bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Its series, in the order they were made.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Cells that one series needs.
    fn cells(&self) -> usize {
        if self.kind == Kind::Histogram { self.bounds.buckets() + 1 } else { 1 }
    }

    fn place(&self, place: u32) -> Place {
        let cell = self.series[place as usize].cell;
        match self.kind {
            Kind::Counter => Place::Counter(cell),
            Kind::Gauge => Place::Gauge(cell),
            Kind::Histogram => Place::Histogram(cell, self.bounds.clone()),
        }
    }

    /// Adds a series, or finds the one that has these labels already (a user's own `overflow="true"`).
    fn insert(&mut self, labels: &str, cell: Cell, hasher: &RandomState) -> u32 {
        let series = &mut self.series;
        let found = self.index.entry(
            hasher.hash_one(labels),
            |place| *series[*place as usize].labels == *labels,
            |place| hasher.hash_one(&*series[*place as usize].labels),
        );
        match found {
            Slot::Occupied(slot) => *slot.get(),
            Slot::Vacant(slot) => {
                let place = series.len() as u32;
                slot.insert(place);
                series.push(Series { labels: labels.into(), cell });
                place
            }
        }
    }
}

impl Series {
    /// The labels as they stand between the braces; empty if there are none.
    pub fn labels(&self) -> &str {
        &self.labels
    }
}

/// Reads families and their numbers while it holds the store's lock.
#[derive(Debug)]
pub struct Reader<'a> {
    inner: MutexGuard<'a, Inner>,
    shards: Vec<ShardReader<'a>>,
    gauges: ShardReader<'a>,
}

impl Reader<'_> {
    /// All families, in the order they were made; the order never changes while the process lives.
    pub fn families(&self) -> &[Family] {
        &self.inner.families
    }

    /// Whether a family of this name exists.
    pub fn has_family(&self, name: &str) -> bool {
        self.inner.find(name).is_some()
    }

    /// Whether a histogram of this name exists.
    pub fn has_histogram(&self, name: &str) -> bool {
        self.inner.find(name).is_some_and(|number| self.families()[number as usize].kind == Kind::Histogram)
    }

    /// Whether this name is one that a histogram exposes beside its own, or reserved.
    pub fn is_taken(&self, name: &str) -> bool {
        self.inner.clashes(name, Kind::Counter)
    }

    /// The value of a counter or gauge.
    #[inline]
    pub fn value(&self, kind: Kind, series: &Series) -> f64 {
        match kind {
            Kind::Gauge => self.gauges.get(series.cell),
            _ => self.sum(series.cell),
        }
    }

    /// The observation counts of a histogram by bucket, not cumulative, into `counts`; returns the sum of values.
    pub fn histogram(&self, bounds: &Bounds, series: &Series, counts: &mut Vec<f64>) -> f64 {
        counts.clear();
        counts.extend((0..bounds.buckets()).map(|place| self.sum(series.cell.plus(place))));
        self.sum(series.cell.plus(bounds.buckets()))
    }

    #[inline]
    fn sum(&self, cell: Cell) -> f64 {
        self.shards.iter().map(|shard| shard.get(cell)).sum()
    }
}

/// Adds samples to series; owned by one worker.
#[derive(Debug)]
pub struct Recorder {
    shard: ShardWriter,
    gauges: ShardWriter,
}

impl Recorder {
    /// Records one value that stands for `weight` events. `relative` makes a gauge change by it.
    ///
    /// # Errors
    /// `NegativeCounter`, or `NotFinite` if a sum would leave the range of a double; nothing is changed then.
    #[inline]
    pub fn record(&mut self, place: &Place, value: f64, weight: f64, relative: bool) -> Result<(), DropReason> {
        let fits = match place {
            Place::Counter(_) if value < 0.0 => return Err(DropReason::NegativeCounter),
            Place::Counter(cell) => self.shard.add(*cell, value * weight, MOST),
            Place::Gauge(cell) if relative => self.gauges.add_shared(*cell, value),
            Place::Gauge(cell) => {
                self.gauges.set(*cell, value);
                true
            }
            Place::Histogram(cell, bounds) => {
                // Either both numbers move or none: the count is looked at first and written last.
                let count = cell.plus(bounds.place(value));
                let weighed = self.shard.get(count) + weight;
                weighed <= MOST && self.shard.add(cell.plus(bounds.buckets()), value * weight, MOST) && {
                    self.shard.set(count, weighed);
                    true
                }
            }
        };
        if fits { Ok(()) } else { Err(DropReason::NotFinite) }
    }
}

#[cfg(test)]
mod tests;
