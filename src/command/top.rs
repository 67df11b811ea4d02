//! `statsieve top`: what a running sidecar does, live in a terminal, or once as plain text.
//!
//! In: the answers of `/api/v1/status`, `/api/v1/cardinality` and `/api/v1/top`. Out: sections of text ([`Section`]).
//! Not here: drawing them, keys (`screen`).
//! Always: text from outside shows no character that a terminal would obey.

mod screen;

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fetch::Get;
use super::healthcheck::{self, Prepared, prepare, target};
use super::{BAD_CONFIGURATION, FAILED, OK};
use crate::config::Sources;
use crate::expose::report::page::{advice, bytes, is_unseen, percent, rate, span, whole};
use crate::model::DropReason;

/// Longest wait for the connection, and for each part of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer taken, bytes.
const MOST_BYTES: u64 = 16 << 20;
/// Families asked for.
const FAMILIES: usize = 50;
/// Values of a bucketed tag that are shown.
const HEAVY: usize = 10;
/// What growth is taken over.
const MINUTE: Duration = Duration::from_secs(60);

/// What to show, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whom to ask.
    pub endpoint: healthcheck::Options,
    /// How long to wait between two looks.
    pub interval: Duration,
    /// Print it once, as plain text.
    pub once: bool,
}

/// Shows a sidecar until `q` is pressed, or once: 0, or 1 if it does not answer, 2 for a problem of an option.
///
/// # Errors
/// Those of `out` and of the terminal.
pub fn top(options: &Options, sources: &Sources, out: &mut dyn Write) -> io::Result<u8> {
    let endpoint = match target(&options.endpoint, sources).and_then(|target| prepare(&options.endpoint, target)) {
        Ok(endpoint) => endpoint,
        Err(problem) => {
            writeln!(out, "{problem}")?;
            return Ok(BAD_CONFIGURATION);
        }
    };
    if !options.once {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            writeln!(out, "there is no terminal; statsieve top --once prints it as text")?;
            return Ok(BAD_CONFIGURATION);
        }
        return screen::run(endpoint, options.interval);
    }
    match look(&endpoint) {
        Err(problem) => {
            writeln!(out, "{}: {problem}", endpoint.0)?;
            Ok(FAILED)
        }
        Ok(view) => {
            for (number, section) in view.sections(&Growth::default(), Sort::Cost).iter().enumerate() {
                if number > 0 {
                    writeln!(out, "\n{}", section.title)?;
                }
                for (_, line) in &section.lines {
                    writeln!(out, "{line}")?;
                }
            }
            Ok(OK)
        }
    }
}

/// What the sidecar told at one moment.
#[derive(Clone, Debug)]
struct View {
    address: String,
    status: Value,
    cardinality: Value,
    /// The list of a bucketed tag, or why there is none.
    heavy: Result<Value, String>,
}

/// Asks a sidecar for everything.
fn look(endpoint: &Prepared) -> Result<View, String> {
    let (address, tls, credentials) = endpoint;
    let ask = |path: &str| -> Result<Value, String> {
        let get = Get {
            address,
            path,
            accept: "application/json",
            credentials,
            tls: tls.clone(),
            timeout: TIMEOUT,
            most_bytes: MOST_BYTES,
        };
        let (status, body) = get.send().map_err(|error| error.to_string())?;
        match status {
            200 => serde_json::from_slice(&body).map_err(|_| "this is no sidecar of ours".to_owned()),
            401 => Err("401, it wants a name and a password: --user-file names a file with both".to_owned()),
            _ => Err(format!("{status} {}", visible(String::from_utf8_lossy(&body).trim_end()))),
        }
    };
    let status: Value = ask("/api/v1/status")?;
    let cardinality = ask(&format!("/api/v1/cardinality?limit={FAMILIES}"))?;
    // It may be for others only.
    let heavy = ask("/api/v1/top").and_then(|tops| match tops["tags"][0]["tag"].as_str() {
        None => Err("no tag is bucketed, or heavy_hitters.capacity is 0".to_owned()),
        Some(tag) => ask(&format!("/api/v1/top?tag={}", encoded(tag))),
    });
    Ok(View { address: address.clone(), status, cardinality, heavy })
}

/// Text as it may stand in a query.
fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(letter).collect()
}

/// Text in which every character shows, and none moves a cursor or turns the direction of writing.
fn visible(text: &str) -> String {
    let spelt = |letter: char| match is_unseen(letter) {
        true => letter.escape_unicode().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(spelt).collect()
}

/// Sample lines of families over the last minute.
#[derive(Debug, Default)]
struct Growth {
    /// The oldest first.
    seen: VecDeque<(Instant, HashMap<String, u64>)>,
}

impl Growth {
    fn note(&mut self, at: Instant, view: &View) {
        let lines = |family: &Value| Some((family["name"].as_str()?.to_owned(), family["sample_lines"].as_u64()?));
        self.seen.push_back((at, rows(&view.cardinality["families"]).filter_map(lines).collect()));
        // One older than a minute stays, to compare with.
        while self.seen.get(1).is_some_and(|(second, _)| at.duration_since(*second) >= MINUTE) {
            self.seen.pop_front();
        }
    }

    /// How many sample lines a family has more than at the first look; `None` of a single look.
    fn of(&self, name: &str, lines: u64) -> Option<i64> {
        let (_, before) = self.seen.front().filter(|_| self.seen.len() > 1)?;
        Some(lines as i64 - before.get(name).copied().unwrap_or_default() as i64)
    }

    /// What it is over.
    fn over(&self) -> Duration {
        match (self.seen.front(), self.seen.back()) {
            (Some((first, _)), Some((last, _))) => last.duration_since(*first),
            _ => Duration::ZERO,
        }
    }
}

/// The order of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Cost,
    Growth,
    Name,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Sort::Cost => Sort::Growth,
            Sort::Growth => Sort::Name,
            Sort::Name => Sort::Cost,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Sort::Cost => "cost",
            Sort::Growth => "growth",
            Sort::Name => "name",
        }
    }
}

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Care,
    Bad,
}

/// Lines under a title.
#[derive(Clone, Debug)]
struct Section {
    title: String,
    lines: Vec<(Tone, String)>,
}

impl View {
    /// Verdict, traffic, loss, families, heavy hitters: always these five.
    fn sections(&self, growth: &Growth, sort: Sort) -> [Section; 5] {
        [self.verdict(), self.traffic(), self.loss(), self.families(growth, sort), self.heavy()]
    }

    fn verdict(&self) -> Section {
        let verdict = &self.status["verdict"];
        let tone = match verdict["level"].as_str() {
            Some("ok") => Tone::Good,
            Some("warning") => Tone::Care,
            _ => Tone::Bad,
        };
        let up = span(self.status["uptime_seconds"].as_f64().unwrap_or_default());
        let title = format!("statsieve {} at {}, up {up}", text(&self.status["version"]), self.address);
        let line = format!("{}: {}", text(&verdict["level"]), text(&verdict["text"]));
        Section { title, lines: vec![(tone, line)] }
    }

    fn traffic(&self) -> Section {
        let (status, mut lines) = (&self.status, Vec::new());
        let (ledger, rates) = (&status["ledger"], &status["rates"]);
        let per_second = |key: &str| rate(rates[key].as_f64().unwrap_or_default());
        let mut put = |tone, name: &str, text: String| lines.push((tone, format!("{name:<10} {text}")));
        put(Tone::Plain, "lines", format!("{}, {} in all", per_second("lines"), whole(count(&ledger["lines"]))));
        put(
            Tone::Plain,
            "recorded",
            format!("{}, {} in all", per_second("recorded"), whole(count(&ledger["recorded"]))),
        );
        let lost = count(&ledger["lost"]);
        let tone = if rates["lost"].as_f64() > Some(0.0) { Tone::Bad } else { Tone::Plain };
        put(tone, "lost", format!("{}, {} in all", per_second("lost"), whole(lost)));
        let kernel = count(&ledger["kernel_dropped_datagrams"]);
        let tone = if rates["kernel_dropped_datagrams"].as_f64() > Some(0.0) { Tone::Bad } else { Tone::Plain };
        put(tone, "kernel", format!("{} datagrams dropped", whole(kernel)));
        if let Some(fill) = status["queue"]["fill"].as_f64() {
            let of = bytes(count(&status["queue"]["limit_bytes"]));
            put(Tone::Plain, "buffer", format!("{} {} of {of}", bar(fill), percent(fill)));
        }
        let least = rows(&status["sampling"]["rates"]).filter_map(Value::as_f64).fold(1.0, f64::min);
        let mode = text(&status["sampling"]["mode"]);
        match least < 1.0 {
            true => put(Tone::Care, "sampling", format!("keeps {} of the lines, weighted ({mode})", percent(least))),
            false => put(Tone::Plain, "sampling", format!("every line is kept ({mode})")),
        }
        let loads: Vec<String> = rows(&status["cpu"]["load"]).filter_map(Value::as_f64).map(percent).collect();
        put(Tone::Plain, "load", loads.join(", "));
        if let Some(p99) = status["latency"]["last_minute"]["p99"].as_f64() {
            put(Tone::Plain, "latency", format!("P99 {:.1} ms from arrival to recorded", 1e3 * p99));
        }
        put(Tone::Plain, "memory", bytes(count(&status["memory"]["resident_bytes"])));
        for limit in rows(&status["limits"]) {
            let name = text(&limit["limit"]);
            let figure = |n: u64| if name == "max_bytes" { bytes(n) } else { whole(n) };
            let share = limit["share"].as_f64().unwrap_or_default();
            let tone = if share >= 0.8 { Tone::Care } else { Tone::Plain };
            let (used, most) = (figure(count(&limit["used"])), figure(count(&limit["most"])));
            put(tone, name.trim_start_matches("max_"), format!("{} {used} of {most}", bar(share)));
        }
        if let Some(widest) = rows(&self.cardinality["labels"]).next() {
            let seen = widest["seen"].as_f64().unwrap_or_default().round() as u64;
            put(Tone::Plain, "widest", format!("label {}, about {} values", text(&widest["name"]), whole(seen)));
        }
        Section { title: "Traffic".to_owned(), lines }
    }

    fn loss(&self) -> Section {
        let reasons = self.status["ledger"]["dropped_by_reason"].as_object();
        let mut reasons: Vec<(&str, u64)> =
            reasons.into_iter().flatten().map(|(reason, n)| (reason.as_str(), count(n))).collect();
        reasons.sort_by_key(|(_, n)| Reverse(*n));
        let row = |(label, n): &(&str, u64)| {
            let reason = DropReason::ALL.iter().find(|it| it.label() == *label);
            let meant = matches!(reason, Some(DropReason::Sampled | DropReason::MappingDrop));
            let advice = reason.map_or("", |it| advice(*it));
            let tone = if meant { Tone::Plain } else { Tone::Bad };
            (tone, format!("{:>12}  {:<17} {advice}", whole(*n), visible(label)))
        };
        let mut lines: Vec<_> = reasons.iter().map(row).collect();
        if lines.is_empty() {
            lines.push((Tone::Good, "nothing is dropped".to_owned()));
        }
        Section { title: "Dropped samples by reason".to_owned(), lines }
    }

    fn families(&self, growth: &Growth, sort: Sort) -> Section {
        let of = |family: &Value| {
            let (name, lines) = (text(&family["name"]), count(&family["sample_lines"]));
            (growth.of(family["name"].as_str().unwrap_or_default(), lines), lines, name)
        };
        let mut families: Vec<&Value> = rows(&self.cardinality["families"]).collect();
        match sort {
            // That is how they come.
            Sort::Cost => {}
            Sort::Growth => families.sort_by_key(|family| Reverse(of(family).0)),
            Sort::Name => families.sort_by_key(|family| of(family).2),
        }
        let width = families.iter().map(|family| of(family).2.chars().count()).max().unwrap_or(0).clamp(8, 44);
        let over = growth.over().as_secs();
        let grown = if over > 0 { format!("in {over} s") } else { "growth".to_owned() };
        let mut lines =
            vec![(Tone::Plain, format!("{:<width$}  {:<9}  {:>9}  {grown:>8}  labels", "name", "type", "lines"))];
        for family in families {
            let (growth, cost, name) = of(family);
            let name: String = name.chars().take(width).collect();
            let labels: Vec<String> = rows(&family["labels"])
                .map(|label| format!("{} {}", text(&label["name"]), count(&label["values"])))
                .collect();
            let grown = growth.map_or("-".to_owned(), |more| format!("{more:+}"));
            let tone = if family["overflow"].as_bool() == Some(true) { Tone::Care } else { Tone::Plain };
            let (kind, cost, labels) = (text(&family["type"]), whole(cost), labels.join(", "));
            lines.push((tone, format!("{name:<width$}  {kind:<9}  {cost:>9}  {grown:>8}  {labels}")));
        }
        Section { title: format!("Families by {}", sort.word()), lines }
    }

    fn heavy(&self) -> Section {
        match &self.heavy {
            Err(why) => {
                Section { title: "Heavy hitters".to_owned(), lines: vec![(Tone::Plain, format!("not shown: {why}"))] }
            }
            Ok(list) => {
                let row = |value: &Value| {
                    let n = value["count"].as_f64().unwrap_or_default().round() as u64;
                    (Tone::Plain, format!("{:>12}  {}", whole(n), text(&value["value"])))
                };
                let title = format!("Heavy hitters of {}, about", text(&list["tag"]));
                Section { title, lines: rows(&list["values"]).take(HEAVY).map(row).collect() }
            }
        }
    }
}

fn bar(share: f64) -> String {
    let full = (10.0 * share.clamp(0.0, 1.0)).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(10 - full))
}

fn text(value: &Value) -> String {
    visible(value.as_str().unwrap_or_default())
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
