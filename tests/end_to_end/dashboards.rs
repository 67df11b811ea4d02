//! Every query of the Grafana dashboards answers, on a real Prometheus that scrapes sidecars under load.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::{Sender, Sidecar, wait_until};
use crate::prometheus::{NATIVE, Prometheus};
use crate::tools::percent_encoded;

/// How long all queries may take to have data: rules build on rules, and each needs two scrapes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What Grafana would put in: All of every variable but the instance, and a rate interval for a scrape each second.
const VARIABLES: [(&str, &str); 5] =
    [("$__rate_interval", "6s"), ("$__range", "1m"), ("$job", ".+"), ("$command", ".*"), ("$method", ".*")];

/// What stays at 0 while all is well: for a query with one of these a 0 is data.
const QUIET: [&str; 5] = [
    "statsieve_kernel_dropped_datagrams",
    "statsieve_receive_queue_bytes",
    "statsieve_series_expired_total",
    "up{",
    "statsieve_targets:count",
];

/// A sidecar that cannot take all it is sent, for each reason there is a panel for.
const POOR: [&str; 7] = [
    "distinct.export_registers=true",
    "sampling.mode=fixed",
    "sampling.rate=0.5",
    "rate_limit.samples_per_second=100",
    "cardinality.max_series_per_family=20",
    "labels.max_values=10",
    "mapping.rules=[{match='noise.*',name='noise',action='drop'},{match='bot.sessions',name='bot_sessions'}]",
];

/// What a bot sends at one moment: the README's table, with other users than the other bots have, and mistakes.
fn send(sender: &Sender, bot: usize, moment: usize) {
    let (user, part) = (bot * 1000 + moment % 700, moment % 4);
    let kind = ["message", "callback_query", "inline_query", "message"][part];
    let command = ["help", "start", "search", "help"][part];
    let lines = [
        format!("bot.messages:1|c|#user_id:{user},activity_type:{kind},message_id:{moment}"),
        format!("bot.updates:1|c|#type:{kind},result:{}", if part == 3 { "failed" } else { "ok" }),
        format!("bot.update.duration:{}|ms|#type:{kind}", 3 + part * 20),
        format!("bot.commands:1|c|#command:{command},result:{}", if part == 2 { "failed" } else { "ok" }),
        format!("bot.reply.latency:{}|ms|#command:{command}", 10 + part * 90),
        format!("bot.cache.requests:1|c|#cache:profile,result:{}", if part == 1 { "miss" } else { "hit" }),
        format!("bot.queue.size:{}|g|#queue:outbox", 10 + moment % 30),
        format!("bot.api.calls:1|c|#method:sendMessage,status:{}", [200, 429, 502, 200][part]),
        format!("bot.api.latency:{}|ms|#method:sendMessage", 40 + part * 25),
        format!("bot.errors:1|c|#kind:{}", ["timeout", "flood_wait", "database", "timeout"][part]),
        format!("bot.sessions:1|c|#session:{moment}"),
        "noise.of.a.library:1|c".to_owned(),
        // A series made at each moment.
        format!("made.now.{moment}:1|c"),
        // Refused, each for another reason.
        ["bot.broken", "bot.updates:x|c", "bot.updates:-1|c", "bot.updates:1|g"][part].to_owned(),
        "datadog.dogstatsd.client.packets_dropped:1|c|#client:py,client_version:0.56,client_transport:udp".to_owned(),
    ];
    for line in lines {
        sender.send(line.as_bytes());
    }
}

/// A question of a dashboard: where it stands, and the path of Prometheus' API that Grafana would call.
struct Question {
    at: String,
    query: String,
    is_instant: bool,
}

impl Question {
    /// `None` if there is an answer; else what is wrong with it.
    fn problem(&self, server: &Prometheus) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let query = percent_encoded(&self.query);
        let path = if let Some(rest) = self.query.strip_prefix("label_values(") {
            let (metric, label) = rest.trim_end_matches(')').rsplit_once(", ").unwrap();
            format!("/api/v1/label/{label}/values?match[]={}", percent_encoded(metric))
        } else if self.is_instant {
            format!("/api/v1/query?query={query}")
        } else {
            format!("/api/v1/query_range?query={query}&start={}&end={now}&step=1", now - 10.0)
        };
        let data = match server.ask(&path) {
            Ok(data) => data,
            Err(error) => return Some(error),
        };
        // The values of a label are a list of words.
        let found = data["result"].as_array().or(data.as_array()).unwrap();
        let points: Vec<f64> = found.iter().flat_map(points_of).filter(|value| value.is_finite()).collect();
        let may_be_0 = QUIET.iter().any(|name| self.query.contains(name));
        match points.as_slice() {
            // No alert fires within this test.
            [] if self.query.starts_with("ALERTS{") => None,
            [] => Some("no data".to_owned()),
            points if may_be_0 || points.iter().any(|value| *value > 0.0) => None,
            _ => Some("nothing but 0".to_owned()),
        }
    }
}

/// The values of one series of an answer. That of a histogram is how much it has counted, of a word 1.
fn points_of(series: &Value) -> Vec<f64> {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    let list = |one: &str, many: &str| -> Vec<Value> {
        series[many].as_array().cloned().unwrap_or_default().into_iter().chain(series.get(one).cloned()).collect()
    };
    let plain = list("value", "values").iter().filter_map(|point| number(&point[1])).collect::<Vec<_>>();
    let histograms = list("histogram", "histograms");
    let counts = histograms.iter().filter_map(|point| number(&point[1]["count"]));
    plain.into_iter().chain(counts).chain(series.as_str().map(|_| 1.0)).collect()
}

/// Everything that the dashboards ask for, with their variables filled in, of the instances that match.
fn questions(instance: &str) -> Vec<Question> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let dashboard: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut add = |title: &Value, query: &Value, is_instant: bool| {
            let mut query = query.as_str().unwrap().replace("$instance", instance);
            for (variable, value) in VARIABLES {
                query = query.replace(variable, value);
            }
            assert!(!query.contains('$'), "{name}, {title}: a variable without a value in {query}");
            all.push(Question { at: format!("{name}, {title}"), query, is_instant });
        };
        for variable in &dashboard["templating"]["list"].as_array().unwrap()[1..] {
            add(&variable["name"], &variable["definition"], false);
        }
        for mark in dashboard["annotations"]["list"].as_array().unwrap() {
            add(&mark["name"], &mark["expr"], false);
        }
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                add(&panel["title"], &target["expr"], target["instant"] == true);
            }
        }
    }
    assert!(all.len() > 100, "{} questions", all.len());
    all
}

#[test]
#[ignore = "needs a Prometheus server, run by tests/run"]
fn every_query_of_every_panel_has_data_with_and_without_native_histograms() {
    let well = ["distinct.export_registers=true"];
    let sidecars = [Sidecar::start(&well), Sidecar::start(&well), Sidecar::start(&POOR)];
    let targets = sidecars.each_ref().map(|sidecar| sidecar.http);
    // The rules alone, without their tests.
    let rules = tempfile::tempdir().unwrap();
    for name in ["distinct.yml", "statsieve.yml"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules").join(name);
        std::fs::copy(source, rules.path().join(name)).unwrap();
    }
    let pattern = rules.path().join("*.yml");
    let servers = [("classic", &[][..]), ("native", &[NATIVE])]
        .map(|(name, arguments)| (name, Prometheus::start_with(&targets, Some(&pattern), arguments)));

    // All of them, and the poor one alone, as a link of the Fleet dashboard would choose it.
    let poor = targets[2].to_string().replace('.', "\\\\.");
    let mut open: Vec<_> = servers
        .iter()
        .flat_map(|(name, server)| [".+", &poor].map(|instance| (*name, server, questions(instance))))
        .flat_map(|(name, server, all)| all.into_iter().map(move |question| (name, server, question, String::new())))
        .collect();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let senders = sidecars.each_ref().map(Sidecar::sender);
            for moment in 0.. {
                if is_done.load(Relaxed) {
                    break;
                }
                senders.iter().enumerate().for_each(|(bot, sender)| send(sender, bot, moment));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while !open.is_empty() && Instant::now() < deadline {
            open.retain_mut(|(_, server, question, problem)| {
                *problem = question.problem(server).unwrap_or_default();
                !problem.is_empty()
            });
            std::thread::sleep(Duration::from_millis(200));
        }
        is_done.store(true, Relaxed);
    });
    let problems: Vec<String> = open
        .iter()
        .map(|(name, _, question, problem)| format!("{name}: {}: {problem}: {}", question.at, question.query))
        .collect();
    assert!(problems.is_empty(), "{} queries have no data:\n{}", problems.len(), problems.join("\n"));
    // It was what it says: one server holds no classic buckets of the bot, the other nothing else.
    let buckets = "count(bot_reply_latency_seconds_bucket) > bool 0";
    assert_eq!(servers.each_ref().map(|(_, server)| server.one(buckets)), [Some(1.0), None]);

    // When all are gone the dashboards say so, and no figure of a bot goes on saying that it is well.
    sidecars.into_iter().for_each(Sidecar::stop);
    let (_, server) = &servers[0];
    for question in questions(".+") {
        match question.at.as_str() {
            "sidecar, \"Instances down\"" | "fleet, \"Instances down\"" => server.wait_for(&question.query, 3.0),
            "bot, \"Cache hit rate\"" | "bot, \"Largest queue\"" => {
                wait_until(&question.at, || question.problem(server).as_deref() == Some("no data"));
            }
            _ => {}
        }
    }
}
