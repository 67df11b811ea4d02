//! `statsieve load`: what it says of a sidecar that is right, and of one that is not.
//!
//! Small and bounded: whether it verifies does not depend on speed. Sampling is off where numbers have to be equal,
//! since a busy machine would have them thinned out.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{KillOnDrop, Sidecar, assert_within, flood_alone, program, run, wait_for};

const EXACT: [&str; 2] = ["--set", "sampling.mode=off"];

/// Runs it and gives exit code and standard output.
fn load(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["load"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text + &String::from_utf8_lossy(&output.stderr))
}

/// Runs it with a JSON report, and reads that.
fn load_json(arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (code, text) = load(&[arguments, &["--report", path.to_str().unwrap()]].concat());
    let report = std::fs::read(&path).unwrap_or_else(|error| panic!("{error}: {text}"));
    (code, serde_json::from_slice(&report).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn scenario(name: &str, further: &[&str]) -> Value {
    let (code, mut report) = load_json(&[&["--scenario", name, "--duration", "600ms"], &EXACT[..], further].concat());
    let outcome = report["outcomes"][0].take();
    assert_eq!(code, Some(0), "{name}: {:#}", outcome["verification"]);
    assert_eq!(outcome["verification"]["verified"], true);
    outcome
}

#[test]
fn a_right_sidecar_is_verified_and_every_number_is_compared() {
    let outcome = scenario("low", &[]);
    assert_eq!(outcome["samples"], 600);
    assert_eq!(outcome["ledger"]["lines"], 600);
    assert_eq!(outcome["verification"]["notes"], Value::Array(Vec::new()), "nothing stood in the way");
    assert_within("numbers compared", outcome["verification"]["compared"].as_f64().unwrap(), 100.0..=1000.0);
    assert!(outcome["latency"]["count"].as_u64().unwrap() > 0);
    assert!(outcome["peak_memory_bytes"].as_u64().unwrap() > 1_000_000);
    assert!(outcome["points"].as_array().unwrap().len() >= 2);
}

#[test]
fn the_whole_table_of_a_bot_is_verified_at_a_rate_of_ones_own() {
    let outcome = scenario("mixed", &["--rate", "5000", "--seed", "7"]);
    assert_eq!(outcome["samples"], 3000);
    let recorded = outcome["ledger"]["recorded"].as_object().unwrap();
    assert_eq!(recorded.keys().collect::<Vec<_>>(), ["counter", "gauge", "set", "timer"]);
}

#[test]
fn totals_are_right_by_family_where_limits_fold_every_line() {
    let outcome = scenario("cardinality", &["--rate", "20000"]);
    assert!(outcome["ledger"]["values_folded"].as_u64().unwrap() > 1000, "{:#}", outcome["ledger"]);
    let notes = outcome["verification"]["notes"].to_string();
    assert!(notes.contains("compared by family"), "{notes}");
}

#[test]
fn many_senders_and_steps_and_bursts_are_verified() {
    let _alone = flood_alone();
    for (name, further) in
        [("concurrent", &["--rate", "170000"][..]), ("broadcast", &["--rate", "1000"]), ("burst", &[])]
    {
        let outcome = scenario(name, further);
        assert_eq!(outcome["error_rate"], 0.0, "{name}");
    }
}

#[test]
fn a_sidecar_that_is_given_is_verified_over_every_transport_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (datagrams, stream) = (path("datagrams"), path("stream"));
    let sidecar = Sidecar::start(&[
        "listen.tcp=127.0.0.1:0",
        &format!("listen.unix_datagram={datagrams}"),
        &format!("listen.unix_stream={stream}"),
    ]);
    let metrics = format!("http://{}/metrics", sidecar.http);
    let targets = [
        format!("udp://{}", sidecar.udp),
        format!("tcp://{}", sidecar.address_of("tcp")),
        format!("unix://{datagrams}"),
        format!("unix-stream://{stream}"),
    ];
    for (seed, target) in targets.iter().enumerate() {
        let seed = seed.to_string();
        let arguments = ["--target", target, "--metrics", &metrics, "--seed", &seed, "--duration", "300ms"];
        let (code, report) = load_json(&arguments);
        let outcome = &report["outcomes"][0];
        assert_eq!(code, Some(0), "{target}: {:#}", outcome["verification"]);
        assert_eq!((&outcome["samples"], &outcome["ledger"]["lines"]), (&6000.into(), &6000.into()), "{target}");
    }
    sidecar.stop();
}

#[test]
fn flat_out_over_a_stream_loses_nothing() {
    let sidecar = Sidecar::start(&["listen.tcp=127.0.0.1:0"]);
    let target = format!("tcp://{}", sidecar.address_of("tcp"));
    let metrics = format!("http://{}", sidecar.http);
    let arguments = ["--target", &target, "--metrics", &metrics, "--duration", "200ms", "--rate", "0"];
    let (code, report) = load_json(&arguments);
    let outcome = &report["outcomes"][0];
    assert_eq!(code, Some(0), "{:#}", outcome["verification"]);
    assert_eq!(outcome["samples"], outcome["ledger"]["lines"]);
    sidecar.stop();
}

#[test]
fn a_sidecar_that_counts_otherwise_is_not_verified_and_the_series_are_named() {
    let run = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments = ["--duration", "300ms", "--set", "sampling.mode=off"].into_iter().chain(settings);
        load(&arguments.collect::<Vec<_>>())
    };
    for (setting, named) in [
        ("naming.counter_suffix=_count", "sum(bot_errors_total): expected"),
        (
            "labels.drop=[\"result\", \"message_id\", \"update_id\"]",
            "bot_cache_requests_total{cache=\"profile\",result=\"hit\"}: expected",
        ),
        ("parse.ms_unit=s", "sum(bot_api_latency_seconds_sum): expected"),
        ("bucketing.0.count=10", "bot_messages_total{activity_type="),
        ("observer.buckets=[1]", "bot_api_latency_seconds_bucket"),
    ] {
        let (code, text) = run(&[setting]);
        assert_eq!(code, Some(1), "{setting}: {text}");
        assert!(text.contains("NOT VERIFIED") && text.contains(named), "{setting}: {text}");
    }
}

#[test]
fn what_is_thinned_out_or_refused_is_found_in_the_ledger_and_verified_within_its_error() {
    let arguments = ["--duration", "500ms", "--set", "sampling.mode=fixed", "--set", "sampling.rate=0.5"];
    let (code, report) = load_json(&arguments);
    let outcome = &report["outcomes"][0];
    assert_eq!(code, Some(0), "{:#}", outcome["verification"]);
    assert_within("lines thinned out", outcome["ledger"]["dropped"]["sampled"].as_f64().unwrap(), 3000.0..=6000.0);
    assert_within("largest error", outcome["verification"]["largest_error"].as_f64().unwrap(), 0.001..=5.0);
    assert_eq!(outcome["error_rate"], 0.0, "thinned out on purpose");
}

#[test]
fn what_the_kernel_drops_is_counted_line_for_line_and_sums_are_no_more_than_was_sent() {
    // Room for a few datagrams, and 50,000 samples at once: whatever is lost, the books say so.
    let outcome = scenario("burst", &["--set", "listen.receive_buffer_bytes=4096", "--set", "listen.workers=1"]);
    let lines = outcome["ledger"]["lines"].as_u64().unwrap();
    let lost = (50_000 - lines) as f64 / 50_000.0;
    assert!((outcome["error_rate"].as_f64().unwrap() - lost).abs() < 1e-12, "{outcome:#}");
    let dropped = outcome["ledger"]["kernel_dropped_datagrams"].as_u64().unwrap();
    assert_eq!(dropped > 0, lost > 0.0);
    assert_eq!(dropped > 0, outcome["verification"]["notes"].to_string().contains("the kernel dropped"));
}

#[test]
fn lines_that_somebody_else_sends_are_noticed() {
    let sidecar = Sidecar::start(&[]);
    let (target, metrics) = (format!("udp://{}", sidecar.udp), format!("http://{}", sidecar.http));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sidecar.send(&["bot.messages:1|c"]);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let (code, text) =
            load(&["--target", &target, "--metrics", &metrics, "--scenario", "low", "--duration", "500ms"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("who else sends?") && text.contains("sum(bot_messages_total)"), "{text}");
    });
    sidecar.stop();
}

#[test]
fn stopped_by_a_signal_it_leaves_no_sidecar_behind() {
    let mut child =
        KillOnDrop(Some(program().args(["load", "--duration", "1h"]).stdout(Stdio::null()).spawn().unwrap()));
    let pid = child.0.as_ref().unwrap().id();
    let of = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let sidecar = wait_for("it has started a sidecar", || of().split_whitespace().next().map(str::to_owned));
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
    let status = wait_for("it ends", || child.0.as_mut().unwrap().try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(!std::path::Path::new(&format!("/proc/{sidecar}")).exists());
}

#[test]
fn reports_are_written_in_the_format_of_their_ending() {
    let folder = tempfile::tempdir().unwrap();
    for (name, begins, holds) in [
        ("report.md", "# statsieve load: 1 of 1 verified", "## low: verified"),
        ("report.html", "<!DOCTYPE html>", "<section id=\"low\">"),
        ("report.json", "{", "\"scenario\": \"low\""),
    ] {
        let path = folder.path().join(name);
        let file = path.to_str().unwrap();
        let (code, text) =
            load(&[&["--scenario", "low", "--duration", "100ms", "--report", file], &EXACT[..]].concat());
        assert_eq!(code, Some(0), "{text}");
        let report = std::fs::read_to_string(&path).unwrap();
        assert!(report.starts_with(begins) && report.contains(holds), "{report}");
    }
}

#[test]
fn what_makes_no_sense_is_2_and_what_cannot_be_done_is_1() {
    for (arguments, code, named) in [
        (&["--scenario", "lo"][..], 2, "low, medium"),
        (&["--target", "udp://192.0.2.1:8125"], 2, "--anywhere"),
        (&["--target", "127.0.0.1:8125"], 2, "udp://host:port"),
        (&["--metrics", "http://127.0.0.1:9102"], 2, "--target"),
        (&["--anywhere"], 2, "--target"),
        (&["--duration", "soon"], 2, "--duration"),
        (&["--report", "report.pdf"], 2, ".html"),
        (&["--set", "listen.wokers=2"], 2, "listen.workers"),
        (&["--report", "/nowhere/report.md"], 1, "cannot be written"),
        // Port 9 of this machine: nobody serves metrics there.
        (&["--target", "udp://127.0.0.1:9", "--metrics", "http://127.0.0.1:9"], 1, "mixed: "),
    ] {
        let (found, text) = load(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
}
