//! What is promised from one minor version to the next, as far as it can be read without a sidecar: own metrics, keys of
//! the configuration and of the files it names, the command line. The rest is in `tests/end_to_end/interface.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use statsieve::admit::Limit;
use statsieve::command::{BAD_CONFIGURATION, FAILED, OK};
use statsieve::config::{self, Sources};
use statsieve::model::{DropReason, SampleType, TagDropReason};
use statsieve::telemetry::statsd_exporter::{self, EventError, EventType, SampleError};
use statsieve::telemetry::{ExpiryCause, FAMILIES, Family, HttpRefusal, Listener, RelayOutcome, ReloadOutcome};

use crate::promise::{keep, paths};

/// The values of a label, or `None` if they are whatever was configured or counted.
fn values(family: &str, label: &str) -> Option<Vec<&'static str>> {
    macro_rules! all {
        ($set:ty) => {
            Some(<$set>::ALL.iter().map(|member| member.label()).collect())
        };
    }
    match (family, label) {
        ("statsieve_datagrams_total" | "statsieve_kernel_dropped_datagrams_total", "listener") => {
            Some(vec!["udp", "unix_datagram"])
        }
        ("statsieve_receive_queue_bytes" | "statsieve_receive_queue_limit_bytes", "listener") => Some(vec!["udp"]),
        (
            "statsieve_connections" | "statsieve_connections_total" | "statsieve_connections_refused_total",
            "listener",
        ) => Some(vec!["tcp", "unix_stream"]),
        (_, "listener") => all!(Listener),
        (_, "cause") => all!(ExpiryCause),
        (_, "limit") => all!(Limit),
        ("statsieve_samples_recorded_total", "type") => all!(SampleType),
        ("statsieve_samples_dropped_total", "reason") => all!(DropReason),
        ("statsieve_tags_dropped_total", "reason") => all!(TagDropReason),
        ("statsieve_config_reloads_total" | "statsd_exporter_config_reloads_total", "outcome") => all!(ReloadOutcome),
        ("statsieve_relay_lines_total", "outcome") => all!(RelayOutcome),
        ("statsieve_http_refused_total", "reason") => all!(HttpRefusal),
        ("statsieve_mapping_actions_total", "action") => Some(vec!["map", "drop", "none"]),
        ("statsieve_scrapes_total", "format") => Some(vec!["text", "openmetrics", "protobuf"]),
        ("statsd_exporter_events_total", "type") => all!(EventType),
        ("statsd_exporter_events_error_total", "reason") => all!(EventError),
        ("statsd_exporter_sample_errors_total", "reason") => all!(SampleError),
        ("statsd_exporter_events_actions_total", "action") => Some(vec!["map", "drop"]),
        ("promhttp_metric_handler_requests_total", "code") => Some(vec!["200", "500", "503"]),
        (_, "version" | "revision" | "rustc" | "hash" | "field" | "family" | "worker" | "tag" | "window") => None,
        (_, "register" | "target") => None,
        _ => panic!("{family} has a label {label} that this table does not know"),
    }
}

fn metric(family: &Family, facts: &mut Vec<String>) {
    let name = family.name();
    let kind = format!("{:?}", family.kind).to_lowercase().replace("total", "counter");
    let unit = if family.unit.is_empty() { String::new() } else { format!(", {}", family.unit) };
    let core = if family.core { ", core" } else { "" };
    facts.push(format!("{name}: {kind}{unit}{core}"));
    for label in family.labels {
        facts.push(format!("{name}: label {label}"));
        for value in values(&name, label).into_iter().flatten() {
            facts.push(format!("{name}{{{label}=\"{value}\"}}"));
        }
    }
}

#[test]
fn own_metrics_keep_their_names_types_units_labels_and_values() {
    let mut facts = Vec::new();
    FAMILIES.iter().chain(statsd_exporter::FAMILIES).for_each(|family| metric(family, &mut facts));
    keep("metrics.txt", facts);
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is in the repository")
}

/// The tables of `src/config/raw.rs`: names of fields as users write them, each with its type as it is written there.
fn raw_tables() -> BTreeMap<String, Vec<(String, String)>> {
    let text = read("src/config/raw.rs");
    let mut tables = BTreeMap::new();
    for part in text.split("raw_table! {").skip(1) {
        let (mut name, mut fields, mut renamed) = (String::new(), Vec::new(), None);
        for line in part.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
            if let Some(new) = line.strip_prefix("#[serde(rename = \"").and_then(|line| line.strip_suffix("\")]")) {
                renamed = Some(new.to_owned());
            } else if let Some((field, kind)) = line.strip_suffix(',').and_then(|line| line.split_once(": ")) {
                fields.push((renamed.take().unwrap_or_else(|| field.to_owned()), kind.to_owned()));
            } else if let Some(table) = line.strip_suffix(" {") {
                name = table.to_owned();
            } else if line.starts_with('}') {
                break;
            } else {
                panic!("a line of raw.rs that is not understood: {line}");
            }
        }
        tables.insert(name, fields);
    }
    tables
}

/// Adds the keys of a value of this type at `path`; `default` is what `config.toml` has there.
fn keys_of(
    tables: &BTreeMap<String, Vec<(String, String)>>,
    kind: &str,
    path: &str,
    default: Option<&toml::Value>,
    facts: &mut Vec<String>,
) {
    let inner = |wrapper: &str| kind.strip_prefix(wrapper).and_then(|rest| rest.strip_suffix('>'));
    if let Some(kind) = inner("Option<") {
        return keys_of(tables, kind, path, default, facts);
    }
    if let Some(fields) = tables.get(kind) {
        for (name, kind) in fields {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            keys_of(tables, kind, &path, default.and_then(|default| default.get(name)), facts);
        }
        return;
    }
    if let Some(element) = inner("Vec<").filter(|element| tables.contains_key(*element)) {
        let first = default.and_then(|list| list.get(0));
        facts.push(format!("{path}: list of tables, {} by default", usize::from(first.is_some())));
        return keys_of(tables, element, &format!("{path}.*"), first, facts);
    }
    let words = match kind {
        "String" => "text",
        "i64" => "integer",
        "f64" => "number",
        "bool" => "true or false",
        "Vec<String>" => "list of texts",
        "Vec<f64>" => "list of numbers",
        "BTreeMap<String, String>" => "table of texts",
        "BTreeMap<String, Vec<String>>" => "table of lists of texts",
        other => panic!("{path} has a type without words here: {other}"),
    };
    let default = default.map_or("none".to_owned(), |value| value.to_string().replace('\n', " "));
    facts.push(format!("{path}: {words}, default {default}"));
}

#[test]
fn keys_of_the_configuration_keep_their_types_and_defaults() {
    let defaults: toml::Value = toml::from_str(&read("config.toml")).expect("the default file is TOML");
    let mut facts = Vec::new();
    keys_of(&raw_tables(), "Raw", "", Some(&defaults), &mut facts);
    assert!(facts.len() > 90, "{} keys", facts.len());
    facts.extend(config::accepted().map(|(key, words)| format!("{key} accepts {}", one_line(words))));
    keep("configuration.txt", facts);
}

fn one_line(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The keys that a message of an unknown key lists for each table, as `table: key`.
fn known_keys(problems: &str) -> Vec<String> {
    let unknown = |line: &str| -> Option<(String, String)> {
        let (place, known) = line.split_once(": unknown key, known here: ")?;
        let key = place.rsplit(": ").next()?;
        let table = key.trim_end_matches("no_such_key_at_all").trim_end_matches('.');
        let table =
            table.split('.').map(|part| if part.parse::<u32>().is_ok() { "*" } else { part }).collect::<Vec<_>>();
        let table = table.join(".");
        Some((table, known.to_owned()))
    };
    let mut facts = Vec::new();
    for (table, known) in problems.lines().filter_map(unknown) {
        let join = |key: &str| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        facts.extend(known.split(", ").map(join));
    }
    facts
}

#[test]
fn files_in_the_formats_of_others_keep_their_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let unknown = "no_such_key_at_all: 1";
    let web = format!(
        "{unknown}\ntls_server_config: {{ {unknown} }}\nhttp_server_config: {{ {unknown}, headers: {{ {unknown} }} }}\n\
         rate_limit: {{ {unknown} }}\n"
    );
    fs::write(path("web.yml"), web).expect("it can be written");
    let problems = config::load_web(&path("web.yml")).0.err().expect("it has problems").to_string();
    let mut facts: Vec<String> = known_keys(&problems).iter().map(|key| format!("web: {key}")).collect();
    facts.push("web: basic_auth_users.*".to_owned());
    let options = format!("summary_options: {{ {unknown} }}, histogram_options: {{ {unknown} }}");
    let mapping = format!(
        "{unknown}\ndefaults: {{ {unknown}, {options} }}\nmappings:\n- {{ match: a, name: b, {unknown}, {options} }}\n\
         - {{ match: c, name: d, observer_type: summary, summary_options: {{ quantiles: [{{ {unknown} }}] }} }}\n"
    );
    fs::write(path("mapping.yml"), mapping).expect("it can be written");
    let set = vec![format!("mapping.file={}", path("mapping.yml").display())];
    let problems = config::load(&Sources { file: None, set }).expect_err("it has problems").to_string();
    facts.extend(known_keys(&problems).iter().map(|key| format!("mapping: {key}")));
    facts.push("mapping: mappings.*.labels.*".to_owned());
    assert!(facts.len() > 50, "{facts:#?}\n{problems}");
    keep("files.txt", facts);
}

fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_statsieve"));
    command.env_remove("STATSIEVE_CONFIG").args(arguments);
    let output = command.output().expect("it starts");
    assert!(output.stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

/// Adds what `--help` of a command says of arguments, flags and variables.
fn usage(command: &str, help: &str, facts: &mut Vec<String>) {
    for line in help.lines().map(str::trim_start) {
        // A flag and its value, `-V, --version` or `--url <URL>`, stand before two spaces; so does an argument.
        let head = line.split("  ").next().unwrap_or_default().trim();
        let is_argument = head.starts_with('[') && head.ends_with(['.', ']']) && !head.starts_with("[env");
        if head.starts_with('-') || is_argument {
            facts.push(format!("{command} {head}"));
        }
        for (at, _) in line.match_indices("[env: ") {
            let name = line[at..].trim_start_matches("[env: ").split(['=', ']']).next().unwrap_or_default();
            facts.push(format!("{command} reads {name}"));
        }
    }
}

#[test]
fn the_command_line_keeps_its_commands_flags_variables_and_codes() {
    let help = run(&["--help"]);
    let mut facts = Vec::new();
    usage("statsieve", &help, &mut facts);
    let (_, commands) = help.split_once("\nCommands:\n").expect("it has commands");
    for command in commands.lines().take_while(|line| !line.is_empty()) {
        let command = command.split_ascii_whitespace().next().expect("a command has a name");
        if command == "help" {
            continue;
        }
        facts.push(format!("statsieve {command}"));
        usage(&format!("statsieve {command}"), &run(&[command, "--help"]), &mut facts);
    }
    usage("statsd_exporter", &run(&["--check-config", "--help"]), &mut facts);
    for (code, what) in
        [(OK, "done as asked"), (FAILED, "failed, refused or not ready"), (BAD_CONFIGURATION, "bad configuration")]
    {
        facts.push(format!("exit code {code}: {what}"));
    }
    let lines =
        ["a:1|c|#user_id:4,x:y", "b:2:3|ms|@0.5", "c:-1|c", "d", "e:1|c|#dd.internal.a:b", "_sc|n|0", "_e{1,1}:a|b"];
    let mut found = BTreeSet::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_statsieve"));
    let output =
        command.env_remove("STATSIEVE_CONFIG").args(["explain", "--json"]).args(lines).output().expect("it starts");
    for line in String::from_utf8(output.stdout).expect("it is text").lines() {
        let mut value: Value = serde_json::from_str(line).expect("each line is JSON");
        // Its keys are the labels of the series.
        if let Some(labels) = value.get_mut("labels") {
            *labels = serde_json::json!({ "*": "text" });
        }
        paths(&value, "", &[], &mut found);
    }
    assert!(found.len() > 8, "{found:#?}");
    facts.extend(found.iter().map(|path| format!("explain --json {path}")));
    keep("command_line.txt", facts);
}
