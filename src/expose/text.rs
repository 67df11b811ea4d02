//! User series as text: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! In: the store. Out: the text of all its families, piece by piece.
//! Always: a piece is made under the store's lock and is short, whatever a series is like; a family's lines stand
//! together, and those of a series are of one moment; names and labels are the same in both formats, so a counter
//! without `_total` is `unknown` in OpenMetrics.
//! Follows: Prometheus text format 0.0.4; OpenMetrics 1.0.0.

use std::sync::Arc;

use super::{End, Pieces};
use crate::aggregate::shape::Shape;
use crate::aggregate::sketch::bins::Merged;
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
    /// The name of the family's `_created` lines, if it has any.
    created: Option<String>,
    /// The observations that are being written.
    read: Observed,
    /// Whose they are, if the piece before ended within them.
    open: Option<Open>,
}

/// The numbers of a histogram or summary, read at once, and how far they are written.
#[derive(Debug, Default)]
struct Observed {
    /// Counts up to each bound, or values of quantiles.
    numbers: Vec<f64>,
    sum: f64,
    /// How many.
    count: f64,
    /// The next line.
    line: usize,
    /// What a `_created` line says.
    made: f64,
    /// What each of the lines begins with.
    head: Vec<u8>,
}

/// A series that may be gone by the time the next piece is made.
#[derive(Debug)]
struct Open {
    name: Box<str>,
    labels: Box<str>,
    shape: Shape,
}

impl UserText {
    /// Starts a walk, in text 0.0.4 or OpenMetrics.
    pub(super) fn new(store: Arc<Store>, format: Format) -> Self {
        Self { store, format, family: 0, series: 0, serial: 0, created: None, read: Observed::default(), open: None }
    }
}

impl Pieces for UserText {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let end = End::of(out);
        if let Some(Open { name, labels, shape }) = &self.open {
            if !self.read.write(name, labels, shape, self.created.as_deref(), end.bytes, out) {
                return true;
            }
            self.open = None;
        }
        let store = self.store.clone();
        // At ten nanoseconds a line a piece holds this lock for some 20 us.
        let reader = store.read();
        let mut merged = Merged::default();
        while let Some(slot) = reader.families().get(self.family) {
            // A family that went between two pieces may have left its place to another, which a later scrape shows
            // whole.
            let family = slot.as_ref().filter(|family| self.series == 0 || family.serial() == self.serial);
            if let Some(family) = family {
                if self.series == 0 {
                    self.serial = family.serial();
                    self.write_header(&reader, family, out);
                }
                let is_full = match family.shape() {
                    Shape::Counter | Shape::Gauge => self.write_numbers(&reader, family, end, out),
                    _ => self.write_observations(&reader, family, &mut merged, end, out),
                };
                if is_full {
                    return true;
                }
            }
            self.family += 1;
            self.series = 0;
        }
        false
    }
}

impl UserText {
    /// Writes the series of a counter or gauge that are left, until the `end` of the piece; says whether it is reached.
    fn write_numbers(&mut self, reader: &Reader<'_>, family: &Family, end: End, out: &mut Vec<u8>) -> bool {
        let kind = family.kind();
        let stem = stem(family.name());
        let created = self.created.as_deref().map(self::stem);
        while let Some(slot) = family.series().get(self.series) {
            self.series += 1;
            if let Some(series) = slot {
                write_sample(&stem, series.labels(), reader.shown(kind, series), out);
                if let Some(created) = &created {
                    write_sample(created, series.labels(), reader.made(series).as_secs_f64(), out);
                }
            }
            if end.is_reached(family.shape(), out) {
                return true;
            }
        }
        false
    }

    /// The same for other families.
    fn write_observations(
        &mut self,
        reader: &Reader<'_>,
        family: &Family,
        merged: &mut Merged,
        end: End,
        out: &mut Vec<u8>,
    ) -> bool {
        while let Some(slot) = family.series().get(self.series) {
            self.series += 1;
            if let Some(series) = slot {
                self.write_series(reader, family, series, merged, end.bytes, out);
            }
            if end.is_reached(family.shape(), out) {
                return true;
            }
        }
        false
    }

    /// Writes the lines of a series that is no single number; those of observations only until `enough`, and the rest
    /// with the next piece.
    fn write_series(
        &mut self,
        reader: &Reader<'_>,
        family: &Family,
        series: &Series,
        merged: &mut Merged,
        enough: usize,
        out: &mut Vec<u8>,
    ) {
        let (name, labels, read) = (family.name(), series.labels(), &mut self.read);
        match family.shape() {
            Shape::Counter | Shape::Gauge => return,
            Shape::Set(set) => return write_sample(&stem(name), labels, reader.members(set, series), out),
            Shape::Histogram(histogram) => {
                read.sum = reader.histogram(histogram, series, &mut read.numbers);
                read.count = read.numbers.iter_mut().fold(0.0, |below, count| {
                    *count += below;
                    *count
                });
            }
            Shape::Summary(summary) => {
                (read.count, read.sum) = reader.summary(summary, series, merged);
                read.numbers.clear();
                let quantiles = summary.quantiles().map(|(quantile, _)| merged.quantile(summary.layout(), quantile));
                read.numbers.extend(quantiles);
            }
        }
        (read.line, read.made) = (0, reader.made(series).as_secs_f64());
        let shape = family.shape();
        if !read.write(name, labels, shape, self.created.as_deref(), enough, out) {
            self.open = Some(Open { name: name.into(), labels: labels.into(), shape: shape.clone() });
        }
    }

    /// Writes what stands before the samples of a family, and tells whether they have `_created` lines.
    fn write_header(&mut self, reader: &Reader<'_>, family: &Family, out: &mut Vec<u8>) {
        let format = self.format;
        let (name, word) = match format {
            Format::OpenMetrics => open_metrics_type(reader, family),
            _ => (family.name(), family.kind().word()),
        };
        let since = matches!(word, "counter" | "histogram" | "summary");
        self.created = (format == Format::OpenMetrics && since && reader.shows_created())
            .then(|| format!("{name}_created"))
            .filter(|created| !reader.has_family(created));
        write_header(name, word, family.help(), format, out);
    }
}

impl Observed {
    /// Writes on until `out` is `enough` bytes long; `false` if that was before the last line.
    fn write(
        &mut self,
        name: &str,
        labels: &str,
        shape: &Shape,
        created: Option<&str>,
        enough: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut begin = |parts: [&str; 6]| {
            self.head.clear();
            parts.iter().for_each(|part| self.head.extend_from_slice(part.as_bytes()));
        };
        let whole = match shape {
            Shape::Histogram(histogram) => {
                begin([name, "_bucket{", labels, comma, "le", "=\""]);
                self.write_lines(histogram.bounds.le(), enough, out)
            }
            Shape::Summary(summary) => {
                begin([name, "{", labels, comma, "quantile", "=\""]);
                self.write_lines(summary.quantiles().map(|(_, text)| text), enough, out)
            }
            Shape::Counter | Shape::Gauge | Shape::Set(_) => true,
        };
        if whole {
            for (suffix, value) in [("_sum{", self.sum), ("_count{", self.count)] {
                out.extend_from_slice(name.as_bytes());
                write_sample(suffix.as_bytes(), labels, value, out);
            }
            if let Some(created) = created {
                write_sample(&stem(created), labels, self.made, out);
            }
        }
        whole
    }

    fn write_lines<'a>(&mut self, texts: impl Iterator<Item = &'a str>, enough: usize, out: &mut Vec<u8>) -> bool {
        for (number, text) in self.numbers.iter().zip(texts).skip(self.line) {
            if out.len() >= enough {
                return false;
            }
            self.line += 1;
            out.extend_from_slice(&self.head);
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\"} ");
            write_number(*number, out);
            out.push(b'\n');
        }
        true
    }
}

fn write_header(name: &str, word: &str, help: &str, format: Format, out: &mut Vec<u8>) {
    out.extend_from_slice(b"# HELP ");
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    for byte in help.bytes() {
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
/// counter `x_created_total` is such a family of `x_total`), or named itself like that of observations.
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
                && !base.strip_suffix("_created").is_some_and(|observer| reader.has_observer(observer)) =>
        {
            (base, "counter")
        }
        _ => (family.name(), "unknown"),
    }
}

/// What the lines of a name begin with if they have labels.
fn stem(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"{"].concat()
}

/// Appends a line: `stem`, which is a name and a brace, then labels, `value` and a newline.
#[inline]
fn write_sample(stem: &[u8], labels: &str, value: f64, out: &mut Vec<u8>) {
    if labels.is_empty() {
        out.extend_from_slice(&stem[..stem.len() - 1]);
        out.push(b' ');
    } else {
        out.extend_from_slice(stem);
        out.extend_from_slice(labels.as_bytes());
        out.extend_from_slice(b"} ");
    }
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
    // What is no number becomes 0 here and is not equal to that. (`trunc` is a call, without SSE 4.1.)
    let whole = value as i64;
    if whole as f64 == value && value.abs() <= WHOLE {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
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
