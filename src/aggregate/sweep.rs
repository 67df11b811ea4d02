//! Removes series that are idle: too long, or while others wait for their place; and those that a reload replaced.
//!
//! In: the time, once a second, and what second sights would have needed. Out: series removed, the longest idle first.
//! Always: no sample is lost: a series is marked, every worker forgets it, and only one that was not used meanwhile
//! goes; its cells are zero before anyone gets them again. A lock is held for a few thousand series at a time.

use std::collections::BinaryHeap;
use std::sync::PoisonError;

use super::cells::Cell;
use super::family::Declared;
use super::grace::Doomed;
use super::shape::Shape;
use super::tables::SeriesId;
use super::{Family, Reader, Series, Store};
use crate::admit::Limits;
use crate::clock::Tick;
use crate::map::Kind;
use crate::sync::Ordering::Relaxed;
use crate::telemetry::ExpiryCause;

/// Series that go in one sweep, at most.
const MOST: usize = 4096;
/// Series looked at under one lock.
const CHUNK: usize = 16_384;
/// Seconds for which room is kept for those who asked for it; they ask again within four.
const RESERVED: Tick = 5;
/// Series removed under one lock.
const REMOVED: usize = 128;
/// Series looked at in a second for their time to live; of more, each is looked at every few seconds.
const LOOKED_AT: usize = 131_072;

/// What the sweep remembers from one second to the next.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Marked series.
    pending: Vec<Marked>,
    /// Families that others have replaced, and that workers are to forget.
    retired: Vec<Family>,
    /// Where the search for series past their time goes on.
    cursor: Cursor,
    /// When the process last went on after it did not run for a while; 0 if it always ran.
    resumed: Tick,
}

/// A family and one of its series, by their places.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    family: usize,
    series: usize,
}

/// A series that was marked.
#[derive(Clone, Copy, Debug)]
struct Marked {
    id: SeriesId,
    /// Its last use, and the sum of its cells: a batch that takes seconds records under the time of its beginning.
    used: (Tick, u64),
    cause: ExpiryCause,
}

/// A series that could go: those idle longest are the least.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    last_used: Tick,
    id: SeriesId,
    lines: u64,
    cause: ExpiryCause,
}

impl Store {
    /// Takes the next step; to be called about once a second.
    ///
    /// Removes what was marked before, once every worker has forgotten it, and marks as many idle series as others have
    /// asked for since, and those past their time to live. Reads all series only if somebody asked, or there is such a
    /// time.
    pub fn sweep(&self, now: Tick, limits: &Limits) {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(now, limits);
        if !self.grace.is_passed() {
            return;
        }
        let retired = {
            let mut tables = self.lock();
            if now >= tables.reserved_until {
                tables.reserved_lines = 0;
            }
            std::mem::take(&mut tables.retired)
        };
        std::mem::replace(&mut sweep.retired, retired).iter().for_each(|family| self.bury(family));
        let pending = std::mem::take(&mut sweep.pending);
        // Reduced without a shortcut: each part is to be removed.
        let names = pending.chunks(REMOVED).fold(false, |names, part| self.remove(part, now) | names);
        let resumed = sweep.resumed;
        let chosen = self.candidates(now, resumed, limits, &mut sweep.cursor);
        let mut doomed = self.mark(chosen, &mut sweep.pending);
        doomed.names = names;
        sweep.retired.iter().flat_map(Family::places).for_each(|place| doomed.add(&place));
        if !doomed.is_empty() {
            self.grace.begin(doomed);
        }
    }

    /// The process did not run until `now`: it was stopped, or starved. Nobody could scrape meanwhile, so no series was idle
    /// before this.
    pub fn resumed(&self, now: Tick) {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner).resumed = now;
    }

    /// Whether there is nothing to sweep until something is recorded, and nobody records: who waits for
    /// [`Store::stirred`] then, misses nothing.
    pub fn rests(&self, limits: &Limits) -> bool {
        let sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.grace.watch() || !sweep.pending.is_empty() || !sweep.retired.is_empty() {
            return false;
        }
        let tables = self.lock();
        let expires = (tables.any_ttl || !limits.idle_ttl.is_zero()) && tables.counts.families > 0;
        let is_wanted = tables.wanted.of_all > 0 || !tables.wanted.of_family.is_empty() || tables.reserved_lines > 0;
        !expires && !is_wanted && tables.retired.is_empty()
    }

    /// Whether nothing was begun since [`Store::rests`] was last asked.
    pub fn is_watched(&self) -> bool {
        self.grace.is_watched()
    }

    /// Waits until a worker begins a batch that found all at rest, or somebody calls [`Store::stir`].
    pub async fn stirred(&self) {
        while self.grace.is_watched() {
            self.stirred.notified().await;
        }
    }

    /// Ends the rest: of what a worker begins, or since the rules have changed.
    pub fn stir(&self) {
        self.grace.end_watch();
        self.stirred.notify_one();
    }

    /// Tells the time, by which windows end and new counters are shown as they are: each sweep does, and who reads
    /// when there was none for a while.
    pub fn show(&self, now: Tick, limits: &Limits) {
        self.now.store(now, Relaxed);
        let hidden = limits.zero_first.as_secs();
        let until = if hidden == 0 { Tick::MAX } else { now.saturating_sub(hidden) };
        self.shown_until.store(until, Relaxed);
    }

    /// Clears the cells of a family that was replaced, and gives back what it held.
    fn bury(&self, family: &Family) {
        let mut reader = self.read();
        let mut gone = 0;
        for series in family.series().iter().flatten() {
            self.empty(&reader, family.shape(), series.cell);
            gone += 1;
        }
        reader.tables.bury(family);
        self.books.expired[ExpiryCause::Reload.index()].fetch_add(gone, Relaxed);
        self.publish(&reader.tables);
    }

    /// Clears the cells of a series that every worker has forgotten, and gives back what its sketches hold.
    fn empty(&self, reader: &Reader<'_>, shape: &Shape, cell: Cell) {
        let n = shape.cells();
        if shape.kind() == Kind::Gauge {
            return reader.gauges.clear(cell, n);
        }
        for (shard, arena) in reader.shards.iter().zip(&self.arenas) {
            if let Some(cells) = shard.run(cell, n) {
                shape.give_back(cells, arena);
                shard.clear(cell, n);
            }
        }
    }

    /// Removes marked series that were not used since; says whether a family went with its last.
    fn remove(&self, pending: &[Marked], now: Tick) -> bool {
        let mut names = false;
        let mut reader = self.read();
        for Marked { id, used, cause } in pending.iter().copied() {
            let Some(family) = reader.tables.family_mut(id.family, id.serial) else { continue };
            let shape = family.shape().clone();
            let Some(series) = family.series_mut(id.place).filter(|series| series.doomed) else { continue };
            series.doomed = false;
            let cell = series.cell;
            let unused = reader.series(id).is_some_and(|series| {
                (reader.last_used(shape.kind(), series), reader.sum_of_cells(&shape, series)) == used
            });
            if unused {
                self.empty(&reader, &shape, cell);
                let lines = reader.tables.counts.used.lines;
                names |= reader.tables.remove(id);
                if cause == ExpiryCause::Evicted {
                    reader.tables.reserved_lines += lines - reader.tables.counts.used.lines;
                    reader.tables.reserved_until = now + RESERVED;
                }
                self.books.expired[cause.index()].fetch_add(1, Relaxed);
            }
        }
        self.publish(&reader.tables);
        names
    }

    /// Series past their time to live, and of the others those idle longest, as many as make room for what was asked
    /// for. All count as used at `resumed`; declared ones stay.
    fn candidates(&self, now: Tick, resumed: Tick, limits: &Limits, cursor: &mut Cursor) -> Vec<Candidate> {
        let (mut wanted, any_ttl) = {
            let mut tables = self.lock();
            if std::mem::take(&mut tables.released) {
                tables.released_at = now;
            }
            let mut wanted = std::mem::take(&mut tables.wanted);
            // What lacks bytes is given as many lines as hold them on average.
            let used = tables.counts.used;
            let lines = u128::from(wanted.bytes) * u128::from(used.lines) / u128::from(used.bytes.max(1));
            wanted.of_all = wanted.of_all.max(lines as u64);
            (wanted, tables.any_ttl || !limits.idle_ttl.is_zero())
        };
        let any = wanted.of_all > 0 || !wanted.of_family.is_empty();
        let latest = now.checked_sub(limits.evict_idle_after.as_secs()).filter(|_| any);
        let (mut at, most) = match latest {
            Some(_) => (Cursor::default(), usize::MAX),
            None if any_ttl => (*cursor, LOOKED_AT),
            None => return Vec::new(),
        };
        let default_ttl = limits.idle_ttl.as_secs();
        let mut longest = BinaryHeap::new();
        let mut look = |reader: &Reader<'_>, at: Cursor, family: &Family, series: &Series| {
            let since = match series.declared {
                Declared::Now => return,
                Declared::Once => resumed.max(reader.tables.released_at),
                Declared::Never => resumed,
            };
            let last_used = reader.last_used(family.kind(), series);
            let overflow = family.is_overflow(at.series as u32);
            if overflow && !family.is_overflow_only() {
                return;
            }
            let ttl = family.ttl(default_ttl);
            let idle_since = last_used.max(since);
            let cause = if ttl > 0 && now.saturating_sub(idle_since) >= ttl {
                ExpiryCause::Idle
            } else if latest.is_some_and(|latest| idle_since <= latest)
                && (wanted.of_all > 0 || wanted.of_family.contains_key(&(at.family as u32)))
            {
                ExpiryCause::Evicted
            } else {
                return;
            };
            let id = SeriesId { family: at.family as u32, serial: family.serial(), place: at.series as u32 };
            let lines = if overflow { 0 } else { family.shape().lines() };
            longest.push(Candidate { last_used, id, lines, cause });
            if longest.len() > MOST {
                longest.pop();
            }
        };
        let mut left = most;
        while left > 0 {
            let looked = self.look_at(&mut at, left.min(CHUNK), &mut look);
            left -= looked.min(left);
            if looked == 0 {
                at = Cursor::default();
                break;
            }
        }
        *cursor = at;
        let mut chosen = longest.into_sorted_vec();
        chosen.retain(|candidate| {
            if candidate.cause == ExpiryCause::Idle {
                return true;
            }
            let of_family = wanted.of_family.get_mut(&candidate.id.family).filter(|lines| **lines > 0);
            let lines = of_family.unwrap_or(&mut wanted.of_all);
            let takes = *lines > 0;
            *lines = lines.saturating_sub(candidate.lines);
            takes
        });
        chosen
    }

    /// Shows up to `most` places of series, from `at` on, and moves it on; how many there were, 0 past the last family.
    fn look_at(
        &self,
        at: &mut Cursor,
        most: usize,
        look: &mut impl FnMut(&Reader<'_>, Cursor, &Family, &Series),
    ) -> usize {
        let reader = self.read();
        let mut looked = 0;
        while looked < most && at.family < reader.families().len() {
            let run = match reader.families()[at.family].as_ref() {
                Some(family) => {
                    let run = family.series().run(at.series);
                    let run = &run[..run.len().min(most - looked)];
                    for (place, series) in (at.series..).zip(run) {
                        if let Some(series) = series {
                            look(&reader, Cursor { series: place, ..*at }, family, series);
                        }
                    }
                    run.len()
                }
                None => 0,
            };
            looked += run.max(1);
            *at = match run {
                0 => Cursor { family: at.family + 1, series: 0 },
                _ => Cursor { series: at.series + run, ..*at },
            };
        }
        looked
    }

    /// Marks the candidates that are still there, and tells what workers have to forget.
    fn mark(&self, candidates: Vec<Candidate>, pending: &mut Vec<Marked>) -> Doomed {
        let mut doomed = Doomed::default();
        let mut reader = self.read();
        for Candidate { last_used, id, cause, .. } in candidates {
            let Some(family) = reader.tables.family_mut(id.family, id.serial) else { continue };
            let undeclared = |series: &&mut Series| series.declared != Declared::Now;
            let Some(series) = family.series_mut(id.place).filter(undeclared) else { continue };
            series.doomed = true;
            doomed.add(&family.place(id.place));
            let shape = family.shape().clone();
            let cells = reader.series(id).map_or(0, |series| reader.sum_of_cells(&shape, series));
            pending.push(Marked { id, used: (last_used, cells), cause });
        }
        doomed
    }
}
