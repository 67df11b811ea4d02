//! `statsieve check`: every problem of a configuration, or what it can cost at most.
//!
//! In: the sources of a configuration. Out: text for a person, and the exit code.
//! Always: the figures are upper bounds; no traffic can make a scrape longer, or the process larger.

use std::io::{self, Write};
use std::num::NonZeroU64;

use super::memory::Memory;
use super::run::MOST_WORKERS;
use super::{BAD_CONFIGURATION, OK};
use crate::aggregate::shape::Shape;
use crate::config::{self, Config, Observation, OwnMetrics, Sources};
use crate::model::{ClientFigure, DropReason, SampleType, TagDropReason};
use crate::telemetry::{Count, FIELD_LETTERS, LATENCY_BOUNDS, Listener, statsd_exporter};

/// Sample lines of a histogram besides those of its bounds: `+Inf`, `_sum` and `_count`.
const HISTOGRAM_LINES: u64 = 3;
/// Own metrics in `telemetry.own_metrics = "core"`.
const CORE_LINES: u64 = 30;

/// Sample lines a scrape can hold at most, by what they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorstCase {
    /// User series, up to `cardinality.max_series`.
    pub user: u64,
    /// Overflow series: one for each family, every one of them as large as can be.
    pub overflow: u64,
    /// The sidecar's own metrics.
    pub own: u64,
}

impl WorstCase {
    /// The bounds that follow from `config`.
    pub fn of(config: &Config) -> Self {
        let created = u64::from(config.http.created_lines);
        let family = most_lines(config).0 + created;
        Self {
            // A counter's line may have another beside it.
            user: config.cardinality.max_series.saturating_mul(1 + created),
            overflow: family.saturating_mul(config.cardinality.max_families as u64),
            own: own_lines(config),
        }
    }

    /// All of them together.
    pub fn total(self) -> u64 {
        self.user.saturating_add(self.overflow).saturating_add(self.own)
    }
}

/// Sample lines of the largest series that there may be, without `_created`, and what it is.
fn most_lines(config: &Config) -> (u64, String) {
    let largest = config.mapping.observations().max_by_key(|observation| Shape::of(observation).lines());
    let observation = largest.unwrap_or(&config.mapping.observation);
    let lines = Shape::of(observation).lines();
    match observation {
        Observation::Histogram { bounds, .. } => {
            (lines, format!("histogram of {lines} lines ({} bounds)", bounds.len()))
        }
        Observation::Summary { quantiles, .. } => {
            (lines, format!("summary of {lines} lines ({} quantiles)", quantiles.len()))
        }
    }
}

/// Most sample lines of `statsieve_*` and `process_*`.
pub(super) fn own_lines(config: &Config) -> u64 {
    let estimates = (config.bucketing.len() * config.distinct.windows.len()) as u64;
    // Asked for by a key of their own, "core" or not.
    let registers = if config.distinct.export_registers { estimates * config.distinct.registers as u64 } else { 0 };
    let old_names = if config.telemetry.statsd_exporter_metrics { statsd_exporter::MOST_LINES as u64 } else { 0 };
    if config.telemetry.own_metrics == OwnMetrics::Core {
        return CORE_LINES + registers + old_names;
    }
    // Datagrams, bytes, kernel drops, two of the queue, connections now, ever and refused, whether it works, its
    // failures.
    let by_listener = 10 * Listener::COUNT;
    let by_reason = SampleType::COUNT + DropReason::COUNT + TagDropReason::COUNT + FIELD_LETTERS + ClientFigure::COUNT;
    // Latency from arrival to recorded, and the duration of scrapes with bounds of about as many.
    let histograms = 2 * (LATENCY_BOUNDS.len() + HISTOGRAM_LINES as usize);
    // Levels and totals of the store, scrapes, reloads, actions and relayed lines by their closed labels; 20 are the
    // families that a limit has met, 10 are `process_*`.
    let others = 40 + 20 + 10;
    let workers = config.listen.workers.unwrap_or(MOST_WORKERS) as u64;
    // Sampling rate and load of each worker.
    let fixed = (by_listener + by_reason + Count::COUNT + histograms + others) as u64;
    fixed + 2 * workers + estimates + registers + old_names
}

/// Writes all problems with carets, or what was read and the most it can cost: one instance, and so many together.
///
/// Returns the exit code: [`OK`], or [`BAD_CONFIGURATION`] if there are problems.
///
/// # Errors
/// Those of `out`.
pub fn check(sources: &Sources, instances: Option<NonZeroU64>, out: &mut dyn Write) -> io::Result<u8> {
    let loaded = match config::load(sources) {
        Ok(loaded) => loaded,
        Err(problems) => {
            out.write_all(problems.render_with_carets().as_bytes())?;
            let s = if problems.count() == 1 { "" } else { "s" };
            writeln!(out, "\n{} problem{s}", problems.count())?;
            return Ok(BAD_CONFIGURATION);
        }
    };
    let file = sources.file.as_ref().map(|path| format!("{}, over ", path.display())).unwrap_or_default();
    let overrides = match sources.set.len() {
        0 => String::new(),
        1 => ", under 1 override".to_owned(),
        several => format!(", under {several} overrides"),
    };
    writeln!(out, "read: {file}the built-in defaults{overrides}")?;
    writeln!(out, "hash: {}", loaded.hash)?;
    for remark in loaded.config.exposures().iter().chain(&loaded.config.remarks()) {
        writeln!(out, "note: {remark}")?;
    }
    write_worst_case(&loaded.config, out)?;
    write_memory(&loaded.config, out)?;
    if let Some(instances) = instances {
        write_instances(&loaded.config, instances.get(), out)?;
    }
    Ok(OK)
}

/// What so many sidecars cost together at most: all their series in one Prometheus, all their memory on their machines.
fn write_instances(config: &Config, instances: u64, out: &mut dyn Write) -> io::Result<()> {
    let (lines, memory) = (WorstCase::of(config).total(), Memory::of(config).total());
    let in_all = (lines.saturating_mul(instances), mib(memory.saturating_mul(instances)));
    let width = in_all.0.to_string().len().max(in_all.1.len());
    writeln!(out, "\nworst case of {instances} instances:")?;
    writeln!(out, "  {:<15}  {:>width$}  {lines} of each scrape, all in one Prometheus", "sample lines", in_all.0)?;
    writeln!(out, "  {:<15}  {:>width$}  {} of each process, on all machines together", "MiB", in_all.1, mib(memory))
}

/// Bytes in MiB, rounded up: no figure is less than what it stands for.
fn mib(bytes: u64) -> String {
    format!("{:.1}", (bytes as f64 * 10.0 / f64::from(1 << 20)).ceil() / 10.0)
}

fn write_worst_case(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let worst = WorstCase::of(config);
    let (_, what) = most_lines(config);
    let families = config.cardinality.max_families;
    let created = if config.http.created_lines { ", with a _created line each" } else { "" };
    let rows = [
        ("user series", worst.user, format!("cardinality.max_series{created}")),
        ("overflow series", worst.overflow, format!("{families} families, each a {what}; a counter's has 1")),
        ("own metrics", worst.own, "every label value at once".to_owned()),
        ("total", worst.total(), "a sample_limit above this never fails a scrape".to_owned()),
    ];
    let width = rows.iter().map(|(_, lines, _)| lines.to_string().len()).max().unwrap_or(0);
    writeln!(out, "\nworst case of one scrape, in sample lines:")?;
    for (name, lines, why) in rows {
        writeln!(out, "  {name:<15}  {lines:>width$}  {why}")?;
    }
    Ok(())
}

fn write_memory(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let memory = Memory::of(config);
    let total = mib(memory.total());
    let width = total.len();
    writeln!(out, "\nworst case of memory, in MiB:")?;
    for part in memory.parts.iter().filter(|part| part.bytes > 0) {
        writeln!(out, "  {:<15}  {:>width$}  {}", part.name, mib(part.bytes), part.why)?;
    }
    writeln!(out, "  {:<15}  {total:>width$}  a memory limit above this is never reached", "total")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(set: &[&str]) -> (u8, String) {
        run_for(None, set)
    }

    fn run_for(instances: Option<u64>, set: &[&str]) -> (u8, String) {
        let sources = Sources { file: None, set: set.iter().map(ToString::to_string).collect() };
        let mut out = Vec::new();
        let code = check(&sources, instances.and_then(NonZeroU64::new), &mut out).expect("a Vec takes everything");
        (code, String::from_utf8(out).expect("check writes text"))
    }

    #[test]
    fn the_worst_case_is_a_table_of_sample_lines() {
        let (code, text) =
            run(&["cardinality.max_families=10", "telemetry.own_metrics=core", "observer.buckets=[1, 2]"]);
        assert_eq!(code, OK);
        let tables: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(
            tables[1],
            "worst case of one scrape, in sample lines:\n\
             \x20 user series      10000  cardinality.max_series\n\
             \x20 overflow series     50  10 families, each a histogram of 5 lines (2 bounds); a counter's has 1\n\
             \x20 own metrics         30  every label value at once\n\
             \x20 total            10080  a sample_limit above this never fails a scrape"
        );
    }

    #[test]
    fn the_worst_case_of_memory_is_a_table_whose_parts_make_up_the_total() {
        let (code, text) = run(&["cardinality.max_bytes=33554432", "rate_limit.family_samples_per_second=5"]);
        assert_eq!(code, OK);
        let table = text.split("\n\n").nth(2).expect("a blank line stands before the table");
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows[0], "worst case of memory, in MiB:");
        let figure = |row: &str| row[17..].split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
        let figures: Vec<f64> = rows[1..].iter().map(|row| figure(row).expect("a row has a figure")).collect();
        let (total, parts) = figures.split_last().expect("there are rows");
        assert!((parts.iter().sum::<f64>() - total).abs() < 1.0, "{table}");
        assert!(rows.contains(&"  series            32.0  cardinality.max_bytes"), "{table}");
        assert!(rows.iter().any(|row| row.starts_with("  quotas ")), "{table}");
    }

    #[test]
    fn many_instances_cost_so_many_times_as_much() {
        let (code, text) = run_for(Some(1000), &[]);
        assert_eq!(code, OK);
        let tables: Vec<&str> = text.split("\n\n").collect();
        let figures = |table: &str| -> Vec<f64> {
            table.lines().skip(1).map(|row| row[17..].split_whitespace().next().unwrap().parse().unwrap()).collect()
        };
        let [lines, memory] = figures(tables[3])[..] else { panic!("{text}") };
        assert!(tables[3].starts_with("worst case of 1000 instances:\n"), "{text}");
        assert_eq!(lines, 1000.0 * figures(tables[1]).last().unwrap());
        // Each is rounded up to a tenth.
        let each = figures(tables[2]).last().unwrap() * 1000.0;
        assert!(memory <= each && memory > each - 100.0, "{text}");
    }

    #[test]
    fn a_histogram_of_the_default_bounds_costs_fifteen_lines() {
        let worst = WorstCase::of(&Config::default_checked());
        assert_eq!((worst.user, worst.overflow), (10_000, 2_000 * 15));
    }

    #[test]
    fn estimates_and_exported_registers_are_own_metrics() {
        let own = |set: &[&str]| {
            let set = set.iter().map(ToString::to_string).collect();
            own_lines(&config::load(&Sources { file: None, set }).expect("it loads").config)
        };
        let without = own(&["bucketing=[]", "distinct.export_registers=true"]);
        assert_eq!(own(&[]), without + 2);
        assert_eq!(own(&["distinct.export_registers=true"]), without + 2 + 2 * 1024);
        let core = ["telemetry.own_metrics=core", "distinct.export_registers=true", "distinct.registers=16"];
        assert_eq!(own(&core), CORE_LINES + 2 * 16);
        let old_names = "telemetry.statsd_exporter_metrics=true";
        assert_eq!(own(&[old_names]), own(&[]) + statsd_exporter::MOST_LINES as u64);
        assert_eq!(own(&["telemetry.own_metrics=core", old_names]), CORE_LINES + statsd_exporter::MOST_LINES as u64);
    }

    #[test]
    fn problems_come_with_carets_and_exit_code_two() {
        let (code, text) = run(&["listen.workers=-1"]);
        assert_eq!(code, BAD_CONFIGURATION);
        assert_eq!(
            text,
            "--set listen.workers=-1: listen.workers: found -1, accepted: 0 (one per core, at most 2) to 256\n \
             |\n | --set listen.workers=-1\n |                      ^^\n\n1 problem\n"
        );
    }

    #[test]
    fn what_has_no_effect_and_what_is_open_to_others_is_said() {
        let (code, text) =
            run(&["observer.max_age=5m", "listen.udp=:8125", "labels.drop=[\"user*\"]", "sampling.rate=0.5"]);
        assert_eq!(code, OK);
        for line in [
            "read: the built-in defaults, under 4 overrides",
            "note: listen.udp: 0.0.0.0:8125 can be reached from other machines; whoever reaches it can write any metric, \
             since StatsD has no passwords: take the loopback or a unix socket, or let only the bot through",
            "note: bucketing.0.tags: \"user_id\" never arrives, labels.drop takes it out (\"user*\")",
            "note: sampling.rate: has no effect unless sampling.mode is \"fixed\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
