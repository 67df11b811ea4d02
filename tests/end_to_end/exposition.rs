//! The same series whatever the format.

use std::collections::BTreeSet;

use statsieve::command::check::WorstCase;
use statsieve::config::Config;

use crate::harness::{Scrape, Sidecar};

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
fn text_and_open_metrics_hold_the_same_series_with_the_same_values() {
    // A counter whose name has no `_total` keeps it in both.
    let sidecar = Sidecar::start(&["naming.counter_suffix="]);
    sidecar.take(&LINES);
    // Each format once before, so that what counts scrapes by format has counted both.
    sidecar.scrape_as(OPEN_METRICS);
    let text = sidecar.scrape();
    let open = sidecar.scrape_as(OPEN_METRICS);
    assert!(text.content_type.starts_with("text/plain; version=0.0.4"), "{}", text.content_type);
    assert!(open.content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{}", open.content_type);
    assert!(open.text.ends_with("# EOF\n"), "{}", open.text);
    assert!(!text.text.contains("# EOF"), "{}", text.text);
    assert_eq!(text.user_series(), open.user_series());
    assert_eq!(keys(&text), keys(&open), "the sidecar's own series");
    assert_eq!(text.value("bot_messages{activity_type=\"message\",user_bucket=\"bucket_1\"}"), 3.0);
    // Two observers of one label set (15 lines each), six others.
    assert_eq!(text.user_series().len(), 2 * 15 + 6, "{}", text.text);
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
