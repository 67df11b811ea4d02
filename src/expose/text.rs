//! User series as text: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! In: the store. Out: the text of all its families, piece by piece.
//! Always: a piece is made under the store's lock and is short, whatever a series is like; a family's lines stand
//! together, and a histogram's are of one moment; names and labels are the same in both formats, so a counter without
//! `_total` is `unknown` in OpenMetrics.
//! Follows: Prometheus text format 0.0.4; OpenMetrics 1.0.0.

use std::sync::Arc;

use super::{PIECE_BYTES, Pieces};
use crate::aggregate::bounds::Bounds;
use crate::aggregate::{Family, Reader, Series, Store};
use crate::config::Format;
use crate::map::Kind;

/// The text of all user series in the making.
#[derive(Debug)]
pub(super) struct UserText {
    store: Arc<Store>,
    format: Format,
    /// The next family and the next of its series, by their places, which never move.
    family: usize,
    series: usize,
    /// The serial number of the family that is being written.
    serial: u64,
    /// The histogram that is being written.
    read: Histogram,
    /// Whose it is, if the piece before ended within it.
    open: Option<Open>,
}

/// The numbers of a histogram, read at once, and how far they are written.
#[derive(Debug, Default)]
struct Histogram {
    counts: Vec<f64>,
    sum: f64,
    /// The sum of the counts written.
    total: f64,
    /// The next line.
    line: usize,
}

/// A series that may be gone by the time the next piece is made.
#[derive(Debug)]
struct Open {
    name: Box<str>,
    labels: Box<str>,
    bounds: Arc<Bounds>,
}

impl UserText {
    /// Starts a walk, in text 0.0.4 or OpenMetrics.
    pub(super) fn new(store: Arc<Store>, format: Format) -> Self {
        Self { store, format, family: 0, series: 0, serial: 0, read: Histogram::default(), open: None }
    }
}

impl Pieces for UserText {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let enough = out.len() + PIECE_BYTES;
        if let Some(Open { name, labels, bounds }) = &self.open {
            if !self.read.write(name, labels, bounds, enough, out) {
                return true;
            }
            self.open = None;
        }
        let store = self.store.clone();
        // At ten nanoseconds a line a piece holds this lock for some 20 us.
        let reader = store.read();
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
                        self.write_series(&reader, family, series, enough, out);
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
    /// Writes the lines of a series; those of a histogram only until `enough`, and the rest with the next piece.
    fn write_series(
        &mut self,
        reader: &Reader<'_>,
        family: &Family,
        series: &Series,
        enough: usize,
        out: &mut Vec<u8>,
    ) {
        let (name, labels, bounds) = (family.name(), series.labels(), family.bounds());
        if family.kind() != Kind::Histogram {
            return write_sample(name, "", labels, None, reader.shown(family.kind(), series), out);
        }
        let read = &mut self.read;
        read.sum = reader.histogram(bounds, series, &mut read.counts);
        (read.total, read.line) = (0.0, 0);
        if !read.write(name, labels, bounds, enough, out) {
            self.open = Some(Open { name: name.into(), labels: labels.into(), bounds: bounds.clone() });
        }
    }
}

impl Histogram {
    /// Writes on until `out` is `enough` bytes long; `false` if that was before the last line.
    fn write(&mut self, name: &str, labels: &str, bounds: &Bounds, enough: usize, out: &mut Vec<u8>) -> bool {
        for (count, le) in self.counts.iter().zip(bounds.le()).skip(self.line) {
            if out.len() >= enough {
                return false;
            }
            self.line += 1;
            self.total += count;
            write_sample(name, "_bucket", labels, Some(le), self.total, out);
        }
        write_sample(name, "_sum", labels, None, self.sum, out);
        write_sample(name, "_count", labels, None, self.total, out);
        true
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

/// The longest sample line, of a name and rendered labels of these lengths: with a suffix, a bound and a number.
pub fn most_line_bytes(name: usize, labels: usize) -> usize {
    name + labels + 96
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
