//! The Grafana dashboards as files: laid out, described, and asking for metrics that exist.
//!
//! The rules of grafana/dashboard-linter that apply, by their names there, and ours. What the queries answer is shown
//! by `tests/end_to_end/dashboards.rs` on a real Prometheus.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Name and content of each dashboard.
fn dashboards() -> Vec<(String, Value)> {
    let folder = root().join("grafana/dashboards");
    let all = super::cases_in(&folder, ".json").into_iter().map(|path: PathBuf| {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("it can be read");
        (name, serde_json::from_str(&text).expect("it is JSON"))
    });
    let all: Vec<(String, Value)> = all.collect();
    assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bot", "fleet", "sidecar"]);
    all
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Panels but for the headings of rows, with where they are for a message.
fn panels(name: &str, dashboard: &Value) -> Vec<(String, Value)> {
    let panels = list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row");
    panels.map(|panel| (format!("{name}, {}", text(panel, "title")), panel.clone())).collect()
}

/// Every query, and where it is.
fn queries() -> Vec<(String, String)> {
    let all = dashboards();
    let panels = all.iter().flat_map(|(name, dashboard)| panels(name, dashboard));
    let queries = panels.flat_map(|(at, panel)| {
        list(&panel, "targets").iter().map(|target| (at.clone(), text(target, "expr").to_owned())).collect::<Vec<_>>()
    });
    queries.collect()
}

/// A metric in a query: what stands before it, its name, its matchers.
#[derive(Debug)]
struct Selector<'a> {
    before: &'a str,
    name: &'a str,
    matchers: &'a str,
}

/// The metrics of a query. A metric has braces, or a colon in its name; other words are functions and labels.
fn selectors(query: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut at, mut quoted) = (0, false);
    while let Some(c) = query[at..].chars().next() {
        quoted ^= c == '"';
        let length = query[at..].find(|c| !is_name(c)).unwrap_or(query.len() - at);
        if quoted || length == 0 {
            at += c.len_utf8();
            continue;
        }
        let (name, rest) = query[at..].split_at(length);
        let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(matchers, _)| matchers);
        // The range of a subquery or a number holds colons at most between digits.
        if matchers.is_some() || (name.contains(':') && !name.starts_with(|c: char| c.is_ascii_digit())) {
            found.push(Selector { before: &query[..at], name, matchers: matchers.unwrap_or_default() });
            at += matchers.map_or(0, |matchers| matchers.len() + 2);
        }
        at += length;
    }
    found
}

#[test]
fn metrics_of_a_query_are_found() {
    let query = r#"a:b / sum by (le) (rate(x_bucket{le="1"}[5m])) or on () label_replace(y{}, "c:d", "", "", "") > 2"#;
    let names: Vec<&str> = selectors(query).iter().map(|found| found.name).collect();
    assert_eq!(names, ["a:b", "x_bucket", "y"]);
}

#[test]
fn dashboards_are_of_the_classic_schema_and_link_to_each_other() {
    let uids: Vec<String> = dashboards().iter().map(|(_, dashboard)| text(dashboard, "uid").to_owned()).collect();
    assert_eq!(uids, ["statsieve-bot", "statsieve-fleet", "statsieve-sidecar"], "links and bookmarks hold these");
    for (name, dashboard) in dashboards() {
        let version = dashboard["schemaVersion"].as_u64();
        assert!(version.is_some_and(|version| (39..=42).contains(&version)), "{name}: {version:?}");
        // uneditable-dashboard
        assert_eq!((&dashboard["editable"], &dashboard["graphTooltip"]), (&json!(false), &json!(1)), "{name}");
        assert!(!text(&dashboard, "title").is_empty() && !text(&dashboard, "description").is_empty(), "{name}");
        let [alerts] = list(&dashboard["annotations"], "list") else { panic!("{name}: alerts are marked in graphs") };
        assert!(text(alerts, "expr").starts_with("ALERTS{") && alerts["enable"] == true, "{name}: {alerts}");
        let [link] = list(&dashboard, "links") else { panic!("{name}: one set of links") };
        assert_eq!(link["tags"], dashboard["tags"], "{name}: the link lists all that have the tag");
        assert_eq!((&link["includeVars"], &link["keepTime"]), (&json!(true), &json!(true)), "{name}");
        for (at, panel) in panels(&name, &dashboard) {
            for link in list(&panel["fieldConfig"]["defaults"], "links") {
                let target = text(link, "url").strip_prefix("/d/").and_then(|url| url.split('?').next());
                assert!(target.is_some_and(|target| uids.iter().any(|uid| uid == target)), "{at}: {link}");
            }
        }
    }
}

#[test]
fn variables_choose_a_data_source_jobs_and_instances() {
    for (name, dashboard) in dashboards() {
        let variables = list(&dashboard["templating"], "list");
        let names: Vec<&str> = variables.iter().map(|variable| text(variable, "name")).collect();
        // template-datasource, template-job, template-instance
        assert_eq!(names[..3], ["datasource", "job", "instance"], "{name}");
        assert_eq!((text(&variables[0], "type"), text(&variables[0], "query")), ("datasource", "prometheus"), "{name}");
        assert_eq!(text(&variables[0], "label"), "Data source", "{name}");
        for variable in &variables[1..] {
            let what = format!("{name}, {}", text(variable, "name"));
            assert_eq!((&variable["multi"], &variable["includeAll"]), (&json!(true), &json!(true)), "{what}");
            // template-on-time-change-reload
            assert_eq!((text(variable, "type"), &variable["refresh"]), ("query", &json!(2)), "{what}");
            assert_eq!(text(&variable["datasource"], "uid"), "${datasource}", "{what}");
            assert_eq!(variable["query"]["query"], variable["definition"], "{what}");
            // A label of the bot is missing where a limit took it; job and instance never are.
            let all = if ["job", "instance"].contains(&text(variable, "name")) { ".+" } else { ".*" };
            assert_eq!(text(variable, "allValue"), all, "{what}");
        }
        // A variable that no query uses is a choice without effect.
        let queries: String = panels(&name, &dashboard).iter().map(|(_, panel)| panel["targets"].to_string()).collect();
        for variable in &names[1..] {
            assert!(queries.contains(&format!("${variable}\\\"")), "{name}: nothing asks for ${variable}");
        }
    }
}

#[test]
fn panels_say_what_they_show_and_in_what_unit() {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    for (name, dashboard) in dashboards() {
        let mut titles = HashSet::new();
        for (at, panel) in panels(&name, &dashboard) {
            let kind = text(&panel, "type");
            assert!(["timeseries", "stat", "heatmap", "table", "bargauge"].contains(&kind), "{at}: {kind}");
            // panel-title-description, panel-units, panel-datasource, panel-no-targets
            assert!(!text(&panel, "title").is_empty() && !text(&panel, "description").is_empty(), "{at}");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(defaults, "unit").is_empty(), "{at}: no unit");
            assert!(!list(&defaults["thresholds"], "steps").is_empty(), "{at}: no thresholds");
            assert_eq!(panel["datasource"], source, "{at}");
            assert!(!list(&panel, "targets").is_empty(), "{at}: no queries");
            let mut letters = HashSet::new();
            for target in list(&panel, "targets") {
                assert_eq!(target["datasource"], source, "{at}");
                assert!(letters.insert(text(target, "refId")), "{at}: two queries {}", target["refId"]);
                // The last value of a curve that ended would go on saying that all is well.
                assert!(kind != "stat" || target["instant"] == true, "{at}: not as of now");
                let has_legend = !text(target, "legendFormat").is_empty();
                assert!(has_legend || kind == "table", "{at}: a query without a legend");
                let tables = (text(target, "format") == "table", kind == "table");
                assert_eq!(tables.0, tables.1, "{at}");
                assert_eq!(text(target, "format") == "heatmap", kind == "heatmap", "{at}");
            }
            // Two stats and graphs may go by one name, not two panels of one kind.
            assert!(titles.insert(format!("{kind} {}", text(&panel, "title"))), "{at}: twice");
        }
    }
}

#[test]
fn panels_lie_side_by_side_in_24_columns() {
    for (name, dashboard) in dashboards() {
        let mut taken = HashSet::new();
        let mut ids = HashSet::new();
        for panel in list(&dashboard, "panels") {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a whole number"));
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}, {}: {}", panel["title"], panel["gridPos"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}, {}: on top of another at {cell:?}", panel["title"]);
            }
            assert!(ids.insert(panel["id"].as_u64()), "{name}, {}: its id is taken", panel["title"]);
        }
        let rows = taken.iter().map(|(_, y)| y).max().expect("there are panels");
        let full = |y| (0..24).all(|x| taken.contains(&(x, y)));
        let gaps: Vec<u64> = (0..=*rows).filter(|y| !full(*y)).collect();
        assert!(gaps.is_empty(), "{name}: not filled to the right at {gaps:?}");
    }
}

#[test]
fn cache_hit_rate_queue_size_and_reply_latency_come_first_on_the_bots_page() {
    let (name, bot) = dashboards().remove(0);
    let first: Vec<String> = panels(&name, &bot).iter().take(3).map(|(_, panel)| text(panel, "title").into()).collect();
    assert_eq!(first, ["Cache hit rate", "Largest queue", "Reply latency P95"]);
}

#[test]
fn queries_are_of_the_chosen_instances_and_over_the_rate_interval() {
    for (at, query) in queries() {
        assert!(!query.contains("vector("), "{at}: a figure out of nothing: {query}");
        // target-rate-interval
        for range in query.split('[').skip(1).map(|rest| rest.split(']').next().unwrap_or_default()) {
            assert!(["$__rate_interval", "$__range"].contains(&range), "{at}: [{range}] in {query}");
        }
        for Selector { before, name, matchers } in selectors(&query) {
            // What is recorded by rules has no instance, and the users of the whole fleet no job.
            let recorded = name.contains(':');
            // An instance that is down is known by its job alone.
            let by_job = name == "statsieve_build_info" && before.ends_with("and on (job) last_over_time(");
            // target-job, target-instance
            let has = |label: &str| matchers.contains(&format!("{label}=~\"${label}\""));
            assert!(has("job") || name == "statsieve:distinct", "{at}: any job's {name} in {query}");
            assert!(has("instance") || recorded || by_job, "{at}: any instance's {name} in {query}");
            // target-counter-agg
            let counts = ["_total", "_bucket"].iter().any(|ending| name.ends_with(ending));
            let rated = ["rate(", "increase("].iter().any(|function| before.ends_with(function));
            assert!(!counts || rated, "{at}: the bare {name} in {query}");
            // Other programs have these as well, and All is every job.
            let foreign = name.starts_with("process_") || name.starts_with("scrape_") || name == "up";
            assert!(!foreign || query.contains("and on (job"), "{at}: {name} of every exporter in {query}");
        }
    }
}

#[test]
fn histograms_are_asked_for_in_both_forms() {
    let mut seen = 0;
    for (at, query) in queries() {
        let all = selectors(&query);
        for classic in all.iter().filter_map(|found| found.name.strip_suffix("_bucket")) {
            seen += 1;
            let (_, native) = query.split_once(" or ").unwrap_or_else(|| panic!("{at}: one form alone: {query}"));
            assert!(selectors(native).iter().any(|found| found.name == classic), "{at}: {query}");
        }
    }
    assert!(seen >= 10, "{seen} of them");
}

/// What may be asked for: the README's own metrics and bot's metrics, what rules record, and what Prometheus adds.
fn known_metrics() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = ["up", "scrape_duration_seconds"].map(str::to_owned).into();
    for row in read("README.md").lines().filter(|line| line.starts_with('|')) {
        for word in row.split('`').skip(1).step_by(2) {
            let name = word.split('{').next().unwrap_or_default();
            if ["statsieve_", "process_", "bot_"].iter().any(|start| name.starts_with(start)) {
                known.insert(name.to_owned());
                if name.ends_with("_seconds") {
                    known.insert(format!("{name}_bucket"));
                }
            }
        }
    }
    for rules in ["distinct", "statsieve"].map(|name| read(&format!("deploy/prometheus/rules/{name}.yml"))) {
        known.extend(rules.lines().filter_map(|line| Some(line.split_once("record: ")?.1.trim().to_owned())));
    }
    known
}

#[test]
fn metrics_asked_for_exist() {
    let known = known_metrics();
    assert!(known.len() > 60, "{known:?}");
    for (at, query) in queries() {
        for Selector { name, .. } in selectors(&query) {
            assert!(known.contains(name), "{at}: no {name} in the README or the rules");
        }
    }
    for (name, dashboard) in dashboards() {
        for variable in &list(&dashboard["templating"], "list")[1..] {
            let definition = text(variable, "definition");
            let metric = definition.strip_prefix("label_values(").and_then(|rest| rest.split(['{', ',']).next());
            assert!(metric.is_some_and(|metric| known.contains(metric)), "{name}: {definition}");
        }
    }
}

#[test]
fn provisioning_files_name_the_folder_that_the_readme_copies_to() {
    let load = |path: &str| -> Value { serde_saphyr::from_str(&read(path)).expect("it is YAML") };
    let source = load("grafana/provisioning/datasources/statsieve.yml");
    assert_eq!((&source["apiVersion"], text(&source["datasources"][0], "type")), (&json!(1), "prometheus"));
    assert!(!text(&source["datasources"][0]["jsonData"], "timeInterval").is_empty(), "$__rate_interval needs it");
    let provider = load("grafana/provisioning/dashboards/statsieve.yml");
    let path = text(&provider["providers"][0]["options"], "path");
    assert!(read("README.md").contains(&format!("cp -rT grafana/dashboards {path}\n")), "the README copies to {path}");
}

#[test]
#[ignore = "needs Python, run by tests/run"]
fn the_files_are_what_their_source_writes() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("python3");
    let output = command.arg(root().join("grafana/generate.py")).arg(folder.path()).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (name, _) in dashboards() {
        let written = fs::read_to_string(folder.path().join(format!("{name}.json"))).expect("it was written");
        assert!(written == read(&format!("grafana/dashboards/{name}.json")), "run grafana/generate.py: {name} differs");
    }
}
