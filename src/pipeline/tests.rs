//! Datagrams through all stages: what is in the scrape and in the books afterwards.

use super::*;
use crate::config::{Format, Sources, load};
use crate::expose::SeriesSource;

struct Sidecar {
    rules: Arc<ArcSwap<Rules>>,
    store: Arc<Store>,
    workers: Vec<Pipeline>,
}

fn rules(set: &[&str]) -> Rules {
    let set = set.iter().map(ToString::to_string).collect();
    Rules::new(&load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config)
}

impl Sidecar {
    fn new(set: &[&str]) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(rules(set)));
        let store = Arc::new(Store::new(2, Arc::default()));
        let workers = (0..2).map(|worker| Pipeline::new(rules.clone(), store.clone(), worker)).collect();
        Self { rules, store, workers }
    }

    /// Sends datagrams to the first worker and returns the scrape.
    fn after(set: &[&str], datagrams: &[&str]) -> Vec<String> {
        let mut sidecar = Self::new(set);
        datagrams.iter().for_each(|datagram| sidecar.workers[0].datagram(datagram.as_bytes()));
        sidecar.scrape()
    }

    /// Sample lines but for buckets.
    fn scrape(&self) -> Vec<String> {
        let (mut pieces, mut out) = (self.store.begin(Format::Text), Vec::new());
        while pieces.next(&mut out) {}
        let text = String::from_utf8(out).expect("labels were UTF-8");
        text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")).map(str::to_owned).collect()
    }

    /// Sends to the first worker and returns what its books gained, in words.
    fn books(&mut self, datagram: &[u8]) -> String {
        let worker = &mut self.workers[0];
        let before = worker.tally().clone();
        worker.datagram(datagram);
        let after = worker.tally();
        let mut words = vec![format!("lines={}", after.get(Count::Lines) - before.get(Count::Lines))];
        let mut add = |word: &str, after: u64, before: u64| {
            if after > before {
                words.push(format!("{word}={}", after - before));
            }
        };
        for kind in SampleType::ALL {
            add(kind.label(), after.recorded_of(*kind), before.recorded_of(*kind));
        }
        for reason in DropReason::ALL {
            add(reason.label(), after.dropped_for(*reason), before.dropped_for(*reason));
        }
        for reason in TagDropReason::ALL {
            add(&format!("tag:{reason}"), after.tags_dropped_for(*reason), before.tags_dropped_for(*reason));
        }
        for (field, n) in after.unknown_fields() {
            let seen = before.unknown_fields().find(|(other, _)| *other == field).map_or(0, |(_, n)| n);
            add(&format!("field:{field}"), n, seen);
        }
        for count in [Count::InvalidRates, Count::OverflowSamples] {
            add(count.label(), after.get(count), before.get(count));
        }
        words.join(" ")
    }
}

#[test]
fn datagrams_are_cut_into_lines_and_blank_ones_are_none() {
    for (datagram, lines) in [
        (&b""[..], 0),
        (b"\n", 0),
        (b"\r\n\r\n", 0),
        (b"\r", 0),
        (b"a:1|c", 1),
        (b"a:1|c\n", 1),
        (b"a:1|c\r\n", 1),
        (b"a:1|c\na:1|c", 2),
        (b"\n\na:1|c\r\n\r\na:1|c\n\n", 2),
    ] {
        let expected = if lines == 0 { "lines=0".to_owned() } else { format!("lines={lines} counter={lines}") };
        assert_eq!(Sidecar::new(&[]).books(datagram), expected, "{:?}", String::from_utf8_lossy(datagram));
    }
    assert_eq!(Sidecar::new(&[]).books(b" \n\t\n\r\r\n"), "lines=3 malformed_line=3");
}

#[test]
fn a_carriage_return_before_the_newline_belongs_to_no_tag() {
    assert_eq!(
        Sidecar::after(&[], &["a:1|g|#k:v\r\nb:1|g\r\nc:1|g|#k:v\r"]),
        [r#"a{k="v"} 1"#, "b 1", r#"c{k="v"} 1"#]
    );
}

/// Each line at its first, second and third sight, which take different ways.
#[test]
fn every_line_is_counted_for_one_reason_at_every_sight() {
    for (line, books) in [
        ("a:1|c", "lines=1 counter=1"),
        ("a:1|g", "lines=1 gauge=1"),
        ("a:1|ms", "lines=1 timer=1"),
        ("a:1|h", "lines=1 histogram=1"),
        ("a:1|d", "lines=1 distribution=1"),
        ("a:1:2:3|c", "lines=1 counter=3"),
        ("a:1|c:2|ms", "lines=1 counter=1 timer=1"),
        ("a:1:x:nan|c", "lines=1 counter=1 malformed_value=1 not_finite=1"),
        ("a:-1:2|c", "lines=1 counter=1 negative_counter=1"),
        ("a:1|c:x|c", "lines=1 counter=1 malformed_value=1"),
        ("a:1|c:2", "lines=1 counter=1 malformed_line=1"),
        ("nothing", "lines=1 malformed_line=1"),
        ("a:x|c", "lines=1 malformed_value=1"),
        ("a:x:y|c", "lines=1 malformed_value=2"),
        ("a:1|c|", "lines=1 malformed_field=1"),
        ("a:1|ms|@2", "lines=1 sample_rate=1"),
        ("a:1|c|@-1", "lines=1 sample_rate=1"),
        ("a:1|q", "lines=1 unknown_type=1"),
        ("a:x:y|s", "lines=1 unknown_type=1"),
        ("_sc|db|0", "lines=1 unknown_type=1"),
        ("a,k=v:1|c|#l:w", "lines=1 mixed_tag_styles=1"),
        ("a:-1|c", "lines=1 negative_counter=1"),
        ("a:inf|g", "lines=1 not_finite=1"),
        ("a:1|ms|@1e-320", "lines=1 not_finite=1"),
        ("a:1e308|c|@0.1", "lines=1 not_finite=1"),
        ("up:1|g", "lines=1 type_conflict=1"),
        ("up:1:2|g", "lines=1 type_conflict=2"),
        ("a:1|c|#__x:1", "lines=1 reserved_label=1"),
        ("a:1|ms|#le:1", "lines=1 reserved_label=1"),
        ("#k=v:1|c", "lines=1 empty_name=1"),
        ("a:1|c|@x", "lines=1 counter=1 invalid_rates=1"),
        ("a:1|g|@0", "lines=1 gauge=1 invalid_rates=1"),
        ("a:1|c|x:1|?|Z", "lines=1 counter=1 field:x=1 field:Z=1 field:other=1"),
        ("a:1|c|#bare,k:,l:w", "lines=1 counter=1 tag:malformed=1 tag:bare=1"),
        ("a:1|c|#message_id:1,dd.internal.x:2,update-id:3", "lines=1 counter=1 tag:dropped=3"),
        ("a[b:1|c", "lines=1 counter=1 tag:malformed=1"),
    ] {
        let mut sidecar = Sidecar::new(&[]);
        for sight in 1..=4 {
            assert_eq!(sidecar.books(line.as_bytes()), books, "{line:?}, sight {sight}");
        }
    }
}

#[test]
fn long_lines_and_bytes_that_are_no_text_spoil_nothing_else() {
    let mut sidecar = Sidecar::new(&["listen.max_line_bytes=64"]);
    let long = format!("a:1|c|#k:{}\n", "v".repeat(56));
    assert_eq!(long.len(), 66);
    let datagram = [long.as_bytes(), &long.as_bytes()[1..], b"b:1|g|#k:\xff\nb:1|g\xc3\nb:2|g|#k:\xc3\xa9\n"].concat();
    assert_eq!(sidecar.books(&datagram), "lines=5 gauge=1 malformed_line=1 invalid_utf8=2 line_too_long=1");
    assert_eq!(sidecar.scrape(), ["b{k=\"é\"} 2"]);
    // The carriage return is no part of the line.
    let exact = format!("a:1|c|#k:{}\r\n", "v".repeat(55));
    assert_eq!(sidecar.books(exact.as_bytes()), "lines=1 counter=1");
}

#[test]
fn a_sample_that_cannot_be_recorded_makes_no_series_and_takes_no_name() {
    for bad in ["a:x|g", "a:nan|g", "a:-1|c", "a:1|h|@1e-320", "a:|ms", "a:x::y|g"] {
        assert_eq!(Sidecar::after(&[], &[bad, bad, bad]), [""; 0], "{bad:?}");
    }
    assert_eq!(Sidecar::after(&[], &["a:x|g", "a:1|h"]), ["a_sum 1", "a_count 1"]);
    // One good value among bad ones is enough.
    assert_eq!(Sidecar::after(&[], &["a:x:-1:2|c"]), ["a_total 2"]);
}

#[test]
fn rates_divide_counters_and_weigh_observations() {
    for (lines, scrape) in [
        (&["a:1|c|@0.1"][..], &["a_total 10"][..]),
        (&["a:6|c|@2"], &["a_total 3"]),
        (&["a:1|c|@0.5|@0.25"], &["a_total 8"]),
        (&["a:1|c|@x", "a:1|c|@0", "a:1|c|@nan"], &["a_total 3"]),
        (&["a:5|c|@0.1|T1700000000"], &["a_total 5"]),
        (&["a:5|g|@0.1"], &["a 5"]),
        (&["a:1:2|h|@0.25"], &["a_sum 12", "a_count 8"]),
        (&["a:2000|ms|@0.5|@0.25"], &["a_seconds_sum 8", "a_seconds_count 4"]),
        (&["a:1|d|@x"], &["a_sum 1", "a_count 1"]),
    ] {
        assert_eq!(Sidecar::after(&[], lines), scrape, "{lines:?}");
    }
}

#[test]
fn signed_gauge_values_are_changes_or_values_as_configured() {
    let lines = ["a:+3|g", "a:-5|g", "a:10|g", "a:-1:+4|g"];
    assert_eq!(Sidecar::after(&[], &lines), ["a 13"]);
    assert_eq!(Sidecar::after(&["parse.gauge_sign=absolute"], &lines), ["a 4"]);
    assert_eq!(Sidecar::after(&["parse.gauge_sign=absolute"], &lines[..2]), ["a -5"]);
}

#[test]
fn gauge_deltas_of_two_workers_add_up_and_counters_merge() {
    let mut sidecar = Sidecar::new(&[]);
    for _ in 0..5 {
        sidecar.workers[0].datagram(b"g:+3|g\nc:1|c\nh:2|h");
        sidecar.workers[1].datagram(b"g:-1|g\nc:2|c\nh:3|h|@0.5");
    }
    assert_eq!(sidecar.scrape(), ["g 10", "c_total 15", "h_sum 40", "h_count 15"]);
}

#[test]
fn a_label_of_one_sample_is_not_seen_by_the_next() {
    let set = ["parse.container_id_label=container_id"];
    assert_eq!(Sidecar::after(&set, &["a:1|g:2|c|c:abc", "a:5|g"]), ["a 5", r#"a_total{container_id="abc"} 2"#]);
}

#[test]
fn a_container_id_without_tags_is_one_sample() {
    assert_eq!(Sidecar::after(&[], &["a:1|c|c:5", "a:1|c|c:abc|card:low|e:it-false"]), ["a_total 2"]);
}

#[test]
fn users_share_the_series_of_their_bucket_in_every_spelling() {
    let users = ["user_id:42", "#user_id:42", "user-id:42", "user.id:42"];
    let lines = users.map(|user| format!("a:1|c|#{user},k:v"));
    let lines = lines.each_ref().map(String::as_str);
    let twice = [lines, lines].concat();
    assert_eq!(Sidecar::after(&[], &twice), [r#"a_total{k="v",user_bucket="bucket_1"} 8"#]);
    assert_eq!(Sidecar::after(&[], &["a,user_id=42:1|c"]), [r#"a_total{user_bucket="bucket_1"} 1"#]);
    assert_eq!(Sidecar::after(&[], &["a:1|h|#user_id:1", "a:1|h|#user_id:2"]), ["a_sum 2", "a_count 2"]);
}

#[test]
fn overflow_after_the_limit_sums_exactly_and_is_counted() {
    let mut sidecar = Sidecar::new(&[
        "cardinality.max_series=3",
        "cardinality.max_series_per_family=2",
        "cardinality.simplify_at=1",
        "labels.add.bot=b",
    ]);
    for round in 1..=4u32 {
        for n in 0..10 {
            let books = sidecar.books(format!("a:{round}|c|#k:{n}").as_bytes());
            let expected = if n < 2 { "lines=1 counter=1" } else { "lines=1 counter=1 overflow_samples=1" };
            assert_eq!(books, expected, "{round} {n}");
        }
    }
    assert_eq!(
        sidecar.scrape(),
        [r#"a_total{bot="b",k="0"} 10"#, r#"a_total{bot="b",k="1"} 10"#, r#"a_total{bot="b",overflow="true"} 80"#]
    );
    assert_eq!(sidecar.books(b"g:1|g|#k:1\ng:1|g|#k:2"), "lines=2 gauge=1 cardinality=1");
    assert_eq!(sidecar.books(b"g:2|g|#k:1\ng:2|g|#k:2"), "lines=2 gauge=1 cardinality=1");
}

#[test]
fn the_first_type_of_a_name_keeps_it() {
    let mut sidecar = Sidecar::new(&["naming.counter_suffix="]);
    for (line, books) in [
        ("a:1|c", "lines=1 counter=1"),
        ("a:1|g", "lines=1 type_conflict=1"),
        ("a:1|h", "lines=1 type_conflict=1"),
        ("b:1|h", "lines=1 histogram=1"),
        ("b:1|d", "lines=1 distribution=1"),
        ("b_count:1|c", "lines=1 type_conflict=1"),
        ("c_sum:1|g", "lines=1 gauge=1"),
        ("c:1|h", "lines=1 type_conflict=1"),
        ("c:1|c", "lines=1 counter=1"),
    ] {
        assert_eq!(sidecar.books(line.as_bytes()), books, "{line:?}");
    }
}

#[test]
fn new_rules_take_effect_on_the_next_datagram() {
    let mut sidecar = Sidecar::new(&[]);
    (0..3).for_each(|_| sidecar.workers[0].datagram(b"a:1|g|#bare,message_id:5,user_id:42"));
    assert_eq!(sidecar.scrape(), [r#"a{user_bucket="bucket_1"} 1"#]);
    sidecar.rules.store(Arc::new(rules(&["parse.bare_tags=true", "labels.drop=[]", "bucketing=[]"])));
    sidecar.workers[0].datagram(b"a:2|g|#bare,message_id:5,user_id:42");
    let new = r#"a{bare="true",message_id="5",user_id="42"} 2"#;
    assert_eq!(sidecar.scrape(), [r#"a{user_bucket="bucket_1"} 1"#, new]);
}

#[test]
fn hits_and_misses_of_the_identity_cache_add_up_to_samples() {
    let mut sidecar = Sidecar::new(&[]);
    (0..10).for_each(|n| sidecar.workers[0].datagram(format!("a:{n}|c|#user_id:42\nb:1|ms").as_bytes()));
    let tally = sidecar.workers[0].tally();
    assert_eq!([Count::CacheHits, Count::CacheMisses].map(|count| tally.get(count)), [16, 4]);
}
