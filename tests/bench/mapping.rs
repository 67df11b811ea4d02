//! Cost of new names under 10, 1,000 and 10,000 mapping rules: `cargo bench --bench mapping`.
//!
//! Each name is one never seen before, so every line goes the slow way; elements are lines. `none` has no rules.
//! `compile` is the time from the text of a mapping file to rules that are ready.

#![allow(missing_docs, reason = "criterion's macros make items without any")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use statsieve::aggregate::Store;
use statsieve::config::{Config, Sources, load};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::SeriesBooks;

const LINES: u64 = 10_000;

/// A mapping file of so many globs, a tenth of them with the star in front.
fn yaml(rules: u64) -> String {
    let mut text = String::from("mappings:\n");
    for n in 0..rules {
        let glob = if n % 10 == 0 { format!("*.part{n}.*.calls") } else { format!("bot.part{n}.*.calls") };
        let rule = format!("- match: '{glob}'\n  name: bot_calls_{n}\n  labels:\n    method: $1\n    part: p{n}\n");
        text.push_str(&rule);
    }
    text
}

fn config(yaml: &str, folder: &tempfile::TempDir) -> Config {
    let path = folder.path().join("mapping.yml");
    std::fs::write(&path, yaml).expect("it can be written");
    // Everything is one-off, and the limits are out of the way of what is measured.
    let set = [&format!("mapping.file={}", path.display()), "cardinality.max_series=100", "labels.max_values=1000000"];
    load(&Sources { file: None, set: set.map(str::to_owned).to_vec() }).expect("good settings").config
}

fn mapping(c: &mut Criterion) {
    let mut group = c.benchmark_group("mapping");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for rules in [0_u64, 10, 1_000, 10_000] {
        let text = yaml(rules);
        let checked = config(&text, &folder);
        let name = if rules == 0 { "none".to_owned() } else { rules.to_string() };
        for (kind, hit) in [("mapped", true), ("unmapped", false)] {
            let lines: Vec<Vec<u8>> = (0..LINES)
                .map(|n| {
                    let mut line = String::new();
                    let part = n * 7 % rules.max(1);
                    let end = if hit { "calls" } else { "other" };
                    write!(line, "bot.part{part}.method{n}.{end}:1|c").expect("text");
                    line.into_bytes()
                })
                .collect();
            group.throughput(Throughput::Elements(LINES));
            group.bench_function(format!("{kind}/{name}"), |b| {
                let fresh = || {
                    let store = Arc::new(Store::new(1, Arc::new(SeriesBooks::default())));
                    let mut pipeline = Pipeline::new(Arc::new(ArcSwap::from_pointee(Rules::new(&checked))), store, 0);
                    // One pass makes the families and fills the limits; the cache forgets what was seen once.
                    lines.iter().for_each(|line| pipeline.datagram(line));
                    pipeline
                };
                let run = |mut pipeline: Pipeline| {
                    lines.iter().for_each(|line| pipeline.datagram(black_box(line)));
                    pipeline
                };
                b.iter_batched(fresh, run, BatchSize::PerIteration);
            });
        }
        if rules > 0 {
            group.throughput(Throughput::Elements(rules));
            group.bench_function(format!("compile/{name}"), |b| {
                b.iter(|| Rules::new(&config(black_box(&text), &folder)));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(2));
    targets = mapping
}
criterion_main!(benches);
