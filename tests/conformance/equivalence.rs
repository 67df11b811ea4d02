//! In place of statsd_exporter: with its mapping file and the recipe of the README, its lines make its series, with its
//! values.
//!
//! What is expected is worked out by hand from the rules in [`crate::rules`] and from those of mapping files
//! (`mapping`). The lines of a row go into a sidecar of their own; every sample line of the exposition is compared,
//! bounds of buckets by their value, since one program writes them as 1 and the other as 1.0.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use statsieve::config::{Config, Sources, load};

use crate::convert::to_toml_file;
use crate::rig::{LIKE_THE_PEER, Rig};

const MAPPING: &str = "tests/data/mapping/from_statsd_exporter.good.yml";

/// The recipe for those who come from there is what is tested.
const README: &str = include_str!("../../README.md");

/// The rules that a row is about, its lines, and the series they make.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const ROWS: &[Row] = &[
    // Names by rules.
    (
        "a glob gives name and labels; counters add up",
        &["bot.update.message.ok:1|c", "bot.update.message.ok:2|c", "bot.update.poll.failed:1|c"],
        &[r#"bot_updates_total{result="ok",type="message"} 3"#, r#"bot_updates_total{result="failed",type="poll"} 1"#],
    ),
    (
        "2.3.9 rate; a label of the rule wins over a tag",
        &["bot.update.message.ok:1|c|@0.25|#type:mine,shard:a"],
        &[r#"bot_updates_total{result="ok",shard="a",type="message"} 4"#],
    ),
    ("match_metric_type: no rule for a gauge", &["bot.update.message.ok:5|g"], &["bot_update_message_ok 5"]),
    (
        "a part too few, a part too many",
        &["bot.update.ok:1|c", "bot.update.a.b.c:2|c"],
        &["bot_update_ok 1", "bot_update_a_b_c 2"],
    ),
    (
        "2.3.7 and 2.3.9 container; tags beside labels of the rule",
        &["bot.update.message.ok:1|c:2|c", "bot.update.message.ok:4|c|#k:v|c:abc"],
        &[
            r#"bot_updates_total{result="ok",type="message"} 3"#,
            r#"bot_updates_total{container_id="abc",k="v",result="ok",type="message"} 4"#,
        ],
    ),
    (
        "a regular expression by number and by name, anchored",
        &["legacy.hits.web-3:1|c", "legacy.hits.web-x:1|c"],
        &[r#"legacy_hits{host="web",index="3"} 1"#, "legacy_hits_web_x 1"],
    ),
    (
        "drops, of a glob and of a regular expression found anywhere",
        &["bot.debug.x:1|c", "test.a:1|g", "a.test.b:1|ms"],
        &[],
    ),
    ("a drop is for whole parts", &["bot.debug:1|c", "bot.debug.x.y:1|c"], &["bot_debug 1", "bot_debug_x_y 1"]),
    (
        "numbers as label values keep their text",
        &["bot.sessions.7:12|g"],
        &[r#"bot_sessions{shard="7",version="1.10"} 12"#],
    ),
    // Values.
    ("scale", &["bot.bytes.sent:1500|c", "bot.bytes.sent:500|c"], &["bot_sent_kilobytes 2"]),
    ("2.5 counters: below zero once scaled", &["bot.refund:-2|c", "bot.refund:3|c"], &["bot_refunds_total 2"]),
    (
        "2.5 gauges: set, up, down",
        &["bot.queue.outbox:7|g", "bot.queue.outbox:+3|g", "bot.queue.outbox:-4|g|@0.5"],
        &[r#"bot_queue_size{queue="outbox"} 6"#],
    ),
    (
        "honor_labels: the tag wins",
        &["bot.queue.outbox:7|g|#queue:priority", "bot.queue.in,shard=1:2|g"],
        &[r#"bot_queue_size{queue="priority"} 7"#, r#"bot_queue_size{queue="in",shard="1"} 2"#],
    ),
    (
        "2.3.8: a sign is a change only of gauges",
        &["bot.update.a.b:+3|c", "level:-5|g"],
        &[r#"bot_updates_total{result="b",type="a"} 3"#, "level -5"],
    ),
    ("2.5 counters: never down", &["plain:5|c", "plain:-1|c"], &["plain 5"]),
    ("7 lines: a bad rate costs itself, two divide twice", &["plain:1|c|@x", "plain:1|c|@0.5|@0.5"], &["plain 5"]),
    // Observations.
    (
        "2.3.10 and buckets of the rule: milliseconds become seconds, a rate of one half counts twice",
        &["bot.api.sendMessage.latency:120|ms", "bot.api.sendMessage.latency:2000|ms|@0.5"],
        &[
            r#"bot_api_latency_seconds_bucket{method="sendMessage",le="0.05"} 0"#,
            r#"bot_api_latency_seconds_bucket{method="sendMessage",le="0.25"} 1"#,
            r#"bot_api_latency_seconds_bucket{method="sendMessage",le="1"} 1"#,
            r#"bot_api_latency_seconds_bucket{method="sendMessage",le="+Inf"} 3"#,
            r#"bot_api_latency_seconds_sum{method="sendMessage"} 4.12"#,
            r#"bot_api_latency_seconds_count{method="sendMessage"} 3"#,
        ],
    ),
    (
        "2.3.6 and 2.3.10: h and d as they are, packed",
        &["bot.api.get.latency:0.3|h", "bot.api.get.latency:0.05:2|d"],
        &[
            r#"bot_api_latency_seconds_bucket{method="get",le="0.05"} 1"#,
            r#"bot_api_latency_seconds_bucket{method="get",le="0.25"} 1"#,
            r#"bot_api_latency_seconds_bucket{method="get",le="1"} 2"#,
            r#"bot_api_latency_seconds_bucket{method="get",le="+Inf"} 3"#,
            r#"bot_api_latency_seconds_sum{method="get"} 2.35"#,
            r#"bot_api_latency_seconds_count{method="get"} 3"#,
        ],
    ),
    (
        "a rule without options has the buckets of the defaults; the same match for another type of metric",
        &["bot.queue.outbox:250|ms"],
        &[
            r#"bot_queue_wait_seconds_bucket{queue="outbox",le="0.01"} 0"#,
            r#"bot_queue_wait_seconds_bucket{queue="outbox",le="0.1"} 0"#,
            r#"bot_queue_wait_seconds_bucket{queue="outbox",le="1"} 1"#,
            r#"bot_queue_wait_seconds_bucket{queue="outbox",le="10"} 1"#,
            r#"bot_queue_wait_seconds_bucket{queue="outbox",le="+Inf"} 1"#,
            r#"bot_queue_wait_seconds_sum{queue="outbox"} 0.25"#,
            r#"bot_queue_wait_seconds_count{queue="outbox"} 1"#,
        ],
    ),
    (
        "the defaults hold without a rule too",
        &["other.time:30|ms"],
        &[
            r#"other_time_bucket{le="0.01"} 0"#,
            r#"other_time_bucket{le="0.1"} 1"#,
            r#"other_time_bucket{le="1"} 1"#,
            r#"other_time_bucket{le="10"} 1"#,
            r#"other_time_bucket{le="+Inf"} 1"#,
            "other_time_sum 0.03",
            "other_time_count 1",
        ],
    ),
    // Without a rule.
    (
        "2.4 names: escaped",
        &["other.thing-a--b..c:1|c|#k.x:v", "2nd:1|g"],
        &[r#"other_thing_a_b__c{k_x="v"} 1"#, "_2nd 1"],
    ),
    (
        "2.3.3: four dialects, one series",
        &["hits:1|c|#k:v", "hits,k=v:2|c", "hits#k=v:4|c", "hits[k=v]:8|c"],
        &[r#"hits{k="v"} 15"#],
    ),
    (
        "every tag is a label",
        &["hits:1|c|#user_id:42,message_id:7,dd.internal.entity_id:u"],
        &[r#"hits{dd_internal_entity_id="u",message_id="7",user_id="42"} 1"#],
    ),
    (
        "figures of Datadog's clients are metrics",
        &["datadog.dogstatsd.client.packets_dropped:3|c|#client:py"],
        &[r#"datadog_dogstatsd_client_packets_dropped{client="py"} 3"#],
    ),
    ("2.5 first type", &["first:1|c", "first:2|g|#k:v", "first:4|ms"], &["first 1"]),
    (
        "2.3.9 tags: bad ones cost themselves, the last of a key holds",
        &["hits:1|c|#k:1,bare,empty:,k:2", "hits:1|c|#"],
        &[r#"hits{k="2"} 1"#, "hits 1"],
    ),
    ("2.3.4 and 2.3.9 empty: lines that are refused", &["hits,k=v:1|c|#l:w", "hits:1|c||", "hits:1", "hits:x|c"], &[]),
];

/// What summaries make of observations. Each value is one of those sent, as it is alone in what a quantile cannot tell
/// apart.
const SUMMARIES: &[Row] = &[
    (
        "observer_type summary, with quantiles of its own",
        &["bot.reply.help:1:2:3:4:5:6:7:8:9:10|ms", "bot.reply.start:250|ms|@0.5"],
        &[
            r#"bot_reply_seconds{command="help",quantile="0.5"} 0.005"#,
            r#"bot_reply_seconds{command="help",quantile="0.99"} 0.01"#,
            r#"bot_reply_seconds_sum{command="help"} 0.055"#,
            r#"bot_reply_seconds_count{command="help"} 10"#,
            r#"bot_reply_seconds{command="start",quantile="0.5"} 0.25"#,
            r#"bot_reply_seconds{command="start",quantile="0.99"} 0.25"#,
            r#"bot_reply_seconds_sum{command="start"} 0.5"#,
            r#"bot_reply_seconds_count{command="start"} 2"#,
        ],
    ),
    ("2.7: a tag that a summary has itself", &["bot.reply.help:1|ms|#quantile:0.5"], &[]),
];

/// The same without a mapping file, where its defaults are summaries.
const WITHOUT_FILE: &[Row] = &[
    (
        "2.2 defaults: summaries of three quantiles",
        &["other.time:30|ms", "size:7|h|#le:1", "size:5|d|#le:1", "hits:1|c"],
        &[
            r#"other_time{quantile="0.5"} 0.03"#,
            r#"other_time{quantile="0.9"} 0.03"#,
            r#"other_time{quantile="0.99"} 0.03"#,
            "other_time_sum 0.03",
            "other_time_count 1",
            r#"size{le="1",quantile="0.5"} 5"#,
            r#"size{le="1",quantile="0.9"} 7"#,
            r#"size{le="1",quantile="0.99"} 7"#,
            r#"size_sum{le="1"} 12"#,
            r#"size_count{le="1"} 2"#,
            "hits 1",
        ],
    ),
    (
        "2.5 conflicts: what a summary exposes beside its own",
        &["x:1|h", "x_sum:1|c", "x_count:1|g"],
        &[r#"x{quantile="0.5"} 1"#, r#"x{quantile="0.9"} 1"#, r#"x{quantile="0.99"} 1"#, "x_sum 1", "x_count 1"],
    ),
];

/// The recipe of the README beside the mapping file, under `set`.
fn recipe(set: &[&str]) -> Config {
    let recipe = README.split("```toml\n").find(|block| block.starts_with("# In place of statsd_exporter")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    fs::write(&file, recipe.split("```").next().unwrap()).unwrap();
    fs::copy(mapping(), folder.path().join("statsd_mapping.yml")).unwrap();
    loaded(Sources { file: Some(file), set: set.iter().map(ToString::to_string).collect() })
}

/// That, and the TOML that the file is converted to.
fn configurations() -> [Config; 2] {
    let (_folder, toml) = to_toml_file(&mapping());
    [recipe(&[]), loaded(Sources { file: Some(toml), set: LIKE_THE_PEER.map(str::to_owned).to_vec() })]
}

fn mapping() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(MAPPING)
}

fn loaded(sources: Sources) -> Config {
    load(&sources).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// Sample lines by name and labels, with their value.
fn read<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<(String, BTreeMap<String, String>), f64> {
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (key, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            let bound = (key == "le").then(|| value.parse::<f64>().unwrap().to_string());
            (key.to_owned(), bound.unwrap_or_else(|| value.to_owned()))
        };
        ((name.to_owned(), labels.map(label).collect()), value.parse().unwrap())
    };
    lines.filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[test]
fn its_mapping_file_and_its_lines_make_its_series() {
    for config in configurations() {
        ROWS.iter().chain(SUMMARIES).for_each(|row| compare(&config, row));
    }
}

#[test]
fn without_a_mapping_file_its_lines_make_its_series_too() {
    // As the recipe says: "" if there was none.
    let config = recipe(&["mapping.file="]);
    WITHOUT_FILE.iter().for_each(|row| compare(&config, row));
}

fn compare(config: &Config, (about, lines, series): &Row) {
    let mut rig = Rig::new(config);
    rig.send(lines);
    let (found, expected) = (read(rig.text().lines()), read(series.iter().copied()));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{about}: {lines:?}\n{}",
        rig.text()
    );
    for (series, value) in &expected {
        // Sums are of as many parts as there are observations there, and of fewer here.
        let tolerance = value.abs() * 1e-12;
        assert!((found[series] - value).abs() <= tolerance, "{about}: {series:?} is {}", found[series]);
    }
}

#[test]
fn its_series_go_after_their_ttl() {
    for config in configurations() {
        let mut rig = Rig::new(&config);
        rig.send(&["bot.sessions.1:3|g", "bot.update.a.b:1|c", "other:1|c"]);
        (0..40).for_each(|_| rig.pass_second(&config));
        let left = [r#"bot_updates_total{result="b",type="a"} 1"#, "other 1"];
        assert_eq!(rig.series(), left, "30 s for the sessions, 5 min for all else");
        (0..300).for_each(|_| rig.pass_second(&config));
        assert_eq!(rig.series(), [""; 0]);
        rig.send(&["other:2|c"]);
        assert_eq!(rig.series(), ["other 2"]);
    }
}

#[test]
fn its_help_texts_stay() {
    for config in configurations() {
        let mut rig = Rig::new(&config);
        rig.send(&["bot.update.a.b:1|c"]);
        let text = rig.text();
        assert!(text.contains("# HELP bot_updates_total Updates taken from the messenger.\n"), "{text}");
    }
}
