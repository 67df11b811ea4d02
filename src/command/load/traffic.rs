//! Makes the datagrams of a scenario in memory, and tells the oracle of each line.
//!
//! In: a scenario and a seed. Out: [`Traffic`], the same for the same seed.
//! Always: a gauge is sent by one sender alone, so that its last value does not depend on which of them is faster;
//! values are whole numbers, or milliseconds that make a whole number of 64ths of a second.

use std::io::Write as _;
use std::ops::Range;

use fastrand::Rng;

use super::oracle::{Expected, Kind, Line, Oracle};
use super::scenario::{Content, Scenario};

/// What fits into one packet of an Ethernet, as DogStatsD clients pack.
const DATAGRAM_BYTES: usize = 1432;

/// Samples that a sender sends before the next has its turn: of a crowd, and of a few, whose datagrams then fill a
/// call.
const TURN: usize = 100;
const LONG_TURN: usize = 1600;

/// Milliseconds that are exact as seconds: a 64th.
const TICK_MS: f64 = 15.625;

/// Gauges of this many senders; the others send none, or a label would have too many values.
const GAUGE_SENDERS: usize = 8;

/// The counter of look-ups in a bot's cache.
const CACHE: &str = "bot.cache.requests";

/// A datagram, and the lines in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) first_line: usize,
    pub(super) lines: u32,
    pub(super) sender: u32,
}

/// All that a scenario can send, in its order.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Datagrams behind one another, each ended by a newline: what a stream carries as it is.
    pub(super) bytes: Vec<u8>,
    pub(super) datagrams: Vec<Datagram>,
    oracle: Oracle,
}

impl Traffic {
    /// Makes the lines of `scenario`.
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut traffic = Self::default();
        let mut maker = Maker { rng: Rng::with_seed(seed), users: scenario.users, messages: 0 };
        let mut text = Vec::new();
        let turn = if scenario.senders > GAUGE_SENDERS { TURN } else { LONG_TURN };
        for number in 0..scenario.lines_made() {
            let sender = number / turn % scenario.senders;
            text.clear();
            let write = &mut |line: &Line<'_>| {
                traffic.oracle.add(line);
                write_line(line, &mut text);
            };
            match scenario.content {
                Content::Bot => maker.bot(sender, write),
                Content::Table => maker.table(sender, write),
                Content::Series => maker.series(number, write),
                Content::NewValues => maker.new_value(number, write),
            }
            traffic.push(number, sender, &text);
        }
        traffic
    }

    fn push(&mut self, number: usize, sender: usize, text: &[u8]) {
        let start = self.bytes.len();
        let has_room =
            |last: &&mut Datagram| start - last.start + text.len() <= DATAGRAM_BYTES && last.sender == sender as u32;
        self.bytes.extend_from_slice(text);
        match self.datagrams.last_mut().filter(has_room) {
            Some(last) => {
                last.end += text.len();
                last.lines += 1;
            }
            None => self.datagrams.push(Datagram {
                start,
                end: start + text.len(),
                first_line: number,
                lines: 1,
                sender: sender as u32,
            }),
        }
    }

    /// What must come of `sent` datagrams, counted from the first and over again.
    pub(super) fn expect(&self, sent: u64) -> Expected<'_> {
        let all = self.datagrams.len() as u64;
        let (rounds, rest) = (sent / all, (sent % all) as usize);
        // The last round ends at `rest`, so the datagrams behind it were sent longer ago.
        let lines = |datagrams: Range<usize>, times: u64| {
            let lines = |datagram: &Datagram| datagram.first_line..datagram.first_line + datagram.lines as usize;
            self.datagrams[datagrams].iter().flat_map(lines).map(move |line| (line, times))
        };
        self.oracle.expect(lines(rest..self.datagrams.len(), rounds).chain(lines(0..rest, rounds + 1)))
    }

    /// Fewest and most lines that a datagram has.
    pub(super) fn lines_in_a_datagram(&self) -> (u32, u32) {
        let lines = || self.datagrams.iter().map(|datagram| datagram.lines);
        (lines().min().unwrap_or(0), lines().max().unwrap_or(0))
    }
}

/// `name:value|type|@rate|#tags`, and a newline.
fn write_line(line: &Line<'_>, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "{}:{}|{}", line.name, line.value, line.kind.letters());
    if line.rate < 1.0 {
        let _ = write!(out, "|@{}", line.rate);
    }
    let mut mark = "|#";
    if let Some(user) = line.user {
        let _ = write!(out, "|#user_id:{user}");
        mark = ",";
    }
    for (tag, value) in line.tags {
        let _ = write!(out, "{mark}{tag}:{value}");
        mark = ",";
    }
    out.push(b'\n');
}

/// Draws lines.
struct Maker {
    rng: Rng,
    users: u32,
    messages: u32,
}

type Write<'a> = &'a mut dyn FnMut(&Line<'_>);

impl Maker {
    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.rng.usize(..words.len())]
    }

    /// Every other message is from the next user in turn, so that each appears; the rest from few, as people are.
    fn user(&mut self) -> u32 {
        self.messages += 1;
        if self.users >= 1_000_000 || self.messages.is_multiple_of(2) {
            let step = if self.users >= 1_000_000 { 1 } else { 2 };
            return self.messages / step % self.users;
        }
        f64::from(self.users).powf(self.rng.f64()) as u32 % self.users
    }

    fn ticks(&mut self, most: u32) -> f64 {
        // Short times are the rule, long ones come now and then.
        let ticks = f64::from(most).powf(self.rng.f64()).floor();
        ticks * TICK_MS
    }

    fn message(&mut self, write: Write<'_>) {
        let activity = self.one_of(&["message", "photo", "voice", "sticker", "command"]);
        let rate = if self.rng.u32(..8) == 0 { 0.1 } else { 1.0 };
        let id = self.messages.to_string();
        let tags = [("activity_type", activity), ("message_id", &id)];
        // Some clients tag each message by its id.
        let tags = if self.rng.u32(..8) == 0 { &tags[..] } else { &tags[..1] };
        let user = Some(self.user());
        write(&Line { kind: Kind::Counter, name: "bot.messages", value: 1.0, rate, tags, user });
    }

    fn plain(&mut self, kind: Kind, name: &str, value: f64, tags: &[(&str, &str)], write: Write<'_>) {
        let rate = if kind.is_observed() && self.rng.u32(..16) == 0 { 0.5 } else { 1.0 };
        write(&Line { kind, name, value, rate, tags, user: None });
    }

    fn gauge(&mut self, sender: usize, write: Write<'_>) {
        let queue = self.one_of(&["outbox", "inbox", "retry"]);
        if sender >= GAUGE_SENDERS {
            let tags = [("cache", "profile"), ("result", "hit")];
            return self.plain(Kind::Counter, "bot.cache.requests", 1.0, &tags, write);
        }
        let value = f64::from(self.rng.u32(..1000));
        let worker = sender.to_string();
        self.plain(Kind::Gauge, "bot.queue.size", value, &[("queue", queue), ("worker", &worker)], write);
    }

    fn chat(&mut self, write: Write<'_>) {
        let value = f64::from(self.rng.u32(..5000));
        self.plain(Kind::Set, "bot.chats", value, &[], write);
    }

    fn bot(&mut self, sender: usize, write: Write<'_>) {
        match self.rng.u32(..100) {
            0..40 => self.message(write),
            40..60 => {
                let result = self.one_of(&["hit", "hit", "hit", "miss"]);
                self.plain(Kind::Counter, CACHE, 1.0, &[("cache", "profile"), ("result", result)], write);
            }
            60..74 => self.gauge(sender, write),
            74..75 => self.chat(write),
            75..95 => {
                let command = self.one_of(&["start", "help", "settings", "search"]);
                let value = self.ticks(640);
                self.plain(Kind::Timer, "bot.reply.latency", value, &[("command", command)], write);
            }
            _ => {
                let value = f64::from(self.rng.u32(1..=40));
                let user = Some(self.user());
                let line = Line { kind: Kind::Histogram, name: "bot.reply.parts", value, rate: 1.0, tags: &[], user };
                write(&line);
            }
        }
    }

    fn table(&mut self, sender: usize, write: Write<'_>) {
        let kind = self.one_of(&["message", "callback_query", "inline_query"]);
        let result = self.one_of(&["ok", "ok", "ok", "failed"]);
        let command = self.one_of(&["start", "help", "settings", "search"]);
        let method = self.one_of(&["sendMessage", "editMessageText", "answerCallbackQuery"]);
        let (latency, update) = (self.ticks(640), self.rng.u32(..).to_string());
        match self.rng.u32(..11) {
            0 => self.message(write),
            1 => {
                let tags = [("type", kind), ("result", result), ("update_id", &update)];
                self.plain(Kind::Counter, "bot.updates", 1.0, &tags, write);
            }
            2 => self.plain(Kind::Timer, "bot.update.duration", latency, &[("type", kind)], write),
            3 => self.plain(Kind::Counter, "bot.commands", 1.0, &[("command", command), ("result", result)], write),
            4 => self.plain(Kind::Timer, "bot.reply.latency", latency, &[("command", command)], write),
            5 => {
                let result = self.one_of(&["hit", "miss"]);
                self.plain(Kind::Counter, CACHE, 1.0, &[("cache", "profile"), ("result", result)], write);
            }
            6 => self.gauge(sender, write),
            7 => {
                let status = self.one_of(&["200", "200", "200", "429", "500"]);
                self.plain(Kind::Counter, "bot.api.calls", 1.0, &[("method", method), ("status", status)], write);
            }
            8 => self.plain(Kind::Timer, "bot.api.latency", latency, &[("method", method)], write),
            9 => {
                let kind = self.one_of(&["timeout", "flood_wait", "database"]);
                let value = f64::from(self.rng.u32(1..=3));
                self.plain(Kind::Counter, "bot.errors", value, &[("kind", kind)], write);
            }
            _ => self.chat(write),
        }
    }

    fn series(&mut self, number: usize, write: Write<'_>) {
        let name = format!("load.series.{}", number % 100);
        let value = f64::from(self.rng.u32(1..=9));
        self.plain(Kind::Counter, &name, value, &[("number", &(number / 100).to_string())], write);
    }

    fn new_value(&mut self, number: usize, write: Write<'_>) {
        let (id, value) = (format!("id-{number}"), f64::from(self.rng.u32(1..=9)));
        match number % 3 {
            0 => self.plain(Kind::Counter, "load.requests", value, &[("request", &id)], write),
            // Pairs of values are new long after each value has been seen: past the limit on series of a name.
            1 => {
                let (row, column) = ((number % 199).to_string(), (number % 211).to_string());
                let tags = [("row", row.as_str()), ("column", column.as_str()), ("session", id.as_str())];
                self.plain(Kind::Counter, "load.sessions", value, &tags, write);
            }
            _ => {
                let value = self.ticks(640);
                self.plain(Kind::Timer, "load.calls", value, &[("call", &id)], write);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_another_seed_others() {
        for name in super::super::scenario::NAMES {
            let mut scenario = Scenario::named(name).unwrap();
            scenario.lines = 1000;
            let made = Traffic::new(&scenario, 1);
            assert_eq!(made.bytes, Traffic::new(&scenario, 1).bytes, "{name}");
            assert_ne!(made.bytes, Traffic::new(&scenario, 2).bytes, "{name}");
            let lines: u32 = made.datagrams.iter().map(|datagram| datagram.lines).sum();
            assert_eq!((lines, memchr::memchr_iter(b'\n', &made.bytes).count()), (1000, 1000), "{name}");
            assert!(made.datagrams.iter().all(|datagram| datagram.end - datagram.start <= DATAGRAM_BYTES), "{name}");
            assert_eq!(made.datagrams.last().unwrap().end, made.bytes.len(), "{name}");
        }
    }

    #[test]
    fn a_line_is_written_as_clients_write_it() {
        let tags = [("type", "message"), ("result", "ok")];
        let line =
            Line { kind: Kind::Timer, name: "bot.x", value: 2.0 * TICK_MS, rate: 0.5, tags: &tags, user: Some(42) };
        let mut text = Vec::new();
        write_line(&line, &mut text);
        assert_eq!(String::from_utf8_lossy(&text), "bot.x:31.25|ms|@0.5|#user_id:42,type:message,result:ok\n");
        text.clear();
        write_line(&Line { kind: Kind::Counter, rate: 1.0, tags: &tags[..1], user: None, ..line }, &mut text);
        assert_eq!(String::from_utf8_lossy(&text), "bot.x:31.25|c|#type:message\n");
    }

    #[test]
    fn what_was_sent_again_counts_again_and_the_last_round_has_the_last_word() {
        let mut scenario = Scenario::named("low").unwrap();
        scenario.lines = 200;
        let traffic = Traffic::new(&scenario, 3);
        let all = traffic.datagrams.len() as u64;
        let lines = |sent: u64| traffic.expect(sent).series.iter().map(|(_, total)| total.lines).sum::<u64>();
        let first = u64::from(traffic.datagrams[0].lines);
        assert_eq!((lines(1), lines(all), lines(2 * all + 1)), (first, 200, 400 + first));
        assert_eq!(lines(0), 0);
    }
}
