//! Tells what came of the scenarios: a table for the terminal, and Markdown, JSON or HTML for a file.
//!
//! In: measured values and verdicts. Out: text. Not here: what they mean (`verify`), and plots (`html`).

mod html;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::measure::{Latency, Ledger, Point};
use super::scenario::Scenario;
use super::send::Sent;
use super::verify::Verification;
use crate::command::printable;

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Markdown,
    Html,
    Json,
}

impl Format {
    /// By the ending of the file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "md" => Some(Self::Markdown),
            "html" => Some(Self::Html),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What operators put up with, and whether it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ceiling {
    pub(super) p95_ms: f64,
    pub(super) memory_mb: f64,
    pub(super) inside: bool,
}

/// What came of one scenario.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) scenario: &'static str,
    pub(super) about: &'static str,
    pub(super) target: String,
    pub(super) settings: &'static [&'static str],
    pub(super) flat_out: bool,
    pub(super) senders: usize,
    pub(super) seconds: f64,
    pub(super) samples: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    pub(super) samples_per_second: f64,
    pub(super) latency: Option<Latency>,
    pub(super) cpu_seconds_per_million: f64,
    pub(super) peak_memory_bytes: u64,
    pub(super) identity_hit_rate: Option<f64>,
    /// The largest that was seen, 0 to 1.
    pub(super) queue_fill: f64,
    /// Samples that were lost, by the kernel or dropped, but not thinned out on purpose; 0 to 1.
    pub(super) error_rate: f64,
    pub(super) ceiling: Option<Ceiling>,
    pub(super) ledger: Ledger,
    pub(super) verification: Verification,
    pub(super) points: Vec<Point>,
}

impl Outcome {
    /// Puts together what was measured.
    #[expect(clippy::too_many_arguments, reason = "each is measured by a part of its own")]
    pub(super) fn new(
        scenario: &Scenario,
        target: String,
        sent: Sent,
        elapsed: Duration,
        peak_memory_bytes: u64,
        ledger: Ledger,
        latency: Option<Latency>,
        points: Vec<Point>,
        verification: Verification,
    ) -> Self {
        let kept = ledger.recorded() + ledger.dropped_for("sampled");
        let p95_ms = latency.as_ref().map_or(0.0, |latency| latency.p95 * 1e3);
        let ceiling = scenario.ceiling.map(|(most_ms, memory_mb)| Ceiling {
            p95_ms: most_ms,
            memory_mb,
            inside: p95_ms <= most_ms && peak_memory_bytes as f64 <= memory_mb * 1e6,
        });
        Self {
            scenario: scenario.name,
            about: scenario.about,
            target,
            settings: scenario.settings,
            flat_out: scenario.is_flat_out(),
            senders: scenario.senders,
            seconds: elapsed.as_secs_f64(),
            samples: sent.lines,
            datagrams: sent.datagrams,
            bytes: sent.bytes,
            samples_per_second: sent.lines as f64 / elapsed.as_secs_f64().max(1e-9),
            latency,
            cpu_seconds_per_million: ledger.cpu_seconds * 1e6 / ledger.lines.max(1) as f64,
            peak_memory_bytes,
            identity_hit_rate: ledger.hit_rate(),
            queue_fill: points.iter().map(|point| point.queue_fill).fold(0.0, f64::max),
            error_rate: sent.lines.saturating_sub(kept) as f64 / sent.lines.max(1) as f64,
            ceiling,
            ledger,
            verification,
            points,
        }
    }

    fn verdict(&self) -> &'static str {
        if self.verification.verified { "verified" } else { "NOT VERIFIED" }
    }

    /// The row of a table, in the order of [`COLUMNS`].
    fn row(&self) -> [String; COLUMNS.len()] {
        let ms = |seconds: fn(&Latency) -> f64| {
            self.latency.as_ref().map_or("-".to_owned(), |latency| format!("{:.2}", seconds(latency) * 1e3))
        };
        let percent = |share: f64| format!("{:.2}", share * 100.0);
        [
            self.scenario.to_owned(),
            grouped(self.samples),
            grouped(self.samples_per_second as u64),
            ms(|latency| latency.p50),
            ms(|latency| latency.p95),
            ms(|latency| latency.p99),
            format!("{:.2}", self.cpu_seconds_per_million),
            format!("{:.1}", self.peak_memory_bytes as f64 / 1e6),
            self.identity_hit_rate.map_or("-".to_owned(), percent),
            percent(self.queue_fill),
            percent(self.error_rate),
            self.verdict().to_owned(),
        ]
    }

    /// What was compared, and what is worth knowing of it.
    fn remarks(&self) -> Vec<String> {
        let checked = &self.verification;
        let mut remarks = vec![format!("{} numbers compared, {} differ", checked.compared, checked.differing)];
        remarks.extend(checked.notes.iter().cloned());
        if let Some(error) = checked.largest_error {
            remarks.push(format!("the largest error of a family is {error:.2} standard errors"));
        }
        if let Some(ceiling) = self.ceiling {
            let which = if ceiling.inside { "inside" } else { "over" };
            remarks.push(format!("{which} the ceiling of {} ms (P95) and {} MB", ceiling.p95_ms, ceiling.memory_mb));
        }
        remarks
    }

    fn differences(&self) -> Vec<String> {
        let told = &self.verification.mismatches;
        let mut lines: Vec<String> = told
            .iter()
            .map(|mismatch| format!("{}: expected {}, found {}", mismatch.series, mismatch.expected, mismatch.found))
            .collect();
        let more = self.verification.differing - told.len() as u64;
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

/// Everything that was run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    /// `release`, or `debug`, whose speed says nothing.
    build: &'static str,
    machine: String,
    seed: u64,
    pub(super) seconds: f64,
    pub(super) outcomes: Vec<Outcome>,
}

const COLUMNS: [&str; 12] = [
    "scenario",
    "samples",
    "samples/s",
    "P50 ms",
    "P95 ms",
    "P99 ms",
    "CPU s/M",
    "peak MB",
    "hits %",
    "queue %",
    "lost %",
    "verdict",
];

/// What the columns say, for a reader who was not there.
const LEGEND: [&str; 6] = [
    "P50, P95 and P99 are milliseconds from a datagram's arrival, as the kernel stamped it, to recorded, by a straight \
     line within the bounds of statsieve_ingest_latency_seconds; streams carry no such stamp.",
    "CPU s/M is seconds of CPU of the whole sidecar for a million lines, scrapes and looks of this program included.",
    "peak MB is resident memory, in millions of bytes: the most ever of a sidecar that was started for it, the most \
     that was seen of a given one.",
    "hits % is the share of look-ups that found the identity; queue % the largest fill of the receive buffers that was \
     seen; lost % the samples that are neither recorded nor thinned out on purpose.",
    "Values are whole numbers, or 64ths of a second: every sum is exact, and without loss every number must be equal.",
    "A debug build is several times slower: its figures say nothing of speed.",
];

impl Report {
    /// One without outcomes.
    pub(super) fn new(seed: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        let machine = format!("{cores} cores ({}), Linux {}", model.unwrap_or("model unknown"), kernel.trim());
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { version: env!("CARGO_PKG_VERSION"), build, machine, seed, seconds: 0.0, outcomes: Vec::new() }
    }

    /// Whether all that was run is verified.
    pub(super) fn verified(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.verification.verified)
    }

    fn title(&self) -> String {
        let (good, all) = (self.outcomes.iter().filter(|it| it.verification.verified).count(), self.outcomes.len());
        format!("{good} of {all} verified")
    }

    fn circumstances(&self) -> String {
        let Self { version, build, machine, seed, seconds, .. } = self;
        format!("statsieve {version} ({build} build), seed {seed}, {seconds:.0} s in all, on {machine}")
    }

    /// The whole report, for a file.
    pub(super) fn render(&self, format: Format) -> String {
        match format {
            Format::Markdown => self.markdown(),
            Format::Html => html::render(self),
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_default() + "\n",
        }
    }

    /// A table, what was compared, and what differs.
    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.outcomes.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = self.outcomes.iter().map(Outcome::row).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.max().unwrap_or(0).max(COLUMNS[column].len())
        };
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
        let mut line = |cells: &[&str]| {
            let mut text = String::new();
            for (place, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                // Words to the left, numbers to the right.
                let _ = match place {
                    0 => write!(text, "{cell:<width$}"),
                    11 => write!(text, "  {cell}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            writeln!(out, "{}", text.trim_end())
        };
        line(&COLUMNS)?;
        for row in &rows {
            line(&row.each_ref().map(String::as_str))?;
        }
        writeln!(out)?;
        for outcome in &self.outcomes {
            writeln!(out, "{}: {}: {}", outcome.scenario, outcome.verdict(), outcome.remarks().join("; "))?;
            for difference in outcome.differences() {
                // Names and labels are those of a scrape, and who else sent to that target nobody knows.
                writeln!(out, "  {}", printable(difference.as_bytes()))?;
            }
        }
        writeln!(out, "{}", self.circumstances())
    }

    fn markdown(&self) -> String {
        let mut text = format!("# statsieve load: {}\n\n{}.\n\n", self.title(), self.circumstances());
        // Writing to memory does not fail.
        let _ = writeln!(text, "| {} |", COLUMNS.join(" | "));
        let _ = writeln!(text, "|---|{}---|", "---:|".repeat(COLUMNS.len() - 2));
        for outcome in &self.outcomes {
            let _ = writeln!(text, "| {} |", outcome.row().join(" | "));
        }
        let _ = writeln!(text);
        for sentence in LEGEND {
            let _ = writeln!(text, "- {sentence}");
        }
        for outcome in &self.outcomes {
            let settings = if outcome.settings.is_empty() {
                String::new()
            } else {
                format!(" Settings: `{}`.", outcome.settings.join("`, `"))
            };
            let _ = write!(
                text,
                "\n## {}: {}\n\n{}; {:.1} s, {} senders, to {}.{settings}\n\n",
                outcome.scenario,
                outcome.verdict(),
                outcome.about,
                outcome.seconds,
                outcome.senders,
                outcome.target
            );
            for remark in outcome.remarks() {
                let _ = writeln!(text, "- {remark}");
            }
            for difference in outcome.differences() {
                let _ = writeln!(text, "- `{difference}`");
            }
        }
        text
    }
}

/// A number with its thousands set apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::verify::Mismatch;
    use super::*;

    /// One scenario that went well and one that did not.
    pub(super) fn example() -> Report {
        let point = |seconds: f64, sent, taken| Point {
            seconds,
            sent,
            taken,
            queue_fill: 0.25,
            sampling_rate: 1.0,
            resident_bytes: 9_000_000,
        };
        let latency = Latency { count: 10, p50: 0.001, p95: 0.002, p99: 0.003, buckets: vec![(0.001, 5), (0.005, 10)] };
        let outcome = |name, verification| {
            Outcome::new(
                &Scenario::named(name).unwrap(),
                "udp://127.0.0.1:8125".to_owned(),
                Sent { datagrams: 40, lines: 1000, bytes: 50_000 },
                Duration::from_secs(2),
                9_000_000,
                Ledger { lines: 1000, recorded: [("counter".to_owned(), 990)].into(), ..Ledger::default() },
                Some(latency.clone()),
                vec![point(0.5, 200, 100), point(1.0, 500, 500), point(2.0, 1000, 1000)],
                verification,
            )
        };
        let mut report = Report::new(7);
        report.outcomes.push(outcome("low", Verification { verified: true, compared: 12, ..Verification::default() }));
        let mismatch = Mismatch { series: "a{b=\"<c>\"}".into(), expected: "1".into(), found: "2".into() };
        let bad = Verification { compared: 9, differing: 3, mismatches: vec![mismatch], ..Verification::default() };
        report.outcomes.push(outcome("mixed", bad));
        report
    }

    #[test]
    fn the_table_has_a_row_for_each_and_every_difference_is_told_or_counted() {
        let mut text = Vec::new();
        example().write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].starts_with("scenario  samples"), "{text}");
        assert!(rows[1].starts_with("low         1,000        500    1.00    2.00    3.00"), "{text}");
        assert!(rows[1].ends_with("  verified") && rows[2].ends_with("  NOT VERIFIED"), "{text}");
        assert!(text.contains("  a{b=\"<c>\"}: expected 1, found 2\n  and 2 more\n"), "{text}");
        assert!(text.contains("over the ceiling of 0.5 ms (P95) and 50 MB"), "{text}");
    }

    #[test]
    fn markdown_and_json_hold_the_same_figures() {
        let report = example();
        assert!(!report.verified());
        let markdown = report.render(Format::Markdown);
        assert!(markdown.starts_with("# statsieve load: 1 of 2 verified\n"), "{markdown}");
        assert!(markdown.contains("| low | 1,000 | 500 | 1.00 | 2.00 | 3.00 |"), "{markdown}");
        assert!(markdown.contains("## mixed: NOT VERIFIED"), "{markdown}");
        let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json)).unwrap();
        assert_eq!(json["outcomes"][0]["latency"]["p95"], 0.002);
        assert_eq!(json["outcomes"][1]["verification"]["mismatches"][0]["found"], "2");
        assert_eq!(json["outcomes"][0]["error_rate"], 0.01);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
