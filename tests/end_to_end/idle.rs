//! A sidecar that nobody sends to does not even wake up, and misses nothing by that.

use std::fs::{read_dir, read_to_string};
use std::thread::sleep;
use std::time::Duration;

use crate::harness::Sidecar;

/// How often its threads have gone to sleep so far.
fn sleeps(sidecar: &Sidecar) -> u64 {
    let of_task = |path: std::path::PathBuf| {
        let status = read_to_string(path.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    read_dir(format!("/proc/{}/task", sidecar.pid())).unwrap().map(|task| of_task(task.unwrap().path())).sum()
}

/// Waits until it does nothing by itself.
fn wait_until_it_rests(sidecar: &Sidecar) {
    sidecar.wait_until("nothing wakes it", |it| {
        let before = sleeps(it);
        // What is done every second or every other one is done within this time.
        sleep(Duration::from_secs(3));
        sleeps(it) == before
    });
}

#[test]
fn what_comes_after_a_rest_is_recorded_and_idle_series_give_way_to_it() {
    let settings = [
        "cardinality.max_series=5",
        "cardinality.evict_idle_after=2s",
        "cardinality.simplify_at=1",
        "listen.workers=2",
    ];
    let sidecar = Sidecar::start(&settings);
    wait_until_it_rests(&sidecar);
    sidecar.take(&["old:1|c|#k:0", "old:1|c|#k:1", "old:1|c|#k:2", "old:1|c|#k:3", "old:1|c|#k:4"]);
    // For longer than what would count as a pause.
    (0..2).for_each(|_| wait_until_it_rests(&sidecar));
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
    assert!(!sidecar.log().contains("did not run"), "a rest is no pause: {}", sidecar.log());
    wait_until_it_rests(&sidecar);
    sidecar.stop();
}

#[test]
fn series_past_their_time_to_live_go_before_it_rests() {
    let sidecar = Sidecar::start(&["cardinality.idle_ttl=2s"]);
    sidecar.take(&["a:1|c", "b:1|g"]);
    wait_until_it_rests(&sidecar);
    let scrape = sidecar.scrape();
    assert_eq!(scrape.user_series().len(), 0, "{}", scrape.text);
    assert_eq!(scrape.value("statsieve_series_expired_total{cause=\"idle\"}"), 2.0);
    sidecar.stop();
}

#[test]
fn what_is_shown_of_the_time_that_has_passed_is_right_after_a_rest() {
    let sidecar = Sidecar::start(&[
        "observer.type=summary",
        "observer.max_age=5s",
        "cardinality.zero_first=1h",
        "listen.workers=1",
    ]);
    let scrape = sidecar.take(&["wait:7|h", "hits:1|c"]);
    scrape.assert("wait{quantile=\"0.5\"}", 7.0);
    scrape.assert("hits_total", 0.0);
    wait_until_it_rests(&sidecar);
    sidecar.wait_until("the window ends", |it| it.scrape().value("wait{quantile=\"0.5\"}").is_nan());
    sidecar.scrape().assert("wait_count", 1.0);
    sidecar.stop();
}

#[test]
fn connections_that_are_closed_while_no_line_comes_are_told() {
    let sidecar = Sidecar::start(&["listen.tcp=127.0.0.1:0", "listen.max_connections=1"]);
    let connect = || std::net::TcpStream::connect(sidecar.address_of("tcp")).unwrap();
    let _first = connect();
    sidecar.wait_until("it is there", |it| it.scrape().value("statsieve_connections{listener=\"tcp\"}") == 1.0);
    wait_until_it_rests(&sidecar);
    let _second = connect();
    sidecar.wait_until("it is told", |it| it.log().contains("connections are closed at once"));
    sidecar.stop();
}
