//! Observations and sets over the wire: kept as the configuration says, and another way once it says so.

use std::fs;

use crate::harness::{Sidecar, assert_within, request};
use crate::limits::OPEN_METRICS;
use crate::protobuf::PROTOBUF;

#[test]
fn quantiles_and_members_are_those_of_all_workers_in_every_format() {
    let sidecar = Sidecar::start(&["listen.workers=2", "observer.type=summary", "labels.max_values=1000"]);
    // Several flows, so that both workers have a share, and some members come to both.
    let senders: Vec<_> = (0..8).map(|_| sidecar.sender()).collect();
    for n in 1..=1000 {
        let line = format!("wait:{n}|h|#k:v\nusers:{}|s|#k:v\nusers:{n}|s|#k:v", n + 1);
        senders[n % 8].send(line.as_bytes());
        if n % 100 == 0 {
            sidecar.settled(3 * n as u64);
        }
    }
    for scrape in [sidecar.settled(3000), sidecar.scrape_as(OPEN_METRICS), sidecar.scrape_as(PROTOBUF)] {
        scrape.assert("wait_count{k=\"v\"}", 1000.0);
        scrape.assert("wait_sum{k=\"v\"}", 500_500.0);
        for (quantile, exact) in [("0.5", 500.0), ("0.9", 900.0), ("0.95", 950.0), ("0.99", 990.0)] {
            let series = format!("wait{{k=\"v\",quantile=\"{quantile}\"}}");
            assert_within(&series, scrape.value(&series) / exact, 0.99..=1.01);
        }
        // Three standard errors of 1,024 registers.
        assert_within("users", scrape.value("users{k=\"v\"}") / 1001.0, 0.9..=1.1);
        scrape.assert("statsieve_samples_recorded_total{type=\"set\"}", 2000.0);
    }
    sidecar.stop();
}

#[test]
fn what_observations_become_changes_with_a_reload_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    let write = |text: &str| fs::write(&file, format!("[http]\nlifecycle = true\n{text}")).unwrap();
    write("[observer]\ntype = \"summary\"\n");
    let sidecar = Sidecar::start_with(&["listen.workers=1"], &["--config", file.to_str().unwrap()]);
    let reload = || assert_eq!(request(sidecar.http, "POST", "/-/reload", &[]).unwrap().status, 200);
    let scrape = sidecar.take(&["wait:5|h", "hits:1|c", "users:a|s"]);
    scrape.assert("wait{quantile=\"0.99\"}", 5.0);
    write("[observer]\ntype = \"summary\"\nquantiles = [0.25]\n");
    reload();
    sidecar.send(&["wait:7|h", "hits:1|c", "users:b|s"]);
    let scrape = sidecar.settled(6);
    assert_eq!((scrape.get("wait{quantile=\"0.99\"}"), scrape.value("wait{quantile=\"0.25\"}")), (None, 7.0));
    write("created_lines = true\n");
    reload();
    sidecar.send(&["wait:9|h", "hits:1|c", "users:c|s"]);
    let scrape = sidecar.settled(9);
    assert_eq!((scrape.get("wait{quantile=\"0.25\"}"), scrape.value("wait_bucket{le=\"10.0\"}")), (None, 1.0));
    scrape.assert("hits_total", 3.0);
    scrape.assert("users", 3.0);
    let scrape = sidecar.scrape_as(OPEN_METRICS);
    // The histogram is younger than the counter, and neither is younger than a day.
    let (younger, older) = (scrape.value("wait_created"), scrape.value("hits_created"));
    assert!(younger >= older && younger - older < 86_400.0, "{younger} {older}");
    assert_within("an hour ago or later", (younger - now()).abs(), 0.0..=3600.0);
    assert_eq!(sidecar.scrape().get("hits_created"), None, "text 0.0.4 has no such lines");
    sidecar.wait_until("the old series are gone", |it| {
        it.scrape().value("statsieve_series_expired_total{cause=\"reload\"}") == 2.0
    });
    sidecar.stop();
}

fn now() -> f64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}
