//! Makes legal names.
//!
//! In: a name or tag key as written, valid UTF-8. Out: bytes that match `[a-zA-Z_][a-zA-Z0-9_]*` (no colon: that is for
//! recording rules), with prefix and suffix for a family.
//! Follows: the escaping of `statsd_exporter`, so that names stay the same when it is replaced; Prometheus naming for
//! units and `_total`.

use crate::config::Naming;
use crate::model::SampleType;

/// What each ASCII byte becomes in a name: itself or `_`.
const LEGAL: [u8; 256] = {
    let mut legal = [b'_'; 256];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            legal[byte] = byte as u8;
        }
        byte += 1;
    }
    legal
};

/// Appends `raw` with every byte that no name may hold replaced.
///
/// A leading digit gets `_` in front, a run of dashes becomes one `_`, and any other character one `_` each.
pub fn escape(raw: &[u8], out: &mut Vec<u8>) {
    if raw.first().is_some_and(u8::is_ascii_digit) {
        out.push(b'_');
    }
    // Most names have neither: then every byte stands for itself or becomes one `_`.
    // All are looked at, whatever is found: without a branch in it the loop takes many at once.
    if !raw.iter().fold(false, |odd, byte| odd | (*byte == b'-') | !byte.is_ascii()) {
        out.extend(raw.iter().map(|byte| LEGAL[usize::from(*byte)]));
        return;
    }
    let mut dash = false;
    for byte in raw {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(*byte),
            b'-' if dash => {}
            // The first byte of a character stands for all of it.
            0x80..=0xBF => {}
            _ => out.push(b'_'),
        }
        dash = *byte == b'-';
    }
}

/// Writes the family name of a sample into `out`; `rest` belongs to the name behind SignalFX tags.
pub fn write(naming: &Naming, kind: SampleType, name: &[u8], rest: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(naming.prefix.as_bytes());
    escape(name, out);
    if !rest.is_empty() {
        // A digit here is not the first, so it needs no `_`; escape them as one text.
        let joined: Vec<u8> = [name, rest].concat();
        out.truncate(naming.prefix.len());
        escape(&joined, out);
    }
    match kind {
        SampleType::Counter => add_suffix(&naming.counter_suffix, &[], out),
        SampleType::Timer => add_suffix(&naming.timer_suffix, &["_milliseconds", "_ms"], out),
        _ => {}
    }
}

/// Appends `suffix` unless it is there, in place of the first of `instead` that is; nothing if it is empty.
fn add_suffix(suffix: &str, instead: &[&str], out: &mut Vec<u8>) {
    if out.ends_with(suffix.as_bytes()) {
        return;
    }
    if let Some(ending) = instead.iter().find(|ending| out.ends_with(ending.as_bytes())) {
        out.truncate(out.len() - ending.len());
    }
    out.extend_from_slice(suffix.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(raw: &str) -> String {
        let mut out = Vec::new();
        escape(raw.as_bytes(), &mut out);
        String::from_utf8(out).expect("names are ASCII")
    }

    #[test]
    fn names_are_escaped_as_statsd_exporter_does() {
        for (raw, name) in [
            ("bot.messages", "bot_messages"),
            ("a---x", "a_x"),
            ("a..b", "a__b"),
            ("a-.-b", "a___b"),
            ("7up", "_7up"),
            ("a:b", "a_b"),
            ("näme", "n_me"),
            ("日本", "__"),
            ("a b\tc", "a_b_c"),
            ("", ""),
        ] {
            assert_eq!(escaped(raw), name, "{raw}");
        }
    }

    #[test]
    fn suffixes_are_added_once_and_only_where_they_belong() {
        let naming =
            Naming { prefix: String::new(), counter_suffix: "_total".to_owned(), timer_suffix: "_seconds".to_owned() };
        for (raw, kind, name) in [
            ("hits", SampleType::Counter, "hits_total"),
            ("hits.total", SampleType::Counter, "hits_total"),
            ("size", SampleType::Gauge, "size"),
            ("reply.latency", SampleType::Timer, "reply_latency_seconds"),
            ("reply_ms", SampleType::Timer, "reply_seconds"),
            ("reply.milliseconds", SampleType::Timer, "reply_seconds"),
            ("reply.seconds", SampleType::Timer, "reply_seconds"),
            ("reply_ms", SampleType::Histogram, "reply_ms"),
            ("reply", SampleType::Distribution, "reply"),
        ] {
            let mut out = Vec::new();
            write(&naming, kind, raw.as_bytes(), b"", &mut out);
            assert_eq!(String::from_utf8_lossy(&out), name, "{raw}");
        }
    }

    #[test]
    fn an_empty_suffix_leaves_names_alone() {
        let naming = Naming { prefix: "bot_".to_owned(), counter_suffix: String::new(), timer_suffix: String::new() };
        let mut out = Vec::new();
        write(&naming, SampleType::Timer, b"reply_ms", b"", &mut out);
        assert_eq!(out, b"bot_reply_ms");
        write(&naming, SampleType::Counter, b"a", b"1", &mut out);
        assert_eq!(out, b"bot_a1");
    }
}
