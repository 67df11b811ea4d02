//! The rules of `deploy` in the real programs: promtool runs their tests, and a server finds data for every record.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Sidecar, wait_until};
use crate::prometheus::{NATIVE, Prometheus};
use crate::tools::tool;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn promtool(arguments: &[&str], file: &Path) {
    // Without a limit of time: the tests of the alerts take 15 seconds alone, and much longer on a busy machine.
    let output = Command::new(tool("prometheus/promtool")).args(arguments).arg(file).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "promtool {arguments:?} {}\n{stdout}\n{stderr}", file.display());
}

#[test]
#[ignore = "needs promtool, run by tests/run"]
fn promtool_accepts_every_file_and_every_rule_does_what_its_test_says() {
    promtool(&["check", "config"], &deploy().join("prometheus/prometheus.yml"));
    let mut tests = 0;
    for folder in ["prometheus/rules", "fleet/rules"] {
        for file in std::fs::read_dir(deploy().join(folder)).unwrap() {
            let path = file.unwrap().path();
            let is_test = path.to_string_lossy().ends_with(".test.yml");
            tests += u32::from(is_test);
            promtool(&[if is_test { "test" } else { "check" }, "rules"], &path);
        }
    }
    assert!(tests >= 5, "{tests} files of tests");
}

/// Every record of `statsieve.yml` has data on a server that scrapes one busy sidecar, and alerts are evaluated beside.
fn assert_every_record_has_data(arguments: &[&str], native: bool) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["statsieve.yml", "alerts.yml"] {
        let text = std::fs::read_to_string(deploy().join("prometheus/rules").join(name)).unwrap();
        // Not once a minute, for the test's sake.
        std::fs::write(folder.path().join(name), text.replace("interval: 1m", "interval: 1s")).unwrap();
    }
    let text = std::fs::read_to_string(folder.path().join("statsieve.yml")).unwrap();
    let records = text.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    let records: Vec<&str> = records
        // Of the past there are no full hours yet; and of families with native buckets this server keeps no others.
        .filter(|record| !["ratio3d", "ratio30d"].iter().any(|window| record.ends_with(window)))
        .filter(|record| !native || !record.starts_with("job_le:bot_"))
        .collect();
    assert!(records.len() > 35, "{records:?}");
    let sidecar = Sidecar::start(&[]);
    let prometheus = Prometheus::start_with(&[sidecar.http], Some(&folder.path().join("*.yml")), arguments);
    let lines = [
        "bot.messages:1|c|#user_id:42,activity_type:message",
        "bot.updates:1|c|#type:message,result:ok",
        "bot.cache.requests:1|c|#cache:profile,result:hit",
        "bot.queue.size:12|g|#queue:outbox",
        "bot.reply.latency:12.7|ms|#command:help",
        "bot.errors:1|c|#kind:timeout",
    ];
    let mut missing = records.clone();
    let mut sent = 0;
    wait_until("every record has data", || {
        sidecar.send(&lines);
        sent += lines.len() as u64;
        sidecar.settled(sent);
        missing.retain(|record| prometheus.one(&format!("count({record})")).is_none());
        missing.is_empty()
    });
    let latency = prometheus.one("job:bot_reply_latency_seconds:p95_rate5m").unwrap();
    assert!((0.011..=0.025).contains(&latency), "12.7 ms lie between 10 and 25, or within a tenth of it: {latency}");
    prometheus.wait_for("job:bot_errors_per_update:ratio_rate5m", 1.0);
    sidecar.stop();
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn every_record_has_data_from_classic_histograms() {
    assert_every_record_has_data(&[], false);
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn every_record_has_data_from_native_histograms() {
    assert_every_record_has_data(&[NATIVE], true);
}
