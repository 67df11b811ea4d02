//! A mapping file of `statsd_exporter` as this program's TOML.
//!
//! In: the path of a YAML file. Out: TOML whose rules map every line as the file does.
//! Always: rules stand in the order in which they are tried; what TOML has no key for is said in a comment.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::mapping::{Action, MetricType, Observation, Pattern, Rule};
use super::problem::{KeyPath, Problem, Problems};
use super::{raw, yaml};

/// The longest span that our own keys take.
const YEAR: Duration = Duration::from_secs(365 * 86400);

#[derive(Serialize)]
struct File {
    observer: raw::Observer,
    #[serde(skip_serializing_if = "Option::is_none")]
    cardinality: Option<Cardinality>,
    mapping: Rules,
}

#[derive(Serialize)]
struct Cardinality {
    idle_ttl: String,
}

#[derive(Serialize)]
struct Rules {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<raw::MappingRule>,
}

/// Reads a mapping file and writes it as TOML.
///
/// # Errors
/// Every problem of the file.
pub fn to_toml(path: &Path) -> Result<String, Problems> {
    let name = path.display().to_string();
    let only = |message: String| Problems::new(vec![Problem::bare(&name, &KeyPath::default(), message)]);
    let bytes = std::fs::read(path).map_err(|cause| only(format!("cannot be read: {cause}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|cause| only(format!("not UTF-8 at byte {}", cause.utf8_error().valid_up_to())))?;
    let mut problems = Vec::new();
    let file = yaml::read(&name, &text, &mut problems);
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }

    let mut comments = vec![format!("From the mapping file {name}.")];
    if file.unordered {
        comments
            .push("Its globs were not ordered; here the most specific stand first, which comes to the same.".into());
    }
    let (mut kind, mut buckets, mut quantiles) = ("histogram", Vec::new(), Vec::new());
    let (mut native_factor, mut native_max_buckets, mut max_age) = (1.0, 1, Duration::ZERO);
    for observation in [&file.histogram, &file.summary] {
        match observation {
            Observation::Histogram { bounds, native_factor: factor, native_max_buckets: most } => {
                (buckets, native_factor) = (bounds.clone(), *factor);
                native_max_buckets = i64::from(*most).min(1600);
            }
            Observation::Summary { quantiles: each, max_age: age } => (quantiles, max_age) = (each.clone(), *age),
        }
    }
    if file.summaries {
        kind = "summary";
    }
    let observer = raw::Observer {
        kind: kind.to_owned(),
        buckets,
        native_factor,
        native_max_buckets,
        quantiles,
        max_age: duration(max_age.max(Duration::from_secs(1))),
    };
    let rules = file.rules.iter().map(|rule| {
        note_losses(rule, &file, &mut comments);
        to_raw(rule)
    });
    let rules = Rules { rules: rules.collect() };
    let cardinality = file.ttl.map(|ttl| Cardinality { idle_ttl: duration(ttl) });
    let body = toml::to_string(&File { observer, cardinality, mapping: rules })
        .expect("tables of plain values and lists can be written as TOML");
    let mut out: String = comments.iter().map(|line| format!("# {}\n", line.replace(char::is_control, " "))).collect();
    out.push('\n');
    out.push_str(&body);
    Ok(out)
}

/// A duration as our keys take it.
fn duration(span: Duration) -> String {
    humantime::format_duration(span.min(YEAR)).to_string()
}

/// Says what has no key of its own in a rule.
fn note_losses(rule: &Rule, file: &yaml::MappingFile, comments: &mut Vec<String>) {
    let lost = match (&rule.observation, &file.summary, &file.histogram) {
        (Some(Observation::Summary { max_age, .. }), Observation::Summary { max_age: usual, .. }, _) => {
            (max_age != usual).then_some("max_age")
        }
        (
            Some(Observation::Histogram { native_factor, native_max_buckets, .. }),
            _,
            Observation::Histogram { native_factor: factor, native_max_buckets: most, .. },
        ) => (native_factor != factor || native_max_buckets != most).then_some("native histogram options"),
        _ => None,
    };
    if let Some(lost) = lost {
        comments.push(format!("Not carried over, since a rule has no key for it: {lost} of {}.", rule.place));
    }
}

/// A rule by our keys; what it does not say is left out.
fn to_raw(rule: &Rule) -> raw::MappingRule {
    let mut labels = rule.labels.clone();
    labels.sort();
    let (kind, buckets, quantiles) = match &rule.observation {
        Some(Observation::Histogram { bounds, .. }) => (Some("histogram"), Some(bounds.clone()), None),
        Some(Observation::Summary { quantiles, .. }) => (Some("summary"), None, Some(quantiles.clone())),
        None => (None, None, None),
    };
    raw::MappingRule {
        pattern: Some(rule.pattern.as_str().to_owned()),
        match_type: matches!(rule.pattern, Pattern::Regex(_)).then(|| "regex".to_owned()),
        match_metric_type: rule.metric_type.map(|kind: MetricType| kind.label().to_owned()),
        name: Some(rule.name.clone()),
        labels: (!labels.is_empty()).then(|| labels.into_iter().collect()),
        action: (rule.action == Action::Drop).then(|| "drop".to_owned()),
        help: rule.help.clone(),
        observer_type: kind.map(str::to_owned),
        buckets,
        quantiles,
        ttl: rule.ttl.map(duration),
        scale: rule.scale,
        honor_labels: rule.honor_labels.then_some(true),
    }
}
