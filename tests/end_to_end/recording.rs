//! What a line becomes: counters, gauges, observers, rates, tag dialects, user buckets.

use crate::harness::{Sidecar, user_bucket};

/// The `[observer].buckets` default.
const DEFAULT_BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[test]
fn user_42_is_in_bucket_1_by_the_published_hash() {
    // Computed by a second implementation, written from the published description of the algorithm.
    assert_eq!(xxhash_rust::xxh64::xxh64(b"42", 0), 7_919_287_270_473_417_401);
    assert_eq!(user_bucket("42"), "bucket_1");
}

#[test]
fn the_readme_line_becomes_the_series_the_readme_shows() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&["bot.messages:1|c|#user_id:42,activity_type:message"]);
    let line = "bot_messages_total{activity_type=\"message\",user_bucket=\"bucket_1\"} 1";
    assert!(scrape.text.lines().any(|found| found == line), "no line {line:?} in\n{}", scrape.text);
    assert!(scrape.text.contains("# TYPE bot_messages_total counter\n"), "{}", scrape.text);
    assert_eq!(scrape.user_series().len(), 1, "{}", scrape.text);
    sidecar.stop();
}

#[test]
fn counters_add_up_over_datagrams_lines_and_packed_values() {
    let sidecar = Sidecar::start(&[]);
    sidecar.send(&["hits:1|c", "hits:2.5|c", "hits:3|c\nhits:4|c\n", "hits:5:6:7|c", "already_total:1|c"]);
    // Six lines; the packed one holds three values.
    let scrape = sidecar.settled(6);
    scrape.assert("hits_total", 28.5);
    scrape.assert("already_total", 1.0);
    scrape.assert("statsieve_samples_recorded_total{type=\"counter\"}", 8.0);
    scrape.assert("statsieve_datagrams_total{listener=\"udp\"}", 5.0);
    sidecar.stop();
}

#[test]
fn gauges_keep_the_last_value_and_add_signed_ones() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&[
        "bot.queue.size:40|g|#queue:outbox",
        "bot.queue.size:10|g|#queue:outbox",
        "bot.queue.size:+5.5|g|#queue:outbox",
        "bot.queue.size:-3|g|#queue:outbox",
        "fresh:-4|g",
    ]);
    scrape.assert("bot_queue_size{queue=\"outbox\"}", 12.5);
    scrape.assert("fresh", -4.0);
    sidecar.stop();
}

#[test]
fn signed_gauges_are_values_where_the_configuration_says_absolute() {
    let sidecar = Sidecar::start(&["parse.gauge_sign=absolute"]);
    let scrape = sidecar.take(&["level:10|g", "level:+5|g", "depth:7|g", "depth:-3|g"]);
    scrape.assert("level", 5.0);
    scrape.assert("depth", -3.0);
    sidecar.stop();
}

#[test]
fn observations_fill_the_twelve_default_buckets_by_their_bounds() {
    let sidecar = Sidecar::start(&[]);
    // One on a bound (which is inclusive), one within, one beyond the last.
    let scrape = sidecar.take(&[
        "bot.update.duration:5|ms|#type:message",
        "bot.update.duration:8.1|ms|#type:message",
        "bot.update.duration:60000|ms|#type:message",
    ]);
    let buckets = scrape.buckets("bot_update_duration_seconds", "type=\"message\"");
    let bounds: Vec<f64> = buckets.iter().map(|(bound, _)| *bound).collect();
    assert_eq!(bounds, [&DEFAULT_BOUNDS[..], &[f64::INFINITY]].concat());
    let counts: Vec<f64> = buckets.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0]);
    scrape.assert("bot_update_duration_seconds_count{type=\"message\"}", 3.0);
    scrape.assert_near("bot_update_duration_seconds_sum{type=\"message\"}", 60.0131);
    assert_eq!(scrape.user_series().len(), 15, "12 buckets, +Inf, sum, count: {}", scrape.text);
    sidecar.stop();
}

#[test]
fn only_timers_are_scaled_to_seconds() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&["a.wait:1500|ms", "b.size:1500|h", "c.size:1500|d", "d.wait_ms:1500|ms"]);
    scrape.assert_near("a_wait_seconds_sum", 1.5);
    scrape.assert("b_size_sum", 1500.0);
    scrape.assert("c_size_sum", 1500.0);
    scrape.assert_near("d_wait_seconds_sum", 1.5);
    for kind in ["timer", "histogram", "distribution"] {
        let expected = if kind == "timer" { 2.0 } else { 1.0 };
        scrape.assert(&format!("statsieve_samples_recorded_total{{type=\"{kind}\"}}"), expected);
    }
    sidecar.stop();
}

#[test]
fn sampled_lines_weigh_one_over_their_rate() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&[
        "hits:1|c|@0.1",
        "hits:3|c|@0.5",
        "wait:100|ms|@0.25",
        "size:2:4|h|@0.5|#kind:photo",
        // A gauge has no weight.
        "level:8|g|@0.5",
        // A rate that cannot be read counts as 1, and is counted.
        "odd:5|c|@often",
    ]);
    scrape.assert_near("hits_total", 16.0);
    scrape.assert("wait_seconds_count", 4.0);
    scrape.assert_near("wait_seconds_sum", 0.4);
    scrape.assert("size_count{kind=\"photo\"}", 4.0);
    scrape.assert("size_sum{kind=\"photo\"}", 12.0);
    assert_eq!(scrape.buckets("size", "kind=\"photo\"")[8], (2.5, 2.0));
    scrape.assert("level", 8.0);
    scrape.assert("odd_total", 5.0);
    scrape.assert("statsieve_invalid_rates_total", 1.0);
    // What is weighted is recorded once: seven values, seven samples.
    assert_eq!((scrape.recorded(), scrape.dropped()), (7.0, 0.0));
    sidecar.stop();
}

#[test]
fn all_four_tag_dialects_reach_one_series() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&[
        "bot.messages:1|c|#user_id:42,activity_type:message",
        "bot.messages,user_id=42,activity_type=message:1|c",
        "bot.messages#user_id=42,activity_type=message:1|c",
        "bot.messages[user_id=42,activity_type=message]:1|c",
        "bot[activity_type=message,user_id=42].messages:1|c",
    ]);
    scrape.assert("bot_messages_total{activity_type=\"message\",user_bucket=\"bucket_1\"}", 5.0);
    assert_eq!(scrape.user_series().len(), 1, "{}", scrape.text);
    sidecar.stop();
}

#[test]
fn a_dialect_that_is_off_is_not_read() {
    let sidecar = Sidecar::start(&["parse.influxdb_tags=false"]);
    let scrape = sidecar.take(&["hits,a=b:1|c", "misses#a=b:1|c"]);
    scrape.assert("misses_total{a=\"b\"}", 1.0);
    assert!(!scrape.text.contains("hits_total{a="), "{}", scrape.text);
    sidecar.stop();
}

#[test]
fn user_ids_never_become_labels_in_any_type() {
    let sidecar = Sidecar::start(&[]);
    let ids = ["7", "1234567890", "-1001234567890", "anna", "Jörg"];
    let mut lines = Vec::new();
    for id in ids {
        for (name, kind) in [("a", "c"), ("b", "g"), ("c", "ms"), ("d", "h"), ("e", "d")] {
            lines.push(format!("{name}:1|{kind}|#user_id:{id}"));
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let scrape = sidecar.take(&lines);
    assert_eq!((scrape.recorded(), scrape.dropped()), (25.0, 0.0));
    assert!(!scrape.text.contains("user_id=\""), "{}", scrape.text);
    for id in ids {
        let bucket = user_bucket(id);
        assert!(scrape.value(&format!("a_total{{user_bucket=\"{bucket}\"}}")) >= 1.0);
    }
    assert_eq!(scrape.sum("a_total"), 5.0);
    sidecar.stop();
}

#[test]
fn names_and_tag_keys_become_legal_and_values_stay_as_they_are() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&[
        "bot.api-calls:1|c|#http.method:GET,path:/a\\b\"c",
        "2fast:1|c",
        "a---b..c:1|c",
        "größe:1|c",
        // A value keeps its colons, and the last of two tags with one key wins.
        "times:1|c|#at:12:30:00,kind:x,kind:y",
    ]);
    scrape.assert("bot_api_calls_total{http_method=\"GET\",path=\"/a\\\\b\\\"c\"}", 1.0);
    scrape.assert("_2fast_total", 1.0);
    scrape.assert("a_b__c_total", 1.0);
    scrape.assert("gr__e_total", 1.0);
    scrape.assert("times_total{at=\"12:30:00\",kind=\"y\"}", 1.0);
    sidecar.stop();
}

#[test]
fn fields_of_newer_clients_are_taken_or_ignored_and_never_cost_the_sample() {
    let sidecar = Sidecar::start(&[]);
    let scrape = sidecar.take(&[
        "hits:1|c|c:in-123",
        "hits:1|c|#kind:a|c:ci-abc|T1700000000",
        "hits:1|c|#kind:a|e:it-false,cn-app|card:low",
        "hits:1|c|#kind:a|z:from-the-future",
    ]);
    scrape.assert("hits_total", 1.0);
    scrape.assert("hits_total{kind=\"a\"}", 3.0);
    scrape.assert("statsieve_unknown_fields_total{field=\"z\"}", 1.0);
    sidecar.stop();
}
