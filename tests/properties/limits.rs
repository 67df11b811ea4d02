//! Limits hold whatever is sent, and totals survive them.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use statsieve::config::Format;
use statsieve::model::DropReason;
use statsieve::telemetry::Count;

use crate::cases;
use crate::reader;
use crate::rig::Rig;

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn series_stay_under_every_limit_and_totals_lose_nothing(
        sent in vec((0usize..4, 0u32..4, 0u32..30, 1u32..5), 1..200),
        max_series in 1u64..60,
        share in 1u64..4,
        max_families in 1usize..12,
        workers in 1usize..4,
        observer in select(vec!["histogram", "summary"]),
    ) {
        let per_family = max_series.div_ceil(share);
        let set = [
            format!("cardinality.max_series={max_series}"),
            format!("cardinality.max_series_per_family={per_family}"),
            format!("cardinality.max_families={max_families}"),
            format!("observer.type={observer}"),
        ];
        let mut rig = Rig::new(&set.each_ref().map(String::as_str), workers);
        let (mut totals, mut families) = (HashMap::<String, f64>::new(), Vec::<String>::new());
        for (turn, (kind, name, tag, value)) in sent.iter().enumerate() {
            let kind = ["c", "g", "h", "s"][*kind];
            let before = rig.tally();
            rig.send(turn, format!("{kind}{name}:{value}|{kind}|#k:{tag}").as_bytes());
            let after = rig.tally();
            let family = format!("{kind}{name}");
            if after.dropped_for(DropReason::Cardinality) > before.dropped_for(DropReason::Cardinality) {
                // Only gauges and new families past the limit are dropped.
                prop_assert!(kind == "g" || (families.len() >= max_families && !families.contains(&family)));
                continue;
            }
            if !families.contains(&family) {
                families.push(family.clone());
            }
            if matches!(kind, "c" | "h") {
                *totals.entry(family).or_default() += f64::from(*value);
            }
        }
        let exposition = reader::read(&rig.text(Format::Text), Format::Text);
        exposition.check_histograms();
        prop_assert!(exposition.families.len() <= max_families);
        let mut lines = HashMap::<&str, u64>::new();
        let mut sums = HashMap::<String, f64>::new();
        for ((name, labels), value) in &exposition.samples {
            let family = name.split('_').next().unwrap();
            if !labels.contains_key("overflow") {
                *lines.entry(family).or_default() += 1;
            } else {
                prop_assert!(!family.starts_with('g'), "a merged gauge would lie: {}", name);
                let own = labels.keys().filter(|key| !["overflow", "le", "quantile"].contains(&key.as_str())).count();
                prop_assert_eq!(own, 0, "{:?}", labels);
            }
            if name.ends_with("_total") || name.ends_with("_sum") {
                *sums.entry(family.to_owned()).or_default() += value;
            }
        }
        let all: u64 = lines.values().sum();
        prop_assert!(all <= max_series, "{} lines under a limit of {}", all, max_series);
        prop_assert!(lines.values().all(|lines| *lines <= per_family), "{:?} over {}", lines, per_family);
        prop_assert_eq!(all, rig.books.sample_lines.load(Relaxed));
        prop_assert_eq!(exposition.families.len() as u64, rig.books.families.load(Relaxed));
        // Whole numbers, so equal and not nearly equal.
        prop_assert_eq!(sums, totals);
        let overflowed = rig.tally().get(Count::OverflowSamples);
        // An overflow series is there before it is needed, and never missing when it is.
        prop_assert!(overflowed == 0 || exposition.samples.keys().any(|(_, labels)| labels.contains_key("overflow")));
    }
}
