//! `statsieve explain`: what becomes of a line, step by step.
//!
//! In: lines, and the configuration. Out: for each sample of a line a row for each step, or the reason and place of its
//! refusal.
//! Always: the answer comes from the very stages that run in the sidecar, on a store of its own, so it is what would
//! happen to these lines in this order on a fresh start.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{BAD_CONFIGURATION, FAILED, OK, printable};
use crate::aggregate::{Placed, Sight, Store, Wanted, admits};
use crate::config::{self, Config, GaugeSign, MsUnit, Rule, Sources};
use crate::identity::TagAction;
use crate::map::{Kind, Resolved};
use crate::model::{DropReason, Refusal, SampleType, TagDropReason};
use crate::parse::client::{self, Told};
use crate::parse::number::Number;
use crate::parse::tags::{self, Tag, TagStyle};
use crate::parse::{Line, Sample, Values, message, offset, unknown_letters};
use crate::pipeline::Rules;
use crate::telemetry::client_family;

/// Explains `lines`, or those of `input` if there are none or one of them is `-`; with `json`, an object for each
/// sample.
///
/// Returns 0, or 1 if anything was refused, or 2 with the problems of a configuration.
///
/// # Errors
/// If `input` cannot be read or `out` written.
pub fn explain(
    sources: &Sources,
    lines: &[String],
    json: bool,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<u8> {
    let config = match config::load(sources) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            write!(out, "{}", problems.render_with_carets())?;
            return Ok(BAD_CONFIGURATION);
        }
    };
    let mut explainer = Explainer::new(&config);
    let mut all = lines.iter().filter(|line| *line != "-").map(|line| line.clone().into_bytes()).collect::<Vec<_>>();
    if lines.is_empty() || lines.iter().any(|line| line == "-") {
        for line in input.split(b'\n') {
            all.push(line?);
        }
    }
    let mut code = OK;
    let mut first = true;
    for text in &all {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        for outcome in explainer.line(text) {
            if outcome.is_err() {
                code = FAILED;
            }
            if json {
                writeln!(out, "{}", to_json(text, &outcome))?;
                continue;
            }
            if !std::mem::take(&mut first) {
                writeln!(out)?;
            }
            write!(out, "{}", to_rows(text, &outcome))?;
        }
    }
    Ok(code)
}

/// A sample that would be recorded.
struct Explained {
    kind: SampleType,
    values: Vec<Number>,
    /// What is counted once, of a set.
    member: Option<String>,
    relative: bool,
    /// What the client wrote, and what it makes of one event.
    rate: String,
    weight: f64,
    dialect: &'static str,
    written: String,
    /// The mapping rule: where it stands, and what it matches.
    rule: Option<RuleUse>,
    /// The name of the family; empty for what is recorded in none.
    name: String,
    buckets: Vec<BucketUse>,
    labels: Vec<(String, String)>,
    series: String,
    overflow: bool,
    lines: u64,
    /// How many series the buckets of its labels can make of it.
    times: u64,
    warnings: Vec<String>,
    query: String,
}

/// A sample that would be refused.
struct Refused {
    refusal: Refusal,
    /// The mapping rule that was for it, as far as it got there.
    rule: Option<RuleUse>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, rule: None }
    }
}

/// A mapping rule that was for a name.
struct RuleUse {
    place: String,
    pattern: String,
    scale: f64,
}

impl RuleUse {
    fn to_json(&self) -> Value {
        json!({ "place": self.place, "match": self.pattern })
    }
}

/// A tag value and the bucket that stands in for it.
struct BucketUse {
    rule: usize,
    tag: String,
    value: String,
    label: String,
    /// `None` where an observation loses the tag.
    bucket: Option<String>,
}

struct Explainer<'a> {
    config: &'a Config,
    rules: Rules,
    store: Store,
    resolved: Resolved,
}

impl<'a> Explainer<'a> {
    fn new(config: &'a Config) -> Self {
        Self { config, rules: Rules::new(config), store: Store::new(1, Arc::default()), resolved: Resolved::default() }
    }

    /// One outcome for each sample of the line, or one refusal.
    fn line(&mut self, text: &[u8]) -> Vec<Result<Explained, Refused>> {
        let whole = || {
            if text.len() > self.rules.max_line_bytes {
                return Err(Refusal::new(DropReason::LineTooLong, self.rules.max_line_bytes));
            }
            std::str::from_utf8(text).map_err(|error| Refusal::new(DropReason::InvalidUtf8, error.valid_up_to()))?;
            if message::is_message(text) {
                Ok(Line::new(text, &self.rules.parse))
            } else {
                Line::parse(text, &self.rules.parse)
            }
        };
        let line = match whole() {
            Ok(_) if message::is_message(text) => {
                let read = message::message(text, &self.rules.parse);
                return vec![read.map_err(Into::into).and_then(|(line, sample)| self.sample(text, &line, 0, &sample))];
            }
            Ok(line) => line,
            Err(refusal) => return vec![Err(refusal.into())],
        };
        let mut outcomes = Vec::new();
        let mut next = Some(line.body);
        while let Some(from) = next {
            match line.sample(from) {
                Ok(sample) => {
                    outcomes.push(self.sample(text, &line, from, &sample));
                    next = sample.next;
                }
                Err(refusal) => {
                    outcomes.push(Err(refusal.into()));
                    next = None;
                }
            }
        }
        outcomes
    }

    fn sample(
        &mut self,
        line_text: &[u8],
        line: &Line<'_>,
        from: usize,
        sample: &Sample<'_>,
    ) -> Result<Explained, Refused> {
        if self.rules.parse.client_telemetry
            && sample.kind == SampleType::Counter
            && let Some(told) = client::told(line.name)
        {
            return self.figure(line_text, line, from, sample, told);
        }
        // Where rules scale, the rule is looked for first, as in the pipeline.
        let unscaled = (!self.rules.mapper.scales()).then(|| self.values(line_text, from, sample, 1.0)).transpose()?;
        let resolved = self.rules.mapper.resolve(&self.rules.tags, line_text, line, sample, &mut self.resolved);
        let rule = self.resolved.rule.map(|rule| {
            let Rule { place, pattern, scale, .. } = &self.config.mapping.rules[rule as usize];
            RuleUse { place: place.clone(), pattern: pattern.as_str().to_owned(), scale: scale.unwrap_or(1.0) }
        });
        let kind = match resolved {
            Ok(kind) => kind,
            Err(refusal) => return Err(Refused { refusal, rule }),
        };
        let (values, relative, warnings) = match unscaled {
            Some(values) => values,
            None => self.values(line_text, from, sample, self.resolved.scale)?,
        };
        let name = lossy(&self.resolved.name);
        let written = lossy(&[line.name, line.name_rest].concat());
        let shape = self.rules.shape(kind, self.resolved.rule);
        let wanted = Wanted {
            name: &name,
            written: &written,
            help: None,
            shape,
            sample: Some(sample.kind),
            ttl: None,
            generation: self.rules.generation,
            overflow_labels: &self.rules.overflow_labels,
            sight: Sight::First,
            now: 1,
        };
        let mut text = Vec::new();
        let placed = self.store.place(wanted, &mut self.resolved.labels, &mut text, &self.rules.gate);
        let Placed { overflow, .. } = match placed {
            Ok(placed) => placed,
            Err(reason) => return Err(Refused { refusal: Refusal::new(reason, 0), rule }),
        };
        let shown = if overflow { self.rules.overflow_labels.clone() } else { lossy(&text) };
        let series = if shown.is_empty() { name.clone() } else { format!("{name}{{{shown}}}") };
        let buckets = self.buckets(line, sample);
        let mut used: Vec<usize> = buckets.iter().filter(|used| used.bucket.is_some()).map(|used| used.rule).collect();
        used.sort_unstable();
        used.dedup();
        let mut explained = Explained {
            kind: sample.kind,
            values,
            member: match sample.values {
                Values::Text(member) if sample.kind == SampleType::Set => Some(lossy(member)),
                _ => None,
            },
            relative,
            rate: String::from_utf8_lossy(sample.rate).into_owned(),
            weight: sample.weight,
            dialect: dialect(line, sample),
            query: query(kind, &name),
            lines: shape.lines(),
            rule,
            written,
            name,
            labels: self.resolved.labels.iter().map(|(name, value)| (lossy(name), lossy(value))).collect(),
            series,
            overflow,
            times: used
                .iter()
                .fold(1, |times: u64, rule| times.saturating_mul(u64::from(self.config.bucketing[*rule].count))),
            warnings,
            buckets,
        };
        self.warn(line, sample, &mut explained);
        Ok(explained)
    }

    /// What a Datadog client tells of itself: it is added up, and makes no series.
    fn figure(
        &self,
        text: &[u8],
        line: &Line<'_>,
        from: usize,
        sample: &Sample<'_>,
        told: Told,
    ) -> Result<Explained, Refused> {
        let (values, relative, mut warnings) = self.values(text, from, sample, 1.0)?;
        let (name, what) = match told {
            Told::Figure(figure) => (client_family(figure).name(), "added up over all clients, whatever their tags"),
            Told::Part => (String::new(), "recorded, and in no sum: it is part of another, or counted here anyway"),
        };
        let figure = "what a Datadog client says of itself is";
        warnings.push(format!("{figure} {what}; parse.client_telemetry = false makes series of it"));
        let mut explained = Explained {
            kind: sample.kind,
            values,
            member: None,
            relative,
            rate: lossy(sample.rate),
            weight: sample.weight,
            dialect: dialect(line, sample),
            written: lossy(line.name),
            rule: None,
            query: if name.is_empty() { String::new() } else { query(Kind::Counter, &name) },
            buckets: Vec::new(),
            labels: Vec::new(),
            series: name.clone(),
            name,
            overflow: false,
            lines: 0,
            times: 1,
            warnings: Vec::new(),
        };
        self.warn_of_fields(sample, &mut explained);
        explained.warnings.append(&mut warnings);
        Ok(explained)
    }

    /// The numbers that would be recorded, whether they change a gauge, and what is wrong with the others; a refusal if
    /// none would be.
    fn values(
        &self,
        text: &[u8],
        from: usize,
        sample: &Sample<'_>,
        scale: f64,
    ) -> Result<(Vec<Number>, bool, Vec<String>), Refusal> {
        if sample.kind == SampleType::Set {
            let empty = matches!(sample.values, Values::Text([]));
            let refusal = Refusal::new(DropReason::MalformedValue, from);
            return if empty { Err(refusal) } else { Ok((Vec::new(), false, Vec::new())) };
        }
        let kind = Kind::of(sample.kind, &self.config.mapping.observation);
        let delta = sample.kind == SampleType::Gauge && self.rules.parse.gauge_sign == GaugeSign::Delta;
        let (mut values, mut warnings, mut refusal) = (Vec::new(), Vec::new(), None);
        let written = &text[from..sample.type_at - 1];
        let mut pieces = written.split(|byte| *byte == b':').filter(|piece| !piece.is_empty());
        for number in sample.values.numbers() {
            let piece = pieces.next().unwrap_or(written);
            let admitted = number.map_err(|(reason, _)| reason).and_then(|number| {
                let value = self.rules.mapper.in_base_unit(sample.kind, number.value) * scale;
                admits(kind, value, sample.weight).map(|()| number)
            });
            match admitted {
                Ok(number) => values.push(number),
                Err(reason) => {
                    warnings.push(format!("{:?} is left out: {reason}, {}", lossy(piece), meaning(reason).0));
                    refusal = refusal.or(Some(Refusal::new(reason, offset(text, piece))));
                }
            }
        }
        match refusal {
            Some(refusal) if values.is_empty() => Err(refusal),
            _ => {
                let relative = delta && values.iter().any(|number| number.signed);
                Ok((values, relative, warnings))
            }
        }
    }

    /// Every bucketed tag of the sample.
    fn buckets(&self, line: &Line<'_>, sample: &Sample<'_>) -> Vec<BucketUse> {
        let bucketed = |tag| {
            let Tag::Pair(key, value) = tag else { return None };
            let TagAction::Bucket(rule) = self.rules.tags.action_as_exposed(key) else { return None };
            let rules = &self.rules.tags.buckets()[usize::from(rule)];
            let mut bucket = Vec::new();
            rules.write(rules.number(value), &mut bucket);
            let kept = !sample.kind.is_observer() || rules.observers;
            Some(BucketUse {
                rule: usize::from(rule),
                tag: lossy(key),
                value: lossy(value),
                label: rules.label.clone(),
                bucket: kept.then(|| lossy(&bucket)),
            })
        };
        all_tags(line, sample).filter_map(bucketed).collect()
    }

    fn warn_of_fields(&self, sample: &Sample<'_>, explained: &mut Explained) {
        let warnings = &mut explained.warnings;
        if sample.invalid_rate {
            warnings.push(format!("the rate {:?} cannot be read and counts as 1", explained.rate));
        }
        for letter in unknown_letters(sample.unknown_fields) {
            let letter = char::from(letter);
            warnings.push(format!("a field that begins with {letter:?} is not known and was ignored"));
        }
    }

    fn warn(&self, line: &Line<'_>, sample: &Sample<'_>, explained: &mut Explained) {
        self.warn_of_fields(sample, explained);
        let warnings = &mut explained.warnings;
        for tag in all_tags(line, sample) {
            if let Tag::Pair(key, _) | Tag::Bare(key) = tag
                && self.rules.tags.action(key) == TagAction::Drop
            {
                warnings.push(format!("the tag {:?} is taken out by labels.drop", lossy(key)));
            }
        }
        for (reason, count) in TagDropReason::ALL.iter().zip(self.resolved.tag_drops) {
            if count > 0 {
                warnings.push(format!("{count} of its tags: {reason}, {}", tag_meaning(*reason)));
            }
        }
        if explained.relative {
            warnings.push("a signed gauge value changes the gauge; parse.gauge_sign = \"absolute\" sets it".to_owned());
        }
        let seconds = |number: &Number| number.value > 0.0 && number.value < 1.0;
        if sample.kind == SampleType::Timer
            && self.config.parse.ms_unit == MsUnit::Milliseconds
            && explained.values.iter().any(seconds)
        {
            let hint = "less than a millisecond; if the client sends seconds as ms (datadogpy's timed() does), set \
                        parse.ms_unit = \"s\"";
            warnings.push(hint.to_owned());
        }
        if explained.overflow {
            warnings.push("a limit of [cardinality] is reached, the family's overflow series takes it".to_owned());
        }
    }
}

/// How the tags of a sample are written.
fn dialect(line: &Line<'_>, sample: &Sample<'_>) -> &'static str {
    match line.style {
        TagStyle::DogStatsd if sample.tags.is_empty() => "no tags",
        style => style.name(),
    }
}

/// The tags in the name and those behind the type.
fn all_tags<'a>(line: &Line<'a>, sample: &Sample<'a>) -> impl Iterator<Item = Tag<'a>> {
    tags::list(line.name_tags, line.style).chain(tags::list(sample.tags, TagStyle::DogStatsd))
}

/// A query to paste that shows the family.
fn query(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Counter => format!("sum(rate({name}[5m]))"),
        Kind::Gauge => format!("max({name})"),
        // Instances may have seen the same members.
        Kind::Set => format!("max({name})"),
        Kind::Summary => format!("max by (quantile) ({name})"),
        Kind::Histogram => format!("histogram_quantile(0.95, sum by (le) (rate({name}_bucket[5m])))"),
    }
}

/// What a reason means, and what would be right.
fn meaning(reason: DropReason) -> (&'static str, &'static str) {
    match reason {
        DropReason::MalformedLine => ("it has no name, no colon or no type", "name:value|type"),
        DropReason::MalformedValue => ("the value is no decimal number", "a number such as 1, 8.25, -3 or 1e3"),
        DropReason::MalformedField => ("a part behind the type is empty", "no | without a field behind it"),
        DropReason::SampleRate => ("the rate cannot be applied", "a rate above 0 and at most 1"),
        DropReason::UnknownType => ("the type is not known here", "c, g, ms, h, d or s"),
        DropReason::MixedTagStyles => ("tags stand in the name and behind |#", "one way of writing tags on a line"),
        DropReason::InvalidUtf8 => ("the bytes are no UTF-8", "UTF-8 text"),
        DropReason::LineTooLong => ("it is longer than listen.max_line_bytes", "a shorter line, or a higher limit"),
        DropReason::NegativeCounter => ("a counter cannot go down", "a value of 0 or more, or a gauge"),
        DropReason::NotFinite => ("the value, or the sum it would make, is not finite", "a finite number"),
        DropReason::TypeConflict => (
            "the name belongs to another type, to the sidecar or to Prometheus",
            "another name, or the type that the name has",
        ),
        DropReason::ReservedLabel => (
            "a key of a tag, or of a mapping rule, is empty, starts with __, or is le on a histogram or quantile on a \
             summary",
            "another tag key, or the tag in labels.drop",
        ),
        DropReason::EmptyName => ("nothing is left of the name", "a name in front of the tags"),
        DropReason::NameTooLong => ("the name is longer than labels.max_name_bytes", "a shorter name"),
        DropReason::MappingDrop => ("a mapping rule drops it", "another rule in front of that one"),
        DropReason::Sampled => ("it was thinned out under load", "nothing: what is kept is weighted for it"),
        DropReason::RateLimited => ("a quota of [rate_limit] is used up", "fewer samples, or a higher quota"),
        DropReason::Cardinality => ("a limit of [cardinality] is reached", "fewer label values, or a higher limit"),
    }
}

fn tag_meaning(reason: TagDropReason) -> &'static str {
    match reason {
        TagDropReason::Malformed => "no key or no value",
        TagDropReason::Bare => "no value; parse.bare_tags = \"true\" keeps them",
        TagDropReason::Truncated => "the value was cut to labels.max_value_bytes",
        TagDropReason::TooMany => "past labels.max_count",
        TagDropReason::NameTooLong => "the key is longer than labels.max_name_bytes",
        TagDropReason::Dropped => "taken out by labels.drop or set by labels.add",
    }
}

fn to_rows(text: &[u8], outcome: &Result<Explained, Refused>) -> String {
    let mut rows = String::new();
    // A String takes everything, so writing to it cannot fail.
    // What a client sent must not drive the terminal.
    let mut row = |label: &str, value: &str| {
        let _ = writeln!(rows, "{label:<9}{}", printable(value.as_bytes()));
    };
    let shown = printable(text);
    row("line", &shown);
    let explained = match outcome {
        Ok(explained) => explained,
        Err(Refused { refusal, rule }) => {
            let (meaning, right) = meaning(refusal.reason);
            let before = printable(&text[..(refusal.at as usize).min(text.len())]);
            row("", &format!("{}^", " ".repeat(before.chars().count())));
            if let Some(rule) = rule {
                row("rule", &rule_row(rule));
            }
            row("refused", &format!("{}: {meaning}", refusal.reason));
            row("expected", right);
            return rows;
        }
    };
    row("parsed", &parsed(explained));
    row("rule", &explained.rule.as_ref().map_or_else(|| "none".to_owned(), rule_row));
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    row("name", &format!("{} -> {}", explained.written, or_none(&explained.name)));
    for used in &explained.buckets {
        let stands = used.bucket.as_deref().unwrap_or("none, observations lose the tag");
        row("bucket", &format!("{}={} -> {stands}, bucketing[{}]", used.tag, used.value, used.rule));
    }
    let labels: Vec<String> = explained.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    row("labels", &or_none(&labels.join(", ")));
    row("series", &or_none(&explained.series));
    let lines = explained.lines;
    let mut cost = format!("{lines} sample {}", if lines == 1 { "line" } else { "lines" });
    if explained.times > 1 {
        let _ = write!(cost, ", times {} buckets: {}", explained.times, lines.saturating_mul(explained.times));
    }
    row("cost", &cost);
    for warning in &explained.warnings {
        row("warning", warning);
    }
    if !explained.query.is_empty() {
        row("query", &explained.query);
    }
    rows
}

/// Where a rule stands, what it matches, and by what it multiplies.
fn rule_row(rule: &RuleUse) -> String {
    let scale = if rule.scale == 1.0 { String::new() } else { format!(", scale {}", rule.scale) };
    format!("{}, {}{scale}", rule.place, rule.pattern)
}

fn parsed(explained: &Explained) -> String {
    let values: Vec<String> = explained.values.iter().map(|number| number.value.to_string()).collect();
    let values = explained.member.as_ref().map_or_else(|| values.join(", "), |member| format!("{member:?}"));
    let mut text = format!("{}, value {values}", explained.kind);
    if explained.relative {
        text.push_str(" (a change)");
    }
    let rate = if explained.rate.is_empty() { "1" } else { &explained.rate };
    let _ = write!(text, ", rate {rate}, weight {}, {}", explained.weight, explained.dialect);
    if explained.dialect != "no tags" {
        text.push_str(" tags");
    }
    text
}

fn to_json(text: &[u8], outcome: &Result<Explained, Refused>) -> Value {
    let line = lossy(text);
    match outcome {
        Err(Refused { refusal, rule }) => {
            let (meaning, right) = meaning(refusal.reason);
            json!({
                "line": line,
                "recorded": false,
                "reason": refusal.reason.label(),
                "at": refusal.at,
                "rule": rule.as_ref().map(RuleUse::to_json),
                "meaning": meaning,
                "expected": right,
            })
        }
        Ok(explained) => {
            let labels = explained.labels.iter().map(|(name, value)| (name.clone(), json!(value)));
            let buckets = explained.buckets.iter().map(|used| {
                json!({
                    "tag": used.tag,
                    "value": used.value,
                    "label": used.label,
                    "bucket": used.bucket,
                    "rule": format!("bucketing[{}]", used.rule),
                })
            });
            json!({
                "line": line,
                "recorded": true,
                "parsed": {
                    "type": explained.kind.label(),
                    "values": match &explained.member {
                        Some(member) => json!([member]),
                        None => explained.values.iter().map(|number| number.value).collect(),
                    },
                    "relative": explained.relative,
                    "rate": if explained.rate.is_empty() { "1" } else { &explained.rate },
                    "weight": explained.weight,
                    "dialect": explained.dialect,
                },
                "rule": explained.rule.as_ref().map(RuleUse::to_json),
                "name": explained.name,
                "buckets": buckets.collect::<Vec<_>>(),
                "labels": labels.collect::<Map<_, _>>(),
                "series": explained.series,
                "overflow": explained.overflow,
                "cost": { "sample_lines": explained.lines, "times": explained.times },
                "warnings": explained.warnings,
                "query": explained.query,
            })
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(set: &[&str], line: &str) -> (u8, String) {
        let sources = Sources { file: None, set: set.iter().map(ToString::to_string).collect() };
        let mut out = Vec::new();
        let code =
            explain(&sources, &[line.to_owned()], false, &mut io::empty(), &mut out).expect("a Vec takes everything");
        (code, String::from_utf8(out).expect("rows are text"))
    }

    #[test]
    fn the_caret_stands_under_the_value_at_fault() {
        for (line, at) in [("a:1|c:-1|c", 6), ("a:-1|c", 2), ("a:x|g", 2), ("a:1|c|@-1", 7), ("7[k=v:1|q", 8)] {
            let (code, text) = run(&[], line);
            let caret = text.lines().find_map(|row| row.find('^')).map(|at| at - 9);
            assert_eq!((code, caret), (FAILED, Some(at)), "{text}");
        }
    }

    #[test]
    fn a_value_left_out_beside_good_ones_is_named() {
        let (code, text) = run(&[], "a:1:-5|c");
        assert!(code == OK && text.contains(r#"warning  "-5" is left out: negative_counter"#), "{text}");
    }

    #[test]
    fn what_a_client_tells_of_itself_is_added_up() {
        let line = "datadog.dogstatsd.client.packets_dropped:3|c|#client:py,client_transport:udp";
        let (code, text) = run(&[], line);
        let rows = "rule     none\n\
                    name     datadog.dogstatsd.client.packets_dropped -> statsieve_client_dropped_total\n\
                    labels   none\n\
                    series   statsieve_client_dropped_total\n\
                    cost     0 sample lines\n\
                    warning  what a Datadog client says of itself is added up over all clients, whatever their tags; \
                    parse.client_telemetry = false makes series of it\n\
                    query    sum(rate(statsieve_client_dropped_total[5m]))\n";
        assert!(code == OK && text.ends_with(rows), "{text}");
        let (code, text) = run(&[], "datadog.dogstatsd.client.packets_dropped_queue:3|c");
        assert!(code == OK && text.contains("series   none\n") && !text.contains("query"), "{text}");
        let (code, text) = run(&[], "datadog.dogstatsd.client.packets_dropped:-3|c");
        assert!(code == FAILED && text.contains("refused  negative_counter"), "{text}");
        let (code, text) = run(&["parse.client_telemetry=false"], line);
        assert!(
            code == OK && text.contains("series   datadog_dogstatsd_client_packets_dropped_total{client=\"py\""),
            "{text}"
        );
    }

    #[test]
    fn tags_in_the_name_are_explained_as_well() {
        let (_, text) = run(&[], "a,message_id=5,user_id=42:1|c");
        assert!(text.contains("bucket   user_id=42 -> bucket_1, bucketing[0]"), "{text}");
        assert!(text.contains(r#"warning  the tag "message_id" is taken out by labels.drop"#), "{text}");
    }

    #[test]
    fn more_buckets_than_anyone_can_count_are_no_overflow() {
        let rule = |tag| format!("{{tags=[\"{tag}\"],label=\"l{tag}\",count=1000000}}");
        let rules = format!("bucketing=[{}]", ["a", "b", "c", "d"].map(rule).join(","));
        let (code, text) = run(&[&rules], "x:1|c|#a:1,b:1,c:1,d:1");
        assert!(code == OK && text.contains(&format!("times {} buckets", u64::MAX)), "{text}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let (_, text) = run(&[], "a:1|c|#k:\u{1b}[31mred");
        assert!(!text.contains('\u{1b}') && text.contains("k=\"\u{fffd}[31mred\""), "{text:?}");
    }
}
