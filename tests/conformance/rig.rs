//! A configuration, or a mapping file, and lines in; series and books out.

use std::fs;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use statsieve::aggregate::Store;
use statsieve::clock;
use statsieve::config::{Config, Format, Sources, load};
use statsieve::expose::SeriesSource;
use statsieve::model::{DropReason, SampleType, TagDropReason};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Books, Count, SeriesBooks, Tally};

/// What makes names and labels those of statsd_exporter.
pub(crate) const LIKE_THE_PEER: [&str; 6] = [
    "naming.counter_suffix=",
    "naming.timer_suffix=",
    "bucketing=[]",
    "labels.drop=[]",
    "parse.container_id_label=container_id",
    "parse.client_telemetry=false",
];

/// The configuration under a mapping file of this text.
pub(crate) fn with_yaml(yaml: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapping.yml");
    fs::write(&path, yaml).unwrap();
    let set = LIKE_THE_PEER.iter().map(ToString::to_string).chain([format!("mapping.file={}", path.display())]);
    load(&Sources { file: None, set: set.collect() }).unwrap_or_else(|problems| panic!("{problems}\n{yaml}")).config
}

/// What makes lines become what statsd_exporter makes of them, without a mapping file; `set` comes on top.
pub(crate) fn like_the_peer(set: &[&str]) -> Config {
    let set = LIKE_THE_PEER.iter().chain(set).map(ToString::to_string).collect();
    load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config
}

pub(crate) struct Rig {
    store: Arc<Store>,
    worker: Pipeline,
    books: Books,
    now: Duration,
}

impl Rig {
    pub(crate) fn new(config: &Config) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(config)));
        let store = Arc::new(Store::new(1, Arc::<SeriesBooks>::default()));
        Self { worker: Pipeline::new(rules, store.clone(), 0), store, books: Books::default(), now: Duration::ZERO }
    }

    /// A datagram for each line.
    pub(crate) fn send(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.send_bytes(line.as_bytes()));
    }

    pub(crate) fn send_bytes(&mut self, datagram: &[u8]) {
        self.worker.datagram(datagram);
    }

    /// The whole exposition.
    pub(crate) fn text(&self) -> String {
        let (mut pieces, mut out) = (self.store.begin(Format::Text), Vec::new());
        while pieces.next(&mut out) {}
        String::from_utf8(out).unwrap()
    }

    /// Sample lines, sorted; of observations their sums and counts, however they are kept.
    pub(crate) fn series(&self) -> Vec<String> {
        let (text, mut series, mut observer) = (self.text(), Vec::new(), None);
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                observer = ["histogram", "summary"].contains(&kind).then_some(name);
            } else if !line.starts_with('#') {
                let part = observer.and_then(|name| line.strip_prefix(name));
                if part.is_none_or(|part| part.starts_with("_sum") || part.starts_with("_count")) {
                    series.push(line.to_owned());
                }
            }
        }
        series.sort();
        series
    }

    /// What was counted beside recorded samples: reasons of drops, `tag:` and `field:` with theirs, and `rate`, each
    /// with how often.
    fn counted_by_word(&mut self) -> Vec<(String, u64)> {
        let tally = self.tally();
        let mut counts: Vec<(String, u64)> = Vec::new();
        counts.extend(DropReason::ALL.iter().map(|reason| (reason.to_string(), tally.dropped_for(*reason))));
        let tags = TagDropReason::ALL.iter();
        counts.extend(tags.map(|reason| (format!("tag:{reason}"), tally.tags_dropped_for(*reason))));
        counts.extend(tally.unknown_fields().map(|(field, n)| (format!("field:{field}"), n)));
        counts.push(("rate".to_owned(), tally.get(Count::InvalidRates)));
        counts.retain(|(_, n)| *n > 0);
        counts
    }

    /// The same in words, `*2` behind what was counted twice.
    pub(crate) fn counted(&mut self) -> String {
        let times = |n: u64| if n > 1 { format!("*{n}") } else { String::new() };
        let words = self.counted_by_word().into_iter().map(|(word, n)| format!("{word}{}", times(n)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The same, each as often as it was counted, sorted.
    pub(crate) fn counts(&mut self) -> Vec<String> {
        let counted = self.counted_by_word().into_iter();
        let mut counts: Vec<String> = counted.flat_map(|(word, n)| vec![word; n as usize]).collect();
        counts.sort();
        counts
    }

    /// A second without a datagram: the worker sees the time, and the store looks for what is idle.
    pub(crate) fn pass_second(&mut self, config: &Config) {
        self.now += Duration::from_secs(1);
        self.worker.begin(self.now);
        self.worker.end(&self.books);
        let rules = Rules::new(config);
        self.store.sweep(clock::tick(self.now), &rules.gate.limits);
        self.worker.begin(self.now);
    }

    pub(crate) fn tally(&mut self) -> &Tally {
        self.worker.tally()
    }

    pub(crate) fn dropped(&mut self, reason: DropReason) -> u64 {
        self.tally().dropped_for(reason)
    }
}

/// A case: the rule that it is about, what that comes to in our words, datagrams that go in, series that come out, and
/// what else is counted, as [`Rig::counted`] says it.
pub(crate) type Case<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str], &'a str);

/// Checks cases under names and labels of statsd_exporter; whatever they are, the books must balance.
#[track_caller]
pub(crate) fn check_cases(cases: &[Case<'_>]) {
    static PEER: LazyLock<Config> = LazyLock::new(|| like_the_peer(&[]));
    check_cases_under(&PEER, cases);
}

/// The same under another configuration.
#[track_caller]
pub(crate) fn check_cases_under(config: &Config, cases: &[Case<'_>]) {
    for (rule, behaviour, datagrams, series, counted) in cases {
        let mut rig = Rig::new(config);
        rig.send(datagrams);
        assert_eq!(
            (&*rig.series(), &*rig.counted()),
            (&*to_text(series), *counted),
            "{rule}: {behaviour}: {datagrams:?}"
        );
        let tally = rig.tally();
        let (lines, ended) = (tally.get(Count::Lines), tally.recorded_in_all() + tally.dropped_in_all());
        assert!(ended >= lines, "{rule}: {behaviour}: {lines} lines ended {ended} times: {datagrams:?}");
        let of_type: u64 = SampleType::ALL.iter().map(|kind| tally.recorded_of(*kind)).sum();
        assert!(series.is_empty() == (of_type == 0), "{rule}: {behaviour}: {of_type} recorded: {datagrams:?}");
    }
}

fn to_text(series: &[&str]) -> Vec<String> {
    series.iter().map(ToString::to_string).collect()
}

/// Sends lines under a mapping file and compares the series, without their buckets.
#[track_caller]
pub(crate) fn check(behaviour: &str, yaml: &str, lines: &[&str], series: &[&str]) {
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(lines);
    assert_eq!(rig.series(), series, "{behaviour}: {lines:?} under\n{yaml}");
}
