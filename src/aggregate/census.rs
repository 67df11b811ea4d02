//! Figures of every family and label, for a person who asks what is large, full or out of range.
//!
//! In: nothing. Out: one [`FamilyFigures`] for each family, one [`LabelFigures`] for each label name followed.
//! Always: costs nothing until it is asked for, and then [`most_bytes`] at most; a lock is held for a few thousand
//! series at a time, so families may come and go meanwhile.

use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

use super::bounds::Bounds;
use super::shape::Shape;
use super::{Store, names};
use crate::admit::Limit;
use crate::clock::Tick;
use crate::map::Kind;
use crate::model::heap_bytes;

/// Labels told of a family: those with the most values.
const MOST_LABELS: usize = 8;
/// What the figures of a family take beside names and bounds.
const FIGURES_BYTES: usize = 2 * size_of::<FamilyFigures>() + MOST_LABELS * 64;

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
    /// Its labels as far as they are followed, with how many values they have in it: the eight with the most.
    pub labels: Vec<(Rc<str>, u64)>,
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
    pub bounds: Arc<Bounds>,
}

/// What is known of a label name, over all families.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelFigures {
    /// The name.
    pub name: Rc<str>,
    /// Estimate of how many different values were sent, kept or not, since the name was first seen.
    pub seen: f64,
    /// The most values that it has in one family.
    pub most: u64,
    /// Families in which it has values.
    pub families: u64,
}

/// Everything at one moment, or nearly one.
#[derive(Clone, Debug, PartialEq)]
pub struct Census {
    /// Those with the most sample lines first.
    pub families: Vec<FamilyFigures>,
    /// Those with the most values first.
    pub labels: Vec<LabelFigures>,
    /// When names found no place for a family of theirs; `None` if each found one.
    pub turned_away: Option<TurnedAway>,
}

/// What a census of so many families takes at most if names are up to `name` bytes long; what label names take is in
/// it.
pub const fn most_bytes(families: usize, name: usize) -> usize {
    families * (FIGURES_BYTES + heap_bytes(name)) + 2 * names::most_bytes(name)
}

impl Store {
    /// Counts everything. Reads every histogram.
    pub fn census(&self) -> Census {
        let mut labels: Vec<LabelFigures> = self
            .lock()
            .names
            .iter()
            .map(|(name, seen)| LabelFigures { name: name.into(), seen, most: 0, families: 0 })
            .collect();
        let mut families = Vec::new();
        let mut number = 0;
        while let Some(found) = self.family_figures(number, &mut labels) {
            families.extend(found.map(|(mut figures, serial)| {
                if figures.kind == Kind::Histogram {
                    figures.observed = self.observed(number, serial);
                }
                figures
            }));
            number += 1;
        }
        families.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.name.cmp(&b.name)));
        labels.sort_by(|a, b| b.seen.total_cmp(&a.seen).then_with(|| a.name.cmp(&b.name)));
        let turned_away = self.lock().turned_away.clone();
        Census { families, labels, turned_away }
    }

    /// The figures and serial number of the family in a place, but for what was observed; counts its values into
    /// `labels`. `None` past the last place, `Some(None)` for one that is empty.
    fn family_figures(&self, number: usize, labels: &mut [LabelFigures]) -> Option<Option<(FamilyFigures, u64)>> {
        let reader = self.read();
        let Some(family) = reader.families().get(number)? else { return Some(None) };
        let mut kept = Vec::new();
        for label in labels {
            let values = family.label_values(reader.tables.hasher.hash_one(label.name.as_bytes()));
            if values > 0 {
                label.most = label.most.max(values);
                label.families += 1;
                kept.push((label.name.clone(), values));
                // No longer than it has to be, however many labels there are.
                if kept.len() > MOST_LABELS {
                    kept.sort_by_key(|(_, values)| std::cmp::Reverse(*values));
                    kept.truncate(MOST_LABELS);
                }
            }
        }
        kept.sort_by_key(|(_, values)| std::cmp::Reverse(*values));
        let figures = FamilyFigures {
            name: family.name().to_owned(),
            kind: family.kind(),
            timed: family.is_timed(),
            series: family.len(),
            lines: family.lines(),
            overflows: family.has_overflow(),
            limits: family.limit_hits().collect(),
            observed: None,
            labels: kept,
        };
        Some(Some((figures, family.serial())))
    }

    /// What the series of a family observed; `None` if it is gone.
    fn observed(&self, number: usize, serial: u64) -> Option<Observed> {
        let mut observed = Observed::default();
        let mut counts = Vec::new();
        let mut start = 0;
        loop {
            let reader = self.read();
            let family = reader.families().get(number)?.as_ref().filter(|family| family.serial() == serial)?;
            let series = family.series().run(start);
            let Shape::Histogram(histogram) = family.shape() else { return None };
            for series in series.iter().flatten() {
                observed.sum += reader.histogram(histogram, series, &mut counts);
                observed.count += counts.iter().sum::<f64>();
                observed.first += counts.first().copied().unwrap_or(0.0);
                observed.beyond += counts.last().copied().unwrap_or(0.0);
            }
            if series.is_empty() {
                observed.bounds = histogram.bounds.clone();
                return Some(observed);
            }
            start += series.len();
        }
    }
}
