//! A sidecar under a mapping file: from the socket to the scrape, and what the commands say of the rules.

use std::path::PathBuf;

use crate::harness::{Sidecar, run};

const RULES: &str = "defaults:
  observer_type: histogram
  histogram_options: { buckets: [0.1, 1] }
mappings:
- match: bot.api.*.latency
  name: bot_api_latency_seconds
  help: Time of one API call.
  labels: { method: $1 }
- match: bot.noise.*
  name: dropped
  action: drop
- match: '^legacy\\.(\\w+)'
  match_type: regex
  name: legacy_${1}_total
- match: bot.noise.late
  name: never
";

/// A folder with a mapping file and a configuration that names it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mapping.yml"), RULES).unwrap();
    let file = folder.path().join("statsieve.toml");
    let own = "[mapping]\nfile = \"mapping.yml\"\n[[mapping.rules]]\nmatch = \"bot.own.*\"\nname = \"bot_own\"\n\
               labels = { part = \"$1\" }\nscale = 10\n";
    std::fs::write(&file, own).unwrap();
    (folder, file)
}

#[test]
fn lines_become_what_the_rules_say_and_the_actions_add_up() {
    let (_folder, file) = folder();
    let sidecar = Sidecar::start_with(&[], &["--config", file.to_str().unwrap()]);
    sidecar.send(&["bot.api.send.latency:50|ms|#user_id:42", "bot.api.get.latency:500|ms", "legacy.hits.x:1|c"]);
    sidecar.send(&["bot.noise.a:1|c", "bot.noise.late:1|c", "bot.own.x:1|c", "bot.other:1|c", "plain:2|h"]);
    let scrape = sidecar.settled(8);
    scrape.assert("bot_api_latency_seconds_count{method=\"send\"}", 1.0);
    let buckets = scrape.buckets("bot_api_latency_seconds", "method=\"get\"");
    assert_eq!(buckets, [(0.1, 0.0), (1.0, 1.0), (f64::INFINITY, 1.0)]);
    scrape.assert("legacy_hits_total", 1.0);
    scrape.assert("bot_own{part=\"x\"}", 10.0);
    scrape.assert("bot_other_total", 1.0);
    // The defaults of the file hold for names without a rule.
    assert_eq!(scrape.buckets("plain", ""), [(0.1, 0.0), (1.0, 0.0), (f64::INFINITY, 1.0)]);
    assert!(scrape.text.contains("# HELP bot_api_latency_seconds Time of one API call.\n"), "{}", scrape.text);
    for (action, expected) in [("map", 4.0), ("drop", 2.0), ("none", 2.0)] {
        scrape.assert(&format!("statsieve_mapping_actions_total{{action=\"{action}\"}}"), expected);
    }
    scrape.assert("statsieve_mapping_rules", 5.0);
    scrape.assert("statsieve_samples_dropped_total{reason=\"mapping_drop\"}", 2.0);
    let log = sidecar.log();
    assert!(log.contains("mapping file read; its defaults hold for observers and ttl"), "{log}");
    assert!(log.contains("\\\"bot.noise.late\\\" never matches"), "{log}");
    sidecar.stop();
}

#[test]
fn the_commands_name_rules_by_file_and_line() {
    let (folder, file) = folder();
    let config = ["--config", file.to_str().unwrap()];
    let text = |arguments: &[&str], code: i32| {
        let output = run(&[&config, arguments].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    };
    let yaml = folder.path().join("mapping.yml");
    let yaml = yaml.display();
    let explained = text(&["explain", "bot.api.send.latency:50|ms"], 0);
    assert!(explained.contains(&format!("rule     {yaml}:5, bot.api.*.latency\n")), "{explained}");
    assert!(explained.contains("cost     5 sample lines\n"), "{explained}");
    let dropped = text(&["explain", "bot.noise.x:1|c"], 1);
    assert!(dropped.contains(&format!("rule     {yaml}:9, bot.noise.*\nrefused  mapping_drop")), "{dropped}");
    let own = text(&["explain", "--json", "bot.own.x:1|c"], 0);
    assert!(own.contains(r#""rule":{"place":"mapping.rules.0","match":"bot.own.*"}"#), "{own}");
    let note = format!("note: {yaml}:15: \"bot.noise.late\" never matches, {yaml}:9 comes first (\"bot.noise.*\")\n");
    let checked = text(&["check"], 0);
    assert!(checked.contains(&note), "{checked}");
}

#[test]
fn convert_writes_toml_that_check_accepts() {
    let (folder, _) = folder();
    let output = run(&["convert", folder.path().join("mapping.yml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let toml = folder.path().join("converted.toml");
    std::fs::write(&toml, output.stdout).unwrap();
    let checked = run(&["check", "--config", toml.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    std::fs::write(folder.path().join("mapping.yml"), "mappings: [{ match: a..b, name: x }]").unwrap();
    let refused = run(&["convert", folder.path().join("mapping.yml").to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("mapping.yml:1: mappings.0.match: found \"a..b\""));
}
