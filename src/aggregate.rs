//! Holds the series: makes them, adds samples to them, lets a scrape read them.
//!
//! In: a name, kind and labels when an identity is new ([`Store::place`]); values afterwards ([`Recorder`]); the time
//! ([`Store::sweep`]). Out: families and their numbers ([`Store::read`]).
//! Not here: names and labels (`map`), the limits' meaning (`admit`), text (`expose`).
//! Always: a recorded sample is in the next scrape; a histogram's count is the sum of its buckets, classic or native;
//! no sum is ever infinite; recording into a known series takes no lock, but for a sketch that has to grow.

mod arena;
pub mod bounds;
pub mod cells;
pub mod census;
mod family;
pub mod grace;
mod index;
pub mod list;
mod names;
pub mod shape;
pub mod sketch;
mod sweep;
mod tables;
mod values;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::admit::Gate;
use crate::clock::Tick;
use crate::insight::distinct;
use crate::map::Kind;
use crate::map::labels::LabelSet;
use crate::model::{DropReason, SampleType};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering::Relaxed, yield_now};
use crate::telemetry::SeriesBooks;
use arena::{Arena, ArenaWriter, Budget};
use cells::{Cell, Shard, ShardReader, ShardWriter};
pub use family::{Family, HELP_BYTES, Series};
use grace::{Grace, Passage};
use shape::{Histogram, Set, Shape, Summary};
use sketch::bins::Merged;
use sketch::{Ring, steady};
use sweep::Sweep;
use tables::{SeriesId, Tables};

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
        Kind::Histogram | Kind::Summary if !fits || weight > MOST => Err(DropReason::NotFinite),
        _ => Ok(()),
    }
}

/// Most bytes that `families` families hold which were made past `max_bytes`: names of up to `name` bytes, and an
/// overflow series of each, with `overflow_labels` as text and `cells` cells in the shards of `workers`. What sketches
/// grow into is never outside.
pub fn most_bytes_outside(families: usize, name: usize, overflow_labels: &str, cells: usize, workers: usize) -> u64 {
    tables::most_outside(families, name, overflow_labels, cells, workers)
}

/// Name of the label that marks a family's overflow series.
pub const OVERFLOW_LABEL: &str = "overflow";

/// Where the values of one series go; what the identity cache remembers.
#[derive(Clone, Debug)]
pub enum Place {
    /// A sum in the worker's own shard.
    Counter(Cell),
    /// A number shared by all workers.
    Gauge(Cell),
    /// Buckets and a sum in the worker's own shard.
    Histogram(Cell, Arc<Histogram>),
    /// A count, a sum and quantiles in the worker's own shard.
    Summary(Cell, Arc<Summary>),
    /// Members in the worker's own shard.
    Set(Cell, Arc<Set>),
}

/// A place found.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where values go.
    pub place: Place,
    /// The series is the family's overflow series, since a limit was reached.
    pub overflow: bool,
    /// The number of its family, the same for all of the family's series.
    pub family: u32,
    /// Whether to ask again.
    pub again: Retry,
}

/// Whether an identity that had to give way should ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// What it has, it keeps.
    Never,
    /// It came too fast; a second later there may be room.
    NextSecond,
    /// Idle series may have given way once the sweep has been.
    AfterSweep,
    /// What is in the way may be gone one day.
    NowAndThen,
}

/// How often an identity was seen before it asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Never, or long ago: it may be one of a kind, and nothing gives way to it.
    First,
    /// Lately: idle series may give way to it.
    Second,
    /// It asked at its second sight, and asks again.
    Again,
}

/// What a new identity asks for, beside its labels.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Family name, legal.
    pub name: &'a str,
    /// The name as the client wrote it, for the family's help text.
    pub written: &'a str,
    /// The help text of a mapping rule, if this makes a family.
    pub help: Option<&'a str>,
    /// What the family is, and what its series keep if this makes it.
    pub shape: &'a Shape,
    /// What kind of sample asks; `None` for a series that is declared.
    pub sample: Option<SampleType>,
    /// Seconds that a series of the family may be idle, 0 for ever; `None` leaves it to `cardinality.idle_ttl`.
    pub ttl: Option<Tick>,
    /// Which rules ask; later ones have a higher number, and may make a family anew.
    pub generation: u64,
    /// Rendered labels of the overflow series.
    pub overflow_labels: &'a str,
    /// How often it was seen.
    pub sight: Sight,
    /// The time now.
    pub now: Tick,
}

/// The series that are declared.
#[derive(Debug, Default)]
pub struct Declaration(BTreeSet<SeriesId>);

/// All series of the process.
#[derive(Debug)]
pub struct Store {
    tables: Mutex<Tables>,
    /// How many workers wait for the tables.
    waiting: AtomicUsize,
    shards: Vec<Arc<Shard>>,
    gauges: Arc<Shard>,
    /// For each shard what its sketches grow into.
    arenas: Vec<Arc<Arena>>,
    grace: Arc<Grace>,
    sweep: Mutex<Sweep>,
    /// The time as the last sweep or scrape knew it, by which windows are read.
    now: AtomicU64,
    /// Told when something begins after all rested.
    stirred: Notify,
    /// Counters made after this tick are shown as 0 yet; [`Tick::MAX`] shows all as they are.
    shown_until: AtomicU64,
    /// `http.created_lines`.
    shows_created: AtomicBool,
    books: Arc<SeriesBooks>,
    /// When ticks began, since 1970.
    started: Duration,
}

impl Store {
    /// An empty store with a shard for each of `workers`.
    pub fn new(workers: usize, books: Arc<SeriesBooks>) -> Self {
        let budget = Arc::new(Budget::default());
        Self {
            tables: Mutex::new(Tables::new(workers, budget.clone())),
            waiting: AtomicUsize::new(0),
            shards: (0..workers).map(|_| Arc::default()).collect(),
            gauges: Arc::default(),
            arenas: (0..workers).map(|_| Arc::new(Arena::new(budget.clone()))).collect(),
            grace: Arc::new(Grace::new(workers)),
            sweep: Mutex::default(),
            now: AtomicU64::new(0),
            stirred: Notify::new(),
            shown_until: AtomicU64::new(Tick::MAX),
            shows_created: AtomicBool::new(false),
            books,
            started: Duration::ZERO,
        }
    }

    /// Ticks began so long after 1970, which is how a scrape tells when a series was made.
    pub fn started_at(self, started: Duration) -> Self {
        Self { started, ..self }
    }

    /// Says whether OpenMetrics is to tell when series were made.
    pub fn show_created(&self, shown: bool) {
        self.shows_created.store(shown, Relaxed);
    }

    /// What worker number `worker` records with. One recorder for each worker, or sums go wrong.
    pub fn recorder(&self, worker: usize) -> Recorder {
        Recorder {
            shard: ShardWriter::new(self.shards[worker].clone()),
            gauges: ShardWriter::new(self.gauges.clone()),
            arena: ArenaWriter::new(self.arenas[worker].clone()),
            now: 0,
        }
    }

    /// Worker number `worker`'s side of taking series away; it enters before each batch and leaves behind it.
    pub fn passage(&self, worker: usize) -> Passage {
        Passage::new(self.grace.clone(), worker)
    }

    /// Finds the place of a series, and makes one as far as the limits allow.
    ///
    /// A limit may fold or take out some of `labels`, which are sorted; `text` is a buffer for their rendering, and
    /// holds that of the labels kept in the end. Takes the store's lock for a look-up or an insertion.
    ///
    /// # Errors
    /// `TypeConflict` if the name is reserved, taken by another kind, or clashes with the `_sum`, `_count` or `_bucket`
    /// of observations; `Cardinality` past the limit on families, or at a limit where nothing may be merged.
    pub fn place(
        &self,
        wanted: Wanted<'_>,
        labels: &mut LabelSet,
        text: &mut Vec<u8>,
        gate: &Gate,
    ) -> Result<Placed, DropReason> {
        let mut tables = self.lock_soon();
        let placed = tables.place(&wanted, labels, text, gate);
        self.publish(&tables);
        placed
    }

    /// Finds or makes a series as [`Store::place`] does, and adds it to `declared` unless it is an overflow series.
    ///
    /// # Errors
    /// As [`Store::place`].
    pub fn declare(
        &self,
        wanted: Wanted<'_>,
        labels: &mut LabelSet,
        text: &mut Vec<u8>,
        gate: &Gate,
        declared: &mut Declaration,
    ) -> Result<Placed, DropReason> {
        let mut tables = self.lock_soon();
        let placed = tables.place(&wanted, labels, text, gate);
        if let Ok(Placed { overflow: false, family, .. }) = &placed {
            declared.0.extend(tables.series_id(*family, text));
        }
        self.publish(&tables);
        placed
    }

    /// Has the series of `declared` stay whatever happens, and those of a declaration before no longer: they may go when
    /// nothing was recorded for a while, from now on.
    pub fn keep(&self, declared: Declaration) {
        self.lock().keep(declared.0);
    }

    /// Whether a new series waits for the lock.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Locks the store for reading; new series wait meanwhile, samples of known ones do not.
    pub fn read(&self) -> Reader<'_> {
        Reader {
            tables: self.lock(),
            shards: self.shards.iter().map(|shard| shard.read()).collect(),
            gauges: self.gauges.read(),
            arenas: self.arenas.iter().map(|arena| arena.read()).collect(),
            now: self.now.load(Relaxed),
            shown_until: self.shown_until.load(Relaxed),
            shows_created: self.shows_created.load(Relaxed),
            started: self.started,
        }
    }

    fn publish(&self, tables: &Tables) {
        let counts = &tables.counts;
        self.books.sample_lines.store(counts.used.lines, Relaxed);
        self.books.bytes.store(counts.used.bytes, Relaxed);
        self.books.families.store(counts.families, Relaxed);
        self.books.created.store(counts.created, Relaxed);
        self.books.simplified.store(counts.simplified, Relaxed);
        self.books.folded.store(counts.folded, Relaxed);
        if tables.limited.len() > tables.limited_told.get() {
            tables.limited_told.set(tables.limited.len());
            self.books.limited.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&tables.limited);
        }
    }

    /// Locks the tables for a new series.
    ///
    /// A scrape takes the lock again and again, some 20 us each time and as long in between: who went to sleep at once
    /// would wake up into the next of them.
    fn lock_soon(&self) -> MutexGuard<'_, Tables> {
        const TRIES: usize = 256;
        if let Some(tables) = self.try_lock() {
            return tables;
        }
        self.waiting.fetch_add(1, Relaxed);
        let soon = (0..TRIES).find_map(|_| {
            yield_now();
            self.try_lock()
        });
        let tables = soon.unwrap_or_else(|| self.lock());
        self.waiting.fetch_sub(1, Relaxed);
        tables
    }

    /// The lock if nobody has it.
    fn try_lock(&self) -> Option<MutexGuard<'_, Tables>> {
        match self.tables.try_lock() {
            Ok(tables) => Some(tables),
            Err(TryLockError::Poisoned(tables)) => Some(tables.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Every change leaves the tables whole before anything can panic.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads families and their numbers while it holds the store's lock.
#[derive(Debug)]
pub struct Reader<'a> {
    tables: MutexGuard<'a, Tables>,
    shards: Vec<ShardReader<'a>>,
    gauges: ShardReader<'a>,
    arenas: Vec<ShardReader<'a>>,
    now: Tick,
    shown_until: Tick,
    shows_created: bool,
    started: Duration,
}

impl Reader<'_> {
    /// All families, in places that never move; a place may be empty, and taken by another family later.
    pub fn families(&self) -> &[Option<Family>] {
        self.tables.families()
    }

    /// Whether a family of this name exists.
    pub fn has_family(&self, name: &str) -> bool {
        self.tables.find(name).is_some()
    }

    /// Whether a histogram or summary of this name exists.
    pub fn has_observer(&self, name: &str) -> bool {
        self.tables.kind_of(name).is_some_and(Kind::is_observer)
    }

    /// Whether this name is one that observations are exposed under beside their own, or reserved.
    pub fn is_taken(&self, name: &str) -> bool {
        self.tables.clashes(name, Kind::Counter)
    }

    /// Whether OpenMetrics tells when series were made.
    pub fn shows_created(&self) -> bool {
        self.shows_created
    }

    /// When a series was made, since 1970, to the second and never later than it was; the start of the process for one
    /// that belongs to no moment, as it is declared or the overflow series.
    pub fn made(&self, series: &Series) -> Duration {
        match series.made() {
            0 | Tick::MAX => self.started,
            tick => self.started + Duration::from_secs(tick - 1),
        }
    }

    /// The value of a counter or gauge.
    #[inline]
    pub fn value(&self, kind: Kind, series: &Series) -> f64 {
        match kind {
            Kind::Gauge => self.gauges.get(series.cell.plus(1)),
            _ => self.sum(series.cell.plus(1)),
        }
    }

    /// The value of a counter as it is shown: 0 for a while once it is made, if `cardinality.zero_first` says so.
    #[inline]
    pub fn shown(&self, kind: Kind, series: &Series) -> f64 {
        let is_new = kind == Kind::Counter && series.made() > self.shown_until && series.made() != Tick::MAX;
        if is_new { 0.0 } else { self.value(kind, series) }
    }

    /// The observation counts of a histogram by classic bucket, not cumulative, into `counts`; returns the sum of
    /// values.
    pub fn histogram(&self, histogram: &Histogram, series: &Series, counts: &mut Vec<f64>) -> f64 {
        counts.clear();
        counts.resize(histogram.bounds.buckets(), 0.0);
        let mut sum = 0.0;
        for shard in &self.shards {
            let Some(cells) = shard.run(series.cell.plus(1), histogram.sum()) else { continue };
            let (last, buckets) = cells.split_last().expect("the sum is behind the buckets");
            let add = |(count, cell): (&mut f64, &AtomicU64)| *count += f64::from_bits(cell.load(Relaxed));
            counts.iter_mut().zip(buckets).for_each(add);
            sum += f64::from_bits(last.load(Relaxed));
        }
        sum
    }

    /// The native buckets of a histogram into `merged`; none if it has no such.
    ///
    /// To be asked for before [`Reader::histogram`], whose counts then hold all that these do, and perhaps more.
    pub fn native(&self, histogram: &Histogram, series: &Series, merged: &mut Merged) {
        merged.clear();
        let Some(layout) = &histogram.native else { return };
        let sketch = series.cell.plus(histogram.version());
        for (shard, arena) in self.shards.iter().zip(&self.arenas) {
            let Some([version, slot @ ..]) = shard.run(sketch, 1 + layout.slot()) else { continue };
            merged.add(layout, |bins| {
                steady(version, || {
                    bins.clear();
                    layout.copy(slot, arena, bins)
                })
            });
        }
    }

    /// What a summary observed within its window into `merged`; returns the count and the sum of all values.
    pub fn summary(&self, summary: &Summary, series: &Series, merged: &mut Merged) -> (f64, f64) {
        merged.clear();
        let cells = Summary::RING - Summary::VERSION + Ring::cells(summary.layout.slot());
        for (shard, arena) in self.shards.iter().zip(&self.arenas) {
            let sketches = shard.run(series.cell.plus(Summary::VERSION), cells);
            let Some([version, ring @ ..]) = sketches else { continue };
            for (number, slot) in Ring::slices(ring) {
                merged.add(&summary.layout, |bins| {
                    steady(version, || {
                        bins.clear();
                        let live = summary.ring.is_live(number.load(Relaxed), self.now);
                        if live { summary.layout.copy(slot, arena, bins) } else { 0 }
                    })
                });
            }
        }
        (self.sum(series.cell.plus(Summary::COUNT)), self.sum(series.cell.plus(Summary::SUM)))
    }

    /// How many different members a set had within its window, to the nearest whole number; the standard error is
    /// 1.04 / sqrt(registers).
    pub fn members(&self, set: &Set, series: &Series) -> f64 {
        let (mut registers, mut members) = (vec![0; set.layout.registers], Vec::new());
        for (shard, arena) in self.shards.iter().zip(&self.arenas) {
            let cells = Set::RING - Set::VERSION + Ring::cells(sketch::members::SLOT);
            let Some([version, ring @ ..]) = shard.run(series.cell.plus(Set::VERSION), cells) else { continue };
            for (number, slot) in Ring::slices(ring) {
                steady(version, || {
                    members.clear();
                    if set.ring.is_live(number.load(Relaxed), self.now) {
                        set.layout.copy(slot, arena, &mut members);
                    }
                });
                for (register, rank) in &members {
                    registers[*register] = (*rank).max(registers[*register]);
                }
            }
        }
        distinct::estimate(&registers).round()
    }

    #[inline]
    fn sum(&self, cell: Cell) -> f64 {
        self.shards.iter().map(|shard| shard.get(cell)).sum()
    }

    fn series(&self, id: SeriesId) -> Option<&Series> {
        self.families().get(id.family as usize)?.as_ref()?.series().get(id.place as usize)?.as_ref()
    }

    /// The sum of all that is in the cells of a series, as if they were whole numbers: another once anything is
    /// recorded.
    fn sum_of_cells(&self, shape: &Shape, series: &Series) -> u64 {
        let n = shape.cells();
        let add = |sum: u64, cell: &AtomicU64| sum.rotate_left(1).wrapping_add(cell.load(Relaxed));
        let of = |shard: &ShardReader<'_>| shard.run(series.cell, n).unwrap_or_default().iter().fold(0, add);
        if shape.kind() == Kind::Gauge {
            return of(&self.gauges);
        }
        self.shards.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// The tick of the last sample of a series, or of its making.
    fn last_used(&self, kind: Kind, series: &Series) -> Tick {
        let used = match kind {
            Kind::Gauge => self.gauges.tick(series.cell),
            _ => self.shards.iter().map(|shard| shard.tick(series.cell)).max().unwrap_or(0),
        };
        // One that was made since it was declared has no such time.
        used.max(Some(series.made()).filter(|made| *made != Tick::MAX).unwrap_or(0))
    }
}

/// Adds samples to series; owned by one worker.
#[derive(Debug)]
pub struct Recorder {
    shard: ShardWriter,
    gauges: ShardWriter,
    arena: ArenaWriter,
    now: Tick,
}

impl Recorder {
    /// The time from here on; for the series, that of their last use.
    pub fn set_time(&mut self, now: Tick) {
        self.now = now;
    }

    /// A word of the cells of a series: for who wants to have them near.
    #[inline]
    pub fn glance(&mut self, place: &Place) -> u64 {
        match place {
            Place::Counter(cell) | Place::Histogram(cell, _) => self.shard.get(*cell).to_bits(),
            Place::Gauge(cell) => self.gauges.get(*cell).to_bits(),
            _ => 0,
        }
    }

    /// Records one value that stands for `weight` events. `relative` makes a gauge change by it.
    ///
    /// # Errors
    /// `NegativeCounter`, or `NotFinite` if a sum would leave the range of a double; nothing is changed then.
    #[inline]
    pub fn record(&mut self, place: &Place, value: f64, weight: f64, relative: bool) -> Result<(), DropReason> {
        let fits = match place {
            Place::Counter(_) if value < 0.0 => return Err(DropReason::NegativeCounter),
            Place::Counter(cell) => {
                self.shard.touch(*cell, self.now);
                self.shard.add(cell.plus(1), value * weight, MOST)
            }
            Place::Gauge(cell) => {
                self.gauges.touch(*cell, self.now);
                if relative {
                    self.gauges.add_shared(cell.plus(1), value)
                } else {
                    self.gauges.set(cell.plus(1), value);
                    true
                }
            }
            Place::Histogram(cell, histogram) => {
                self.shard.touch(*cell, self.now);
                // Either all numbers move or none: the count is looked at first and written last.
                let count = cell.plus(1 + histogram.bounds.place(value));
                let weighed = self.shard.get(count) + weight;
                weighed <= MOST && self.shard.add(cell.plus(histogram.sum()), value * weight, MOST) && {
                    self.shard.set(count, weighed);
                    if let Some(layout) = &histogram.native
                        && let [version, slot @ ..] = self.shard.run(cell.plus(histogram.version()), 1 + layout.slot())
                    {
                        layout.add(version, slot, &mut self.arena, value, weight);
                    }
                    true
                }
            }
            Place::Summary(cell, summary) => {
                self.shard.touch(*cell, self.now);
                let count = cell.plus(Summary::COUNT);
                let weighed = self.shard.get(count) + weight;
                weighed <= MOST && self.shard.add(cell.plus(Summary::SUM), value * weight, MOST) && {
                    self.shard.set(count, weighed);
                    let cells = Summary::RING - Summary::VERSION + Ring::cells(summary.layout.slot());
                    if let [version, ring @ ..] = self.shard.run(cell.plus(Summary::VERSION), cells) {
                        let (layout, arena) = (&summary.layout, &mut self.arena);
                        let slot = summary.ring.current(version, ring, self.now, |slot| layout.clear(slot, arena));
                        layout.add(version, slot, arena, value, weight);
                    }
                    true
                }
            }
            // Its values are text.
            Place::Set(..) => return Err(DropReason::MalformedValue),
        };
        if fits { Ok(()) } else { Err(DropReason::NotFinite) }
    }

    /// Records a member of a set by its hash.
    ///
    /// # Errors
    /// `Cardinality` if it would be one more than there is room for; `MalformedValue` if the place is no set's.
    pub fn record_member(&mut self, place: &Place, hash: u64) -> Result<(), DropReason> {
        let Place::Set(cell, set) = place else { return Err(DropReason::MalformedValue) };
        self.shard.touch(*cell, self.now);
        let cells = Set::RING - Set::VERSION + Ring::cells(sketch::members::SLOT);
        let [version, ring @ ..] = self.shard.run(cell.plus(Set::VERSION), cells) else {
            unreachable!("of that length")
        };
        let (layout, arena) = (set.layout, &mut self.arena);
        let slot = set.ring.current(version, ring, self.now, |slot| layout.clear(slot, arena));
        if layout.add(version, slot, arena, hash) { Ok(()) } else { Err(DropReason::Cardinality) }
    }
}

#[cfg(test)]
mod tests;
