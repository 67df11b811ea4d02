//! Cost of a line: `cargo bench --bench ingest`.
//!
//! - `ingest`: from parsing to the number it changes, by kind of line.
//! - `stages`: the same stage by stage: the lines of a bot cut into samples, their identities found, and a value recorded
//!   by the type of its series.
//!
//! Each figure is for a whole batch of datagrams on one core, without a socket; elements are lines, or values.

#![allow(missing_docs, reason = "criterion's macros make items without any")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use foldhash::fast::RandomState;
use statsieve::admit::{Gate, Limits};
use statsieve::aggregate::shape::Shape;
use statsieve::aggregate::{Place, Sight, Store, Wanted};
use statsieve::config::{Observation, Sources, load};
use statsieve::identity::TagRules;
use statsieve::identity::key::Keys;
use statsieve::map::labels::LabelSet;
use statsieve::parse::Line;
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::SeriesBooks;

/// Lines in a datagram of about 1,400 bytes.
const LINES: u64 = 24;
const DATAGRAMS: u64 = 512;
/// Values recorded in a row.
const VALUES: u64 = 8192;

fn pipeline() -> Pipeline {
    pipeline_with(&[])
}

fn pipeline_with(set: &[&str]) -> Pipeline {
    let store = Arc::new(Store::new(1, Arc::new(SeriesBooks::default())));
    let set = set.iter().map(ToString::to_string).collect();
    let rules = Rules::new(&load(&Sources { file: None, set }).expect("good settings").config);
    Pipeline::new(Arc::new(ArcSwap::from_pointee(rules)), store, 0)
}

/// Datagrams whose lines `write` makes from a running number.
fn datagrams(write: impl Fn(u64, &mut String)) -> Vec<Vec<u8>> {
    let lines: Vec<u64> = (0..DATAGRAMS * LINES).collect();
    let datagram = |numbers: &[u64]| {
        let mut text = String::new();
        numbers.iter().for_each(|n| {
            write(*n, &mut text);
            text.push('\n');
        });
        text.into_bytes()
    };
    lines.chunks(LINES as usize).map(datagram).collect()
}

/// A number that looks random and is the same in every run.
fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

/// What a bot with 100,000 users sends, the heaviest of them most: 40 % of lines count users, 20 % a cache, 15 % are
/// gauges, 20 % timers, 5 % histograms.
fn bot_profile(n: u64, out: &mut String) {
    let (dice, random) = (scatter(n) % 100, scatter(n ^ 0xA5A5));
    // By Zipf's law the logarithm of the rank is spread evenly.
    let user = 100_000f64.powf(random as f64 / (1u64 << 24) as f64) as u64;
    let kind = ["message", "photo", "voice", "callback", "sticker", "command", "inline", "edit"][(random % 8) as usize];
    let (tenths, command) = (random % 5000, ["start", "help", "settings", "play"][(random % 4) as usize]);
    let ms = tenths as f64 / 10.0;
    match dice {
        0..30 => write!(out, "bot.messages:1|c|#user_id:{},activity_type:{kind}", 100_000_000 + user * 7919),
        30..40 => write!(out, "bot.messages:1|c|@0.1|#user_id:{},activity_type:{kind}", 100_000_000 + user * 7919),
        40..58 => write!(out, "bot.cache.requests:1|c|#cache:profile,result:hit"),
        58..60 => write!(out, "bot.cache.requests:1|c|#cache:profile,result:miss"),
        60..75 => write!(out, "bot.queue.size:{}|g|#queue:outbox", tenths / 8),
        75..85 => write!(out, "bot.update.duration:{ms}|ms|#type:{kind}"),
        85..95 => write!(out, "bot.reply.latency:{ms}|ms|#command:{command}"),
        _ => write!(out, "bot.payload.size:{tenths}|h|#type:{kind}"),
    }
    .expect("text");
}

fn ingest(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    group.throughput(Throughput::Elements(DATAGRAMS * LINES));
    let kinds = ["message", "photo", "voice", "callback"];
    let kind = |n: u64| kinds[(scatter(n) % 4) as usize];

    let mut hot_under = |name: &str, set: &[&str], write: &dyn Fn(u64, &mut String)| {
        group.bench_function(name, |b| {
            let datagrams = datagrams(write);
            let mut pipeline = pipeline_with(set);
            let mut all = || datagrams.iter().for_each(|datagram| pipeline.datagram(black_box(datagram)));
            // Twice, since an identity is remembered at its second sight.
            all();
            all();
            b.iter(&mut all);
        });
    };
    let tagged = |n, out: &mut String| write!(out, "bot.updates:1|c|#type:{},result:ok", kind(n)).expect("text");
    hot_under("sampled_out", &["sampling.mode=fixed", "sampling.rate=1e-12"], &tagged);
    hot_under("sampled_by_half", &["sampling.mode=fixed", "sampling.rate=0.5"], &tagged);
    let most = ["rate_limit.samples_per_second=4294967295", "rate_limit.family_samples_per_second=4294967295"];
    hot_under("under_both_quotas", &most, &tagged);
    let mut hot = |name: &str, write: &dyn Fn(u64, &mut String)| hot_under(name, &[], write);
    hot("bot_profile", &bot_profile);
    hot("hot_without_tags", &|n, out| write!(out, "bot.messages.{}:1|c", kind(n)).expect("text"));
    hot("hot_with_tags", &tagged);
    hot("hot_bucketed_user", &|n, out| {
        let user = scatter(n) % 100_000;
        write!(out, "bot.messages:1|c|#user_id:{user},activity_type:{}", kind(n)).expect("text");
    });
    hot("hot_timer", &|n, out| {
        let ms = scatter(n) % 1000;
        write!(out, "bot.reply.latency:{ms}.{}|ms|#command:{}", n % 10, kind(n)).expect("text");
    });
    let timer = |n, out: &mut String| {
        write!(out, "bot.reply.latency:{}.5|ms|#command:{}", scatter(n) % 1000, kind(n)).expect("text");
    };
    hot_under("hot_timer_without_native", &["observer.native_factor=1"], &timer);
    hot_under("hot_timer_in_summary", &["observer.type=summary"], &timer);
    let mut hot = |name: &str, write: &dyn Fn(u64, &mut String)| hot_under(name, &[], write);
    hot("hot_set", &|n, out| write!(out, "bot.users:{}|s|#type:{}", scatter(n) % 1000, kind(n)).expect("text"));
    hot("hot_sampled", &|n, out| write!(out, "bot.updates:1|c|@0.1|#type:{},result:ok", kind(n)).expect("text"));
    hot("hot_gauge", &|n, out| write!(out, "bot.queue.size:{}|g|#queue:outbox", n % 1000).expect("text"));
    hot("refused", &|n, out| write!(out, "bot.updates:{}x|c|#type:message,result:ok", n % 10).expect("text"));

    let fresh = datagrams(|n, out| write!(out, "bot.commands:1|c|#command:c{n},result:ok").expect("text"));
    // A small cache, so that none of the 12,288 identities is remembered when it comes round again.
    group.bench_function("one_off_at_limit", |b| {
        let mut pipeline = pipeline_with(&["cardinality.identity_cache_bytes=65536", "cardinality.max_series=100"]);
        let mut all = || fresh.iter().for_each(|datagram| pipeline.datagram(black_box(datagram)));
        all();
        b.iter(&mut all);
    });
    group.bench_function("new_identity", |b| {
        let run = |mut pipeline: Pipeline| {
            fresh.iter().for_each(|datagram| pipeline.datagram(black_box(datagram)));
            pipeline
        };
        b.iter_batched(pipeline, run, BatchSize::PerIteration);
    });
    group.finish();
}

fn stages(c: &mut Criterion) {
    let mut group = c.benchmark_group("stages");
    let config = load(&Sources { file: None, set: Vec::new() }).expect("good settings").config;
    let text = datagrams(bot_profile).concat();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    group.throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("parse", |b| {
        b.iter(|| {
            for line in &lines {
                let line = Line::parse(black_box(line), &config.parse).expect("a good line");
                black_box(line.sample(line.body).expect("a good sample"));
            }
        });
    });
    group.bench_function("identity", |b| {
        let rules = TagRules::new(&config.bucketing, &config.labels, false);
        let (state, mut keys) = (RandomState::default(), Keys::default());
        let mut read = Vec::new();
        for line in &lines {
            let line = Line::parse(line, &config.parse).expect("a good line");
            read.push((line, line.sample(line.body).expect("a good sample")));
        }
        b.iter(|| {
            for (line, sample) in &read {
                keys.clear();
                black_box(rules.identify(black_box(line), sample, &mut keys, &state, &mut ()));
            }
        });
    });
    let histogram = |factor| {
        Shape::of(&Observation::Histogram {
            bounds: vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            native_factor: factor,
            native_max_buckets: 160,
        })
    };
    let summary = Observation::Summary { quantiles: vec![0.5, 0.9, 0.99], max_age: Duration::from_secs(60) };
    for (name, shape) in [
        ("record_counter", Shape::Counter),
        ("record_gauge", Shape::Gauge),
        ("record_histogram", histogram(1.1)),
        ("record_histogram_without_native", histogram(1.0)),
        ("record_summary", Shape::of(&summary)),
        ("record_set", Shape::set(Duration::from_secs(60), 1024)),
    ] {
        let store = Store::new(1, Arc::new(SeriesBooks::default()));
        let mut recorder = store.recorder(0);
        let gate = Gate::new(Limits::new(&config.cardinality, &config.labels), 0);
        let mut labels = LabelSet::default();
        let mut place = |n: u64| {
            let wanted = Wanted {
                name: "a",
                written: "a",
                help: None,
                shape: &shape,
                sample: None,
                ttl: None,
                generation: 0,
                overflow_labels: r#"overflow="true""#,
                sight: Sight::Second,
                now: 1,
            };
            labels.clear();
            labels.add_constant(b"n", n.to_string().as_bytes());
            store.place(wanted, &mut labels, &mut Vec::new(), &gate).expect("room for it").place
        };
        // As many series as a bot has, met in any order.
        let places: Vec<Place> = (0..256).map(&mut place).collect();
        let order: Vec<(usize, u64)> = (0..VALUES).map(|n| (scatter(n) as usize % places.len(), scatter(!n))).collect();
        let mut all = || {
            for (n, random) in &order {
                let place = black_box(&places[*n]);
                let recorded = match place {
                    Place::Set(..) => recorder.record_member(place, random.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                    _ => recorder.record(place, (random % 5000) as f64 / 10_000.0, 1.0, false),
                };
                recorded.expect("it fits");
            }
        };
        all();
        group.throughput(Throughput::Elements(VALUES));
        group.bench_function(name, |b| b.iter(&mut all));
    }
    group.finish();
}

criterion_group!(benches, ingest, stages);
criterion_main!(benches);
