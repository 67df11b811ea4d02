//! A mapping file, and names that its rules are for, against plain words for what a rule does.
//!
//! In: bytes. Out: nothing, or a panic that says what did not hold.
//! Not here: which files are good (the tests of `config::yaml`); how a regular expression is read.
//! Always: what is accepted maps names, can be scraped, and means the same when it is written as TOML.

use std::collections::BTreeMap;
use std::time::Duration;

use statsieve::config::convert::to_toml;
use statsieve::config::{Action, Config, Mapping, MetricType, Observation, Pattern, Rule, Sources, load};
use statsieve::identity::{TagAction, TagRules};
use statsieve::map::{Mapper, Resolved};
use statsieve::model::{DropReason, SampleType};
use statsieve::parse::Line;

use super::rig::{Rig, all_formats};
use super::written;

/// Rules whose names are sent, and regular expressions that are tried by themselves.
const MOST: usize = 20;
const YEAR: Duration = Duration::from_secs(365 * 86400);

/// Whether it was taken.
pub(super) fn mapping(data: &[u8]) -> bool {
    let path = written("mapping.yml", data);
    let set = vec![format!("mapping.file={}", path.display())];
    let config = match load(&Sources { file: None, set }) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            assert!(problems.count() > 0 && problems.to_string().contains("mapping.yml"), "a place: {problems}");
            problems.render_with_carets();
            return false;
        }
    };
    config.remarks();
    let text = to_toml(&path).unwrap_or_else(|problems| panic!("what loads can be written: {problems}"));
    let file = Some(written("converted.toml", text.as_bytes()));
    let converted = load(&Sources { file, set: Vec::new() });
    let converted = converted.unwrap_or_else(|problems| panic!("what was written loads: {problems}\n{text}"));
    means_the_same(&config.mapping, &converted.config, &text);

    let mut rig = Rig::of(&config, 1);
    let mut words = Words::new(&config, text.contains("Its globs were not ordered"));
    for kind in [SampleType::Counter, SampleType::Timer, SampleType::Gauge] {
        for rule in config.mapping.rules.iter().take(MOST) {
            let label = rule.labels.first().map_or("k", |(label, _)| label.as_str());
            for name in names(rule.pattern.as_str()) {
                let line = format!("{name}:1|{kind}|#tag:v", kind = letters(kind));
                let with_its_label = format!("{line},{label}:sent");
                words.hold(line.as_bytes(), None);
                words.hold(with_its_label.as_bytes(), Some(label));
                rig.send(0, [line, with_its_label].join("\n").as_bytes());
            }
        }
        let line = format!("a.b.c:2|{}", letters(kind));
        words.hold(line.as_bytes(), None);
        rig.send(0, line.as_bytes());
    }
    all_formats(&rig);
    true
}

const fn letters(kind: SampleType) -> &'static str {
    match kind {
        SampleType::Counter => "c",
        SampleType::Timer => "ms",
        _ => "g",
    }
}

/// Names that a pattern may be for: each star stands for another part, and what means something to a regular expression
/// is left out; the same with a first part that only a star is for.
fn names(pattern: &str) -> [String; 3] {
    let mut name = String::new();
    for (place, part) in pattern.replace(['\n', ':'], "").split('*').enumerate() {
        if place > 0 {
            name += &format!("s-{place}");
        }
        name += part;
    }
    let plain = name.replace(['\\', '^', '$', '(', ')', '[', ']', '+', '?', '|', '@', '#', '/', ','], "");
    let other = plain.split_once('.').map_or("other".to_owned(), |(_, rest)| format!("other.{rest}"));
    [name, plain, other]
}

/// The rules that were written as TOML are those of the file.
fn means_the_same(mapping: &Mapping, converted: &Config, text: &str) {
    let is_exact = !text.contains("Not carried over");
    let plain = |rule: &Rule| {
        let mut labels = rule.labels.clone();
        labels.sort();
        Rule {
            place: String::new(),
            labels,
            observation: rule.observation.as_ref().map(|kept| as_our_keys_have_it(kept, is_exact)),
            ttl: rule.ttl.map(|ttl| ttl.min(YEAR)),
            ..rule.clone()
        }
    };
    let rules: [Vec<Rule>; 2] = [mapping, &converted.mapping].map(|it| it.rules.iter().map(plain).collect());
    assert_eq!(rules[0], rules[1], "the rules mean the same in TOML\n{text}");
    let observation = as_our_keys_have_it(&mapping.observation, true);
    assert_eq!(converted.mapping.observation, observation, "what holds without a rule\n{text}");
    assert_eq!(converted.cardinality.idle_ttl, mapping.ttl.unwrap_or_default().min(YEAR), "{text}");
}

/// How observations are kept, within what our keys take; of those of a rule, what a rule has keys for.
fn as_our_keys_have_it(kept: &Observation, is_exact: bool) -> Observation {
    match kept.clone() {
        Observation::Histogram { bounds, .. } if !is_exact => {
            Observation::Histogram { bounds, native_factor: 1.0, native_max_buckets: 1 }
        }
        Observation::Histogram { bounds, native_factor, native_max_buckets } => {
            Observation::Histogram { bounds, native_factor, native_max_buckets: native_max_buckets.min(1600) }
        }
        Observation::Summary { quantiles, max_age } => {
            let max_age = if is_exact { max_age.clamp(Duration::from_secs(1), YEAR) } else { YEAR };
            Observation::Summary { quantiles, max_age }
        }
    }
}

/// Plain words for what becomes of a line, beside what the program makes of it.
struct Words<'a> {
    config: &'a Config,
    /// Whether the most specific glob wins, from the left, and not the first.
    most_specific: bool,
    tags: TagRules,
    mapper: Mapper,
    /// Rules with a regular expression, each by itself; `None` if there are too many.
    alone: Option<Vec<(usize, Mapper)>>,
    resolved: Resolved,
}

impl<'a> Words<'a> {
    fn new(config: &'a Config, most_specific: bool) -> Self {
        let regexes: Vec<_> = config.mapping.rules.iter().enumerate().filter(|(_, it)| !is_glob(it)).collect();
        let alone = (regexes.len() <= MOST).then(|| {
            let mut one = Config { mapping: Mapping { rules: Vec::new(), ..config.mapping.clone() }, ..config.clone() };
            let mapper = |(place, rule): (usize, &Rule)| {
                one.mapping.rules = vec![rule.clone()];
                (place, Mapper::new(&one))
            };
            regexes.into_iter().map(mapper).collect()
        });
        let tags = TagRules::new(&config.bucketing, &config.labels, false);
        Self { config, most_specific, tags, mapper: Mapper::new(config), alone, resolved: Resolved::default() }
    }

    /// Holds a line against what a rule says; one that cannot be read has no rule. The line has a tag `tag`, and one
    /// more if it is `sent`.
    fn hold(&mut self, text: &[u8], sent: Option<&str>) {
        let Ok(line) = Line::parse(text, &self.config.parse) else { return };
        let Ok(sample) = line.sample(line.body) else { return };
        let mut resolved = std::mem::take(&mut self.resolved);
        let mut resolve = |mapper: &Mapper| {
            let outcome = mapper.resolve(&self.tags, text, &line, &sample, &mut resolved);
            (outcome, resolved.rule.map(|rule| rule as usize))
        };
        let shown = String::from_utf8_lossy(text);
        let raw = [line.name, line.name_rest].concat();
        let Ok(raw) = std::str::from_utf8(&raw) else { return };
        let kind = MetricType::of(sample.kind);
        let rules = &self.config.mapping.rules;
        let expected = match (self.glob(raw, kind), &self.alone) {
            (Some(glob), _) => Some(glob),
            (None, Some(alone)) => {
                let is_for = |(place, it): &&(usize, Mapper)| is_of(&rules[*place], kind) && resolve(it).1.is_some();
                alone.iter().find(is_for).map(|(place, _)| *place)
            }
            // Too many to be tried one by one.
            (None, None) => return,
        };
        let (outcome, found) = resolve(&self.mapper);
        self.resolved = resolved;
        assert_eq!(found, expected, "the rule for {shown} of {rules:#?}");
        let Some(rule) = found.map(|place| &rules[place]) else { return };
        let kept = rule.observation.as_ref().unwrap_or(&self.config.mapping.observation);
        let is_taken = kind == MetricType::Observer && rule.labels.iter().any(|(label, _)| kept.reserves(label));
        let is_refused = is_taken || kind == MetricType::Observer && sent.is_some_and(|label| kept.reserves(label));
        let name = filled(&rule.name, rule, raw).map(|name| escaped(&name));
        match outcome.map_err(|refusal| refusal.reason) {
            Err(DropReason::MappingDrop) => assert_eq!(rule.action, Action::Drop, "{shown}"),
            _ if rule.action == Action::Drop => panic!("{shown} is not dropped by {rule:?}"),
            Err(DropReason::EmptyName) => assert!(name.is_none_or(|name| name.is_empty()), "{shown} by {rule:?}"),
            Err(DropReason::ReservedLabel) => assert!(is_refused, "{shown} by {rule:?}"),
            Err(reason) => assert_eq!(reason, DropReason::NameTooLong, "{shown} by {rule:?}"),
            Ok(_) => {
                assert!(!is_refused, "{shown} has a label that means something else, by {rule:?}");
                let found = String::from_utf8_lossy(&self.resolved.name);
                assert!(name.is_none_or(|name| name == found), "{found} of {shown} by {rule:?}");
                assert_eq!(self.resolved.scale, rule.scale.unwrap_or(1.0), "{shown}");
                self.hold_labels(rule, raw, sent, &shown);
            }
        }
    }

    /// The first glob that is for a name, or the most specific one; the place of a rule says where it stands.
    fn glob(&self, raw: &str, kind: MetricType) -> Option<usize> {
        let parts: Vec<&str> = raw.split('.').collect();
        let is_for = |rule: &Rule| {
            let Pattern::Glob(glob) = &rule.pattern else { return false };
            let glob: Vec<&str> = glob.split('.').collect();
            glob.len() == parts.len() && glob.iter().zip(&parts).all(|(glob, part)| *glob == "*" || glob == part)
        };
        let rules = self.config.mapping.rules.iter().enumerate();
        let fitting = rules.filter(|(_, rule)| is_of(rule, kind) && is_for(rule));
        let rank = |(place, rule): &(usize, &Rule)| {
            let stars = rule.pattern.as_str().split('.').map(|part| part == "*");
            let line = rule.place.rsplit(':').next().and_then(|line| line.parse::<u64>().ok());
            (stars.filter(|_| self.most_specific).collect::<Vec<_>>(), line, *place)
        };
        fitting.min_by_key(rank).map(|(place, _)| place)
    }

    /// The labels that a rule gives have the values that it says, but where a tag of that name wins.
    fn hold_labels(&self, rule: &Rule, raw: &str, sent: Option<&str>, shown: &str) {
        let found: BTreeMap<_, _> = self.resolved.labels.iter().collect();
        // As many as there may be, and the two tags.
        if rule.labels.len() + 2 > self.config.labels.max_count {
            return;
        }
        for (label, template) in &rule.labels {
            let action = self.tags.action_as_exposed(label.as_bytes());
            let may_win = label.len() <= self.config.labels.max_name_bytes && action == TagAction::Keep;
            let value = match rule.honor_labels && may_win {
                true if sent == Some(label) => Some("sent".to_owned()),
                true if label == "tag" => Some("v".to_owned()),
                _ => filled(template, rule, raw),
            };
            let found = found.get(label.as_bytes()).map(|value| String::from_utf8_lossy(value));
            if let (TagAction::Keep | TagAction::Drop, Some(mut value)) = (action, value) {
                let mut end = value.len().min(self.config.labels.max_value_bytes);
                while !value.is_char_boundary(end) {
                    end -= 1;
                }
                value.truncate(end);
                assert_eq!(found.as_deref(), Some(value.as_str()), "{label} of {shown} by {rule:?}");
            }
        }
    }
}

/// Whether a rule is for a type of metric.
fn is_of(rule: &Rule, kind: MetricType) -> bool {
    rule.metric_type.is_none_or(|only| only == kind)
}

fn is_glob(rule: &Rule) -> bool {
    matches!(rule.pattern, Pattern::Glob(_))
}

/// A template with what the stars of a glob stood for. `None` if it has anything but `${1}`, or `$1` before what cannot
/// be of its name, and of a regular expression if it has a `$` at all.
fn filled(template: &str, rule: &Rule, raw: &str) -> Option<String> {
    let mut pieces = template.split('$');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    let Pattern::Glob(glob) = &rule.pattern else { return (text == template).then_some(text) };
    let stars: Vec<&str> = glob.split('.').zip(raw.split('.')).filter(|(it, _)| *it == "*").map(|it| it.1).collect();
    for piece in pieces {
        let inner = piece.strip_prefix('{').unwrap_or(piece);
        let (number, rest) = inner.split_at(inner.bytes().take_while(u8::is_ascii_digit).count());
        let rest = match piece == inner {
            false => rest.strip_prefix('}')?,
            true if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "_{}".contains(c)) => return None,
            // Another reference may follow at once, which would be of the name.
            true if rest.is_empty() && !template.ends_with(piece) => return None,
            true => rest,
        };
        let place = number.parse::<usize>().ok()?.checked_sub(1);
        text += place.and_then(|place| stars.get(place).copied()).unwrap_or_default();
        text += rest;
    }
    Some(text)
}

/// What a name is exposed as: what no name may hold is `_`, of dashes in a row one.
fn escaped(raw: &str) -> String {
    let mut name = String::new();
    let mut before = None;
    for c in raw.chars() {
        match c {
            '-' if before == Some('-') => {}
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ => name.push('_'),
        }
        before = Some(c);
    }
    if raw.starts_with(|first: char| first.is_ascii_digit()) { "_".to_owned() + &name } else { name }
}
