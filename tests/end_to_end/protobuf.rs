//! Reads the protobuf exposition, by the types that prometheus-client generates.

use std::collections::BTreeMap;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{Metric, MetricFamily};
use prost::Message;

/// The only words that protobuf is given for.
pub(crate) const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

/// All families, as they came.
pub(crate) fn decode(mut bytes: &[u8]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    while !bytes.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut bytes).expect("a whole message"));
    }
    families
}

/// The samples as a text exposition has them: `name{label="value",...}`, with escapes.
pub(crate) fn samples(families: &[MetricFamily]) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for family in families {
        for metric in &family.metric {
            let mut add = |suffix: &str, own: Option<(&str, f64)>, value: f64| {
                let series = format!("{}{suffix}{}", family.name, labels(metric, own));
                let before = samples.insert(series, value);
                assert_eq!(before, None, "one series twice: {metric:?} of {}", family.name);
            };
            let plain = [
                metric.counter.as_ref().map(|counter| counter.value),
                metric.gauge.as_ref().map(|gauge| gauge.value),
                metric.untyped.as_ref().map(|untyped| untyped.value),
            ];
            plain.into_iter().flatten().for_each(|value| add("", None, value));
            if let Some(histogram) = &metric.histogram {
                add("_sum", None, histogram.sample_sum);
                add("_count", None, count(histogram.sample_count, histogram.sample_count_float));
                for bucket in &histogram.bucket {
                    let value = count(bucket.cumulative_count, bucket.cumulative_count_float);
                    add("_bucket", Some(("le", bucket.upper_bound)), value);
                }
            }
            if let Some(summary) = &metric.summary {
                add("_sum", None, summary.sample_sum);
                add("_count", None, summary.sample_count as f64);
                for quantile in &summary.quantile {
                    add("", Some(("quantile", quantile.quantile)), quantile.value);
                }
            }
        }
    }
    samples
}

/// A count that is not whole stands beside the nearest whole one.
fn count(whole: u64, exact: f64) -> f64 {
    assert!(exact == 0.0 || (exact.round() - whole as f64).abs() < 1.0, "{exact} beside {whole}");
    if exact == 0.0 { whole as f64 } else { exact }
}

fn labels(metric: &Metric, own: Option<(&str, f64)>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut pairs: Vec<(String, String)> =
        metric.label.iter().map(|label| (label.name.clone(), escaped(&label.value))).collect();
    if let Some((name, number)) = own {
        let text = if number == f64::INFINITY { "+Inf".to_owned() } else { format!("{number:?}") };
        pairs.push((name.to_owned(), text));
    }
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}
