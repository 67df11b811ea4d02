//! A mapping file and lines in; series and books out.

use std::fs;
use std::sync::Arc;

use arc_swap::ArcSwap;
use statsieve::aggregate::Store;
use statsieve::config::{Config, Format, Sources, load};
use statsieve::expose::SeriesSource;
use statsieve::model::DropReason;
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{SeriesBooks, Tally};

/// What makes names and labels those of statsd_exporter.
pub(crate) const LIKE_THE_PEER: [&str; 5] = [
    "naming.counter_suffix=",
    "naming.timer_suffix=",
    "bucketing=[]",
    "labels.drop=[]",
    "parse.container_id_label=container_id",
];

/// The configuration under a mapping file of this text.
pub(crate) fn with_yaml(yaml: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapping.yml");
    fs::write(&path, yaml).unwrap();
    let set = LIKE_THE_PEER.iter().map(ToString::to_string).chain([format!("mapping.file={}", path.display())]);
    load(&Sources { file: None, set: set.collect() }).unwrap_or_else(|problems| panic!("{problems}\n{yaml}")).config
}

pub(crate) struct Rig {
    store: Arc<Store>,
    worker: Pipeline,
}

impl Rig {
    pub(crate) fn new(config: &Config) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(config)));
        let store = Arc::new(Store::new(1, Arc::<SeriesBooks>::default()));
        Self { worker: Pipeline::new(rules, store.clone(), 0), store }
    }

    /// A datagram for each line.
    pub(crate) fn send(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.worker.datagram(line.as_bytes()));
    }

    /// The whole exposition.
    pub(crate) fn text(&self) -> String {
        let (mut pieces, mut out) = (self.store.begin(Format::Text), Vec::new());
        while pieces.next(&mut out) {}
        String::from_utf8(out).unwrap()
    }

    /// Sample lines but for those of buckets, sorted.
    pub(crate) fn series(&self) -> Vec<String> {
        let text = self.text();
        let wanted = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{"));
        let mut series: Vec<String> = wanted.map(str::to_owned).collect();
        series.sort();
        series
    }

    pub(crate) fn tally(&mut self) -> &Tally {
        self.worker.tally()
    }

    pub(crate) fn dropped(&mut self, reason: DropReason) -> u64 {
        self.tally().dropped_for(reason)
    }
}

/// Sends lines under a mapping file and compares the series, without their buckets.
#[track_caller]
pub(crate) fn check(behaviour: &str, yaml: &str, lines: &[&str], series: &[&str]) {
    let mut rig = Rig::new(&with_yaml(yaml));
    rig.send(lines);
    assert_eq!(rig.series(), series, "{behaviour}: {lines:?} under\n{yaml}");
}
