//! What a glance at a line tells: whether it may be thinned, and how many values it carries.
//!
//! In: one line. Out: its values, if it is a line that sampling may leave out.
//! Not here: the decision (`admit::sampling`); whether the line is any good, which only reading it all tells.
//! Always: agrees with what [`Line`](super::Line) reads, line by line (a property test compares them); a line that is
//! not thinned out is read from its beginning, so a wrong line that stays is refused for its own reason.

use super::scan;

/// How many values a line carries, at least 1, if sampling may leave it out: one sample of a counter or an observer.
///
/// `None` for gauges and sets, events and service checks, lines of several samples, and what has no name or type that
/// is known. Costs a look for `:` and `|`; numbers and tags are not read.
#[inline]
pub fn thinnable(text: &[u8]) -> Option<u64> {
    let colon = scan::find(text, 0, b':');
    if colon == 0 || colon == text.len() || super::message::is_message(text) {
        return None;
    }
    let mut pipe = scan::find_any(text, colon + 1, [b':', b'|']);
    let packed = text.get(pipe) == Some(&b':');
    if packed {
        pipe = scan::find(text, pipe, b'|');
    }
    let end = match text.get(pipe + 1..)? {
        [b'c' | b'h' | b'd'] | [b'c' | b'h' | b'd', b'|' | b':', ..] => pipe + 2,
        [b'm', b's'] | [b'm', b's', b'|' | b':', ..] => pipe + 3,
        _ => return None,
    };
    if !is_last_sample(text, end) {
        return None;
    }
    Some(if packed { values(&text[colon + 1..pipe]) } else { 1 })
}

/// Whether no further sample follows on the line; `at` is the byte behind the type.
#[inline]
fn is_last_sample(text: &[u8], mut at: usize) -> bool {
    loop {
        match text.get(at..) {
            None | Some([]) => return true,
            // With tags there is never a second sample: a tag's value may hold anything.
            Some([b'|', b'#', ..]) => return true,
            Some([b'|', b'@', ..]) => at = scan::find_any(text, at + 1, [b':', b'|']),
            Some([b'|', b'T', rest @ ..]) => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                at += 2 + digits;
                if text.get(at) != Some(&b':') {
                    at = scan::find(text, at, b'|');
                }
            }
            Some([b'|', ..]) => at = scan::find(text, at + 1, b'|'),
            Some(_) => return false,
        }
    }
}

/// Values between colons; an empty piece is none, and the least is one.
#[cold]
fn values(text: &[u8]) -> u64 {
    let pieces = text.split(|byte| *byte == b':').filter(|piece| !piece.is_empty()).count();
    pieces.max(1) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Line, Values};
    use super::*;
    use crate::config::Config;

    #[test]
    fn counters_and_observers_of_one_sample_may_be_thinned() {
        for (line, found) in [
            ("a:1|c", Some(1)),
            ("a:1|ms", Some(1)),
            ("a:1|h|#k:v", Some(1)),
            ("a:1|d|@0.5|#k:v:w", Some(1)),
            ("a:1|c|@0.5", Some(1)),
            ("a:1|c|c:id|T1700000000|e:it-x|card:low", Some(1)),
            ("a:1|c|c:5", Some(1)),
            ("a:1:2:3|c", Some(3)),
            ("a:1::3:|ms|#k:v", Some(2)),
            ("a::|c", Some(1)),
            ("a,k=v:1|c", Some(1)),
            ("_x:1|c", Some(1)),
            ("a:1|g", None),
            ("a:x:y|s", None),
            ("a:1|c:2|c", None),
            ("a:1|c|@0.5:2|c", None),
            ("a:1|c|T17:2|c", None),
            ("a:1|c|c:id|@1:2|c", None),
            ("_e{5,4}:title|c", None),
            ("_sc|db|0:1|c", None),
            ("a:1|q", None),
            ("a:1", None),
            ("a", None),
            (":1|c", None),
            ("", None),
        ] {
            assert_eq!(thinnable(line.as_bytes()), found, "{line:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_glance_tells_what_reading_the_line_tells(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", ":", "|", "c", "ms", "h", "d", "g", "s", "1", "2", "@0.5", "|@0.1", "|#", "k:v", "T1", "|T17",
                    ",", "#", "[", "]", "=", "|c:", "_e{", "_sc|", "x", ":1|c", ":1|ms", "a:1:2|c", ":3|g",
                ]),
                0..9,
            )
        ) {
            let text = pieces.concat();
            let text = text.as_bytes();
            let config = Config::default_checked();
            let read = Line::parse(text, &config.parse).and_then(|line| line.sample(line.body));
            match (thinnable(text), read) {
                (Some(values), Ok(sample)) => {
                    prop_assert!(sample.next.is_none());
                    prop_assert!(sample.kind.is_observer() || sample.kind == crate::model::SampleType::Counter);
                    prop_assert_eq!(values, sample.values.numbers().count() as u64);
                    prop_assert!(values == 1 || matches!(sample.values, Values::Text(_)));
                }
                // Refused as a whole: it would have counted once, or under another reason.
                (Some(values), Err(_)) => prop_assert!(values > 0),
                (None, Ok(sample)) => {
                    let gauge_or_set = !sample.kind.is_observer() && sample.kind != crate::model::SampleType::Counter;
                    prop_assert!(gauge_or_set || sample.next.is_some(), "{:?}", sample);
                }
                (None, Err(_)) => {}
            }
        }
    }
}
