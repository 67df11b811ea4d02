//! The system's time is stepped, forth and back, by days and decades, while the process runs.
//!
//! By libfaketime, which stands between the process and the C library: what the process asks of the calendar is faked.
//! The kernel's stamps on datagrams are not, nor is the monotonic clock, which nobody can step; and the program's own
//! clock reads the processor's counter (`quanta`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Sidecar, program, wait_until};
use crate::tools::tool;

const DAY: f64 = 86_400.0;
const YEAR: f64 = 365.0 * DAY;

struct Stepped {
    sidecar: Sidecar,
    step: PathBuf,
}

impl Stepped {
    fn start(folder: &Path) -> Self {
        let (step, config) = (folder.join("step"), folder.join("statsieve.toml"));
        fs::write(&step, "+0").unwrap();
        let rule = "[[mapping.rules]]\nmatch = \"short.*\"\nname = \"short_$1\"\nttl = \"2s\"\n";
        fs::write(&config, format!("[cardinality]\nidle_ttl = \"1h\"\n{rule}")).unwrap();
        let mut command = program();
        command.args(["--config", config.to_str().unwrap()]);
        for setting in ["listen.udp=127.0.0.1:0", "http.listen=127.0.0.1:0", "sampling.mode=off", "http.drain=100ms"] {
            command.args(["--set", setting]);
        }
        command.args(["--set", "http.created_lines=true", "--set", "observer.type=summary"]);
        command
            .env("LD_PRELOAD", tool("libfaketime/libfaketimeMT.so.1"))
            .env("FAKETIME_TIMESTAMP_FILE", &step)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .stderr(std::process::Stdio::piped());
        Self { sidecar: Sidecar::of(command.spawn().unwrap()), step }
    }

    /// Steps the time to so many seconds off, and sees that the process has it so.
    fn to(&self, seconds: f64) {
        // In one step, so that no half of it is read.
        let new = self.step.with_extension("new");
        fs::write(&new, format!("{seconds:+}")).unwrap();
        fs::rename(&new, &self.step).unwrap();
        self.sidecar.signal(Signal::SIGHUP);
        let expected = (now() + seconds).max(0.0);
        wait_until("it is another time", || {
            let scrape = self.sidecar.scrape();
            let read = scrape.value("statsieve_config_last_reload_success_timestamp_seconds");
            (read - expected).abs() < DAY / 2.0
        });
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Every number below `value`, with its path.
fn numbers(path: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.push((path.to_owned(), number.as_f64().unwrap())),
        Value::Array(list) => list.iter().for_each(|value| numbers(path, value, found)),
        Value::Object(table) => table.iter().for_each(|(key, value)| numbers(&format!("{path}.{key}"), value, found)),
        _ => {}
    }
}

#[test]
#[ignore = "needs libfaketime; tests/run unpacks it"]
fn steps_of_the_systems_time_change_no_count_and_no_age_and_have_nothing_expire_or_stay() {
    let folder = tempfile::tempdir().unwrap();
    let begun = now();
    let it = Stepped::start(folder.path());
    let sidecar = &it.sidecar;
    let created = || sidecar.scrape_as("application/openmetrics-text;version=1.0.0").value("kept_created");
    sidecar.take(&["kept:1|c", "wait:5|ms", "refused:x|c"]);
    let first = created();
    assert!((begun - 1.0..=now() + 1.0).contains(&first), "{first} is not between {begun} and now");
    let mut lines = 3.0;
    let steps = [DAY, -DAY, 10.0 * YEAR, -1.0, -60.0 * YEAR, 0.0];
    for (round, seconds) in steps.into_iter().enumerate() {
        it.to(seconds);
        let short = format!("short_{round}");
        sidecar.send(&["kept:1|c", "wait:5|ms", "refused:x|c", &format!("short.{round}:1|g")]);
        lines += 4.0;
        let scrape = sidecar.settled(lines as u64);
        let sent = round as f64 + 2.0;
        scrape.assert("kept_total", sent);
        scrape.assert("wait_seconds_count", sent);
        assert_eq!((scrape.recorded(), scrape.dropped()), (lines - sent, sent), "after {seconds} s\n{}", scrape.text);
        scrape.assert("wait_seconds{quantile=\"0.5\"}", scrape.value("wait_seconds_sum") / sent);
        scrape.assert("statsieve_ingest_latency_seconds_count", lines);
        assert!(scrape.samples.iter().all(|(_, value)| *value >= 0.0 || value.is_nan()), "{}", scrape.text);
        assert_eq!(created(), first, "after {seconds} s");
        // It was written to a moment ago, and goes when its two seconds are over.
        sidecar.wait_until("the short-lived series is gone", |it| it.scrape().get(&short).is_none());
        scrape.assert("statsieve_series_expired_total{cause=\"idle\"}", round as f64);
        for path in ["/api/v1/status", "/api/v1/cardinality"] {
            let mut found = Vec::new();
            numbers("", &serde_json::from_slice(&sidecar.get(path, &[]).body).unwrap(), &mut found);
            let negative: Vec<_> = found.iter().filter(|(_, number)| *number < 0.0).collect();
            assert!(!found.is_empty() && negative.is_empty(), "{path} after {seconds} s: {negative:?}");
            let uptime = found.iter().find(|(path, _)| path == ".uptime_seconds").map(|(_, seconds)| *seconds);
            assert!(uptime.is_none_or(|uptime| uptime <= now() - begun), "{uptime:?} after {seconds} s");
        }
        let page = sidecar.get("/", &[]).text();
        let ago = page.split(" ago<").next().unwrap().rsplit('>').next().unwrap();
        assert!(!ago.contains(['d', 'y']), "refused {ago} ago, after {seconds} s");
        assert_eq!(sidecar.get("/-/ready", &[]).status, 200);
    }
    let scrape = sidecar.scrape();
    scrape.assert("kept_total", steps.len() as f64 + 1.0);
    assert_eq!(scrape.kernel_drops(), 0.0);
    assert!(!sidecar.log().contains("did not run"), "{}", sidecar.log());
    it.sidecar.stop();
}
