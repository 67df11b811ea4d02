//! Removes series that are idle while others wait for their place.
//!
//! In: the time, once a second, and what second sights would have needed. Out: series removed, the longest idle first.
//! Always: no sample is lost: a series is marked, every worker forgets it, and only one that was not used meanwhile goes;
//! its cells are zero before anyone gets them again. A lock is held for a few thousand series at a time.

use std::collections::BinaryHeap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::Store;
use super::grace::Doomed;
use super::tables::SeriesId;
use crate::admit::Limits;
use crate::clock::Tick;
use crate::map::Kind;
use crate::telemetry::ExpiryCause;

/// Series that go in one sweep, at most.
const MOST: usize = 4096;
/// Series looked at under one lock.
const CHUNK: usize = 16_384;
/// Seconds for which room is kept for those who asked for it; they ask again within four.
const RESERVED: Tick = 5;
/// Series removed under one lock.
const REMOVED: usize = 128;

/// What the sweep remembers from one second to the next.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Marked series, with the last use they were marked for.
    pending: Vec<(SeriesId, Tick)>,
}

/// A series that could go: those idle longest are the least.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    last_used: Tick,
    id: SeriesId,
    lines: u64,
}

impl Store {
    /// Takes the next step; to be called about once a second.
    ///
    /// Removes what was marked before, once every worker has forgotten it, and marks as many idle series as others have
    /// asked for since. Reads all series only if somebody asked.
    pub fn sweep(&self, now: Tick, limits: &Limits) {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.grace.is_passed() {
            return;
        }
        {
            let mut tables = self.lock();
            if now >= tables.reserved_until {
                tables.reserved_lines = 0;
            }
        }
        let pending = std::mem::take(&mut sweep.pending);
        // Reduced without a shortcut: each part is to be removed.
        let names = pending.chunks(REMOVED).fold(false, |names, part| self.remove(part, now) | names);
        let mut doomed = self.mark(self.candidates(now, limits), &mut sweep.pending);
        doomed.names = names;
        if !doomed.is_empty() {
            self.grace.begin(doomed);
        }
    }

    /// Removes marked series that were not used since; says whether a family went with its last.
    fn remove(&self, pending: &[(SeriesId, Tick)], now: Tick) -> bool {
        let mut names = false;
        let mut reader = self.read();
        for (id, marked_at) in pending.iter().copied() {
            let Some(family) = reader.tables.family_mut(id.family, id.serial) else { continue };
            let kind = family.kind();
            let cells = kind.cells(family.bounds());
            let Some(series) = family.series_mut(id.place).filter(|series| series.doomed) else { continue };
            series.doomed = false;
            let cell = series.cell;
            let unused = reader.series(id).is_some_and(|series| reader.last_used(kind, series) == marked_at);
            if unused {
                if kind == Kind::Gauge {
                    reader.gauges.clear(cell, cells);
                } else {
                    reader.shards.iter().for_each(|shard| shard.clear(cell, cells));
                }
                let lines = reader.tables.counts.used.lines;
                names |= reader.tables.remove(id);
                reader.tables.reserved_lines += lines - reader.tables.counts.used.lines;
                reader.tables.reserved_until = now + RESERVED;
                self.books.expired[ExpiryCause::Evicted.index()].fetch_add(1, Relaxed);
            }
        }
        self.publish(&reader.tables);
        names
    }

    /// The series idle longest, as many as make room for what was asked for.
    fn candidates(&self, now: Tick, limits: &Limits) -> Vec<Candidate> {
        let mut wanted = {
            let mut tables = self.lock();
            let mut wanted = std::mem::take(&mut tables.wanted);
            // What lacks bytes is given as many lines as hold them on average.
            let used = tables.counts.used;
            let lines = u128::from(wanted.bytes) * u128::from(used.lines) / u128::from(used.bytes.max(1));
            wanted.of_all = wanted.of_all.max(lines as u64);
            wanted
        };
        let any = wanted.of_all > 0 || !wanted.of_family.is_empty();
        let Some(latest) = now.checked_sub(limits.evict_idle_after.as_secs()).filter(|_| any) else {
            return Vec::new();
        };
        let mut longest = BinaryHeap::new();
        let (mut number, mut start) = (0, 0);
        loop {
            let reader = self.read();
            let mut left = CHUNK;
            while left > 0 && number < reader.families().len() {
                let family = reader.families()[number].as_ref();
                let series = family.map_or(&[][..], |family| family.series());
                let end = series.len().min(start + left);
                for (place, series) in (start..end).zip(&series[start.min(end)..end]) {
                    let (Some(family), Some(series)) = (family, series) else { continue };
                    let overflow = family.is_overflow(place as u32);
                    let last_used = reader.last_used(family.kind(), series);
                    if wanted.of_all == 0 && !wanted.of_family.contains_key(&(number as u32)) {
                        continue;
                    }
                    if last_used > latest || (overflow && !family.is_overflow_only()) {
                        continue;
                    }
                    let id = SeriesId { family: number as u32, serial: family.serial(), place: place as u32 };
                    let lines = if overflow { 0 } else { family.kind().lines(family.bounds()) };
                    longest.push(Candidate { last_used, id, lines });
                    if longest.len() > MOST {
                        longest.pop();
                    }
                }
                left -= (end - start.min(end)).max(1);
                (number, start) = if end < series.len() { (number, end) } else { (number + 1, 0) };
            }
            if number >= reader.families().len() {
                break;
            }
        }
        let mut chosen = longest.into_sorted_vec();
        chosen.retain(|candidate| {
            let of_family = wanted.of_family.get_mut(&candidate.id.family).filter(|lines| **lines > 0);
            let lines = of_family.unwrap_or(&mut wanted.of_all);
            let takes = *lines > 0;
            *lines = lines.saturating_sub(candidate.lines);
            takes
        });
        chosen
    }

    /// Marks the candidates that are still there, and tells what workers have to forget.
    fn mark(&self, candidates: Vec<Candidate>, pending: &mut Vec<(SeriesId, Tick)>) -> Doomed {
        let mut doomed = Doomed::default();
        let mut tables = self.lock();
        for Candidate { last_used, id, .. } in candidates {
            let Some(family) = tables.family_mut(id.family, id.serial) else { continue };
            let Some(series) = family.series_mut(id.place) else { continue };
            series.doomed = true;
            doomed.add(&family.place(id.place));
            pending.push((id, last_used));
        }
        doomed
    }
}
