//! A fleet on one machine, from the files of `deploy/fleet`: twenty sidecars of two bots, two shards, the global
//! server, and an agent that writes to VictoriaMetrics. What was sent is known, so every total is compared exactly.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{KillOnDrop, Log, Sidecar, flood_alone, get, wait_for_or_explain, wait_until};
use crate::tools::{percent_encoded, tool};

/// The bots, and the numbers of their sidecars.
const BOTS: [(&str, std::ops::Range<u8>); 2] = [("shop", 0..12), ("help", 12..20)];
const SIDECARS: u8 = 20;

/// Every server and sidecar has an address of its own, where nobody else takes a port that was given back: one that was
/// killed comes back under the same. Those of sidecars end in 1 to 20.
fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 8, 125, last], port))
}

/// A port that is free there.
fn port(last: u8) -> u16 {
    TcpListener::bind(address(last, 0)).unwrap().local_addr().unwrap().port()
}

/// A server from outside that answers queries, or passes on what others ask.
struct Server {
    address: SocketAddr,
    log: Log,
    _process: KillOnDrop,
}

impl Server {
    /// Starts it and waits until `ready` is 200.
    fn start(address: SocketAddr, ready: &str, command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::default();
        log.follow(child.stderr.take().unwrap());
        let mut process = KillOnDrop(Some(child));
        wait_until(&format!("{command:?} is ready"), || {
            let status = process.0.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(status, None, "{command:?} ended\n{}", log.text());
            get(address, ready, &[]).is_ok_and(|reply| reply.status == 200)
        });
        Self { address, log, _process: process }
    }

    /// The values of an instant query by the label `job`, or by nothing.
    fn query(&self, query: &str) -> BTreeMap<String, f64> {
        let reply = get(self.address, &format!("/api/v1/query?query={}", percent_encoded(query)), &[]).unwrap();
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series
            .map(|series| {
                let job = series["metric"]["job"].as_str().unwrap_or_default().to_owned();
                (job, series["value"][1].as_str().unwrap().parse().unwrap())
            })
            .collect()
    }

    /// Waits until a query answers so, exactly.
    fn wait_for(&self, query: &str, expected: &[(&str, f64)]) {
        let expected: BTreeMap<String, f64> = expected.iter().map(|(job, value)| ((*job).to_owned(), *value)).collect();
        let found = RefCell::new(BTreeMap::new());
        wait_for_or_explain(
            &format!("{query} is {expected:?} at {}", self.address),
            || {
                found.replace(self.query(query));
                (*found.borrow() == expected).then_some(())
            },
            || format!("found {:?}\nits log:\n{}", found.borrow(), self.log.text()),
        );
    }

    /// Whether every rule could be evaluated: no duplicates, no label sets that do not match.
    fn assert_rules_are_well(&self, groups: usize) {
        let mut last = String::new();
        wait_until("all rules were evaluated", || {
            let rules: Value = serde_json::from_slice(&get(self.address, "/api/v1/rules", &[]).unwrap().body).unwrap();
            let found = rules["data"]["groups"].as_array().unwrap();
            assert_eq!(found.len(), groups, "{rules}");
            let states = found.iter().flat_map(|group| group["rules"].as_array().unwrap());
            let unwell: Vec<&Value> = states.filter(|rule| rule["health"] != "ok").collect();
            assert!(unwell.iter().all(|rule| rule["health"] == "unknown"), "{unwell:#?}");
            last = format!("{unwell:?}");
            unwell.is_empty()
        });
    }
}

/// The files of `deploy`, in a folder where they are filled in and find each other.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        for folder in ["prometheus/rules", "fleet/rules"] {
            std::fs::create_dir_all(files.path(folder)).unwrap();
            for file in std::fs::read_dir(deploy.join(folder)).unwrap() {
                let from = file.unwrap().path();
                // One group is evaluated once a minute.
                let text = std::fs::read_to_string(&from).unwrap().replace("interval: 1m", "interval: 1s");
                std::fs::write(files.path(folder).join(from.file_name().unwrap()), text).unwrap();
            }
        }
        std::fs::create_dir_all(files.path("fleet/targets")).unwrap();
        files
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Targets as file discovery reads them, a job each.
    fn targets(&self, file: &str, jobs: &[(&str, Vec<SocketAddr>)]) {
        let mut text = String::new();
        for (job, targets) in jobs {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            writeln!(text, "- targets: {targets:?}").unwrap();
            if !job.is_empty() {
                writeln!(text, "  labels: {{job: {job}}}").unwrap();
            }
        }
        std::fs::write(self.path("fleet/targets").join(file), text).unwrap();
    }

    /// A configuration of `deploy/fleet`, filled in. Each second, so that the test is not about waiting.
    fn config(&self, name: &str, into: &str, shard: u8, shards: u8, store: SocketAddr) -> PathBuf {
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/fleet").join(name).with_extension("yml"),
        )
        .unwrap();
        let text = text
            .replace("__SHARDS__", &shards.to_string())
            .replace("__SHARD__", &shard.to_string())
            .replace("127.0.0.1:8428", &store.to_string())
            .replace("15s", "1s");
        let path = self.path("fleet").join(into);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn prometheus(&self, config: &Path, address: SocketAddr, arguments: &[&str]) -> Server {
        let data = config.with_extension("data");
        let storage = if arguments.is_empty() { "tsdb" } else { "agent" };
        let mut command = Command::new(tool("prometheus/prometheus"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.{storage}.path={}", data.display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn").args(arguments);
        Server::start(address, "/-/ready", &mut command)
    }
}

fn start_sidecar(number: u8, http: Option<SocketAddr>) -> Sidecar {
    let http = http.unwrap_or(address(number + 1, 0));
    Sidecar::start(&[
        "listen.workers=1",
        &format!("listen.udp={}", address(number + 1, 0)),
        &format!("http.listen={http}"),
    ])
}

/// Sends `number + 1` messages and one update; one more line is refused.
fn send(sidecar: &Sidecar, number: u8) {
    sidecar.send(&[
        &format!("bot.messages:{}|c|#user_id:42", number + 1),
        "bot.updates:1|c|#type:message,result:ok",
        "no line",
    ]);
}

/// The messages of each bot after every sidecar was sent to so many times.
fn messages(times: u32) -> Vec<(&'static str, f64)> {
    BOTS.map(|(bot, numbers)| (bot, f64::from(times * numbers.map(|number| u32::from(number) + 1).sum::<u32>()))).into()
}

/// So many for each sidecar.
fn each(count: f64) -> Vec<(&'static str, f64)> {
    BOTS.map(|(bot, numbers)| (bot, count * numbers.count() as f64)).into()
}

#[test]
#[ignore = "needs Prometheus and VictoriaMetrics, run by tests/run"]
fn a_fleet_has_exact_totals_that_survive_a_sidecar_and_a_shard() {
    // Twenty-five processes: they and a flood would keep each other from what both wait for.
    let _alone = flood_alone();
    let files = Files::new();
    let mut sidecars: Vec<Option<Sidecar>> = (0..SIDECARS).map(|number| Some(start_sidecar(number, None))).collect();
    let http: Vec<SocketAddr> = sidecars.iter().flatten().map(|sidecar| sidecar.http).collect();
    let jobs = BOTS.map(|(bot, numbers)| (bot, http[usize::from(numbers.start)..usize::from(numbers.end)].to_vec()));
    files.targets("sidecars-all.yml", &jobs);
    let [shards, global, store, agent] =
        [[100, 101], [110, 0], [120, 0], [130, 0]].map(|it| it.map(|last| address(last, port(last.max(1)))));
    let (global, store, agent) = (global[0], store[0], agent[0]);
    files.targets("shards.yml", &[("", shards.to_vec())]);

    let configs = [0, 1].map(|shard| files.config("shard", &format!("shard-{shard}.yml"), shard, 2, store));
    let start_shard = |shard: usize| files.prometheus(&configs[shard], shards[shard], &[]);
    let mut running = [0, 1].map(|shard| Some(start_shard(shard)));
    let global = files.prometheus(&files.config("global", "global-0.yml", 0, 1, store), global, &[]);
    let store_server = Server::start(
        store,
        "/health",
        Command::new(tool("victoria-metrics/victoria-metrics"))
            .arg(format!("-storageDataPath={}", files.path("store").display()))
            .arg(format!("-httpListenAddr={store}"))
            .args(["-search.latencyOffset=0s", "-loggerLevel=WARN"]),
    );
    let agent_config = files.config("agent", "agent-0.yml", 0, 1, store);
    let _agent = files.prometheus(&agent_config, agent, &["--enable-feature=agent"]);

    // Each sidecar is scraped by one shard, and each shard has some.
    global.wait_for("job:statsieve_instances:count", &each(1.0));
    let shares: Vec<f64> = running.iter().flatten().map(|shard| shard.query("sum(up)")[""]).collect();
    assert_eq!(shares.iter().sum::<f64>(), f64::from(SIDECARS), "{shares:?}");
    assert!(shares.iter().all(|share| *share > 0.0), "{shares:?}");

    let assert_totals = |times: u32| {
        let count = f64::from(times);
        global.wait_for("job:bot_messages_total:sum", &messages(times));
        global.wait_for("job:bot_updates_total:sum", &each(count));
        global.wait_for("job:statsieve_lines_total:sum", &each(3.0 * count));
        global.wait_for("job:statsieve_samples_recorded_total:sum", &each(2.0 * count));
        global.wait_for("sum by (job) (job_reason:statsieve_samples_dropped_total:sum)", &each(count));
        store_server.wait_for("sum by (job) (bot_messages_total)", &messages(times));
        store_server.wait_for("sum by (job) (bot_updates_total)", &each(count));
        store_server.wait_for("count by (job) (statsieve_build_info)", &each(1.0));
    };
    let send_to_all = |sidecars: &[Option<Sidecar>]| {
        for (number, sidecar) in sidecars.iter().flatten().enumerate() {
            send(sidecar, number as u8);
        }
    };
    send_to_all(&sidecars);
    assert_totals(1);
    // The ratios are those of all shards together: each got three lines a sidecar, one of them refused.
    send_to_all(&sidecars);
    assert_totals(2);
    global.wait_for("round(statsieve:lost_ratio * 300) / 300", &[("help", 100.0 / 300.0), ("shop", 100.0 / 300.0)]);
    running.iter().flatten().for_each(|shard| shard.assert_rules_are_well(5));
    global.assert_rules_are_well(8);

    // A sidecar is killed, and what it held is gone with it; the fleet says that it is down.
    let lost = usize::from(BOTS[0].1.start);
    drop(sidecars[lost].take());
    global.wait_for("job:statsieve_targets:count - job:statsieve_instances:count", &[("shop", 1.0), ("help", 0.0)]);
    let mut without = messages(2);
    without[0].1 -= 2.0;
    global.wait_for("job:bot_messages_total:sum", &without);
    store_server.wait_for("sum by (job) (bot_messages_total)", &without);
    sidecars[lost] = Some(start_sidecar(0, Some(http[lost])));
    for _ in 0..2 {
        send(sidecars[lost].as_ref().unwrap(), 0);
    }
    assert_totals(2);

    // A shard is killed. The global server holds on to its last records for 5 minutes, the store does not notice.
    drop(running[1].take());
    global.wait_for("sum(up{job=\"shards\"})", &[("", 1.0)]);
    global.wait_for("job:bot_messages_total:sum", &messages(2));
    send_to_all(&sidecars);
    store_server.wait_for("sum by (job) (bot_messages_total)", &messages(3));
    running[1] = Some(start_shard(1));
    assert_totals(3);
    global.wait_for("job:statsieve_instances:count", &each(1.0));
    sidecars.into_iter().flatten().for_each(Sidecar::stop);
}
