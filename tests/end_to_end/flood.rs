//! A tag that is different on every line: no total is lost, nothing grows past its limit, and what is hot stays known.

use std::fmt::Write as _;

use crate::harness::{Scrape, Sidecar, assert_within, flood_alone};
use crate::limits::OPEN_METRICS;
use crate::overload::read;

/// Lines of the hot identities in each datagram, and of values that never come again.
const HOT: u64 = 8;
const ONE_OFF: u64 = 24;
/// Label sets of the hot lines.
const HOT_SETS: usize = 40;
/// What the kernel charges a receive buffer for such a datagram, of 1,000 to 1,700 bytes.
const CHARGE_BYTES: f64 = 2_304.0;
/// What the limits of 10,000 series leave the whole process.
const RESIDENT_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// Different values to send; `tests/run` asks for five million.
fn values() -> u64 {
    std::env::var("STATSIEVE_E2E_VALUES").map_or(100_000, |text| text.parse().expect("a number of values"))
}

/// The datagram with the values from `first` on. A line counts 1, 2 or 3; the hot ones come round.
fn datagram(first: u64, text: &mut String) -> (f64, f64) {
    let (mut one_off, mut hot) = (0.0, 0.0);
    text.clear();
    for number in first..first + ONE_OFF {
        let value = 1 + number % 3;
        writeln!(text, "bot.commands:{value}|c|#command:c{number},result:ok").unwrap();
        one_off += value as f64;
        if number % (ONE_OFF / HOT) == 0 {
            writeln!(text, "bot.updates:{value}|c|#type:t{},result:ok", number / (ONE_OFF / HOT) % HOT_SETS as u64)
                .unwrap();
            hot += value as f64;
        }
    }
    (one_off, hot)
}

/// Sends so many values, and hot lines among them, so that the kernel drops none; then looks at all that must hold.
fn send_and_look(settings: &[&str], values: u64) -> Scrape {
    let _alone = flood_alone();
    let limits = ["listen.workers=1", "cardinality.max_series=10000", "cardinality.max_series_per_family=10000"];
    let sidecar = Sidecar::start(&[&limits, settings].concat());
    let granted = sidecar.scrape().value("statsieve_receive_queue_limit_bytes{listener=\"udp\"}");
    // Half of the buffer at once.
    let window = ((granted / 2.0 / CHARGE_BYTES) as u64).clamp(1, 1000);
    let sender = sidecar.sender();
    let datagrams = values.div_ceil(ONE_OFF);
    let (mut one_off, mut hot, mut text) = (0.0, 0.0, String::new());
    for number in 0..datagrams {
        let (more_one_off, more_hot) = datagram(number * ONE_OFF, &mut text);
        (one_off, hot) = (one_off + more_one_off, hot + more_hot);
        sender.send(text.as_bytes());
        if (number + 1) % window == 0 {
            sidecar.wait_until("the window is read", |it| read(&it.scrape()) > number as f64);
        }
    }

    let lines = datagrams * (ONE_OFF + HOT);
    let first = sidecar.settled(lines);
    for scrape in [sidecar.scrape_as(OPEN_METRICS), first] {
        assert_eq!((scrape.sum("bot_commands_total"), scrape.sum("bot_updates_total")), (one_off, hot));
        // As they are counted and as they are there; a family's overflow series lies outside.
        let series = scrape.of("bot_commands_total").chain(scrape.of("bot_updates_total"));
        let within = series.filter(|(labels, _)| *labels != "{overflow=\"true\"}").count() as f64;
        assert_eq!(scrape.value("statsieve_series"), within);
        assert_within("series", within, 1.0..=10_000.0);
        assert_within("resident bytes", scrape.value("process_resident_memory_bytes"), 1.0..=RESIDENT_BYTES);
    }
    let scrape = sidecar.scrape();
    assert_eq!((scrape.lines(), scrape.recorded(), scrape.dropped()), (lines as f64, lines as f64, 0.0));
    assert_eq!(scrape.kernel_drops(), 0.0);
    // What comes once is never a hit, so the hits are those of the hot lines alone.
    let hot_lines = (datagrams * HOT) as f64;
    let hits = scrape.value("statsieve_identity_cache_hits_total");
    assert_within("hits of hot lines", hits, hot_lines * 0.99..=hot_lines);
    assert_eq!(hits + scrape.value("statsieve_identity_cache_misses_total"), lines as f64);
    sidecar.stop();
    scrape
}

/// The most that may be asked for, a hundred times the limit on series.
const ANY_VALUES: &str = "labels.max_values=1000000";

#[test]
fn values_past_the_200th_of_a_tag_fold_and_the_total_is_what_was_sent() {
    let scrape = send_and_look(&[], values());
    assert_eq!(scrape.of("bot_commands_total").count(), 201);
    assert!(scrape.value("bot_commands_total{command=\"other\",result=\"ok\"}") > 0.0);
    scrape.assert("statsieve_limited_family_info{family=\"bot_commands_total\",limit=\"max_values\"}", 1.0);
    assert_eq!(scrape.of("bot_updates_total").count(), HOT_SETS);
    scrape.assert("statsieve_series", (201 + HOT_SETS) as f64);
}

#[test]
fn without_a_limit_on_values_series_near_their_limit_lose_the_tag_and_the_total_is_what_was_sent() {
    // Not by the rate at which they come, which depends on the machine.
    let scrape = send_and_look(&[ANY_VALUES, "cardinality.new_series_per_second=0"], values());
    // Up to 80 % of the limit with their tags, then one without. The overflow series is made in advance.
    scrape.assert("statsieve_series", 8001.0);
    assert_eq!(scrape.of("bot_updates_total").count(), HOT_SETS);
    assert!(scrape.value("bot_commands_total") > 0.0);
    scrape.assert("bot_commands_total{overflow=\"true\"}", 0.0);
    assert!(scrape.value("statsieve_series_simplified_total") > 0.0);
}

#[test]
fn where_no_series_is_simplified_the_overflow_series_takes_the_rest_and_the_total_is_what_was_sent() {
    let settings = [ANY_VALUES, "cardinality.simplify_at=1", "cardinality.new_series_per_second=0"];
    let scrape = send_and_look(&settings, values());
    scrape.assert("statsieve_series", 10_000.0);
    assert_eq!(scrape.of("bot_updates_total").count(), HOT_SETS);
    let over = scrape.value("statsieve_overflow_samples_total");
    assert_within("samples of the overflow series", over, 1.0..=scrape.value("bot_commands_total{overflow=\"true\"}"));
}

#[test]
fn values_that_come_faster_than_series_may_be_made_lose_the_tag_and_the_total_is_what_was_sent() {
    let scrape = send_and_look(&[ANY_VALUES, "cardinality.new_series_per_second=100"], values());
    assert!(scrape.value("bot_commands_total") > 0.0);
    let limit = "statsieve_limited_family_info{family=\"bot_commands_total\",limit=\"new_series_per_second\"}";
    scrape.assert(limit, 1.0);
}
