//! The store against a model that adds plainly: a map of series, each line computed anew from what it says.

use std::collections::{BTreeMap, HashMap};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use statsieve::config::{Config, Format};
use xxhash_rust::xxh64::xxh64;

use crate::cases;
use crate::reader::{self, Labels};
use crate::rig::{Rig, recorded};

#[derive(Clone, Debug)]
struct Sent {
    kind: &'static str,
    name: &'static str,
    values: Vec<&'static str>,
    rate: Option<&'static str>,
    tags: Vec<(&'static str, &'static str)>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let values =
        vec!["0", "1", "2", "0.25", "12.7", "1e3", "85", "3.5e-3", "+1", "-2", "+0.5", "x", "", "nan", "1e400"];
    let keys = vec!["k", "l", "my.key", "my-key", "user_id", "user-id", "user_bucket", "message_id"];
    let tag = (select(keys), select(vec!["1", "2", "bucket_1", "42", "a:b", "\u{e9}\"\\"]));
    (
        select(vec!["c", "g", "ms", "h"]),
        select(vec!["a", "b.c"]),
        vec(select(values), 1..4),
        proptest::option::weighted(0.4, select(vec!["1", "0.5", "0.1", "0.003", "2", "0", "x", "-1"])),
        vec(tag, 0..4),
    )
        .prop_map(|(kind, name, values, rate, tags)| Sent { kind, name, values, rate, tags })
}

impl Sent {
    fn line(&self) -> String {
        // One name for each type, so that none conflicts.
        let mut line = format!("{}.{}:{}|{}", self.kind, self.name, self.values.join(":"), self.kind);
        if let Some(rate) = self.rate {
            line += &format!("|@{rate}");
        }
        if !self.tags.is_empty() {
            let tags: Vec<String> = self.tags.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            line += &format!("|#{}", tags.join(","));
        }
        line
    }

    fn labels(&self) -> Labels {
        let mut labels = Labels::new();
        for (key, value) in &self.tags {
            match key.replace(['.', '-'], "_").as_str() {
                "message_id" => {}
                "user_id" => {
                    if matches!(self.kind, "c" | "g") {
                        let bucket = xxh64(value.as_bytes(), 0) % 100;
                        labels.insert("user_bucket".to_owned(), format!("bucket_{bucket}"));
                    }
                }
                key => drop(labels.insert(key.to_owned(), (*value).to_owned())),
            }
        }
        labels
    }
}

/// What the exposition should say: sample lines by name and labels.
#[derive(Default)]
struct Model {
    lines: BTreeMap<(String, Labels), f64>,
    recorded: u64,
}

impl Model {
    fn take(&mut self, sent: &Sent, bounds: &[f64]) {
        let rate: f64 = sent.rate.and_then(|rate| rate.parse().ok()).filter(|rate| *rate != 0.0).unwrap_or(1.0);
        let observer = matches!(sent.kind, "ms" | "h");
        if sent.kind != "g" && (rate < 0.0 || (observer && rate > 1.0)) {
            return;
        }
        let base = format!("{}_{}", sent.kind, sent.name.replace('.', "_"));
        let labels = sent.labels();
        for text in &sent.values {
            let Some(value) = text.parse::<f64>().ok().filter(|value| value.is_finite()) else { continue };
            match sent.kind {
                "c" if value < 0.0 => continue,
                "c" => *self.at(&format!("{base}_total"), &labels) += value / rate,
                "g" if text.starts_with(['+', '-']) => *self.at(&base, &labels) += value,
                "g" => *self.at(&base, &labels) = value,
                kind => {
                    let (base, value) =
                        if kind == "ms" { (format!("{base}_seconds"), value / 1000.0) } else { (base.clone(), value) };
                    *self.at(&format!("{base}_sum"), &labels) += value / rate;
                    *self.at(&format!("{base}_count"), &labels) += 1.0 / rate;
                    for bound in bounds.iter().copied().chain([f64::INFINITY]) {
                        let mut labels = labels.clone();
                        labels.insert("le".to_owned(), bound.to_string());
                        *self.at(&format!("{base}_bucket"), &labels) += if value <= bound { 1.0 / rate } else { 0.0 };
                    }
                }
            }
            self.recorded += 1;
        }
    }

    fn at(&mut self, name: &str, labels: &Labels) -> &mut f64 {
        self.lines.entry((name.to_owned(), labels.clone())).or_insert(0.0)
    }
}

/// The exposition with each `le` written as this test's own numbers are.
fn exposed(rig: &Rig) -> BTreeMap<(String, Labels), f64> {
    let exposition = reader::read(&rig.text(Format::Text), Format::Text);
    exposition.check_histograms();
    let plain = |((name, mut labels), value): ((String, Labels), f64)| {
        if name.ends_with("_bucket") {
            let le = labels.get_mut("le").unwrap();
            *le = le.parse::<f64>().unwrap().to_string();
        }
        ((name, labels), value)
    };
    exposition.samples.into_iter().map(plain).collect()
}

fn compare(rig: &mut Rig, model: &Model) {
    let exposed = exposed(rig);
    let names = |lines: &BTreeMap<(String, Labels), f64>| lines.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&exposed), names(&model.lines));
    for (key, expected) in &model.lines {
        let found = exposed[key];
        // Sums of both signs may cancel; what is lost then is measured by what was added, thousands at most.
        let slack = 1e-9 * expected.abs().max(1e-3);
        assert!((found - expected).abs() <= slack, "{key:?} is {found}, not {expected}");
    }
    assert_eq!(recorded(&rig.tally()), model.recorded);
}

const SETTINGS: &[&[&str]] = &[&[], &["cardinality.identity_cache_bytes=65536"]];

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_store_equals_a_plain_model(
        sent in vec(sent(), 1..60),
        workers in 1usize..4,
        lines_each in 1usize..4,
        settings in select(SETTINGS),
    ) {
        let bounds = Config::default_checked().observer.bounds;
        let (mut rig, mut model) = (Rig::new(settings, workers), Model::default());
        for _ in 0..3 {
            for (turn, lines) in sent.chunks(lines_each).enumerate() {
                let datagram: Vec<String> = lines.iter().map(Sent::line).collect();
                rig.send(turn, datagram.join("\n").as_bytes());
                lines.iter().for_each(|line| model.take(line, &bounds));
            }
        }
        compare(&mut rig, &model);
    }

    #[test]
    fn another_order_of_tags_is_the_same_series(
        tags in proptest::collection::hash_map("[a-z]{1,3}", "[a-z0-9=:.-]{1,6}", 1..6),
        user in "[0-9]{1,4}",
        name in select(vec!["a|c", "a|g", "a|h"]),
        orders in vec(any::<u64>(), 4),
    ) {
        let (name, kind) = name.split_once('|').unwrap();
        let mut tags: Vec<String> =
            tags.iter().filter(|(key, _)| *key != "le").map(|(key, value)| format!("{key}:{value}")).collect();
        tags.push(format!("user_id:{user}"));
        let mut rig = Rig::new(&[], 2);
        for (turn, order) in orders.iter().enumerate() {
            tags.sort_by_key(|tag| xxh64(tag.as_bytes(), *order));
            rig.send(turn, format!("{name}:+1|{kind}|#{}", tags.join(",")).as_bytes());
        }
        let series: HashMap<Labels, f64> = exposed(&rig)
            .into_iter()
            .filter(|((name, _), _)| !name.ends_with("_bucket") && !name.ends_with("_sum"))
            .map(|((_, labels), value)| (labels, value))
            .collect();
        prop_assert_eq!(series.into_values().collect::<Vec<_>>(), [4.0]);
    }
}

/// Evictions: far more identities than the smallest cache holds, each seen often enough to enter it.
#[test]
fn evicted_identities_come_back_to_their_series() {
    let bounds = Config::default_checked().observer.bounds;
    let mut rig = Rig::new(&["cardinality.identity_cache_bytes=65536", "labels.max_values=2000"], 2);
    let mut model = Model::default();
    // Leaked: the model is made for values from a fixed list.
    let values: Vec<&'static str> = (0..2000).map(|n| &*n.to_string().leak()).collect();
    for round in 0..6 {
        for value in &values {
            let tags = vec![("k", *value), ("user_id", "42")];
            let sent = Sent { kind: "c", name: "a", values: vec!["1"], rate: Some("0.5"), tags };
            for turn in 0..2 {
                rig.send(turn + round, sent.line().as_bytes());
                model.take(&sent, &bounds);
            }
        }
    }
    compare(&mut rig, &model);
    // Each value comes twice in a row, once to each worker: no cache of this size holds them all.
    let tally = rig.tally();
    assert!(tally.get(statsieve::telemetry::Count::CacheMisses) > 4 * 2000, "the cache was large enough for all");
}

#[test]
fn a_bucket_never_merges_with_text_written_like_one() {
    let mut rig = Rig::new(&[], 1);
    let bucket = xxh64(b"42", 0) % 100;
    for _ in 0..3 {
        for tags in ["user_id:42".to_owned(), "user_id:bucket_1".to_owned(), format!("userid:bucket_{bucket}")] {
            rig.send(0, format!("a:1|c|#{tags}").as_bytes());
        }
    }
    let other = xxh64(b"bucket_1", 0) % 100;
    assert_ne!(bucket, other, "the test needs two buckets");
    let label = |key: &str, bucket| Labels::from([(key.to_owned(), format!("bucket_{bucket}"))]);
    let expected = [("user_bucket", bucket), ("user_bucket", other), ("userid", bucket)];
    let expected = expected.map(|(key, bucket)| (("a_total".to_owned(), label(key, bucket)), 3.0));
    assert_eq!(exposed(&rig), BTreeMap::from(expected));
}
