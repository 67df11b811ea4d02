//! How each figure is measured.
//!
//! In: receivers and traffic. Out: figures. Always: CPU is that of the receiving process alone, user and system, and a
//! receiver is asked what it took outside of the time that is measured.

use std::io;
use std::time::{Duration, Instant};

use crate::http;
use crate::process::Cores;
use crate::programs::{Limits, Program};
use crate::receiver::{Receiver, Taken};
use crate::send::{Pace, Sender};
use crate::table::Figure;
use crate::traffic::{Kind, Traffic};

/// What everything is measured with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) cores: Cores,
    /// Of each figure; it is their median.
    pub(crate) rounds: usize,
    /// Of a run at a rate.
    pub(crate) time: Duration,
}

/// Lines a second before anything is measured. Those that cannot take as much know the series all the same.
const WARM_UP_RATE: f64 = 500_000.0;

/// New series are sent so slowly that a receiver that takes 10 µs for one can keep up.
const NEW_SERIES_RATE: f64 = 80_000.0;

/// Of the highest rate, between the one that was taken whole and the one that was not.
const CEILING_STEP: f64 = 0.03;

/// Receivers that run side by side, and their sender.
pub(crate) struct Running<'a> {
    /// In the order of the programs; `None` for those that do not read such lines.
    receivers: Vec<Option<Receiver>>,
    sender: Sender<'a>,
}

/// What became of what was sent.
#[derive(Clone, Copy, Debug)]
struct Run {
    ns_per_line: f64,
    lost: f64,
    sent_per_second: f64,
    taken_per_second: f64,
}

impl Effort {
    /// Starts those of `programs` that read lines of this kind, and sends them everything twice, so that every series
    /// is there and known.
    pub(crate) fn start<'a>(&self, programs: &[Program], kind: Kind, traffic: &'a Traffic) -> io::Result<Running<'a>> {
        let mut sender = Sender::new(traffic);
        let start = |program: &Program| {
            if kind != Kind::Plain && !program.reads_tags() {
                return Ok(None);
            }
            let receiver = Receiver::start(*program, Limits::Default, self.cores)?;
            sender.send_all(receiver.udp, Pace::Rate(WARM_UP_RATE), 2)?;
            receiver.settle()?;
            Ok(Some(receiver))
        };
        let receivers: io::Result<_> = programs.iter().map(start).collect();
        Ok(Running { receivers: receivers?, sender })
    }

    /// CPU ns for each line that was taken.
    pub(crate) fn cpu_per_line(&self, running: &mut Running<'_>, pace: Pace) -> io::Result<Vec<Figure>> {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); running.receivers.len()];
        for _ in 0..self.rounds {
            for (receiver, runs) in running.receivers.iter_mut().zip(&mut runs) {
                if let Some(receiver) = receiver {
                    runs.push(run(receiver, &mut running.sender, pace, self.time)?);
                }
            }
        }
        let figure = |mut runs: Vec<Run>| {
            runs.sort_by(|a, b| a.ns_per_line.total_cmp(&b.ns_per_line));
            let Some(median) = runs.get(runs.len() / 2) else { return Figure::default() };
            // Nothing taken has no cost.
            let value = Some(median.ns_per_line).filter(|ns| ns.is_finite());
            Figure { value, lost: median.lost, at_least: false }
        };
        Ok(runs.into_iter().map(figure).collect())
    }

    /// The highest rate at which nothing is lost, in lines a second. A rate counts as taken if one of two runs lost
    /// nothing, since a core of a shared machine is sometimes away for longer than a buffer lasts.
    pub(crate) fn ceiling(&self, running: &mut Running<'_>) -> io::Result<Vec<Figure>> {
        let time = self.time.mul_f64(0.3);
        let Running { receivers, sender } = running;
        let ceiling = |receiver: &mut Option<Receiver>| {
            let Some(receiver) = receiver else { return Ok(Figure::default()) };
            let mut better = |pace| -> io::Result<Run> {
                let first = run(receiver, sender, pace, time)?;
                if first.lost <= 0.0 { Ok(first) } else { run(receiver, sender, pace, time) }
            };
            let flooded = better(Pace::FlatOut)?;
            if flooded.lost <= 0.0 {
                return Ok(Figure { value: Some(flooded.sent_per_second), at_least: true, lost: 0.0 });
            }
            // A flooded receiver takes less than it could.
            let (mut least, mut most) = (0.0, flooded.sent_per_second.min(flooded.taken_per_second * 4.0));
            while most - least > most * CEILING_STEP && most > 1000.0 {
                let middle = (least + most) / 2.0;
                if better(Pace::Rate(middle))?.lost <= 0.0 { least = middle } else { most = middle }
            }
            Ok(Figure { value: Some(least).filter(|rate| *rate > 0.0), ..Figure::default() })
        };
        receivers.iter_mut().map(ceiling).collect()
    }

    /// Resident MiB after a second of nothing; ms from start to open ports; CPU ms in a second of nothing.
    pub(crate) fn idle(&self, programs: &[Program]) -> io::Result<[Vec<Figure>; 3]> {
        let mut figures = [Vec::new(), Vec::new(), Vec::new()];
        for program in programs {
            let mut all = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..self.rounds {
                let receiver = Receiver::start(*program, Limits::Default, self.cores)?;
                std::thread::sleep(Duration::from_secs(1));
                let resident = receiver.resident_bytes()? as f64 / f64::from(1 << 20);
                let (before, start) = (receiver.cpu()?, Instant::now());
                std::thread::sleep(self.time);
                let cpu = receiver.cpu()?.since(before).as_secs_f64() / start.elapsed().as_secs_f64();
                // Whoever wakes once in a while is idle: to a tenth.
                let cpu = (cpu * 1e4).round() / 10.0;
                for (all, one) in all.iter_mut().zip([resident, receiver.ready_after.as_secs_f64() * 1e3, cpu]) {
                    all.push(one);
                }
            }
            for (figures, all) in figures.iter_mut().zip(all) {
                figures.push(Figure { value: median(all), ..Figure::default() });
            }
        }
        Ok(figures)
    }

    /// Of so many new series: CPU µs for each, resident bytes for each, CPU ms of a scrape of all, plain and gzip, and
    /// ms from request to answer while `under` lines a second arrive.
    pub(crate) fn series(&self, programs: &[Program], series: usize, under: f64) -> io::Result<[Vec<Figure>; 5]> {
        let traffic = Traffic::series(series);
        let mut figures = [const { Vec::new() }; 5];
        for program in programs {
            let found = match program.scrape_path() {
                Some(path) => self.series_of(*program, path, &traffic, under)?,
                None => [None; 5],
            };
            for (figures, value) in figures.iter_mut().zip(found) {
                figures.push(Figure { value, ..Figure::default() });
            }
        }
        Ok(figures)
    }

    fn series_of(&self, program: Program, path: &str, traffic: &Traffic, under: f64) -> io::Result<[Option<f64>; 5]> {
        let mut receiver = Receiver::start(program, Limits::Raised, self.cores)?;
        let mut sender = Sender::new(traffic);
        receiver.settle()?;
        let (memory, cpu) = (receiver.resident_bytes()?, receiver.cpu()?);
        sender.send_all(receiver.udp, Pace::Rate(NEW_SERIES_RATE), 1)?;
        receiver.settle()?;
        let cpu = receiver.cpu()?.since(cpu).as_secs_f64() * 1e6;
        let memory = receiver.resident_bytes()?.saturating_sub(memory) as f64;
        let text = http::get(receiver.http, path, false)?;
        let there = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"bot_counted")).count();
        if (there as u64) < traffic.lines * 99 / 100 {
            eprintln!("{} has {there} of {} series: no figures", program.name(), traffic.lines);
            return Ok([None; 5]);
        }
        let there = there as f64;
        // A scrape of few series is short, and the first ones of a program fill its buffers.
        let scrapes = if traffic.lines > 10_000 { self.rounds } else { self.rounds * 7 };
        let scrape = |gzip| -> io::Result<Option<f64>> {
            let mut all = Vec::new();
            for _ in 0..=scrapes {
                receiver.settle()?;
                let before = receiver.cpu()?;
                http::get(receiver.http, path, gzip)?;
                // It may still tidy up after the answer's last byte.
                receiver.settle()?;
                all.push(receiver.cpu()?.since(before).as_secs_f64() * 1e3);
            }
            Ok(median(all.split_off(1)))
        };
        let (plain, gzip) = (scrape(false)?, scrape(true)?);
        let (udp, http) = (receiver.udp, receiver.http);
        let mut waited = Vec::new();
        let before = receiver.taken()?;
        let sent = std::thread::scope(|scope| {
            let time = Duration::from_millis(500) * (self.rounds as u32 + 1);
            let sending = scope.spawn(move || Sender::new(traffic).send(udp, Pace::Gentle(under), time));
            for _ in 0..self.rounds {
                std::thread::sleep(Duration::from_millis(200));
                let start = Instant::now();
                http::get(http, path, false)?;
                waited.push(start.elapsed().as_secs_f64() * 1e3);
            }
            sending.join().map_err(|_| io::Error::other("the sender panicked"))?
        })?;
        receiver.settle()?;
        let lost = lost(before, receiver.taken()?, sent.lines, sent.datagrams)?;
        // What loses lines is not the same work.
        let waited = median(waited).filter(|_| lost <= 0.0);
        Ok([Some(cpu / there), Some(memory / there), plain, gzip, waited])
    }
}

/// Sends for a time, and sees what became of it.
fn run(receiver: &mut Receiver, sender: &mut Sender<'_>, pace: Pace, time: Duration) -> io::Result<Run> {
    let taken = receiver.taken()?;
    receiver.settle()?;
    let before = receiver.cpu()?;
    let sent = sender.send(receiver.udp, pace, time)?;
    receiver.settle()?;
    let cpu = receiver.cpu()?.since(before);
    let lost = lost(taken, receiver.taken()?, sent.lines, sent.datagrams)?;
    let taken = sent.lines as f64 * (1.0 - lost);
    Ok(Run {
        ns_per_line: cpu.as_nanos() as f64 / taken,
        lost,
        sent_per_second: sent.lines_per_second(),
        taken_per_second: taken / sent.time.as_secs_f64(),
    })
}

/// The share of the lines sent that were not taken.
fn lost(before: Taken, after: Taken, lines: u64, datagrams: u64) -> io::Result<f64> {
    match (before, after) {
        (Taken::Lines(before), Taken::Lines(after)) => Ok(1.0 - (after - before) as f64 / lines as f64),
        (Taken::AllBut(before), Taken::AllBut(after)) => Ok((after - before) as f64 / datagrams as f64),
        _ => Err(io::Error::other("a receiver counts one way only")),
    }
}

fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}
