//! The scenarios: what is sent, by how many users and senders, how fast, and for how long.
//!
//! In: a name, and what the command line changes. Out: [`Scenario`], with the settings of the sidecar it is meant for.
//! Not here: the lines themselves (`traffic`), and sending them (`send`).

use std::time::Duration;

/// What the lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A bot's day: two in five are messages of users, then caches, timers, gauges, histograms, and a set; some
    /// sampled.
    Bot,
    /// The README's table "What a bot sends", all rows alike, and a set.
    Table,
    /// A counter for every line.
    Series,
    /// A tag value never seen before on every line.
    NewValues,
}

/// How fast lines leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Samples a second.
    Rate(f64),
    /// As fast as they are taken: over UDP to this machine the sender watches the receiver's queue and waits while it
    /// is a quarter full, a stream makes it wait, and elsewhere nothing does.
    FlatOut,
    /// So many samples at once, and then nothing for the rest of each such time.
    Burst(u64, Duration),
}

/// A part of a scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) pace: Pace,
    pub(super) length: Duration,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) content: Content,
    pub(super) users: u32,
    pub(super) senders: usize,
    /// Lines made in memory; they are sent again from the first when all are sent.
    pub(super) lines: usize,
    pub(super) steps: Vec<Step>,
    /// Of the sidecar that is started for it.
    pub(super) settings: &'static [&'static str],
    /// The 95th percentile from arrival to recorded in milliseconds, and memory in MB, that operators put up with.
    pub(super) ceiling: Option<(f64, f64)>,
}

/// Names of all scenarios, in the order in which `all` runs them.
pub(super) const NAMES: [&str; 12] = [
    "low",
    "medium",
    "high",
    "peak",
    "extreme",
    "million",
    "concurrent",
    "burst",
    "memory",
    "cardinality",
    "broadcast",
    "mixed",
];

/// How long a scenario lasts unless something else is asked for.
const LENGTH: Duration = Duration::from_secs(8);

/// Most lines made in memory for traffic that never repeats; a tenth of a gigabyte of text.
const MOST_LINES: usize = 5_000_000;

/// Without waiting for more datagrams, as low rates are judged by.
const AT_ONCE: &[&str] = &["listen.coalesce=0s"];

/// Room for a million series.
const ROOMY: &[&str] = &[
    "cardinality.max_series=2000000",
    "cardinality.max_series_per_family=2000000",
    "cardinality.max_bytes=1073741824",
    "cardinality.new_series_per_second=0",
    "labels.max_values=1000000",
    "sampling.mode=off",
];

impl Scenario {
    /// The scenario of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = *NAMES.iter().find(|known| **known == name)?;
        let steady = |samples: f64| vec![Step { pace: Pace::Rate(samples), length: LENGTH }];
        let bot = |about, users: u32, samples, ceiling| Self {
            name,
            about,
            content: Content::Bot,
            users,
            senders: 4,
            // Every other message is from the next user in turn, and two lines in five are messages.
            lines: (users as usize * 5).max(100_000),
            steps: steady(samples),
            settings: &[],
            ceiling,
        };
        Some(match name {
            "low" => Self {
                senders: 1,
                settings: AT_ONCE,
                ..bot("10 users, 1,000 samples a second", 10, 1e3, Some((0.5, 50.0)))
            },
            "medium" => {
                Self { settings: AT_ONCE, ..bot("100 users, 10,000 samples a second", 100, 1e4, Some((1.2, 200.0))) }
            }
            "high" => bot("1,000 users, 50,000 samples a second", 1_000, 5e4, Some((2.8, 500.0))),
            "peak" => bot("10,000 users, 100,000 samples a second", 10_000, 1e5, Some((5.5, 1000.0))),
            "extreme" => bot("100,000 users, 500,000 samples a second", 100_000, 5e5, Some((12.0, 2000.0))),
            "million" => Self {
                steps: vec![Step { pace: Pace::FlatOut, length: LENGTH }],
                settings: &["sampling.mode=off"],
                ..bot("1,000,000 users, as fast as it is taken", 1_000_000, 0.0, None)
            },
            "concurrent" => Self {
                senders: 1000,
                lines: 200_000,
                ..bot("1,000 senders in turn, 100 samples each", 10_000, 2e5, None)
            },
            "burst" => Self {
                steps: vec![Step { pace: Pace::Burst(50_000, Duration::from_secs(1)), length: LENGTH }],
                ..bot("50,000 samples at once, every second", 1_000, 0.0, None)
            },
            "memory" => Self {
                content: Content::Series,
                lines: 1_000_000,
                steps: vec![Step { pace: Pace::Rate(2e5), length: Duration::from_secs(10) }],
                settings: ROOMY,
                ..bot("a million series, each sent twice", 0, 0.0, None)
            },
            "cardinality" => Self {
                content: Content::NewValues,
                lines: MOST_LINES,
                ..bot("a new tag value on every line, default limits", 0, 5e4, None)
            },
            "broadcast" => Self {
                steps: [1e4, 1e5, 1e4]
                    .map(|samples| Step { pace: Pace::Rate(samples), length: Duration::from_secs(3) })
                    .into(),
                ..bot("10,000 samples a second, then ten times as many, then 10,000", 10_000, 0.0, None)
            },
            _ => Self {
                content: Content::Table,
                lines: 200_000,
                ..bot("every metric of a bot, 20,000 samples a second", 10_000, 2e4, None)
            },
        })
    }

    /// How long it lasts.
    pub(super) fn length(&self) -> Duration {
        self.steps.iter().map(|step| step.length).sum()
    }

    /// Stretches or shortens it as a whole.
    #[must_use]
    pub(super) fn lasting(mut self, length: Duration) -> Self {
        let factor = length.as_secs_f64() / self.length().as_secs_f64();
        self.steps.iter_mut().for_each(|step| step.length = step.length.mul_f64(factor));
        self
    }

    /// Starts it at another rate, keeping the ratio between its steps; 0 is flat out. `None` if bursts have no rate.
    pub(super) fn at(mut self, rate: f64) -> Option<Self> {
        let first = match self.steps[0].pace {
            Pace::Rate(first) => first,
            Pace::FlatOut => rate,
            Pace::Burst(..) => return None,
        };
        for step in &mut self.steps {
            step.pace = match step.pace {
                _ if rate == 0.0 => Pace::FlatOut,
                Pace::Rate(samples) => Pace::Rate(samples / first * rate),
                _ => Pace::Rate(rate),
            };
        }
        Some(self)
    }

    /// Lines that it sends in all; `None` if that depends on how fast they are taken.
    pub(super) fn samples(&self) -> Option<u64> {
        self.steps.iter().map(Step::samples).sum()
    }

    /// Lines to make: no more than will be sent.
    pub(super) fn lines_made(&self) -> usize {
        let sent = self.samples().map_or(usize::MAX, |samples| samples as usize);
        self.lines.min(sent).max(1)
    }
}

impl Step {
    fn samples(&self) -> Option<u64> {
        match self.pace {
            Pace::Rate(samples) => Some((samples * self.length.as_secs_f64()).ceil() as u64),
            Pace::FlatOut => None,
            Pace::Burst(samples, every) => Some(samples * self.bursts(every)),
        }
    }

    /// How many bursts it has room for, at least one.
    pub(super) fn bursts(&self, every: Duration) -> u64 {
        ((self.length.as_secs_f64() / every.as_secs_f64()).round() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_scenario_and_all_together_take_less_than_two_minutes() {
        let all: Vec<Scenario> = NAMES.iter().map(|name| Scenario::named(name).unwrap()).collect();
        assert!(all.iter().zip(NAMES).all(|(scenario, name)| scenario.name == name));
        assert!(all.iter().map(Scenario::length).sum::<Duration>() < Duration::from_secs(120));
        assert!(Scenario::named("mid").is_none());
    }

    #[test]
    fn rate_and_length_change_what_is_sent_in_proportion() {
        let broadcast = Scenario::named("broadcast").unwrap();
        assert_eq!(broadcast.samples(), Some(30_000 + 300_000 + 30_000));
        let slower = broadcast.lasting(Duration::from_secs(3)).at(100.0).unwrap();
        assert_eq!(slower.samples(), Some(100 + 1_000 + 100));
        assert_eq!(Scenario::named("low").unwrap().at(0.0).unwrap().samples(), None);
        assert_eq!(Scenario::named("million").unwrap().at(10.0).unwrap().samples(), Some(80));
        assert!(Scenario::named("burst").unwrap().at(10.0).is_none());
        let short = Scenario::named("burst").unwrap().lasting(Duration::from_millis(10));
        assert_eq!((short.samples(), short.lines_made()), (Some(50_000), 50_000));
    }
}
