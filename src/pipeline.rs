//! Takes one datagram through all stages: the hot path.
//!
//! In: the bytes of a datagram. Out: samples recorded in the store, and every line counted in the [`Tally`].
//! Not here: what a stage does; only the order of stages, and what is remembered between samples.
//! Always: each line ends as recorded or as dropped for one reason; a known identity takes no lock and allocates
//! nothing (but for one bucketed value in 64, which `insight` looks at); new rules take effect between datagrams, never
//! inside one.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache as RulesCache};
use foldhash::fast::RandomState;

use crate::admit::Limits;
use crate::aggregate::bounds::Bounds;
use crate::aggregate::{OVERFLOW_LABEL, Place, Recorder, Store, Wanted, admits};
use crate::config::{Config, GaugeSign, Parse};
use crate::identity::TagRules;
use crate::identity::cache::Cache;
use crate::insight::{Insight, Watcher};
use crate::map::labels::LabelSet;
use crate::map::{Kind, Mapper, Resolved, TagDrops};
use crate::model::{DropReason, Refusal, SampleType, TagDropReason};
use crate::parse::number::Number;
use crate::parse::{Line, Sample, Values, scan, unknown_letters};
use crate::telemetry::{Books, Count, Tally};

/// Everything that the stages are told by the configuration; swapped as a whole.
pub struct Rules {
    /// Dialects and signs.
    pub parse: Parse,
    /// Bucketed and dropped tags.
    pub tags: TagRules,
    /// Names and labels.
    pub mapper: Mapper,
    /// Who hears of the values of bucketed tags.
    pub insight: Arc<Insight>,
    /// Limits on series.
    pub limits: Limits,
    /// Bounds of new histograms.
    pub bounds: Arc<Bounds>,
    /// Rendered labels of an overflow series.
    pub overflow_labels: String,
    /// Longest line, bytes.
    pub max_line_bytes: usize,
    /// Limit of each worker's identity cache, bytes.
    pub identity_cache_bytes: usize,
}

impl Rules {
    /// Compiles a checked configuration.
    pub fn new(config: &Config) -> Self {
        let mut labels = LabelSet::default();
        for (name, value) in &config.labels.add {
            labels.add_constant(name.as_bytes(), value.as_bytes());
        }
        labels.add_constant(OVERFLOW_LABEL.as_bytes(), b"true");
        labels.sort();
        let mut overflow_labels = Vec::new();
        labels.render(&mut overflow_labels);
        Self {
            parse: config.parse.clone(),
            tags: TagRules::new(&config.bucketing, &config.labels, config.parse.container_id_label.is_some()),
            mapper: Mapper::new(config),
            insight: Arc::new(Insight::new(config)),
            limits: Limits::new(&config.cardinality),
            bounds: Arc::new(Bounds::new(&config.observer.bounds)),
            overflow_labels: text(&overflow_labels).to_owned(),
            max_line_bytes: config.listen.max_line_bytes,
            identity_cache_bytes: config.cardinality.identity_cache_bytes,
        }
    }
}

/// The stages of one worker, from datagram to cell.
pub struct Pipeline {
    rules: RulesCache<Arc<ArcSwap<Rules>>, Arc<Rules>>,
    stages: Stages,
}

/// What a worker remembers between samples.
struct Stages {
    /// The rules that `cache` was filled under.
    cached_under: Arc<Rules>,
    cache: Cache<Answer>,
    hasher: RandomState,
    identity: Vec<u8>,
    resolved: Resolved,
    labels: Vec<u8>,
    store: Arc<Store>,
    recorder: Recorder,
    tally: Tally,
    worker: usize,
    watcher: Watcher,
    /// Time of the batch, as [`Pipeline::tick`] was told.
    now_ms: u64,
}

/// What became of an identity when it was new.
struct Answer {
    outcome: Result<Place, DropReason>,
    overflow: bool,
    /// Tags that each of its samples loses; `None` for the many that lose none.
    tag_drops: Option<Box<TagDrops>>,
}

impl Pipeline {
    /// The stages of worker number `worker`, which nobody else may record as.
    pub fn new(rules: Arc<ArcSwap<Rules>>, store: Arc<Store>, worker: usize) -> Self {
        let cached_under = rules.load_full();
        let watcher = cached_under.insight.watch(worker);
        let stages = Stages {
            cache: Cache::new(cached_under.identity_cache_bytes),
            cached_under,
            hasher: RandomState::default(),
            identity: Vec::new(),
            resolved: Resolved::default(),
            labels: Vec::new(),
            recorder: store.recorder(worker),
            store,
            tally: Tally::default(),
            worker,
            watcher,
            now_ms: 0,
        };
        Self { rules: RulesCache::new(rules), stages }
    }

    /// Tells the time of what follows, in milliseconds since any fixed moment; once a batch is enough.
    pub fn tick(&mut self, now_ms: u64) {
        self.stages.now_ms = now_ms;
        self.stages.watcher.turn(now_ms);
    }

    /// Takes every line of a datagram to its end.
    #[inline]
    pub fn datagram(&mut self, datagram: &[u8]) {
        let Self { rules, stages } = self;
        let rules = rules.load();
        if !Arc::ptr_eq(rules, &stages.cached_under) {
            stages.start_over(rules);
        }
        // ASCII is UTF-8; the check runs over whole words, so it costs next to nothing for all lines at once.
        let ascii = datagram.is_ascii();
        let mut start = 0;
        while start < datagram.len() {
            let end = scan::find(datagram, start, b'\n');
            let line = &datagram[start..end];
            start = end + 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                stages.line(rules, line, ascii);
            }
        }
    }

    /// The counts so far.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.stages.tally
    }

    /// Makes the counts so far visible to scrapes.
    pub fn publish(&mut self, books: &Books) {
        let Stages { tally, cache, .. } = &mut self.stages;
        tally.set(Count::CacheEntries, cache.len() as u64);
        tally.set(Count::CacheEvictions, cache.evictions());
        books.publish(tally);
    }
}

impl Stages {
    /// Forgets what was found under other rules.
    #[cold]
    fn start_over(&mut self, rules: &Arc<Rules>) {
        self.cache.reset(rules.identity_cache_bytes);
        self.cached_under = rules.clone();
        self.watcher = rules.insight.watch(self.worker);
        self.watcher.turn(self.now_ms);
    }

    #[inline(always)]
    fn line(&mut self, rules: &Rules, text: &[u8], ascii: bool) {
        self.tally.add(Count::Lines, 1);
        if text.len() > rules.max_line_bytes {
            return self.tally.dropped(DropReason::LineTooLong);
        }
        if !ascii && std::str::from_utf8(text).is_err() {
            return self.tally.dropped(DropReason::InvalidUtf8);
        }
        if let Err(refusal) = self.samples(rules, text) {
            self.tally.dropped(refusal.reason);
        }
    }

    #[inline(always)]
    fn samples(&mut self, rules: &Rules, text: &[u8]) -> Result<(), Refusal> {
        let mut line = Line::new(text, &rules.parse);
        line.read_name(&rules.parse)?;
        let mut sample = Sample::default();
        let mut next = Some(line.body);
        while let Some(from) = next {
            line.read_sample(from, &mut sample)?;
            self.sample(rules, text, &line, &sample);
            next = sample.next;
        }
        Ok(())
    }

    #[inline(always)]
    fn sample(&mut self, rules: &Rules, text: &[u8], line: &Line<'_>, sample: &Sample<'_>) {
        if sample.invalid_rate || sample.unknown_fields != 0 {
            self.oddities(sample);
        }
        let plain = matches!(sample.values, Values::One(_)) && sample.weight == 1.0;
        if !plain && self.refuses(rules, sample) {
            return;
        }
        let dropped = rules.tags.identify(line, sample, &mut self.identity, &mut self.watcher);
        if dropped > 0 {
            self.tally.tags_dropped(TagDropReason::Dropped, dropped);
        }
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&self.identity);
        let hash = hasher.finish();
        if let Some(answer) = self.cache.get(hash, &self.identity) {
            self.tally.add(Count::CacheHits, 1);
            answer.take(rules, sample, &mut self.recorder, &mut self.tally);
        } else {
            self.new_identity(rules, text, line, sample, hash);
        }
    }

    /// The slow way, for an identity that the cache does not know: name, labels, limits, place.
    #[cold]
    fn new_identity(&mut self, rules: &Rules, text: &[u8], line: &Line<'_>, sample: &Sample<'_>, hash: u64) {
        self.tally.add(Count::CacheMisses, 1);
        let found = self.find(rules, text, line, sample);
        let overflow = matches!(found, Ok((_, true)));
        let outcome = found.map(|(place, _)| place);
        let drops = self.resolved.tag_drops;
        let tag_drops = (outcome.is_ok() && drops.iter().any(|n| *n > 0)).then(|| Box::new(drops));
        let answer = Answer { outcome, overflow, tag_drops };
        answer.take(rules, sample, &mut self.recorder, &mut self.tally);
        self.cache.offer(hash, &self.identity, answer);
    }

    /// The place of a sample, and whether it is an overflow series'.
    fn find(
        &mut self,
        rules: &Rules,
        text: &[u8],
        line: &Line<'_>,
        sample: &Sample<'_>,
    ) -> Result<(Place, bool), DropReason> {
        let kind = rules
            .mapper
            .resolve(&rules.tags, text, line, sample, &mut self.resolved)
            .map_err(|refusal| refusal.reason)?;
        self.labels.clear();
        self.resolved.labels.render(&mut self.labels);
        let wanted = Wanted {
            name: self::text(&self.resolved.name),
            written: self::text(line.name),
            kind,
            bounds: &rules.bounds,
            labels: self::text(&self.labels),
            overflow_labels: &rules.overflow_labels,
        };
        let placed = self.store.place(wanted, &rules.limits)?;
        Ok((placed.place, placed.overflow))
    }

    /// Whether no value of a sample can be recorded, whatever its series; each is counted for its own reason then.
    ///
    /// Asked before anything else of the sample: it makes no series, nor does it decide what type a name has. A plain
    /// number of weight 1 need not be asked.
    #[inline(never)]
    fn refuses(&mut self, rules: &Rules, sample: &Sample<'_>) -> bool {
        let Some(kind) = Kind::of(sample.kind) else { return false };
        let refusals = sample.values.numbers().map(|number| match number {
            Ok(number) => admits(kind, rules.mapper.in_base_unit(sample.kind, number.value), sample.weight).err(),
            Err((reason, _)) => Some(reason),
        });
        if refusals.clone().any(|refusal| refusal.is_none()) {
            return false;
        }
        refusals.flatten().for_each(|reason| self.tally.dropped(reason));
        true
    }

    #[cold]
    fn oddities(&mut self, sample: &Sample<'_>) {
        self.tally.add(Count::InvalidRates, u64::from(sample.invalid_rate));
        unknown_letters(sample.unknown_fields).for_each(|letter| self.tally.unknown_field(letter));
    }
}

impl Answer {
    /// Records the values of a sample of this identity, or counts why not.
    #[inline]
    fn take(&self, rules: &Rules, sample: &Sample<'_>, recorder: &mut Recorder, tally: &mut Tally) {
        let place = match &self.outcome {
            Ok(place) => place,
            Err(reason) => {
                // A set's value is its whole text, colons and all.
                let values = if sample.kind == SampleType::Set { 1 } else { sample.values.numbers().count() };
                (0..values).for_each(|_| tally.dropped(*reason));
                return;
            }
        };
        match sample.values {
            Values::One(value) => self.record(rules, sample, place, Number { value, signed: false }, recorder, tally),
            Values::Text(_) => self.take_all(rules, sample, place, recorder, tally),
        }
        if let Some(drops) = &self.tag_drops {
            for (reason, n) in TagDropReason::ALL.iter().zip(**drops) {
                tally.tags_dropped(*reason, u64::from(n));
            }
        }
    }

    /// Records one value, or counts why not.
    #[inline(always)]
    fn record(
        &self,
        rules: &Rules,
        sample: &Sample<'_>,
        place: &Place,
        number: Number,
        recorder: &mut Recorder,
        tally: &mut Tally,
    ) {
        let value = rules.mapper.in_base_unit(sample.kind, number.value);
        let relative = number.signed && rules.parse.gauge_sign == GaugeSign::Delta;
        match recorder.record(place, value, sample.weight, relative) {
            Ok(()) => {
                tally.recorded(sample.kind);
                if self.overflow {
                    tally.add(Count::OverflowSamples, 1);
                }
            }
            Err(reason) => tally.dropped(reason),
        }
    }

    /// The same for every value of a text that is no plain number.
    #[inline(never)]
    fn take_all(&self, rules: &Rules, sample: &Sample<'_>, place: &Place, recorder: &mut Recorder, tally: &mut Tally) {
        for number in sample.values.numbers() {
            match number {
                Ok(number) => self.record(rules, sample, place, number, recorder, tally),
                Err((reason, _)) => tally.dropped(reason),
            }
        }
    }
}

/// Bytes that were made from valid UTF-8 cut at ASCII bytes and character boundaries, as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a line is checked to be UTF-8 before it is cut")
}

#[cfg(test)]
mod tests;
