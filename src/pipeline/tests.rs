//! Datagrams through all stages: what is in the scrape and in the books afterwards.

use super::*;
use crate::config::{Format, Sources, load};
use crate::expose::SeriesSource;
use crate::model::ClientFigure;

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
        ("u:x:y|s", "lines=1 set=1"),
        ("u:1|s|@0.5", "lines=1 set=1"),
        ("u:1|s:2|s:3|s", "lines=1 set=3"),
        ("u:|s", "lines=1 malformed_value=1"),
        ("_sc|db|0", "lines=1 service_check=1"),
        ("_sc|db|7", "lines=1 malformed_value=1"),
        ("_sc|db|0|#:v", "lines=1 reserved_label=1"),
        ("_e{1,1}:a|b|t:error|#:v", "lines=1 event=1"),
        ("_e{1,1}:a|b|Q|x:y", "lines=1 event=1 field:x=1 field:Q=1"),
        ("_e{2,1}:a|b", "lines=1 malformed_line=1"),
        ("statsd_events:1|c", "lines=1 type_conflict=1"),
        ("statsd_service_check_status:1|g", "lines=1 type_conflict=1"),
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
fn events_count_by_alert_type_and_service_checks_show_their_last_status() {
    let found = Sidecar::after(
        &["labels.add={bot='support'}"],
        &[
            "_e{5,4}:title|text|#user_id:42,k:v",
            "_e{5,4}:other|text|#user_id:43",
            "_e{1,1}:||||t:error",
            "_sc|db|2|#user_id:42,k:v,check:other,message_id:5|m:it is down",
            "_sc|db|1|#user_id:42,k:v,check:other|d:17",
            "_sc|queue|0",
        ],
    );
    assert_eq!(
        found,
        [
            r#"statsd_events_total{alert_type="info",bot="support"} 2"#,
            r#"statsd_events_total{alert_type="error",bot="support"} 1"#,
            r#"statsd_service_check_status{bot="support",check="db",k="v",user_bucket="bucket_1"} 1"#,
            r#"statsd_service_check_status{bot="support",check="queue"} 0"#,
        ]
    );
}

#[test]
fn service_checks_of_two_containers_are_two_series_where_the_container_id_is_a_label() {
    let sent = ["_sc|db|2|#k:v|c:one", "_sc|db|0|#k:v|m:well|c:two", "_e{1,1}:a|b|c:one", "_e{1,1}:a|b|c:two"];
    let found = Sidecar::after(&["parse.container_id_label=container_id"], &sent);
    assert_eq!(
        found,
        [
            r#"statsd_service_check_status{check="db",container_id="one",k="v"} 2"#,
            r#"statsd_service_check_status{check="db",container_id="two",k="v"} 0"#,
            r#"statsd_events_total{alert_type="info"} 2"#,
        ]
    );
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
        [r#"a_total{bot="b",overflow="true"} 80"#, r#"a_total{bot="b",k="0"} 10"#, r#"a_total{bot="b",k="1"} 10"#]
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

/// The refused sample once counted as asking, so the family was not made anew, and all its samples were refused.
#[test]
fn a_refused_type_does_not_keep_a_family_from_what_a_reload_makes_of_it() {
    let mut sidecar = Sidecar::new(&[]);
    assert_eq!(sidecar.books(b"a:1|h"), "lines=1 histogram=1");
    sidecar.rules.store(Arc::new(Rules { generation: 1, ..rules(&["observer.type=summary"]) }));
    assert_eq!(sidecar.books(b"a:1|g"), "lines=1 type_conflict=1");
    assert_eq!(sidecar.books(b"a:1|h"), "lines=1 histogram=1");
}

/// Its worker once remembered for good that there was no room.
#[test]
fn what_was_refused_at_a_limit_gets_its_place_once_there_is_room() {
    let mut sidecar = Sidecar::new(&["cardinality.max_families=1", "cardinality.idle_ttl=2s"]);
    let mut at = |second, line: &str| {
        let now = Duration::from_secs(second);
        sidecar.store.sweep(clock::tick(now), &sidecar.rules.load().gate.limits);
        let worker = &mut sidecar.workers[0];
        worker.begin(now);
        worker.datagram(line.as_bytes());
        worker.end(&Books::default());
        sidecar.scrape()
    };
    assert_eq!(at(1, "a:1|c"), ["a_total 1"]);
    (2..4).for_each(|second| assert_eq!(at(second, "b:1|g"), ["a_total 1"], "refused, and remembered"));
    assert_eq!(at(10, "b:1|g"), [""; 0], "the other has gone");
    assert_eq!(at(80, "b:1|g"), ["b 1"]);
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

/// Sends to the first worker, whose draws begin from `seed`.
fn seeded(set: &[&str], seed: u64) -> Sidecar {
    let mut sidecar = Sidecar::new(set);
    let sampling = sidecar.rules.load().sampling;
    sidecar.workers[0].stages.sampler = Sampler::new(sampling, seed);
    sidecar
}

#[test]
fn lines_left_out_count_each_value_and_the_others_are_never_thinned() {
    let mut sidecar = seeded(&["sampling.mode=fixed", "sampling.rate=1e-12"], 1);
    for (line, books) in [
        ("a:1|c", "lines=1 sampled=1"),
        ("a:1|ms|#k:v", "lines=1 sampled=1"),
        ("a:1:2::3|h|@0.5", "lines=1 sampled=3"),
        ("a:x|d", "lines=1 sampled=1"),
        ("g:5|g", "lines=1 gauge=1"),
        ("a:1|c:2|ms", "lines=1 counter=1 timer=1"),
        ("u:x|s", "lines=1 set=1"),
        ("_e{1,1}:a|c", "lines=1 event=1"),
        ("_sc|db|1", "lines=1 service_check=1"),
        ("a:1|q", "lines=1 unknown_type=1"),
        ("nothing", "lines=1 malformed_line=1"),
        ("a:1|c|#k:\u{e9}\na:\u{e9}|c", "lines=2 sampled=2"),
    ] {
        for sight in 1..=3 {
            assert_eq!(sidecar.books(line.as_bytes()), books, "{line:?}, sight {sight}");
        }
    }
    assert_eq!(sidecar.books(b"a:1|c|#k:\xff"), "lines=1 invalid_utf8=1");
    // What is never thinned is never weighed, not even beside thinned lines.
    let events = r#"statsd_events_total{alert_type="info"} 3"#;
    let check = r#"statsd_service_check_status{check="db"} 1"#;
    assert_eq!(
        sidecar.scrape(),
        ["g 5", "a_total 3", "a_seconds_sum 0.006", "a_seconds_count 3", "u 1", events, check]
    );
}

#[test]
fn what_is_kept_weighs_one_over_the_rate_times_what_the_client_said() {
    for (line, sum) in [("a:3|c", 6.0), ("a:3|c|@0.25", 24.0), ("a:3|c|@0.25|T1700000000", 6.0), ("a:1:2|c", 6.0)] {
        let mut sidecar = seeded(&["sampling.mode=fixed", "sampling.rate=0.5"], 5);
        let mut kept = 0.0;
        for _ in 0..100 {
            kept += f64::from(u8::from(sidecar.books(line.as_bytes()).contains("counter")));
        }
        assert_eq!(sidecar.scrape(), [format!("a_total {}", kept * sum)], "{line:?}");
        assert!((20.0..=80.0).contains(&kept), "{line:?}: {kept}");
    }
}

#[test]
fn a_loaded_worker_thins_and_one_at_rest_takes_everything_again() {
    let mut sidecar = seeded(&[], 3);
    let worker = &mut sidecar.workers[0];
    let signals = |load| Signals { load, throttled: false, fill: 0.0, intervals: 1 };
    (0..10).for_each(|_| worker.adjust(&signals(1.0)));
    let books = Books::default();
    worker.end(&books);
    assert_eq!(books.load_ratio(), 1.0);
    assert!((books.sampling_rate() - 0.8_f64.powi(10)).abs() < 1e-12, "{}", books.sampling_rate());
    (0..1000).for_each(|_| worker.datagram(b"a:1|c"));
    let sampled = worker.tally().dropped_for(DropReason::Sampled);
    assert!((800..1000).contains(&sampled), "{sampled}");
    assert_eq!(sampled + worker.tally().recorded_of(SampleType::Counter), 1000);
    (0..10).for_each(|_| worker.adjust(&signals(0.0)));
    (0..1000).for_each(|_| worker.datagram(b"a:1|c"));
    assert_eq!(worker.tally().dropped_for(DropReason::Sampled), sampled);
}

/// Sums and counts over many seeds: right on average, and as far off as theory says.
///
/// The Horvitz-Thompson estimate of a sum over values v kept at rates r has the variance sum(v^2 (1 - r) / r).
#[test]
fn sums_and_counts_are_unbiased_while_the_rate_changes_in_mid_stream() {
    const SEEDS: u32 = 1500;
    const LINES: u32 = 90;
    const RATES: [&str; 3] = ["sampling.rate=0.5", "sampling.rate=0.125", "sampling.rate=0.8"];
    let value = |n: u32| f64::from(1 + n % 5);
    let rate = |n: u32| [0.5, 0.125, 0.8][(n * 3 / LINES) as usize];
    let numbers = || 0..LINES;
    let variance =
        |size: &dyn Fn(u32) -> f64| -> f64 { numbers().map(|n| size(n).powi(2) * (1.0 - rate(n)) / rate(n)).sum() };
    let sum: f64 = numbers().map(value).sum();
    // Counter, sum of a histogram, its count; the client left out three of four observations.
    let expected = [
        (sum, variance(&value)),
        (4.0 * sum, variance(&|n| 4.0 * value(n))),
        (4.0 * f64::from(LINES), variance(&|_| 4.0)),
    ];

    let mut found = [const { Vec::new() }; 3];
    for seed in 0..SEEDS {
        let mut sidecar = seeded(&["sampling.mode=fixed", RATES[0]], u64::from(seed));
        for n in numbers() {
            if n % (LINES / 3) == 0 {
                let set = ["sampling.mode=fixed", RATES[(n * 3 / LINES) as usize]];
                sidecar.rules.store(Arc::new(rules(&set)));
            }
            let v = value(n);
            sidecar.workers[0].datagram(format!("c:{v}|c\nh:{v}|h|@0.25").as_bytes());
        }
        let tally = sidecar.workers[0].tally();
        let booked = tally.recorded_of(SampleType::Counter)
            + tally.recorded_of(SampleType::Histogram)
            + tally.dropped_for(DropReason::Sampled);
        assert_eq!(booked, u64::from(2 * LINES), "seed {seed}");
        let scrape = sidecar.scrape();
        for (place, name) in ["c_total ", "h_sum ", "h_count "].iter().enumerate() {
            let line = scrape.iter().find_map(|line| line.strip_prefix(name));
            found[place].push(line.map_or(0.0, |text| text.parse::<f64>().expect("a number")));
        }
    }
    let seeds = f64::from(SEEDS);
    for ((mean, variance), found) in expected.into_iter().zip(found) {
        let average = found.iter().sum::<f64>() / seeds;
        let errors = (average - mean) / (variance / seeds).sqrt();
        assert!(errors.abs() < 3.0, "{average}, not {mean}: {errors} standard errors off");
        let spread = found.iter().map(|x| (x - average).powi(2)).sum::<f64>() / (seeds - 1.0);
        // The variance of a sample's variance is about 2/n of its square.
        let errors = (spread / variance - 1.0) / (2.0 / seeds).sqrt();
        assert!(errors.abs() < 4.0, "variance {spread}, not {variance}: {errors} standard errors off");
    }
}

#[test]
fn past_a_quota_each_value_is_rate_limited_and_the_books_balance() {
    for set in ["rate_limit.samples_per_second=40", "rate_limit.family_samples_per_second=40"] {
        let mut sidecar = Sidecar::new(&[set]);
        let started = std::time::Instant::now();
        for _ in 0..200 {
            sidecar.workers[0].datagram(b"a:1:2|c\na:5|c\na:x|c\na:-1|c");
        }
        // At most what one second gives at once, and what came since.
        let most = 40 + (started.elapsed().as_secs_f64() * 40.0).ceil() as u64;
        let tally = sidecar.workers[0].tally();
        let recorded = tally.recorded_of(SampleType::Counter);
        assert_eq!(recorded + tally.dropped_for(DropReason::RateLimited), 600);
        assert!((40..=most).contains(&recorded), "{set}: {recorded}, at most {most}");
        // What would not be recorded takes nothing from a quota.
        assert_eq!(tally.dropped_for(DropReason::MalformedValue), 200);
        assert_eq!(tally.dropped_for(DropReason::NegativeCounter), 200);
    }
}

#[test]
fn a_family_over_its_quota_takes_nothing_from_others() {
    let mut sidecar = Sidecar::new(&["rate_limit.family_samples_per_second=20"]);
    (0..200).for_each(|_| sidecar.workers[0].datagram(b"loud:1|c"));
    assert_eq!(sidecar.books(b"quiet:1|c"), "lines=1 counter=1");
    // Under a new configuration a quota begins anew, and without one nothing is cut.
    sidecar.rules.store(Arc::new(rules(&[])));
    (0..200).for_each(|_| sidecar.workers[0].datagram(b"loud:1|c"));
    let tally = sidecar.workers[0].tally();
    assert!(tally.recorded_of(SampleType::Counter) > 200);
}

#[test]
fn rules_scale_in_the_base_unit_before_a_counter_is_judged() {
    let rules = "mapping.rules=[{match=\"*.neg\",name=\"neg\",scale=-1},{match=\"*.zero\",name=\"zero\",scale=0},\
                 {match=\"*.ms\",name=\"ms\",scale=1000},{match=\"*.g\",name=\"g\",scale=10}]";
    let scrape = Sidecar::after(
        &[rules],
        &["a.neg:-2|c", "a.zero:5|c", "a.ms:7|ms", "a.g:1|g", "a.g:+2|g", "a.neg:-2:-3|c|@0.5", "plain:1|c"],
    );
    assert_eq!(scrape, ["neg 12", "zero 0", "ms_sum 7", "ms_count 1", "g 30", "plain_total 1"]);
    // What is refused for its sign makes no series, at no sight.
    let mut sidecar = Sidecar::new(&[rules]);
    for sight in 1..=4 {
        assert_eq!(sidecar.books(b"a.neg:1|c"), "lines=1 negative_counter=1", "sight {sight}");
        assert_eq!(sidecar.books(b"plain:-1:-2|c"), "lines=1 negative_counter=2", "sight {sight}");
    }
    assert_eq!(sidecar.scrape(), [""; 0]);
    assert_eq!(sidecar.books(b"a.neg:-1:1|c"), "lines=1 counter=1 negative_counter=1");
}

#[test]
fn every_sample_that_reaches_the_rules_counts_one_action() {
    let rules = "mapping.rules=[{match=\"a.*\",name=\"a\"},{match=\"drop\",name=\"x\",action=\"drop\"}]";
    let mut sidecar = Sidecar::new(&[rules]);
    for _ in 0..4 {
        sidecar.workers[0]
            .datagram(b"a.x:1|c\na.y:1:2:3|c|@0.5\nb:1|c\nb:1:x|c\ndrop:1|c\ndrop:1:2|g\na.x:1|g\nbad:x|c");
    }
    let tally = sidecar.workers[0].tally();
    let dropped = tally.dropped_for(DropReason::MappingDrop);
    // A clash of types is found behind the rules; a value that cannot be read on its own is found before.
    assert_eq!((tally.get(Count::Mapped), tally.get(Count::Unmapped), dropped), (4 * 5, 4 * 3, 4 * 3));
}

#[test]
fn the_first_rule_of_a_name_gives_it_help_and_bounds() {
    let rules = "mapping.rules=[{match=\"a\",name=\"x\",help=\"one\\ntwo\",buckets=[1]},\
                 {match=\"b\",name=\"x\",help=\"other\",buckets=[2, 3]},{match=\"s\",name=\"s\",observer_type=\"summary\"}]";
    let mut sidecar = Sidecar::new(&[rules, "observer.buckets=[7]"]);
    sidecar.workers[0].datagram(b"a:1|h\nb:1|h\ns:1|h\nu:1|h");
    let (mut pieces, mut out) = (sidecar.store.begin(Format::Text), Vec::new());
    while pieces.next(&mut out) {}
    let text = String::from_utf8(out).unwrap();
    let found: Vec<&str> = text.lines().filter(|line| line.contains("HELP") || line.contains("le=\"")).collect();
    assert_eq!(
        found,
        [
            "# HELP x one\\ntwo",
            "x_bucket{le=\"1.0\"} 2",
            "x_bucket{le=\"+Inf\"} 2",
            "# HELP s Received as s (summary).",
            "s{quantile=\"0.5\"} 1",
            "s{quantile=\"0.9\"} 1",
            "s{quantile=\"0.95\"} 1",
            "s{quantile=\"0.99\"} 1",
            "# HELP u Received as u (histogram).",
            "u_bucket{le=\"7.0\"} 1",
            "u_bucket{le=\"+Inf\"} 1",
        ]
    );
}

const TOLD: &[u8] = b"datadog.dogstatsd.client.packets_dropped:3|c|#client:go,client_transport:udp\n\
    datadog.dogstatsd.client.packets_dropped:4|c|#client:py,worker:2\n\
    datadog.dogstatsd.client.packets_dropped_queue:7|c|#client:py\n\
    datadog.dogstatsd.client.bytes_sent:1000:24|c|@0.5|#client:py\n\
    datadog.dogstatsd.client.packets_dropped:-1|c\n\
    datadog.dogstatsd.client.packets_dropped:nan|c";

#[test]
fn what_clients_tell_of_themselves_is_added_up_without_a_series() {
    let mut sidecar = Sidecar::new(&[]);
    assert_eq!(sidecar.books(TOLD), "lines=6 counter=5 negative_counter=1 not_finite=1");
    assert_eq!(sidecar.scrape(), [""; 0]);
    let tally = sidecar.workers[0].tally();
    let told = ClientFigure::ALL.iter().map(|figure| tally.client_of(*figure)).collect::<Vec<_>>();
    assert_eq!(told, [0, 0, 2048, 7, 0, 0]);
    assert_eq!((tally.get(Count::Unmapped), tally.get(Count::CacheMisses)), (5, 0));
    // Other types, and names that no client sends, are metrics like any other.
    sidecar.books(b"datadog.dogstatsd.client.packets_dropped:3|g\ndatadog.dogstatsd.client.mood:1|c|#client:py");
    let series = ["datadog_dogstatsd_client_packets_dropped 3", "datadog_dogstatsd_client_mood_total{client=\"py\"} 1"];
    assert_eq!(sidecar.scrape(), series);
}

#[test]
fn what_clients_tell_is_never_thinned_nor_mapped_and_is_a_metric_if_so_configured() {
    let rule = r#"mapping.rules=[{match=".",match_type="regex",name="x",action="drop"}]"#;
    let mut sidecar = Sidecar::new(&["sampling.mode=fixed", "sampling.rate=0.01", rule]);
    for _ in 0..200 {
        sidecar.books(b"datadog.dogstatsd.client.packets_sent:5|c");
    }
    let tally = sidecar.workers[0].tally();
    assert_eq!((tally.client_of(ClientFigure::Packets), tally.dropped_in_all()), (1000, 0));
    let mut sidecar = Sidecar::new(&["parse.client_telemetry=false"]);
    assert_eq!(sidecar.books(TOLD), "lines=6 counter=5 negative_counter=1 not_finite=1");
    let names: Vec<String> =
        sidecar.scrape().iter().map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect();
    let dropped = "datadog_dogstatsd_client_packets_dropped_total";
    assert_eq!(names.iter().filter(|name| *name == dropped).count(), 2, "{names:?}");
}

#[test]
fn figures_near_the_largest_number_spoil_nothing() {
    let mut sidecar = Sidecar::new(&[]);
    for _ in 0..5000 {
        sidecar.books(b"datadog.dogstatsd.client.bytes_sent:9007199254740992|c");
    }
    assert_eq!(sidecar.books(b"datadog.dogstatsd.client.bytes_sent:1e300|c"), "lines=1 not_finite=1");
    assert_eq!(sidecar.workers[0].tally().client_of(ClientFigure::Bytes), u64::MAX);
}
