//! What `/metrics` has to say after some traffic, worked out while the traffic is made.
//!
//! In: what each line is meant to be (never its bytes), and later how often each datagram was sent. Out: totals by
//! series.
//! Not here: parsing. This knows the README's rules on names, units, user buckets and rates under the default
//! configuration, and shares no code with the stages that it judges.
//! Always: values are whole numbers or fractions of a power of two, small enough that every sum is exact.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh64::xxh64;

use super::scrape::write_key;

/// Upper bounds of the histograms of the default configuration; `+Inf` follows.
pub(super) const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// User buckets of the default configuration.
const BUCKETS: u64 = 100;

/// No user is named on the line.
const NOBODY: u32 = u32::MAX;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Timer,
    Histogram,
    Set,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Counter, Self::Gauge, Self::Timer, Self::Histogram, Self::Set];

    /// How lines say it.
    pub(super) fn letters(self) -> &'static str {
        ["c", "g", "ms", "h", "s"][self as usize]
    }

    /// How `statsieve_samples_recorded_total` says it.
    pub(super) fn label(self) -> &'static str {
        ["counter", "gauge", "timer", "histogram", "set"][self as usize]
    }

    pub(super) fn is_observed(self) -> bool {
        matches!(self, Self::Timer | Self::Histogram)
    }

    /// Whether load may thin it out.
    pub(super) fn is_thinned(self) -> bool {
        self == Self::Counter || self.is_observed()
    }
}

/// One line of one value, before it becomes text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) kind: Kind,
    /// As it is sent, parts set apart by dots.
    pub(super) name: &'a str,
    /// As it is sent: milliseconds of a timer, the number of a member of a set.
    pub(super) value: f64,
    /// Of 1 where the client did not sample.
    pub(super) rate: f64,
    pub(super) tags: &'a [(&'a str, &'a str)],
    /// The tag `user_id`.
    pub(super) user: Option<u32>,
}

/// A name with labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) family: String,
    /// `{a="b"}` in order of their names, or nothing.
    pub(super) labels: String,
    pub(super) kind: Kind,
}

/// What a line adds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    series: u32,
    user: u32,
    /// To a counter or the sum of observations; a gauge's value; a member.
    amount: f64,
    /// Observations it stands for.
    weight: f64,
}

/// All lines that were made, by what they add.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    series: Vec<Series>,
    index: HashMap<String, u32>,
    entries: Vec<Entry>,
}

/// What one series, or several together, must come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Total {
    pub(super) lines: u64,
    /// Of a counter, or of observations.
    pub(super) sum: f64,
    /// Observations.
    pub(super) count: f64,
    /// Squares of what single lines add to sum and count, summed, for the error that thinning out has; the largest of
    /// each.
    pub(super) squares: [f64; 2],
    pub(super) largest: [f64; 2],
    /// A gauge's last value, and the least and the greatest it had.
    pub(super) last: f64,
    pub(super) range: [f64; 2],
    /// Observations up to each of [`BOUNDS`].
    pub(super) buckets: [f64; BOUNDS.len()],
    pub(super) members: HashSet<u64>,
}

/// What all series must come to.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    /// Those that were sent at least once.
    pub(super) series: Vec<(&'a Series, Total)>,
    /// Different users.
    pub(super) users: u64,
}

impl Oracle {
    /// Takes note of a line.
    pub(super) fn add(&mut self, line: &Line<'_>) {
        let key = key_of(line);
        let series = *self.index.entry(key).or_insert_with_key(|key| {
            let (family, labels) = key.split_at(key.find('{').unwrap_or(key.len()));
            self.series.push(Series { family: family.to_owned(), labels: labels.to_owned(), kind: line.kind });
            self.series.len() as u32 - 1
        });
        let amount = match line.kind {
            Kind::Counter => line.value / line.rate,
            // Seconds are exposed; a line that stands for several adds its value as often.
            Kind::Timer => line.value / 1000.0 / line.rate,
            Kind::Histogram => line.value / line.rate,
            Kind::Gauge | Kind::Set => line.value,
        };
        let user = line.user.unwrap_or(NOBODY);
        self.entries.push(Entry { series, user, amount, weight: 1.0 / line.rate });
    }

    /// Totals for lines that were sent `times(line)` times, in the order in which `lines` names them at last.
    pub(super) fn expect(&self, lines: impl Iterator<Item = (usize, u64)>) -> Expected<'_> {
        let mut totals = vec![Total::default(); self.series.len()];
        let mut users = HashSet::new();
        for (line, times) in lines.filter(|(_, times)| *times > 0) {
            let entry = self.entries[line];
            totals[entry.series as usize].add(self.series[entry.series as usize].kind, &entry, times);
            if entry.user != NOBODY {
                users.insert(entry.user);
            }
        }
        let sent = self.series.iter().zip(totals).filter(|(_, total)| total.lines > 0);
        Expected { series: sent.collect(), users: users.len() as u64 }
    }
}

impl Total {
    fn add(&mut self, kind: Kind, entry: &Entry, times: u64) {
        let first = self.lines == 0;
        self.lines += times;
        let often = times as f64;
        match kind {
            Kind::Gauge => {
                self.last = entry.amount;
                let [low, high] = if first { [entry.amount; 2] } else { self.range };
                self.range = [low.min(entry.amount), high.max(entry.amount)];
            }
            Kind::Set => {
                self.members.insert(entry.amount as u64);
            }
            Kind::Counter | Kind::Timer | Kind::Histogram => {
                self.sum += entry.amount * often;
                self.count += entry.weight * often;
                for (place, part) in [entry.amount, entry.weight].into_iter().enumerate() {
                    self.squares[place] += part * part * often;
                    self.largest[place] = self.largest[place].max(part);
                }
                if kind.is_observed() {
                    let value = entry.amount / entry.weight;
                    for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
                        *bucket += if value <= bound { entry.weight * often } else { 0.0 };
                    }
                }
            }
        }
    }

    /// Puts another series of the same family beside it.
    pub(super) fn merge(&mut self, other: &Self) {
        self.lines += other.lines;
        self.sum += other.sum;
        self.count += other.count;
        for place in 0..2 {
            self.squares[place] += other.squares[place];
            self.largest[place] = self.largest[place].max(other.largest[place]);
        }
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.members.extend(&other.members);
    }
}

/// Name and labels that a line gets under the default configuration.
fn key_of(line: &Line<'_>) -> String {
    let mut name = line.name.replace('.', "_");
    match line.kind {
        Kind::Counter if !name.ends_with("_total") => name.push_str("_total"),
        Kind::Timer if !name.ends_with("_seconds") => name.push_str("_seconds"),
        _ => {}
    }
    let bucket;
    let mut labels: Vec<(&str, &str)> =
        line.tags.iter().copied().filter(|(tag, _)| !["message_id", "update_id"].contains(tag)).collect();
    // Observations lose the user: a histogram for each bucket would cost too much.
    if let Some(user) = line.user.filter(|_| !line.kind.is_observed()) {
        bucket = format!("bucket_{}", xxh64(user.to_string().as_bytes(), 0) % BUCKETS);
        labels.push(("user_bucket", &bucket));
    }
    labels.sort_unstable();
    write_key(&name, &labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(kind: Kind, name: &'a str, value: f64, tags: &'a [(&'a str, &'a str)]) -> Line<'a> {
        Line { kind, name, value, rate: 1.0, tags, user: None }
    }

    #[test]
    fn names_and_labels_are_those_of_the_readme() {
        let tags = [("type", "message"), ("message_id", "5"), ("result", "ok")];
        assert_eq!(
            key_of(&line(Kind::Counter, "bot.updates", 1.0, &tags)),
            "bot_updates_total{result=\"ok\",type=\"message\"}"
        );
        assert_eq!(key_of(&line(Kind::Timer, "bot.api.latency", 1.0, &[])), "bot_api_latency_seconds");
        assert_eq!(key_of(&line(Kind::Gauge, "bot.queue.size", 1.0, &[])), "bot_queue_size");
        let user = Line { user: Some(42), ..line(Kind::Counter, "bot.messages", 1.0, &[]) };
        // The README computes this bucket by a one-liner in Python.
        assert_eq!(key_of(&user), "bot_messages_total{user_bucket=\"bucket_1\"}");
        assert_eq!(key_of(&Line { kind: Kind::Histogram, ..user }), "bot_messages");
    }

    #[test]
    fn totals_are_those_of_a_calculation_by_hand() {
        let mut oracle = Oracle::default();
        oracle.add(&line(Kind::Counter, "a", 3.0, &[]));
        oracle.add(&Line { rate: 0.1, user: Some(7), ..line(Kind::Counter, "a", 2.0, &[]) });
        oracle.add(&Line { rate: 0.5, ..line(Kind::Timer, "t", 250.0, &[]) });
        oracle.add(&line(Kind::Timer, "t", 15.625, &[]));
        oracle.add(&line(Kind::Gauge, "g", 4.0, &[]));
        oracle.add(&line(Kind::Gauge, "g", 9.0, &[]));
        oracle.add(&line(Kind::Set, "s", 11.0, &[]));
        oracle.add(&line(Kind::Set, "s", 12.0, &[]));
        oracle.add(&line(Kind::Counter, "never", 1.0, &[]));
        // Cut off in the second round, behind the fifth line.
        let order = (5..9).map(|line| (line, 1)).chain((0..5).map(|line| (line, 2)));
        let expected = oracle.expect(order.filter(|(line, _)| *line != 8));
        let of = |family: &str| &expected.series.iter().find(|(series, _)| series.family == family).unwrap().1;
        assert_eq!(expected.users, 1);
        assert_eq!(expected.series.len(), 5, "a series of its own for the user's bucket, none for what was not sent");
        assert_eq!((of("a_total").lines, of("a_total").sum), (2, 6.0));
        let bucketed = expected.series.iter().find(|(series, _)| !series.labels.is_empty()).unwrap();
        assert_eq!(bucketed.1.sum, 40.0, "two lines of 2 at a rate of 0.1");
        let t = of("t_seconds");
        assert_eq!((t.sum, t.count), (2.0 * 0.5 + 2.0 * 0.015_625, 6.0));
        assert_eq!(t.buckets[..6], [0.0, 0.0, 2.0, 2.0, 2.0, 6.0], "a value on a bound belongs to it");
        assert_eq!((of("g").last, of("g").range, of("g").lines), (4.0, [4.0, 9.0], 3));
        assert_eq!(of("s").members.len(), 2);
    }
}
