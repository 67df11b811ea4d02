//! What is allocated: nothing on the hot path, where known identities go from datagram to cell within what is there
//! already; no more for series than is charged for them; and after two weeks of churn no more than after a day.
//!
//! Here alone, since the counter is the global allocator of the whole test binary.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use statsieve::admit::{Gate, Limits};
use statsieve::aggregate::shape::Shape;
use statsieve::aggregate::{Sight, Store, Wanted, most_bytes_outside};
use statsieve::clock::tick;
use statsieve::config::{Observation, Sources, load};
use statsieve::map::Kind;
use statsieve::map::labels::{LabelSet, Origin};
use statsieve::model::{DropReason, SampleType};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, ExpiryCause, SeriesBooks};

fn pipeline() -> Pipeline {
    pipeline_with(&[])
}

fn pipeline_with(set: &[&str]) -> Pipeline {
    let set = set.iter().map(ToString::to_string).collect();
    let rules = Rules::new(&load(&Sources { file: None, set }).unwrap().config);
    Pipeline::new(Arc::new(ArcSwap::from_pointee(rules)), Arc::new(Store::new(1, Arc::<SeriesBooks>::default())), 0)
}

/// Allocations of a thousand of `datagrams`, in turn, after each was seen three times.
fn allocations(pipeline: &mut Pipeline, datagrams: &[Vec<u8>]) -> u64 {
    let books = Books::default();
    for _ in 0..3 {
        datagrams.iter().for_each(|datagram| pipeline.datagram(datagram));
    }
    pipeline.end(&books);
    let counted = allocation_counter::measure(|| {
        for datagram in datagrams.iter().cycle().take(1000) {
            pipeline.datagram(datagram);
        }
        pipeline.end(&books);
    });
    counted.count_total
}

#[test]
fn known_identities_allocate_nothing() {
    for lines in [
        "bot.errors:1|c",
        "bot.updates:1|c|#type:message,result:ok",
        "bot.updates,type=message,result=ok:1|c",
        "bot.updates#type=message:1|c",
        "bot.updates[type=message]x:1|c",
        "bot.update.duration:8.1|ms|#type:message",
        "bot.size:100|h\nbot.size:100|d",
        "bot.updates:1|c|@0.1|#type:message",
        "bot.update.duration:8.1|ms|@0.3",
        "bot.queue.size:12|g|#queue:outbox",
        "bot.queue.size:+1|g|#queue:outbox\nbot.queue.size:-1|g|#queue:outbox",
        "bot.packed:1:2:3|c|#type:message",
        "bot.packed:1:2.5:3e1|ms",
        "bot.several:1|c:2|g:3|ms",
        "bot.users:alice|s|#type:message\nbot.users:5|s|#type:message",
        "bot.fields:1|c|#k:v|c:abc|T1700000000|e:it-false|card:low|x:y",
        "bot.rate:1|c|@x",
        "bot.dropped:1|c|#message_id:5,dd.internal.x:1,k:v",
        "bot.tags:1|c|#bare,k:,k:v",
        "bot.größe:1|g|#name:schön",
        "a:1|c\r\nb:1|g\r\n\r\n",
        "datadog.dogstatsd.client.packets_dropped:3|c|#client:py\ndatadog.dogstatsd.client.bytes_dropped_queue:1|c",
    ] {
        for observer in ["observer.type=histogram", "observer.type=summary"] {
            let mut pipeline = pipeline_with(&[observer]);
            assert_eq!(allocations(&mut pipeline, &[lines.as_bytes().to_vec()]), 0, "{lines:?}");
            let recorded: u64 = SampleType::ALL.iter().map(|kind| pipeline.tally().recorded_of(*kind)).sum();
            assert!(recorded >= 1003, "{lines:?}: {recorded} recorded");
        }
    }
}

#[test]
fn thinning_and_quotas_allocate_nothing() {
    let lines = [b"bot.updates:1|c|#type:message\nbot.packed:1:2:3|ms".to_vec()];
    for set in [
        &["sampling.mode=fixed", "sampling.rate=0.5"][..],
        &["rate_limit.samples_per_second=100", "rate_limit.family_samples_per_second=90"],
        &["rate_limit.samples_per_second=1000000"],
    ] {
        let mut pipeline = pipeline_with(set);
        // Until a draw has let each line through twice.
        (0..100).for_each(|_| pipeline.datagram(&lines[0]));
        assert_eq!(allocations(&mut pipeline, &lines), 0, "{set:?}");
    }
}

#[test]
fn ever_new_users_allocate_nothing_once_their_buckets_are_known() {
    let line = |n: u64| format!("bot.messages:1|c|#user_id:{n},type:message").into_bytes();
    let mut pipeline = pipeline();
    // Every one of the hundred buckets is met at least three times.
    (0..5000).for_each(|n| pipeline.datagram(&line(n)));
    let new: Vec<Vec<u8>> = (1_000_000..1_001_000).map(line).collect();
    let counted = allocation_counter::measure(|| new.iter().for_each(|datagram| pipeline.datagram(datagram)));
    assert_eq!(counted.count_total, 0);
    assert_eq!(pipeline.tally().recorded_of(SampleType::Counter), 6000);
}

#[test]
fn refused_lines_allocate_nothing() {
    for (line, reason) in [
        ("no colon", DropReason::MalformedLine),
        ("a:x|c", DropReason::MalformedValue),
        ("a:1|c||", DropReason::MalformedField),
        ("a:1|ms|@2", DropReason::SampleRate),
        ("a:1|x", DropReason::UnknownType),
        ("u:|s", DropReason::MalformedValue),
        ("a,k=v:1|c|#l:w", DropReason::MixedTagStyles),
        ("a:-1|c", DropReason::NegativeCounter),
        ("a:nan|g", DropReason::NotFinite),
        ("statsieve_a:1|g", DropReason::TypeConflict),
        ("a:1|c|#__x:1", DropReason::ReservedLabel),
        ("#k=v:1|c", DropReason::EmptyName),
    ] {
        let mut pipeline = pipeline();
        assert_eq!(allocations(&mut pipeline, &[line.as_bytes().to_vec()]), 0, "{line:?}");
        assert_eq!(pipeline.tally().dropped_for(reason), 1003, "{line:?}");
    }
    let mut pipeline = pipeline();
    assert_eq!(allocations(&mut pipeline, &[b"a:1|c|#k:\xff".to_vec(), vec![b'a'; 8193]]), 0);
    assert_eq!(pipeline.tally().dropped_for(DropReason::InvalidUtf8), 503);
    assert_eq!(pipeline.tally().dropped_for(DropReason::LineTooLong), 503);
}

/// The counter counts: a line never seen before does allocate.
#[test]
fn a_new_identity_is_seen_to_allocate() {
    let mut pipeline = pipeline();
    assert!(allocation_counter::measure(|| pipeline.datagram(b"a:1|c")).count_total > 0);
}

/// Live bytes of everything that `work` allocates and frees on this thread.
fn live(work: impl FnOnce()) -> i64 {
    allocation_counter::measure(work).bytes_current
}

/// Against the store alone, whose numbers all exist in both shards: what `max_bytes` is charged covers what is
/// allocated, whatever comes and goes.
#[test]
fn series_take_no_more_bytes_than_they_are_charged() {
    const FAMILIES: usize = 40;
    let (max_series, max_bytes) = (6000, 2 << 20);
    let limits = Limits {
        max_series,
        max_series_per_family: max_series,
        max_families: FAMILIES,
        max_bytes,
        max_values: usize::MAX,
        simplify_at: 1.0,
        keep_labels: Vec::new(),
        evict_idle_after: Duration::from_secs(10),
        idle_ttl: Duration::ZERO,
        zero_first: Duration::ZERO,
    };
    let books = Arc::<SeriesBooks>::default();
    let shapes = [
        Shape::Counter,
        Shape::Gauge,
        Shape::of(&Observation::Histogram { bounds: vec![0.5; 12], native_factor: 1.1, native_max_buckets: 160 }),
        Shape::of(&Observation::Summary { quantiles: vec![0.5, 0.9], max_age: Duration::from_secs(60) }),
        Shape::set(Duration::from_secs(60), 1024),
    ];
    let (mut labels, mut text) = (LabelSet::default(), Vec::with_capacity(4096));
    let gate = Gate::new(limits.clone(), 0);
    let store = Store::new(2, books.clone());
    let mut recorders = [store.recorder(0), store.recorder(1)];
    let mut random = fastrand::Rng::with_seed(5);
    // What lies outside of max_bytes, and what the store keeps for itself, such as the lists of the sweep.
    let outside = most_bytes_outside(FAMILIES, 256, "overflow=\"true\"", 40, 2) as i64 + (1 << 20);
    let (mut alive, mut at_limit, mut least_charged) = (0, 0, i64::MAX);
    for second in 1..400_u64 {
        // Sizes change with time, so that what was freed has to do for something else.
        let (longest, kinds) = (random.usize(1..400), random.usize(1..6));
        alive += live(|| {
            for _ in 0..200 {
                let family = random.usize(..FAMILIES);
                let shape = &shapes[family % kinds];
                let name = format!("family_{:?}_{family}", shape.kind());
                labels.clear();
                for label in 0..random.usize(..6) {
                    let value = format!("{:x<1$}", random.u32(..), random.usize(..longest));
                    labels.set(format!("label_{label}").as_bytes(), value.as_bytes(), Origin::Tag, 32).unwrap();
                }
                let wanted = Wanted {
                    name: &name,
                    written: &name,
                    help: None,
                    shape,
                    sample: None,
                    ttl: None,
                    generation: 0,
                    overflow_labels: "overflow=\"true\"",
                    sight: if random.u8(..10) == 0 { Sight::Second } else { Sight::First },
                    now: second,
                };
                let Ok(placed) = store.place(wanted, &mut labels, &mut text, &gate) else { continue };
                at_limit += u64::from(placed.overflow);
                for recorder in &mut recorders {
                    recorder.set_time(second);
                    if shape.kind() == Kind::Set {
                        // Some are refused, where a sketch finds no room to grow.
                        (0..random.usize(1..200))
                            .for_each(|_| _ = recorder.record_member(&placed.place, random.u64(..)));
                        continue;
                    }
                    for _ in 0..if shape.kind().is_observer() { random.usize(1..100) } else { 1 } {
                        recorder.record(&placed.place, (random.f64() * 20.0).exp2(), 1.0, false).unwrap();
                    }
                }
            }
            store.sweep(second, &limits);
        });
        let charged = books.bytes.load(Relaxed) as i64;
        assert!(charged <= max_bytes as i64 + outside, "{second}: {charged}");
        assert!(alive <= charged + outside, "{second}: {alive} bytes live, {charged} charged");
        if second > 200 {
            least_charged = least_charged.min(charged);
            assert!(alive * 2 > charged, "{second}: {alive} bytes live, {charged} charged");
        }
    }
    let evicted = books.expired[ExpiryCause::Evicted.index()].load(Relaxed);
    assert!(evicted > 2000 && at_limit > 5000, "{evicted} gave way, {at_limit} met a limit");
    assert!(least_charged > max_bytes as i64 / 2, "{least_charged}");
}

/// Users, chats and names that come once and never again, for two weeks of a clock that is moved by hand.
#[test]
fn two_weeks_of_churn_leave_as_much_alive_as_two_days() {
    let set = [
        "cardinality.max_series=1500",
        "cardinality.max_series_per_family=800",
        "cardinality.max_families=120",
        "cardinality.simplify_at=1",
        "cardinality.identity_cache_bytes=131072",
        "labels.max_values=1000000",
        // This quota goes by the real clock, and two weeks are over in a second.
        "cardinality.new_series_per_second=0",
        "rate_limit.samples_per_second=1000000000",
        "rate_limit.family_samples_per_second=1000000000",
        "heavy_hitters.capacity=50",
        "distinct.registers=256",
        "mapping.rules=[{match='bot.wait.*',name='bot_wait',labels={chat='$1'},observer_type='summary'}]",
    ];
    let set = set.iter().map(ToString::to_string).collect();
    let config = load(&Sources { file: None, set }).unwrap().config;
    let limits = Limits::new(&config.cardinality, &config.labels);
    let series = Arc::<SeriesBooks>::default();
    let evicted = || series.expired[ExpiryCause::Evicted.index()].load(Relaxed);
    let books = Books::default();
    let mut random = fastrand::Rng::with_seed(3);
    let (mut alive, mut days, mut rig) = (0, Vec::new(), None);
    alive += live(|| {
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(&config)));
        let store = Arc::new(Store::new(1, series.clone()));
        rig = Some((Pipeline::new(rules, store.clone(), 0), store));
    });
    let (mut pipeline, store) = rig.unwrap();
    for day in 0..14_u64 {
        let gone_before = evicted();
        let (mut of_day, mut beside) = (0, 0);
        for hour in 0..24 {
            let start = Duration::from_secs((day * 24 + hour) * 3600);
            let text = |longest| "x".repeat(random.usize(..longest));
            let lines = lines_of_an_hour(day, hour, text);
            alive += live(|| {
                // Two sights, and room for what asks again once the sweep has been.
                for (seconds, is_sent) in [(0, true), (1, true), (2, false), (3, false), (6, true)] {
                    let now = start + Duration::from_secs(seconds);
                    pipeline.begin(now);
                    if is_sent {
                        lines.iter().for_each(|line| pipeline.datagram(line.as_bytes()));
                    }
                    pipeline.end(&books);
                    store.sweep(tick(now), &limits);
                }
            });
            of_day += alive;
            beside += alive - series.bytes.load(Relaxed) as i64;
        }
        let gone = evicted() - gone_before;
        assert!(day == 0 || gone > 2000, "day {day}: only {gone} series gave way to others");
        days.push((of_day / 24, beside / 24));
    }
    // Lengths of names and texts are random, and so is when a table shrinks: days differ by a few per cent. Eight bytes
    // kept of each series that went would be a third more after ten days.
    let steady = &days[1..];
    let within = |what: &str, of: &dyn Fn(&(i64, i64)) -> i64, per_cent: i64| {
        let (least, most) = (steady.iter().map(of).min().unwrap(), steady.iter().map(of).max().unwrap());
        assert!((most - least) * 100 <= least * per_cent, "{what} of a day are {least} to {most}: {days:?}");
        let mean = |days: &[(i64, i64)]| days.iter().map(of).sum::<i64>() / days.len() as i64;
        let (first, last) = (mean(&steady[..4]), mean(&steady[9..]));
        assert!(last * 100 <= first * 108, "{what} are {first} in the first four days, {last} in the last: {days:?}");
    };
    within("live bytes", &|day| day.0, 15);
    within("live bytes beside those charged to series", &|day| day.1, 15);
    let recorded: u64 = SampleType::ALL.iter().map(|kind| pipeline.tally().recorded_of(*kind)).sum();
    assert!(recorded > 200_000, "{recorded}");
}

/// What a busy bot sends in one hour: little of it was ever there before, and what comes again is as long as any.
fn lines_of_an_hour(day: u64, hour: u64, mut text: impl FnMut(usize) -> String) -> Vec<String> {
    let now = day * 24 + hour;
    let mut lines = Vec::new();
    for n in 0..150 {
        let (chat, user) = (now * 1000 + n, day * 100 + n % 100);
        lines.push(format!("bot.messages:1|c|#user_id:{user},chat_id:{chat}{}", text(60)));
        lines.push(format!("bot.updates:1|c|#chat_id:{chat},kind:{}", text(20)));
        // Gauges ask for places of their own, where counters go on with fewer labels.
        lines.push(format!("bot.queue:{n}|g|#chat_id:{chat}{}", text(200)));
        if n % 3 == 0 {
            lines.push(format!("bot.tags:1|c|#chat_id:{chat},bare,empty:,long:{}", text(600)));
        }
        if n % 10 == 0 {
            lines.push(format!("bot.latency:{n}:{}:{}|ms|#chat_id:{chat}", n * n, 1 + n * n * n));
            lines.push(format!("bot.wait.{chat}:{n}:{}:{}|ms", n * n, 1 + n * n * n));
            lines.push(format!("bot.users:{user}|s|#chat_id:{chat}\nbot.users:x{user}|s|#chat_id:{chat}"));
            lines.push(format!("bot.release_{day}.feature_{chat}.{}:1|c", text(40)));
            lines.push(format!("bot.size_{now}_{}:{n}|h", n / 30));
        }
        lines.push(format!("bot.commands:1|c|#command:c{},user_id:{user}", n % 20));
    }
    lines
}
