//! Takes one datagram through all stages: the hot path.
//!
//! In: the bytes of a datagram. Out: samples recorded in the store, and every line counted in the [`Tally`].
//! Not here: what a stage does; only the order of stages, and what is remembered between samples.
//! Always: each line ends as recorded or as dropped for one reason; a known identity takes no lock and allocates
//! nothing (but for one bucketed value in 64, which `insight` looks at, and with a quota for families one lock for a
//! whole lease of cells); new rules take effect between datagrams, never inside one.

mod ahead;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache as RulesCache};
use foldhash::fast::RandomState;
use xxhash_rust::xxh64::xxh64;

use self::ahead::{Ahead, Known, Reading};
use crate::admit::quota::{Leases, Quotas};
use crate::admit::sampling::{Sampler, Signals};
use crate::admit::{Gate, Limits};
use crate::aggregate::grace::{Forget, Passage};
use crate::aggregate::shape::Shape;
use crate::aggregate::{OVERFLOW_LABEL, Place, Placed, Recorder, Retry, Sight, Store, Wanted, admits};
use crate::clock::{self, Tick};
use crate::config::{Config, GaugeSign, Parse, Rule, Sampling, SamplingMode};
use crate::identity::TagRules;
use crate::identity::cache::{Cache, Stored};
use crate::identity::key::Keys;
use crate::insight::{Insight, Watcher};
use crate::map::labels::LabelSet;
use crate::map::{Kind, Mapper, Resolved, TagDrops};
use crate::model::{DropReason, Refusal, SampleType, TagDropReason, heap_bytes};
use crate::parse::client::{self, Told};
use crate::parse::number::Number;
use crate::parse::{Line, Sample, Values, glance, message, scan, unknown_letters};
use crate::relay::{Packer, Relay};
use crate::telemetry::refusals::{self, Refusals};
use crate::telemetry::{Books, Count, Tally};

/// Seconds after which idle series have given way: one sweep marks them, the next removes them.
const SWEPT_AFTER: Tick = 4;

/// Seconds after which an identity that had to give way asks whether it still has to.
const NOW_AND_THEN: Tick = 60;

/// How a worker samples that must not.
const EXACT: Sampling = Sampling {
    mode: SamplingMode::Off,
    rate: 1.0,
    min_rate: 1.0,
    target_load: 1.0,
    interval: Duration::from_secs(3600),
};

/// Everything that the stages are told by the configuration; swapped as a whole.
pub struct Rules {
    /// Rules that come into force later have a higher number.
    pub generation: u64,
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
    pub quotas: Option<Arc<Quotas>>,
    /// How observations are kept whose name no mapping rule gave.
    observer: Shape,
    /// The same for each mapping rule.
    rule_observers: Vec<Shape>,
    /// How sets are kept.
    set: Shape,
    /// Rendered labels of an overflow series.
    pub overflow_labels: String,
    /// Longest line, bytes.
    pub max_line_bytes: usize,
    /// Limit of each worker's identity cache, bytes.
    pub identity_cache_bytes: usize,
    /// Whether the registers behind estimates are exposed.
    pub exports_registers: bool,
    /// Where raw lines are sent on to.
    pub relay: Option<Arc<Relay>>,
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
        let observer = Shape::of(&config.mapping.observation);
        let of_rule = |rule: &Rule| rule.observation.as_ref().map_or_else(|| observer.clone(), Shape::of);
        let rule_observers = config.mapping.rules.iter().map(of_rule).collect();
        Self {
            parse: config.parse.clone(),
            generation: 0,
            tags: TagRules::new(&config.bucketing, &config.labels, config.parse.container_id_label.is_some()),
            mapper: Mapper::new(config),
            insight: Arc::new(Insight::new(config)),
            gate: Gate::new(Limits::new(&config.cardinality, &config.labels), config.cardinality.new_series_per_second),
            sampling: config.sampling,
            quotas: Quotas::new(&config.rate_limit).map(Arc::new),
            observer,
            rule_observers,
            set: Shape::set(config.distinct.windows[0].span, config.distinct.registers),
            overflow_labels: text(&overflow_labels).to_owned(),
            max_line_bytes: config.listen.max_line_bytes,
            identity_cache_bytes: config.cardinality.identity_cache_bytes,
            exports_registers: config.distinct.export_registers,
            relay: None,
        }
    }

    /// What the series of a new family keep that a mapping rule, or none, gave its name.
    pub fn shape(&self, kind: Kind, rule: Option<u32>) -> &Shape {
        match kind {
            Kind::Counter => &Shape::Counter,
            Kind::Gauge => &Shape::Gauge,
            Kind::Set => &self.set,
            Kind::Histogram | Kind::Summary => rule.map_or(&self.observer, |rule| &self.rule_observers[rule as usize]),
        }
    }

    /// Cells of the longest series that there may be.
    pub fn most_cells(&self) -> usize {
        let observers = self.rule_observers.iter().chain([&self.observer, &self.set]);
        observers.map(Shape::cells).max().unwrap_or(0)
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
    /// Identities of those samples that wait.
    keys: Keys,
    resolved: Resolved,
    labels: Vec<u8>,
    store: Arc<Store>,
    recorder: Recorder,
    passage: Passage,
    now: Tick,
    tally: Tally,
    sampler: Sampler,
    leases: Leases,
    /// Nothing is ever thinned.
    exact: bool,
    worker: usize,
    watcher: Watcher,
    /// Time of the batch in milliseconds.
    now_ms: u64,
    refusals: Arc<Refusals>,
    /// Packs lines that are sent on.
    packer: Option<Packer>,
    /// For each reason the tick from which on a refused line is noted again.
    note_from: [Tick; DropReason::COUNT],
}

/// What became of an identity when it was new.
struct Answer {
    outcome: Result<Place, DropReason>,
    /// What values are multiplied by; 1 for most, which changes nothing and costs next to it.
    scale: f64,
    /// Whether a mapping rule was for it.
    mapped: bool,
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
        let packer = cached_under.relay.clone().map(Packer::new);
        let stages = Stages {
            cache: Cache::new(cached_under.identity_cache_bytes),
            sampler: Sampler::new(cached_under.sampling, fastrand::u64(..)),
            leases: Leases::default(),
            exact: false,
            cached_under,
            hasher: RandomState::default(),
            keys: Keys::default(),
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
            refusals: Arc::default(),
            packer,
            note_from: [0; DropReason::COUNT],
        };
        Self { rules: RulesCache::new(rules), stages }
    }

    /// Notes refused lines in `refusals`, which all workers share.
    pub fn with_refusals(mut self, refusals: Arc<Refusals>) -> Self {
        self.stages.refusals = refusals;
        self
    }

    /// Never thins, whatever the rules say: for streams, where the sender waits instead.
    pub fn exact(mut self) -> Self {
        self.stages.exact = true;
        self.stages.sampler = Sampler::new(EXACT, 0);
        self
    }

    /// A line came that was too long to be kept as a whole.
    pub fn too_long(&mut self) {
        self.stages.tally.add(Count::Lines, 1);
        self.stages.tally.dropped(DropReason::LineTooLong);
        if let Some(packer) = &self.stages.packer {
            packer.too_long();
        }
    }

    /// The beginning of a line came and its end never will. It is not relayed: it would be taken for another line.
    pub fn cut_short(&mut self) {
        self.stages.tally.add(Count::Lines, 1);
        self.stages.tally.dropped(DropReason::MalformedLine);
        if let Some(packer) = &self.stages.packer {
            packer.cut_short();
        }
    }

    /// Takes every line of a datagram to its end.
    #[inline]
    pub fn datagram(&mut self, datagram: &[u8]) {
        self.datagrams([datagram]);
    }

    /// The same for several in turn.
    #[inline]
    pub fn datagrams<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a [u8]>) {
        let Self { rules, stages } = self;
        let mut ahead = Ahead::new();
        for datagram in datagrams {
            let rules = rules.load();
            if !Arc::ptr_eq(rules, &stages.cached_under) {
                stages.record(&stages.cached_under.clone(), &mut ahead);
                stages.start_over(rules);
            }
            stages.read(rules, datagram, &mut ahead);
        }
        stages.record(&stages.cached_under.clone(), &mut ahead);
    }

    /// A batch begins at this time of the [`Clock`](crate::clock::Clock). Forgets what is about to be taken away.
    pub fn begin(&mut self, now: Duration) {
        let stages = &mut self.stages;
        stages.now_ms = now.as_millis() as u64;
        stages.now = clock::tick(now);
        stages.watcher.turn(stages.now_ms);
        stages.recorder.set_time(stages.now);
        let Stages { cache, cached_under, passage, store, .. } = stages;
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
        if passage.ends_watch() {
            store.stir();
        }
    }

    /// Wakes what rests while no line comes.
    pub fn stir(&self) {
        self.stages.store.stir();
    }

    /// The batch is over: its counts become visible to scrapes, and nothing is recorded until the next begins.
    pub fn end(&mut self, books: &Books) {
        let Stages { tally, cache, passage, sampler, packer, .. } = &mut self.stages;
        if let Some(packer) = packer {
            packer.flush();
        }
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
        let quotas = |rules: &Rules| rules.quotas.as_ref().map(Arc::as_ptr);
        if quotas(&self.cached_under) != quotas(rules) {
            // Cells of quotas that are gone.
            self.leases = Leases::default();
        }
        self.cached_under = rules.clone();
        self.resolved = Resolved::default();
        if !self.exact {
            self.sampler.follow(&rules.sampling);
        }
        self.watcher = rules.insight.watch(self.worker);
        self.watcher.turn(self.now_ms);
        if let Some(packer) = &mut self.packer {
            packer.flush();
        }
        self.packer = rules.relay.clone().map(Packer::new);
    }

    /// Reads every line of a datagram.
    #[inline(always)]
    fn read<'a>(&mut self, rules: &Rules, datagram: &'a [u8], ahead: &mut Ahead<'a>) {
        if let Some(packer) = &mut self.packer {
            packer.datagram(datagram);
        }
        if let Some(quotas) = &rules.quotas {
            self.leases.at(quotas, quotas.now());
        }
        // ASCII is UTF-8; the check runs over whole words, so it costs next to nothing for all lines at once.
        let ascii = datagram.is_ascii();
        let mut start = 0;
        while start < datagram.len() {
            let end = scan::find(datagram, start, b'\n');
            let (line, rest) = (&datagram[start..end], &datagram[start..]);
            start = end + 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                self.line(rules, line, rest, ascii, ahead);
            }
        }
    }

    /// Reads a line; `rest` is what of the datagram begins with it.
    #[inline(always)]
    fn line<'a>(&mut self, rules: &Rules, text: &'a [u8], rest: &'a [u8], ascii: bool, ahead: &mut Ahead<'a>) {
        self.tally.add(Count::Lines, 1);
        let outcome = if text.len() > rules.max_line_bytes {
            Err(Refusal::new(DropReason::LineTooLong, rules.max_line_bytes))
        } else if !ascii && std::str::from_utf8(text).is_err() {
            Err(Refusal::new(DropReason::InvalidUtf8, 0))
        } else if self.sampler.thins() {
            self.thinned(rules, text, rest, ahead)
        } else {
            self.samples::<false>(rules, text, rest, 1.0, ahead)
        };
        if let Err(refusal) = outcome {
            self.tally.dropped(refusal.reason);
            self.note(rules, text, refusal.reason);
        }
    }

    /// Notes a line that was refused, or a value of which was: one a second for each reason.
    #[inline]
    fn note(&mut self, rules: &Rules, text: &[u8], reason: DropReason) {
        // What a rule drops is meant to be.
        if reason != DropReason::MappingDrop && self.note_from[reason.index()] <= self.now {
            self.note_from[reason.index()] = self.now + 1;
            self.note_now(rules, text, reason);
        }
    }

    #[cold]
    fn note_now(&self, rules: &Rules, text: &[u8], reason: DropReason) {
        let name = &text[..text.iter().position(|byte| b":,#[| ".contains(byte)).unwrap_or(text.len())];
        let shown = match rules.mapper.stands_for(&rules.tags, name) {
            Some(pattern) => {
                let line = [pattern.as_bytes(), &text[name.len()..]].concat();
                rules.tags.struck(&line, 2 * refusals::MAX_BYTES)
            }
            None => rules.tags.struck(text, 2 * refusals::MAX_BYTES),
        };
        self.refusals.note(self.now, reason, shown);
    }

    /// The same under sampling: draws for a line before it is read, where it is one that may be left out.
    #[inline(never)]
    fn thinned<'a>(
        &mut self,
        rules: &Rules,
        text: &'a [u8],
        rest: &'a [u8],
        ahead: &mut Ahead<'a>,
    ) -> Result<(), Refusal> {
        let mut weight = 1.0;
        // A client says little of itself, and loss of all things must be exact.
        let of_client = rules.parse.client_telemetry && text.starts_with(client::PREFIX);
        if !of_client && let Some(values) = glance::thinnable(text) {
            match self.sampler.draw() {
                Some(drawn) => weight = drawn,
                None => {
                    (0..values).for_each(|_| self.tally.dropped(DropReason::Sampled));
                    return Ok(());
                }
            }
        }
        self.samples::<true>(rules, text, rest, weight, ahead)
    }

    /// Reads a line's samples; with `WEIGHED`, they stand for `weight` lines each.
    #[inline(always)]
    fn samples<'a, const WEIGHED: bool>(
        &mut self,
        rules: &Rules,
        text: &'a [u8],
        rest: &'a [u8],
        weight: f64,
        ahead: &mut Ahead<'a>,
    ) -> Result<(), Refusal> {
        if text[0] == b'_' && message::is_message(text) {
            let (line, sample) = message::message(text, &rules.parse)?;
            self.sample(rules, text, 0, &line, &sample, ahead);
            return Ok(());
        }
        let mut line = Line::new(text, &rules.parse);
        line.rest = rest;
        line.read_name(&rules.parse)?;
        let mut sample = Sample::default();
        let mut next = Some(line.body);
        while let Some(from) = next {
            line.read_sample(from, &mut sample)?;
            if WEIGHED {
                sample.weight *= weight;
            }
            self.sample(rules, text, from, &line, &sample, ahead);
            next = sample.next;
        }
        Ok(())
    }

    /// Finds the identity of a sample, whose value starts at byte `from`, and puts it with those that wait.
    #[inline(always)]
    fn sample<'a>(
        &mut self,
        rules: &Rules,
        text: &'a [u8],
        from: usize,
        line: &Line<'a>,
        sample: &Sample<'a>,
        ahead: &mut Ahead<'a>,
    ) {
        if sample.invalid_rate || sample.unknown_fields != 0 {
            self.oddities(sample);
        }
        // No common line begins so.
        if line.name.first() == client::PREFIX.first()
            && sample.kind == SampleType::Counter
            && rules.parse.client_telemetry
            && let Some(told) = client::told(line.name)
        {
            return self.figure(rules, text, sample, told);
        }
        let plain = matches!(sample.values, Values::One(_)) && sample.weight == 1.0;
        // Where rules scale, whether a counter is negative shows once its rule is found.
        if !plain
            && !rules.mapper.scales()
            && let Some(reason) = self.refuses(rules, &Reading::of(sample), 1.0)
        {
            return self.note(rules, text, reason);
        }
        if ahead.is_full() {
            self.record(rules, ahead);
        }
        let (hash, dropped) = rules.tags.identify(line, sample, &mut self.keys, &self.hasher, &mut self.watcher);
        if dropped > 0 {
            self.tally.tags_dropped(TagDropReason::Dropped, dropped);
        }
        ahead.push(Known { text, from, reading: Reading::of(sample), hash, key_end: self.keys.end(), place: 0 });
    }

    /// Records what waits, in the order in which it was read.
    #[inline(never)]
    fn record(&mut self, rules: &Rules, ahead: &mut Ahead<'_>) {
        let samples = ahead.samples();
        for known in &mut *samples {
            known.place = self.cache.place(known.hash);
        }
        // Touches all that is looked at next, so that none waits for its turn to be fetched.
        let mut touched = 0;
        for known in &*samples {
            if let Some((word, answer)) = self.cache.glance(known.place) {
                touched ^= word;
                if let Ok(place) = &answer.outcome {
                    touched ^= self.recorder.glance(place);
                }
            }
        }
        std::hint::black_box(touched);
        let mut start = 0;
        for known in &*samples {
            let key = start..known.key_end;
            start = known.key_end;
            let outcome = match self.cache.get_at(known.place, self.keys.words(key.clone())) {
                Some(answer) if self.now < answer.again_at => {
                    self.tally.add(Count::CacheHits, 1);
                    answer.take(rules, &known.reading, &mut self.recorder, &mut self.leases, &mut self.tally)
                }
                _ => self.other(rules, known, key),
            };
            if let Err(reason) = outcome {
                self.note(rules, known.text, reason);
            }
        }
        ahead.clear();
        self.keys.clear();
    }

    /// Records a sample that was not found in the cache at first sight.
    #[cold]
    fn other(&mut self, rules: &Rules, known: &Known<'_>, key: Range<usize>) -> Result<(), DropReason> {
        // One that waited before it may have made the entry, and two hashes may be equal.
        let sight = match self.cache.get(known.hash, self.keys.words(key.clone())) {
            Some(answer) if self.now < answer.again_at => {
                self.tally.add(Count::CacheHits, 1);
                return answer.take(rules, &known.reading, &mut self.recorder, &mut self.leases, &mut self.tally);
            }
            Some(_) => Sight::Again,
            None => {
                if self.cache.sighted(known.hash) {
                    Sight::Second
                } else {
                    Sight::First
                }
            }
        };
        match known.read_again(&rules.parse) {
            Ok((line, sample)) => self.new_identity(rules, known, (&line, &sample), key, sight),
            // It could be read before; but whatever happens, no line may end uncounted.
            Err(refusal) => {
                self.tally.dropped(refusal.reason);
                Err(refusal.reason)
            }
        }
    }

    /// Adds up what a client tells of itself: no series, no limit, no quota.
    #[cold]
    fn figure(&mut self, rules: &Rules, text: &[u8], sample: &Sample<'_>, told: Told) {
        for number in sample.values.numbers() {
            let added = number.map_err(|(reason, _)| reason);
            match added.and_then(|number| client::weighed(number.value, sample.weight)) {
                Ok(n) => {
                    if let Told::Figure(figure) = told {
                        self.tally.client(figure, n);
                    }
                    self.tally.recorded(sample.kind);
                    self.tally.add(Count::Unmapped, 1);
                }
                Err(reason) => {
                    self.tally.dropped(reason);
                    self.note(rules, text, reason);
                }
            }
        }
    }

    /// The slow way, for an identity that the cache does not know: name, labels, limits, place.
    #[cold]
    fn new_identity(
        &mut self,
        rules: &Rules,
        known: &Known<'_>,
        (line, sample): (&Line<'_>, &Sample<'_>),
        key: Range<usize>,
        sight: Sight,
    ) -> Result<(), DropReason> {
        self.tally.add(Count::CacheMisses, 1);
        let resolved = rules.mapper.resolve(&rules.tags, known.text, line, sample, &mut self.resolved);
        let scale = self.resolved.scale;
        if rules.mapper.scales()
            && resolved.is_ok()
            && let Some(reason) = self.refuses(rules, &known.reading, scale)
        {
            return Err(reason);
        }
        let found =
            resolved.map_err(|refusal| refusal.reason).and_then(|kind| self.find(rules, line, sample, kind, sight));
        let (outcome, overflow, family, again) = match found {
            Ok(placed) => (Ok(placed.place), placed.overflow, placed.family, placed.again),
            // A gauge at a limit, or a name past that on families: one day there may be room.
            Err(DropReason::Cardinality) => (Err(DropReason::Cardinality), false, 0, Retry::NowAndThen),
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
        let mapped = self.resolved.rule.is_some();
        let answer = Answer { outcome, scale, mapped, overflow, family, again_at, tag_drops };
        let outcome = answer.take(rules, &known.reading, &mut self.recorder, &mut self.leases, &mut self.tally);
        if sight != Sight::First {
            self.cache.insert(known.hash, self.keys.words(key), answer);
        }
        outcome
    }

    /// The place of a sample whose name and labels were just found, as far as the limits allow.
    fn find(
        &mut self,
        rules: &Rules,
        line: &Line<'_>,
        sample: &Sample<'_>,
        kind: Kind,
        sight: Sight,
    ) -> Result<Placed, DropReason> {
        let written = match line.name_rest {
            [] => Cow::Borrowed(line.name),
            rest => Cow::Owned([line.name, rest].concat()),
        };
        let Resolved { name, labels, rule, .. } = &mut self.resolved;
        let wanted = Wanted {
            name: text(name),
            written: rules.mapper.shown(*rule, text(&written)),
            help: rules.mapper.terms(*rule).help.as_deref(),
            shape: rules.shape(kind, *rule),
            sample: Some(sample.kind),
            ttl: rules.mapper.terms(*rule).ttl.map(|ttl| ttl.as_secs()),
            generation: rules.generation,
            overflow_labels: &rules.overflow_labels,
            sight,
            now: self.now,
        };
        self.store.place(wanted, labels, &mut self.labels, &rules.gate)
    }

    /// Whether no value of a sample can be recorded, whatever its series; each is counted for its own reason then, and
    /// the first of them returned.
    ///
    /// Asked before anything else of the sample: it makes no series, nor does it decide what type a name has. A plain
    /// number of weight 1 need not be asked, unless a rule scales it.
    #[inline(never)]
    fn refuses(&mut self, rules: &Rules, sample: &Reading<'_>, scale: f64) -> Option<DropReason> {
        if sample.kind == SampleType::Set {
            let empty = matches!(sample.values, Values::Text([]));
            empty.then(|| self.tally.dropped(DropReason::MalformedValue));
            return empty.then_some(DropReason::MalformedValue);
        }
        let kind = Kind::of(sample.kind, &rules.mapper.terms(None).observation);
        let refusals = sample.values.numbers().map(|number| match number {
            Ok(number) => {
                admits(kind, rules.mapper.in_base_unit(sample.kind, number.value) * scale, sample.weight).err()
            }
            Err((reason, _)) => Some(reason),
        });
        if refusals.clone().any(|refusal| refusal.is_none()) {
            return None;
        }
        refusals.clone().flatten().for_each(|reason| self.tally.dropped(reason));
        refusals.flatten().next()
    }

    #[cold]
    fn oddities(&mut self, sample: &Sample<'_>) {
        self.tally.add(Count::InvalidRates, u64::from(sample.invalid_rate));
        unknown_letters(sample.unknown_fields).for_each(|letter| self.tally.unknown_field(letter));
    }
}

impl Stored for Answer {
    fn heap_bytes(&self) -> usize {
        self.tag_drops.as_ref().map_or(0, |drops| heap_bytes(size_of_val(&**drops)))
    }
}

impl Answer {
    /// What its samples count as among the actions of mapping.
    #[inline(always)]
    fn action(&self) -> Count {
        if self.mapped { Count::Mapped } else { Count::Unmapped }
    }

    /// Records the values of a sample of this identity, or counts why not.
    ///
    /// # Errors
    /// Why one of the values was not recorded; all of them are counted already.
    #[inline]
    fn take(
        &self,
        rules: &Rules,
        sample: &Reading<'_>,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let place = match &self.outcome {
            Ok(place) => place,
            Err(reason) => {
                // A set's value is its whole text, colons and all.
                let values = if sample.kind == SampleType::Set { 1 } else { sample.values.numbers().count() };
                (0..values).for_each(|_| tally.dropped(*reason));
                // What a rule drops is counted by its reason.
                if *reason != DropReason::MappingDrop {
                    tally.add(self.action(), values as u64);
                }
                return Err(*reason);
            }
        };
        let outcome = match sample.values {
            Values::Text(member) if sample.kind == SampleType::Set => {
                tally.add(self.action(), 1);
                self.member(rules, member, place, recorder, leases, tally)
            }
            Values::One(value) => {
                tally.add(self.action(), 1);
                self.record(rules, sample, place, Number { value, signed: false }, recorder, leases, tally)
            }
            Values::Text(_) => self.take_all(rules, sample, place, recorder, leases, tally),
        };
        if let Some(drops) = &self.tag_drops {
            for (reason, n) in TagDropReason::ALL.iter().zip(**drops) {
                tally.tags_dropped(*reason, u64::from(n));
            }
        }
        outcome
    }

    /// Records one member of a set, or counts why not and returns it.
    #[inline(never)]
    fn member(
        &self,
        rules: &Rules,
        member: &[u8],
        place: &Place,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        self.within_quota(rules, leases, tally)?;
        let outcome = recorder.record_member(place, xxh64(member, 0));
        self.count(SampleType::Set, outcome, tally)
    }

    /// Records one value, or counts why not and returns it.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "what it writes to is borrowed beside the cache that it stands in")]
    fn record(
        &self,
        rules: &Rules,
        sample: &Reading<'_>,
        place: &Place,
        number: Number,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        self.within_quota(rules, leases, tally)?;
        let value = rules.mapper.in_base_unit(sample.kind, number.value) * self.scale;
        let relative = number.signed && rules.parse.gauge_sign == GaugeSign::Delta;
        let outcome = recorder.record(place, value, sample.weight, relative);
        self.count(sample.kind, outcome, tally)
    }

    /// Takes a sample's share of the quotas, or counts that there is none.
    #[inline(always)]
    fn within_quota(&self, rules: &Rules, leases: &mut Leases, tally: &mut Tally) -> Result<(), DropReason> {
        if let Some(quotas) = &rules.quotas
            && !leases.take(quotas, self.family)
        {
            tally.dropped(DropReason::RateLimited);
            return Err(DropReason::RateLimited);
        }
        Ok(())
    }

    /// Counts what became of a sample, and returns it.
    #[inline(always)]
    fn count(&self, kind: SampleType, outcome: Result<(), DropReason>, tally: &mut Tally) -> Result<(), DropReason> {
        match outcome {
            Ok(()) => {
                tally.recorded(kind);
                if self.overflow {
                    tally.add(Count::OverflowSamples, 1);
                }
            }
            Err(reason) => tally.dropped(reason),
        }
        outcome
    }

    /// The same for every value of a text that is no plain number.
    #[inline(never)]
    fn take_all(
        &self,
        rules: &Rules,
        sample: &Reading<'_>,
        place: &Place,
        recorder: &mut Recorder,
        leases: &mut Leases,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let mut all = Ok(());
        for number in sample.values.numbers() {
            tally.add(self.action(), 1);
            let outcome = match number {
                Ok(number) => self.record(rules, sample, place, number, recorder, leases, tally),
                Err((reason, _)) => {
                    tally.dropped(reason);
                    Err(reason)
                }
            };
            if sample.kind == SampleType::Gauge
                && let Ok(Number { value, signed: true }) = number
            {
                // A client of Datadog means a value by a minus, and never writes a plus.
                match value.is_sign_negative() {
                    false => tally.add(Count::GaugesRaised, 1),
                    true => tally.add(Count::GaugesLowered, u64::from(sample.tagged)),
                }
            }
            all = all.and(outcome);
        }
        all
    }
}

/// Bytes that were made from valid UTF-8 cut at ASCII bytes and character boundaries, as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a line is checked to be UTF-8 before it is cut")
}

#[cfg(test)]
mod tests;
