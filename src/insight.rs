//! How many different users there were, and which of them send most, in bounded memory.
//!
//! In: the value of each bucketed tag and its hash, from the workers. Out: estimates for the scrape and lists for
//! `/api/v1/top`, merged over all workers when they are asked for.
//! Not here: which tags those are (`identity`), how an estimate is exposed (`telemetry`), who may see a list
//! (`expose`).
//! Always: one writer for each shard; a reader never waits for a worker longer than one sample takes, and holds up no
//! line but a sampled one; values never become series; time comes in as a number.
//!
//! A tag that only escaping makes equal to a bucketed one (`user-id` for `user_id`) is bucketed, but not seen here.
//! What is seen is a line that is well formed, whatever becomes of its sample afterwards.

pub mod distinct;
pub mod heavy;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Config;
use crate::identity::Seen;
use distinct::{Estimate, Layout, Registers, Writer};
use heavy::{Gate, Sketch, Top};

/// What is known of the values of all bucketed tags, over all workers.
pub struct Insight {
    /// The tags of each bucketing rule; the first of them names it.
    tags: Vec<Vec<String>>,
    /// The windows as configured, for labels.
    windows: Vec<String>,
    layout: Layout,
    /// Values followed for each rule; 0 is off.
    capacity: usize,
    shards: Mutex<Vec<Option<Arc<Shard>>>>,
}

/// What one worker has seen.
struct Shard {
    registers: Arc<Registers>,
    /// One for each rule; none if heavy hitters are off.
    sketches: Vec<Mutex<Sketch>>,
}

impl fmt::Debug for Insight {
    /// Without values: they belong to users.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tags, windows, .. } = self;
        f.debug_struct("Insight").field("tags", tags).field("windows", windows).finish_non_exhaustive()
    }
}

impl Insight {
    /// Nothing seen yet. The memory is taken by [`Insight::watch`], for each worker.
    pub fn new(config: &Config) -> Self {
        Self {
            tags: config.bucketing.iter().map(|rule| rule.tags.clone()).collect(),
            windows: config.distinct.windows.iter().map(|window| window.text.clone()).collect(),
            layout: Layout::new(config),
            capacity: config.heavy_hitters.capacity,
            shards: Mutex::default(),
        }
    }

    /// The eyes of worker number `worker`, which nobody else may watch as.
    ///
    /// Takes the worker's memory at its first call: rules x windows x 5 x registers bytes, and for heavy hitters see
    /// [`Sketch`].
    pub fn watch(&self, worker: usize) -> Watcher {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if shards.len() <= worker {
            shards.resize_with(worker + 1, || None);
        }
        let shard = shards[worker].get_or_insert_with(|| {
            let sketches = if self.capacity > 0 { self.tags.len() } else { 0 };
            Arc::new(Shard {
                registers: Arc::new(Registers::new(&self.layout)),
                sketches: (0..sketches).map(|_| Mutex::new(Sketch::new(self.capacity))).collect(),
            })
        });
        // Gaps that a sender cannot guess, so that it cannot place its lines between two looks.
        let seeds = RandomState::new();
        Watcher {
            writer: Writer::new(&self.layout, shard.registers.clone()),
            gates: (0..shard.sketches.len()).map(|rule| Gate::new(seeds.hash_one(rule))).collect(),
            shard: shard.clone(),
        }
    }

    /// The estimate for each rule and window, in that order; `now_ms` by the clock that the workers are told.
    ///
    /// Reads all registers of all workers: workers x rules x windows x 5 x registers bytes.
    pub fn estimates(&self, now_ms: u64) -> Vec<Estimate> {
        let shards = self.shards();
        let mut estimates = Vec::with_capacity(self.tags.len() * self.windows.len());
        for (rule, tags) in self.tags.iter().enumerate() {
            for (window, text) in self.windows.iter().enumerate() {
                let mut merged = vec![0; self.layout.registers()];
                for shard in &shards {
                    shard.registers.merge_into(&self.layout, rule, window, now_ms, &mut merged);
                }
                estimates.push(Estimate { tag: tags[0].clone(), window: text.clone(), registers: merged });
            }
        }
        estimates
    }

    /// What sends most, for the rule that `tag` belongs to; `None` if there is none, or heavy hitters are off.
    ///
    /// Copies the values followed of each worker under its lock, and merges the copies without.
    pub fn top(&self, tag: &str) -> Option<Top> {
        let rule = self.tags.iter().position(|tags| tags.iter().any(|known| known == tag))?;
        self.top_of(rule)
    }

    /// The same for every rule, in the order of the configuration.
    pub fn tops(&self) -> Vec<Top> {
        (0..self.tags.len()).filter_map(|rule| self.top_of(rule)).collect()
    }

    fn top_of(&self, rule: usize) -> Option<Top> {
        if self.capacity == 0 {
            return None;
        }
        let copy = |shard: Arc<Shard>| {
            let sketch = shard.sketches.get(rule)?.lock().unwrap_or_else(PoisonError::into_inner);
            Some(sketch.snapshot())
        };
        let snapshots = self.shards().into_iter().filter_map(copy).collect();
        Some(heavy::merge(&self.tags[rule][0], snapshots, self.capacity))
    }

    fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect()
    }
}

/// What one worker sees with: writes its shard, and nobody else's.
pub struct Watcher {
    writer: Writer,
    /// When to look, for each rule; none if heavy hitters are off.
    gates: Vec<Gate>,
    shard: Arc<Shard>,
}

impl Watcher {
    /// Tells the time of what follows; to be called once a batch.
    #[inline]
    pub fn turn(&mut self, now_ms: u64) {
        self.writer.turn(now_ms);
    }

    /// Takes a sample of the stream into the sketch.
    #[cold]
    #[inline(never)]
    fn look(&mut self, rule: usize, value: &[u8]) {
        let (passed, weight) = self.gates[rule].pass();
        let mut sketch = self.shard.sketches[rule].lock().unwrap_or_else(PoisonError::into_inner);
        sketch.add(value, passed, weight);
    }
}

impl Seen for Watcher {
    #[inline]
    fn seen(&mut self, rule: u8, hash: u64, value: &[u8]) {
        let rule = usize::from(rule);
        self.writer.add(rule, hash);
        if let Some(gate) = self.gates.get_mut(rule)
            && gate.opens()
        {
            self.look(rule, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use xxhash_rust::xxh64::xxh64;

    fn insight(set: &[&str]) -> Insight {
        let set = set.iter().map(ToString::to_string).collect();
        Insight::new(&load(&Sources { file: None, set }).unwrap_or_else(|problems| panic!("{problems}")).config)
    }

    fn see(watcher: &mut Watcher, rule: u8, user: u64) {
        let value = user.to_string();
        watcher.seen(rule, xxh64(value.as_bytes(), 0), value.as_bytes());
    }

    const TWO_RULES: &str =
        r#"bucketing=[{tags=["user_id","uid"],label="user_bucket"},{tags=["chat_id"],label="chat_bucket"}]"#;

    #[test]
    fn workers_are_merged_and_a_user_of_two_of_them_counts_once() {
        let insight = insight(&[TWO_RULES]);
        let mut watchers = [insight.watch(0), insight.watch(3)];
        watchers.iter_mut().for_each(|watcher| watcher.turn(1_000_000));
        for user in 0..6000 {
            see(&mut watchers[0], 0, user);
            see(&mut watchers[1], 0, user + 3000);
        }
        see(&mut watchers[1], 1, 7);
        let estimates = insight.estimates(1_000_000);
        let found: Vec<(&str, &str, f64)> =
            estimates.iter().map(|it| (it.tag.as_str(), it.window.as_str(), it.value().round())).collect();
        let users = found[0].2;
        assert!((users / 9000.0 - 1.0).abs() < 3.0 * 1.04 / 32.0, "{users}");
        let expected =
            [("user_id", "5m", users), ("user_id", "24h", users), ("chat_id", "5m", 1.0), ("chat_id", "24h", 1.0)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_worker_that_sleeps_does_not_keep_its_users_in_the_window() {
        let insight = insight(&[]);
        let (mut awake, mut asleep) = (insight.watch(0), insight.watch(1));
        awake.turn(0);
        asleep.turn(0);
        (0..100).for_each(|user| see(&mut asleep, 0, user));
        see(&mut awake, 0, 1);
        let minutes = |n: u64| n * 60_000;
        let five_minutes = |now| insight.estimates(now)[0].value().round();
        assert!((97.0..=103.0).contains(&five_minutes(minutes(4))), "{}", five_minutes(minutes(4)));
        awake.turn(minutes(5));
        see(&mut awake, 0, 2);
        assert_eq!(five_minutes(minutes(5)), 1.0);
        assert!((97.0..=103.0).contains(&insight.estimates(minutes(5))[1].value()), "24h still counts them");
    }

    #[test]
    fn any_tag_of_a_rule_finds_its_list_and_no_other_does() {
        let insight = insight(&[TWO_RULES]);
        let mut watcher = insight.watch(0);
        (0..5).for_each(|_| see(&mut watcher, 0, 42));
        see(&mut watcher, 0, 43);
        let top = insight.top("uid").expect("a tag of the first rule");
        assert_eq!((top.tag.as_str(), top.observed, top.sampled, top.error_bound), ("user_id", 6, 6, 0));
        let values: Vec<(&str, u64)> = top.values.iter().map(|heavy| (heavy.value.as_str(), heavy.count)).collect();
        assert_eq!(values, [("42", 5), ("43", 1)]);
        assert!(insight.top("user_bucket").is_none());
        assert_eq!(insight.tops().len(), 2);
    }

    #[test]
    fn capacity_zero_is_off_and_users_are_counted_all_the_same() {
        let insight = insight(&["heavy_hitters.capacity=0"]);
        let mut watcher = insight.watch(0);
        see(&mut watcher, 0, 1);
        assert!(insight.top("user_id").is_none() && insight.tops().is_empty());
        assert_eq!(insight.estimates(0)[0].value().round(), 1.0);
    }
}
