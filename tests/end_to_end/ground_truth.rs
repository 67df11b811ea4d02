//! Many lines, many users, many senders: what was sent is what is summed, to the unit.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Scrape, Sidecar, flood_alone, user_bucket};

/// Different user ids.
const USERS: u64 = 100_000;
/// The values of the tag that stays.
const ACTIVITIES: [&str; 4] = ["message", "command", "callback", "payment"];
/// What a client packs into one datagram.
const DATAGRAM_BYTES: usize = 1_400;
/// What the kernel charges a receive buffer for such a datagram: 2,048 bytes of data, 256 of bookkeeping.
const CHARGE_BYTES: f64 = 2_304.0;

/// Lines to send; `tests/run` asks for a million. Fewer than users would leave some out, and make each identity's first
/// looks, which miss, weigh more than the hit rate below allows.
fn line_count() -> u64 {
    let lines = std::env::var("STATSIEVE_E2E_LINES").map_or(200_000, |text| text.parse().expect("a number of lines"));
    assert!(lines >= USERS, "STATSIEVE_E2E_LINES is {lines}, below {USERS}");
    lines
}

/// Datagrams that surely fit half the receive buffer at once.
fn window(scrape: &Scrape) -> usize {
    let limit = scrape.value("statsieve_receive_queue_limit_bytes{listener=\"udp\"}");
    ((limit / 2.0 / CHARGE_BYTES) as usize).clamp(1, 400)
}

/// The `number`th line: its user, activity and value. Every user comes by before one comes again, in no order.
fn line(number: u64) -> (u64, &'static str, u64) {
    // 60,013 is prime and divides no power of ten: the steps visit all users.
    let user = 700_000_000 + number * 60_013 % USERS;
    let activity = ACTIVITIES[usize::try_from(number % 7).unwrap() % ACTIVITIES.len()];
    (user, activity, 1 + number % 3)
}

#[test]
fn what_100_000_users_send_is_what_is_summed_in_at_most_100_buckets_a_label_set() {
    let _alone = flood_alone();
    // One sender is one flow, and a flow stays on one worker: one socket's buffer is the window.
    let sidecar = Sidecar::start(&["listen.workers=1"]);
    let window = window(&sidecar.scrape());
    let lines = line_count();
    let sender = sidecar.sender();
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    let (mut datagrams, mut bytes, mut waiting) = (0_u64, 0_u64, 0);
    for number in 0..lines {
        let (user, activity, value) = line(number);
        let text = format!("bot.messages:{value}|c|#user_id:{user},activity_type:{activity}");
        if !datagram.is_empty() && datagram.len() + 1 + text.len() > DATAGRAM_BYTES {
            sender.send(&datagram);
            (datagrams, bytes, waiting) = (datagrams + 1, bytes + datagram.len() as u64, waiting + 1);
            datagram.clear();
            if waiting == window {
                sidecar.wait_until("the window is taken up", |it| it.scrape().lines() >= number as f64);
                waiting = 0;
            }
        }
        if !datagram.is_empty() {
            datagram.push(b'\n');
        }
        datagram.extend_from_slice(text.as_bytes());
        let bucket = user_bucket(&user.to_string());
        let series = format!("bot_messages_total{{activity_type=\"{activity}\",user_bucket=\"{bucket}\"}}");
        *expected.entry(series).or_default() += value as f64;
    }
    sender.send(&datagram);
    (datagrams, bytes) = (datagrams + 1, bytes + datagram.len() as u64);

    let scrape = sidecar.settled(lines);
    // Every series, every sum, and no other series.
    let found: BTreeMap<String, f64> =
        scrape.user_series().into_iter().map(|(series, value)| (series.to_owned(), value)).collect();
    assert!(found == expected, "sums differ:\n{:?}", differences(&found, &expected));
    assert_eq!(found.len(), 100 * ACTIVITIES.len(), "100,000 users reach every bucket");
    let sent: f64 = expected.values().sum();
    assert_eq!(scrape.sum("bot_messages_total"), sent);

    assert_eq!((scrape.lines(), scrape.recorded(), scrape.dropped()), (lines as f64, lines as f64, 0.0));
    scrape.assert("statsieve_samples_recorded_total{type=\"counter\"}", lines as f64);
    scrape.assert("statsieve_datagrams_total{listener=\"udp\"}", datagrams as f64);
    scrape.assert("statsieve_received_bytes_total{listener=\"udp\"}", bytes as f64);
    assert_eq!(scrape.kernel_drops(), 0.0);
    scrape.assert("statsieve_receive_queue_bytes{listener=\"udp\"}", 0.0);
    let (hits, misses) =
        (scrape.value("statsieve_identity_cache_hits_total"), scrape.value("statsieve_identity_cache_misses_total"));
    assert_eq!(hits + misses, lines as f64, "each line is looked up once");
    let rate = hits / (hits + misses);
    assert!(rate > 0.99, "identity hit rate {rate}: {hits} hits, {misses} misses");
    sidecar.stop();
}

/// The first few series that are not alike.
fn differences(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>) -> Vec<String> {
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    names
        .into_iter()
        .filter(|series| found.get(*series) != expected.get(*series))
        .map(|series| format!("{series}: {:?}, sent {:?}", found.get(series), expected.get(series)))
        .take(10)
        .collect()
}

#[test]
fn many_senders_on_two_workers_sum_exactly() {
    const SENDERS: usize = 32;
    const ROUNDS: usize = 100;
    let sidecar = Sidecar::start(&["listen.workers=2"]);
    let senders: Vec<_> = (0..SENDERS).map(|_| sidecar.sender()).collect();
    // One datagram a sender and round: 32 small ones always fit, even if all flows fall to one socket.
    for round in 0..ROUNDS {
        for (number, sender) in senders.iter().enumerate() {
            let line = format!(
                "hits:1|c\nby.sender:{}|c|#sender:{number}\nwait:{}|ms\ndepth:+1|g",
                number + 1,
                round % 4 * 1000
            );
            sender.send(line.as_bytes());
        }
        let sent = ((round + 1) * SENDERS * 4) as f64;
        sidecar.wait_until("the round is taken up", |it| it.scrape().lines() >= sent);
    }
    let total = SENDERS * ROUNDS;
    let scrape = sidecar.settled(total as u64 * 4);
    scrape.assert("hits_total", total as f64);
    scrape.assert("depth", total as f64);
    scrape.assert("wait_seconds_count", total as f64);
    // Whole seconds 0, 1, 2, 3 in turn: exact whatever the order.
    scrape.assert("wait_seconds_sum", total as f64 * 1.5);
    for number in 0..SENDERS {
        scrape.assert(&format!("by_sender_total{{sender=\"{number}\"}}"), ((number + 1) * ROUNDS) as f64);
    }
    assert_eq!((scrape.recorded(), scrape.dropped(), scrape.kernel_drops()), (total as f64 * 4.0, 0.0, 0.0));
    scrape.assert("statsieve_datagrams_total{listener=\"udp\"}", total as f64);
    sidecar.stop();
}
