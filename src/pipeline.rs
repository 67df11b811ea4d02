//! Takes one datagram through all stages: the hot path.
//!
//! In: the bytes of a datagram. Out: samples recorded in the store, and every line counted in the [`Tally`].
//! Not here: what a stage does; only the order of stages, and what is remembered between samples.
//! Always: each line ends as recorded or as dropped for one reason; a known identity takes no lock and allocates
//! nothing (but for one bucketed value in 64, which `insight` looks at, and with a quota for families one lock for a whole
//! lease of cells); new rules take effect between datagrams, never inside one.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache as RulesCache};
use foldhash::fast::RandomState;

use crate::admit::quota::{Leases, Quotas};
use crate::admit::sampling::{Sampler, Signals};
use crate::admit::{Gate, Limits};
use crate::aggregate::bounds::Bounds;
use crate::aggregate::grace::{Forget, Passage};
use crate::aggregate::{OVERFLOW_LABEL, Place, Placed, Recorder, Retry, Sight, Store, Wanted, admits};
use crate::clock::{self, Tick};
use crate::config::{Config, GaugeSign, Parse, Sampling};
use crate::identity::TagRules;
use crate::identity::cache::Cache;
use crate::insight::{Insight, Watcher};
use crate::map::labels::LabelSet;
use crate::map::{Kind, Mapper, Resolved, TagDrops};
use crate::model::{DropReason, Refusal, SampleType, TagDropReason};
use crate::parse::number::Number;
use crate::parse::{Line, Sample, Values, glance, scan, unknown_letters};
use crate::telemetry::{Books, Count, Tally};

/// Seconds after which idle series have given way: one sweep marks them, the next removes them.
const SWEPT_AFTER: Tick = 4;

/// Seconds after which an identity that had to give way asks whether it still has to.
const NOW_AND_THEN: Tick = 60;

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
    /// Limits on series, and the quota on new ones.
    pub gate: Gate,
    /// When lines are thinned, and how far.
    pub sampling: Sampling,
    /// Quotas, which all workers share; `None` if there is no limit.
    pub quotas: Option<Quotas>,
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
            gate: Gate::new(Limits::new(&config.cardinality, &config.labels), config.cardinality.new_series_per_second),
            sampling: config.sampling,
            quotas: Quotas::new(&config.rate_limit),
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
    passage: Passage,
    now: Tick,
    tally: Tally,
    sampler: Sampler,
    leases: Leases,
    worker: usize,
    watcher: Watcher,
    /// Time of the batch in milliseconds.
    now_ms: u64,
}

/// What became of an identity when it was new.
struct Answer {
    outcome: Result<Place, DropReason>,
    overflow: bool,
    /// From this tick on it asks again; [`Tick::MAX`] for the many that never do.
    again_at: Tick,
    /// Its family's number; 0 without an outcome.
    family: u32,
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
            sampler: Sampler::new(cached_under.sampling, fastrand::u64(..)),
            leases: Leases::default(),
            cached_under,
            hasher: RandomState::default(),
            identity: Vec::new(),
            resolved: Resolved::default(),
            labels: Vec::new(),
            recorder: store.recorder(worker),
            passage: store.passage(worker),
            now: 0,
            store,
            tally: Tally::default(),
            worker,
            watcher,
            now_ms: 0,
        };
        Self { rules: RulesCache::new(rules), stages }
    }

    /// Takes every line of a datagram to its end.
    #[inline]
    pub fn datagram(&mut self, datagram: &[u8]) {
        let Self { rules, stages } = self;
        let rules = rules.load();
        if !Arc::ptr_eq(rules, &stages.cached_under) {
            stages.start_over(rules);
        }
        if let Some(quotas) = &rules.quotas {
            stages.leases.at(quotas, quotas.now());
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

    /// A batch begins at this time of the [`Clock`](crate::clock::Clock). Forgets what is about to be taken away.
    pub fn begin(&mut self, now: Duration) {
        let stages = &mut self.stages;
        stages.now_ms = now.as_millis() as u64;
        stages.now = clock::tick(now);
        stages.watcher.turn(stages.now_ms);
        stages.recorder.set_time(stages.now);
        let Stages { cache, cached_under, passage, .. } = stages;
        if let Some(forget) = passage.enter() {
            match forget {
                Forget::Some(doomed) => cache.retain(|answer| match &answer.outcome {
                    Ok(place) => !doomed.contains(place),
                    Err(reason) => !(doomed.names && *reason == DropReason::TypeConflict),
                }),
                Forget::All => cache.reset(cached_under.identity_cache_bytes),
            }
            passage.forgotten();
        }
    }

    /// The batch is over: its counts become visible to scrapes, and nothing is recorded until the next begins.
    pub fn end(&mut self, books: &Books) {
        let Stages { tally, cache, passage, sampler, .. } = &mut self.stages;
        tally.set(Count::CacheEntries, cache.len() as u64);
        tally.set(Count::CacheEvictions, cache.evictions());
        books.publish(tally);
        books.publish_load(sampler.rate(), sampler.load());
        passage.leave();
    }

    /// Takes in how the worker fared since this was last said, and thins more or less for it.
    pub fn adjust(&mut self, signals: &Signals) {
        self.stages.sampler.adjust(signals);
    }

    /// How often [`Pipeline::adjust`] is due while datagrams come.
    pub fn sampling_interval(&self) -> Duration {
        self.stages.sampler.interval()
    }

    /// Whether [`Pipeline::adjust`] is due after an interval without datagrams as well.
    pub fn is_restless(&self) -> bool {
        self.stages.sampler.is_restless()
    }

    /// The counts so far.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.stages.tally
    }
}

impl Stages {
    /// Forgets what was found under other rules.
    #[cold]
    fn start_over(&mut self, rules: &Arc<Rules>) {
        self.cache.reset(rules.identity_cache_bytes);
        self.cached_under = rules.clone();
        self.resolved = Resolved::default();
        self.sampler.follow(&rules.sampling);
        // Cells of quotas that are gone.
        self.leases = Leases::default();
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
        let outcome =
            if self.sampler.thins() { self.thinned(rules, text) } else { self.samples::<false>(rules, text, 1.0) };
        if let Err(refusal) = outcome {
            self.tally.dropped(refusal.reason);
        }
    }

    /// The same under sampling: draws for a line before it is read, where it is one that may be left out.
    #[inline(never)]
    fn thinned(&mut self, rules: &Rules, text: &[u8]) -> Result<(), Refusal> {
        let mut weight = 1.0;
        if let Some(values) = glance::thinnable(text) {
            match self.sampler.draw() {
                Some(drawn) => weight = drawn,
                None => {
                    (0..values).for_each(|_| self.tally.dropped(DropReason::Sampled));
                    return Ok(());
                }
            }
        }
        self.samples::<true>(rules, text, weight)
    }

    /// Reads a line; with `WEIGHED`, its samples stand for `weight` lines each.
    #[inline(always)]
    fn samples<const WEIGHED: bool>(&mut self, rules: &Rules, text: &[u8], weight: f64) -> Result<(), Refusal> {
        let mut line = Line::new(text, &rules.parse);
        line.read_name(&rules.parse)?;
        let mut sample = Sample::default();
        let mut next = Some(line.body);
        while let Some(from) = next {
            line.read_sample(from, &mut sample)?;
            if WEIGHED {
                sample.weight *= weight;
            }
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
        match self.cache.get(hash, &self.identity) {
            Some(answer) if self.now < answer.again_at => {
                self.tally.add(Count::CacheHits, 1);
                answer.take(rules, sample, &mut self.recorder, &mut self.leases, &mut self.tally);
            }
            Some(_) => self.new_identity(rules, text, line, sample, hash, Sight::Again),
            None => {
                let sight = if self.cache.sighted(hash) { Sight::Second } else { Sight::First };
                self.new_identity(rules, text, line, sample, hash, sight);
            }
        }
    }

    /// The slow way, for an identity that the cache does not know: name, labels, limits, place.
    #[cold]
    fn new_identity(
        &mut self,
        rules: &Rules,
        text: &[u8],
        line: &Line<'_>,
        sample: &Sample<'_>,
        hash: u64,
        sight: Sight,
    ) {
        self.tally.add(Count::CacheMisses, 1);
        let (outcome, overflow, family, again) = match self.find(rules, text, line, sample, sight) {
            Ok(placed) => (Ok(placed.place), placed.overflow, placed.family, placed.again),
            Err(reason) => (Err(reason), false, 0, Retry::Never),
        };
        let again_at = match again {
            Retry::Never => Tick::MAX,
            Retry::NextSecond => self.now + 1,
            Retry::AfterSweep => self.now + SWEPT_AFTER,
            Retry::NowAndThen => self.now + NOW_AND_THEN,
        };
        let drops = self.resolved.tag_drops;
        let tag_drops = (outcome.is_ok() && drops.iter().any(|n| *n > 0)).then(|| Box::new(drops));
        let answer = Answer { outcome, overflow, family, again_at, tag_drops };
        answer.take(rules, sample, &mut self.recorder, &mut self.leases, &mut self.tally);
        if sight != Sight::First {
            self.cache.insert(hash, &self.identity, answer);
        }
    }

    /// The place of a sample, as far as the limits allow.
    fn find(
        &mut self,
        rules: &Rules,
        text: &[u8],
        line: &Line<'_>,
        sample: &Sample<'_>,
        sight: Sight,
    ) -> Result<Placed, DropReason> {
        let kind = rules
            .mapper
            .resolve(&rules.tags, text, line, sample, &mut self.resolved)
            .map_err(|refusal| refusal.reason)?;
        let written = match line.name_rest {
            [] => Cow::Borrowed(line.name),
            rest => Cow::Owned([line.name, rest].concat()),
        };
        let Resolved { name, labels, .. } = &mut self.resolved;
        let wanted = Wanted {
            name: self::text(name),
            written: self::text(&written),
            kind,
            bounds: &rules.bounds,
            overflow_labels: &rules.overflow_labels,
            sight,
            now: self.now,
        };
        self.store.place(wanted, labels, &mut self.labels, &rules.gate)
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
    fn take(
        &self,
        rules: &Rules,
        sample: &Sample<'_>,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) {
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
            Values::One(value) => {
                self.record(rules, sample, place, Number { value, signed: false }, recorder, leases, tally);
            }
            Values::Text(_) => self.take_all(rules, sample, place, recorder, leases, tally),
        }
        if let Some(drops) = &self.tag_drops {
            for (reason, n) in TagDropReason::ALL.iter().zip(**drops) {
                tally.tags_dropped(*reason, u64::from(n));
            }
        }
    }

    /// Records one value, or counts why not.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "what it writes to is borrowed beside the cache that it stands in")]
    fn record(
        &self,
        rules: &Rules,
        sample: &Sample<'_>,
        place: &Place,
        number: Number,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) {
        if let Some(quotas) = &rules.quotas
            && !leases.take(quotas, self.family)
        {
            return tally.dropped(DropReason::RateLimited);
        }
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
    fn take_all(
        &self,
        rules: &Rules,
        sample: &Sample<'_>,
        place: &Place,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) {
        for number in sample.values.numbers() {
            match number {
                Ok(number) => self.record(rules, sample, place, number, recorder, leases, tally),
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
