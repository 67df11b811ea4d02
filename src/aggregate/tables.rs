//! Which families and series there are: looks them up, makes them as far as the limits allow, removes them.
//!
//! In: a name, kind and labels that no identity is remembered for. Out: the place of its series, after as many rungs of
//! the cardinality ladder as the limits demand.
//! Not here: what a limit says (`admit`), lists (`family`), numbers (`cells`), who may still remember a series
//! (`grace`).
//! Always: what is counted in lines is what is there, and what is counted in bytes is what is held, room to grow and
//! places of series that went included; a family exists while it has a series.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::Budget;
use super::cells::{self, CellSpace};
use super::census::TurnedAway;
use super::family::{Declared, Family, HELP_BYTES, OVERFLOW_PLACE, SHOWN, Series, new_family_bytes};
use super::list::FEW;
use super::names::LabelNames;
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
    /// Series that are declared.
    declared: BTreeSet<SeriesId>,
    /// Some are declared no longer, since the last sweep.
    pub(super) released: bool,
    /// When the last of those were found.
    pub(super) released_at: Tick,
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

    /// Which series of a family has these rendered labels.
    pub(super) fn series_id(&self, number: u32, labels: &[u8]) -> Option<SeriesId> {
        let family = self.families[number as usize].as_ref()?;
        let place = family.position(&self.hasher, labels)?;
        Some(SeriesId { family: number, serial: family.serial(), place })
    }

    /// These are declared from now on, and no others.
    pub(super) fn keep(&mut self, declared: BTreeSet<SeriesId>) {
        let before = std::mem::take(&mut self.declared);
        for id in before.difference(&declared) {
            let family = self.family_mut(id.family, id.serial);
            if let Some(series) = family.and_then(|family| family.series_mut(id.place)) {
                series.declared = Declared::Once;
                self.released = true;
            }
        }
        for id in &declared {
            let family = self.family_mut(id.family, id.serial);
            if let Some(series) = family.and_then(|family| family.series_mut(id.place)) {
                series.declared = Declared::Now;
                series.doomed = false;
            }
        }
        self.declared = declared;
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
        let (is, will_be) = (family.kind(), wanted.shape.kind());
        let is_same_type = is == will_be || (is.is_observer() && will_be.is_observer());
        // A sample of another type is refused, and says nothing of what this family should be.
        if !is_same_type {
            return false;
        }
        family.generation = wanted.generation;
        if family.shape == *wanted.shape {
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
        family.series_mut(place)?.doomed = false;
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
        let family = Family::new(self.serial, wanted);
        self.any_ttl |= wanted.ttl.is_some_and(|ttl| ttl > 0);
        self.settle(0, family.held());
        self.counts.families += 1;
        let number = self.free.pop().unwrap_or_else(|| {
            // A fourth more at a time: a list that is twice as long as need be wastes too much.
            if self.families.len() == self.families.capacity() {
                self.families.reserve_exact((self.families.len() / 4).max(FEW));
            }
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
        let place = family.add(hasher, Series::new(hasher, labels, cell, now), overflow);
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

/// Rendered labels as text: they are made from names and values that were checked to be UTF-8.
fn as_text(rendered: &[u8]) -> &str {
    std::str::from_utf8(rendered).expect("labels are rendered from UTF-8")
}
