//! Makes the datagrams that every receiver gets, in memory and before anything is measured.
//!
//! Out: [`Traffic`], the same in every run. Always: every line ends in a newline, and a datagram holds whole lines.

use std::fmt::Write as _;

use fastrand::Rng;

/// What fits into one packet of an Ethernet, as DogStatsD clients pack.
const DATAGRAM_BYTES: usize = 1432;

/// Bytes of lines made of one kind: about 300,000 lines of a bot.
const TOTAL_BYTES: usize = 16 << 20;

/// Datagrams of one line.
const SINGLES: usize = 1 << 17;

const USERS: usize = 100_000;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Datagrams of about 26 lines with DogStatsD tags, 100,000 users by a zipf law.
    Bot,
    /// The lines of `Bot`, each in a datagram of its own.
    Single,
    /// A thousand names without tags, as every StatsD server reads them.
    Plain,
}

impl Kind {
    pub(crate) const ALL: [(&str, Self); 3] = [("bot", Self::Bot), ("single", Self::Single), ("plain", Self::Plain)];
}

/// All that is sent, over and over again.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Datagrams behind one another.
    pub(crate) bytes: Vec<u8>,
    pub(crate) datagrams: Vec<Datagram>,
    pub(crate) lines: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) lines: u64,
}

impl Traffic {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut draw = Draw::new();
        match kind {
            Kind::Bot => Self::packed(TOTAL_BYTES, |out| draw.bot(out)),
            Kind::Plain => Self::packed(TOTAL_BYTES, |out| draw.plain(out)),
            Kind::Single => {
                let mut traffic = Self::empty();
                let mut line = String::new();
                for _ in 0..SINGLES {
                    line.clear();
                    draw.bot(&mut line);
                    traffic.push(&line, 0);
                }
                traffic
            }
        }
    }

    /// So many counters, each in one line and none twice.
    pub(crate) fn series(series: usize) -> Self {
        let mut traffic = Self::empty();
        let mut line = String::new();
        for number in 0..series {
            line.clear();
            let (family, chat) = (number % 20, number / 20);
            writeln!(line, "bot.counted.part{family}:1|c|#chat:c{chat}").expect("text");
            traffic.push(&line, DATAGRAM_BYTES);
        }
        traffic
    }

    fn empty() -> Self {
        Self { bytes: Vec::new(), datagrams: Vec::new(), lines: 0 }
    }

    fn packed(bytes: usize, mut write: impl FnMut(&mut String)) -> Self {
        let mut traffic = Self::empty();
        let mut line = String::new();
        while traffic.bytes.len() < bytes {
            line.clear();
            write(&mut line);
            traffic.push(&line, DATAGRAM_BYTES);
        }
        traffic
    }

    /// Adds a line to the last datagram, if that has room for it among `most` bytes.
    fn push(&mut self, line: &str, most: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(line.as_bytes());
        let end = self.bytes.len();
        self.lines += 1;
        match self.datagrams.last_mut().filter(|last| end - last.start <= most) {
            Some(last) => {
                last.end = end;
                last.lines += 1;
            }
            None => self.datagrams.push(Datagram { start, end, lines: 1 }),
        }
    }

    /// Of a datagram, on average.
    pub(crate) fn lines_a_datagram(&self) -> f64 {
        self.lines as f64 / self.datagrams.len() as f64
    }
}

/// Draws lines.
struct Draw {
    rng: Rng,
    /// The chance of a user of this rank or a lower one.
    users: Vec<f64>,
}

impl Draw {
    fn new() -> Self {
        let mut sum = 0.0;
        let mut users: Vec<f64> = (1..=USERS)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        users.iter_mut().for_each(|chance| *chance /= sum);
        Self { rng: Rng::with_seed(8125), users }
    }

    /// An id of nine or ten digits.
    fn user(&mut self) -> u64 {
        let drawn = self.rng.f64();
        let rank = self.users.partition_point(|chance| *chance < drawn) as u64;
        100_000_000 + rank.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 7_000_000_000
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.rng.usize(..all.len())]
    }

    /// 40 % counters of users, 20 % cache hits and misses, 15 % gauges, 20 % timers, 5 % histograms.
    fn bot(&mut self, out: &mut String) {
        let activities = ["message", "photo", "voice", "callback", "sticker", "inline_query", "edited_message", "poll"];
        let methods =
            ["sendMessage", "editMessageText", "answerCallbackQuery", "sendPhoto", "getFile", "deleteMessage"];
        match self.rng.u32(..100) {
            0..40 => {
                let (user, activity) = (self.user(), self.of(&activities));
                write!(out, "bot.messages:1|c|#user_id:{user},activity_type:{activity}").expect("text");
            }
            40..60 => {
                let (outcome, cache) =
                    (self.of(&["hits", "hits", "hits", "misses"]), self.of(&["users", "chats", "files"]));
                let rate = if self.rng.bool() { "|@0.1" } else { "" };
                write!(out, "bot.cache.{outcome}:1|c{rate}|#cache:{cache},tier:memory").expect("text");
            }
            60..75 => {
                let (value, queue) = (self.rng.u32(..5000), self.of(&["outbox", "updates", "media", "broadcast"]));
                write!(out, "bot.queue.length:{value}|g|#queue:{queue},priority:normal").expect("text");
            }
            75..95 => {
                let (ms, tenth, method) = (self.rng.u32(1..1500), self.rng.u32(..10), self.of(&methods));
                let rate = if self.rng.u32(..4) == 0 { "|@0.1" } else { "" };
                write!(out, "bot.api.latency:{ms}.{tenth}|ms{rate}|#method:{method},result:ok").expect("text");
            }
            _ => {
                let (bytes, activity) = (self.rng.u32(1..4096), self.of(&activities));
                write!(out, "bot.message.size:{bytes}|h|#activity_type:{activity}").expect("text");
            }
        }
        out.push('\n');
    }

    /// 60 % counters, 15 % gauges, 25 % timers; a name has one type.
    fn plain(&mut self, out: &mut String) {
        let name = self.rng.u32(..1000);
        match name % 20 {
            0..12 => write!(out, "bot.messages.received.kind{name}:1|c").expect("text"),
            12..15 => write!(out, "bot.queue.length.part{name}:{}|g", self.rng.u32(..5000)).expect("text"),
            _ => write!(out, "bot.api.latency.call{name}:{}|ms", self.rng.u32(1..1500)).expect("text"),
        }
        out.push('\n');
    }
}
