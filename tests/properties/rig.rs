//! The stages between socket and scrape, driven by hand: datagrams in, the text of all series out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use statsieve::aggregate::Store;
use statsieve::clock::tick;
use statsieve::config::{Config, Format, Sources, load};
use statsieve::expose::SeriesSource;
use statsieve::model::{DropReason, SampleType};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, Count, SeriesBooks, Tally};

use super::reader::{self, Exposition};

/// Limits, dialects and kinds that lines are tried under.
pub(crate) const SETTINGS: &[&[&str]] = &[
    &[],
    &[
        "cardinality.max_series=20",
        "cardinality.max_series_per_family=16",
        "cardinality.max_families=4",
        "cardinality.identity_cache_bytes=65536",
        "labels.max_count=2",
        "labels.max_value_bytes=8",
        "labels.max_name_bytes=16",
        "labels.add.bot=b",
        "listen.max_line_bytes=64",
    ],
    &[
        "parse.bare_tags=true",
        "parse.container_id_label=container_id",
        "parse.gauge_sign=absolute",
        "naming.counter_suffix=",
        "naming.timer_suffix=",
        "bucketing.0.observers=true",
    ],
    &["parse.dogstatsd_tags=false", "parse.signalfx_tags=false", "naming.prefix=p_", "observer.type=summary"],
    &["observer.native_factor=1.01", "observer.native_max_buckets=3", "distinct.registers=16"],
    &["cardinality.max_bytes=1048576", "observer.type=summary", "observer.max_age=1s", "naming.counter_suffix="],
    &["sampling.mode=fixed", "sampling.rate=0.5"],
    &[
        "sampling.mode=fixed",
        "sampling.rate=0.9",
        "rate_limit.samples_per_second=9",
        "rate_limit.family_samples_per_second=4",
    ],
];

pub(crate) struct Rig {
    pub(crate) books: Arc<SeriesBooks>,
    rules: Arc<ArcSwap<Rules>>,
    pub(crate) store: Arc<Store>,
    workers: Vec<Pipeline>,
}

impl Rig {
    pub(crate) fn new(set: &[&str], workers: usize) -> Self {
        Self::of(&config(set), workers)
    }

    pub(crate) fn of(config: &Config, workers: usize) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(config)));
        let books = Arc::<SeriesBooks>::default();
        let store = Arc::new(Store::new(workers, books.clone()));
        let workers = (0..workers).map(|number| Pipeline::new(rules.clone(), store.clone(), number)).collect();
        Self { books, rules, store, workers }
    }

    /// Puts another configuration into force, as a reload does.
    pub(crate) fn reload(&self, config: &Config) {
        let mut rules = Rules::new(config);
        rules.generation = self.rules.load().generation + 1;
        self.rules.store(Arc::new(rules));
    }

    /// One worker takes a datagram as a batch of its own, at this time.
    pub(crate) fn batch(&mut self, turn: usize, now: Duration, datagram: &[u8]) {
        let workers = self.workers.len();
        let worker = &mut self.workers[turn % workers];
        worker.begin(now);
        worker.datagram(datagram);
        worker.end(&Books::default());
    }

    /// Takes the next step of removing idle series.
    pub(crate) fn sweep(&self, now: Duration) {
        self.store.sweep(tick(now), &self.rules.load().gate.limits);
    }

    /// Hands a datagram to one worker, by turns.
    pub(crate) fn send(&mut self, turn: usize, datagram: &[u8]) {
        let workers = self.workers.len();
        self.workers[turn % workers].datagram(datagram);
    }

    /// Has OpenMetrics tell when series were made.
    pub(crate) fn show_created(&self) {
        self.store.show_created(true);
    }

    pub(crate) fn tally(&mut self) -> Tally {
        let mut all = Tally::default();
        self.workers.iter_mut().for_each(|worker| all.merge(worker.tally()));
        all
    }

    pub(crate) fn text(&self, format: Format) -> String {
        String::from_utf8(self.bytes(format)).unwrap()
    }

    pub(crate) fn bytes(&self, format: Format) -> Vec<u8> {
        let (mut pieces, mut out) = (self.store.begin(format), Vec::new());
        while pieces.next(&mut out) {}
        out
    }
}

/// The defaults under these overrides.
pub(crate) fn config(set: &[&str]) -> Config {
    let set = set.iter().map(ToString::to_string).collect();
    load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// Whether a sample of this name may be a count of observations.
fn is_count(name: &str) -> bool {
    name.ends_with("_count") || name.ends_with("_bucket")
}

/// Reads the series in every format; all must say the same.
pub(crate) fn all_formats(rig: &Rig) -> Exposition {
    let text = reader::read(&rig.text(Format::Text), Format::Text);
    let open_metrics = reader::read(&rig.text(Format::OpenMetrics), Format::OpenMetrics);
    text.check_histograms();
    let protobuf = reader::read_protobuf(&rig.bytes(Format::Protobuf));
    assert_eq!(text.samples, open_metrics.samples, "names and values are the same in every format");
    assert!(text.samples.keys().eq(protobuf.samples.keys()), "names are the same in every format");
    let summaries: Vec<String> =
        text.families.iter().filter(|(_, kind)| kind == "summary").map(|(name, _)| name.clone() + "_count").collect();
    for (series, value) in &text.samples {
        // Protobuf has no room for the count of a summary that is not whole.
        let expected = if summaries.contains(&series.0) { value.round() } else { *value };
        let found = protobuf.samples[series];
        // Counts of a histogram are those of its native buckets there: weights that are not whole, added in another order.
        let rounded = is_count(&series.0) && value.fract() != 0.0 && (found - value).abs() <= value * 1e-14;
        assert!(found == expected || rounded, "{series:?}: {found}, not {expected}");
    }
    assert_eq!(text.families, protobuf.families);
    rig.show_created();
    let with_created = reader::read(&rig.text(Format::OpenMetrics), Format::OpenMetrics);
    let (created, others): (BTreeMap<_, _>, BTreeMap<_, _>) = with_created
        .samples
        .into_iter()
        .partition(|((name, _), _)| !text.samples.keys().any(|(known, _)| known == name));
    assert_eq!(others, text.samples);
    assert!(created.keys().all(|(name, _)| name.ends_with("_created")), "{created:?}");
    text
}

pub(crate) fn lines(tally: &Tally) -> u64 {
    tally.get(Count::Lines)
}

pub(crate) fn recorded(tally: &Tally) -> u64 {
    SampleType::ALL.iter().map(|kind| tally.recorded_of(*kind)).sum()
}

pub(crate) fn dropped(tally: &Tally) -> u64 {
    DropReason::ALL.iter().map(|reason| tally.dropped_for(*reason)).sum()
}
