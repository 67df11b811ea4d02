//! Compares what a sidecar exposes with what it was sent.
//!
//! In: the oracle's totals, what was sent, two expositions and the ledger between them. Out: [`Verification`].
//! Always: without loss every number must be equal. What was thinned out must be within so many standard errors; what
//! the kernel or a quota took must be in the ledger, line for line, and sums can then only be less.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::measure::Ledger;
use super::oracle::{BOUNDS, Expected, Kind, Total};
use super::scrape::{Scrape, bucket_key};
use super::send::Sent;

/// Standard errors that an estimate may be off.
const ERRORS: f64 = 5.0;
const SKETCH_ERRORS: f64 = 4.0;

/// Relative standard error of estimates of distinct values, by the default number of registers.
const SKETCH_ERROR: f64 = 1.04 / 32.0;

/// Reasons for which good lines may be dropped: by intent, or at a limit.
const ALLOWED: [&str; 3] = ["sampled", "rate_limited", "cardinality"];

/// Differences told; the others are counted.
const MOST_TOLD: usize = 20;

/// A number that is not what it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Mismatch {
    pub(super) series: String,
    pub(super) expected: String,
    pub(super) found: String,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Verification {
    pub(super) verified: bool,
    /// Numbers compared.
    pub(super) compared: u64,
    /// Those that differ; the first of them in `mismatches`.
    pub(super) differing: u64,
    pub(super) mismatches: Vec<Mismatch>,
    /// Why some could not be compared one by one, or not exactly.
    pub(super) notes: Vec<String>,
    /// Of what was thinned out: the largest error of a family's sum or count, in standard errors.
    pub(super) largest_error: Option<f64>,
}

/// What is compared.
pub(super) struct Run<'a> {
    pub(super) expected: &'a Expected<'a>,
    pub(super) sent: Sent,
    /// Fewest and most lines of a datagram.
    pub(super) lines_in_a_datagram: (u32, u32),
    pub(super) before: &'a Scrape,
    pub(super) after: &'a Scrape,
    pub(super) ledger: &'a Ledger,
    /// The `listener` label.
    pub(super) listener: &'static str,
    /// The lowest sampling rate that was seen.
    pub(super) lowest_rate: f64,
}

impl Run<'_> {
    /// Compares everything.
    pub(super) fn verify(&self) -> Verification {
        let mut check = Check { run: self, loss: self.loss(), outcome: Verification::default() };
        check.ledger();
        let families = check.families();
        check.family_totals(&families);
        check.series();
        check.users();
        let mut outcome = check.outcome;
        outcome.verified = outcome.differing == 0;
        outcome
    }

    fn loss(&self) -> Loss {
        let ledger = self.ledger;
        let lost_lines = self.sent.lines.saturating_sub(ledger.lines);
        let sampled = ledger.dropped_for("sampled");
        let thinned = self.expected.series.iter().filter(|(series, _)| series.kind.is_thinned());
        let most: u64 = thinned.map(|(_, total)| total.lines).sum();
        let kept = 1.0 - sampled as f64 / most.max(1) as f64;
        Loss {
            lost_lines,
            sampled,
            cut: lost_lines + ledger.dropped_for("rate_limited") + ledger.dropped_for("cardinality"),
            // The rate that was seen may not have been the lowest, nor have held for long.
            rate: if sampled == 0 { 1.0 } else { self.lowest_rate.min(kept).max(0.001) },
            folded: ledger.values_folded + ledger.overflow_samples + ledger.series_simplified > 0,
        }
    }
}

/// What stands between what was sent and what is exposed.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// Never taken up.
    lost_lines: u64,
    sampled: u64,
    /// Gone without anything that stands for them.
    cut: u64,
    rate: f64,
    folded: bool,
}

struct Check<'a> {
    run: &'a Run<'a>,
    loss: Loss,
    outcome: Verification,
}

impl Check<'_> {
    fn differs(&mut self, series: &str, expected: String, found: String) {
        self.outcome.differing += 1;
        if self.outcome.mismatches.len() < MOST_TOLD {
            self.outcome.mismatches.push(Mismatch { series: series.to_owned(), expected, found });
        }
    }

    fn equal(&mut self, what: &str, expected: u64, found: u64) {
        self.outcome.compared += 1;
        if expected != found {
            self.differs(what, expected.to_string(), found.to_string());
        }
    }

    fn note(&mut self, text: String) {
        self.outcome.notes.push(text);
    }

    /// A sum or a count: equal, or as near as the loss allows. `which` of squares and largest are its own.
    fn number(
        &mut self,
        series: &str,
        expected: f64,
        (before, after): (f64, Option<f64>),
        total: &Total,
        which: usize,
    ) {
        self.outcome.compared += 1;
        let Some(after) = after else {
            // What was lost entirely has no series.
            if self.loss.cut == 0 && self.loss.sampled == 0 {
                self.differs(series, expected.to_string(), "no such series".to_owned());
            }
            return;
        };
        let found = after - before;
        // Of a sidecar that had counted before, the difference of two large numbers.
        let rounding = if before == 0.0 { 0.0 } else { after.abs() * 1e-12 };
        let rate = self.loss.rate;
        let error = (total.squares[which] * (1.0 - rate) / rate).sqrt();
        // Few lines are not normally distributed: some of the largest may be kept by chance.
        let tolerance = if rate < 1.0 { ERRORS * (error + total.largest[which] / rate) } else { 0.0 } + rounding;
        let low = if self.loss.cut > 0 { 0.0 } else { expected - tolerance };
        let high = expected + tolerance;
        if (low..=high).contains(&found) {
            return;
        }
        let expected = if low == high { expected.to_string() } else { format!("{low:.3} to {high:.3}") };
        self.differs(series, expected, found.to_string());
    }

    /// What was sent is what was taken, lost and dropped.
    fn ledger(&mut self) {
        let Run { sent, ledger, lines_in_a_datagram: (fewest, most), listener, .. } = *self.run;
        let Loss { lost_lines, sampled, .. } = self.loss;
        let kernel = ledger.kernel_dropped_datagrams;
        if ["udp", "unix_datagram"].contains(&listener) {
            self.equal("datagrams taken, and dropped by the kernel", sent.datagrams, ledger.datagrams + kernel);
        }
        self.outcome.compared += 1;
        let lost = kernel * u64::from(fewest)..=kernel * u64::from(most);
        if ledger.lines > sent.lines {
            self.differs("statsieve_lines_total", sent.lines.to_string(), format!("{}: who else sends?", ledger.lines));
        } else if !lost.contains(&lost_lines) {
            let expected = format!("{} to {}", sent.lines - lost.end().min(&sent.lines), sent.lines - lost.start());
            self.differs("statsieve_lines_total", expected, ledger.lines.to_string());
        }
        self.equal("samples recorded and dropped", ledger.lines, ledger.recorded() + ledger.dropped());
        for (reason, count) in &ledger.dropped {
            if !ALLOWED.contains(&reason.as_str()) {
                self.equal(&format!("statsieve_samples_dropped_total{{reason=\"{reason}\"}}"), 0, *count);
            }
        }
        if self.loss.cut == 0 && sampled == 0 {
            for kind in Kind::ALL {
                let of_kind = self.run.expected.series.iter().filter(|(series, _)| series.kind == kind);
                let lines = of_kind.map(|(_, total)| total.lines).sum();
                let recorded = ledger.recorded.get(kind.label()).copied().unwrap_or(0);
                self.equal(&format!("statsieve_samples_recorded_total{{type=\"{}\"}}", kind.label()), lines, recorded);
            }
        }
        if kernel > 0 {
            self.note(format!(
                "the kernel dropped {kernel} datagrams with {lost_lines} lines: \
                 sums can only be compared with what was sent as the most"
            ));
        }
        if sampled > 0 {
            let rate = self.loss.rate;
            self.note(format!(
                "{sampled} lines were thinned out at rates of {rate:.3} and more: \
                 sums and counts are compared within {ERRORS} standard errors"
            ));
        }
        for reason in &ALLOWED[1..] {
            let count = ledger.dropped_for(reason);
            if count > 0 {
                self.note(format!("{count} samples were dropped as {reason}: sums can only be less"));
            }
        }
        if self.loss.folded {
            self.note(format!(
                "limits folded {} label values, simplified {} series and sent {} samples to overflow series: \
                 counters and observations are compared by family",
                ledger.values_folded, ledger.series_simplified, ledger.overflow_samples
            ));
        }
        if ledger.series_expired > 0 {
            self.note(format!("{} series expired meanwhile, and took their totals along", ledger.series_expired));
        }
    }

    /// Totals of counters and observations by name.
    fn families(&self) -> BTreeMap<String, (Kind, Total)> {
        let mut families: BTreeMap<String, (Kind, Total)> = BTreeMap::new();
        for (series, total) in self.run.expected.series.iter().filter(|(series, _)| series.kind.is_thinned()) {
            let entry = families.entry(series.family.clone()).or_insert_with(|| (series.kind, Total::default()));
            entry.1.merge(total);
        }
        families
    }

    fn family_totals(&mut self, families: &BTreeMap<String, (Kind, Total)>) {
        let (before, after) = (self.run.before.by_family(), self.run.after.by_family());
        let pair = |name: &str| (before.get(name).copied().unwrap_or(0.0), after.get(name).copied());
        for (family, (kind, total)) in families {
            let all = |name: &str| format!("sum({name})");
            if *kind == Kind::Counter {
                self.number(&all(family), total.sum, pair(family), total, 0);
                self.error_of(pair(family), total.sum, total.squares[0]);
                continue;
            }
            let (sum, count, bucket) = (format!("{family}_sum"), format!("{family}_count"), format!("{family}_bucket"));
            self.number(&all(&sum), total.sum, pair(&sum), total, 0);
            self.number(&all(&count), total.count, pair(&count), total, 1);
            self.error_of(pair(&count), total.count, total.squares[1]);
            for (bound, expected) in buckets_of(total) {
                let key = bucket_key(&bucket, bound);
                self.number(&all(&key), expected, pair(&key), total, 1);
            }
        }
    }

    /// Keeps the largest error of what was thinned out.
    fn error_of(&mut self, (before, after): (f64, Option<f64>), expected: f64, squares: f64) {
        let rate = self.loss.rate;
        let error = (squares * (1.0 - rate) / rate).sqrt();
        if rate < 1.0 && self.loss.cut == 0 && error > 0.0 {
            let off = (after.unwrap_or(0.0) - before - expected).abs() / error;
            self.outcome.largest_error = Some(self.outcome.largest_error.map_or(off, |largest| largest.max(off)));
        }
    }

    fn series(&mut self) {
        let run = self.run;
        let values = |series: &str| (run.before.get(series).unwrap_or(0.0), run.after.get(series));
        for (series, total) in &run.expected.series {
            let (family, labels) = (&series.family, &series.labels);
            let whole = format!("{family}{labels}");
            match series.kind {
                Kind::Gauge => self.gauge(&whole, total),
                Kind::Set => self.estimate(&whole, total.members.len() as u64),
                _ if self.loss.folded => {}
                Kind::Counter => self.number(&whole, total.sum, values(&whole), total, 0),
                Kind::Timer | Kind::Histogram => {
                    let sum = format!("{family}_sum{labels}");
                    self.number(&sum, total.sum, values(&sum), total, 0);
                    let count = format!("{family}_count{labels}");
                    self.number(&count, total.count, values(&count), total, 1);
                    let key = format!("{family}_bucket{labels}");
                    for (bound, expected) in buckets_of(total) {
                        let pair = (run.before.bucket(&key, bound).unwrap_or(0.0), run.after.bucket(&key, bound));
                        self.number(&format!("{key} le=\"{bound}\""), expected, pair, total, 1);
                    }
                }
            }
        }
        if !self.loss.folded {
            self.strangers();
        }
    }

    /// Counters that nobody sent make sums right that are not.
    fn strangers(&mut self) {
        let run = self.run;
        let mut known: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for (series, _) in run.expected.series.iter().filter(|(series, _)| series.kind == Kind::Counter) {
            known.entry(&series.family).or_default().insert(&series.labels);
        }
        for (family, labels) in known {
            let grown = |(found, value): &(&str, f64)| run.before.get(&format!("{family}{found}")) != Some(*value);
            let unknown = run.after.of(family).filter(|(found, value)| *value != 0.0 && !labels.contains(found));
            let unknown: Vec<(&str, f64)> = unknown.filter(grown).collect();
            for (found, value) in unknown {
                self.differs(&format!("{family}{found}"), "no such series".to_owned(), value.to_string());
            }
        }
    }

    /// A gauge has its last value; if lines are gone, one between the least and the greatest.
    fn gauge(&mut self, series: &str, total: &Total) {
        self.outcome.compared += 1;
        let found = self.run.after.get(series);
        let [low, high] = total.range;
        let right = match found {
            _ if self.loss.cut == 0 => found == Some(total.last),
            Some(value) => (low..=high).contains(&value),
            None => true,
        };
        if !right {
            let expected = if self.loss.cut == 0 { total.last.to_string() } else { format!("{low} to {high}") };
            self.differs(series, expected, found.map_or("no such series".to_owned(), |value| value.to_string()));
        }
    }

    /// Different values, by a sketch that may have seen others before.
    fn estimate(&mut self, series: &str, expected: u64) {
        self.outcome.compared += 1;
        let expected = expected as f64;
        let before = self.run.before.get(series).unwrap_or(0.0);
        let tolerance = |distinct: f64| SKETCH_ERRORS * SKETCH_ERROR * distinct + 1.0;
        let least = if self.loss.cut > 0 || self.loss.sampled > 0 { 0.0 } else { expected - tolerance(expected) };
        let most = before + expected + tolerance(before + expected);
        let found = self.run.after.get(series);
        let right = found.map_or(self.loss.cut > 0, |found| (least..=most).contains(&found));
        if !right {
            let found = found.map_or("no such series".to_owned(), |value| value.to_string());
            self.differs(series, format!("{least:.0} to {most:.0}"), found);
        }
    }

    fn users(&mut self) {
        let users = self.run.expected.users;
        if users > 0 {
            self.estimate("statsieve_distinct{tag=\"user_id\",window=\"5m\"}", users);
        }
    }
}

/// Bounds and counts, `+Inf` last.
fn buckets_of(total: &Total) -> impl Iterator<Item = (f64, f64)> {
    BOUNDS.into_iter().zip(total.buckets).chain([(f64::INFINITY, total.count)])
}

#[cfg(test)]
mod tests {
    use super::super::oracle::Series;
    use super::*;

    fn counter(sum: f64, lines: u64) -> (Series, Total) {
        let series = Series { family: "a_total".to_owned(), labels: String::new(), kind: Kind::Counter };
        let squares = [sum, sum];
        (series, Total { lines, sum, count: sum, squares, largest: [1.0; 2], ..Total::default() })
    }

    fn verify(sum: f64, found: &str, ledger: &Ledger, lowest_rate: f64) -> Verification {
        let (series, total) = counter(sum, 100);
        let expected = Expected { series: vec![(&series, total)], users: 0 };
        let before = Scrape::default();
        let after = Scrape::read(found).unwrap();
        let sent = Sent { datagrams: 10, lines: 100, bytes: 1000 };
        let lines_in_a_datagram = (10, 10);
        let (expected, before, after) = (&expected, &before, &after);
        Run { expected, sent, lines_in_a_datagram, before, after, ledger, listener: "udp", lowest_rate }.verify()
    }

    fn ledger(lines: u64, kernel: u64, dropped: &[(&str, u64)]) -> Ledger {
        let dropped: BTreeMap<String, u64> =
            dropped.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        let recorded = lines - dropped.values().sum::<u64>();
        let recorded = [("counter".to_owned(), recorded)].into();
        let datagrams = 10 - kernel;
        Ledger { datagrams, kernel_dropped_datagrams: kernel, lines, recorded, dropped, ..Ledger::default() }
    }

    #[test]
    fn without_loss_every_number_is_equal_or_told() {
        let whole = ledger(100, 0, &[]);
        assert!(verify(100.0, "a_total 100\n", &whole, 1.0).verified);
        let one_short = verify(100.0, "a_total 99\n", &whole, 1.0);
        let names: Vec<&str> = one_short.mismatches.iter().map(|mismatch| mismatch.series.as_str()).collect();
        assert_eq!((one_short.verified, names), (false, vec!["sum(a_total)", "a_total"]));
        let elsewhere = verify(100.0, "a_total 100\na_total{x=\"y\"} 1\n", &whole, 1.0);
        assert!(!elsewhere.verified);
        assert!(!verify(100.0, "b_total 100\n", &whole, 1.0).verified);
    }

    #[test]
    fn what_is_lost_has_to_be_in_the_ledger() {
        assert!(verify(100.0, "a_total 90\n", &ledger(90, 1, &[]), 1.0).verified);
        assert!(!verify(100.0, "a_total 101\n", &ledger(90, 1, &[]), 1.0).verified, "more than was sent");
        assert!(!verify(100.0, "a_total 85\n", &ledger(85, 1, &[]), 1.0).verified, "half a datagram");
        assert!(!verify(100.0, "a_total 90\n", &ledger(90, 0, &[]), 1.0).verified, "gone without a trace");
        assert!(!verify(100.0, "a_total 99\n", &ledger(100, 0, &[("malformed_value", 1)]), 1.0).verified);
    }

    #[test]
    fn what_is_thinned_out_is_compared_within_its_error() {
        // Half of 100 lines: a standard error of 10.
        let half = ledger(100, 0, &[("sampled", 50)]);
        let near = verify(100.0, "a_total 120\n", &half, 0.5);
        assert_eq!((near.verified, near.largest_error), (true, Some(2.0)));
        assert!(!verify(100.0, "a_total 161\n", &half, 0.5).verified);
        assert!(!verify(100.0, "a_total 39\n", &half, 0.5).verified);
    }
}
