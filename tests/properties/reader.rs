//! Reads an exposition back, by the words of the formats' specifications and by nothing of the encoder.
//!
//! Refuses, by a panic that quotes the line: names and label names that are not legal, a label twice, a series twice,
//! numbers that are not finite (but for quantiles of nothing), samples outside their family, families twice, names that
//! two families claim.

use std::collections::{BTreeMap, HashSet};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{Histogram, MetricFamily};
use prost::Message;
use statsieve::config::Format;

/// What a quantile of nothing is read as, since NaN is not equal to itself.
const NOTHING: f64 = f64::MIN;

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// Name and type in each TYPE line.
    pub(crate) families: Vec<(String, String)>,
    /// Every sample line.
    pub(crate) samples: BTreeMap<(String, Labels), f64>,
}

pub(crate) fn read(text: &str, format: Format) -> Exposition {
    let open_metrics = format == Format::OpenMetrics;
    let mut exposition = Exposition::default();
    let (mut claimed, mut help, mut mine) = (HashSet::new(), None::<String>, String::new());
    assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
    for line in text.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line:?}"));
            assert!(is_metric_name(name), "{line:?}");
            check_escapes(words, if open_metrics { "\\n\"" } else { "\\n" }, line);
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line:?}"));
            assert_eq!(help.take().as_deref(), Some(name), "TYPE without its HELP: {line:?}");
            let suffixes: &[&str] = match (kind, open_metrics) {
                ("counter", true) => &["", "_total", "_created"],
                ("histogram", true) => &["", "_bucket", "_sum", "_count"],
                ("histogram", false) => &["", "_bucket", "_sum", "_count"],
                ("summary", _) => &["", "_sum", "_count"],
                ("unknown", true) | ("gauge", _) | ("counter", false) => &[""],
                _ => panic!("no such type: {line:?}"),
            };
            for suffix in suffixes {
                assert!(claimed.insert(format!("{name}{suffix}")), "{name}{suffix} is another family's: {line:?}");
            }
            exposition.families.push((name.to_owned(), kind.to_owned()));
        } else {
            let (name, labels, value) = read_sample(line);
            let (family, kind) = exposition.families.last().unwrap_or_else(|| panic!("no family: {line:?}"));
            let suffixes: &[&str] = match (kind.as_str(), open_metrics) {
                ("counter", true) => &["_total", "_created"],
                ("histogram", true) => &["_bucket", "_sum", "_count", "_created"],
                ("histogram", false) => &["_bucket", "_sum", "_count"],
                ("summary", true) => &["_sum", "_count", "_created", ""],
                ("summary", false) => &["_sum", "_count", ""],
                _ => &[""],
            };
            let suffix = suffixes.iter().find(|suffix| name.strip_suffix(*suffix) == Some(family));
            let suffix = suffix.unwrap_or_else(|| panic!("not of {family}: {line:?}"));
            assert_eq!(*suffix == "_bucket", kind == "histogram" && labels.contains_key("le"), "{line:?}");
            assert_eq!(
                suffix.is_empty() && kind == "summary",
                kind == "summary" && labels.contains_key("quantile"),
                "{line:?}"
            );
            assert!(kind != "counter" || value >= 0.0, "{line:?}");
            if *suffix == "_created" && kind != "counter" {
                // One for each series, and no other family's.
                assert!(claimed.insert(name.clone()) || mine == name, "{line:?}");
                mine.clone_from(&name);
            }
            assert!(exposition.samples.insert((name, labels), value).is_none(), "a series twice: {line:?}");
        }
    }
    exposition
}

/// Reads protobuf by the types that prometheus-client generates.
pub(crate) fn read_protobuf(mut bytes: &[u8]) -> Exposition {
    let mut exposition = Exposition::default();
    while !bytes.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut bytes).expect("a whole message");
        let kind = family.r#type().as_str_name().to_lowercase();
        let (name, before) = (family.name.clone(), exposition.families.last());
        assert!(is_metric_name(&name) && !family.help.is_empty() && !family.metric.is_empty(), "{family:?}");
        // A long family comes in several messages.
        if before.is_none_or(|(before, _)| *before != name) {
            exposition.families.push((name.clone(), kind));
        }
        for metric in &family.metric {
            let mut labels = Labels::new();
            for label in &metric.label {
                assert!(is_label_name(&label.name), "{label:?}");
                assert!(labels.insert(label.name.clone(), label.value.clone()).is_none(), "{metric:?}");
            }
            let mut add = |suffix: &str, own: Option<(&str, f64)>, value: f64| {
                let mut labels = labels.clone();
                if let Some((name, number)) = own {
                    let text = if number == f64::INFINITY { "+Inf".to_owned() } else { format!("{number:?}") };
                    assert!(labels.insert(name.to_owned(), text).is_none(), "{metric:?}");
                }
                let before = exposition.samples.insert((format!("{name}{suffix}"), labels), value);
                assert!(before.is_none(), "a series twice: {metric:?}");
            };
            let count = |whole: u64, exact: f64| if exact == 0.0 { whole as f64 } else { exact };
            if let Some(counter) = &metric.counter {
                add("", None, counter.value);
            } else if let Some(gauge) = &metric.gauge {
                add("", None, gauge.value);
            } else if let Some(summary) = &metric.summary {
                add("_sum", None, summary.sample_sum);
                add("_count", None, summary.sample_count as f64);
                for quantile in &summary.quantile {
                    let value = if quantile.value.is_nan() { NOTHING } else { quantile.value };
                    add("", Some(("quantile", quantile.quantile)), value);
                }
            } else {
                let histogram = metric.histogram.as_ref().unwrap_or_else(|| panic!("no value: {metric:?}"));
                add("_sum", None, histogram.sample_sum);
                add("_count", None, count(histogram.sample_count, histogram.sample_count_float));
                for bucket in &histogram.bucket {
                    let value = count(bucket.cumulative_count, bucket.cumulative_count_float);
                    add("_bucket", Some(("le", bucket.upper_bound)), value);
                }
                check_native(histogram);
            }
        }
    }
    exposition
}

/// Native buckets hold as many as the histogram counts, whole ones exactly: Prometheus refuses a scrape over it.
fn check_native(histogram: &Histogram) {
    assert!((-4..=8).contains(&histogram.schema), "{histogram:?}");
    let spans = [&histogram.negative_span, &histogram.positive_span];
    let [negative, positive] = spans.map(|spans| spans.iter().map(|span| span.length as usize).sum::<usize>());
    for spans in spans {
        assert!(spans.iter().skip(1).all(|span| span.offset > 0), "{histogram:?}");
    }
    let (floats, whole) = ([&histogram.negative_count, &histogram.positive_count], histogram.sample_count);
    if floats.iter().any(|counts| !counts.is_empty()) || histogram.zero_count_float > 0.0 {
        assert_eq!(floats.map(Vec::len), [negative, positive], "{histogram:?}");
        let sum = floats.iter().flat_map(|counts| counts.iter()).sum::<f64>() + histogram.zero_count_float;
        let count = histogram.sample_count_float;
        assert!(count > 0.0 && (sum / count - 1.0).abs() < 1e-9, "{sum} in {histogram:?}");
    } else {
        let deltas = [&histogram.negative_delta, &histogram.positive_delta];
        assert_eq!(deltas.map(Vec::len), [negative, positive], "{histogram:?}");
        let counts = |deltas: &[i64]| {
            let counts = deltas.iter().scan(0, |count, delta| {
                *count += delta;
                Some(*count)
            });
            counts.inspect(|count| assert!(*count > 0, "{histogram:?}")).sum::<i64>() as u64
        };
        let sum = deltas.iter().map(|deltas| counts(deltas)).sum::<u64>() + histogram.zero_count;
        assert_eq!(sum, whole, "{histogram:?}");
    }
}

impl Exposition {
    /// Checks each histogram: buckets ascend, the last is `+Inf` and equals `_count`.
    pub(crate) fn check_histograms(&self) {
        for (family, _) in self.families.iter().filter(|(_, kind)| kind == "histogram") {
            let bucket = format!("{family}_bucket");
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((name, labels), count) in &self.samples {
                if *name == bucket {
                    let mut labels = labels.clone();
                    let le = labels.remove("le").unwrap();
                    let le = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() };
                    series.entry(labels).or_default().push((le, *count));
                }
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family}{labels:?}: {buckets:?}");
                let (last, total) = buckets[buckets.len() - 1];
                assert_eq!(last, f64::INFINITY, "{family}{labels:?}");
                assert_eq!(self.samples.get(&(format!("{family}_count"), labels.clone())), Some(&total));
                assert!(self.samples.contains_key(&(format!("{family}_sum"), labels)));
            }
        }
    }
}

fn read_sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line:?}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_metric_name(name), "{line:?}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line:?}"));
            assert!(is_label_name(key), "{key:?} in {line:?}");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let closed = loop {
                match chars.next().unwrap_or_else(|| panic!("open quote: {line:?}")) {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, other @ ('\\' | '"'))) => value.push(other),
                        _ => panic!("no such escape: {line:?}"),
                    },
                    (_, other) => value.push(other),
                }
            };
            assert!(labels.insert(key.to_owned(), value).is_none(), "{key} twice in {line:?}");
            let behind = &after[closed + 1..];
            match behind.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = behind.strip_prefix('}').unwrap_or_else(|| panic!("open brace: {line:?}"));
                    break;
                }
            }
        }
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line:?}"));
    let value: f64 = number.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
    let value = if value.is_nan() && labels.contains_key("quantile") { NOTHING } else { value };
    assert!(value.is_finite(), "{line:?}");
    (name.to_owned(), labels, value)
}

fn check_escapes(text: &str, allowed: &str, line: &str) {
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        assert!(next != '"' || !allowed.contains('"'), "an open quote in {line:?}");
        if next == '\\' {
            assert!(chars.next().is_some_and(|escape| allowed.contains(escape)), "{line:?}");
        }
    }
}

fn is_metric_name(name: &str) -> bool {
    // No colon: it is legal, but kept for recording rules.
    is_label_name(name)
}

fn is_label_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|other| other.is_ascii_alphanumeric() || other == '_')
}
