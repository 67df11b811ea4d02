//! Any bytes, and realistic lines with damage: no panic, balanced books, an exposition that can be read.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::cases;
use crate::rig::{Rig, SETTINGS, all_formats, dropped, lines, recorded};

const REAL: &[&str] = &[
    "bot.messages:1|c|#user_id:42,activity_type:message",
    "bot.update.duration:8.1|ms|#type:message",
    "bot.queue.size:12|g|#queue:outbox",
    "bot.queue.size:+3|g",
    "bot.api.latency:85|ms|@0.1|#method:sendMessage,status:429",
    "a:1:2:3|c|#x:y",
    "a:1:2|ms|@0.5",
    "a:3|c:2|c:1|g",
    "a.created:1|c",
    "a:1|h|#le:1",
    "a:1|d|#k:v\\\"",
    "a_sum:1|c",
    "a_count:1|g",
    "a_total:1|g",
    "a,k=v,l=w:1|c",
    "a#k=v:1|c",
    "a[k=v]b:1|c",
    "]a[:1|c",
    "u:alice|s",
    "_e{5,4}:title|text|#k:v",
    "_sc|db|0|m:fine",
    "statsieve_lines:1|g",
    "up:1|g",
    "a:1|c|c:abc|T1700000000|e:it-false|card:low|x:y",
    "näme:1|c|#schlüssel:wert,__x:1,bare,:v,k:",
    // What one line leaves behind must not become a label of the next.
    "a:1|c|#k:,l:w",
    "a:1|c|#:v,l:w",
    "a:1|c|#user_id:7,l:w",
    "a:1|ms|#quantile:0.5,l:w",
    "_sc|db|0|#k:,l:w",
    "datadog.dogstatsd.client.packets_dropped:3|c|#client:py",
    "",
    "\r",
];

const PIECES: &[&str] = &[
    ":",
    "|",
    "#",
    ",",
    "@",
    "[",
    "]",
    "=",
    "\n",
    "\r",
    "\r\n",
    "\"",
    "\\",
    "{",
    "}",
    " ",
    "-",
    "+",
    ".",
    "_",
    "__",
    "c",
    "g",
    "ms",
    "h",
    "d",
    "s",
    "0",
    "1",
    "-1",
    "1e400",
    "nan",
    "@0",
    "@-1",
    "@2",
    "|#",
    "|c",
    "|ms",
    "|g",
    "le:",
    "overflow:true",
    "user_id:7",
    "user-id:7",
    "message_id:",
    "message-id:1",
    "dd.internal.x:1",
    "_total",
    "_created",
    "_bucket",
    "_sum",
    "\u{e9}",
    "\u{1f600}",
    "\u{0}",
];

/// A change to a line: at a place, take some bytes out and put something in.
fn damage() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
    let put = prop_oneof![
        4 => select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        2 => Just(Vec::new()),
        1 => vec(any::<u8>(), 1..3),
    ];
    (any::<Index>(), 0usize..4, put)
}

fn damaged_line() -> impl Strategy<Value = Vec<u8>> {
    (select(REAL), vec(damage(), 0..4)).prop_map(|(line, damages)| {
        let mut line = line.as_bytes().to_vec();
        for (place, out, put) in damages {
            let start = place.index(line.len() + 1);
            let end = (start + out).min(line.len());
            line.splice(start..end, put);
        }
        line
    })
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        1 => vec(select(PIECES), 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
        6 => vec(damaged_line(), 0..8).prop_map(|lines| lines.join(&b'\n')),
    ]
}

/// A line with exactly one value, good or bad, so that it ends in exactly one count.
fn one_value() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        3 => select(vec!["a", "b.c", "a,k=v", "a#k=v,l", "a[k=v]b", "]a[", "", "#k=v", "up", "_x", "a_sum", "n\u{e9}"])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>().prop_filter("ends the name", |byte| !b":\n\r".contains(byte)), 0..12),
    ];
    let value = prop_oneof![
        3 => select(vec!["1", "2.5", "-1", "+3", "1e3", "", "x", "nan", "1e400", "1e308", "9007199254740993"])
            .prop_map(|value| value.as_bytes().to_vec()),
        1 => vec(any::<u8>().prop_filter("ends the value", |byte| !b":|\n\r".contains(byte)), 0..6),
    ];
    let kind = select(vec!["c", "g", "ms", "h", "d", "s", "x", ""]);
    let fields = vec(
        select(vec!["@0.5", "@2", "@-1", "@x", "#k:v,l:w", "#user_id:9", "#__x:1", "T1", "c:id", "z", "", "e:x"]),
        0..3,
    );
    (name, value, kind, fields).prop_map(|(name, value, kind, fields)| {
        let mut line = [&name[..], b":", &value, b"|", kind.as_bytes()].concat();
        for field in fields {
            line.push(b'|');
            line.extend_from_slice(field.as_bytes());
        }
        line
    })
}

/// Lines that are not blank, counted by hand.
fn count_lines(datagram: &[u8]) -> u64 {
    let mut count = 0;
    for line in datagram.split(|byte| *byte == b'\n') {
        count += u64::from(!matches!(line, [] | [b'\r']));
    }
    count
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_datagrams_are_counted_line_by_line_and_the_exposition_can_be_read(
        datagrams in vec(datagram(), 1..12),
        settings in select(SETTINGS),
    ) {
        let mut rig = Rig::new(settings, 2);
        // Three times: unknown, known, remembered.
        for turn in 0..3 {
            for datagram in &datagrams {
                rig.send(turn, datagram);
            }
        }
        let tally = rig.tally();
        let expected: u64 = datagrams.iter().map(|datagram| 3 * count_lines(datagram)).sum();
        prop_assert_eq!(lines(&tally), expected);
        prop_assert!(recorded(&tally) + dropped(&tally) >= expected, "{:?}", tally);
        all_formats(&rig);
    }

    #[test]
    fn a_line_of_one_value_ends_in_exactly_one_count(
        sent in vec(one_value(), 1..20),
        settings in select(SETTINGS),
    ) {
        let mut rig = Rig::new(settings, 1);
        for _ in 0..3 {
            for line in &sent {
                let before = rig.tally();
                rig.send(0, line);
                let after = rig.tally();
                prop_assert_eq!(lines(&after) - lines(&before), 1);
                let counted = recorded(&after) + dropped(&after) - recorded(&before) - dropped(&before);
                prop_assert_eq!(counted, 1, "{}", String::from_utf8_lossy(line));
            }
        }
        all_formats(&rig);
    }
}
