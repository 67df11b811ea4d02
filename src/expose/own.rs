//! Writes the sidecar's own metrics.
//!
//! In: a `prometheus_client` registry. Out: OpenMetrics text as that crate encodes it; the same families in text 0.0.4,
//! which it has no encoder for; and those in protobuf, made of that text. The crate's own protobuf would need a
//! compiler for it at build time, says nothing of starts, and gives an unknown type a value that Prometheus does not
//! find. None of them ends the exposition: `# EOF` is the caller's.
//! Always: all hold the same samples under the same names.
//! Follows: OpenMetrics 1.0.0; Prometheus text format 0.0.4; `io.prometheus.client`, `metrics.proto`.

use std::fmt;
use std::time::Duration;

use memchr::{memchr, memchr_iter};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

use super::protobuf::{Type, write_counter, write_family, write_gauge, write_histogram, write_metric, write_untyped};

/// Appends the registry as OpenMetrics text, without `# EOF`.
///
/// # Errors
/// Only what a collector fails with; `out` may then hold a part.
pub fn openmetrics(registry: &Registry, out: &mut String) -> fmt::Result {
    encode_registry(out, registry)
}

/// Appends the registry as text 0.0.4.
///
/// # Errors
/// Only what a collector fails with; `out` is then as it was.
pub fn text(registry: &Registry, out: &mut String) -> fmt::Result {
    let mut source = String::with_capacity(16 * 1024);
    encode_registry(&mut source, registry)?;
    rewrite(&source, out);
    Ok(())
}

/// Appends OpenMetrics text to `out` as text 0.0.4.
///
/// Counters and infos carry their suffix in `# HELP` and `# TYPE` as well, since there a family is named as its samples
/// are; types that 0.0.4 has no word for become the nearest that it has; units, exemplars and the end mark go. Samples
/// have no timestamps (the crate writes none), so those need no change of unit.
fn rewrite(source: &str, out: &mut String) {
    // `# HELP` comes first, but only `# TYPE` says how the family is to be called.
    let mut help: Option<(&str, &str)> = None;
    for line in lines(source) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                // A counter that OpenMetrics has no name for, since a gauge has it.
                "unknown" if name.ends_with("_total") => ("", "counter"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((helped, text)) = help.take()
                && helped == name
            {
                out.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([without_exemplar(line), "\n"]);
        }
    }
}

/// The lines of a text in which each ends with a newline; found faster than `str::lines` does.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    memchr_iter(b'\n', text.as_bytes()).map(move |end| &text[std::mem::replace(&mut start, end + 1)..end])
}

/// Appends text 0.0.4 as [`text`] writes it to `out` as delimited messages; counters and histograms started at
/// `started`, since 1970.
pub fn protobuf(text: &str, started: Duration, out: &mut Vec<u8>) {
    let mut lines = lines(text).peekable();
    let mut help = "";
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
            continue;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
        let kind = match kind {
            "counter" => Type::Counter,
            "gauge" => Type::Gauge,
            "histogram" => Type::Histogram,
            _ => Type::Untyped,
        };
        write_family(name, std::mem::take(&mut help), kind, out, |out| {
            let mut histogram = OwnHistogram::default();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let Some((name, labels, value)) = parts(line) else { continue };
                match kind {
                    Type::Counter => write_metric(labels, out, |out| write_counter(value, started, out)),
                    // There is none among them.
                    Type::Summary => {}
                    Type::Gauge => write_metric(labels, out, |out| write_gauge(value, out)),
                    Type::Untyped => write_metric(labels, out, |out| write_untyped(value, out)),
                    Type::Histogram => histogram.take(name, labels, value, started, out),
                }
            }
            histogram.write(started, out);
        });
    }
}

/// The name, the labels as they stand between the braces, and the value of a sample line.
fn parts(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
    Some((name, labels.strip_suffix('}').unwrap_or(labels), value.parse().ok()?))
}

/// A histogram whose lines are gathered: the crate writes its sum first, then its count, then its buckets.
#[derive(Default)]
struct OwnHistogram<'a> {
    labels: Option<&'a str>,
    sum: f64,
    count: f64,
    buckets: Vec<(f64, f64)>,
}

impl<'a> OwnHistogram<'a> {
    fn take(&mut self, name: &str, labels: &'a str, value: f64, started: Duration, out: &mut Vec<u8>) {
        if name.ends_with("_sum") {
            self.write(started, out);
            (self.labels, self.sum) = (Some(labels), value);
        } else if name.ends_with("_count") {
            self.count = value;
        } else if let Some(bound) =
            labels.rsplit_once("le=\"").and_then(|(_, rest)| rest.strip_suffix('"')?.parse().ok())
        {
            self.buckets.push((bound, value));
        }
    }

    fn write(&mut self, started: Duration, out: &mut Vec<u8>) {
        if let Some(labels) = self.labels.take() {
            let buckets = self.buckets.drain(..);
            write_metric(labels, out, |out| write_histogram(self.count, self.sum, buckets, started, out));
        }
    }
}

/// A sample line up to its exemplar, if it has one.
fn without_exemplar(line: &str) -> &str {
    if memchr(b'#', line.as_bytes()).is_none() {
        return line;
    }
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{MetricFamily, MetricType};
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;
    use prost::Message;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let counters = Family::<[(&'static str, &'static str); 1], Counter>::default();
        counters.get_or_create(&[("path", "a\\b\"c # {\nd")]).inc_by(3);
        registry.register("requests", "Requests by path", counters);
        let bytes = Counter::<u64>::default();
        bytes.inc_by(7);
        registry.register_with_unit("received", "Bytes taken in", Unit::Bytes, bytes);
        let level = Gauge::<i64>::default();
        level.set(-2);
        registry.register("level", "A level", level);
        let histogram = Histogram::new([0.5, 1.0]);
        histogram.observe(0.25);
        histogram.observe(3.0);
        registry.register_with_unit("took", "Time taken", Unit::Seconds, histogram);
        registry.register("build", "What was built", Info::new([("version", "1.2")]));
        let with_exemplar = CounterWithExemplar::<[(&'static str, &'static str); 1]>::default();
        with_exemplar.inc_by(4, Some([("trace_id", "# 1")]), None);
        registry.register("traced", "Carries an exemplar", with_exemplar);
        registry
    }

    #[test]
    fn openmetrics_is_the_encoding_of_the_crate_without_an_end() {
        let mut out = String::from("before\n");
        openmetrics(&registry(), &mut out).unwrap();
        let expected = r##"before
# HELP requests Requests by path.
# TYPE requests counter
requests_total{path="a\\b\"c # {\nd"} 3
# HELP received_bytes Bytes taken in.
# TYPE received_bytes counter
# UNIT received_bytes bytes
received_bytes_total 7
# HELP level A level.
# TYPE level gauge
level -2
# HELP took_seconds Time taken.
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_sum 3.25
took_seconds_count 2
took_seconds_bucket{le="0.5"} 1
took_seconds_bucket{le="1.0"} 1
took_seconds_bucket{le="+Inf"} 2
# HELP build What was built.
# TYPE build info
build_info{version="1.2"} 1
# HELP traced Carries an exemplar.
# TYPE traced counter
traced_total 4 # {trace_id="# 1"} 4.0
"##;
        assert_eq!(out, expected);
    }

    #[test]
    fn text_names_families_as_their_samples_and_leaves_out_what_it_cannot_say() {
        let mut out = String::from("before\n");
        text(&registry(), &mut out).unwrap();
        let expected = r##"before
# HELP requests_total Requests by path.
# TYPE requests_total counter
requests_total{path="a\\b\"c # {\nd"} 3
# HELP received_bytes_total Bytes taken in.
# TYPE received_bytes_total counter
received_bytes_total 7
# HELP level A level.
# TYPE level gauge
level -2
# HELP took_seconds Time taken.
# TYPE took_seconds histogram
took_seconds_sum 3.25
took_seconds_count 2
took_seconds_bucket{le="0.5"} 1
took_seconds_bucket{le="1.0"} 1
took_seconds_bucket{le="+Inf"} 2
# HELP build_info What was built.
# TYPE build_info gauge
build_info{version="1.2"} 1
# HELP traced_total Carries an exemplar.
# TYPE traced_total counter
traced_total 4
"##;
        assert_eq!(out, expected);
    }

    #[test]
    fn protobuf_holds_the_samples_of_text_under_their_names() {
        let mut source = String::new();
        text(&registry(), &mut source).unwrap();
        source.push_str("# HELP who Who knows.\n# TYPE who untyped\nwho{a=\"}\"} -1.5\n");
        let mut bytes = Vec::new();
        protobuf(&source, Duration::new(1_700_000_000, 5), &mut bytes);
        let (mut rest, mut lines) = (&bytes[..], String::new());
        while !rest.is_empty() {
            let family = MetricFamily::decode_length_delimited(&mut rest).unwrap();
            let (name, kind) = (&family.name, family.r#type().as_str_name().to_lowercase());
            lines.push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help));
            for metric in &family.metric {
                let start = metric.counter.as_ref().map(|counter| counter.start_timestamp);
                let start = start.or(metric.histogram.as_ref().map(|histogram| histogram.start_timestamp));
                assert_eq!(start.map(|start| start.map(|at| (at.seconds, at.nanos))), {
                    let starts = matches!(family.r#type(), MetricType::Counter | MetricType::Histogram);
                    starts.then_some(Some((1_700_000_000, 5)))
                });
                let labels: Vec<_> =
                    metric.label.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
                let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                let value = (metric.counter.as_ref().map(|counter| counter.value))
                    .or(metric.gauge.as_ref().map(|gauge| gauge.value))
                    .or(metric.untyped.as_ref().map(|untyped| untyped.value));
                if let Some(value) = value {
                    lines.push_str(&format!("{name}{labels} {value}\n"));
                }
                if let Some(found) = &metric.histogram {
                    assert_eq!(found.sample_count_float, 0.0);
                    lines.push_str(&format!("{name}_sum {}\n{name}_count {}\n", found.sample_sum, found.sample_count));
                    for bucket in &found.bucket {
                        let bound = format!("{:?}", bucket.upper_bound).replace("inf", "+Inf");
                        lines.push_str(&format!("{name}_bucket{{le=\"{bound}\"}} {}\n", bucket.cumulative_count));
                    }
                }
            }
        }
        assert_eq!(lines, source);
    }

    #[test]
    fn unknown_becomes_untyped_and_the_end_mark_goes() {
        let mut out = String::new();
        rewrite("# HELP x Who knows.\n# TYPE x unknown\nx 1\n# EOF\n", &mut out);
        assert_eq!(out, "# HELP x Who knows.\n# TYPE x untyped\nx 1\n");
    }
}
