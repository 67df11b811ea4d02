//! Cost of a line from parse to record, by kind of line: `cargo bench --bench ingest`.
//!
//! Each figure is for a whole batch of datagrams on one core, without a socket; elements are lines.

#![allow(missing_docs, reason = "criterion's macros make items without any")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use statsieve::aggregate::Store;
use statsieve::config::{Sources, load};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::SeriesBooks;

/// Lines in a datagram of about 1,400 bytes.
const LINES: u64 = 24;
const DATAGRAMS: u64 = 512;

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

criterion_group!(benches, ingest);
criterion_main!(benches);
