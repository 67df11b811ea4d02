//! The far side: a real Prometheus server, its linter, and a second pair of parsers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::exposition::LINES;
use crate::harness::{KillOnDrop, Log, Sidecar, assert_within, get, wait_until};
use crate::tools::{free_port, host_and_port, outcome_of, percent_encoded, python, tool};

/// A Prometheus server with data of its own, that scrapes each second.
pub(crate) struct Prometheus {
    address: SocketAddr,
    log: Log,
    _server: KillOnDrop,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// One that scrapes one address.
    fn start(target: SocketAddr, arguments: &[&str]) -> Self {
        Self::start_with(&[target], None, arguments)
    }

    /// One that scrapes several addresses, and evaluates a file of rules each second.
    pub(crate) fn start_with(targets: &[SocketAddr], rules: Option<&Path>, arguments: &[&str]) -> Self {
        Self::start_by("", targets, rules, arguments)
    }

    /// The same by further lines of the scrape job, in YAML's flow style.
    pub(crate) fn start_by(job: &str, targets: &[SocketAddr], rules: Option<&Path>, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let rules: Vec<&Path> = rules.into_iter().collect();
        let text = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\nrule_files: {rules:?}\n\
             scrape_configs:\n  - job_name: sidecar\n{job}    static_configs:\n      - targets: {targets:?}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut last = String::new();
        // The port may be taken by another between our look and the server's start.
        for _ in 0..5 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let mut child = Command::new(tool("prometheus/prometheus"))
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=warn")
                .args(arguments)
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let log = Log::default();
            log.follow(child.stderr.take().unwrap());
            let mut server = KillOnDrop(Some(child));
            let mut ended = false;
            wait_until("Prometheus is ready or has ended", || {
                ended = server.0.as_mut().unwrap().try_wait().unwrap().is_some();
                ended || get(address, "/-/ready", &[]).is_ok_and(|reply| reply.status == 200)
            });
            if !ended {
                return Self { address, log, _server: server, _folder: folder };
            }
            last = log.text();
        }
        panic!("Prometheus does not start:\n{last}");
    }

    /// The answer to an instant query: labels as compact JSON, and values.
    fn query(&self, query: &str) -> BTreeMap<String, f64> {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        let reply = get(self.address, &path, &[]).unwrap();
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        answer["data"]["result"]
            .as_array()
            .unwrap()
            .iter()
            // A native histogram has no value.
            .filter_map(|series| Some((series["metric"].to_string(), series["value"][1].as_str()?.parse().unwrap())))
            .collect()
    }

    /// The data of an answer of its API, or what it says is wrong.
    pub(crate) fn ask(&self, path: &str) -> Result<Value, String> {
        let reply = get(self.address, path, &[]).unwrap();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        if reply.status == 200 { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// The answer to a query for one series.
    pub(crate) fn one(&self, query: &str) -> Option<f64> {
        let answer = self.query(query);
        assert!(answer.len() <= 1, "{query}: {answer:?}");
        answer.into_values().next()
    }

    /// Waits until a query for one series has this answer.
    pub(crate) fn wait_for(&self, query: &str, expected: f64) {
        let mut found = None;
        wait_until(&format!("{query} is {expected}"), || {
            found = self.one(query);
            if found.is_none() && self.query("up == 0").len() == 1 {
                let reply = get(self.address, "/api/v1/targets", &[]).unwrap();
                panic!("the scrape fails: {}\n{}", reply.text(), self.log.text());
            }
            found == Some(expected)
        });
    }
}

/// Has a server ask for protobuf first.
pub(crate) const NATIVE: &str = "--enable-feature=native-histograms";

/// What a real server makes of [`LINES`], for one setting of the sidecar and one of the server.
fn assert_prometheus_answers(settings: &[&str], arguments: &[&str], native: bool) {
    let sidecar = Sidecar::start(settings);
    sidecar.take(&LINES);
    let prometheus = Prometheus::start(sidecar.http, arguments);
    prometheus.wait_for("up{job=\"sidecar\"}", 1.0);
    let labels = "activity_type=\"message\",user_bucket=\"bucket_1\"";
    prometheus.wait_for(&format!("bot_messages_total{{{labels}}}"), 3.0);
    prometheus.wait_for("sum(bot_messages_total)", 5.0);
    prometheus.wait_for("bot_queue_size{queue=\"outbox\"}", 12.5);
    prometheus.wait_for("bot_level", -4.0);
    prometheus.wait_for("bot_errors_total{kind=\"quote\\\"slash\\\\brace}\"}", 1.0);
    prometheus.wait_for("statsieve_lines_total", LINES.len() as f64);
    prometheus.wait_for("sum(statsieve_samples_recorded_total)", LINES.len() as f64);
    prometheus.wait_for("sum(statsieve_samples_dropped_total)", 0.0);
    if native {
        // This server takes a family with native buckets as native alone, so whichever the sidecar sends counts.
        let either = |function: &str, suffix: &str| {
            let name = "bot_update_duration_seconds";
            format!("histogram_{function}({name}{{type=\"message\"}}) or {name}_{suffix}{{type=\"message\"}}")
        };
        prometheus.wait_for(&either("count", "count"), 3.0);
        prometheus.wait_for(&either("sum", "sum"), 0.8081);
    } else {
        prometheus.wait_for("bot_update_duration_seconds_count{type=\"message\"}", 3.0);
        prometheus.wait_for("bot_update_duration_seconds_bucket{type=\"message\",le=\"0.01\"}", 1.0);
        prometheus.wait_for("bot_update_duration_seconds_bucket{type=\"message\",le=\"+Inf\"}", 3.0);
        prometheus.wait_for("count(bot_reply_bytes_bucket)", 13.0);
    }

    // New counts arrive with later scrapes, and rate() sees them. Each look sends on, so the rate does not run dry.
    let mut sent = 3.0;
    let mut quantile = None;
    wait_until("the rate and a quantile are there", || {
        sidecar.send(&["bot.messages:1|c|#user_id:42,activity_type:message", "bot.reply.latency:80|ms|#command:help"]);
        sent += 1.0;
        let rate = prometheus.one(&format!("rate(bot_messages_total{{{labels}}}[30s])"));
        quantile = if native {
            rate
        } else {
            prometheus
                .one("histogram_quantile(0.5, sum by (le) (rate(bot_reply_latency_seconds_bucket[30s])))")
                .filter(|quantile| quantile.is_finite())
        };
        rate.is_some_and(|rate| rate > 0.0) && quantile.is_some()
    });
    if !native {
        // 80 ms lie between the bounds 0.05 and 0.1; all of them, so the middle is halfway.
        assert_within("the median of the reply latency", quantile.unwrap(), 0.0749..=0.0751);
    }
    prometheus.wait_for(&format!("bot_messages_total{{{labels}}}"), sent);
    prometheus.wait_for("min_over_time(up{job=\"sidecar\"}[1m])", 1.0);
    sidecar.stop();
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_answers_with_what_was_sent_by_default_negotiation() {
    assert_prometheus_answers(&[], &[], false);
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_answers_with_what_was_sent_by_text_alone() {
    assert_prometheus_answers(&["http.formats=[\"text\"]"], &[], false);
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_that_asks_for_protobuf_first_answers_with_what_was_sent() {
    assert_prometheus_answers(&[], &[NATIVE], true);
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_reads_the_same_series_from_protobuf_as_from_text() {
    let sidecar = Sidecar::start(&["cardinality.max_series_per_family=20", "cardinality.simplify_at=1"]);
    sidecar.take(&LINES);
    let many: Vec<String> = (0..40).map(|n| format!("bot.many:1|c|#k:{n}")).collect();
    sidecar.send(&many.iter().map(String::as_str).collect::<Vec<_>>());
    sidecar.settled((LINES.len() + many.len()) as u64);
    let servers = [&[][..], &[NATIVE]].map(|arguments| Prometheus::start(sidecar.http, arguments));
    let [by_text, by_protobuf] = servers.each_ref().map(|server| {
        server.wait_for("up{job=\"sidecar\"}", 1.0);
        // Those of a family with native buckets would be one each.
        server.query("{job=\"sidecar\",__name__=~\"bot_.*\",__name__!~\".*(_bucket|_sum|_count)\"}")
    });
    assert_eq!(by_text, by_protobuf);
    assert!(by_text.len() > 20, "{by_text:?}");
    assert!(by_text.iter().any(|(series, count)| series.contains("\"overflow\":\"true\"") && *count > 0.0));
    let types = |server: &Prometheus| -> Value {
        let reply = get(server.address, "/api/v1/metadata", &[]).unwrap();
        serde_json::from_slice::<Value>(&reply.body).unwrap()["data"].clone()
    };
    let [text, protobuf] = servers.each_ref().map(types);
    for name in ["bot_many_total", "bot_queue_size", "bot_update_duration_seconds", "statsieve_lines_total"] {
        // OpenMetrics has it without the suffix.
        let plain = name.strip_suffix("_total").unwrap_or(name);
        assert_eq!(text[plain][0]["type"], protobuf[name][0]["type"], "{name}");
        assert_eq!(text[plain][0]["help"], protobuf[name][0]["help"], "{name}");
        assert!(protobuf[name][0]["type"].is_string(), "{name}");
    }
    servers[1].wait_for("statsieve_scrapes_total{format=\"text\"} > bool 0", 1.0);
    servers[1].wait_for("statsieve_scrapes_total{format=\"protobuf\"} > bool 0", 1.0);
    servers[0].wait_for("statsieve_scrapes_total{format=\"openmetrics\"} > bool 0", 1.0);
    sidecar.stop();
}

/// Observations of a spread that is known, some of them sampled, so that counts are not whole at first.
#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_answers_from_native_histograms_summaries_and_sets() {
    let rule = "mapping.rules=[{match='bot.wait',name='bot_wait',observer_type='summary'}]";
    let sidecar = Sidecar::start(&[rule, "observer.buckets=[1]"]);
    let mut lines: Vec<String> =
        (1..=200).map(|n| format!("bot.size:{n}|h\nbot.wait:{n}|h\nbot.users:{n}|s")).collect();
    lines.push("bot.sampled:5|h|@0.4\nbot.sampled:-7|h\nbot.sampled:0|h".to_owned());
    sidecar.take(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let server = Prometheus::start(sidecar.http, &[NATIVE]);
    server.wait_for("histogram_count(bot_size)", 200.0);
    server.wait_for("histogram_sum(bot_size)", 20_100.0);
    // Eight buckets for each power of two, so a quantile is within the half of 9 %.
    for (quantile, exact) in [(0.1, 20.0), (0.5, 100.0), (0.99, 198.0)] {
        let found = server.one(&format!("histogram_quantile({quantile}, bot_size)")).unwrap();
        assert_within("a quantile", found / exact, 0.91..=1.10);
    }
    server.wait_for("histogram_count(bot_sampled)", 4.5);
    server.wait_for("histogram_sum(bot_sampled)", 5.5);
    assert_within("those below 0", server.one("histogram_fraction(-100, -1, bot_sampled) * 4.5").unwrap(), 0.99..=1.01);
    assert_eq!(server.one("count(bot_size_bucket)"), None, "this server takes the native one alone");
    server.wait_for("bot_wait_count", 200.0);
    for (quantile, exact) in [("0.5", 100.0), ("0.9", 180.0), ("0.95", 190.0), ("0.99", 198.0)] {
        let found = server.one(&format!("bot_wait{{quantile=\"{quantile}\"}}")).unwrap();
        assert_within("a quantile", found / exact, 0.99..=1.01);
    }
    assert_within("users", server.one("bot_users").unwrap(), 180.0..=220.0);
    // Whole from here on, as far as this server can tell from the last it read; it goes on taking it.
    sidecar.send(&["bot.sampled:1|h|@0.5", "bot.sampled:1|h|@0.4"]);
    server.wait_for("histogram_count(bot_sampled)", 9.0);
    server.wait_for("min_over_time(up{job=\"sidecar\"}[1m])", 1.0);
    // The same names without native buckets.
    let classic = Prometheus::start(sidecar.http, &[]);
    classic.wait_for("bot_size_bucket{le=\"1.0\"}", 1.0);
    classic.wait_for("bot_size_count", 200.0);
    classic.wait_for("bot_wait_sum", 20_100.0);
    classic.wait_for("count(bot_wait)", 4.0);
    sidecar.stop();
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_takes_a_family_of_many_messages() {
    let settings =
        ["cardinality.max_series_per_family=20000", "cardinality.max_series=20000", "labels.max_values=20000"];
    let sidecar = Sidecar::start(&[&settings[..], &["cardinality.new_series_per_second=0"]].concat());
    let sender = sidecar.sender();
    for n in 0..240 {
        let lines: Vec<String> = (0..50).map(|m| format!("bot.many:{m}|g|#k:{}", n * 50 + m)).collect();
        sender.send(lines.join("\n").as_bytes());
        if n % 40 == 39 {
            sidecar.settled((n + 1) * 50);
        }
    }
    let prometheus = Prometheus::start(sidecar.http, &[NATIVE]);
    prometheus.wait_for("count(bot_many)", 12_000.0);
    prometheus.wait_for("sum(bot_many)", 240.0 * 1225.0);
    prometheus.wait_for("bot_many{k=\"11999\"}", 49.0);
    prometheus.wait_for("statsieve_scrapes_total{format=\"protobuf\"} > bool 0", 1.0);
    sidecar.stop();
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn a_real_prometheus_stays_up_on_hostile_lines() {
    let sidecar = Sidecar::start(&[]);
    let servers = [&[][..], &[NATIVE]].map(|arguments| Prometheus::start(sidecar.http, arguments));
    sidecar.take(&[
        "go_goroutines:1|g",
        "go_goroutines:2|g|#kind:a",
        "up:0|g",
        "x:1|c|#__name__:y",
        "x:1|h|#le:0.5",
        "y:nan|c",
        "y:1|c|#note:\\n\\\"}{=,\u{7f}\u{1}\u{2028}",
        "z:1e308|g",
    ]);
    for prometheus in &servers {
        prometheus.wait_for("go_goroutines{kind=\"a\",job=\"sidecar\"}", 2.0);
        prometheus.wait_for("up{job=\"sidecar\"}", 1.0);
        prometheus.wait_for("sum(y_total)", 1.0);
        prometheus.wait_for("z", 1e308);
    }
    let notes = servers.each_ref().map(|server| server.query("y_total"));
    assert_eq!(notes[0], notes[1], "labels are the same by either format");
    sidecar.stop();
}

#[test]
#[ignore = "needs promtool, run by tests/run"]
fn promtool_finds_nothing_to_say_about_the_exposition() {
    // The sidecar's own metrics, and user metrics whose names follow the conventions.
    let sidecar = Sidecar::start(&[]);
    sidecar.take(&[
        "bot.messages:3|c|#user_id:42,activity_type:message",
        "bot.queue.size:12.5|g|#queue:outbox",
        "bot.update.duration:8.1|ms|#type:message",
        "bot.reply.bytes:1024|h|#command:help",
    ]);
    let text = sidecar.scrape().text;
    let mut command = Command::new(tool("prometheus/promtool"));
    let (stdout, ok, stderr) = outcome_of(command.args(["check", "metrics"]), Some(text.clone().into_bytes()));
    // No user of the sidecar wrote a HELP text, so promtool misses one for their names. All else is ours to put right.
    let complaints: Vec<&str> = stdout
        .lines()
        .chain(stderr.lines())
        .filter(|line| !line.is_empty())
        .filter(|line| !line.starts_with("bot_") || !line.ends_with("no help text"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?} in\n{text}");
    assert!(ok || stdout.contains("no help text") || stderr.contains("no help text"), "{stdout}\n{stderr}");
    sidecar.stop();
}

#[test]
#[ignore = "needs the PyPI package prometheus-client, run by tests/run"]
fn the_classic_and_the_strict_parser_read_back_what_was_sent() {
    let sidecar = Sidecar::start(&[]);
    sidecar.take(&LINES);
    let [host, port] = host_and_port(sidecar.http);
    let found: Value = serde_json::from_str(&python("read_back.py", &[&host, &port])).unwrap();
    let expected = sidecar.scrape();
    for format in ["text", "openmetrics"] {
        let samples = found[format].as_object().unwrap();
        // Escapes are undone by those parsers and not by ours.
        let unescaped = |series: &str| series.replace("\\\"", "\"").replace("\\\\", "\\");
        for (series, value) in expected.user_series() {
            let series = unescaped(series);
            let read = samples.get(&series).unwrap_or_else(|| panic!("{format}: no {series} in {samples:#?}"));
            assert_eq!(read.as_f64(), Some(value), "{format}: {series}");
        }
        let user_series = samples.keys().filter(|series| series.starts_with("bot_")).count();
        assert_eq!(user_series, expected.user_series().len(), "{format}: {samples:#?}");
        assert_eq!(samples["statsieve_lines_total"].as_f64(), Some(LINES.len() as f64), "{format}");
    }
    let types = &found["types"];
    assert_eq!(types["openmetrics"]["bot_messages"], "counter");
    assert_eq!(types["openmetrics"]["bot_queue_size"], "gauge");
    for format in ["text", "openmetrics"] {
        assert_eq!(types[format]["bot_update_duration_seconds"], "histogram", "{format}");
    }
    sidecar.stop();
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn the_test_server_itself_scrapes_a_fixed_page() {
    // The harness apart from the sidecar: a page of one gauge, served here.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let prometheus = Prometheus::start(target, &[]);
    let done = Arc::new(AtomicBool::new(false));
    let server = std::thread::spawn({
        let done = done.clone();
        move || {
            while !done.load(Relaxed) {
                let (mut stream, _) = listener.accept().unwrap();
                // A scraper that went away is no failure: it asks again.
                let _ = stream.read(&mut [0; 4096]);
                let page = "fixed_page{a=\"b\"} 7\n";
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{page}", page.len());
            }
        }
    });
    prometheus.wait_for("fixed_page{a=\"b\"}", 7.0);
    assert_eq!(prometheus.one("no_such_series"), None);
    drop(prometheus);
    done.store(true, Relaxed);
    // One more connection, for the loop to see that it is done.
    get(target, "/", &[]).unwrap();
    server.join().unwrap();
}
