//! The rounds of forgetting alone: workers that remember series against a sweep that takes them away. The rounds are
//! those of the program; the store around them is the least that shows what they are for, step by step as `aggregate`
//! and `pipeline` do it, so that more interruptions can be tried than of the whole ([`super::whole`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use loom::thread;
use model::aggregate::grace::rounds::{Forget, Passage, Rounds};
use model::sync::Ordering::Relaxed;
use model::sync::{AtomicU64, Mutex};

use super::in_every_order;

/// When series are used before the threads of a test begin.
const LONG_AGO: u64 = 1;
const AGO: u64 = 2;
/// When the threads record.
const NOW: u64 = 3;

/// A tick of last use and a number, for each worker.
type Shard = [(AtomicU64, AtomicU64); 2];

/// A series in the table.
struct Entry {
    cell: usize,
    doomed: bool,
}

#[derive(Default)]
struct Table {
    series: BTreeMap<char, Entry>,
    free: Vec<usize>,
    /// What was recorded to series that went, up to then.
    gone: BTreeMap<char, u64>,
}

struct Store {
    table: Mutex<Table>,
    shards: Vec<Shard>,
    rounds: Arc<Rounds<Vec<usize>>>,
    /// Batches that somebody was told of, who watched for them.
    told: AtomicU64,
}

impl Store {
    fn new(workers: usize) -> Arc<Self> {
        let table = Table { free: vec![1, 0], ..Table::default() };
        let cell = || (AtomicU64::new(0), AtomicU64::new(0));
        let shards = (0..workers).map(|_| [cell(), cell()]).collect();
        let rounds = Arc::new(Rounds::new(workers));
        Arc::new(Self { table: Mutex::new(table), shards, rounds, told: AtomicU64::new(0) })
    }

    fn place(&self, name: char) -> usize {
        let Table { series, free, .. } = &mut *self.table.lock().unwrap();
        let entry = series.entry(name).or_insert_with(|| Entry { cell: free.pop().unwrap(), doomed: false });
        entry.doomed = false;
        entry.cell
    }

    fn last_used(&self, cell: usize) -> u64 {
        self.shards.iter().map(|shard| shard[cell].0.load(Relaxed)).max().unwrap()
    }

    fn number(&self, cell: usize) -> u64 {
        self.shards.iter().map(|shard| shard[cell].1.load(Relaxed)).sum()
    }

    /// Recorded to a series in all.
    fn total(&self, name: char) -> u64 {
        let table = self.table.lock().unwrap();
        let live = table.series.get(&name).map_or(0, |entry| self.number(entry.cell));
        live + table.gone.get(&name).unwrap_or(&0)
    }
}

/// Takes away what was last used at one of these times, the first at the first round and so on.
struct Sweep {
    store: Arc<Store>,
    times: std::slice::Iter<'static, u64>,
    pending: Vec<(char, u64)>,
}

impl Sweep {
    fn new(store: &Arc<Store>, times: &'static [u64]) -> Self {
        Self { store: store.clone(), times: times.iter(), pending: Vec::new() }
    }

    fn step(&mut self) {
        let store = &self.store;
        if !store.rounds.is_passed() {
            return;
        }
        let Table { series, free, gone } = &mut *store.table.lock().unwrap();
        for (name, marked_at) in self.pending.drain(..) {
            let entry = series.get_mut(&name).unwrap();
            let cell = entry.cell;
            if std::mem::take(&mut entry.doomed) && store.last_used(cell) == marked_at {
                *gone.entry(name).or_default() += store.number(cell);
                for shard in &store.shards {
                    shard[cell].0.store(0, Relaxed);
                    shard[cell].1.store(0, Relaxed);
                }
                series.remove(&name);
                free.push(cell);
            }
        }
        let Some(&time) = self.times.next() else { return };
        let mut doomed = Vec::new();
        for (name, entry) in series.iter_mut().filter(|(_, entry)| store.last_used(entry.cell) == time) {
            entry.doomed = true;
            doomed.push(entry.cell);
            self.pending.push((*name, time));
        }
        if !doomed.is_empty() {
            store.rounds.begin(doomed);
        }
    }
}

struct Worker {
    store: Arc<Store>,
    number: usize,
    passage: Passage<Vec<usize>>,
    remembered: BTreeMap<char, usize>,
}

impl Worker {
    fn new(store: &Arc<Store>, number: usize) -> Self {
        let passage = Passage::new(store.rounds.clone(), number);
        Self { store: store.clone(), number, passage, remembered: BTreeMap::new() }
    }

    /// Records one to each of `names`.
    fn batch(&mut self, now: u64, names: &str) {
        self.enter();
        names.chars().for_each(|name| self.record(now, name));
        self.passage.leave();
    }

    fn enter(&mut self) {
        if let Some(forget) = self.passage.enter() {
            match forget {
                Forget::Some(doomed) => self.remembered.retain(|_, cell| !doomed.contains(cell)),
                Forget::All => self.remembered.clear(),
            }
            self.passage.forgotten();
        }
        if self.passage.ends_watch() {
            self.store.told.fetch_add(1, Relaxed);
        }
    }

    fn record(&mut self, now: u64, name: char) {
        let store = &self.store;
        let cell = *self.remembered.entry(name).or_insert_with(|| store.place(name));
        let (tick, number) = &store.shards[self.number][cell];
        tick.store(now, Relaxed);
        number.store(number.load(Relaxed) + 1, Relaxed);
    }
}

#[test]
fn what_a_worker_records_to_a_series_it_remembers_is_not_lost_while_the_sweep_takes_it_away() {
    in_every_order(4, || {
        let store = Store::new(1);
        let mut worker = Worker::new(&store, 0);
        worker.batch(LONG_AGO, "a");
        let mut sweep = Sweep::new(&store, &[LONG_AGO]);
        let sweeping = thread::spawn(move || (0..2).for_each(|_| sweep.step()));
        // In the second batch another series may get the cell that the first had.
        worker.batch(NOW, "a");
        worker.batch(NOW, "ba");
        sweeping.join().unwrap();
        assert_eq!((store.total('a'), store.total('b')), (3, 1));
        // What went is what was not used since; what was recorded now is there.
        let gone = *store.table.lock().unwrap().gone.get(&'a').unwrap_or(&0);
        assert!(gone <= 1, "{gone} samples went");
    });
}

#[test]
fn two_workers_that_record_to_one_series_lose_nothing_when_it_is_taken_away() {
    in_every_order(3, || {
        let store = Store::new(2);
        let mut workers = [0, 1].map(|number| Worker::new(&store, number));
        workers.iter_mut().for_each(|worker| worker.batch(LONG_AGO, "a"));
        let mut sweep = Sweep::new(&store, &[LONG_AGO]);
        let sweeping = thread::spawn(move || (0..2).for_each(|_| sweep.step()));
        let [mut first, mut second] = workers;
        let recording = thread::spawn(move || first.batch(NOW, "a"));
        second.batch(NOW, "ba");
        sweeping.join().unwrap();
        recording.join().unwrap();
        assert_eq!((store.total('a'), store.total('b')), (4, 1));
        let gone = *store.table.lock().unwrap().gone.get(&'a').unwrap_or(&0);
        assert!(gone <= 2, "{gone} samples went");
    });
}

#[test]
fn a_worker_that_wakes_between_rounds_forgets_what_either_takes_away() {
    in_every_order(3, || {
        let store = Store::new(1);
        let mut worker = Worker::new(&store, 0);
        worker.batch(LONG_AGO, "a");
        worker.batch(AGO, "b");
        let mut sweep = Sweep::new(&store, &[LONG_AGO, AGO]);
        let sweeping = thread::spawn(move || (0..3).for_each(|_| sweep.step()));
        worker.batch(NOW, "ab");
        worker.batch(NOW, "ba");
        sweeping.join().unwrap();
        assert_eq!((store.total('a'), store.total('b')), (3, 3));
        let table = store.table.lock().unwrap();
        assert!(table.gone.values().all(|gone| *gone <= 1), "{:?} samples went", table.gone);
    });
}

#[test]
fn who_finds_every_worker_asleep_sees_all_that_was_recorded_or_is_told_of_the_next_batch() {
    in_every_order(4, || {
        let store = Store::new(2);
        let [mut first, mut second] = [0, 1].map(|number| Worker::new(&store, number));
        let recording = thread::spawn(move || first.batch(NOW, "a"));
        let resting = thread::spawn({
            let store = store.clone();
            move || store.rounds.watch().then(|| (store.total('a'), store.rounds.clone()))
        });
        second.batch(NOW, "a");
        recording.join().unwrap();
        let rested = resting.join().unwrap();
        let told = store.told.load(Relaxed);
        assert!(told <= 1, "one batch ends a watch, and {told} were told of");
        if let Some((seen, rounds)) = rested {
            assert_eq!(rounds.is_watched(), told == 0);
            assert!(seen == 2 || told == 1, "{seen} samples were seen, and {told} batches told of");
        }
    });
}

#[test]
fn workers_that_sleep_hold_no_round_up_and_forget_everything_if_they_slept_through_several() {
    in_every_order(4, || {
        let rounds = Arc::new(Rounds::<u64>::new(2));
        let mut sleeper = Passage::new(rounds.clone(), 0);
        let mut other = Passage::new(rounds.clone(), 1);
        let sweeping = thread::spawn({
            let rounds = rounds.clone();
            move || {
                for round in 1..=2 {
                    rounds.begin(round);
                    // Were it held up, this had no end, and the model would say so.
                    while !rounds.is_passed() {
                        thread::yield_now();
                    }
                }
            }
        });
        let mut told = Vec::new();
        for _ in 0..2 {
            told.extend(other.enter().inspect(|_| other.forgotten()));
            other.leave();
        }
        sweeping.join().unwrap();
        assert!(matches!(sleeper.enter(), Some(Forget::All)));
        // A round is told with its own contents or, if these are not there any more, as everything; and once.
        let told = told.iter().map(|forget| match forget {
            Forget::Some(round) => Some(**round),
            Forget::All => None,
        });
        let told: Vec<_> = told.collect();
        let possible = [&[][..], &[None], &[Some(1)], &[Some(1), Some(2)], &[None, Some(2)]];
        assert!(possible.contains(&&told[..]), "{told:?}");
    });
}
