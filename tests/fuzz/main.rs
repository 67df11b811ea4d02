//! Replays what the fuzzer found worth keeping, and every input that once showed a fault.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]
#![allow(unreachable_pub, reason = "the fuzzer's package has the bodies as a library")]

mod bodies;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bodies::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

/// The files of a target in order; none if it has no such folder.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder(kind).join(target)) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_passes_its_target() {
    for (target, body) in TARGETS {
        for file in inputs("corpus", target).into_iter().chain(inputs("regressions", target)) {
            let bytes = fs::read(&file).unwrap();
            if std::panic::catch_unwind(|| body(&bytes)).is_err() {
                panic!("{} fails", file.display());
            }
        }
    }
    bodies::clean_up();
}

#[test]
fn every_target_has_a_function_a_program_and_a_corpus() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs: BTreeSet<_> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    let functions: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(programs, functions);
    for (target, _) in TARGETS {
        let call = format!("bodies::{target}(data)");
        assert!(fs::read_to_string(folder("targets").join(format!("{target}.rs"))).unwrap().contains(&call));
        assert!(!inputs("corpus", target).is_empty(), "{target} has no corpus");
    }
}

/// What a program says of a text, and whether it ended well.
fn ask(program: &str, arguments: &[&str], text: &str) -> (bool, String) {
    let Some(tools) = std::env::var_os("STATSIEVE_TEST_TOOLS") else {
        panic!("STATSIEVE_TEST_TOOLS is not set: run this test by tests/run, which installs {program}")
    };
    let mut command = Command::new(Path::new(&tools).join(program));
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = text.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

const CLASSIC: &str = "import sys; from prometheus_client.parser import text_string_to_metric_families as read
list(read(sys.stdin.buffer.read().decode()))";
const STRICT: &str =
    "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
list(read(sys.stdin.buffer.read().decode()))";

/// The strict parser refuses a few legal things: counts that are not whole, and sums below zero beside buckets.
fn is_for_the_strict(text: &str) -> bool {
    text.lines().filter(|line| !line.starts_with('#')).all(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let value: f64 = value.parse().unwrap_or(f64::NAN);
        (!name.ends_with("_bucket") && !name.ends_with("_count") || value.fract() == 0.0)
            && (!name.ends_with("_sum") || value >= 0.0)
    })
}

#[test]
#[ignore = "needs promtool and Python packages, run by tests/run"]
fn both_reference_parsers_read_what_the_corpus_makes() {
    let (mut read, mut strictly) = (0, 0);
    for file in inputs("corpus", "exposition").into_iter().chain(inputs("regressions", "exposition")) {
        let [text, open_metrics] = bodies::scrapes(&fs::read(&file).unwrap());
        // It has opinions on names, which here are hostile; what it cannot read is an error.
        let (_, said) = ask("prometheus/promtool", &["check", "metrics"], &text);
        assert!(!said.contains("error while linting"), "{}: {said}\n{text}", file.display());
        let (good, said) = ask("venv/bin/python", &["-c", CLASSIC], &text);
        assert!(good, "{}: {said}\n{text}", file.display());
        read += 1;
        if is_for_the_strict(&open_metrics) {
            let (good, said) = ask("venv/bin/python", &["-c", STRICT], &open_metrics);
            assert!(good, "{}: {said}\n{open_metrics}", file.display());
            strictly += 1;
        }
    }
    assert!(read >= 8 && strictly >= 1, "{read} were read, {strictly} of them strictly");
}
