//! Mapping files of statsd_exporter: good ones load, and convert to TOML that says the same; bad ones are told all that
//! is wrong with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use statsieve::command::{BAD_CONFIGURATION, convert};
use statsieve::config::convert::to_toml;
use statsieve::config::{self, Action, Config, Loaded, MetricType, Observation, Problems, Rule, Sources};

use crate::{cases_in, compare};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mapping")
}

fn load(path: &Path) -> Result<Loaded, Problems> {
    config::load(&Sources { file: None, set: vec![format!("mapping.file={}", path.display())] })
}

fn good(name: &str) -> Config {
    load(&folder().join(name)).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The configuration of the TOML that a mapping file is converted to.
fn converted(path: &Path) -> Config {
    let text = to_toml(path).unwrap_or_else(|problems| panic!("{problems}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("converted.toml");
    fs::write(&file, &text).expect("it can be written");
    let sources = Sources { file: Some(file), set: Vec::new() };
    config::load(&sources).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
}

#[test]
fn bad_files_are_told_everything_that_is_wrong_with_them() {
    compare(&folder(), ".bad.yml", load);
}

#[test]
fn every_problem_has_a_line_that_the_caret_is_drawn_under() {
    for case in cases_in(&folder(), ".bad.yml") {
        let problems = load(&case).expect_err("it has problems");
        let drawn = problems.render_with_carets();
        assert_eq!(drawn.lines().filter(|line| line.ends_with('^')).count(), problems.count(), "{drawn}");
    }
}

#[test]
fn good_files_say_the_same_in_toml() {
    for case in cases_in(&folder(), ".good.yml") {
        let (file, toml) = (load(&case).unwrap_or_else(|problems| panic!("{problems}")).config, converted(&case));
        assert_eq!(file.mapping.observation, toml.mapping.observation, "{}", case.display());
        let said = |rule: &Rule| {
            let mut rule = rule.clone();
            rule.place.clear();
            rule.labels.sort();
            // A rule in TOML has no key for these; the comment on top names the rules that had them.
            if let Some(Observation::Summary { max_age, .. }) = &mut rule.observation {
                *max_age = Duration::ZERO;
            }
            rule
        };
        let rules = |config: &Config| config.mapping.rules.iter().map(said).collect::<Vec<_>>();
        assert_eq!(rules(&file), rules(&toml), "{}", case.display());
    }
}

#[test]
fn every_key_of_a_file_is_taken_as_it_is_meant() {
    let mapping = good("everything.good.yml").mapping;
    let seconds = Duration::from_secs;
    let histogram = |bounds: &[f64]| Observation::Histogram {
        bounds: bounds.to_vec(),
        native_factor: 1.2,
        native_max_buckets: 100,
    };
    assert_eq!(mapping.observation, histogram(&[0.005, 0.01, 0.1, 1.0, 10.0]), "+Inf is there anyway");
    assert_eq!(mapping.ttl, Some(seconds(5400)));
    let names: Vec<&str> = mapping.rules.iter().map(|rule| rule.name.as_str()).collect();
    let expected = ["bot_api_latency_seconds", "bot_queue_wait", "bot_${1}_calls", "dropped", "bot_$2"];
    assert_eq!(names, expected, "regular expressions come after all globs");
    let [api, queue, calls, dropped, _] = &mapping.rules[..] else { panic!("five rules") };
    let text = |text: &str| text.to_owned();
    // Numbers and booleans keep their text.
    let labels = [("method", "$1"), ("version", "1.10"), ("stable", "yes")].map(|(k, v)| (text(k), text(v)));
    assert_eq!(api.labels, labels);
    assert_eq!((api.metric_type, api.honor_labels), (Some(MetricType::Observer), true));
    assert_eq!(api.observation, Some(histogram(&[0.01, 0.1, 1.0])));
    assert_eq!((api.help.as_deref(), api.scale), (Some("Time of one API call."), Some(0.001)));
    assert_eq!(api.ttl, Some(seconds(90)), "a bare integer is in nanoseconds");
    assert!(api.place.ends_with("everything.good.yml:22"), "{}", api.place);
    assert_eq!((queue.ttl, queue.honor_labels), (Some(seconds(90)), true), "merged from the first");
    let summary = Observation::Summary { quantiles: vec![0.9], max_age: seconds(30) };
    assert_eq!(queue.observation, Some(summary), "max_age comes from the defaults");
    assert_eq!((calls.observation.as_ref(), calls.ttl, calls.scale), (None, None, None));
    assert_eq!((dropped.action, calls.action), (Action::Drop, Action::Map));
}

#[test]
fn an_empty_file_has_no_rules_and_the_defaults_of_statsd_exporter() {
    let config = good("empty.good.yml");
    assert_eq!(config.mapping.rules, []);
    let summary = Observation::Summary { quantiles: vec![0.5, 0.9, 0.99], max_age: Duration::from_secs(600) };
    assert_eq!((config.mapping.observation, config.mapping.ttl), (summary, None));
}

#[test]
fn rules_of_the_file_come_first_and_its_path_starts_at_the_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it can be written");
    let toml = "[mapping]\nfile = \"rules.yml\"\n[[mapping.rules]]\nmatch = \"a\"\nname = \"own\"\n";
    write("bot.toml", toml);
    write("rules.yml", "mappings: [{match: a, name: theirs}]");
    let sources = Sources { file: Some(folder.path().join("bot.toml")), set: Vec::new() };
    let load = || config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let before = load();
    let rules = &before.config.mapping.rules;
    assert_eq!((rules[0].name.as_str(), rules[1].name.as_str()), ("theirs", "own"));
    assert_eq!(rules[1].place, "mapping.rules.0");
    let remarks = before.config.remarks();
    let place = &rules[0].place;
    assert!(
        remarks.contains(&format!("mapping.rules.0: \"a\" never matches, {place} comes first (\"a\")")),
        "{remarks:?}"
    );
    write("rules.yml", "mappings: [{match: a, name: others}]");
    assert_ne!(load().hash, before.hash, "the hash of the configuration follows the mapping file");
}

#[test]
fn a_mapping_file_that_is_not_there_is_a_problem_of_the_key() {
    let problems = load(Path::new("no/such/rules.yml")).expect_err("there is no such file");
    assert_eq!(
        problems.to_string(),
        "--set mapping.file=no/such/rules.yml: mapping.file: found \"no/such/rules.yml\", accepted: the path of a mapping \
         file that can be read, or \"\" for none (no/such/rules.yml: No such file or directory (os error 2))"
    );
}

#[test]
fn a_file_that_is_refused_is_not_converted() {
    let mut out = Vec::new();
    let code = convert::convert(&folder().join("shapes.bad.yml"), &mut out).expect("a Vec takes everything");
    assert_eq!(code, BAD_CONFIGURATION);
    assert!(String::from_utf8_lossy(&out).contains("shapes.bad.yml:2: defaults: found 5, accepted: a table\n"));
}

#[test]
fn globs_without_an_order_become_rules_from_the_most_specific_on() {
    let text = to_toml(&folder().join("unordered.good.yml")).expect("it is good");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    assert_eq!(names, ["\"most\"", "\"more\"", "\"left\"", "\"wide\""]);
}
