//! What is promised of HTTP: paths with their methods, the fields of JSON answers; and that a scrape holds the own
//! metrics that `tests/files/interface.rs` promises. README, Compatibility.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Sidecar, request, wait_for};
use crate::promise::{keep, paths, promised};

/// With all that shows something of its own turned on.
fn everything() -> Sidecar {
    let name = format!("@statsieve-interface-{}", std::process::id());
    let path = |kind: &str| format!("listen.{kind}={name}-{kind}");
    Sidecar::start(&[
        "listen.tcp=127.0.0.1:0",
        &path("unix_datagram"),
        &path("unix_stream"),
        "listen.workers=1",
        "http.lifecycle=true",
        "telemetry.statsd_exporter_metrics=true",
        "distinct.export_registers=true",
        "distinct.registers=16",
        "labels.max_values=2",
        "cardinality.max_families=9",
    ])
}

/// The rows of the table of endpoints in README: path and methods.
fn endpoints() -> Vec<(String, BTreeSet<String>)> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Endpoints\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.take_while(|line| line.starts_with("| `/"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let path = cells[1].trim_start_matches('`').split(['`', '?']).next().unwrap();
            (path.to_owned(), cells[2].split(", ").map(str::to_owned).collect())
        })
        .collect()
}

/// Fields of answers whose own fields are words out of a set.
const BY_WORD: [&str; 4] = ["recorded_by_type", "dropped_by_reason", "tags_dropped_by_reason", "told_by_clients"];

#[test]
fn paths_methods_and_fields_of_answers_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statsieve.toml");
    std::fs::write(&file, "[labels]\nmax_values = 2\n[cardinality]\nmax_families = 5\n").unwrap();
    let settings = ["listen.workers=1", "http.lifecycle=true"];
    let sidecar = Sidecar::start_with(&settings, &["--config", file.to_str().unwrap()]);
    let mut lines: Vec<String> =
        ["hits:1|c|#user_id:42,bare", "wait:5|ms", "hits:-1|c", "depth:3|g", "users:7|s"].map(str::to_owned).into();
    lines.push("datadog.dogstatsd.client.metrics:1|c".to_owned());
    lines.extend((0..100).map(|n| format!("hits:1|c|#request:{n}")));
    lines.extend((0..5).map(|n| format!("more{n}:1|c")));
    let sent: Vec<&str> = lines.iter().map(String::as_str).collect();
    sidecar.take(&sent);
    let mut facts = Vec::new();
    for (path, methods) in endpoints() {
        // The last of them ends it.
        let all = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        let ask = |method: &str| request(sidecar.http, method, &path, &[]);
        let taken = all.into_iter().filter(|method| path != "/-/quit" || !methods.contains(*method)).filter(|method| {
            // No body follows a HEAD, so its answer is not read as one.
            let status = if *method == "HEAD" { head(&sidecar, &path) } else { ask(method).unwrap().status };
            assert_ne!(status, 404, "{method} {path}");
            status != 405
        });
        let taken: BTreeSet<String> = taken.map(str::to_owned).collect();
        if path != "/-/quit" {
            assert_eq!(taken, methods, "{path}: what README says");
        }
        facts.extend(methods.iter().map(|method| format!("{method} {path}")));
    }
    for path in ["/api/v1/status", "/api/v1/cardinality?limit=50", "/api/v1/top", "/api/v1/top?tag=user_id"] {
        let value: Value = serde_json::from_str(&sidecar.get(path, &[]).text()).unwrap();
        let mut found = BTreeSet::new();
        paths(&value, "", &BY_WORD, &mut found);
        let path = path.split_once("?limit").map_or(path, |(path, _)| path);
        facts.extend(found.iter().map(|field| format!("{path} {field}")));
    }
    let quit = request(sidecar.http, "PUT", "/-/quit", &[]).unwrap();
    assert_eq!(quit.status, 200);
    assert_eq!(sidecar.wait().code(), Some(0));
    keep("http.txt", facts);
}

/// The status of an answer to HEAD.
fn head(sidecar: &Sidecar, path: &str) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(sidecar.http).unwrap();
    stream
        .write_all(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_scrape_shows_the_own_metrics_labels_and_values_that_are_promised() {
    let sidecar = everything();
    // A stream of each kind, so that nothing of theirs is missing.
    drop(std::net::TcpStream::connect(sidecar.address_of("tcp")).unwrap());
    drop(connect_abstract(&format!("statsieve-interface-{}-unix_stream", std::process::id())));
    let lines: Vec<String> = (0..20).map(|n| format!("hits:1|c|#user_id:{n},k:{n}|z1")).collect();
    sidecar.take(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    // Those that are there and are not made by a user's name.
    let is_own = |name: &str| {
        ["statsieve_", "process_", "statsd_exporter_", "statsd_metric_mapper_cache_", "promhttp_metric_handler_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let facts = promised("metrics.txt");
    let kinds: BTreeMap<&str, &str> = facts
        .iter()
        .filter_map(|fact| fact.split_once(": "))
        .filter(|(_, kind)| !kind.starts_with("label "))
        .map(|(name, kind)| (name, kind.split(',').next().unwrap()))
        .collect();
    let mut seen = BTreeSet::new();
    let (scrape, series) = wait_for("everything is shown", || {
        let scrape = sidecar.scrape();
        let series: Vec<String> = scrape.samples.keys().filter(|name| is_own(name)).cloned().collect();
        series.iter().any(|name| name.starts_with("statsieve_limited_family_info")).then_some((scrape.text, series))
    });
    for line in series {
        let (name, labels) = line.split_once('{').unwrap_or((&line, ""));
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|base| kinds.get(base) == Some(&"histogram")));
        let family = base.unwrap_or(name);
        assert!(kinds.contains_key(family), "{family} is not promised");
        for pair in labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty() && !pair.starts_with("le="))
        {
            let label = pair.split_once('=').unwrap().0;
            assert!(facts.contains(&format!("{family}: label {label}")), "{family} {pair}");
            let start = format!("{family}{{{label}=");
            let is_closed = facts.iter().any(|fact| fact.starts_with(&start));
            let fact = format!("{family}{{{pair}}}");
            assert!(!is_closed || facts.contains(&fact), "{fact} is not promised");
            seen.insert(fact);
        }
        seen.insert(family.to_owned());
    }
    // In the other direction too, but for what only a limit or a target shows.
    for fact in facts.iter().filter(|fact| fact.contains('{') && !fact.starts_with("statsieve_limited_family_info")) {
        assert!(seen.contains(fact), "{fact} is promised and not there:\n{scrape}");
    }
    for name in kinds.keys().filter(|name| !name.starts_with("statsd_exporter_relay_")) {
        assert!(seen.contains(*name), "{name} is promised and not there:\n{scrape}");
    }
    sidecar.stop();
}

fn connect_abstract(name: &str) -> UnixStream {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    UnixStream::connect_addr(&address).unwrap()
}
