//! The files of `deploy` that start sidecars in containers: what their comments promise of times, limits and versions
//! is so, and what is written in two places is the same in both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use statsieve::command::check;
use statsieve::config::{self, Config, Sources};

use crate::rules::{read, root, yaml};

/// The native sidecar in a patch of `deploy/kubernetes`.
fn sidecar(patch: &Value) -> &Value {
    let containers = &patch["spec"]["template"]["spec"]["initContainers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1), "{containers}");
    &containers[0]
}

/// What the arguments of a container set, over a file; their other words have to be these.
fn sources(arguments: &Value, words: &[&str], file: PathBuf) -> Sources {
    let arguments = arguments.as_array().expect("a list").iter().map(|word| word.as_str().expect("text"));
    let (set, others): (Vec<&str>, Vec<&str>) = arguments.partition(|word| word.starts_with("--set="));
    assert_eq!(others, words);
    Sources { file: Some(file), set: set.iter().map(|word| word["--set=".len()..].to_owned()).collect() }
}

fn load(sources: &Sources) -> Config {
    config::load(sources).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The totals that `check` tells: lines of a scrape, MiB of memory.
fn totals(sources: &Sources) -> [f64; 2] {
    let mut out = Vec::new();
    check::check(sources, None, &mut out).expect("a Vec takes everything");
    let text = String::from_utf8(out).expect("check writes text");
    let totals: Vec<f64> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("total ")?.split_whitespace().next()?.parse().ok())
        .collect();
    totals.try_into().unwrap_or_else(|_| panic!("{text}"))
}

/// The two ways to run it in Kubernetes: the component alone, and with that of the unix socket over it.
fn in_kubernetes() -> [(Value, Sources); 2] {
    ["sidecar", "unix-socket"].map(|component| {
        let patch: Value = yaml(&root(&format!("deploy/kubernetes/{component}/pod.yaml")));
        let words = ["--config=/etc/statsieve/statsieve.toml", "--fallback"];
        let file = root("deploy/kubernetes/sidecar/statsieve.toml");
        let sources = sources(&sidecar(&patch)["args"], &words, file);
        (patch, sources)
    })
}

fn seconds(text: &Value) -> Duration {
    let text = text.as_str().unwrap_or_else(|| panic!("{text} is no text"));
    Duration::from_secs(text.strip_suffix('s').and_then(|number| number.parse().ok()).expect("whole seconds"))
}

#[test]
fn nothing_of_the_sidecar_keeps_the_bot_from_starting() {
    let (patch, _) = &in_kubernetes()[0];
    let container = sidecar(patch);
    assert_eq!(container["restartPolicy"], "Always");
    for probe in ["startupProbe", "readinessProbe"] {
        assert_eq!(container[probe], Value::Null, "{probe}");
    }
    let volumes = &patch["spec"]["template"]["spec"]["volumes"];
    assert_eq!(volumes[0]["configMap"]["optional"], true, "{volumes}");

    let compose: Value = yaml(&root("deploy/compose/compose.yaml"));
    let services = &compose["services"];
    assert_eq!(services["statsieve"]["network_mode"], "service:bot");
    for key in ["network_mode", "depends_on"] {
        assert_eq!(services["bot"][key], Value::Null, "{key}");
    }
}

#[test]
fn where_each_listens_is_what_its_comments_say_with_and_without_its_file() {
    let [(_, udp), (_, unix)] = in_kubernetes();
    for (name, sources, path) in [("udp", udp, None), ("unix", unix, Some("/run/statsieve/statsd.sock"))] {
        // What --fallback runs with if the file is refused.
        let without = Sources { file: None, set: sources.set.clone() };
        for config in [load(&sources), load(&without)] {
            let listen = &config.listen;
            assert_eq!(listen.udp.as_deref(), (name == "udp").then_some("127.0.0.1:8125"), "{name}");
            assert_eq!(listen.unix_datagram.as_deref(), path, "{name}");
            assert_eq!((config.http.listen.as_str(), listen.socket_mode), ("[::]:9102", 0o660), "{name}");
        }
        assert!(load(&sources).reload.watch, "{name}");
    }
    let compose: Value = yaml(&root("deploy/compose/compose.yaml"));
    let arguments = &compose["services"]["statsieve"]["command"];
    let config = load(&sources(arguments, &["--fallback"], root("deploy/compose/statsieve.toml")));
    assert_eq!((config.listen.udp.as_deref(), config.http.listen.as_str()), (Some("127.0.0.1:8125"), "0.0.0.0:9102"));
    let image = load(&Sources { file: Some(root("deploy/container/statsieve.toml")), set: Vec::new() });
    assert_eq!((image.listen.udp.as_deref(), image.http.listen.as_str()), (Some("0.0.0.0:8125"), "0.0.0.0:9102"));
    assert!(image.http.drain < Duration::from_secs(10), "docker stop kills after 10 s");
}

#[test]
fn the_last_numbers_are_scraped_before_a_sidecar_is_killed() {
    let monitor: Value = yaml(&root("deploy/kubernetes/monitoring/pod-monitor.yaml"));
    let interval = seconds(&monitor["spec"]["podMetricsEndpoints"][0]["interval"]);
    let [(patch, udp), (_, unix)] = in_kubernetes();
    let grace = patch["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    for sources in [udp, unix] {
        let drain = load(&sources).http.drain;
        // Thirty seconds are what a pod has by default, and here the bot alone.
        assert!(interval < drain && drain + Duration::from_secs(30) < Duration::from_secs(grace), "{drain:?}");
    }
    let compose: Value = yaml(&root("deploy/compose/compose.yaml"));
    let prometheus: Value = yaml(&root("deploy/compose/prometheus.yml"));
    let drain = load(&Sources { file: Some(root("deploy/compose/statsieve.toml")), set: Vec::new() }).http.drain;
    let grace = seconds(&compose["services"]["statsieve"]["stop_grace_period"]);
    assert!(seconds(&prometheus["global"]["scrape_interval"]) < drain && drain < grace, "{drain:?} {grace:?}");
}

#[test]
fn limits_lie_above_the_worst_case_and_not_far_above() {
    let compose: Value = yaml(&root("deploy/compose/compose.yaml"));
    let prometheus: Value = yaml(&root("deploy/compose/prometheus.yml"));
    let monitor: Value = yaml(&root("deploy/kubernetes/monitoring/pod-monitor.yaml"));
    let [(patch, udp), (_, unix)] = in_kubernetes();
    let mebibytes = |text: &Value, unit| text.as_str().unwrap().strip_suffix(unit).unwrap().parse::<f64>().unwrap();
    let in_pod = mebibytes(&sidecar(&patch)["resources"]["limits"]["memory"], "Mi");
    let in_compose = mebibytes(&compose["services"]["statsieve"]["mem_limit"], "m");
    let file = Sources { file: Some(root("deploy/compose/statsieve.toml")), set: Vec::new() };
    for (sources, lines, memory) in [
        (&udp, &monitor["spec"]["sampleLimit"], in_pod),
        (&unix, &monitor["spec"]["sampleLimit"], in_pod),
        (&file, &prometheus["scrape_configs"][0]["sample_limit"], in_compose),
    ] {
        let config = load(sources);
        let [most_lines, most_memory] = totals(sources);
        let registers = config.distinct.registers as f64 * config.distinct.windows.len() as f64;
        let exported = if config.distinct.export_registers { registers } else { 0.0 };
        let lines = lines.as_f64().unwrap();
        assert!(most_lines < lines && lines < most_lines * 1.2, "{lines} {most_lines}, {exported} of them registers");
        // The socket's buffer counts in a control group as well; half of it again for what the kernel adds.
        let buffers = config.listen.receive_buffer_bytes as f64 * 2.0 * 2.0 / f64::from(1 << 20);
        assert!(most_memory + buffers < memory && memory < most_memory * 2.0, "{memory} {most_memory} {buffers}");
    }
}

#[test]
fn the_prometheus_rule_of_kubernetes_holds_the_very_rules() {
    let path = root("deploy/kubernetes/monitoring/prometheus-rule.yaml");
    let found = read(&path);
    let groups: Vec<String> = ["statsieve", "alerts"]
        .map(|name| read(&root(&format!("deploy/prometheus/rules/{name}.yml"))))
        .iter()
        .map(|text| text.split_once("\ngroups:\n").unwrap().1.to_owned())
        .collect();
    // Lists may stand as far to the left as their key, so not a line has to be moved.
    let (head, _) = found.split_once("\n  groups:\n").expect("it has groups");
    let expected = format!("{head}\n  groups:\n{}", groups.join("\n"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &expected).expect("it can be written");
    }
    assert!(read(&path) == expected, "the rules have changed: UPDATE_EXPECTED=1 cargo test --test files deploy");
}

#[test]
fn every_image_has_a_version_and_ours_is_that_of_the_crate() {
    let ours = concat!("statsieve:", env!("CARGO_PKG_VERSION"));
    let version = concat!("org.opencontainers.image.version=\"", env!("CARGO_PKG_VERSION"), "\"");
    let containerfile = read(&root("deploy/container/Containerfile"));
    assert!(containerfile.contains(version) && containerfile.contains(&format!("--tag {ours} .")), "{version}");
    let mut images = Vec::new();
    for line in containerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        images.extend(line.split(' ').next().filter(|image| *image != "scratch").map(str::to_owned));
    }
    let mut add = |value: &Value| images.push(value.as_str().expect("an image is text").to_owned());
    let compose: Value = yaml(&root("deploy/compose/compose.yaml"));
    compose["services"].as_object().unwrap().values().for_each(|service| add(&service["image"]));
    add(&sidecar(&in_kubernetes()[0].0)["image"]);
    for image in &images {
        let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        // A patch level, so that the same file means the same image.
        assert!(tag.matches('.').count() >= 2 && tag.contains(|c: char| c.is_ascii_digit()), "{image}");
        assert!(name != "statsieve" || image == ours, "{image} is not {ours}");
    }
    assert_eq!(images.iter().filter(|image| *image == ours).count(), 2, "{images:?}");
    for example in ["example", "example-unix"] {
        let file: Value = yaml(&root(&format!("deploy/kubernetes/{example}/kustomization.yaml")));
        assert_eq!(file["images"][0]["newTag"], env!("CARGO_PKG_VERSION"), "{example}");
    }
}

#[test]
fn whatever_compose_mounts_is_there() {
    let folder = root("deploy/compose");
    let compose: Value = yaml(&folder.join("compose.yaml"));
    let mut mounted = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let (source, _) = volume.as_str().unwrap().split_once(':').unwrap();
            if source.starts_with('.') {
                assert!(folder.join(source).exists(), "{name}: {source}");
                mounted += 1;
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: {source}");
            }
        }
    }
    assert!(mounted >= 6, "{mounted}");
    let build = &compose["services"]["statsieve"]["build"];
    let context = folder.join(build["context"].as_str().unwrap());
    assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{build}");
    let home = &compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    let file = Path::new(home.as_str().unwrap()).file_name().unwrap();
    assert!(root("grafana/dashboards").join(file).is_file(), "{home}");
}
