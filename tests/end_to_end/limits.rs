//! Limits on series: bounded whatever is sent, totals true in every format.

use crate::harness::Sidecar;

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

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
    for scrape in [sidecar.settled(sent), sidecar.scrape_as(OPEN_METRICS)] {
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
        "cardinality.evict_idle_after=1s",
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
