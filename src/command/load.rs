//! `statsieve load`: sends traffic to a sidecar and checks what it exposes against what it was sent.
//!
//! In: scenarios, and a target or none. Out: a table, a report if wanted, and the exit code: 0 only if every number was
//! verified.
//! Not here: how the sidecar works. [`oracle`] knows the README and shares no code with the stages it judges.
//! Always: nothing is sent to another machine unless that is allowed in so many words; each scenario ends by itself.
//!
//! [`scenario`] says what and how fast, [`traffic`] makes the datagrams in memory and tells [`oracle`] of each line,
//! [`send`] sends them, [`measure`] watches meanwhile, [`verify`] compares, [`report`] tells.

mod measure;
mod oracle;
mod report;
mod scenario;
mod scrape;
mod send;
mod sidecar;
mod target;
mod traffic;
mod verify;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use self::measure::{Latency, Ledger, settle, watch};
use self::report::{Format, Outcome, Report};
use self::scenario::{NAMES, Pace, Scenario};
use self::scrape::Source;
use self::send::{Sender, Watch, sockets_bound};
use self::sidecar::Sidecar;
use self::target::{Target, address_of};
use self::traffic::Traffic;
use self::verify::Run;
use super::healthcheck::on_this_machine;
use super::{BAD_CONFIGURATION, FAILED, OK};
use crate::config::{self, Sources};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// A listener of a running sidecar; `None` starts one for each scenario.
    pub target: Option<String>,
    /// Where that sidecar exposes metrics; `None` is where the configuration says.
    pub metrics: Option<String>,
    /// Whether the target may be another machine.
    pub anywhere: bool,
    /// Name of a scenario, or `all`.
    pub scenario: String,
    /// How long each scenario lasts; `None` is its own length.
    pub duration: Option<Duration>,
    /// Samples a second instead of the scenario's, 0 for as fast as they are taken.
    pub rate: Option<f64>,
    /// What the lines are drawn by.
    pub seed: u64,
    /// File for a report: Markdown, JSON or HTML by its ending.
    pub report: Option<PathBuf>,
}

/// Options that make sense.
struct Plan {
    scenarios: Vec<Scenario>,
    given: Option<(Target, Source)>,
    report: Option<(PathBuf, Format)>,
}

/// Runs the scenarios and writes what came of them.
///
/// Returns the exit code: [`OK`] if all is verified, [`FAILED`] if something is not, or could not be done,
/// [`BAD_CONFIGURATION`] for options or a configuration that make no sense.
///
/// # Errors
/// Those of `out`.
pub fn load(options: &Options, sources: &Sources, out: &mut dyn Write) -> io::Result<u8> {
    let plan = match plan(options, sources) {
        Ok(plan) => plan,
        Err(problem) => {
            writeln!(out, "{}", problem.trim_end())?;
            return Ok(BAD_CONFIGURATION);
        }
    };
    // Made first: minutes of work should not end at a path that cannot be written.
    let mut file = match plan.report.as_ref().map(|(path, _)| File::create(path)).transpose() {
        Ok(file) => file,
        Err(error) => {
            writeln!(out, "the report cannot be written: {error}")?;
            return Ok(FAILED);
        }
    };
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            writeln!(out, "no signals: {error}")?;
            return Ok(FAILED);
        }
    };
    let mut report = Report::new(options.seed);
    let started = Instant::now();
    let mut failed = false;
    for (number, scenario) in plan.scenarios.iter().enumerate() {
        let place = format!("{}/{}", number + 1, plan.scenarios.len());
        if stop.load(Relaxed) {
            break;
        }
        match run(scenario, &place, plan.given.as_ref(), options.seed, sources, &stop) {
            Ok(outcome) => report.outcomes.push(outcome),
            Err(error) => {
                writeln!(out, "{}: {error}", scenario.name)?;
                failed = true;
            }
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    report.write_text(out)?;
    if let (Some(file), Some((path, format))) = (&mut file, &plan.report) {
        match file.write_all(report.render(*format).as_bytes()) {
            Ok(()) => writeln!(out, "report: {}", path.display())?,
            Err(error) => {
                writeln!(out, "the report cannot be written: {error}")?;
                failed = true;
            }
        }
    }
    Ok(if failed || !report.verified() { FAILED } else { OK })
}

/// Checks the options.
fn plan(options: &Options, sources: &Sources) -> Result<Plan, String> {
    let names = if options.scenario == "all" { NAMES.to_vec() } else { vec![options.scenario.as_str()] };
    let mut scenarios = Vec::new();
    for name in &names {
        let unknown = || format!("--scenario: found {name:?}, accepted: {}, all", NAMES.join(", "));
        let mut scenario = Scenario::named(name).ok_or_else(unknown)?;
        if let Some(length) = options.duration {
            if length.is_zero() || length > Duration::from_secs(3600) {
                return Err("--duration: accepted: more than 0, up to 1h".to_owned());
            }
            scenario = scenario.lasting(length);
        }
        if let Some(rate) = options.rate {
            if !(0.0..=1e9).contains(&rate) || (rate > 0.0 && rate < 1.0) {
                return Err(
                    "--rate: accepted: 1 to 1000000000 samples a second, or 0 for as fast as they are taken".into()
                );
            }
            let no_rate = || format!("--rate: the scenario {name} sends at once, at no rate");
            scenario = scenario.at(rate).ok_or_else(no_rate)?;
        }
        scenarios.push(scenario);
    }
    let report = options.report.clone().map(|path| {
        let format = Format::of(&path);
        format.map(|format| (path, format)).ok_or("--report: accepted: a file that ends in .md, .html or .json")
    });
    let given = match &options.target {
        Some(text) => {
            let target = Target::parse(text, options.anywhere).map_err(|problem| format!("--target: {problem}"))?;
            Some((target, source(options, sources)?))
        }
        None if options.metrics.is_some() => return Err("--metrics: says nothing without --target".to_owned()),
        None => {
            // Told before anything starts, and not by the child.
            config::load(sources).map_err(|problems| problems.render_with_carets())?;
            None
        }
    };
    Ok(Plan { scenarios, given, report: report.transpose()? })
}

/// Where a given target exposes what it has.
fn source(options: &Options, sources: &Sources) -> Result<Source, String> {
    let source = match &options.metrics {
        Some(url) => {
            let rest = url.strip_prefix("http://").unwrap_or(url);
            let (address, path) = rest.split_once('/').unwrap_or((rest, "metrics"));
            Source { address: address.to_owned(), path: format!("/{path}") }
        }
        None => {
            let loaded = config::load(sources).map_err(|problems| problems.render_with_carets())?;
            let http = &loaded.config.http;
            Source { address: on_this_machine(&http.listen), path: http.metrics_path.clone() }
        }
    };
    address_of(&source.address, options.anywhere).map_err(|problem| format!("--metrics: {problem}"))?;
    Ok(source)
}

/// Runs one scenario, against a sidecar of its own unless one is given.
fn run(
    scenario: &Scenario,
    place: &str,
    given: Option<&(Target, Source)>,
    seed: u64,
    sources: &Sources,
    stop: &AtomicBool,
) -> io::Result<Outcome> {
    let bar = progress_bar(scenario, place);
    bar.set_message("makes lines");
    let traffic = Traffic::new(scenario, seed);
    let (target, source, sidecar) = match given {
        Some((target, source)) => (target.clone(), source.clone(), None),
        None => {
            let sidecar = Sidecar::start(scenario.settings, sources)?;
            let target = Target::parse(&format!("udp://{}", sidecar.udp), false).map_err(io::Error::other)?;
            (target, Source { address: sidecar.http.clone(), path: "/metrics".to_owned() }, Some(sidecar))
        }
    };
    let before = source.scrape()?;
    let first = source.state()?;
    let limit = before.get("statsieve_receive_queue_limit_bytes{listener=\"udp\"}").unwrap_or(0.0);
    let queue = match target {
        Target::Udp(address) if limit > 0.0 => {
            let sockets = sockets_bound(address).max(1);
            Some(Watch { address, most_bytes: limit as u64 / sockets as u64 / 4 })
        }
        _ => None,
    };
    let sockets = target.connect(scenario.senders)?;
    let (sent_so_far, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    let (sent, elapsed, points) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sender = Sender::new(&traffic, sockets, queue, stop);
            let sent = sender.run(&scenario.steps, &|lines| sent_so_far.store(lines, Relaxed));
            let elapsed = started.elapsed();
            over.store(true, Relaxed);
            // The sockets stay open until the watcher has looked: a stream that closes would be the last of its news.
            (sent, elapsed)
        });
        let tick = |since: Duration| {
            bar.set_position(since.as_millis() as u64);
            bar.set_message(format!("{} samples sent", sent_so_far.load(Relaxed)));
        };
        let points = watch(&source, first, &sent_so_far, &over, &tick);
        sending.join().map(|(sent, elapsed)| (sent, elapsed, points))
    })
    .map_err(|_| io::Error::other("the sender failed"))?;
    let sent = sent.map_err(|error| io::Error::new(error.kind(), format!("sending to {target}: {error}")))?;
    bar.set_message("waits until the last line is taken, and compares");
    settle(&source, first, sent.lines)?;
    let after = source.scrape()?;
    let ledger = Ledger::between(&before, &after, target.listener());
    let expected = traffic.expect(sent.datagrams);
    let lowest_rate = points.iter().map(|point| point.sampling_rate).fold(1.0, f64::min);
    let verification = Run {
        expected: &expected,
        sent,
        lines_in_a_datagram: traffic.lines_in_a_datagram(),
        before: &before,
        after: &after,
        ledger: &ledger,
        listener: target.listener(),
        lowest_rate,
    }
    .verify();
    let resident = points.iter().map(|point| point.resident_bytes).max().unwrap_or(0);
    let peak_bytes = sidecar.as_ref().and_then(Sidecar::peak_bytes).unwrap_or(resident);
    bar.finish_and_clear();
    let latency = Latency::between(&before, &after);
    let target = if given.is_some() { target.to_string() } else { format!("{target}, a sidecar of its own") };
    Ok(Outcome::new(scenario, target, sent, elapsed, peak_bytes, ledger, latency, points, verification))
}

/// What becomes true at SIGINT or SIGTERM, so that a sidecar that was started does not stay behind.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        told.store(true, Relaxed);
    });
    Ok(stop)
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(scenario: &Scenario, place: &str) -> ProgressBar {
    let bar = ProgressBar::new(scenario.length().as_millis() as u64);
    let style = ProgressStyle::with_template("{prefix:>18} [{bar:30}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(format!("{place} {}", scenario.name));
    bar
}

impl Scenario {
    /// Whether it sends as fast as it can.
    fn is_flat_out(&self) -> bool {
        self.steps.iter().any(|step| step.pace == Pace::FlatOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            target: None,
            metrics: None,
            anywhere: false,
            scenario: "low".to_owned(),
            duration: None,
            rate: None,
            seed: 1,
            report: None,
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        let sources = Sources::default();
        let text = |text: &str| Some(text.to_owned());
        for (bad, named) in [
            (Options { scenario: "lo".to_owned(), ..options() }, "--scenario"),
            (Options { duration: Some(Duration::ZERO), ..options() }, "--duration"),
            (Options { rate: Some(-1.0), ..options() }, "--rate"),
            (Options { rate: Some(0.5), ..options() }, "--rate"),
            (Options { rate: Some(5.0), scenario: "burst".to_owned(), ..options() }, "--rate"),
            (Options { report: Some("r.pdf".into()), ..options() }, "--report"),
            (Options { metrics: text("http://127.0.0.1:9102"), ..options() }, "--metrics"),
            (Options { target: text("udp://192.0.2.1:8125"), ..options() }, "--target"),
            (
                Options { target: text("udp://127.0.0.1:1"), metrics: text("http://192.0.2.1/metrics"), ..options() },
                "--metrics",
            ),
        ] {
            let problem = plan(&bad, &sources).err().unwrap_or_default();
            assert!(problem.starts_with(named), "{bad:?}: {problem}");
        }
        let all = plan(&Options { scenario: "all".to_owned(), ..options() }, &sources).ok().unwrap();
        assert_eq!(all.scenarios.len(), NAMES.len());
        let bad = Sources { file: None, set: vec!["listen.wokers=3".to_owned()] };
        assert!(plan(&options(), &bad).err().unwrap().contains("listen.workers"));
    }

    #[test]
    fn metrics_are_where_the_configuration_says_unless_told() {
        let sources = Sources { file: None, set: vec!["http.listen=127.0.0.1:9999".to_owned()] };
        let found = source(&options(), &sources).unwrap();
        assert_eq!((found.address.as_str(), found.path.as_str()), ("127.0.0.1:9999", "/metrics"));
        let told = Options { metrics: Some("http://127.0.0.1:1234/m".to_owned()), ..options() };
        let found = source(&told, &sources).unwrap();
        assert_eq!((found.address.as_str(), found.path.as_str()), ("127.0.0.1:1234", "/m"));
    }
}
