//! User series as text: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! In: the store. Out: the text of all its families, piece by piece.
//! Always: a piece is made under the store's lock and is short; a family's lines stand together; names and labels are
//! the same in both formats, so a counter without `_total` is `unknown` in OpenMetrics.
//! Follows: Prometheus text format 0.0.4; OpenMetrics 1.0.0.

use std::sync::Arc;

use super::{PIECE_BYTES, Pieces, SeriesSource};
use crate::aggregate::{Family, Reader, Series, Store};
use crate::config::Format;
use crate::map::Kind;

impl SeriesSource for Arc<Store> {
    fn begin(&self, format: Format) -> Box<dyn Pieces> {
        Box::new(UserText { store: self.clone(), format, family: 0, series: 0, serial: 0, counts: Vec::new() })
    }
}

/// The text of all user series in the making.
#[derive(Debug)]
struct UserText {
    store: Arc<Store>,
    format: Format,
    /// The next family and the next of its series, by their places, which never move.
    family: usize,
    series: usize,
    /// The serial number of the family that is being written.
    serial: u64,
    counts: Vec<f64>,
}

impl Pieces for UserText {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let store = self.store.clone();
        // At ten nanoseconds a line a piece holds this lock for some 20 us.
        let reader = store.read();
        let enough = out.len() + PIECE_BYTES;
        while let Some(slot) = reader.families().get(self.family) {
            // A family that went between two pieces may have left its place to another, which a later scrape shows whole.
            let family = slot.as_ref().filter(|family| self.series == 0 || family.serial() == self.serial);
            if let Some(family) = family {
                if self.series == 0 {
                    self.serial = family.serial();
                    write_header(&reader, family, self.format, out);
                }
                while let Some(series) = family.series().get(self.series) {
                    self.series += 1;
                    if let Some(series) = series {
                        self.write_series(&reader, family, series, out);
                    }
                    if out.len() >= enough {
                        return true;
                    }
                }
            }
            self.family += 1;
            self.series = 0;
        }
        false
    }
}

impl UserText {
    fn write_series(&mut self, reader: &Reader<'_>, family: &Family, series: &Series, out: &mut Vec<u8>) {
        if family.kind() != Kind::Histogram {
            write_sample(family.name(), "", series.labels(), None, reader.value(family.kind(), series), out);
            return;
        }
        let sum = reader.histogram(family.bounds(), series, &mut self.counts);
        let mut total = 0.0;
        for (count, le) in self.counts.iter().zip(family.bounds().le()) {
            total += count;
            write_sample(family.name(), "_bucket", series.labels(), Some(le), total, out);
        }
        write_sample(family.name(), "_sum", series.labels(), None, sum, out);
        write_sample(family.name(), "_count", series.labels(), None, total, out);
    }
}

fn write_header(reader: &Reader<'_>, family: &Family, format: Format, out: &mut Vec<u8>) {
    let (name, word) = match format {
        Format::OpenMetrics => open_metrics_type(reader, family),
        _ => (family.name(), family.kind().word()),
    };
    out.extend_from_slice(b"# HELP ");
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    for byte in family.help().bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if format == Format::OpenMetrics => out.extend_from_slice(b"\\\""),
            _ => out.push(byte),
        }
    }
    out.extend_from_slice(b"\n# TYPE ");
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    out.extend_from_slice(word.as_bytes());
    out.push(b'\n');
}

/// The name and type of a family in OpenMetrics, where a counter is named without its `_total`.
///
/// A counter is `unknown` under its full name if it has no `_total`, or if the name without it is another family's, or
/// one that another family exposes; so is one beside a family named like the counter's `_created` line would be (a
/// counter `x_created_total` is such a family of `x_total`), or named itself like that of a histogram.
fn open_metrics_type<'a>(reader: &Reader<'_>, family: &'a Family) -> (&'a str, &'static str) {
    if family.kind() != Kind::Counter {
        return (family.name(), family.kind().word());
    }
    match family.name().strip_suffix("_total") {
        Some(base)
            if !base.is_empty()
                && !reader.has_family(base)
                && !reader.is_taken(base)
                && !reader.has_family(&format!("{base}_created"))
                && !reader.has_family(&format!("{base}_created_total"))
                && !base.strip_suffix("_created").is_some_and(|histogram| reader.has_histogram(histogram)) =>
        {
            (base, "counter")
        }
        _ => (family.name(), "unknown"),
    }
}

/// Appends `name suffix {labels,le="..."} value` and a newline.
#[inline]
fn write_sample(name: &str, suffix: &str, labels: &str, le: Option<&str>, value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    if !labels.is_empty() || le.is_some() {
        out.push(b'{');
        out.extend_from_slice(labels.as_bytes());
        if let Some(le) = le {
            if !labels.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(b"le=\"");
            out.extend_from_slice(le.as_bytes());
            out.push(b'"');
        }
        out.push(b'}');
    }
    out.push(b' ');
    write_number(value, out);
    out.push(b'\n');
}

/// Appends a number: whole ones up to 2^53 as integers, others by their shortest digits.
#[inline]
pub fn write_number(value: f64, out: &mut Vec<u8>) {
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if value.abs() <= WHOLE && value.trunc() == value {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        let text = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests;
