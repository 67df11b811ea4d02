//! What the sidecar tells of itself: its state, what it holds, what hit which limit, what to change.

use serde_json::Value;

use crate::harness::{Sidecar, get};

fn json(sidecar: &Sidecar, path: &str) -> Value {
    let reply = sidecar.get(path, &[]);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{path}");
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", reply.text()))
}

fn status(sidecar: &Sidecar) -> Value {
    json(sidecar, "/api/v1/status")
}

/// The TOML of each hint of a kind.
fn hints<'a>(report: &'a Value, kind: &str) -> Vec<&'a str> {
    let hints = report["hints"].as_array().unwrap().iter();
    hints.filter(|hint| hint["kind"] == kind).map(|hint| hint["toml"].as_str().unwrap()).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_new_sidecar_says_where_it_waits_and_how_to_scrape_it() {
    let sidecar = Sidecar::start(&["http.metrics_path=/m"]);
    let status = status(&sidecar);
    let text = status["verdict"]["text"].as_str().unwrap();
    assert_eq!(text, format!("Nothing was received yet; it waits on udp {}.", sidecar.udp));
    assert_eq!(status["verdict"]["level"], "warning");
    assert_eq!(status["listeners"][0]["address"], sidecar.udp.to_string());
    assert!(status["test_line"].as_str().unwrap().ends_with(&format!("127.0.0.1 {}", sidecar.udp.port())));
    let snippet = status["scrapes"]["scrape_configs"].as_str().unwrap();
    assert!(snippet.contains(&sidecar.http.to_string()) && snippet.contains("metrics_path: /m\n"), "{snippet}");
    assert_eq!(status["scrapes"]["last_seconds_ago"], Value::Null);
    assert_eq!((&status["latency"]["since_start"], &status["configuration"]["file"]), (&Value::Null, &Value::Null));
    assert_eq!((&status["phase"], &status["configuration"]["overrides"]), (&"ready".into(), &5.into()));
    sidecar.stop();
}

#[test]
fn status_holds_the_figures_of_the_books() {
    let sidecar = Sidecar::start(&["listen.workers=2"]);
    let lines: Vec<String> = (0..2000)
        .map(|n| match n % 4 {
            0 => "hits:1|c|#k:v".to_owned(),
            1 => "wait:12|ms".to_owned(),
            2 => "depth:1|g|#message_id:7,bare".to_owned(),
            _ => format!("hits:x|c|#user_id:{n}"),
        })
        .collect();
    for chunk in lines.chunks(20) {
        sidecar.sender().send(chunk.join("\n").as_bytes());
    }
    let scrape = sidecar.settled(2000);
    let status = status(&sidecar);
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}"));
    for (pointer, expected) in [
        ("/ledger/datagrams", 100.0),
        ("/ledger/lines", 2000.0),
        ("/ledger/recorded", 1500.0),
        ("/ledger/recorded_by_type/timer", 500.0),
        ("/ledger/dropped", 500.0),
        ("/ledger/lost", 500.0),
        ("/ledger/dropped_by_reason/malformed_value", 500.0),
        ("/ledger/tags_dropped_by_reason/bare", 500.0),
        ("/ledger/kernel_dropped_datagrams", 0.0),
        ("/cache/hits", scrape.value("statsieve_identity_cache_hits_total")),
        ("/cache/misses", scrape.value("statsieve_identity_cache_misses_total")),
        ("/cache/entries", scrape.value("statsieve_identity_cache_entries")),
        ("/queue/bytes", 0.0),
        ("/queue/limit_bytes", scrape.value("statsieve_receive_queue_limit_bytes{listener=\"udp\"}")),
        ("/latency/since_start/count", 100.0),
        ("/limits/0/used", scrape.value("statsieve_series")),
        ("/limits/1/used", 3.0),
        ("/families_in_all", 3.0),
        ("/scrapes/last_bytes", scrape.text.len() as f64),
    ] {
        assert_eq!(number(pointer), expected, "{pointer} in {status:#}");
    }
    for (pointer, least, most) in [
        ("/cache/hit_rate", 0.9, 1.0),
        ("/rates/lines", 1.0, 1e9),
        ("/rates/lost", 1.0, 1e9),
        ("/latency/last_minute/p95", 1e-9, 1.0),
        ("/memory/resident_bytes", 1e6, 1e9),
        ("/memory/series_bytes", 100.0, 1e6),
        ("/uptime_seconds", 1e-3, 1e3),
    ] {
        let found = number(pointer);
        assert!((least..=most).contains(&found), "{pointer}: {found}");
    }
    assert_eq!(status["sampling"]["rates"], serde_json::json!([1.0, 1.0]));
    let verdict = status["verdict"]["text"].as_str().unwrap();
    assert!(verdict.starts_with("25.0 % of the samples were refused"), "{verdict}");
    assert!(verdict.ends_with("most of them as malformed_value."), "{verdict}");
    assert_eq!(status["verdict"]["level"], "critical");
    sidecar.stop();
}

#[test]
fn all_is_well_where_nothing_is_lost() {
    let sidecar = Sidecar::start(&[]);
    sidecar.take(&["hits:1|c", "hits:1|c"]);
    let status = status(&sidecar);
    let verdict = status["verdict"]["text"].as_str().unwrap();
    assert!(verdict.starts_with("All is well: ") && verdict.ends_with("nothing lost since the start."), "{verdict}");
    assert_eq!(status["refused"], serde_json::json!([]));
    assert_eq!(status["hints"], serde_json::json!([]));
    sidecar.stop();
}

#[test]
fn the_last_refused_lines_are_shown_without_the_ids_of_users() {
    let sidecar = Sidecar::start(&["listen.workers=1"]);
    sidecar.take(&[
        "visits:-1|c|#user_id:zz4711zz,k:v",
        "wait:x|ms,user_id=zz4711zz",
        "what is user_id=zz4711zz",
        "fine:1|c|#user_id:zz4711zz",
        "depth,user_id=zz4711zz:nan|g",
    ]);
    let found = status(&sidecar)["refused"].as_array().unwrap().clone();
    let lines: Vec<(&str, &str)> =
        found.iter().map(|line| (line["reason"].as_str().unwrap(), line["line"].as_str().unwrap())).collect();
    assert_eq!(
        lines,
        [
            ("not_finite", "depth,user_id=\u{2026}:nan|g"),
            ("malformed_line", "what is user_id=\u{2026}"),
            ("unknown_type", "wait:x|ms,user_id=\u{2026}"),
            ("negative_counter", "visits:-1|c|#user_id:\u{2026},k:v"),
        ]
    );
    for line in &found {
        assert!(now() - line["at"].as_u64().unwrap() < 60, "{line}");
    }
    assert!(!sidecar.get("/api/v1/status", &[]).text().contains("zz4711zz"));
    sidecar.stop();
}

#[test]
fn cardinality_tells_what_costs_what_hit_which_limit_and_when() {
    let settings = ["cardinality.max_families=3", "cardinality.max_series_per_family=300", "labels.max_values=100"];
    let sidecar = Sidecar::start(&settings);
    let began = now();
    let lines = (0..1500).map(|n| format!("req:1|c|#request:{n},kind:{}\nwait:5|ms|#kind:a\nspare{n}:1|g", n % 3));
    let sender = sidecar.sender();
    for (n, lines) in lines.enumerate() {
        sender.send(lines.as_bytes());
        if n % 50 == 49 {
            sidecar.wait_until("they are taken", |it| it.scrape().lines() >= 3.0 * (n as f64 + 1.0));
        }
    }
    let scrape = sidecar.settled(4500);
    let report = json(&sidecar, "/api/v1/cardinality?limit=2");
    assert_eq!((&report["families_in_all"], report["families"].as_array().unwrap().len()), (&3.into(), 2));
    let largest = &report["families"][0];
    assert_eq!((&largest["name"], &largest["type"]), (&"req_total".into(), &"counter".into()));
    let series = scrape.of("req_total").count();
    assert_eq!(
        (largest["sample_lines"].as_u64(), largest["series"].as_u64()),
        (Some(series as u64), Some(series as u64))
    );
    assert_eq!(report["families"][1]["sample_lines"], 15);
    // The label that grows comes first, and the estimate counts what was folded as well.
    let label = &report["labels"][0];
    assert_eq!((&label["name"], &label["most_in_a_family"]), (&"request".into(), &101.into()));
    let seen = label["seen"].as_f64().unwrap();
    assert!((seen / 1500.0 - 1.0).abs() < 4.0 * 0.065, "{seen}");
    assert_eq!(report["labels"][1]["seen"], 4.0);
    let limited: Vec<(&str, &str)> = report["limited"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| (hit["family"].as_str().unwrap(), hit["limit"].as_str().unwrap()))
        .collect();
    assert!(limited.contains(&("req_total", "max_values")), "{limited:?}");
    assert!(limited.iter().any(|(name, limit)| name.starts_with("spare") && *limit == "max_families"), "{limited:?}");
    for hit in report["limited"].as_array().unwrap() {
        let (first, last) = (hit["first"].as_u64().unwrap(), hit["last"].as_u64().unwrap());
        assert!(began - 2 <= first && first <= last && last <= now() + 1, "{hit}");
    }
    assert_eq!(get(sidecar.http, "/api/v1/cardinality?limit=x", &[]).unwrap().status, 400);
    sidecar.stop();
}

/// What is wrong is seen, and gone once the hint was followed.
#[test]
fn a_hint_pasted_into_the_file_ends_what_it_was_given_for() {
    let send = |sidecar: &Sidecar| {
        let sender = sidecar.sender();
        for n in 0..1500 {
            sender.send(format!("req:1|c|#request:{n}\nlong:90|h\nshort:0.05|ms\ntemp:-5|g|#k:v").as_bytes());
            if n % 50 == 49 {
                sidecar.wait_until("they are taken", |it| it.scrape().lines() >= 4.0 * (f64::from(n) + 1.0));
            }
        }
        sidecar.settled(6000)
    };
    let kinds = ["unbounded_tag", "observations_beyond_last_bound", "timers_look_like_seconds", "signed_gauges"];
    let sidecar = Sidecar::start(&[]);
    let before = send(&sidecar);
    let report = json(&sidecar, "/api/v1/cardinality");
    let toml: String = kinds
        .iter()
        .map(|kind| {
            let found = hints(&report, kind);
            assert_eq!(found.len(), 1, "{kind} in {report:#}");
            found[0]
        })
        .collect::<Vec<_>>()
        // Two of the hints set a key of [parse].
        .join("\n")
        .replacen("[parse]\ngauge_sign = \"absolute\"", "", 1)
        .replace("ms_unit = \"s\"", "ms_unit = \"s\"\ngauge_sign = \"absolute\"");
    sidecar.stop();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, &toml).unwrap();
    let sidecar = Sidecar::start_with(&[], &["--config", file.to_str().unwrap()]);
    let after = send(&sidecar);
    let report = json(&sidecar, "/api/v1/cardinality");
    assert_eq!(report["hints"], serde_json::json!([]), "with\n{toml}");
    assert!(before.of("req_total").count() > 200 && after.of("req_total").count() == 1);
    assert_eq!((before.value("temp{k=\"v\"}"), after.value("temp{k=\"v\"}")), (-7500.0, -5.0));
    assert_eq!(status(&sidecar)["configuration"]["file"], file.to_str().unwrap());
    sidecar.stop();
}
