//! Replays what was written by hand, what the fuzzer found worth keeping, and every input that once showed a fault.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on says so by panicking")]
#![allow(unreachable_pub, reason = "the fuzzer's package has the bodies as a library")]

mod bodies;

use std::collections::{BTreeMap, BTreeSet};
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

/// Seeds that are good: were one refused, what its target looks at behind that would not be reached.
const GOOD: [(&str, &[&str]); 2] = [
    (
        "config",
        &[
            "a_few_keys_of_a_few_tables",
            "every_key_is_another_than_the_default",
            "no_rules_for_users",
            "overrides_of_rules",
            "overrides_of_tables_and_lists",
            "the_largest_of_all",
            "the_last_override_wins",
        ],
    ),
    (
        "mapping",
        &[
            "a_general_glob_before_a_special_one",
            "a_label_of_another_rule",
            "a_label_that_buckets_have",
            "a_label_that_quantiles_have",
            "a_name_from_parts",
            "a_tag_that_wins_over_a_label",
            "every_key_of_a_rule",
            "the_most_specific_glob_wherever_it_stands",
            "types_of_one_name",
        ],
    ),
];

#[test]
fn every_kept_input_passes_its_target() {
    let mut failed = Vec::new();
    for (target, body) in TARGETS {
        for file in ["seeds", "corpus", "regressions"].iter().flat_map(|kind| inputs(kind, target)) {
            let bytes = fs::read(&file).unwrap();
            if std::panic::catch_unwind(|| body(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    let taken = failed.is_empty().then(|| GOOD.map(|(target, _)| taken(target)));
    bodies::clean_up();
    assert!(failed.is_empty(), "{} fail: {failed:#?}", failed.len());
    assert_eq!(taken.unwrap(), GOOD.map(|(_, good)| good.to_vec()), "good seeds are taken, all others refused");
}

/// The names of seeds that are good.
fn taken(target: &str) -> Vec<String> {
    let is_good = if target == "config" { bodies::is_good_config } else { bodies::is_good_mapping };
    let taken = inputs("seeds", target).into_iter().filter(|file| is_good(&fs::read(file).unwrap()));
    taken.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
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

/// The packages of a lock file, with their versions.
fn locked(file: &Path) -> BTreeSet<(String, String)> {
    let lock: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
    lock["package"].as_array().unwrap().iter().map(|it| (text(it, "name"), text(it, "version"))).collect()
}

#[test]
fn what_is_fuzzed_is_made_of_the_versions_that_the_program_is_made_of() {
    let ours = locked(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"));
    let others: Vec<_> = locked(&folder("Cargo.lock")).difference(&ours).cloned().collect();
    let names: Vec<_> = others.iter().map(|(name, _)| name.as_str()).collect();
    // The fuzzer, what builds it, and what only macros of the one or the other are built with.
    assert_eq!(names, ["itertools", "jobserver", "libfuzzer-sys", "statsieve-fuzz"], "{others:?}");
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

/// Reads a list of pairs, a parser's name and a text; the first that cannot be read ends it.
const PARSERS: &str = "
import json, sys
from prometheus_client import parser
from prometheus_client.openmetrics import parser as strict
read = {'classic': parser.text_string_to_metric_families, 'strict': strict.text_string_to_metric_families}
for kind, text in json.load(sys.stdin):
    try:
        list(read[kind](text))
    except Exception as error:
        sys.exit(f'{kind}: {error!r} in\\n{text}')
";

/// Texts put together as far as no two have a family in common, since a program takes longer to start than to read.
fn put_together(texts: &[String]) -> Vec<(String, BTreeSet<String>)> {
    let mut all: Vec<(String, BTreeSet<String>)> = Vec::new();
    for text in texts {
        let samples = text.lines().map(|line| line.strip_prefix("# HELP ").unwrap_or(line));
        let names: BTreeSet<_> = samples
            .filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned()))
            .filter(|name| name != "#")
            .collect();
        match all.iter_mut().find(|(_, taken)| taken.is_disjoint(&names)) {
            Some((whole, taken)) => {
                whole.push_str(text);
                taken.extend(names);
            }
            None => all.push((text.clone(), names)),
        }
    }
    all
}

/// The strict parser refuses a few legal things: counts that are not whole, and sums below zero beside buckets. It also
/// refuses a family named as the `_created` line of observations would be, `a_created` beside a histogram `a`:
/// OpenMetrics rules that out, and the program takes both, rather than lose samples that every other reader can have.
fn is_for_the_strict(text: &str) -> bool {
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let is_created_of = |name: &&str| {
        let kind = name.strip_suffix("_created").and_then(|base| types.get(base));
        kind.is_some_and(|kind| ["histogram", "summary"].contains(kind))
    };
    let has_whole_numbers = text.lines().filter(|line| !line.starts_with('#')).all(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let value: f64 = value.parse().unwrap_or(f64::NAN);
        (!name.ends_with("_bucket") && !name.ends_with("_count") || value.fract() == 0.0)
            && (!name.ends_with("_sum") || value >= 0.0)
    });
    has_whole_numbers && !types.keys().any(is_created_of)
}

#[test]
#[ignore = "needs promtool and Python packages, run by tests/run"]
fn both_reference_parsers_read_what_the_corpus_makes() {
    let files = inputs("corpus", "exposition").into_iter().chain(inputs("regressions", "exposition"));
    let scrapes: Vec<[String; 2]> = files.map(|file| bodies::scrapes(&fs::read(file).unwrap())).collect();
    let mut pairs: Vec<_> = scrapes.iter().map(|[text, _]| serde_json::json!(["classic", text])).collect();
    let strictly = scrapes.iter().filter(|[_, open_metrics]| is_for_the_strict(open_metrics));
    pairs.extend(strictly.map(|[_, open_metrics]| serde_json::json!(["strict", open_metrics])));
    assert!(scrapes.len() >= 8 && pairs.len() > scrapes.len(), "{} of {}", pairs.len(), scrapes.len());
    let (good, said) = ask("venv/bin/python", &["-c", PARSERS], &serde_json::Value::from(pairs).to_string());
    assert!(good, "{said}");
    let texts: Vec<String> = scrapes.into_iter().map(|[text, _]| text).collect();
    for (text, _) in put_together(&texts) {
        // It has opinions on names, which here are hostile; what it cannot read is an error.
        let (_, said) = ask("prometheus/promtool", &["check", "metrics"], &text);
        assert!(!said.contains("error while linting"), "{said}\n{text}");
    }
}
