//! The same series whatever the format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use statsieve::command::check::WorstCase;
use statsieve::config::Config;

use crate::harness::{Scrape, Sidecar};
use crate::protobuf::{self, PROTOBUF};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// Lines that make a series of every kind, with whole weights and sums that are not negative.
pub(crate) const LINES: [&str; 10] = [
    "bot.messages:3|c|#user_id:42,activity_type:message",
    "bot.messages:2|c|#user_id:7,activity_type:command",
    "bot.errors:1|c|#kind:quote\"slash\\brace}",
    "bot.queue.size:12.5|g|#queue:outbox",
    "bot.level:-4|g",
    "bot.update.duration:8.1|ms|#type:message",
    "bot.update.duration:400|ms|@0.5|#type:message",
    "bot.reply.bytes:1024|h|#command:help",
    "bot.reply.bytes:70000|d|#command:help",
    "bot.plain:5|c",
];

fn keys(scrape: &Scrape) -> BTreeSet<&str> {
    scrape.samples.keys().map(String::as_str).collect()
}

#[test]
fn all_formats_hold_the_same_series_with_the_same_values() {
    // A counter whose name has no `_total` keeps it in all of them.
    let limits = ["cardinality.max_series_per_family=30", "cardinality.simplify_at=1"];
    let sidecar = Sidecar::start(&[&limits[..], &["naming.counter_suffix="]].concat());
    let mut lines: Vec<String> = LINES.map(str::to_owned).into();
    // Weights that are not whole, what text has to escape, and more series than a family may have.
    lines.extend(
        ["bot.reply.bytes:5:6|h|@0.8|#command:help", "bot.note:1|c|#k:\\n\\\"{x=\"y\",}é", "a\\b\"c:1|g"]
            .map(str::to_owned),
    );
    lines.extend((0..40).map(|n| format!("bot.many:{n}|c|#k:{n}\nbot.slow:{n}|ms|#k:{n}")));
    let sent = lines.iter().map(|lines| lines.lines().count() as u64).sum();
    lines.iter().for_each(|line| sidecar.send(&[line]));
    sidecar.settled(sent);
    // Each format once before, so that what counts scrapes by format has counted all.
    [OPEN_METRICS, PROTOBUF].iter().for_each(|accept| drop(sidecar.scrape_as(accept)));
    let text = sidecar.scrape();
    let open = sidecar.scrape_as(OPEN_METRICS);
    let proto = sidecar.scrape_as(PROTOBUF);
    assert!(text.content_type.starts_with("text/plain; version=0.0.4"), "{}", text.content_type);
    assert!(open.content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{}", open.content_type);
    let delimited = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    assert_eq!(proto.content_type, delimited);
    assert!(open.text.ends_with("# EOF\n"), "{}", open.text);
    assert!(!text.text.contains("# EOF"), "{}", text.text);
    for other in [&open, &proto] {
        assert_eq!(text.user_series(), other.user_series(), "{}", other.content_type);
        assert_eq!(keys(&text), keys(other), "the sidecar's own series: {}", other.content_type);
        assert_eq!(resting(&text), resting(other), "{}", other.content_type);
    }
    assert_eq!(text.value("bot_messages{activity_type=\"message\",user_bucket=\"bucket_1\"}"), 3.0);
    assert_eq!(proto.value("bot_reply_bytes_count{command=\"help\"}"), 4.5);
    assert_eq!(proto.sum("bot_many"), f64::from((0..40).sum::<i32>()));
    assert_eq!(proto.sum("bot_slow_seconds_count"), 40.0);
    assert!(proto.value("bot_many{overflow=\"true\"}") > 0.0);
    assert!(proto.value("statsieve_overflow_samples_total") > 0.0);
    // Two before this one.
    assert_eq!(sidecar.scrape().value("statsieve_scrapes_total{format=\"protobuf\"}"), 2.0);
    sidecar.stop();
}

/// The sidecar's own series that nothing moves while nothing is sent.
fn resting(scrape: &Scrape) -> BTreeMap<&str, f64> {
    let moving = ["statsieve_scrape", "statsieve_load_ratio", "process_", "statsieve_listener"];
    let own = scrape.samples.iter().map(|(series, value)| (series.as_str(), *value));
    own.filter(|(series, _)| !moving.iter().any(|start| series.starts_with(start))).collect()
}

#[test]
fn protobuf_names_families_as_text_does_and_says_since_when_they_count() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let sidecar = Sidecar::start(&[]);
    let text = sidecar.take(&LINES).text;
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let plain = sidecar.get("/metrics", &[("Accept", PROTOBUF)]);
    let families = protobuf::decode(&plain.body);
    let mut head = String::new();
    for family in &families {
        let (name, help) = (&family.name, family.help.replace('\\', "\\\\"));
        let kind = family.r#type().as_str_name().to_lowercase();
        head.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }
    let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(head.lines().collect::<Vec<_>>(), comments);
    for metric in families.iter().flat_map(|family| &family.metric) {
        let start = metric.counter.as_ref().map(|counter| counter.start_timestamp);
        let Some(start) = start.or(metric.histogram.as_ref().map(|histogram| histogram.start_timestamp)) else {
            continue;
        };
        let start = start.map(|start| start.seconds as f64 + f64::from(start.nanos) / 1e9).expect("a start");
        assert!((before..=after).contains(&start), "{start} is not within {before} and {after}: {metric:?}");
    }
    // The same start in every scrape.
    let users = |bytes: &[u8]| -> Vec<_> {
        let families = protobuf::decode(bytes).into_iter();
        families.filter(|family| family.name.starts_with("bot_")).collect()
    };
    let again = sidecar.get("/metrics", &[("Accept", PROTOBUF), ("Accept-Encoding", "gzip")]);
    assert_eq!(again.header("content-encoding"), Some("gzip"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(again.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(users(&unpacked), users(&plain.body));
    sidecar.stop();
}

#[test]
fn every_family_has_one_type_line_and_its_samples_stand_together() {
    let sidecar = Sidecar::start(&[]);
    sidecar.take(&LINES);
    for accept in ["text/plain", OPEN_METRICS] {
        let scrape = sidecar.scrape_as(accept);
        let mut families = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut last = "";
        for line in scrape.text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} has two TYPE lines ({accept})");
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending))
                .filter(|family| families.contains(family))
                .unwrap_or(name);
            if family != last {
                assert!(names.insert(family), "{family} is interrupted by others ({accept})");
                last = family;
            }
        }
    }
    sidecar.stop();
}

#[test]
fn a_scraper_that_names_no_format_gets_text() {
    let sidecar = Sidecar::start(&[]);
    sidecar.take(&LINES);
    for headers in [&[][..], &[("Accept", "*/*")], &[("Accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")]] {
        let reply = sidecar.get("/metrics", headers);
        assert_eq!(reply.status, 200);
        let content_type = reply.header("content-type").unwrap();
        assert!(content_type.starts_with("text/plain; version=0.0.4"), "{headers:?}: {content_type}");
        assert!(reply.text().contains("\nbot_plain_total 5\n"), "{}", reply.text());
    }
    sidecar.stop();
}

#[test]
fn a_new_sidecar_exposes_its_own_series_only() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.scrape();
    assert!(scrape.user_series().is_empty(), "{}", scrape.text);
    for series in ["statsieve_lines_total", "statsieve_samples_dropped_total{reason=\"malformed_line\"}"] {
        scrape.assert(series, 0.0);
    }
    assert_eq!(scrape.of("statsieve_build_info").count(), 1);
    sidecar.stop();
}

#[test]
fn own_metrics_take_no_more_lines_than_check_says() {
    let sidecar = Sidecar::start(&[]);
    let letters = ('a'..='z').chain('A'..='Z').chain(['?']);
    let lines: Vec<String> = letters.map(|letter| format!("hits:1|c|{letter}x")).collect();
    sidecar.take(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let text = sidecar.get("/metrics", &[]).text();
    sidecar.stop();
    let own = text.lines().filter(|line| line.starts_with("statsieve_") || line.starts_with("process_")).count() as u64;
    let said = WorstCase::of(&Config::default_checked()).own;
    assert!(own <= said, "{own} lines of our own, where check says {said}");
}
