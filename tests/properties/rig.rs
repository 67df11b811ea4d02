//! The stages between socket and scrape, driven by hand: datagrams in, the text of all series out.

use std::sync::Arc;

use arc_swap::ArcSwap;
use statsieve::aggregate::Store;
use statsieve::config::{Format, Sources, load};
use statsieve::expose::SeriesSource;
use statsieve::model::{DropReason, SampleType};
use statsieve::pipeline::{Pipeline, Rules};
use statsieve::telemetry::{Count, SeriesBooks, Tally};

pub(crate) struct Rig {
    pub(crate) books: Arc<SeriesBooks>,
    store: Arc<Store>,
    workers: Vec<Pipeline>,
}

impl Rig {
    pub(crate) fn new(set: &[&str], workers: usize) -> Self {
        let set = set.iter().map(ToString::to_string).collect();
        let config = load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config;
        let rules = Arc::new(ArcSwap::from_pointee(Rules::new(&config)));
        let books = Arc::<SeriesBooks>::default();
        let store = Arc::new(Store::new(workers, books.clone()));
        let workers = (0..workers).map(|number| Pipeline::new(rules.clone(), store.clone(), number)).collect();
        Self { books, store, workers }
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

pub(crate) fn lines(tally: &Tally) -> u64 {
    tally.get(Count::Lines)
}

pub(crate) fn recorded(tally: &Tally) -> u64 {
    SampleType::ALL.iter().map(|kind| tally.recorded_of(*kind)).sum()
}

pub(crate) fn dropped(tally: &Tally) -> u64 {
    DropReason::ALL.iter().map(|reason| tally.dropped_for(*reason)).sum()
}
