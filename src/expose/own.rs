//! Writes the sidecar's own metrics as text.
//!
//! In: a `prometheus_client` registry. Out: OpenMetrics text as that crate encodes it, or the same families in text
//! 0.0.4, which it has no encoder for. Neither ends the exposition: `# EOF` is the caller's.
//! Always: the two hold the same samples under the same names.
//! Follows: OpenMetrics 1.0.0; Prometheus text format 0.0.4.

use std::fmt;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

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
    for line in source.lines() {
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

/// A sample line up to its exemplar, if it has one.
fn without_exemplar(line: &str) -> &str {
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
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

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
    fn unknown_becomes_untyped_and_the_end_mark_goes() {
        let mut out = String::new();
        rewrite("# HELP x Who knows.\n# TYPE x unknown\nx 1\n# EOF\n", &mut out);
        assert_eq!(out, "# HELP x Who knows.\n# TYPE x untyped\nx 1\n");
    }
}
