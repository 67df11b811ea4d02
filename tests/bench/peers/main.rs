//! The same load on statsieve, on an empty receiver, and on every peer that is on PATH: `cargo bench --bench peers`.
//!
//! Out: a Markdown table with the target of each row, on standard output; figures as they come go to standard error.
//! The sender has one core and the receivers another; programs take turns, and a figure is the median of the rounds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program that prints")]

mod empty;
mod http;
mod machine;
mod measure;
mod process;
mod programs;
mod readme;
mod receiver;
mod send;
mod table;
mod traffic;

use std::io;
use std::time::Duration;

use clap::Parser;

use measure::Effort;
use process::Cores;
use programs::Program;
use send::{Pace, Sender};
use table::{Row, Target, Unit};
use traffic::{Kind, Traffic};

#[derive(Debug, Parser)]
#[command(about = "Measures statsieve and other receivers of StatsD lines under the same load")]
struct Options {
    /// Only rows whose name holds this; may be given again
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only receivers whose name holds this; may be given again
    #[arg(long, value_name = "NAME")]
    receiver: Vec<String>,
    /// Rounds of each row, whose median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each run lasts
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One short round of each row, without those of many series: to see that it works, not for figures
    #[arg(long)]
    quick: bool,
    /// Writes README.md's section "Performance" from what the benches left in target/; tests/bench/run does all of it
    #[arg(long)]
    readme: bool,
    /// Names the rows and ends
    #[arg(long)]
    list: bool,
    /// Only sends, for --seconds, to whatever listens on this port of 127.0.0.1
    #[arg(long, value_name = "PORT")]
    send_to: Option<u16>,
    /// What --send-to sends: bot, single or plain
    #[arg(long, value_name = "WHAT", default_value = "bot")]
    traffic: String,
    /// Lines a second of --send-to; 0 is as fast as it goes
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Runs the empty receiver; for this program itself
    #[arg(long, hide = true, value_name = "PORT")]
    empty_receiver: Option<u16>,
    /// Cargo gives it to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a row measures.
#[derive(Clone, Copy, Debug)]
enum What {
    CpuPerLine(Kind, Pace),
    Ceiling(Kind),
    /// The figures of so many new series, one row each.
    Series(usize),
    /// The figures of a program that has nothing to do.
    Idle,
}

impl What {
    /// Of the traffic that it needs.
    fn kind(self) -> Option<Kind> {
        match self {
            Self::CpuPerLine(kind, _) | Self::Ceiling(kind) => Some(kind),
            Self::Series(_) | Self::Idle => None,
        }
    }
}

/// A row, or several that are measured together: name, words, unit, target, and what the empty receiver took where the
/// target was set.
type Said = (&'static str, &'static str, Unit, f64, Option<f64>);

/// Lines a second that arrive while it is scraped.
const UNDER: f64 = 200_000.0;

use Kind::{Bot, Plain, Single};
use Pace::{FlatOut, Rate};
use Unit::{Bytes, LinesPerSecond, Mebibytes, Microseconds, Milliseconds, Nanoseconds};
use What::{Ceiling, CpuPerLine, Idle, Series};

/// All rows, in their order; an empty name is a figure that is measured but not shown.
const ROWS: [(What, &[Said]); 14] = [
    (
        CpuPerLine(Bot, FlatOut),
        &[("bot_flat_out", "CPU a line: bot profile, flat out", Nanoseconds, 100.0, Some(31.0))],
    ),
    (CpuPerLine(Bot, Rate(1e6)), &[("bot_1m", "the same at 1 M lines/s", Nanoseconds, 130.0, Some(82.0))]),
    (CpuPerLine(Bot, Rate(2e5)), &[("bot_200k", "the same at 200 k lines/s", Nanoseconds, 150.0, Some(352.0))]),
    (CpuPerLine(Bot, Rate(2e4)), &[("bot_20k", "the same at 20 k lines/s", Nanoseconds, 600.0, Some(515.0))]),
    (Ceiling(Bot), &[("bot_ceiling", "most without loss, bot profile", LinesPerSecond, 9e6, Some(19e6))]),
    (
        CpuPerLine(Single, FlatOut),
        &[("single_flat_out", "CPU a line: one a datagram, flat out", Nanoseconds, 800.0, Some(673.0))],
    ),
    (CpuPerLine(Single, Rate(5e4)), &[("single_50k", "the same at 50 k lines/s", Nanoseconds, 900.0, Some(1680.0))]),
    (
        Ceiling(Single),
        &[("single_ceiling", "most without loss, one line a datagram", LinesPerSecond, 0.75e6, Some(0.87e6))],
    ),
    (
        CpuPerLine(Plain, Rate(2e5)),
        &[("plain_200k", "CPU a line: plain names, 200 k lines/s", Nanoseconds, 120.0, Some(197.0))],
    ),
    (Ceiling(Plain), &[("plain_ceiling", "most without loss, plain names", LinesPerSecond, 15e6, Some(31e6))]),
    (
        Series(1000),
        &[
            ("", "", Microseconds, 0.0, None),
            ("", "", Bytes, 0.0, None),
            ("scrape_1k", "CPU of a scrape: 1 k series", Milliseconds, 0.2, None),
            ("scrape_1k_gzip", "the same, gzip", Milliseconds, f64::NAN, None),
            ("", "", Milliseconds, 0.0, None),
        ],
    ),
    (
        Series(100_000),
        &[
            ("new_100k", "CPU of a new series, 100 k", Microseconds, 1.0, None),
            ("memory_100k", "resident memory of a counter, 100 k", Bytes, 200.0, None),
            ("scrape_100k", "CPU of a scrape: 100 k series", Milliseconds, 8.0, None),
            ("scrape_100k_gzip", "the same, gzip", Milliseconds, 20.0, None),
            ("scrape_100k_busy", "time of it while 200 k lines/s arrive, none lost", Milliseconds, 25.0, None),
        ],
    ),
    (
        Series(1_000_000),
        &[
            ("", "", Microseconds, 0.0, None),
            ("memory_1m", "resident memory of a counter, 1 M", Bytes, 200.0, None),
            ("scrape_1m", "CPU of a scrape: 1 M series", Milliseconds, 100.0, None),
            ("", "", Milliseconds, 0.0, None),
            ("", "", Milliseconds, 0.0, None),
        ],
    ),
    (
        Idle,
        &[
            ("idle_memory", "resident when idle", Mebibytes, 6.0, Some(2.8)),
            ("idle_ready", "from start to ready", Milliseconds, 10.0, Some(3.0)),
            ("idle_cpu", "CPU of an idle second", Milliseconds, 0.0, None),
        ],
    ),
];

fn main() -> io::Result<()> {
    let options = match std::env::args().nth(1).as_deref() {
        // As one of all targets that `cargo test` runs: a round, to see that it works.
        None | Some("--include-ignored") => {
            let round = "peers --quick --only bot_200k --only scrape_1k --receiver empty --receiver statsieve";
            Options::parse_from(round.split(' '))
        }
        _ => Options::parse(),
    };
    if let Some(port) = options.empty_receiver {
        return empty::run(port);
    }
    let all = || ROWS.iter().flat_map(|(_, said)| said.iter()).filter(|said| !said.0.is_empty());
    if options.readme {
        return readme::write();
    }
    if options.list {
        all().for_each(|said| println!("{:18} {}", said.0, said.1));
        return Ok(());
    }
    let cores = Cores::choose()?;
    process::pin(cores.sender)?;
    let (rounds, seconds) = if options.quick { (1, 0.3) } else { (options.rounds.max(1), options.seconds) };
    let effort = Effort { cores, rounds, time: Duration::from_secs_f64(seconds) };
    if let Some(port) = options.send_to {
        return send_to(port, &options, effort.time);
    }
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|part| name.contains(part));
    let (programs, missing): (Vec<Program>, Vec<Program>) = Program::ALL
        .into_iter()
        .filter(|program| wanted(&options.receiver, program.name()))
        .partition(|program| program.find().is_some());
    missing.iter().for_each(|program| eprintln!("{}: not on PATH", program.name()));
    let mut rows: Vec<Row> = Vec::new();
    let is_wanted = |said: &Said| !said.0.is_empty() && wanted(&options.only, said.0);
    let measured: Vec<_> = ROWS
        .into_iter()
        .filter(|(_, said)| said.iter().any(is_wanted))
        .filter(|(what, _)| !(options.quick && matches!(what, Series(10_000..))))
        .collect();
    // Rows with the same traffic share their receivers.
    for group in measured.chunk_by(|(a, _), (b, _)| a.kind().is_some() && a.kind() == b.kind()) {
        let made = group[0].0.kind().map(|kind| (kind, Traffic::new(kind)));
        let mut running = match &made {
            Some((kind, traffic)) => Some(effort.start(&programs, *kind, traffic)?),
            None => None,
        };
        for (what, said) in group {
            let figures = match (*what, &mut running) {
                (CpuPerLine(_, pace), Some(running)) => vec![effort.cpu_per_line(running, pace)?],
                (Ceiling(_), Some(running)) => vec![effort.ceiling(running)?],
                (Series(series), _) => effort.series(&programs, series, UNDER)?.into(),
                _ => effort.idle(&programs)?.into(),
            };
            for (said, figures) in said.iter().zip(figures).filter(|(said, _)| is_wanted(said)) {
                let (name, says, unit, figure, empty) = *said;
                let told: Vec<String> = programs
                    .iter()
                    .zip(&figures)
                    .map(|(program, f)| format!("{} {}", program.name(), f.text()))
                    .collect();
                eprintln!("{name}: {}", told.join(", "));
                rows.push(Row { says, unit, target: Target { figure, empty }, figures });
            }
        }
    }
    let names: Vec<&str> = programs.iter().map(|program| program.name()).collect();
    let place = |wanted| programs.iter().position(|program| *program == wanted);
    let table = table::markdown(&names, &rows, place(Program::Empty), place(Program::Statsieve));
    let text = format!("{}\n{table}", how(&effort, &programs, &missing));
    print!("{text}");
    Ok(())
}

/// The machine, the command, and what the table needs said before it.
fn how(effort: &Effort, programs: &[Program], missing: &[Program]) -> String {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments = if arguments.is_empty() { String::new() } else { format!(" -- {}", arguments.join(" ")) };
    let mut text = format!(
        "`cargo bench --bench peers{arguments}` on\n{}.\n\
         The sender has one core and the receiver another; UDP over the loopback, {} s a run, programs in turn, median \
         of {}.\nCPU is user and system time of the receiving process. In brackets: as a multiple of statsieve's \
         figure, where it\nis another program's, and of the empty receiver's, which reads datagrams and counts newlines: the \
         kernel's price.\nA target's brackets hold its multiple of the empty receiver on the machine that it was set \
         on.\n",
        machine::describe(),
        effort.time.as_secs_f64(),
        effort.rounds,
    );
    let versions: Vec<String> = programs.iter().filter_map(|program| program.version()).collect();
    if !versions.is_empty() {
        text.push_str(&format!("Versions: {}.\n", versions.join("; ")));
    }
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.iter().map(|program| program.name()).collect();
        text.push_str(&format!("Not on PATH: {}.\n", missing.join(", ")));
    }
    text
}

/// Sends to a receiver that somebody else started, so that it can be looked at with a profiler.
fn send_to(port: u16, options: &Options, time: Duration) -> io::Result<()> {
    let kind = Kind::ALL.iter().find(|(name, _)| *name == options.traffic);
    let (_, kind) = kind.ok_or_else(|| io::Error::other("--traffic is bot, single or plain"))?;
    let traffic = Traffic::new(*kind);
    let pace = if options.rate > 0.0 { Rate(options.rate) } else { FlatOut };
    let sent = Sender::new(&traffic).send(([127, 0, 0, 1], port).into(), pace, time)?;
    println!("{} lines in {} datagrams, {:.0} lines/s", sent.lines, sent.datagrams, sent.lines_per_second());
    Ok(())
}
