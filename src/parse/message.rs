//! DogStatsD's events and service checks.
//!
//! In: a line that begins with `_e{` or `_sc|`. Out: a [`Line`] and a [`Sample`], as for any other: of an event one
//! more of its alert type, of a service check its status.
//! Not here: the names they are exposed under (`map`).
//! Always: title and text are cut by their lengths, whatever they hold; a field that is wrong or unknown costs itself
//! and not the message.
//! Follows: DogStatsD's grammar of events (1.0 to 1.6) and of service checks.

use super::{Line, Sample, Values, letter_place, number};
use crate::config::Parse;
use crate::model::{DropReason, Refusal, SampleType};

/// What an event can say of itself; the first unless it says otherwise.
pub const ALERT_TYPES: [&str; 4] = ["info", "error", "warning", "success"];

/// Highest status of a service check: 0 is well, 1 a warning, 2 critical, 3 unknown.
const WORST: f64 = 3.0;

/// Whether a line is an event or a service check.
#[inline]
pub fn is_message(text: &[u8]) -> bool {
    text.starts_with(b"_e{") || text.starts_with(b"_sc|")
}

/// Reads an event or a service check.
///
/// An event's [`Line::name`] is its alert type, a service check's the name of the check.
///
/// # Errors
/// `MalformedLine` for an event whose lengths do not fit what follows, or without a title, and for a service check
/// without a name or status; `MalformedValue` for a status that is none of 0 to 3.
pub fn message<'a>(text: &'a [u8], dialects: &Parse) -> Result<(Line<'a>, Sample<'a>), Refusal> {
    let mut line = Line::new(text, dialects);
    let mut sample = Sample { values: Values::One(1.0), type_at: 1, ..Sample::default() };
    let fields = if text.starts_with(b"_e{") {
        sample.kind = SampleType::Event;
        line.name = ALERT_TYPES[0].as_bytes();
        behind_text(text)?
    } else {
        sample.kind = SampleType::ServiceCheck;
        behind_status(text, &mut line, &mut sample)?
    };
    let mut at = fields;
    while at < text.len() {
        let start = at + 1;
        let end = super::scan::find(text, start, b'|');
        match &text[start..end] {
            [b'#', tags @ ..] if dialects.dogstatsd_tags => sample.tags = tags,
            [b't', b':', alert @ ..] if sample.kind == SampleType::Event => {
                if let Some(known) = ALERT_TYPES.iter().find(|known| known.as_bytes() == alert) {
                    line.name = known.as_bytes();
                }
            }
            [b'c', b':', container @ ..] => sample.container = container,
            [] | [b'#' | b'd' | b'h' | b'k' | b'm' | b'p' | b's' | b't' | b'e', ..] | [b'c', b'a', b'r', b'd', ..] => {}
            [letter, ..] => sample.unknown_fields |= 1 << letter_place(*letter),
        }
        at = end;
    }
    Ok((line, sample))
}

/// The byte behind an event's text: `_e{<title bytes>,<text bytes>}:<title>|<text>`.
fn behind_text(text: &[u8]) -> Result<usize, Refusal> {
    let malformed = |at| Refusal::new(DropReason::MalformedLine, at);
    let (title, comma) = length(text, 3, b',').ok_or(malformed(3))?;
    let (body, brace) = length(text, comma + 1, b'}').ok_or(malformed(comma + 1))?;
    let start = brace + 2;
    let end = start.saturating_add(title);
    if title == 0 || text.get(brace + 1) != Some(&b':') || text.get(end) != Some(&b'|') {
        return Err(malformed(brace + 1));
    }
    let behind = end.saturating_add(1).saturating_add(body);
    match text.get(behind) {
        None if behind == text.len() => Ok(behind),
        Some(b'|') => Ok(behind),
        _ => Err(malformed(end + 1)),
    }
}

/// A decimal length at `start`, and the place of the byte `ends` behind it. No line is 100,000 bytes long.
fn length(text: &[u8], start: usize, ends: u8) -> Option<(usize, usize)> {
    let digits = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).take(6).count();
    let end = start + digits;
    if digits == 0 || digits > 5 || text.get(end) != Some(&ends) {
        return None;
    }
    let length = text[start..end].iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    Some((length, end))
}

/// The byte behind a service check's status: `_sc|<name>|<status>`.
fn behind_status<'a>(text: &'a [u8], line: &mut Line<'a>, sample: &mut Sample<'a>) -> Result<usize, Refusal> {
    let name_end = super::scan::find(text, 4, b'|');
    if name_end == 4 || name_end == text.len() {
        return Err(Refusal::new(DropReason::MalformedLine, name_end));
    }
    line.name = &text[4..name_end];
    let end = super::scan::find(text, name_end + 1, b'|');
    match number::plain(&text[name_end + 1..end]) {
        Some((status, length))
            if length == end - name_end - 1 && length > 0 && status.fract() == 0.0 && status <= WORST =>
        {
            sample.values = Values::One(status);
            Ok(end)
        }
        _ => Err(Refusal::new(DropReason::MalformedValue, name_end + 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<(String, f64, String, String), (DropReason, u32)> {
        let (line, sample) =
            message(text.as_bytes(), &Config::default_checked().parse).map_err(|it| (it.reason, it.at))?;
        let Values::One(value) = sample.values else { panic!("one value") };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let letters: Vec<u8> = super::super::unknown_letters(sample.unknown_fields).collect();
        Ok((text(line.name), value, text(sample.tags), text(&letters)))
    }

    #[test]
    fn events_are_cut_by_their_lengths_and_count_by_alert_type() {
        for (line, alert, tags, unknown) in [
            ("_e{5,4}:title|text", "info", "", ""),
            ("_e{5,0}:title|", "info", "", ""),
            ("_e{5,4}:title|text|t:error", "error", "", ""),
            ("_e{5,4}:title|text|d:1|h:x|k:y|p:low|s:z|t:warning|#a:b,c", "warning", "a:b,c", ""),
            ("_e{5,4}:title|text|c:abc|e:it-false|card:low|t:success", "success", "", ""),
            ("_e{5,4}:title|text|t:loud|p:never|d:x", "info", "", ""),
            ("_e{5,4}:title|text|x:1|Q", "info", "", "xQ"),
            // Title and text may hold anything.
            ("_e{7,10}:a|b:c#d|t:error|:x|t:warning", "warning", "", ""),
            // Bytes, not characters.
            ("_e{2,4}:ä|üü|t:error", "error", "", ""),
        ] {
            assert_eq!(read(line), Ok((alert.to_owned(), 1.0, tags.to_owned(), unknown.to_owned())), "{line}");
        }
        for (line, at) in [
            ("_e{5,4}:title|tex", 14),
            ("_e{5,4}:title|texts", 14),
            ("_e{4,4}:title|text", 7),
            ("_e{0,4}:|text", 7),
            ("_e{5,4}title|text", 7),
            ("_e{5}:title|text", 3),
            ("_e{5,}:title|text", 5),
            ("_e{x,4}:title|text", 3),
            ("_e{5,999999}:title|text", 5),
            ("_e{99999,99999}:title|text", 15),
            ("_e{-1,4}:title|text", 3),
            ("_e{", 3),
            ("_e{5,4}", 7),
        ] {
            assert_eq!(read(line), Err((DropReason::MalformedLine, at)), "{line}");
        }
    }

    #[test]
    fn service_checks_have_a_name_and_a_status() {
        for (line, name, status, tags) in [
            ("_sc|db|0", "db", 0.0, ""),
            ("_sc|my check.x|3|d:1|h:host|#a:b|m:it is: down", "my check.x", 3.0, "a:b"),
            ("_sc|db|2|m:x|#a:b|c:id|e:x|card:low", "db", 2.0, "a:b"),
        ] {
            assert_eq!(read(line), Ok((name.to_owned(), status, tags.to_owned(), String::new())), "{line}");
        }
        for (line, reason, at) in [
            ("_sc|db", DropReason::MalformedLine, 6),
            ("_sc||0", DropReason::MalformedLine, 4),
            ("_sc|db|", DropReason::MalformedValue, 7),
            ("_sc|db|4", DropReason::MalformedValue, 7),
            ("_sc|db|1.5", DropReason::MalformedValue, 7),
            ("_sc|db|-1", DropReason::MalformedValue, 7),
            ("_sc|db|ok", DropReason::MalformedValue, 7),
        ] {
            assert_eq!(read(line), Err((reason, at)), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(rest in proptest::collection::vec(any::<u8>(), 0..40), event in any::<bool>()) {
            let text = [if event { &b"_e{"[..] } else { b"_sc|" }, &rest].concat();
            let _ = message(&text, &Config::default_checked().parse);
        }

        #[test]
        fn any_title_and_text_are_passed_over(title in "[a-z|:#\\}ü]{1,12}", body in "[a-z|:#\\}ü]{0,12}") {
            let line = format!("_e{{{},{}}}:{title}|{body}|t:error", title.len(), body.len());
            prop_assert_eq!(read(&line).map(|found| found.0), Ok("error".to_owned()), "{}", line);
        }
    }
}
