//! Families and their series: looks them up, makes them, removes them.
//!
//! In: a name, kind and labels that no identity is remembered for. Out: the place of its series, after as many rungs of
//! the cardinality ladder as the limits demand.
//! Not here: what a limit says (`admit`), numbers (`cells`), who may still remember a series (`grace`).
//! Always: what is counted in lines is what is there, and what is counted in bytes is what is held, room to grow and
//! places of series that went included; a family exists while it has a series.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::Budget;
use super::cells::{self, Cell, CellSpace};
use super::census::{LimitHits, TurnedAway};
use super::names::LabelNames;
use super::shape::Shape;
use super::values::LabelValues;
use super::{Place, Placed, Retry, Sight, Wanted};
use crate::admit::{Gate, Limit, Usage};
use crate::clock::Tick;
use crate::map::Kind;
use crate::map::labels::{LabelSet, escaped, rendered};
use crate::model::{DropReason, EVENTS, RESERVED_PREFIXES, SERVICE_CHECKS, SampleType, heap_bytes};

/// Whole names that user series must not take, beside those that begin with one of [`RESERVED_PREFIXES`].
const RESERVED_NAMES: [&str; 5] = ["up", "ALERTS", "ALERTS_FOR_STATE", EVENTS, SERVICE_CHECKS];

/// Names that observations are exposed under beside their own.
const OBSERVER_SUFFIXES: [&str; 3] = ["_sum", "_count", "_bucket"];

/// The place of the overflow series.
const OVERFLOW_PLACE: u32 = 0;
/// Places that a list has room for at first; one or table of no more entries is never made smaller.
const FEW: usize = 4;
/// Characters of a written name that a help text shows; with four bytes each and the words around them its length.
const SHOWN: usize = 256;
/// Most bytes of a family's help text.
pub const HELP_BYTES: usize = 4 * SHOWN + 32;

/// Families that ran into a limit are shown up to this number.
const MOST_LIMITED: usize = 20;

/// Everything there is.
#[derive(Debug, Default)]
pub(super) struct Tables {
    families: Vec<Option<Family>>,
    free: Vec<u32>,
    by_name: HashTable<u32>,
    /// The number of the family last asked for by name; another may have it by now.
    last_found: u32,
    pub(super) hasher: RandomState,
    sharded: CellSpace,
    shared: CellSpace,
    /// Shards that a number may be kept in.
    shards: u64,
    /// What sketches may grow by, and have grown.
    budget: Arc<Budget>,
    /// What all families hold.
    held: u64,
    serial: u64,
    pub(super) counts: Counts,
    /// Lines that identities seen twice would have needed since the last sweep.
    pub(super) wanted: WantedLines,
    /// Lines that gave way and are kept for those who asked, until this tick.
    pub(super) reserved_lines: u64,
    pub(super) reserved_until: Tick,
    /// The first families to run into a limit, and which.
    pub(super) limited: Vec<(Box<str>, Limit)>,
    /// How many of them the books know.
    pub(super) limited_told: std::cell::Cell<usize>,
    /// What each label was sent with.
    pub(super) names: LabelNames,
    /// When names found no place for a family.
    pub(super) turned_away: Option<TurnedAway>,
    /// Families that others have replaced, until every worker has forgotten their series.
    pub(super) retired: Vec<Family>,
    /// Some family has a time to live of its own.
    pub(super) any_ttl: bool,
}

/// Lines wanted, by the limit that was in the way: only what counts against the same limit can make room.
#[derive(Debug, Default)]
pub(super) struct WantedLines {
    /// Of any family.
    pub(super) of_all: u64,
    /// Of one family, by its number.
    pub(super) of_family: HashMap<u32, u64>,
    /// Bytes that the largest of those lacked who met `max_bytes`.
    pub(super) bytes: u64,
}

/// What is there, and what was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Lines of series that count against the limits; bytes of all series and families.
    pub(super) used: Usage,
    pub(super) families: u64,
    pub(super) created: u64,
    pub(super) simplified: u64,
    pub(super) folded: u64,
}

/// All series of one name.
#[derive(Debug)]
pub struct Family {
    serial: u64,
    name: Box<str>,
    help: Box<str>,
    shape: Shape,
    /// The first place is kept for the overflow series: it lives long and is made late, and at the end of the list it
    /// would keep all places before it.
    series: Vec<Option<Series>>,
    /// Other places without a series, the first to be taken next; some may be past the end.
    free: BinaryHeap<Reverse<u32>>,
    index: HashTable<u32>,
    /// What the label texts hold, bytes.
    texts: usize,
    lines: u64,
    overflow: Option<u32>,
    values: LabelValues,
    /// Whether `ms` samples went into it.
    timed: bool,
    /// Seconds that a series may be idle, 0 for ever; `None` leaves it to the limits.
    ttl: Option<Tick>,
    /// The rules that asked for it last, as far as a higher number is later.
    generation: u64,
    /// When it ran into each limit, for the first and for the last time.
    limited: [Option<(Tick, Tick)>; Limit::COUNT],
}

/// One label set of a family.
#[derive(Debug)]
pub struct Series {
    labels: Box<str>,
    pub(super) cell: Cell,
    /// The tick when it was made, as if it had been used then; 0 for an overflow series.
    pub(super) made: Tick,
    /// The sweep is about to remove it, unless it is used again.
    pub(super) doomed: bool,
}

/// Which series of which family; good as long as the family's serial number says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesId {
    pub(super) family: u32,
    pub(super) serial: u64,
    pub(super) place: u32,
}

impl Tables {
    pub(super) fn new(shards: usize, budget: Arc<Budget>) -> Self {
        Self { shards: shards as u64, budget, ..Self::default() }
    }

    /// All families, in places that never move; a place may be empty, and taken by another family later.
    pub(super) fn families(&self) -> &[Option<Family>] {
        &self.families
    }

    pub(super) fn family_mut(&mut self, number: u32, serial: u64) -> Option<&mut Family> {
        self.families.get_mut(number as usize)?.as_mut().filter(|family| family.serial == serial)
    }

    /// Finds the place of a series, or makes one as the ladder has it.
    pub(super) fn place(
        &mut self,
        wanted: &Wanted<'_>,
        labels: &mut LabelSet,
        text: &mut Vec<u8>,
        gate: &Gate,
    ) -> Result<Placed, DropReason> {
        let limits = &gate.limits;
        let kind = wanted.shape.kind();
        text.clear();
        labels.render(text);
        let known = self.find_again(wanted.name).filter(|number| !self.replaced(*number, wanted));
        if let Some(number) = known {
            let family = self.families[number as usize].as_mut().expect("it was found under the same lock");
            if family.kind() != kind {
                return Err(DropReason::TypeConflict);
            }
            family.timed |= wanted.sample == Some(SampleType::Timer);
            family.ttl = wanted.ttl;
            self.any_ttl |= wanted.ttl.is_some_and(|ttl| ttl > 0);
            if let Some(placed) = self.existing(number, text) {
                return Ok(placed);
            }
        } else if !matches!(wanted.sample, Some(SampleType::Event | SampleType::ServiceCheck))
            && self.clashes(wanted.name, kind)
        {
            return Err(DropReason::TypeConflict);
        } else if self.counts.families >= limits.max_families as u64 {
            self.turn_away(wanted);
            return Err(DropReason::Cardinality);
        }

        self.names.see(&self.hasher, labels, wanted.now);
        // Sketches have grown meanwhile, or the limit is another.
        self.budget.limit(limits.max_bytes);
        self.settle(0, 0);

        // First rung: a label that has had its values gets "other". It has no more of them than the family has series.
        let may_fold = |number: &u32| self.family(*number).index.len() >= limits.max_values;
        if let Some(number) = known.filter(may_fold) {
            let (family, hasher) = (self.family(number), &self.hasher);
            let mut buffer = Vec::new();
            let mut folds = |name: &[u8], value: &[u8]| {
                family.values.is_one_too_many(hasher, name, escaped(value, &mut buffer), limits.max_values)
            };
            let folded = labels.fold(&mut folds);
            if folded > 0 {
                self.note_limit(known, Limit::MaxValues, wanted.now);
                if kind == Kind::Gauge {
                    return Err(DropReason::Cardinality);
                }
                self.counts.folded += folded;
                text.clear();
                labels.render(text);
                if let Some(placed) = self.existing(number, text) {
                    return Ok(placed);
                }
            }
        }

        // Second rung: near a limit, or made too fast, a series keeps only labels that somebody answers for.
        let mut again = Retry::Never;
        let may_merge = kind != Kind::Gauge;
        let limit = may_merge.then(|| self.crowded(known, wanted, labels, text, gate)).flatten();
        if let Some(limit) = limit {
            self.note_limit(known, limit, wanted.now);
            again = if limit == Limit::NewSeriesPerSecond { Retry::NextSecond } else { Retry::NowAndThen };
            if labels.simplify(&limits.keep_labels) {
                self.counts.simplified += 1;
                text.clear();
                labels.render(text);
                if let Some(placed) = known.and_then(|number| self.existing(number, text)) {
                    return Ok(Placed { again, ..placed });
                }
            }
        }

        // Third rung: at a limit the family's overflow series takes what may be merged.
        let cost = self.cost(known, wanted, labels, text);
        let mut used = self.counts.used;
        if wanted.sight != Sight::Again {
            used.lines += self.reserved_lines;
        }
        let passed = limits.passed(cost, self.used(known), used);
        if let Some(limit) = passed {
            self.note_limit(known, limit, wanted.now);
            if !may_merge {
                return Err(DropReason::Cardinality);
            }
            // Idle series may give way to what was seen twice: it asks again each time the sweep has been.
            if wanted.sight != Sight::First {
                match known.filter(|_| limit == Limit::MaxSeriesPerFamily) {
                    Some(number) => *self.wanted.of_family.entry(number).or_default() += cost.lines,
                    None => self.wanted.of_all += cost.lines,
                }
                if limit == Limit::MaxBytes {
                    let lacking = (used.bytes + cost.bytes).saturating_sub(limits.max_bytes);
                    self.wanted.bytes = self.wanted.bytes.max(lacking);
                }
            }
            again = if wanted.sight == Sight::First { again } else { Retry::AfterSweep };
        } else if wanted.sight == Sight::Again {
            self.reserved_lines = self.reserved_lines.saturating_sub(cost.lines);
        }
        let number = known.unwrap_or_else(|| self.make_family(wanted));
        if passed.is_some() {
            let place = self.overflow(number, wanted.overflow_labels).ok_or(DropReason::Cardinality)?;
            return Ok(Placed { place, overflow: true, family: number, again });
        }
        let place = self.make_series(number, as_text(text), wanted.now, false).ok_or(DropReason::Cardinality)?;
        let neared = limits.neared(Usage { lines: 1, bytes: 0 }, self.used(Some(number)), self.counts.used);
        if may_merge && neared.is_some() {
            // Made at 0 before it is needed, so that `rate()` sees its first increment. Without a cell it waits.
            let _ = self.overflow(number, wanted.overflow_labels);
        }
        Ok(Placed { place, overflow: false, family: number, again })
    }

    /// Whether a family had to go, since rules that came into force after those that made it want other buckets or
    /// quantiles, or a histogram in place of a summary.
    ///
    /// Its name is free at once; its series go once every worker has forgotten them.
    fn replaced(&mut self, number: u32, wanted: &Wanted<'_>) -> bool {
        let Some(family) = self.families[number as usize].as_mut() else { return false };
        if wanted.generation <= family.generation {
            return false;
        }
        family.generation = wanted.generation;
        let (is, will_be) = (family.kind(), wanted.shape.kind());
        let is_same_type = is == will_be || (is.is_observer() && will_be.is_observer());
        if !is_same_type || family.shape == *wanted.shape {
            return false;
        }
        self.counts.families -= 1;
        self.counts.used.lines -= family.lines;
        let hash = self.hasher.hash_one(&*family.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.retired.extend(self.families[number as usize].take());
        self.free.push(number);
        true
    }

    /// Gives back what a family held that was replaced. The caller has cleared its cells, and nobody remembers them.
    pub(super) fn bury(&mut self, family: &Family) {
        let cells = family.shape.cells();
        for series in family.series.iter().flatten() {
            self.sharded.give_back(series.cell, cells);
        }
        self.settle(family.held(), 0);
    }

    /// Why a new series must be simplified, if it must.
    fn crowded(
        &self,
        known: Option<u32>,
        wanted: &Wanted<'_>,
        labels: &LabelSet,
        text: &[u8],
        gate: &Gate,
    ) -> Option<Limit> {
        let cost = self.cost(known, wanted, labels, text);
        let near = gate.limits.neared(cost, self.used(known), self.counts.used);
        near.or_else(|| (!gate.may_make_series()).then_some(Limit::NewSeriesPerSecond))
    }

    /// What a series with these rendered labels would cost, its family too if that is new.
    ///
    /// Bytes are what has to be there at the moment of making: a list or table that has to grow stands beside the old
    /// one for as long, so both are counted. Afterwards what is held is counted anew.
    fn cost(&self, known: Option<u32>, wanted: &Wanted<'_>, labels: &LabelSet, text: &[u8]) -> Usage {
        let (shape, room) = match known.map(|number| self.family(number)) {
            Some(family) => (&family.shape, family.room(labels.len())),
            None => {
                let help = wanted.help.map_or(wanted.written.len().min(4 * SHOWN) + HELP_BYTES - 4 * SHOWN, str::len);
                (wanted.shape, new_family_bytes(wanted.name.len(), help, labels.len()))
            }
        };
        let (space, shards) = match shape.kind() {
            Kind::Gauge => (&self.shared, 1),
            _ => (&self.sharded, self.shards),
        };
        let cells = space.growth(shape.cells(), shards);
        Usage { lines: shape.lines(), bytes: (room + heap_bytes(text.len())) as u64 + cells }
    }

    /// Counts bytes anew, after something changed in a family that held `before`.
    fn settle(&mut self, before: usize, after: usize) {
        self.held = self.held + after as u64 - before as u64;
        let beside = self.held + self.sharded.bytes(self.shards) + self.shared.bytes(1);
        self.budget.beside(beside);
        self.counts.used.bytes = beside + self.budget.arenas();
    }

    fn used(&self, known: Option<u32>) -> Usage {
        Usage { lines: known.map_or(0, |number| self.family(number).lines), bytes: 0 }
    }

    /// The place of a series that is there; one that was about to go stays.
    fn existing(&mut self, number: u32, labels: &[u8]) -> Option<Placed> {
        let Self { families, hasher, .. } = self;
        let family = families[number as usize].as_mut()?;
        let place = family.position(hasher, labels)?;
        let overflow = family.overflow == Some(place);
        family.series[place as usize].as_mut()?.doomed = false;
        Some(Placed { place: family.place(place), overflow, family: number, again: Retry::Never })
    }

    /// The place of the family's overflow series, made if need be. It counts in bytes, not in lines.
    fn overflow(&mut self, number: u32, labels: &str) -> Option<Place> {
        if let Some(place) = self.family(number).overflow {
            return Some(self.family(number).place(place));
        }
        // A user's own series of these very labels stays what it is, and takes what overflows.
        if let Some(placed) = self.existing(number, labels.as_bytes()) {
            return Some(placed.place);
        }
        let lines = self.counts.used.lines;
        let place = self.make_series(number, labels, 0, true)?;
        let family = self.families[number as usize].as_mut()?;
        family.lines -= self.counts.used.lines - lines;
        self.counts.used.lines = lines;
        family.overflow = Some(OVERFLOW_PLACE);
        Some(place)
    }

    fn make_family(&mut self, wanted: &Wanted<'_>) -> u32 {
        self.serial += 1;
        // The written name is cut, since what a legal name was made from may be much longer than it.
        let usual = || format!("Received as {:.SHOWN$} ({}).", wanted.written, wanted.shape.kind().word());
        let help = wanted.help.map_or_else(usual, str::to_owned);
        let family = Family {
            serial: self.serial,
            name: wanted.name.into(),
            help: help.into(),
            shape: wanted.shape.clone(),
            series: no_series(),
            free: BinaryHeap::new(),
            index: HashTable::new(),
            texts: 0,
            lines: 0,
            overflow: None,
            values: LabelValues::default(),
            timed: wanted.sample == Some(SampleType::Timer),
            ttl: wanted.ttl,
            generation: wanted.generation,
            limited: [None; Limit::COUNT],
        };
        self.any_ttl |= wanted.ttl.is_some_and(|ttl| ttl > 0);
        self.settle(0, family.held());
        self.counts.families += 1;
        let number = self.free.pop().unwrap_or_else(|| {
            make_room(&mut self.families);
            self.families.push(None);
            self.families.len() as u32 - 1
        });
        self.families[number as usize] = Some(family);
        let (families, hasher) = (&self.families, &self.hasher);
        let hash =
            |number: &u32| families[*number as usize].as_ref().map_or(0, |family| hasher.hash_one(&*family.name));
        self.by_name.insert_unique(hasher.hash_one(wanted.name), number, hash);
        number
    }

    /// Makes a series that is not there. `None` if four billion cells are in use.
    fn make_series(&mut self, number: u32, labels: &str, now: Tick, overflow: bool) -> Option<Place> {
        let Self { families, hasher, sharded, shared, counts, .. } = self;
        let family = families[number as usize].as_mut()?;
        let before = family.held();
        let space = if family.kind() == Kind::Gauge { shared } else { sharded };
        let cell = space.take(family.shape.cells())?;
        let place = family.add(hasher, Series { labels: labels.into(), cell, made: now, doomed: false }, overflow);
        let lines = family.shape.lines();
        family.lines += lines;
        counts.created += 1;
        counts.used.lines += lines;
        let (after, place) = (family.held(), family.place(place));
        self.settle(before, after);
        Some(place)
    }

    /// Removes a series, and its family if it was the last. The caller has cleared its cells, and nobody remembers it.
    /// Says whether the family went.
    pub(super) fn remove(&mut self, id: SeriesId) -> bool {
        let Self { families, hasher, sharded, shared, counts, .. } = self;
        let Some(family) = families.get_mut(id.family as usize).and_then(Option::as_mut) else { return false };
        let before = family.held();
        let Some(series) = family.take(hasher, id.place) else { return false };
        let space = if family.kind() == Kind::Gauge { shared } else { sharded };
        space.give_back(series.cell, family.shape.cells());
        if family.overflow == Some(id.place) {
            family.overflow = None;
        } else {
            let lines = family.shape.lines();
            family.lines -= lines;
            counts.used.lines -= lines;
        }
        if !family.index.is_empty() {
            let after = family.held();
            self.settle(before, after);
            return false;
        }
        counts.families -= 1;
        let hash = hasher.hash_one(&*family.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |number| *number == id.family) {
            entry.remove();
        }
        families[id.family as usize] = None;
        self.free.push(id.family);
        self.settle(before, 0);
        true
    }

    /// Notes that a family ran into a limit; a family that does not exist yet is noted once it does, if it does again.
    fn note_limit(&mut self, number: Option<u32>, limit: Limit, now: Tick) {
        let Some(family) = number.and_then(|number| self.families[number as usize].as_mut()) else { return };
        let hits = &mut family.limited[limit.index()];
        if let Some((_, last)) = hits {
            *last = now;
            return;
        }
        *hits = Some((now, now));
        let family = family.name.clone();
        let known = self.limited.iter().any(|(name, other)| *name == family && *other == limit);
        if !known && self.limited.len() < MOST_LIMITED {
            self.limited.push((family, limit));
        }
    }

    /// Notes a name that `cardinality.max_families` turned away; the latest is kept, a new one each second.
    #[cold]
    fn turn_away(&mut self, wanted: &Wanted<'_>) {
        match &mut self.turned_away {
            Some(away) if away.last == wanted.now => {}
            Some(away) => (away.last, away.name) = (wanted.now, wanted.name.to_owned()),
            none => *none = Some(TurnedAway { first: wanted.now, last: wanted.now, name: wanted.name.to_owned() }),
        }
    }

    fn family(&self, number: u32) -> &Family {
        self.families[number as usize].as_ref().expect("a number that was looked up under the same lock has its family")
    }

    /// The same as [`Tables::find`], at once if it is the family last found so: a flood is of one name as a rule.
    fn find_again(&mut self, name: &str) -> Option<u32> {
        let last = self.families.get(self.last_found as usize).and_then(Option::as_ref);
        if last.is_some_and(|family| *family.name == *name) {
            return Some(self.last_found);
        }
        let found = self.find(name)?;
        self.last_found = found;
        Some(found)
    }

    /// The number of the family of this name.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        let is_it = |number: &u32| self.families[*number as usize].as_ref().is_some_and(|family| *family.name == *name);
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// What the family of this name is.
    pub(super) fn kind_of(&self, name: &str) -> Option<Kind> {
        self.find(name).map(|number| self.family(number).kind())
    }

    /// Whether a new family of this name would share an exposed name with another, with us, or with Prometheus.
    pub(super) fn clashes(&self, name: &str, kind: Kind) -> bool {
        let reserved = RESERVED_NAMES.contains(&name) || RESERVED_PREFIXES.iter().any(|start| name.starts_with(start));
        let under_observer = OBSERVER_SUFFIXES
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(|base| self.kind_of(base).is_some_and(Kind::is_observer));
        let over_others = kind.is_observer()
            && OBSERVER_SUFFIXES.iter().any(|suffix| self.find(&format!("{name}{suffix}")).is_some());
        reserved || under_observer || over_others
    }
}

impl Family {
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
    pub fn series(&self) -> &[Option<Series>] {
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
    fn add(&mut self, hasher: &RandomState, series: Series, overflow: bool) -> u32 {
        let hash = hasher.hash_one(series.labels.as_bytes());
        self.texts += heap_bytes(series.labels.len());
        self.values.add(hasher, &series.labels);
        // The first free one, so that a family whose series come and go ends up short.
        let free = if overflow { Some(Reverse(OVERFLOW_PLACE)) } else { self.free.pop() };
        let place = match free {
            Some(Reverse(place)) if (place as usize) < self.series.len() => {
                self.series[place as usize] = Some(series);
                place
            }
            _ => {
                // If the first is past the end, all are: they would be taken a second time once the list is there.
                self.free.clear();
                make_room(&mut self.series);
                self.series.push(Some(series));
                self.series.len() as u32 - 1
            }
        };
        let list = &self.series;
        self.index.insert_unique(hash, place, |place| hash_at(hasher, list, *place));
        place
    }

    /// Takes a series out. Its place is free for another, and what is far too large without it is made smaller.
    fn take(&mut self, hasher: &RandomState, place: u32) -> Option<Series> {
        let series = self.series.get_mut(place as usize)?.take()?;
        let hash = hasher.hash_one(series.labels.as_bytes());
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.texts -= heap_bytes(series.labels.len());
        self.values.remove(hasher, &series.labels);
        if place != OVERFLOW_PLACE {
            self.free.push(Reverse(place));
        }
        while self.series.len() > 1 && matches!(self.series.last(), Some(None)) {
            self.series.pop();
        }
        let length = self.series.len();
        if length.max(FEW) * 4 < self.series.capacity() {
            self.series.shrink_to(2 * length);
        }
        if self.vacant().max(FEW) * 4 < self.free.capacity() {
            self.free.retain(|Reverse(place)| (*place as usize) < length);
            self.free.shrink_to(2 * self.free.len());
        }
        let list = &self.series;
        tidy(&mut self.index, |place| hash_at(hasher, list, *place));
        Some(series)
    }

    /// Places that are free for any series.
    fn vacant(&self) -> usize {
        self.series.len() - self.index.len() - usize::from(self.series[OVERFLOW_PLACE as usize].is_none())
    }

    /// What the family holds beside its cells, bytes.
    fn held(&self) -> usize {
        let lists = heap_bytes(self.series.capacity() * size_of::<Option<Series>>())
            + heap_bytes(self.free.capacity() * size_of::<u32>());
        let tables = heap_bytes(self.index.allocation_size()) + self.values.bytes();
        // Its name stands in the family and in the help.
        heap_bytes(self.name.len()) + heap_bytes(self.help.len()) + self.texts + lists + tables
    }

    /// Most bytes of new lists and tables that a further series of so many labels may need.
    fn room(&self, labels: usize) -> usize {
        let series = if self.series.len() == self.series.capacity() && self.vacant() == 0 {
            list_bytes::<Series>(self.series.len())
        } else {
            0
        };
        series + table_room(&self.index, 1) + self.values.room(labels)
    }

    fn position(&self, hasher: &RandomState, labels: &[u8]) -> Option<u32> {
        let is_it = |place: &u32| {
            self.series[*place as usize].as_ref().is_some_and(|series| series.labels.as_bytes() == labels)
        };
        self.index.find(hasher.hash_one(labels), is_it).copied()
    }

    /// Where the values of all its series go.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        (0..self.series.len() as u32)
            .filter(|place| self.series[*place as usize].is_some())
            .map(|place| self.place(place))
    }

    /// Where the values of the series at `place` go.
    pub(super) fn place(&self, place: u32) -> Place {
        let cell = self.series[place as usize].as_ref().expect("only places with a series are asked for").cell;
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
    /// The labels as they stand between the braces; empty if there are none.
    pub fn labels(&self) -> &str {
        &self.labels
    }
}

/// What a new family holds, with its first series but without that one's text and cells.
fn new_family_bytes(name: usize, help: usize, labels: usize) -> usize {
    let nothing: HashTable<u32> = HashTable::new();
    let lists = list_bytes::<Series>(0);
    let tables = table_room(&nothing, 1) + LabelValues::default().room(labels);
    heap_bytes(name) + heap_bytes(help) + lists + tables
}

/// Most bytes that `max_families` families hold outside of `max_bytes`, each with its overflow series: of names of
/// `name` bytes, the `labels` of an overflow series as text, and `cells` cells in `shards` shards.
pub(super) fn most_outside(max_families: usize, name: usize, labels: &str, cells: usize, shards: usize) -> u64 {
    // Its place in the list of families, which grows by a fourth and stands beside the old one then, and in the list of
    // free ones, which doubles; and in the tables of names and of lines wanted, which are 7/16 full when they have just
    // doubled, beside the old ones.
    let place = 9 * size_of::<Option<Family>>() / 4 + 3 * size_of::<u32>() + (5 + 17) * 24 / 7 + 1;
    let own = new_family_bytes(name, HELP_BYTES, rendered(labels).count()) + heap_bytes(labels.len());
    (max_families as u64)
        .saturating_mul((place + own) as u64)
        .saturating_add(cells::most_bytes(max_families as u64, cells, shards as u64))
        // The last chunk of gauges, whatever is used of it.
        .saturating_add(cells::most_bytes(0, 1, 1))
}

/// The places of a family that has no series yet.
fn no_series() -> Vec<Option<Series>> {
    let mut series = Vec::new();
    make_room(&mut series);
    series.push(None);
    series
}

/// Makes room for one more, a fourth more at a time: a list that is twice as long as need be wastes too much.
fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(FEW));
    }
}

/// Bytes of a list that [`make_room`] makes for more than `length`.
fn list_bytes<T>(length: usize) -> usize {
    heap_bytes((length + (length / 4).max(FEW)) * size_of::<Option<T>>())
}

/// Most bytes of the new table that `more` further entries may need; 0 if there is room.
pub(super) fn table_room<T>(table: &HashTable<T>, more: usize) -> usize {
    if table.len() + more <= table.capacity() {
        return 0;
    }
    // Seven of eight places may be taken, and their number is a power of two; to each belongs a byte, and 16 follow.
    let places = ((table.len() + more) * 8).div_ceil(7).next_power_of_two();
    heap_bytes((places * (size_of::<T>() + 1) + 32).max(2 * table.allocation_size()))
}

/// Makes a table smaller that is less than an eighth full.
pub(super) fn tidy<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.allocation_size() > (size_of::<T>() + 1) * table.len().max(FEW) * 8 {
        table.shrink_to(2 * table.len(), hash);
    }
}

fn hash_at(hasher: &RandomState, series: &[Option<Series>], place: u32) -> u64 {
    series[place as usize].as_ref().map_or(0, |series| hasher.hash_one(series.labels.as_bytes()))
}

/// Rendered labels as text: they are made from names and values that were checked to be UTF-8.
fn as_text(rendered: &[u8]) -> &str {
    std::str::from_utf8(rendered).expect("labels are rendered from UTF-8")
}
