//! All series of one name: the list of them, and the tables that find them.
//!
//! In: rendered labels of a series that comes or goes. Out: its place, which never moves while it lives.
//! Not here: which series there may be (`tables`, `admit`), their numbers (`cells`).
//! Always: what a family says that it holds is what it holds, room to grow and places of series that went included; a
//! list or table that is far too large for what is in it is made smaller.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::cells::Cell;
use super::census::LimitHits;
use super::index::{Index, half, spread};
use super::list::{FEW, List};
use super::shape::Shape;
use super::values::LabelValues;
use super::{Place, Wanted};
use crate::admit::Limit;
use crate::clock::Tick;
use crate::map::Kind;
use crate::model::{SampleType, heap_bytes};

/// The place of the overflow series.
pub(super) const OVERFLOW_PLACE: u32 = 0;
/// Characters of a written name that a help text shows; with four bytes each and the words around them its length.
pub(super) const SHOWN: usize = 256;
/// Most bytes of a family's help text.
pub const HELP_BYTES: usize = 4 * SHOWN + 32;

/// All series of one name.
#[derive(Debug)]
pub struct Family {
    pub(super) serial: u64,
    pub(super) name: Box<str>,
    help: Box<str>,
    pub(super) shape: Shape,
    /// The first place is kept for the overflow series: it lives long and is made late, and at the end of the list it
    /// would keep all places before it.
    pub(super) series: List<Option<Series>>,
    /// Other places without a series, the first to be taken next; some may be past the end.
    free: BinaryHeap<Reverse<u32>>,
    pub(super) index: Index<u32>,
    /// What the label texts hold, bytes.
    texts: usize,
    pub(super) lines: u64,
    pub(super) overflow: Option<u32>,
    pub(super) values: LabelValues,
    /// Whether `ms` samples went into it.
    pub(super) timed: bool,
    /// Seconds that a series may be idle, 0 for ever; `None` leaves it to the limits.
    pub(super) ttl: Option<Tick>,
    /// The rules that asked for it last, as far as a higher number is later.
    pub(super) generation: u64,
    /// When it ran into each limit, for the first and for the last time.
    pub(super) limited: [Option<(Tick, Tick)>; Limit::COUNT],
}

/// One label set of a family.
#[derive(Debug)]
pub struct Series {
    labels: Box<str>,
    pub(super) cell: Cell,
    /// Half the hash of the labels, so that nobody reads them to move an entry of the index.
    hash: u32,
    /// [`Series::made`], in half the bits.
    made: u32,
    /// The sweep is about to remove it, unless it is used again.
    pub(super) doomed: bool,
    pub(super) declared: Declared,
}

/// Whether a series is declared, and so never goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declared {
    /// It never was.
    Never,
    /// It is.
    Now,
    /// It was. It counts as used when the declaration went.
    Once,
}

impl Family {
    /// One without series, as the first of them asks for it.
    pub(super) fn new(serial: u64, wanted: &Wanted<'_>) -> Self {
        // The written name is cut, since what a legal name was made from may be much longer than it.
        let usual = || format!("Received as {:.SHOWN$} ({}).", wanted.written, wanted.shape.kind().word());
        let help = wanted.help.map_or_else(usual, str::to_owned);
        Self {
            serial,
            name: wanted.name.into(),
            help: help.into(),
            shape: wanted.shape.clone(),
            series: no_series(),
            free: BinaryHeap::new(),
            index: Index::default(),
            texts: 0,
            lines: 0,
            overflow: None,
            values: LabelValues::default(),
            timed: wanted.sample == Some(SampleType::Timer),
            ttl: wanted.ttl,
            generation: wanted.generation,
            limited: [None; Limit::COUNT],
        }
    }

    /// Tells this family from all others there ever were.
    pub fn serial(&self) -> u64 {
        self.serial
    }

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
        self.shape.kind()
    }

    /// What its series keep.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its series, in places that never move while they live; a place may be empty, and taken by another series later.
    pub fn series(&self) -> &List<Option<Series>> {
        &self.series
    }

    pub(super) fn series_mut(&mut self, place: u32) -> Option<&mut Series> {
        self.series.get_mut(place as usize)?.as_mut()
    }

    /// Sample lines that count against the limits.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// How many series it has, the overflow series among them.
    pub(super) fn len(&self) -> u64 {
        self.index.len() as u64
    }

    /// Seconds that its series may be idle, 0 for ever.
    pub(super) fn ttl(&self, default: Tick) -> Tick {
        self.ttl.unwrap_or(default)
    }

    /// Whether `ms` samples went into it.
    pub(super) fn is_timed(&self) -> bool {
        self.timed
    }

    /// Whether it has an overflow series.
    pub(super) fn has_overflow(&self) -> bool {
        self.overflow.is_some()
    }

    /// How many values the label has whose name has this hash.
    pub(super) fn label_values(&self, label: u64) -> u64 {
        self.values.count(label)
    }

    /// The limits it ran into, and when.
    pub(super) fn limit_hits(&self) -> impl Iterator<Item = LimitHits> {
        let hits = |(limit, hits): (&Limit, &Option<(Tick, Tick)>)| {
            hits.map(|(first, last)| LimitHits { limit: *limit, first, last })
        };
        Limit::ALL.iter().zip(&self.limited).filter_map(hits)
    }

    /// Whether nothing but the overflow series is left.
    pub(super) fn is_overflow_only(&self) -> bool {
        self.overflow.is_some() && self.index.len() == 1
    }

    /// Whether this is the place of the overflow series.
    pub(super) fn is_overflow(&self, place: u32) -> bool {
        self.overflow == Some(place)
    }

    /// Puts a series into the first place that is free, and says which.
    pub(super) fn add(&mut self, hasher: &RandomState, series: Series, overflow: bool) -> u32 {
        let hash = spread(series.hash);
        self.texts += heap_bytes(series.labels.len());
        self.values.add(hasher, &series.labels);
        // The first free one, so that a family whose series come and go ends up short.
        let free = if overflow { Some(Reverse(OVERFLOW_PLACE)) } else { self.free.pop() };
        let taken = free.and_then(|Reverse(place)| Some((place, self.series.get_mut(place as usize)?)));
        let place = match taken {
            Some((place, free)) => {
                *free = Some(series);
                place
            }
            None => {
                // If the first is past the end, all are: they would be taken a second time once the list is there.
                self.free.clear();
                self.series.push(Some(series));
                self.series.len() as u32 - 1
            }
        };
        let list = &self.series;
        self.index.insert(hash, place, |place| hash_at(list, *place));
        place
    }

    /// Takes a series out. Its place is free for another, and what is far too large without it is made smaller.
    pub(super) fn take(&mut self, hasher: &RandomState, place: u32) -> Option<Series> {
        let series = self.series.get_mut(place as usize)?.take()?;
        let list = &self.series;
        self.index.remove(spread(series.hash), |other| *other == place, |place| hash_at(list, *place));
        self.texts -= heap_bytes(series.labels.len());
        self.values.remove(hasher, &series.labels);
        if place != OVERFLOW_PLACE {
            self.free.push(Reverse(place));
        }
        while self.series.len() > 1 && matches!(self.series.last(), Some(None)) {
            self.series.pop();
        }
        if self.vacant().max(FEW) * 4 < self.free.capacity() {
            let length = self.series.len();
            self.free.retain(|Reverse(place)| (*place as usize) < length);
            self.free.shrink_to(2 * self.free.len());
        }
        Some(series)
    }

    /// Places that are free for any series.
    fn vacant(&self) -> usize {
        let overflow_is_free = matches!(self.series.get(OVERFLOW_PLACE as usize), Some(None));
        self.series.len() - self.index.len() - usize::from(overflow_is_free)
    }

    /// What the family holds beside its cells, bytes.
    pub(super) fn held(&self) -> usize {
        let lists = self.series.bytes() + heap_bytes(self.free.capacity() * size_of::<u32>());
        let tables = self.index.bytes() + self.values.bytes();
        // Its name stands in the family and in the help.
        heap_bytes(self.name.len()) + heap_bytes(self.help.len()) + self.texts + lists + tables
    }

    /// Most bytes of new lists and tables that a further series of so many labels may need.
    pub(super) fn room(&self, labels: usize) -> usize {
        let series = if self.vacant() == 0 { self.series.room() } else { 0 };
        series + self.index.room(1) + self.values.room(labels)
    }

    pub(super) fn position(&self, hasher: &RandomState, labels: &[u8]) -> Option<u32> {
        let hash = half_hash(hasher, labels);
        let is_it = |place: &u32| {
            let series = self.series.get(*place as usize).and_then(Option::as_ref);
            series.is_some_and(|series| series.hash == hash && series.labels.as_bytes() == labels)
        };
        self.index.find(spread(hash), is_it).copied()
    }

    /// Where the values of all its series go.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        (0..).zip(self.series.iter()).filter(|(_, series)| series.is_some()).map(|(place, _)| self.place(place))
    }

    /// Where the values of the series at `place` go.
    pub(super) fn place(&self, place: u32) -> Place {
        let series = self.series.get(place as usize).and_then(Option::as_ref);
        let cell = series.expect("only places with a series are asked for").cell;
        match &self.shape {
            Shape::Counter => Place::Counter(cell),
            Shape::Gauge => Place::Gauge(cell),
            Shape::Histogram(histogram) => Place::Histogram(cell, histogram.clone()),
            Shape::Summary(summary) => Place::Summary(cell, summary.clone()),
            Shape::Set(set) => Place::Set(cell, set.clone()),
        }
    }
}

impl Series {
    /// One that is made at tick `made` and keeps its numbers at `cell`.
    pub(super) fn new(hasher: &RandomState, labels: &str, cell: Cell, made: Tick) -> Self {
        let hash = half_hash(hasher, labels.as_bytes());
        Self {
            labels: labels.into(),
            cell,
            hash,
            made: u32::try_from(made).unwrap_or(u32::MAX),
            doomed: false,
            declared: Declared::Never,
        }
    }

    /// The labels as they stand between the braces; empty if there are none.
    pub fn labels(&self) -> &str {
        &self.labels
    }

    /// The tick when it was made, as if it had been used then; 0 for an overflow series, [`Tick::MAX`] for one that was made
    /// since it is declared.
    pub(super) fn made(&self) -> Tick {
        // Seconds since the start: it takes a century until they are too many.
        if self.made == u32::MAX { Tick::MAX } else { self.made.into() }
    }
}

/// What a new family holds, with its first series but without that one's text and cells.
pub(super) fn new_family_bytes(name: usize, help: usize, labels: usize) -> usize {
    // The place of the overflow series and that of the first: what the list has room for at first is more than both.
    let list = List::<Option<Series>>::default().room();
    let tables = Index::<u32>::default().room(1) + LabelValues::default().room(labels);
    heap_bytes(name) + heap_bytes(help) + list + tables
}

/// The places of a family that has no series yet.
fn no_series() -> List<Option<Series>> {
    let mut series = List::default();
    series.push(None);
    series
}

/// As much of the hash of rendered labels as a series keeps.
fn half_hash(hasher: &RandomState, labels: &[u8]) -> u32 {
    half(hasher.hash_one(labels))
}

fn hash_at(series: &List<Option<Series>>, place: u32) -> u64 {
    series.get(place as usize).and_then(Option::as_ref).map_or(0, |series| spread(series.hash))
}
