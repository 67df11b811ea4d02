//! `/api/v1/cardinality`: what costs how many series, what hit which limit and when, and what to do about it.

use serde_json::{Value, json};

use super::Report;
use super::hints::hints;
use crate::aggregate::census::{Census, FamilyFigures, LabelFigures};

/// The answer, with `most` families and labels.
pub(super) fn cardinality(report: &Report, most: usize) -> Value {
    let census = report.store.census();
    let figures = report.telemetry.figures();
    let refused = report.refusals.latest();
    let hints: Vec<Value> =
        hints(&census, &figures.tally, &refused, &report.loaded()).iter().map(super::hints::Hint::json).collect();
    json!({
        "limits": report.limits(),
        "families": families(report, &census, most),
        "families_in_all": census.families.len(),
        "labels": labels(&census, most),
        "limited": limited(report, &census, most),
        "hints": hints,
    })
}

/// Families, the costliest first.
pub(super) fn families(report: &Report, census: &Census, most: usize) -> Vec<Value> {
    let in_all = report.telemetry.series().sample_lines.load(std::sync::atomic::Ordering::Relaxed).max(1) as f64;
    let family = |family: &FamilyFigures| {
        json!({
            "name": family.name,
            "type": family.kind.word(),
            "sample_lines": family.lines,
            "share": family.lines as f64 / in_all,
            "series": family.series,
            "overflow": family.overflows,
            "labels": family.labels.iter().map(|(name, values)| json!({ "name": &**name, "values": values }))
                .collect::<Vec<_>>(),
            "limits": family.limits.iter().map(|hits| report.limit_hits(hits)).collect::<Vec<_>>(),
        })
    };
    census.families.iter().take(most).map(family).collect()
}

/// Label names, those sent with the most values first.
fn labels(census: &Census, most: usize) -> Vec<Value> {
    let label = |label: &LabelFigures| {
        json!({
            "name": &*label.name,
            "seen": label.seen.round(),
            "most_in_a_family": label.most,
            "families": label.families,
        })
    };
    census.labels.iter().take(most).map(label).collect()
}

/// What hit a limit, the latest first.
pub(super) fn limited(report: &Report, census: &Census, most: usize) -> Vec<Value> {
    let mut hits: Vec<_> =
        census.families.iter().flat_map(|family| family.limits.iter().map(move |hits| (family, hits))).collect();
    hits.sort_by_key(|(_, hits)| std::cmp::Reverse(hits.last));
    let mut all: Vec<(u64, Value)> = Vec::new();
    for (family, hits) in hits.into_iter().take(most) {
        let mut entry = report.limit_hits(hits);
        entry["family"] = family.name.as_str().into();
        all.push((hits.last, entry));
    }
    if let Some(away) = &census.turned_away {
        let (first, last) = (report.unix(away.first), report.unix(away.last));
        let entry = json!({ "limit": "max_families", "first": first, "last": last, "family": away.name });
        all.push((away.last, entry));
    }
    all.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
    all.into_iter().map(|(_, entry)| entry).take(most).collect()
}
