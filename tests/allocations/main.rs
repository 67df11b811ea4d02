//! The hot path allocates nothing: known identities go from datagram to cell within what is there already.
//!
//! Here alone, since the counter is the global allocator of the whole test binary.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]

use std::sync::Arc;

use arc_swap::ArcSwap;
use statsieve::aggregate::Store;
use statsieve::config::{Sources, load};
use statsieve::model::{DropReason, SampleType};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, SeriesBooks};

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
        "bot.fields:1|c|#k:v|c:abc|T1700000000|e:it-false|card:low|x:y",
        "bot.rate:1|c|@x",
        "bot.dropped:1|c|#message_id:5,dd.internal.x:1,k:v",
        "bot.tags:1|c|#bare,k:,k:v",
        "bot.größe:1|g|#name:schön",
        "a:1|c\r\nb:1|g\r\n\r\n",
    ] {
        let mut pipeline = pipeline();
        assert_eq!(allocations(&mut pipeline, &[lines.as_bytes().to_vec()]), 0, "{lines:?}");
        let recorded: u64 = SampleType::ALL.iter().map(|kind| pipeline.tally().recorded_of(*kind)).sum();
        assert!(recorded >= 1003, "{lines:?}: {recorded} recorded");
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
        ("u:alice|s", DropReason::UnknownType),
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
