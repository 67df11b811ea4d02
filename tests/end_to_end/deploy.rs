//! What `deploy` holds for containers, and its examples, in the real programs: the image's own files run, manifests
//! render and validate, the simulated bot and bots of real libraries feed a real sidecar.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{KillOnDrop, Scrape, Sidecar, program, user_bucket, wait_for};
use crate::tools::{host_and_port, node, outcome_of, output_of, python_with, tool};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of the Python packages, run on files of this repository to its end.
fn venv(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(tool("venv/bin").join(name));
    command.current_dir(root("")).args(arguments);
    output_of(command)
}

/// What `git` would list, without it: files with these endings below a folder of the repository.
fn files(folder: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() && entry.file_name() != "node_modules" {
            found.extend(files(&path, endings));
        } else if endings.iter().any(|ending| path.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
#[ignore = "needs linters from PyPI, run by tests/run"]
fn files_of_yaml_shell_and_containers_pass_their_linters() {
    let rules = "{extends: default, rules: {document-start: disable, comments-indentation: disable, \
                 line-length: {max: 120}, truthy: {check-keys: false}, indentation: {indent-sequences: whatever}}}";
    let yaml: Vec<String> =
        ["deploy", "grafana", ".github"].iter().flat_map(|folder| files(folder, &[".yml", ".yaml"])).collect();
    assert!(yaml.len() > 25, "{yaml:?}");
    let arguments = ["--strict", "-d", rules].into_iter().chain(yaml.iter().map(String::as_str));
    venv("yamllint", &arguments.collect::<Vec<_>>());
    let scripts = ["tests/run", ".ci/run", "tests/bench/run", "tests/fuzz/run", "grafana/render/run", "deploy/release"];
    venv("shellcheck", &scripts);
    venv("hadolint", &["deploy/container/Containerfile"]);
    venv("check-jsonschema", &["--builtin-schema", "vendor.compose-spec", "deploy/compose/compose.yaml"]);
    venv("check-jsonschema", &["--builtin-schema", "vendor.github-workflows", ".github/workflows/ci.yml"]);
}

#[test]
#[ignore = "needs kubectl and validators from PyPI and npm, run by tests/run"]
fn manifests_of_kubernetes_render_and_validate() {
    let folder = tempfile::tempdir().unwrap();
    for example in ["example", "example-unix"] {
        let rendered = venv("kubectl", &["kustomize", &format!("deploy/kubernetes/{example}")]);
        let file = folder.path().join(format!("{example}.yaml"));
        std::fs::write(&file, &rendered).unwrap();
        venv("kubernetes-validate", &["--strict", &file.to_string_lossy()]);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).unwrap();
        let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["ConfigMap", "Deployment", "PodMonitor", "PrometheusRule", "NetworkPolicy"]);
        // Those that Kubernetes itself does not know, by the operator's schemas. An unknown key must fail.
        let json = folder.path().join("objects.json");
        let mut wrong = objects[2].clone();
        wrong["spec"]["sampleLimitt"] = 1.into();
        std::fs::write(&json, serde_json::to_vec(&[&objects[2], &objects[3], &wrong]).unwrap()).unwrap();
        let said = node("validate_operator.js", &[&json.to_string_lossy()]);
        assert_eq!(said.lines().collect::<Vec<_>>(), ["ok", "ok", "refused"], "{said}");

        let pod = &objects[1]["spec"]["template"]["spec"];
        let mounts = |container: &Value| -> Vec<String> {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            mounts.map(|mount| format!("{} {}", mount["name"], mount["mountPath"]).replace('"', "")).collect()
        };
        let socket = "statsieve-socket /run/statsieve".to_owned();
        let is_unix = example == "example-unix";
        for container in [&pod["containers"][0], &pod["initContainers"][0]] {
            assert_eq!(mounts(container).contains(&socket), is_unix, "{container}");
        }
        assert_eq!(pod["initContainers"][0]["restartPolicy"], "Always");
        assert!(pod["initContainers"][0]["image"].as_str().unwrap().starts_with("registry.example.org/"));
        assert_eq!(objects[1]["spec"]["template"]["metadata"]["labels"]["statsieve"], "sidecar");
    }
}

/// The README's way for Kubernetes, pasted into a shell in an empty directory; only the packages are there already.
#[test]
#[ignore = "needs kubectl and a validator from PyPI, run by tests/run"]
fn the_way_of_the_readme_to_kubernetes_ends_at_manifests_that_validate() {
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    let section = readme.split_once("\n## Kubernetes\n").unwrap().1;
    let block = section.split_once("\n```sh\n").unwrap().1.split_once("\n```\n").unwrap().0;
    let install = "python3 -m venv venv && venv/bin/pip install -q kubernetes-validate\n";
    assert!(block.contains(install), "{block}");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(tool("venv"), folder.path().join("venv")).unwrap();
    let path = format!("{}:{}", tool("venv/bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-euc", &block.replace(install, "")]).current_dir(folder.path());
    let (out, is_good, errors) = outcome_of(command.env("STATSIEVE", root("")).env("PATH", path), None);
    assert!(is_good, "{out}{errors}");
    for name in ["configmap/statsieve", "deployment/my-bot", "networkpolicy/statsieve"] {
        assert!(format!("{out}{errors}").contains(&format!("passed for resource {name}")), "{out}{errors}");
    }
    let rendered = std::fs::read_to_string(folder.path().join("rendered.yaml")).unwrap();
    assert!(rendered.contains("image: registry.example.org/statsieve:0.1.0"), "{rendered}");
}

#[test]
#[ignore = "needs promtool, run by tests/run"]
fn the_prometheus_of_compose_finds_what_is_mounted() {
    let compose: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(root("deploy/compose/compose.yaml")).unwrap()).unwrap();
    let image = tempfile::tempdir().unwrap();
    for volume in compose["services"]["prometheus"]["volumes"].as_array().unwrap() {
        let parts: Vec<&str> = volume.as_str().unwrap().split(':').collect();
        if let [source, target, "ro"] = parts[..] {
            let target = image.path().join(target.trim_start_matches('/'));
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(root("deploy/compose").join(source), target).unwrap();
        }
    }
    let mut command = Command::new(tool("prometheus/promtool"));
    command.args(["check", "config"]).arg(image.path().join("etc/prometheus/prometheus.yml"));
    output_of(command);
}

#[test]
#[ignore = "needs Python, run by tests/run"]
fn the_simulated_bot_sends_all_that_a_bot_sends() {
    let file = root("deploy/compose/statsieve.toml");
    let sidecar = Sidecar::start_with(&[], &["--config", &file.to_string_lossy()]);
    let [host, port] = host_and_port(sidecar.udp);
    let mut bot = Command::new(tool("venv/bin/python"));
    bot.arg(root("deploy/compose/bot.py")).args(["--host", &host, "--port", &port]);
    let mut bot = KillOnDrop(Some(bot.env("PYTHONDONTWRITEBYTECODE", "1").spawn().unwrap()));
    // Errors are too rare to wait for.
    let names = [
        "bot_messages_total",
        "bot_updates_total",
        "bot_update_duration_seconds_count",
        "bot_commands_total",
        "bot_reply_latency_seconds_count",
        "bot_cache_requests_total",
        "bot_queue_size",
        "bot_api_calls_total",
        "bot_api_latency_seconds_count",
    ];
    let scrape = wait_for("every metric is there", || {
        let scrape = sidecar.scrape();
        names.iter().all(|name| scrape.of(name).next().is_some()).then_some(scrape)
    });
    assert_eq!(scrape.dropped(), 0.0, "{:?}", scrape.dropped_by_reason());
    let child = bot.0.as_mut().unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let status = wait_for("the bot ends", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    sidecar.stop();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A program of the image, in the image's files alone, as the image's user.
fn in_image(program: &Value, arguments: &[&str]) -> Command {
    let image: Value = serde_json::from_slice(&std::fs::read(tool("image/image.json")).unwrap()).unwrap();
    let user = image["user"].as_str().unwrap();
    let files = tool("image/root");
    let mut command;
    if is_root() {
        command = Command::new("chroot");
        command.arg(format!("--userspec={user}")).arg(files);
    } else {
        // Where a distribution forbids user namespaces to programs like this one, run tests/run as root.
        let (user, group) = user.split_once(':').unwrap();
        command = Command::new("unshare");
        command.args(["--user", "--map-user", user, "--map-group", group, "--root"]).arg(files);
    }
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for (name, value) in image["env"].as_object().unwrap() {
        command.env(name, value.as_str().unwrap());
    }
    command.args(program.as_array().unwrap().iter().map(|word| word.as_str().unwrap())).args(arguments);
    command
}

#[test]
#[ignore = "needs the image's files, which tests/run puts together"]
fn the_image_runs_in_its_own_files_as_nobody_and_tells_whether_it_is_well() {
    let image: Value = serde_json::from_slice(&std::fs::read(tool("image/image.json")).unwrap()).unwrap();
    let root = tool("image/root");
    let mut names: Vec<String> = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(&root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    assert_eq!(names, ["LICENSE", "etc/statsieve/statsieve.toml", "statsieve"], "no shell, no library");

    // Its configuration is read, and is good.
    let said = output_of(in_image(&image["entrypoint"], &["check"]));
    assert!(said.starts_with("read: /etc/statsieve/statsieve.toml,"), "{said}");

    let settings = ["--set=listen.udp=127.0.0.1:0", "--set=http.listen=127.0.0.1:0", "--set=sampling.mode=off"];
    let mut command = in_image(&image["entrypoint"], &settings);
    let sidecar = Sidecar::of(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let process = std::fs::metadata(format!("/proc/{}", sidecar.pid())).unwrap();
    assert!(!is_root() || (process.uid(), process.gid()) == (65532, 65532), "{process:?}");
    let scrape = sidecar.take(&["bot.messages:1|c|#user_id:42,activity_type:message", "bot.queue.size:12|g"]);
    scrape.assert("bot_messages_total{activity_type=\"message\",user_bucket=\"bucket_1\"}", 1.0);
    scrape.assert("bot_queue_size", 12.0);

    let url = format!("http://{}", sidecar.http);
    output_of(in_image(&image["healthcheck"], &["--url", &url]));
    sidecar.stop();
    let (said, is_well, _) = outcome_of(&mut in_image(&image["healthcheck"], &["--url", &url]), None);
    assert!(!is_well, "{said}");
}

/// Lets a bot of a real library run beside a sidecar; gives what came of it.
fn run_bot(script: &str, sidecar: &Sidecar, target: &[&str]) -> Scrape {
    let examples = root("deploy/examples");
    python_with(&[("PYTHONPATH", &examples.to_string_lossy())], script, target);
    // The gauge is the last line, and one socket is in order.
    sidecar.wait_until("the last line is recorded", |it| it.scrape().get("bot_queue_size{queue=\"outbox\"}").is_some());
    let scrape = sidecar.scrape();
    assert_eq!(scrape.dropped(), 0.0, "{:?}", scrape.dropped_by_reason());
    scrape.assert("bot_cache_requests_total{cache=\"profile\",result=\"hit\"}", 1.0);
    scrape.assert("bot_queue_size{queue=\"outbox\"}", 12.0);
    scrape
}

#[test]
#[ignore = "needs Python with aiogram, run by tests/run"]
fn the_example_for_aiogram_counts_what_a_real_dispatcher_and_bot_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statsd.sock");
    let socket = format!("listen.unix_datagram={}", path.display());
    for settings in [&[][..], &[socket.as_str()]] {
        let sidecar = Sidecar::start(settings);
        let [host, port] = host_and_port(sidecar.udp);
        let scrape = if settings.is_empty() {
            run_bot("run_aiogram.py", &sidecar, &[&host, &port])
        } else {
            run_bot("run_aiogram.py", &sidecar, &[&path.to_string_lossy()])
        };
        let user = user_bucket("42");
        for (series, expected) in [
            (format!("bot_messages_total{{activity_type=\"text\",user_bucket=\"{user}\"}}"), 4.0),
            (format!("bot_messages_total{{activity_type=\"callback_query\",user_bucket=\"{user}\"}}"), 1.0),
            ("bot_updates_total{result=\"ok\",type=\"message\"}".to_owned(), 3.0),
            ("bot_updates_total{result=\"failed\",type=\"message\"}".to_owned(), 1.0),
            ("bot_updates_total{result=\"failed\",type=\"callback_query\"}".to_owned(), 1.0),
            ("bot_update_duration_seconds_count{type=\"message\"}".to_owned(), 4.0),
            ("bot_commands_total{command=\"help\",result=\"ok\"}".to_owned(), 1.0),
            ("bot_commands_total{command=\"fail\",result=\"failed\"}".to_owned(), 1.0),
            ("bot_commands_total{command=\"other\",result=\"ok\"}".to_owned(), 1.0),
            ("bot_reply_latency_seconds_count{command=\"help\"}".to_owned(), 1.0),
            ("bot_api_calls_total{method=\"sendMessage\",status=\"200\"}".to_owned(), 2.0),
            ("bot_api_calls_total{method=\"sendMessage\",status=\"429\"}".to_owned(), 1.0),
            ("bot_api_latency_seconds_count{method=\"sendMessage\"}".to_owned(), 3.0),
            ("bot_errors_total{kind=\"TelegramRetryAfter\"}".to_owned(), 1.0),
            ("bot_errors_total{kind=\"KeyError\"}".to_owned(), 1.0),
        ] {
            scrape.assert(&series, expected);
        }
        assert_eq!(scrape.sum("bot_reply_latency_seconds_count"), 1.0, "a command that failed has no reply");
        // Milliseconds were sent as such: nothing there took as long as half a second.
        let took = scrape.value("bot_update_duration_seconds_sum{type=\"message\"}");
        assert!(took > 1e-6 && took < 20.0, "{took}");
        sidecar.stop();
    }
}

#[test]
#[ignore = "needs Python with discord.py, run by tests/run"]
fn the_example_for_discord_counts_what_a_real_bot_does() {
    let sidecar = Sidecar::start(&[]);
    let [host, port] = host_and_port(sidecar.udp);
    let scrape = run_bot("run_discord.py", &sidecar, &[&host, &port]);
    let user = user_bucket("42");
    for (series, expected) in [
        (format!("bot_messages_total{{activity_type=\"message\",user_bucket=\"{user}\"}}"), 4.0),
        (format!("bot_messages_total{{activity_type=\"application_command\",user_bucket=\"{user}\"}}"), 2.0),
        ("bot_updates_total{result=\"ok\",type=\"message_create\"}".to_owned(), 4.0),
        ("bot_updates_total{result=\"ok\",type=\"interaction_create\"}".to_owned(), 2.0),
        ("bot_commands_total{command=\"ping\",result=\"ok\"}".to_owned(), 1.0),
        ("bot_commands_total{command=\"fail\",result=\"failed\"}".to_owned(), 1.0),
        ("bot_commands_total{command=\"other\",result=\"refused\"}".to_owned(), 1.0),
        ("bot_commands_total{command=\"pong\",result=\"ok\"}".to_owned(), 1.0),
        ("bot_commands_total{command=\"broken\",result=\"failed\"}".to_owned(), 1.0),
        ("bot_reply_latency_seconds_count{command=\"ping\"}".to_owned(), 1.0),
        ("bot_reply_latency_seconds_count{command=\"pong\"}".to_owned(), 1.0),
        ("bot_api_calls_total{method=\"POST:/channels/-/messages\",status=\"200\"}".to_owned(), 1.0),
        ("bot_api_calls_total{method=\"POST:/interactions/-/-/callback\",status=\"200\"}".to_owned(), 1.0),
        ("bot_errors_total{kind=\"KeyError\"}".to_owned(), 1.0),
        ("bot_errors_total{kind=\"ValueError\"}".to_owned(), 1.0),
    ] {
        scrape.assert(&series, expected);
    }
    assert_eq!(scrape.sum("bot_errors_total"), 2.0, "an unknown command is no error");
    assert!(scrape.value("bot_update_duration_seconds_count{type=\"command\"}") >= 1.0);
    sidecar.stop();
}

/// The programs that a manifest starts are ours: its arguments are taken by the real command line.
#[test]
fn arguments_in_manifests_are_taken_by_the_program() {
    for component in ["sidecar", "unix-socket"] {
        let text = std::fs::read_to_string(root(&format!("deploy/kubernetes/{component}/pod.yaml"))).unwrap();
        let patch: Value = serde_saphyr::from_str(&text).unwrap();
        let arguments = patch["spec"]["template"]["spec"]["initContainers"][0]["args"].as_array().unwrap().iter();
        let arguments: Vec<&str> = arguments.map(|word| word.as_str().unwrap()).collect();
        let config = root("deploy/kubernetes/sidecar/statsieve.toml");
        let mut command = program();
        // `check` has no --fallback; that it is an option of a run is what the usage says.
        command.arg("check").args(arguments.iter().filter(|word| word.starts_with("--set=")));
        output_of({
            command.arg("--config").arg(config);
            command
        });
        assert!(arguments.contains(&"--fallback"), "{component}");
    }
}
