//! Limits on series: bounded whatever is sent, totals true in every format.

use crate::harness::Sidecar;
use crate::protobuf::PROTOBUF;

pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// Sends `lines` in datagrams of twenty, and waits for each hundred of them, so that the kernel drops nothing.
fn send_all(sidecar: &Sidecar, lines: impl Iterator<Item = String>) -> u64 {
    let lines: Vec<String> = lines.collect();
    let sender = sidecar.sender();
    for (turn, datagram) in lines.chunks(20).enumerate() {
        sender.send(datagram.join("\n").as_bytes());
        if turn % 100 == 99 {
            let sent = (turn + 1) * 20;
            sidecar.wait_until("what was sent is taken", |it| it.scrape().lines() >= sent as f64);
        }
    }
    lines.len() as u64
}

#[test]
fn a_tag_that_never_repeats_costs_detail_but_no_total() {
    let sidecar = Sidecar::start(&["cardinality.max_series=500", "cardinality.max_series_per_family=400"]);
    let wave = |n: u32| format!("bot.commands:1|c|#command:c{n},shard:s{}", n % 1000);
    let sent = send_all(&sidecar, (0..20_000).map(wave));
    for scrape in [sidecar.settled(sent), sidecar.scrape_as(OPEN_METRICS), sidecar.scrape_as(PROTOBUF)] {
        assert_eq!(scrape.sum("bot_commands_total"), 20_000.0);
        let series = scrape.of("bot_commands_total").count();
        assert!(series <= 401, "{series} series where 400 and the overflow are allowed");
        assert!(scrape.value("statsieve_label_values_folded_total") > 0.0);
        assert!(scrape.value("statsieve_series") <= 500.0);
    }
    let limited = sidecar.scrape();
    limited.assert("statsieve_limited_family_info{family=\"bot_commands_total\",limit=\"max_values\"}", 1.0);
    sidecar.stop();
}

#[test]
fn near_the_limit_series_keep_their_bucket_and_the_overflow_series_is_there_from_zero() {
    let sidecar = Sidecar::start(&["cardinality.max_series_per_family=10", "labels.max_values=1000"]);
    let scrape = sidecar.take(&[""; 0]);
    assert_eq!(scrape.of("hits_total").count(), 0);
    let sent = send_all(&sidecar, (0..9).map(|n| format!("hits:1|c|#k:{n},user_id:42")));
    let scrape = sidecar.settled(sent);
    scrape.assert("hits_total{user_bucket=\"bucket_1\"}", 1.0);
    scrape.assert("hits_total{overflow=\"true\"}", 0.0);
    scrape.assert("statsieve_series_simplified_total", 1.0);
    sidecar.stop();
}

#[test]
fn idle_series_give_way_and_the_newcomer_gets_a_place_of_its_own() {
    let settings = [
        "cardinality.max_series=5",
        "cardinality.evict_idle_after=2s",
        "cardinality.simplify_at=1",
        "listen.workers=1",
    ];
    let sidecar = Sidecar::start(&settings);
    sidecar.take(&["old:1|c|#k:0", "old:1|c|#k:1", "old:1|c|#k:2", "old:1|c|#k:3", "old:1|c|#k:4"]);
    let sender = sidecar.sender();
    let mut sent = 5.0;
    sidecar.wait_until("the newcomer has its own series", |it| {
        sender.send(b"new:1|c|#k:1");
        sent += 1.0;
        it.scrape().get("new_total{k=\"1\"}").is_some()
    });
    let scrape = sidecar.settled(sent as u64);
    assert_eq!(scrape.sum("new_total"), sent - 5.0, "nothing of it was lost on the way");
    assert!(scrape.value("statsieve_series_expired_total{cause=\"evicted\"}") >= 1.0);
    assert!(scrape.value("statsieve_series") <= 5.0);
    sidecar.stop();
}

#[test]
fn declared_series_are_there_at_0_before_the_first_line_and_take_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    let text = r#"
[labels]
add = { bot = "support" }

[[declare]]
name = "bot_errors_total"
type = "counter"
labels = { kind = ["timeout", "flood_wait"] }

[[declare]]
name = "bot_reply_latency_seconds"
type = "histogram"

[[declare]]
name = "bot_queue_size"
type = "gauge"
labels = { queue = ["outbox"], shard = ["0", "1"] }
"#;
    std::fs::write(&file, text).unwrap();
    let sidecar = Sidecar::start_with(&["labels.max_values=1"], &["--config", file.to_str().unwrap()]);
    let scrape = sidecar.scrape();
    for (series, value) in [
        ("bot_errors_total{bot=\"support\",kind=\"timeout\"}", 0.0),
        ("bot_errors_total{bot=\"support\",kind=\"flood_wait\"}", 0.0),
        ("bot_reply_latency_seconds_count{bot=\"support\"}", 0.0),
        ("bot_queue_size{bot=\"support\",queue=\"outbox\",shard=\"1\"}", 0.0),
        ("statsieve_series", 2.0 + 15.0 + 2.0),
    ] {
        scrape.assert(series, value);
    }
    let scrape = sidecar.take(&["bot.errors:1|c|#kind:flood_wait", "bot.errors:1|c|#kind:new"]);
    scrape.assert("bot_errors_total{bot=\"support\",kind=\"flood_wait\"}", 1.0);
    scrape.assert("bot_errors_total{bot=\"support\",kind=\"other\"}", 1.0);
    sidecar.stop();
}

#[test]
fn a_declared_series_past_the_limits_is_a_warning_and_no_series() {
    let settings = [
        "cardinality.max_series=2",
        "declare=[{name='a_total',type='counter',labels={k=['1','2']}},{name='b_total',type='counter'}]",
    ];
    let sidecar = Sidecar::start(&settings);
    assert!(sidecar.log().contains("name=b_total"), "{}", sidecar.log());
    sidecar.scrape().assert("statsieve_series", 2.0);
    sidecar.stop();
}

#[test]
fn idle_series_go_after_their_time_and_return_from_zero() {
    let sidecar = Sidecar::start(&["cardinality.idle_ttl=2s", "listen.workers=2"]);
    sidecar.take(&["gone:5|c", "level:7|g", "wait:3|h"]);
    let mut sent = 3.0;
    sidecar.wait_until("all but the one in use are gone", |it| {
        it.send(&["kept:1|c"]);
        sent += 1.0;
        let scrape = it.scrape();
        ["gone_total", "level", "wait_count"].iter().all(|series| scrape.get(series).is_none())
    });
    let scrape = sidecar.settled(sent as u64);
    scrape.assert("kept_total", sent - 3.0);
    scrape.assert("statsieve_series_expired_total{cause=\"idle\"}", 3.0);
    scrape.assert("statsieve_series_expired_total{cause=\"evicted\"}", 0.0);
    sidecar.take(&["gone:2|c"]).assert("gone_total", 2.0);
    sidecar.stop();
}

#[test]
fn a_new_counter_is_zero_first_and_its_value_is_there_a_moment_later() {
    let sidecar = Sidecar::start(&["cardinality.zero_first=2s"]);
    sidecar.wait_until("a new counter is seen at 0", |it| {
        // Slow machines may miss it for one name, and not for ever.
        let name = format!("hits{}", it.scrape().value("statsieve_lines_total"));
        it.send(&[&format!("{name}:3|c")]);
        it.wait_until("it is there", |it| it.scrape().get(&format!("{name}_total")).is_some());
        let seen = it.scrape().value(&format!("{name}_total"));
        it.wait_until("its value is shown", |it| it.scrape().value(&format!("{name}_total")) == 3.0);
        seen == 0.0
    });
    sidecar.stop();
}
