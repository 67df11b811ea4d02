//! Rules for Prometheus as those on call meet them: each alert leads to a runbook, what rules read exists, each rule has
//! a test of promtool, and the figures that were worked out by hand are still right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use statsieve::command::check;
use statsieve::config::Sources;

use crate::cases_in;

/// Where rules are; beside each `<name>.yml` stands its `<name>.test.yml`.
const FOLDERS: [&str; 2] = ["deploy/prometheus/rules", "deploy/fleet/rules"];

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(default)]
    promql_expr_test: Vec<QueryTest>,
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
struct QueryTest {
    expr: String,
    exp_samples: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    exp_alerts: Option<Vec<serde::de::IgnoredAny>>,
}

pub(crate) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn yaml<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of rules with what is in it.
fn rule_files() -> Vec<(PathBuf, Vec<Rule>)> {
    let files = FOLDERS.iter().flat_map(|folder| cases_in(&root(folder), ".yml"));
    let rules = files.filter(|path| !path.to_string_lossy().ends_with(".test.yml"));
    rules
        .map(|path| (path.clone(), yaml::<RuleFile>(&path).groups.into_iter().flat_map(|it| it.rules).collect()))
        .collect()
}

fn alerts() -> Vec<Rule> {
    rule_files().into_iter().flat_map(|(_, rules)| rules).filter(|rule| rule.alert.is_some()).collect()
}

/// The names in an expression or a text: those with a colon inside are records, others metrics, functions or labels.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':')
        .map(|name| name.trim_matches(':'))
        .filter(|name| name.starts_with(|letter: char| letter.is_ascii_lowercase()))
}

/// The part of the README below this heading, up to the next of its level or above.
fn section(heading: &str) -> String {
    let readme = read(&root("README.md"));
    let start = readme.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("README.md has no {heading}"));
    let text = &readme[start + heading.len() + 2..];
    let level = heading.bytes().take_while(|letter| *letter == b'#').count();
    let ends = (2..=level).filter_map(|level| text.find(&format!("\n{} ", "#".repeat(level))));
    text[..ends.min().unwrap_or(text.len())].to_owned()
}

#[test]
fn every_alert_leads_to_a_runbook_and_every_runbook_to_an_alert() {
    let runbooks = section("### Runbooks");
    let mut without_alert: BTreeSet<&str> =
        runbooks.lines().filter_map(|line| line.strip_prefix("#### ")).map(str::trim).collect();
    for rule in alerts() {
        let name = rule.alert.unwrap();
        assert!(without_alert.remove(name.as_str()), "README.md has no runbook, a heading \"#### {name}\"");
        // The anchor that a heading of one word gets.
        let anchor = format!("README.md#{}", name.to_ascii_lowercase());
        assert_eq!(rule.annotations.get("runbook_url"), Some(&anchor), "{name}");
        assert!(rule.annotations.contains_key("summary") && rule.annotations.contains_key("description"), "{name}");
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
        // What it means, how to see it, what to do: in that order.
        let runbook = runbooks.split(&format!("#### {name}\n")).nth(1).unwrap().split("\n#### ").next().unwrap();
        let parts = ["**Means.**", "**Look.**", "**Do.**"].map(|part| runbook.find(part));
        assert!(parts.iter().all(Option::is_some) && parts.is_sorted(), "the runbook of {name}: {parts:?}");
        let lines = runbook.lines().filter(|line| !line.is_empty()).count();
        assert!((4..=16).contains(&lines), "the runbook of {name} has {lines} lines");
    }
    assert!(without_alert.is_empty(), "runbooks of no alert: {without_alert:?}");
}

#[test]
fn every_rule_has_a_test_of_promtool() {
    for (path, rules) in rule_files() {
        let test: TestFile = yaml(&path.with_extension("test.yml"));
        let queries = || test.tests.iter().flat_map(|test| &test.promql_expr_test);
        let alerts = || test.tests.iter().flat_map(|test| &test.alert_rule_test);
        for rule in rules {
            if let Some(record) = rule.record {
                let tested = queries().any(|it| it.exp_samples.is_some() && names(&it.expr).any(|name| name == record));
                assert!(tested, "{}: {record} has no test", path.display());
            }
            if let Some(alert) = rule.alert {
                for fires in [true, false] {
                    let tested = alerts().any(|it| it.alertname == alert && it.exp_alerts.is_some() == fires);
                    assert!(tested, "{}: {alert} has no test where it fires is {fires}", path.display());
                }
            }
        }
    }
}

#[test]
fn rules_read_what_sidecars_bots_and_other_rules_expose() {
    let documented = section("## Own metrics") + &section("## What a bot sends");
    let metrics: BTreeSet<&str> = names(&documented).collect();
    let files = rule_files();
    let rules = || files.iter().flat_map(|(_, rules)| rules);
    let records: BTreeSet<&str> = rules().filter_map(|rule| rule.record.as_deref()).collect();
    let mut read = 0;
    for rule in rules() {
        let of = rule.record.as_ref().or(rule.alert.as_ref()).unwrap();
        let texts = std::iter::once(&rule.expr).chain(rule.annotations.get("description"));
        for name in texts.flat_map(|text| names(text)) {
            // On the global server the records of shards have this before their names.
            let name = name.strip_prefix("shard:").unwrap_or(name);
            let plain = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            if name.contains(':') {
                assert!(records.contains(name), "{of} reads {name}, which no rule records");
            } else if ["statsieve_", "bot_", "process_"].iter().any(|start| name.starts_with(start)) {
                assert!(metrics.contains(name) || metrics.contains(plain), "{of} reads {name}: not in README.md");
            } else {
                continue;
            }
            read += 1;
        }
        let raw = names(&rule.expr).any(|name| name.starts_with("statsieve_") || name.starts_with("bot_"));
        assert!(rule.alert.is_none() || !raw, "{of}: alerts read records, so that they work on the global server too");
    }
    assert!(read > 100, "{read} names were looked at");
}

#[test]
fn limits_in_the_files_are_those_of_the_defaults() {
    let mut out = Vec::new();
    check::check(&Sources::default(), None, &mut out).expect("a Vec takes everything");
    let text = String::from_utf8(out).expect("check writes text");
    let figure = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
    let totals: Vec<f64> = text.lines().filter(|line| line.starts_with("  total ")).map(figure).collect();
    let [lines, _] = totals[..] else { panic!("two totals in\n{text}") };
    let own = text.lines().find(|line| line.starts_with("  own metrics")).unwrap();
    let own = own.split_whitespace().nth(2).unwrap();

    let scraping = read(&root("deploy/prometheus/prometheus.yml"));
    let (thousands, rest) = (lines as u64 / 1000, lines as u64 % 1000);
    for words in [format!("is {thousands},{rest:03}, and `statsieve check`"), format!(" {own}   own metrics")] {
        assert!(scraping.contains(&words), "deploy/prometheus/prometheus.yml should say {words:?}");
    }
    for file in ["prometheus/prometheus.yml", "fleet/shard.yml", "fleet/agent.yml"] {
        let limit = read(&root("deploy").join(file))
            .lines()
            .find_map(|line| line.trim().strip_prefix("sample_limit: ").map(str::to_owned));
        assert!(limit.unwrap().parse::<f64>().unwrap() > lines, "sample_limit of deploy/{file} is not above {lines}");
    }
}
