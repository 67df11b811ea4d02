//! User series as Prometheus protobuf, and the messages that own metrics are written in as well.
//!
//! In: the store. Out: a delimited `io.prometheus.client.MetricFamily` for each family, piece by piece.
//! Not here: the encoding of a field (`wire`), what the own metrics are (`own`).
//! Always: a piece is made under the store's lock and ends behind a message; a family that runs over it goes on in a
//! further message of the same name, so no message is longer than a piece and a series, and memory does not grow with
//! the number of series; names, labels and values are those of text 0.0.4; counters, histograms and
//! summaries have a start.
//! Follows: `io.prometheus.client`, `metrics.proto`.
//!
//! Labels are written from the text that each series keeps of them, some 30 ns each. Were their bytes kept as well, a
//! counter of three labels would take 30 ns instead of 100 (measured on one of two shared cores), and all series a
//! tenth more than that text once again, out of `cardinality.max_bytes`: series are worth more than microseconds of a
//! scrape.

mod wire;

use std::sync::Arc;
use std::time::Duration;

use memchr::{memchr, memchr2};

use self::wire::{bytes, delimited, double, message, sint, uint};
use super::{End, Pieces};
use crate::aggregate::shape::{Histogram, Shape};
use crate::aggregate::sketch::bins::{self, Bin, Merged};
use crate::aggregate::sketch::grid;
use crate::aggregate::{Family, Reader, Series, Store};
use crate::config::Observation;
use crate::map::Kind;

// Field numbers, by message.
const FAMILY_NAME: u8 = 1;
const FAMILY_HELP: u8 = 2;
const FAMILY_TYPE: u8 = 3;
const FAMILY_METRIC: u8 = 4;
const METRIC_LABEL: u8 = 1;
const METRIC_GAUGE: u8 = 2;
const METRIC_COUNTER: u8 = 3;
const METRIC_SUMMARY: u8 = 4;
const METRIC_UNTYPED: u8 = 5;
const METRIC_HISTOGRAM: u8 = 7;
const LABEL_NAME: u8 = 1;
const LABEL_VALUE: u8 = 2;
/// Of a counter, a gauge and what is untyped.
const VALUE: u8 = 1;
const COUNTER_START: u8 = 3;
const HISTOGRAM_COUNT: u8 = 1;
const HISTOGRAM_SUM: u8 = 2;
const HISTOGRAM_BUCKET: u8 = 3;
const HISTOGRAM_COUNT_FLOAT: u8 = 4;
const HISTOGRAM_SCHEMA: u8 = 5;
const HISTOGRAM_ZERO_THRESHOLD: u8 = 6;
const HISTOGRAM_ZERO_COUNT: u8 = 7;
const HISTOGRAM_ZERO_COUNT_FLOAT: u8 = 8;
const HISTOGRAM_NEGATIVE: Side = Side { span: 9, delta: 10, count: 11 };
const HISTOGRAM_POSITIVE: Side = Side { span: 12, delta: 13, count: 14 };
const HISTOGRAM_START: u8 = 15;
const SPAN_OFFSET: u8 = 1;
const SPAN_LENGTH: u8 = 2;
const SUMMARY_COUNT: u8 = 1;
const SUMMARY_SUM: u8 = 2;
const SUMMARY_QUANTILE: u8 = 3;
const SUMMARY_START: u8 = 4;
const QUANTILE: u8 = 1;
const QUANTILE_VALUE: u8 = 2;
const BUCKET_COUNT: u8 = 1;
const BUCKET_BOUND: u8 = 2;
const BUCKET_COUNT_FLOAT: u8 = 4;
const TIME_SECONDS: u8 = 1;
const TIME_NANOS: u8 = 2;

/// Where the native buckets of values on one side of 0 stand.
#[derive(Clone, Copy)]
struct Side {
    span: u8,
    delta: u8,
    count: u8,
}

/// What a family is, by its number in `MetricType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter = 0,
    Gauge = 1,
    Summary = 2,
    Untyped = 3,
    Histogram = 4,
}

impl From<Kind> for Type {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter,
            Kind::Gauge | Kind::Set => Self::Gauge,
            Kind::Histogram => Self::Histogram,
            Kind::Summary => Self::Summary,
        }
    }
}

/// The messages of all user series in the making.
#[derive(Debug)]
pub(super) struct UserProtobuf {
    store: Arc<Store>,
    /// The next family and the next of its series, by their places, which never move.
    family: usize,
    series: usize,
    /// The serial number of the family that is being written.
    serial: u64,
}

/// What series are read into; kept for a piece for its memory.
#[derive(Debug, Default)]
struct Scratch {
    counts: Vec<f64>,
    merged: Merged,
}

impl UserProtobuf {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, family: 0, series: 0, serial: 0 }
    }
}

impl Pieces for UserProtobuf {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let end = End::of(out);
        let store = self.store.clone();
        // At a hundred nanoseconds a series a piece holds this lock for less than 100 us.
        let reader = store.read();
        let mut scratch = Scratch::default();
        while let Some(slot) = reader.families().get(self.family) {
            // A family that went between two pieces may have left its place to another, which a later scrape shows
            // whole.
            let family = slot.as_ref().filter(|family| self.series == 0 || family.serial() == self.serial);
            if let Some(family) = family {
                self.serial = family.serial();
                if self.write_series(&reader, family, end, &mut scratch, out) {
                    return true;
                }
            }
            self.family += 1;
            self.series = 0;
        }
        false
    }
}

impl UserProtobuf {
    /// Writes one message with the series that are left of a family, until the `end` of the piece; none if none are.
    /// Says whether that is reached.
    fn write_series(
        &mut self,
        reader: &Reader<'_>,
        family: &Family,
        end: End,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> bool {
        let series = family.series();
        while series.get(self.series).is_some_and(Option::is_none) {
            self.series += 1;
        }
        if self.series >= series.len() {
            return false;
        }
        let mut is_full = false;
        write_family(family.name(), family.help(), family.kind().into(), out, |out| {
            // One at least, or a head at the end of a piece would be a message without a metric.
            while let Some(slot) = series.get(self.series) {
                self.series += 1;
                if let Some(series) = slot {
                    write_user_metric(reader, family, series, scratch, out);
                }
                is_full = end.is_reached(family.shape(), out);
                if is_full {
                    break;
                }
            }
        });
        is_full
    }
}

fn write_user_metric(reader: &Reader<'_>, family: &Family, series: &Series, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let kind = family.kind();
    write_metric(series.labels(), out, |out| match family.shape() {
        Shape::Counter => write_counter(reader.shown(kind, series), reader.made(series), out),
        Shape::Gauge => write_gauge(reader.shown(kind, series), out),
        Shape::Set(set) => write_gauge(reader.members(set, series), out),
        Shape::Histogram(histogram) => write_user_histogram(reader, histogram, series, scratch, out),
        Shape::Summary(summary) => {
            let (count, sum) = reader.summary(summary, series, &mut scratch.merged);
            message(METRIC_SUMMARY, out, |out| {
                uint(SUMMARY_COUNT, count.round() as u64, out);
                double(SUMMARY_SUM, sum, out);
                for (quantile, _) in summary.quantiles() {
                    message(SUMMARY_QUANTILE, out, |out| {
                        double(QUANTILE, quantile, out);
                        double(QUANTILE_VALUE, scratch.merged.quantile(summary.layout(), quantile), out);
                    });
                }
                write_time(SUMMARY_START, reader.made(series), out);
            });
        }
    });
}

/// Appends a histogram with its native buckets, if it has any.
///
/// A sample may come in while it is read. Prometheus refuses a native histogram whose count is not the sum of its
/// buckets, so these are read first and make the count, and the classic ones, which then hold no less, are cut to it.
fn write_user_histogram(
    reader: &Reader<'_>,
    histogram: &Histogram,
    series: &Series,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let Scratch { counts, merged } = scratch;
    reader.native(histogram, series, merged);
    let sum = reader.histogram(histogram, series, counts);
    let classic: f64 = counts.iter().sum();
    let total = if histogram.native.is_some() { merged.weight() } else { classic };
    let mut below = 0.0;
    let bounds = histogram.bounds.upper().iter().copied().chain([f64::INFINITY]);
    let buckets = bounds.zip(&*counts).map(|(bound, count)| {
        below += count;
        (bound, if bound.is_finite() { f64::min(below, total) } else { total })
    });
    write_histogram_with(total, sum, buckets, reader.made(series), out, |out| {
        if let Some(layout) = &histogram.native {
            write_native(grid::schema(merged.halvings(layout)), merged.bins(), out);
        }
    });
}

/// Appends the fields of native buckets, sorted by key. Their counts are whole numbers or, if one of them is not,
/// doubles.
fn write_native(schema: i32, bins: &[Bin], out: &mut Vec<u8>) {
    let total: f64 = bins.iter().map(|bin| bin.weight).sum();
    // From 2^53 on a double is no longer exact, and a sum of many no longer the sum of its parts.
    let whole = total < (1_u64 << 53) as f64 && bins.iter().all(|bin| bin.weight.trunc() == bin.weight);
    let zero = bins.iter().find(|bin| bin.key == 0).map_or(0.0, |bin| bin.weight);
    sint(HISTOGRAM_SCHEMA, schema.into(), out);
    double(HISTOGRAM_ZERO_THRESHOLD, grid::ZERO, out);
    if whole {
        uint(HISTOGRAM_ZERO_COUNT, zero as u64, out);
    } else {
        double(HISTOGRAM_ZERO_COUNT_FLOAT, zero, out);
        // Readers go by this one to tell that all are doubles. If the count is no whole number, it is there already.
        if total.round() as u64 as f64 == total {
            double(HISTOGRAM_COUNT_FLOAT, total, out);
        }
    }
    // Negative ones come largest first, and are told by their size.
    write_side(HISTOGRAM_NEGATIVE, bins.iter().rev().filter(|bin| bin.key < 0), whole, out);
    write_side(HISTOGRAM_POSITIVE, bins.iter().filter(|bin| bin.key > 0), whole, out);
}

/// Appends the buckets of one side by index: spans of those that stand in a row, each told by how far it is from the
/// one before; then their counts, whole ones by what they differ from the one before.
fn write_side<'a>(side: Side, bins: impl Iterator<Item = &'a Bin> + Clone, whole: bool, out: &mut Vec<u8>) {
    let indexes = bins.clone().filter_map(|bin| grid::index(bin.key));
    let (mut next, mut span) = (0, None::<(i32, u64)>);
    let write = |(offset, length): (i32, u64), out: &mut Vec<u8>| {
        message(side.span, out, |out| {
            sint(SPAN_OFFSET, offset.into(), out);
            uint(SPAN_LENGTH, length, out);
        });
    };
    for index in indexes {
        span = match span {
            Some((offset, length)) if index == next => Some((offset, length + 1)),
            before => {
                before.into_iter().for_each(|span| write(span, out));
                Some((index - next, 1))
            }
        };
        next = index + 1;
    }
    span.into_iter().for_each(|span| write(span, out));
    let mut before = 0;
    for bin in bins {
        if whole {
            let count = bin.weight as i64;
            sint(side.delta, count - before, out);
            before = count;
        } else {
            double(side.count, bin.weight, out);
        }
    }
}

/// Appends one delimited family with the metrics that `metrics` writes.
pub(super) fn write_family(name: &str, help: &str, kind: Type, out: &mut Vec<u8>, metrics: impl FnOnce(&mut Vec<u8>)) {
    delimited(out, |out| {
        bytes(FAMILY_NAME, name.as_bytes(), out);
        bytes(FAMILY_HELP, help.as_bytes(), out);
        uint(FAMILY_TYPE, kind as u64, out);
        metrics(out);
    });
}

/// Appends one metric of a family, with `labels` as they stand between braces and the value that `value` writes.
#[inline]
pub(super) fn write_metric(labels: &str, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    message(FAMILY_METRIC, out, |out| {
        write_labels(labels, out);
        value(out);
    });
}

/// Appends a label for each in rendered text. The search for delimiters is half of what a series costs here.
#[inline]
fn write_labels(labels: &str, out: &mut Vec<u8>) {
    let mut rest = labels.as_bytes();
    while let Some(equals) = memchr(b'=', rest) {
        let (name, quoted) = (&rest[..equals], rest.get(equals + 2..).unwrap_or_default());
        let (mut end, mut escapes) = (0, false);
        while let Some(at) = memchr2(b'"', b'\\', quoted.get(end..).unwrap_or_default()) {
            end += at;
            if quoted[end] == b'"' {
                break;
            }
            escapes = true;
            end += 2;
        }
        let value = quoted.get(..end).unwrap_or(quoted);
        message(METRIC_LABEL, out, |out| {
            bytes(LABEL_NAME, name, out);
            match escapes {
                false => bytes(LABEL_VALUE, value, out),
                true => message(LABEL_VALUE, out, |out| unescape(value, out)),
            }
        });
        // Behind the quote and the comma.
        rest = quoted.get(end + 2..).unwrap_or_default();
    }
}

/// Appends the counter of a metric; `start` is the time since 1970 when it was 0.
#[inline]
pub(super) fn write_counter(value: f64, start: Duration, out: &mut Vec<u8>) {
    message(METRIC_COUNTER, out, |out| {
        double(VALUE, value, out);
        write_time(COUNTER_START, start, out);
    });
}

/// Appends the gauge of a metric.
#[inline]
pub(super) fn write_gauge(value: f64, out: &mut Vec<u8>) {
    message(METRIC_GAUGE, out, |out| double(VALUE, value, out));
}

/// Appends the untyped value of a metric.
pub(super) fn write_untyped(value: f64, out: &mut Vec<u8>) {
    message(METRIC_UNTYPED, out, |out| double(VALUE, value, out));
}

/// Appends the classic histogram of a metric: `buckets` are bounds with cumulative counts, `+Inf` the last of them.
pub(super) fn write_histogram(
    count: f64,
    sum: f64,
    buckets: impl Iterator<Item = (f64, f64)>,
    start: Duration,
    out: &mut Vec<u8>,
) {
    write_histogram_with(count, sum, buckets, start, out, |_| {});
}

/// The same, with the fields that `native` writes.
fn write_histogram_with(
    count: f64,
    sum: f64,
    buckets: impl Iterator<Item = (f64, f64)>,
    start: Duration,
    out: &mut Vec<u8>,
    native: impl FnOnce(&mut Vec<u8>),
) {
    message(METRIC_HISTOGRAM, out, |out| {
        write_count(HISTOGRAM_COUNT, HISTOGRAM_COUNT_FLOAT, count, out);
        double(HISTOGRAM_SUM, sum, out);
        for (bound, count) in buckets {
            message(HISTOGRAM_BUCKET, out, |out| {
                write_count(BUCKET_COUNT, BUCKET_COUNT_FLOAT, count, out);
                double(BUCKET_BOUND, bound, out);
            });
        }
        native(out);
        write_time(HISTOGRAM_START, start, out);
    });
}

/// Appends a count as the nearest whole number, and as it is if that is another: some readers know the one field alone.
#[inline]
fn write_count(whole: u8, exact: u8, count: f64, out: &mut Vec<u8>) {
    let rounded = count.round() as u64;
    uint(whole, rounded, out);
    if rounded as f64 != count {
        double(exact, count, out);
    }
}

fn write_time(field: u8, since_1970: Duration, out: &mut Vec<u8>) {
    message(field, out, |out| {
        uint(TIME_SECONDS, since_1970.as_secs(), out);
        uint(TIME_NANOS, since_1970.subsec_nanos().into(), out);
    });
}

/// Appends a label value without the escapes of text.
fn unescape(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1) {
            Some(b'n') => out.push(b'\n'),
            Some(escaped) => out.push(*escaped),
            None => return,
        }
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
}

/// The most bytes of one series, and of its family's name and help around it, which go out as a message of their own at
/// the end of a piece: of a name, a help text, rendered labels and so many labels, and a value of so many bytes.
pub fn most_metric_bytes(name: usize, help: usize, text: usize, labels: usize, value: usize) -> usize {
    // A length takes three bytes at most, as no message is longer than two megabytes; a label has three of them, and
    // the text has four bytes for each label that are not written.
    const FIELDS: usize = 192;
    name + help + text + 8 * labels + value + FIELDS
}

/// The most bytes of the buckets or quantiles of a series.
pub fn most_observer_bytes(observation: &Observation) -> usize {
    // A key and a length, two doubles and a count. What they are read into lives no longer than a piece is made.
    const BUCKET: usize = 2 + 9 + 9 + 11;
    // A span for each, and a count.
    const NATIVE: usize = 2 + 6 + 11 + 11;
    match observation {
        Observation::Histogram { bounds, native_factor, native_max_buckets } => {
            let most = usize::try_from(*native_max_buckets).unwrap_or(usize::MAX);
            let most = most.clamp(bins::WIDEST.into(), bins::MOST.into());
            let native = if *native_factor > 1.0 { most * NATIVE } else { 0 };
            (bounds.len() + 1) * BUCKET + native
        }
        Observation::Summary { quantiles, .. } => quantiles.len() * BUCKET,
    }
}

#[cfg(test)]
mod tests;
