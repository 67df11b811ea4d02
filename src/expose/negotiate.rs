//! Chooses the format and the coding of an exposition from what a scraper asks for.
//!
//! In: the `Accept` and `Accept-Encoding` values of a request. Out: one format, one coding.
//! Always: a client that did not ask for OpenMetrics or protobuf by name gets text 0.0.4 if that is offered at all,
//! since some read whatever comes as text.
//! Follows: RFC 9110, sections 12.4.2, 12.5.1 and 12.5.3; Prometheus content negotiation; exposition escaping schemes.

use crate::config::Format;

/// What an exposition is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The format.
    pub format: Format,
    /// The escaping scheme to name in the answer; our names need no escaping, so every scheme is satisfied.
    pub escaping: Option<&'static str>,
}

impl Choice {
    /// The `Content-Type` of the answer.
    pub fn content_type(self) -> String {
        let kind = match self.format {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        };
        match self.escaping {
            Some(scheme) => format!("{kind}; escaping={scheme}"),
            None => kind.to_owned(),
        }
    }
}

/// Escaping schemes a scraper may name.
const SCHEMES: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

/// Chooses among `formats` (`http.formats`, whose order decides between equal wishes).
///
/// `accept` is the value of the header, its lines joined by commas; empty if there is none. What cannot be read in it
/// is passed over. If nothing asked for is offered, the answer is text 0.0.4, or OpenMetrics where text is not offered;
/// protobuf is no answer for who did not ask for it, so text 0.0.4 is given for want of another even if it is not
/// offered.
pub fn format(accept: &str, formats: &[Format]) -> Choice {
    let ranges: Vec<Range<'_>> = elements(accept, b',').filter_map(Range::parse).collect();

    let mut best: Option<(f32, Format, &Range<'_>)> = None;
    for format in formats.iter().copied() {
        if let Some(range) = wish(format, &ranges)
            && range.quality > 0.0
            && best.is_none_or(|(quality, ..)| range.quality > quality)
        {
            best = Some((range.quality, format, range));
        }
    }
    if let Some((_, format, range)) = best {
        return Choice { format, escaping: escaping(format, range) };
    }
    let readable = || formats.iter().copied().filter(|format| *format != Format::Protobuf);
    let excluded = |format: &Format| wish(*format, &ranges).is_some_and(|range| range.quality == 0.0);
    let format = readable()
        .find(|format| *format == Format::Text && !excluded(format))
        .or_else(|| readable().find(|format| !excluded(format)))
        .or_else(|| readable().find(|format| *format == Format::Text))
        .or_else(|| readable().next())
        .unwrap_or(Format::Text);
    Choice { format, escaping: None }
}

/// The scheme to name in the answer: the one asked for, or the default where the one asked for is none we know.
fn escaping(format: Format, range: &Range<'_>) -> Option<&'static str> {
    let asked = range.parameter("escaping").filter(|_| format != Format::Text)?;
    Some(SCHEMES.into_iter().find(|scheme| asked.eq_ignore_ascii_case(scheme)).unwrap_or("underscores"))
}

/// The range that speaks for a format: the most specific that matches it, and of those the most wished for.
fn wish<'a, 'h>(format: Format, ranges: &'a [Range<'h>]) -> Option<&'a Range<'h>> {
    ranges
        .iter()
        .filter_map(|range| range.specificity(format).map(|specificity| (specificity, range)))
        .max_by(|(a, x), (b, y)| a.cmp(b).then(x.quality.total_cmp(&y.quality)))
        .map(|(_, range)| range)
}

/// One element of `Accept`.
#[derive(Debug)]
struct Range<'h> {
    /// `type/subtype`, either may be `*`.
    kind: &'h str,
    parameters: Vec<(&'h str, &'h str)>,
    /// 0 is not acceptable, 1 the most wished for.
    quality: f32,
}

impl<'h> Range<'h> {
    /// `None` if it has no slash or its quality is no number from 0 to 1.
    fn parse(element: &'h str) -> Option<Self> {
        let mut parts = elements(element, b';');
        let kind = parts.next().filter(|kind| kind.contains('/'))?;
        let mut range = Range { kind, parameters: Vec::new(), quality: 1.0 };
        for part in parts {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            if name.eq_ignore_ascii_case("q") {
                range.quality = quality(value)?;
            } else {
                range.parameters.push((name, value));
            }
        }
        Some(range)
    }

    fn parameter(&self, name: &str) -> Option<&'h str> {
        self.parameters.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// How closely this range names `format`; `None` if it does not match.
    ///
    /// Wildcards speak for text only. `text/plain;version=1.0.0` matches nothing: 0.0.4 is what is left if nothing
    /// does.
    fn specificity(&self, format: Format) -> Option<u8> {
        let versioned = |only: &str| match self.parameter("version") {
            None => Some(2),
            Some(version) if version == only => Some(3),
            Some(_) => None,
        };
        let is = |kind: &str| self.kind.eq_ignore_ascii_case(kind);
        match format {
            Format::Text if is("text/plain") => versioned("0.0.4"),
            Format::Text if is("text/*") => Some(1),
            Format::Text if is("*/*") => Some(0),
            Format::OpenMetrics if is("application/openmetrics-text") => versioned("1.0.0"),
            Format::Protobuf if is("application/vnd.google.protobuf") => {
                let proto = self.parameter("proto") == Some("io.prometheus.client.MetricFamily");
                (proto && self.parameter("encoding") == Some("delimited")).then_some(3)
            }
            _ => None,
        }
    }
}

/// How the bytes of an answer may travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    Identity,
    /// By gzip; a short body may go as it is.
    Gzip,
    /// By gzip and in no other way.
    GzipOnly,
}

/// Chooses a coding; `None` if neither gzip nor the bytes as they are would be taken, which is a 406.
///
/// `accept` is the value of `Accept-Encoding`, its lines joined by commas; empty if there is none. gzip is used only if
/// it is named (or a wildcard is all that is left) and wished for no less than the bytes as they are.
pub fn coding(accept: &str) -> Option<Coding> {
    let (mut gzip, mut identity, mut any) = (None::<f32>, None::<f32>, None::<f32>);
    for element in elements(accept, b',') {
        let mut parts = elements(element, b';');
        let name = parts.next().unwrap_or_default();
        let mut weight = Some(1.0);
        for part in parts {
            if let Some((name, value)) = part.split_once('=')
                && name.trim().eq_ignore_ascii_case("q")
            {
                weight = quality(value.trim());
            }
        }
        let Some(weight) = weight else { continue };
        let slot = match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => &mut gzip,
            "identity" => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *slot = Some(slot.map_or(weight, |before| before.max(weight)));
    }
    let refused = |weight: Option<f32>| weight == Some(0.0);
    if refused(identity) || (identity.is_none() && refused(any)) {
        return (gzip.or(any).unwrap_or(0.0) > 0.0).then_some(Coding::GzipOnly);
    }
    let wished = gzip.is_some_and(|weight| weight > 0.0 && identity.is_none_or(|other| weight >= other));
    Some(if wished { Coding::Gzip } else { Coding::Identity })
}

/// A quality value: 0 to 1, digits and a point only, and a digit first (RFC 9110, 12.4.2).
fn quality(value: &str) -> Option<f32> {
    let plain = value.len() <= 5
        && value.starts_with(|first: char| first.is_ascii_digit())
        && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    value.parse().ok().filter(|quality| plain && (0.0..=1.0).contains(quality))
}

/// The parts of `list` between separators that are not within quotes, trimmed, without the empty ones.
fn elements(list: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |character: char| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return !quoted && character == char::from(separator),
        }
        false
    })
    .map(str::trim)
    .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Format] = &[Format::OpenMetrics, Format::Protobuf, Format::Text];
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const PROTOBUF: &str =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    const ASK_PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const OPEN_UTF8: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8";
    const OPEN_UNDERSCORES: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores";

    const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_2_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_3_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const VICTORIA: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

    #[test]
    fn the_format_is_the_one_most_wished_for_of_those_readable() {
        for (accept, formats, expected) in [
            (PROMETHEUS_2, ALL, OPEN),
            (PROMETHEUS_2, &[Format::Text, Format::OpenMetrics], OPEN),
            (PROMETHEUS_2, &[Format::Text], TEXT),
            (PROMETHEUS_2, &[Format::Text, Format::Protobuf], TEXT),
            (PROMETHEUS_2_NATIVE, ALL, PROTOBUF),
            (PROMETHEUS_2_NATIVE, &[Format::Text, Format::Protobuf], PROTOBUF),
            (PROMETHEUS_2_NATIVE, &[Format::Protobuf], PROTOBUF),
            (PROMETHEUS_2_NATIVE, &[Format::OpenMetrics, Format::Text], OPEN),
            (PROMETHEUS_2_NATIVE, &[Format::Text], TEXT),
            (PROMETHEUS_3_NATIVE, ALL, PROTOBUF),
            (PROMETHEUS_3_NATIVE, &[Format::OpenMetrics, Format::Text], OPEN_UTF8),
            (PROMETHEUS_3, ALL, OPEN_UTF8),
            (PROMETHEUS_3, &[Format::Text], TEXT),
            (VICTORIA, ALL, TEXT),
            (VICTORIA, &[Format::OpenMetrics], OPEN),
            (BROWSER, ALL, TEXT),
            ("*/*", ALL, TEXT),
            ("", ALL, TEXT),
            ("", &[Format::OpenMetrics], OPEN),
            ("", &[Format::Protobuf], TEXT),
            ("*/*", &[Format::OpenMetrics, Format::Text], TEXT),
            ("application/*", ALL, TEXT),
            ("text/*;q=0.5, application/openmetrics-text;q=0.4", ALL, TEXT),
            // Equal wishes: the order of `http.formats` decides.
            ("text/plain, application/openmetrics-text", &[Format::OpenMetrics, Format::Text], OPEN),
            ("application/openmetrics-text, text/plain", &[Format::Text, Format::OpenMetrics], TEXT),
            // A narrower range speaks for its format, whatever a wider one says.
            ("application/openmetrics-text;q=0.5, */*", ALL, TEXT),
            (
                "application/openmetrics-text;version=1.0.0;q=0.1, application/openmetrics-text, text/plain;q=0.5",
                ALL,
                TEXT,
            ),
            ("*/*;q=0.1, text/plain;q=0.9, application/openmetrics-text;q=0.5", ALL, TEXT),
            // Versions.
            ("application/openmetrics-text", ALL, OPEN),
            ("application/openmetrics-text; version=0.0.1", ALL, TEXT),
            ("application/openmetrics-text; version=2.0.0, */*;q=0.1", ALL, TEXT),
            ("text/plain;version=1.0.0", ALL, TEXT),
            ("text/plain;version=1.0.0, application/openmetrics-text;q=0.1", ALL, OPEN),
            // Exclusion.
            ("application/openmetrics-text;q=0, text/plain;q=0.5", ALL, TEXT),
            ("application/openmetrics-text;q=0, */*;q=0.5", ALL, TEXT),
            ("application/openmetrics-text;q=0", ALL, TEXT),
            ("text/plain;q=0, */*", ALL, OPEN),
            ("text/plain;q=0.0", ALL, OPEN),
            ("*/*;q=0", &[Format::Text], TEXT),
            // Escaping.
            ("application/openmetrics-text;version=1.0.0;escaping=underscores", ALL, OPEN_UNDERSCORES),
            ("application/openmetrics-text;version=1.0.0;escaping=\"allow-utf-8\"", ALL, OPEN_UTF8),
            ("application/openmetrics-text;escaping=x y", ALL, OPEN_UNDERSCORES),
            ("text/plain;version=0.0.4;escaping=underscores", ALL, TEXT),
            // Spelling.
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=1", ALL, OPEN),
            ("application/x;a=\"b,text/plain;q=1\", application/openmetrics-text;q=0.2", ALL, OPEN),
            // What cannot be read is passed over.
            ("application/openmetrics-text;q=2, text/plain;q=0.1", ALL, TEXT),
            ("application/openmetrics-text;q=1e0", ALL, TEXT),
            ("application/openmetrics-text;q=NaN", ALL, TEXT),
            (",;,,application/openmetrics-text,/", ALL, OPEN),
            // Protobuf is given for its whole name alone, whatever else is offered or excluded.
            ("application/vnd.google.protobuf", ALL, TEXT),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", ALL, TEXT),
            ("application/vnd.google.protobuf, application/openmetrics-text;q=0.1", ALL, OPEN),
            ("*/*", &[Format::Protobuf], TEXT),
            ("application/*", &[Format::Protobuf, Format::OpenMetrics], OPEN),
            ("text/plain;q=0, application/openmetrics-text;q=0", ALL, TEXT),
            // No quality at all, and so an element that cannot be read.
            ("appli5, */*;q=.0", ALL, TEXT),
            (ASK_PROTOBUF, ALL, PROTOBUF),
            (ASK_PROTOBUF, &[Format::Text], TEXT),
            (
                "application/vnd.google.protobuf ; encoding=\"delimited\" ; proto=\"io.prometheus.client.MetricFamily\"",
                ALL,
                PROTOBUF,
            ),
            (&format!("{ASK_PROTOBUF};q=0, */*"), ALL, TEXT),
            (&format!("{ASK_PROTOBUF};q=0.4, application/openmetrics-text;q=0.5"), ALL, OPEN),
            (&format!("{ASK_PROTOBUF};q=0.6, application/openmetrics-text;q=0.5, */*"), ALL, TEXT),
            (&format!("application/openmetrics-text, {ASK_PROTOBUF}"), ALL, OPEN),
            (
                &format!("application/openmetrics-text, {ASK_PROTOBUF}"),
                &[Format::Protobuf, Format::OpenMetrics],
                PROTOBUF,
            ),
            (
                &format!("{ASK_PROTOBUF};escaping=dots"),
                ALL,
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=dots",
            ),
        ] {
            assert_eq!(format(accept, formats).content_type(), expected, "{accept:?} of {formats:?}");
        }
    }

    #[test]
    fn protobuf_is_meant_only_by_its_full_name() {
        for (element, expected) in [
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", Some(3)),
            ("application/vnd.google.protobuf;encoding=delimited", None),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", None),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", None),
            ("application/*", None),
            ("*/*", None),
        ] {
            let range = Range::parse(element).unwrap();
            assert_eq!(range.specificity(Format::Protobuf), expected, "{element}");
        }
    }

    #[test]
    fn gzip_is_used_only_if_it_is_asked_for() {
        for (accept, expected) in [
            ("", Some(Coding::Identity)),
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("GZIP;Q=0.5", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Gzip)),
            ("deflate, br", Some(Coding::Identity)),
            ("gzip;q=0", Some(Coding::Identity)),
            ("gzip; q=0.000", Some(Coding::Identity)),
            ("identity", Some(Coding::Identity)),
            ("gzip;q=0.5, identity", Some(Coding::Identity)),
            ("gzip, identity;q=0.5", Some(Coding::Gzip)),
            ("*", Some(Coding::Identity)),
            ("gzip;q=nonsense", Some(Coding::Identity)),
            ("gzip, identity;q=0", Some(Coding::GzipOnly)),
            ("gzip, *;q=0", Some(Coding::GzipOnly)),
            ("*, identity;q=0", Some(Coding::GzipOnly)),
            ("identity;q=0", None),
            ("identity;q=0, br", None),
            ("identity;q=0, gzip;q=0", None),
            ("*;q=0", None),
            ("*;q=0, identity", Some(Coding::Identity)),
            ("identity;q=0, gzip;q=0, *", None),
        ] {
            assert_eq!(coding(accept), expected, "{accept:?}");
        }
    }
}
