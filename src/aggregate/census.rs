//! Figures of every family and label, for a person who asks what is large, full or out of range.
//!
//! In: nothing. Out: one [`FamilyFigures`] for each family, one [`LabelFigures`] for each label name followed.
//! Always: costs nothing until it is asked for; a lock is held for a few thousand series at a time, so families may come
//! and go meanwhile.

use std::hash::BuildHasher;

use super::Store;
use crate::admit::Limit;
use crate::clock::Tick;
use crate::map::Kind;

/// Histograms looked at under one lock: at some 50 ns each, a fifth of a millisecond.
const CHUNK: usize = 4096;

/// What a family holds.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyFigures {
    /// Its name, as exposed.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether `ms` samples went into it.
    pub timed: bool,
    /// Its series, the overflow series among them.
    pub series: u64,
    /// Sample lines that count against the limits.
    pub lines: u64,
    /// Whether it has an overflow series.
    pub overflows: bool,
    /// The limits that it ran into.
    pub limits: Vec<LimitHits>,
    /// What was observed, of a histogram.
    pub observed: Option<Observed>,
    /// Its labels as far as they are followed, with how many values they have in it.
    pub labels: Vec<(String, u64)>,
}

/// When something ran into a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitHits {
    /// Which.
    pub limit: Limit,
    /// For the first time.
    pub first: Tick,
    /// For the last time.
    pub last: Tick,
}

/// When `cardinality.max_families` left names without a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// For the first time.
    pub first: Tick,
    /// For the last time.
    pub last: Tick,
    /// A name of late.
    pub name: String,
}

/// The observations of a histogram, over all its series; weights count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// How many.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Those in the first bucket.
    pub first: f64,
    /// Those beyond the last bound.
    pub beyond: f64,
    /// The bounds.
    pub bounds: Vec<f64>,
}

/// What is known of a label name, over all families.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelFigures {
    /// The name.
    pub name: String,
    /// Estimate of how many different values were sent, kept or not, since the name was first seen.
    pub seen: f64,
    /// The most values that it has in one family.
    pub most: u64,
    /// Families in which it has values.
    pub families: u64,
}

impl Store {
    /// Figures of all families, in no order. Reads every histogram.
    pub fn census(&self) -> Vec<FamilyFigures> {
        let names = self.label_names();
        let mut all = Vec::new();
        let mut number = 0;
        loop {
            let (mut figures, serial) = {
                let reader = self.read();
                let Some(slot) = reader.families().get(number) else { return all };
                let Some(family) = slot else {
                    number += 1;
                    continue;
                };
                let hasher = &reader.tables.hasher;
                let kept = |name: &String| family.label_values(hasher.hash_one(name.as_bytes()));
                let figures = FamilyFigures {
                    name: family.name().to_owned(),
                    kind: family.kind(),
                    timed: family.is_timed(),
                    series: family.len(),
                    lines: family.lines(),
                    overflows: family.has_overflow(),
                    limits: family.limit_hits().collect(),
                    observed: None,
                    labels: names
                        .iter()
                        .map(|(name, _)| (name.clone(), kept(name)))
                        .filter(|(_, kept)| *kept > 0)
                        .collect(),
                };
                (figures, family.serial())
            };
            if figures.kind == Kind::Histogram {
                figures.observed = self.observed(number, serial);
            }
            all.push(figures);
            number += 1;
        }
    }

    /// What is known of each label name, those with the most values first; `families` is a census taken just before.
    pub fn labels(&self, families: &[FamilyFigures]) -> Vec<LabelFigures> {
        let mut all: Vec<LabelFigures> = self
            .label_names()
            .into_iter()
            .map(|(name, seen)| {
                let counts = families
                    .iter()
                    .filter_map(|family| family.labels.iter().find(|(label, _)| *label == name))
                    .map(|(_, kept)| *kept);
                LabelFigures { seen, most: counts.clone().max().unwrap_or(0), families: counts.count() as u64, name }
            })
            .collect();
        all.sort_by(|a, b| b.seen.total_cmp(&a.seen).then_with(|| a.name.cmp(&b.name)));
        all
    }

    /// When names found no place for a family of theirs; `None` if each found one.
    pub fn turned_away(&self) -> Option<TurnedAway> {
        self.lock().turned_away.clone()
    }

    fn label_names(&self) -> Vec<(String, f64)> {
        self.lock().names.iter().map(|(name, seen)| (name.to_owned(), seen)).collect()
    }

    /// What the series of a family observed; `None` if it is gone.
    fn observed(&self, number: usize, serial: u64) -> Option<Observed> {
        let mut observed = Observed::default();
        let mut counts = Vec::new();
        let mut start = 0;
        loop {
            let reader = self.read();
            let family = reader.families().get(number)?.as_ref().filter(|family| family.serial() == serial)?;
            let series = family.series().get(start..).unwrap_or_default();
            for series in series.iter().take(CHUNK).flatten() {
                observed.sum += reader.histogram(family.bounds(), series, &mut counts);
                observed.count += counts.iter().sum::<f64>();
                observed.first += counts.first().copied().unwrap_or(0.0);
                observed.beyond += counts.last().copied().unwrap_or(0.0);
            }
            if series.len() <= CHUNK {
                observed.bounds = family.bounds().upper().to_vec();
                return Some(observed);
            }
            start += CHUNK;
        }
    }
}
