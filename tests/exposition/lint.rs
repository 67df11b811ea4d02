//! Reads an exposition line by line and panics at the first thing that is not as it should be.
//!
//! Follows: Prometheus text format 0.0.4; OpenMetrics 1.0.0, as far as the sidecar's own metrics use them.

use std::collections::BTreeSet;

/// Checks `text` and returns the families in it, in order.
pub(crate) fn check(text: &str, open: bool) -> Vec<String> {
    let text = if open { text.strip_suffix("# EOF\n").expect("an end mark") } else { text };
    assert!(text.ends_with('\n') && !text.contains("# EOF"));
    let mut families: Vec<String> = Vec::new();
    let mut series = BTreeSet::new();
    let (mut kind, mut helped) = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("help has text");
            assert!(helped.is_empty() && !help.is_empty(), "{line}");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, found) = rest.split_once(' ').expect("a type");
            assert!(helped.is_empty() || helped == name, "{line}");
            assert!(legal(name) && !name.contains(':'), "{line}");
            assert!(!families.iter().any(|family| family == name), "{name} comes twice");
            let kinds: &[&str] = if open {
                &["counter", "gauge", "histogram", "summary", "info", "unknown"]
            } else {
                &["counter", "gauge", "histogram", "summary", "untyped"]
            };
            assert!(kinds.contains(&found), "{line}");
            assert!(!open || !name.ends_with("_total"), "{line}");
            families.push(name.to_owned());
            (kind, helped) = (found, "");
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect("a unit");
            assert!(open && families.last().is_some_and(|family| family == name), "{line}");
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            assert!(!line.starts_with('#') && helped.is_empty(), "{line}");
            let (found, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.insert(found), "{found} comes twice");
            let value: f64 = value.parse().expect("a number");
            // A quantile of nothing is NaN.
            assert!(value.is_finite() || (kind == "summary" && value.is_nan()), "{line}");
            let (name, labels) = match found.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
                None => (found, ""),
            };
            assert!(legal(name), "{line}");
            let keys = keys(labels);
            for key in &keys {
                assert!(legal(key) && !key.starts_with("__") && !key.contains(':'), "{line}");
            }
            assert!(keys.iter().collect::<BTreeSet<_>>().len() == keys.len(), "a label twice: {line}");
            let suffix = name.strip_prefix(families.last().expect("a family").as_str()).expect("its family's name");
            let suffixes: &[&str] = match kind {
                "counter" if open => &["_total"],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line} in a family of kind {kind}");
            assert!(kind != "histogram" || (suffix == "_bucket") == keys.contains(&"le"), "{line}");
            assert!(kind != "summary" || suffix.is_empty() == keys.contains(&"quantile"), "{line}");
        }
    }
    families
}

/// The names in `name="value",...`, whatever the values hold.
fn keys(mut labels: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    while !labels.is_empty() {
        let (key, rest) = labels.split_once("=\"").expect("a label");
        let mut escaped = false;
        let end = rest.find(|letter: char| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let rest = &rest[end.expect("a closing quote") + 1..];
        labels = rest.strip_prefix(',').unwrap_or(rest);
        assert!(labels.is_empty() || labels.len() < rest.len(), "a comma between labels: {rest}");
        keys.push(key);
    }
    keys
}

fn legal(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}
