//! Reads what a sidecar exposes.
//!
//! In: text 0.0.4 over HTTP, and the JSON of `/api/v1/status`. Out: [`Scrape`] and [`State`].

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::super::fetch::Get;

/// Longest wait for a part of an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of an answer: ten million series.
const MOST_BYTES: u64 = 2 << 30;

/// Where a sidecar serves HTTP.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// `host:port`.
    pub(super) address: String,
    /// Of the exposition.
    pub(super) path: String,
}

/// One exposition.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    /// By name and labels, these in order of their names.
    samples: HashMap<String, f64>,
    /// Cumulative buckets by name and the labels other than `le`.
    buckets: HashMap<String, Vec<(f64, f64)>>,
}

/// What `/api/v1/status` says, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) lines: u64,
    /// Recorded, or dropped.
    pub(super) booked: u64,
    pub(super) queue_fill: f64,
    pub(super) queue_bytes: u64,
    /// The least of all workers.
    pub(super) sampling_rate: f64,
    pub(super) resident_bytes: u64,
}

impl Source {
    fn get(&self, path: &str, accept: &str) -> io::Result<Vec<u8>> {
        let get = Get {
            address: &self.address,
            path,
            accept,
            credentials: "",
            tls: None,
            timeout: TIMEOUT,
            most_bytes: MOST_BYTES,
        };
        match get.send()? {
            (200, body) => Ok(body),
            (status, _) => Err(io::Error::other(format!("{}{path} answers {status}", self.address))),
        }
    }

    /// The exposition now.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub(super) fn scrape(&self) -> io::Result<Scrape> {
        let text = String::from_utf8(self.get(&self.path, "text/plain;version=0.0.4")?).map_err(io::Error::other)?;
        Scrape::read(&text).ok_or_else(|| io::Error::other(format!("{}{} is no exposition", self.address, self.path)))
    }

    /// How it fares now.
    ///
    /// # Errors
    /// If it does not say.
    pub(super) fn state(&self) -> io::Result<State> {
        let status: Value = serde_json::from_slice(&self.get("/api/v1/status", "")?).map_err(io::Error::other)?;
        let whole = |pointer| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let rates = status.pointer("/sampling/rates").and_then(Value::as_array);
        let least = rates.into_iter().flatten().filter_map(Value::as_f64).fold(1.0, f64::min);
        Ok(State {
            lines: whole("/ledger/lines"),
            booked: whole("/ledger/recorded") + whole("/ledger/dropped"),
            queue_fill: status.pointer("/queue/fill").and_then(Value::as_f64).unwrap_or(0.0),
            queue_bytes: whole("/queue/bytes"),
            sampling_rate: least,
            resident_bytes: whole("/memory/resident_bytes"),
        })
    }
}

impl Scrape {
    /// Reads text 0.0.4; `None` if a line is no sample.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let end = line.find(['{', ' '])?;
            let (name, rest) = line.split_at(end);
            let (mut labels, rest) = match rest.strip_prefix('{') {
                Some(rest) => read_labels(rest)?,
                None => (Vec::new(), rest),
            };
            let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
            labels.sort_unstable();
            let le = labels.iter().position(|(label, _)| *label == "le").filter(|_| name.ends_with("_bucket"));
            let bound = le.map(|place| labels.remove(place).1);
            let key = write_key(name, &labels);
            match bound {
                Some(bound) => scrape.buckets.entry(key).or_default().push((bound.parse().ok()?, value)),
                None => {
                    scrape.samples.insert(key, value);
                }
            }
        }
        Some(scrape)
    }

    /// The value of a series.
    pub(super) fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Observations up to `bound`.
    pub(super) fn bucket(&self, series: &str, bound: f64) -> Option<f64> {
        self.buckets.get(series)?.iter().find(|(le, _)| *le == bound).map(|(_, count)| *count)
    }

    /// Cumulative buckets of a series, in the order of the exposition.
    pub(super) fn buckets(&self, series: &str) -> &[(f64, f64)] {
        self.buckets.get(series).map_or(&[], Vec::as_slice)
    }

    /// Every series of a name: its labels as text, and its value.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.samples.iter().filter_map(move |(series, value)| Some((labels_of(series, name)?, *value)))
    }

    /// Sums of all series, and of all buckets under their bound in brackets, by name.
    pub(super) fn by_family(&self) -> HashMap<String, f64> {
        let mut sums: HashMap<String, f64> = HashMap::new();
        let name_of = |series: &'_ str| series[..series.find('{').unwrap_or(series.len())].to_owned();
        for (series, value) in &self.samples {
            *sums.entry(name_of(series)).or_default() += value;
        }
        for (series, buckets) in &self.buckets {
            for (bound, count) in buckets {
                *sums.entry(bucket_key(&name_of(series), *bound)).or_default() += count;
            }
        }
        sums
    }
}

/// How a bucket of a family is called among the sums.
pub(super) fn bucket_key(name: &str, bound: f64) -> String {
    format!("{name}{{le=\"{bound}\"}}")
}

/// The labels of a series if it has that name.
fn labels_of<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    series.strip_prefix(name).filter(|labels| labels.is_empty() || labels.starts_with('{'))
}

/// Labels up to the closing brace, values as they stand (escaped), and what follows.
fn read_labels(mut rest: &str) -> Option<(Vec<(&str, &str)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = after.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        labels.push((name, &after[..end]));
        rest = after[end + 1..].trim_start_matches(',');
    }
}

/// A series as both sides of the comparison call it: labels in the order given.
pub(super) fn write_key(name: &str, labels: &[(&str, &str)]) -> String {
    let mut key = String::with_capacity(name.len() + 32);
    key.push_str(name);
    for (place, (label, value)) in labels.iter().enumerate() {
        key.push(if place == 0 { '{' } else { ',' });
        key.push_str(label);
        key.push_str("=\"");
        key.push_str(value);
        key.push('"');
    }
    if !labels.is_empty() {
        key.push('}');
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_keyed_by_name_and_labels_in_order_and_buckets_by_their_bound() {
        let text = "# TYPE a counter\na_total 3\na_total{z=\"1\",b=\"q\\\"}, \\\\\"} 1e3 17\n\
                    h_bucket{k=\"v\",le=\"0.5\"} 2\nh_bucket{k=\"v\",le=\"+Inf\"} 4\n";
        let scrape = Scrape::read(text).unwrap();
        assert_eq!(scrape.get("a_total"), Some(3.0));
        assert_eq!(scrape.get("a_total{b=\"q\\\"}, \\\\\",z=\"1\"}"), Some(1000.0));
        assert_eq!(scrape.buckets("h_bucket{k=\"v\"}"), [(0.5, 2.0), (f64::INFINITY, 4.0)]);
        assert_eq!(scrape.bucket("h_bucket{k=\"v\"}", 0.5), Some(2.0));
        assert_eq!(scrape.of("a_total").count(), 2);
        let sums = scrape.by_family();
        assert_eq!((sums["a_total"], sums[&bucket_key("h_bucket", 0.5)]), (1003.0, 2.0));
        assert!(Scrape::read("<html>").is_none());
    }
}
