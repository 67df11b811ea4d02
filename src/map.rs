//! Gives a new identity its exposed name and labels.
//!
//! In: a parsed line and sample. Out: a [`Resolved`] with family name, kind and label set, by the mapping rule that is
//! for the raw name, or by `[naming]`.
//! Not here: user buckets (`identity`), limits on series (`admit`), types that clash (`aggregate`).
//! Always: a name matches `[a-zA-Z_:][a-zA-Z0-9_:]*` and a label name `[a-zA-Z_][a-zA-Z0-9_]*`; labels are sorted by
//! name, none twice; the same identity gives the same result.
//! Cost: runs when an identity is new or seen for the first time; reuses its buffers, so it allocates only to grow.

mod glob;
pub mod labels;
pub mod name;
pub mod regex;
pub(crate) mod rules;
mod template;

use std::time::Duration;

use crate::config::{BareTags, Config, MetricType, MsUnit, Naming, Observation};
use crate::identity::{TagAction, TagRules};
use crate::model::{DropReason, EVENTS, Refusal, SERVICE_CHECKS, STATSD_EXPORTER_PREFIXES, SampleType, TagDropReason};
use crate::parse::tags::{self, Tag, TagStyle};
use crate::parse::{Line, Sample, offset};
use labels::{LabelSet, Origin};
use rules::{Found, Rules, Scratch};

/// What a family is, once its samples are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by buckets.
    Histogram,
    /// Observations by quantiles.
    Summary,
    /// How many different values there were; exposed as a gauge.
    Set,
}

impl Kind {
    /// What samples of this type become; observations are kept as `observation` has it.
    pub const fn of(kind: SampleType, observation: &Observation) -> Self {
        match (kind, observation) {
            (SampleType::Counter | SampleType::Event, _) => Self::Counter,
            (SampleType::Gauge | SampleType::ServiceCheck, _) => Self::Gauge,
            (SampleType::Set, _) => Self::Set,
            (_, Observation::Histogram { .. }) => Self::Histogram,
            (_, Observation::Summary { .. }) => Self::Summary,
        }
    }

    /// Whether it keeps observations.
    pub const fn is_observer(self) -> bool {
        matches!(self, Self::Histogram | Self::Summary)
    }

    /// The word for it in a TYPE line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Set => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

impl MetricType {
    /// What rules tell this type of sample by: a set is what it is exposed as.
    pub const fn of(kind: SampleType) -> Self {
        match kind {
            SampleType::Counter | SampleType::Event => Self::Counter,
            SampleType::Gauge | SampleType::Set | SampleType::ServiceCheck => Self::Gauge,
            SampleType::Timer | SampleType::Histogram | SampleType::Distribution => Self::Observer,
        }
    }
}

/// Tags left out or cut, by [`TagDropReason`].
pub type TagDrops = [u16; TagDropReason::COUNT];

/// A name and labels, with what was left out on the way. For one mapper; made anew with new rules.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The family's name, as exposed.
    pub name: Vec<u8>,
    /// The labels, sorted.
    pub labels: LabelSet,
    /// Tags that did not become labels, but for those that `labels.drop` took out before identity.
    pub tag_drops: TagDrops,
    /// The mapping rule that gave name and labels, or refused the sample, by its place; [`Mapper::terms`] says what
    /// else it decides.
    pub rule: Option<u32>,
    /// What values are multiplied by, in their base unit.
    pub scale: f64,
    /// Buffers of `take_tag` and of rules.
    key: Vec<u8>,
    value: Vec<u8>,
    /// The name as written and the type that `name` was made from: in a flood of new label sets it is the same again.
    written: Vec<u8>,
    written_as: Option<SampleType>,
    /// The same for keys, by the place of their tag: those that become labels as they are, with any type.
    plain_keys: Vec<PlainKey>,
    raw: Vec<u8>,
    scratch: Scratch,
}

/// A tag key that no rule names, with its legal spelling.
#[derive(Debug, Default)]
struct PlainKey {
    written: Vec<u8>,
    escaped: Vec<u8>,
}

/// What a mapping rule decides beside name, labels and scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Help text of the family; `None` for the usual one.
    pub help: Option<String>,
    /// How observations are kept.
    pub observation: Observation,
    /// After how long without a sample a series goes; `None` leaves that to the limits.
    pub ttl: Option<Duration>,
    /// Whether an incoming tag wins over a label of the rule.
    honor_labels: bool,
    scale: f64,
}

/// The rules that make names and labels, compiled from the configuration.
#[derive(Debug)]
pub struct Mapper {
    naming: Naming,
    add: Vec<(String, String)>,
    max_count: usize,
    max_name_bytes: usize,
    max_value_bytes: usize,
    bare_tags: BareTags,
    container_id_label: Option<String>,
    /// What an `ms` value is divided by.
    ms_divisor: f64,
    rules: Rules,
    /// What each rule decides.
    terms: Vec<Terms>,
    /// What each rule matches, as it is written.
    patterns: Vec<String>,
    /// What holds for names without a rule.
    unmapped: Terms,
    /// Whether any rule scales.
    scales: bool,
    /// Beginnings of names that are taken, beside those that always are.
    taken: &'static [&'static str],
}

impl Mapper {
    /// Compiles `[mapping]`, `[naming]`, `[labels]` and what `[parse]` says of labels and units.
    pub fn new(config: &Config) -> Self {
        let mapping = &config.mapping;
        let unmapped = Terms {
            help: None,
            observation: mapping.observation.clone(),
            ttl: mapping.ttl,
            honor_labels: false,
            scale: 1.0,
        };
        let terms = mapping.rules.iter().map(|rule| Terms {
            help: rule.help.clone(),
            observation: rule.observation.clone().unwrap_or_else(|| mapping.observation.clone()),
            ttl: rule.ttl.or(mapping.ttl).filter(|ttl| !ttl.is_zero()),
            honor_labels: rule.honor_labels,
            scale: rule.scale.unwrap_or(1.0),
        });
        Self {
            rules: Rules::new(&mapping.rules),
            terms: terms.collect(),
            patterns: mapping.rules.iter().map(|rule| rule.pattern.as_str().to_owned()).collect(),
            unmapped,
            scales: mapping.rules.iter().any(|rule| rule.scale.is_some()),
            taken: if config.telemetry.statsd_exporter_metrics { &STATSD_EXPORTER_PREFIXES } else { &[] },
            naming: config.naming.clone(),
            add: config.labels.add.clone(),
            max_count: config.labels.max_count,
            max_name_bytes: config.labels.max_name_bytes,
            max_value_bytes: config.labels.max_value_bytes,
            bare_tags: config.parse.bare_tags,
            container_id_label: config.parse.container_id_label.clone(),
            ms_divisor: match config.parse.ms_unit {
                MsUnit::Milliseconds => 1000.0,
                MsUnit::Seconds => 1.0,
            },
        }
    }

    /// A value in the unit it is recorded in: seconds for timers, its own for all others.
    #[inline]
    pub fn in_base_unit(&self, kind: SampleType, value: f64) -> f64 {
        if kind == SampleType::Timer { value / self.ms_divisor } else { value }
    }

    /// Whether any rule scales values, so that whether a value is refused depends on its rule.
    #[inline]
    pub fn scales(&self) -> bool {
        self.scales
    }

    /// What a rule decides, by its place; without one, what holds for all other names.
    pub fn terms(&self, rule: Option<u32>) -> &Terms {
        rule.map_or(&self.unmapped, |rule| &self.terms[rule as usize])
    }

    /// A name as a help text shows it: what is said of many names shows what a rule matches, and no name of a user.
    pub fn shown<'a>(&'a self, rule: Option<u32>, written: &'a str) -> &'a str {
        rule.map_or(written, |rule| &self.patterns[rule as usize])
    }

    /// What stands for a raw name where a person may see it, if a mapping rule takes a user out of it. Slow.
    pub fn stands_for(&self, tags: &TagRules, raw: &[u8]) -> Option<&str> {
        let mut scratch = Scratch::default();
        let of = |kind, scratch: &mut Scratch| {
            let found = self.rules.find(kind, raw, scratch)?;
            let mut has_user = false;
            found.labels(&mut Vec::new(), |label, _, _| {
                has_user |= matches!(tags.action_as_exposed(label.as_bytes()), TagAction::Bucket(_));
            });
            has_user.then_some(found.rule)
        };
        // A line that is refused may not say which type it has.
        let rule = [MetricType::Counter, MetricType::Gauge, MetricType::Observer]
            .into_iter()
            .find_map(|kind| of(kind, &mut scratch))?;
        Some(&self.patterns[rule as usize])
    }

    /// Finds name and labels of a sample, into `out`; `rules` is what its identity was made with.
    ///
    /// # Errors
    /// `MappingDrop` by a rule, `EmptyName` if a rule's template is empty, `NameTooLong`, `TypeConflict` for a name
    /// that `telemetry.statsd_exporter_metrics` takes, `ReservedLabel` for a tag key that is empty, starts with `__`,
    /// or is `le` on a histogram or `quantile` on a summary.
    pub fn resolve(
        &self,
        rules: &TagRules,
        text: &[u8],
        line: &Line<'_>,
        sample: &Sample<'_>,
        out: &mut Resolved,
    ) -> Result<Kind, Refusal> {
        if matches!(sample.kind, SampleType::Event | SampleType::ServiceCheck) {
            return self.resolve_message(rules, text, line, sample, out);
        }
        out.labels.clear();
        out.tag_drops = TagDrops::default();
        (out.rule, out.scale) = (None, 1.0);
        for (name, value) in &self.add {
            out.labels.add_constant(name.as_bytes(), value.as_bytes());
        }
        let mapped = self.apply_rule(rules, MetricType::of(sample.kind), line, out)?;
        let known = || out.written_as == Some(sample.kind) && out.written == line.name && line.name_rest.is_empty();
        if !mapped && !known() {
            name::write(&self.naming, sample.kind, line.name, line.name_rest, &mut out.name);
            out.written.clear();
            out.written.extend_from_slice(line.name);
            out.written_as = line.name_rest.is_empty().then_some(sample.kind);
        }
        if out.name.len() > self.max_name_bytes {
            return Err(Refusal::new(DropReason::NameTooLong, 0));
        }
        if self.taken.iter().any(|start| out.name.starts_with(start.as_bytes())) {
            return Err(Refusal::new(DropReason::TypeConflict, 0));
        }
        if line.lone_bracket {
            out.drop_tag(TagDropReason::Malformed);
        }
        let container = self.container_id_label.as_ref().filter(|_| !sample.container.is_empty());
        let container_first = sample.container_is_first();
        if let Some(label) = container
            && container_first
        {
            set(label.as_bytes(), sample.container, self, &mut out.labels, &mut out.tag_drops);
        }
        let in_name = tags::list(line.name_tags, line.style);
        for (place, tag) in in_name.chain(tags::list(sample.tags, TagStyle::DogStatsd)).enumerate() {
            if let Tag::Pair(key, value) = tag
                && let Some(known) = out.plain_keys.get(place)
                && known.written == key
                // A place where none is known yet holds an empty one.
                && !key.is_empty()
            {
                set(&known.escaped, value, self, &mut out.labels, &mut out.tag_drops);
                continue;
            }
            self.take_tag(rules, sample.kind, (place, tag), out)
                .map_err(|key| Refusal::new(DropReason::ReservedLabel, offset(text, key)))?;
        }
        if let Some(label) = container
            && !container_first
        {
            set(label.as_bytes(), sample.container, self, &mut out.labels, &mut out.tag_drops);
        }
        out.labels.sort();
        Ok(Kind::of(sample.kind, &self.terms(out.rule).observation))
    }

    /// The same for an event, which is told by its alert type alone, or a service check, whose tags are labels.
    fn resolve_message(
        &self,
        rules: &TagRules,
        text: &[u8],
        line: &Line<'_>,
        sample: &Sample<'_>,
        out: &mut Resolved,
    ) -> Result<Kind, Refusal> {
        (out.rule, out.scale) = (None, 1.0);
        out.name.clear();
        out.written_as = None;
        out.labels.clear();
        out.tag_drops = TagDrops::default();
        for (name, value) in &self.add {
            out.labels.add_constant(name.as_bytes(), value.as_bytes());
        }
        if sample.kind == SampleType::Event {
            out.name.extend_from_slice(EVENTS.as_bytes());
            // One of four words, and the only label beside constant ones, of which a rule may have named it.
            let _ = out.labels.set(b"alert_type", line.name, Origin::Rule, usize::MAX);
        } else {
            out.name.extend_from_slice(SERVICE_CHECKS.as_bytes());
            for (place, tag) in tags::list(sample.tags, TagStyle::DogStatsd).enumerate() {
                self.take_tag(rules, sample.kind, (place, tag), out)
                    .map_err(|key| Refusal::new(DropReason::ReservedLabel, offset(text, key)))?;
            }
            if let Some(label) = &self.container_id_label
                && !sample.container.is_empty()
            {
                set(label.as_bytes(), sample.container, self, &mut out.labels, &mut out.tag_drops);
            }
            // Set last, so that no tag of that name stands in for it.
            set(b"check", line.name, self, &mut out.labels, &mut out.tag_drops);
        }
        out.labels.sort();
        Ok(if sample.kind == SampleType::Event { Kind::Counter } else { Kind::Gauge })
    }

    /// Takes name and labels from the rule that is for the raw name, if there is one.
    fn apply_rule(
        &self,
        tags: &TagRules,
        kind: MetricType,
        line: &Line<'_>,
        out: &mut Resolved,
    ) -> Result<bool, Refusal> {
        if self.terms.is_empty() {
            return Ok(false);
        }
        let (mut raw, mut scratch) = (std::mem::take(&mut out.raw), std::mem::take(&mut out.scratch));
        raw.clear();
        let name = match line.name_rest {
            [] => line.name,
            rest => {
                raw.extend_from_slice(line.name);
                raw.extend_from_slice(rest);
                &raw
            }
        };
        let outcome = match self.rules.find(kind, name, &mut scratch) {
            Some(found) => self.take_from(&found, tags, kind, out).map(|()| true),
            None => Ok(false),
        };
        (out.raw, out.scratch) = (raw, scratch);
        outcome
    }

    /// Takes name and labels from a rule.
    fn take_from(
        &self,
        found: &Found<'_>,
        tags: &TagRules,
        kind: MetricType,
        out: &mut Resolved,
    ) -> Result<(), Refusal> {
        let terms = self.terms(Some(found.rule));
        (out.rule, out.scale) = (Some(found.rule), terms.scale);
        if found.drops() {
            return Err(Refusal::new(DropReason::MappingDrop, 0));
        }
        let mut buffer = std::mem::take(&mut out.key);
        out.written_as = None;
        found.write_name(&mut buffer, &mut out.name);
        let mut reserved = false;
        found.labels(&mut buffer, |label, value, constant| {
            let observer = kind == MetricType::Observer;
            reserved |= observer && terms.observation.reserves(label);
            let origin = if constant { Origin::Rule } else { Origin::Captured };
            match tags.action_as_exposed(label.as_bytes()) {
                // The value of a bucketed tag becomes no label, whoever sends it.
                TagAction::Bucket(rule) => {
                    let buckets = &tags.buckets()[usize::from(rule)];
                    if !observer || buckets.observers {
                        let mut text = std::mem::take(&mut out.value);
                        text.clear();
                        buckets.write(buckets.number(value), &mut text);
                        out.add_mapped((buckets.label.as_bytes(), &text), Origin::Rule, terms.honor_labels, self);
                        out.value = text;
                    }
                }
                TagAction::Keep | TagAction::Drop => {
                    let value = out.cut(value, self);
                    out.add_mapped((label.as_bytes(), value), origin, terms.honor_labels, self);
                }
            }
        });
        out.key = buffer;
        if out.name.is_empty() {
            return Err(Refusal::new(DropReason::EmptyName, 0));
        }
        if reserved {
            return Err(Refusal::new(DropReason::ReservedLabel, 0));
        }
        Ok(())
    }

    /// Turns one tag into a label, or counts why not.
    ///
    /// # Errors
    /// The key, if the whole sample has to be refused for it.
    fn take_tag<'a>(
        &self,
        rules: &TagRules,
        kind: SampleType,
        (place, tag): (usize, Tag<'a>),
        out: &mut Resolved,
    ) -> Result<(), &'a [u8]> {
        let (key, value, bare) = match tag {
            Tag::Pair(key, value) => (key, value, false),
            Tag::Bare(key) => (key, b"true".as_slice(), true),
            Tag::Malformed(piece) => {
                let key = piece.strip_suffix(b":").or(piece.strip_suffix(b"=")).unwrap_or(piece);
                if rules.action(key) != TagAction::Drop {
                    out.drop_tag(TagDropReason::Malformed);
                }
                return Ok(());
            }
        };
        if rules.action(key) == TagAction::Drop {
            // Taken out and counted with its identity.
            return Ok(());
        }
        let action = rules.action_as_exposed(key);
        let mut escaped = std::mem::take(&mut out.key);
        escaped.clear();
        name::escape(key, &mut escaped);
        let outcome = self.set_tag(rules, kind, (key, &escaped), (value, bare), action, out);
        // Not what some types of family keep for themselves: it has to be looked at each time.
        let plain = action == TagAction::Keep && escaped != b"le" && escaped != b"quantile";
        if plain && outcome.is_ok() && key.len() <= self.max_name_bytes {
            out.remember(place, key, &escaped);
        }
        out.key = escaped;
        outcome
    }

    /// Sets the label of a tag whose key, written and escaped, and action are known.
    fn set_tag<'a>(
        &self,
        rules: &TagRules,
        kind: SampleType,
        (key, escaped): (&'a [u8], &[u8]),
        (value, bare): (&[u8], bool),
        action: TagAction,
        out: &mut Resolved,
    ) -> Result<(), &'a [u8]> {
        if bare && self.bare_tags == BareTags::Drop {
            out.drop_tag(TagDropReason::Bare);
            return Ok(());
        }
        let observation = &self.terms(out.rule).observation;
        let means_something = kind.is_observer() && observation.reserves(escaped);
        if escaped.is_empty() || escaped.starts_with(b"__") || means_something {
            return Err(key);
        }
        if key.len() > self.max_name_bytes {
            out.drop_tag(TagDropReason::NameTooLong);
            return Ok(());
        }
        match action {
            TagAction::Drop => out.drop_tag(TagDropReason::Dropped),
            TagAction::Keep => set(escaped, value, self, &mut out.labels, &mut out.tag_drops),
            TagAction::Bucket(rule) => {
                let buckets = &rules.buckets()[usize::from(rule)];
                if !kind.is_observer() || buckets.observers {
                    let mut text = std::mem::take(&mut out.value);
                    text.clear();
                    buckets.write(buckets.number(value), &mut text);
                    // Not cut: the text is the operator's, and cut ones would merge buckets.
                    if let Err(reason) = out.labels.set(buckets.label.as_bytes(), &text, Origin::Rule, self.max_count) {
                        out.drop_tag(reason);
                    }
                    out.value = text;
                }
            }
        }
        Ok(())
    }
}

impl Resolved {
    /// Notes a key that became a label at this place among the tags.
    fn remember(&mut self, place: usize, key: &[u8], escaped: &[u8]) {
        // More tags than a line has as a rule are not worth the memory.
        if place >= 16 {
            return;
        }
        if self.plain_keys.len() <= place {
            self.plain_keys.resize_with(place + 1, PlainKey::default);
        }
        let known = &mut self.plain_keys[place];
        known.written.clear();
        known.written.extend_from_slice(key);
        known.escaped.clear();
        known.escaped.extend_from_slice(escaped);
    }

    /// Adds a label of a rule; counts it as a tag if there is no place for it.
    fn add_mapped(&mut self, label: (&[u8], &[u8]), origin: Origin, honor: bool, limits: &Mapper) {
        if let Err(reason) = self.labels.add_mapped(label, origin, honor, limits.max_count) {
            self.drop_tag(reason);
        }
    }

    /// A value up to the limit, cut at a character boundary, and counted if it was longer.
    fn cut<'v>(&mut self, value: &'v [u8], limits: &Mapper) -> &'v [u8] {
        let mut end = value.len().min(limits.max_value_bytes);
        if end < value.len() {
            self.drop_tag(TagDropReason::Truncated);
            while end > 0 && value[end] & 0xC0 == 0x80 {
                end -= 1;
            }
        }
        &value[..end]
    }

    fn drop_tag(&mut self, reason: TagDropReason) {
        drop_tag(&mut self.tag_drops, reason);
    }
}

/// Sets the label of a tag, its value cut to the limit; counts the tag if there is no place for it.
fn set(name: &[u8], value: &[u8], limits: &Mapper, labels: &mut LabelSet, drops: &mut TagDrops) {
    let mut end = value.len().min(limits.max_value_bytes);
    if end < value.len() {
        drop_tag(drops, TagDropReason::Truncated);
        while end > 0 && value[end] & 0xC0 == 0x80 {
            end -= 1;
        }
    }
    if let Err(reason) = labels.set(name, &value[..end], Origin::Tag, limits.max_count) {
        drop_tag(drops, reason);
    }
}

fn drop_tag(drops: &mut TagDrops, reason: TagDropReason) {
    let count = &mut drops[reason.index()];
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests;
