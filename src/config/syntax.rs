//! Which texts and lists are legal: addresses, names, globs, bounds.
//!
//! In: a value as it was written. Out: whether it is accepted, or what is meant by it.
//! Not here: which key takes what (`check`), and the words for it (`keys`).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use memchr::{memchr, memmem};

/// Labels that mean something in what we expose, so none of ours may be called so.
const TAKEN_LABELS: [&str; 3] = ["le", "quantile", "overflow"];

/// `host:port` as it is bound: an empty host becomes `0.0.0.0`; `None` if it is no address.
pub(super) fn address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let port: u16 = port.parse().ok()?;
    if host.is_empty() {
        return Some(format!("{}:{port}", Ipv4Addr::UNSPECIFIED));
    }
    if host.starts_with('[') {
        return text.parse::<SocketAddr>().ok().map(|_| text.to_owned());
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return host.parse::<Ipv4Addr>().ok().map(|_| text.to_owned());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let part_fits = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (name.len() <= 253 && name.split('.').all(part_fits)).then(|| text.to_owned())
}

/// Whether what is bound to `address` can be reached from this machine only, as far as its text tells.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `text` matches `glob`, in which `*` stands for any run of bytes. Allocates nothing.
pub fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let Some(star) = memchr(b'*', glob) else { return text == glob };
    let Some(mut rest) = text.strip_prefix(&glob[..star]) else { return false };
    let mut glob = &glob[star + 1..];
    while let Some(star) = memchr(b'*', glob) {
        let Some(at) = memmem::find(rest, &glob[..star]) else { return false };
        rest = &rest[at + star..];
        glob = &glob[star + 1..];
    }
    rest.ends_with(glob)
}

pub(super) fn distinct<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().all(|(place, item)| !list[..place].contains(item))
}

pub(super) fn are_bounds(bounds: &[f64]) -> bool {
    (1..=1000).contains(&bounds.len())
        && bounds.iter().all(|bound| bound.is_finite())
        && bounds.windows(2).all(|pair| pair[0] < pair[1])
}

pub(super) fn are_quantiles(quantiles: &[f64]) -> bool {
    quantiles.len() <= 100 && quantiles.iter().all(|q| (0.0..=1.0).contains(q)) && distinct(quantiles)
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Nothing, or what a metric name may begin with or be on its own, and not too long to be meant.
pub(super) fn is_name_part(text: &str) -> bool {
    text.is_empty() || (text.len() <= 128 && is_metric_name(text))
}

pub(super) fn is_metric_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| is_word(byte) || byte == b':')
}

pub(super) fn is_label(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with("__")
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(is_word)
}

/// A label name that means nothing else in what we expose.
pub(super) fn is_free_label(name: &str) -> bool {
    is_label(name) && !TAKEN_LABELS.contains(&name)
}

/// Ends a tag's key in some dialect, so that no key holds it: `env:dev` names no tag, `env` does.
fn is_tag_delimiter(c: char) -> bool {
    c.is_control() || ",:=|#".contains(c)
}

pub(super) fn is_tag(tag: &str) -> bool {
    !tag.is_empty() && !tag.contains(is_tag_delimiter)
}

pub(super) fn is_glob(glob: &str) -> bool {
    !glob.is_empty() && !glob.contains(|c: char| is_tag_delimiter(c) || c.is_whitespace() || "?[]{}".contains(c))
}

/// `*` or a word between dots, as statsd_exporter takes it: the first part does not start with a digit or a hyphen.
pub(super) fn is_mapping_glob(pattern: &str) -> bool {
    pattern.split('.').enumerate().all(|(place, part)| {
        let first = part.bytes().next();
        let starts = first.is_some_and(|first| is_word(first) && (place > 0 || !first.is_ascii_digit()));
        part == "*" || (starts && part.bytes().all(|byte| is_word(byte) || byte == b'-'))
    })
}

/// A metric name with `$1` or `${1}` in it.
pub(super) fn is_name_template(name: &str) -> bool {
    let mut rest = name;
    if rest.is_empty() || rest.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        let fits = match first {
            '$' if rest.starts_with('{') => match rest[1..].split_once('}') {
                Some((number, behind)) => {
                    rest = behind;
                    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
                }
                None => false,
            },
            '$' => rest.starts_with(|digit: char| digit.is_ascii_digit()),
            other => other.is_ascii_alphanumeric() || other == '_',
        };
        if !fits {
            return false;
        }
    }
    true
}

/// A duration as Go reads it: numbers with units one after the other, `1h30m`, `1.5s`, or `0`. `None` for a negative
/// one, and past 292 years.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(length);
        let number: f64 = number.parse().ok()?;
        let length = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(length);
        nanoseconds += number
            * match unit {
                "ns" => 1.0,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = behind;
    }
    let fits = text.ends_with(|c: char| c.is_alphabetic()) && nanoseconds < i64::MAX as f64;
    fits.then(|| Duration::from_nanos(nanoseconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_an_operator_writes_them() {
        for (text, bound) in [
            (":8125", Some("0.0.0.0:8125")),
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("[::1]:8125", Some("[::1]:8125")),
            ("localhost:8125", Some("localhost:8125")),
            ("bot-1.my_ns.svc.:8125", Some("bot-1.my_ns.svc.:8125")),
            ("::1:8125", None),
            ("256.1.1.1:8125", None),
            ("127.0.0.1", None),
            ("127.0.0.1:65536", None),
            ("127.0.0.1:+1", None),
            ("udp://host:1", None),
            ("a..b:1", None),
            ("*:8125", None),
            (":", None),
            ("", None),
        ] {
            assert_eq!(address(text).as_deref(), bound, "{text:?}");
        }
    }

    #[test]
    fn globs_match_runs_and_nothing_else() {
        for (glob, text, matches) in [
            ("message_id", "message_id", true),
            ("message_id", "message_id2", false),
            ("dd.internal.*", "dd.internal.entity_id", true),
            ("dd.internal.*", "dd.internal.", true),
            ("dd.internal.*", "dd_internal_x", false),
            ("*_id", "user_id", true),
            ("*_id", "id", false),
            ("a*a", "a", false),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "a.c.b", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob_matches(glob.as_bytes(), text.as_bytes()), matches, "{glob} on {text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("localhost:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("bot:1", false),
        ] {
            assert_eq!(is_loopback(address), loopback, "{address}");
        }
    }

    #[test]
    fn mapping_patterns_and_names_are_those_of_statsd_exporter() {
        for (pattern, legal) in [
            ("*", true),
            ("a.*.b-c", true),
            ("_a.1", true),
            ("1a", false),
            ("a*.b", false),
            ("a..b", false),
            ("a.-b", false),
            ("a b", false),
        ] {
            assert_eq!(is_mapping_glob(pattern), legal, "{pattern}");
        }
        for (name, legal) in [
            ("bot_$1_total", true),
            ("bot_${1}_total", true),
            ("$1", true),
            ("1bot", false),
            ("bot:x", false),
            ("bot_$x", false),
            ("bot_${x}", false),
            ("bot_${1", false),
            ("", false),
        ] {
            assert_eq!(is_name_template(name), legal, "{name}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let ms = |n| Some(Duration::from_millis(n));
        for (text, duration) in [
            ("30s", ms(30_000)),
            ("1h30m", ms(5_400_000)),
            ("1.5s", ms(1_500)),
            (".5s", ms(500)),
            ("2m0.25s", ms(120_250)),
            ("1us", Some(Duration::from_micros(1))),
            ("1\u{b5}s", Some(Duration::from_micros(1))),
            ("7ns", Some(Duration::from_nanos(7))),
            ("+1s", ms(1_000)),
            ("0", ms(0)),
            ("0s", ms(0)),
            ("", None),
            ("+", None),
            ("-1s", None),
            ("1", None),
            ("1d", None),
            ("1 s", None),
            ("s", None),
            (".s", None),
            ("99999999h", None),
        ] {
            assert_eq!(go_duration(text), duration, "{text:?}");
        }
    }

    #[test]
    fn label_names_of_ours_are_none_with_a_meaning() {
        for (name, legal, free) in [
            ("user_bucket", true, true),
            ("_x1", true, true),
            ("le", true, false),
            ("quantile", true, false),
            ("overflow", true, false),
            ("__name__", false, false),
            ("1a", false, false),
            ("a-b", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_label(name), is_free_label(name)), (legal, free), "{name}");
        }
    }
}
