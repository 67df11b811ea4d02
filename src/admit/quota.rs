//! Cuts what is over a quota of samples in a second: the last resort.
//!
//! In: samples that would be recorded, and the time. Out: whether each still is.
//! Not here: what to thin under load (`sampling`), which loses no totals; this does.
//! Always: over any time t, at most quota * (t + 1 s) samples pass, in the process and in each family; a sample costs
//! one cell whatever its weight; no call of `governor` asks for more than its burst, which would be an error each time.
//! `governor` counts in whole nanoseconds a cell, so a quota is met to 0.1 % up to a million a second, and one above a
//! thousand million is none.
//!
//! Asking `governor` takes a clock and a contended atomic, 10 to 50 ns. So each worker leases cells and uses them up
//! before it asks again: one at first, twice as many each time a lease is used up while it is fresh, up to a twentieth
//! of a second's worth. A lease older than a second is given up, so that an idle worker holds nothing back.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, QuantaClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};

use crate::config::RateLimit;

/// The largest lease is this part of a second's quota.
const LEASE_PART: u32 = 20;
/// A lease is good for this long.
const LEASE_TIME: Duration = Duration::from_secs(1);
/// How often a worker has the state of idle families released.
const SWEEP: Duration = Duration::from_secs(60);

type Limiter<K, S, C> = RateLimiter<K, S, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// One quota for each number of a family.
type ByFamily<C> = Limiter<u32, HashMapStateStore<u32>, C>;

/// The quotas of the process; all workers share them.
pub struct Quotas<C: Clock = QuantaClock> {
    clock: C,
    total: Option<(NonZeroU32, Limiter<NotKeyed, InMemoryState, C>)>,
    families: Option<(NonZeroU32, ByFamily<C>)>,
}

impl Quotas {
    /// The quotas of `[rate_limit]`, unused; `None` if there is none.
    pub fn new(limits: &RateLimit) -> Option<Self> {
        Self::with_clock(limits, QuantaClock::default())
    }
}

impl<C: Clock + Clone> Quotas<C> {
    /// The same by another clock.
    pub fn with_clock(limits: &RateLimit, clock: C) -> Option<Self> {
        let limiter = |n| RateLimiter::direct_with_clock(Quota::per_second(n), clock.clone());
        let keyed = |n| RateLimiter::hashmap_with_clock(Quota::per_second(n), clock.clone());
        let total = limits.samples_per_second.map(|n| (n, limiter(n)));
        let families = limits.family_samples_per_second.map(|n| (n, keyed(n)));
        (total.is_some() || families.is_some()).then(|| Self { total, families, clock })
    }
}

impl<C: Clock> Quotas<C> {
    /// The time that leases go by.
    pub fn now(&self) -> C::Instant {
        self.clock.now()
    }

    /// Families that some state is kept for.
    pub fn families(&self) -> usize {
        self.families.as_ref().map_or(0, |(_, limiter)| limiter.len())
    }

    /// Forgets families that have their whole quota again.
    fn release_idle(&self) {
        if let Some((_, limiter)) = &self.families {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// The most bytes of quotas by family: a state of 8 bytes under a number in a table that has just doubled, beside the
/// old one, and for each worker a lease in a list that has.
pub fn most_bytes(families: usize, workers: usize) -> u64 {
    let state = (size_of::<(u32, u64)>() + 1) * 24 / 7 + 1;
    let lease = 3 * size_of::<Lease<<QuantaClock as Clock>::Instant>>();
    (families as u64).saturating_mul((state + workers * lease) as u64)
}

/// What one worker has leased.
#[derive(Debug)]
pub struct Leases<C: Clock = QuantaClock> {
    now: Option<C::Instant>,
    swept: Option<C::Instant>,
    total: Lease<C::Instant>,
    /// By the number of the family.
    families: Vec<Lease<C::Instant>>,
}

impl<C: Clock> Default for Leases<C> {
    fn default() -> Self {
        Self { now: None, swept: None, total: Lease::default(), families: Vec::new() }
    }
}

impl<C: Clock> Leases<C> {
    /// Moves on to `now`; to be called at least once before [`Leases::take`], and then as often as is cheap.
    pub fn at(&mut self, quotas: &Quotas<C>, now: C::Instant) {
        self.now = Some(now);
        let swept = self.swept.get_or_insert(now);
        if Duration::from(now.duration_since(*swept)) >= SWEEP {
            *swept = now;
            quotas.release_idle();
            // Those in use are leased anew with the next sample.
            self.families = Vec::new();
        }
    }

    /// Takes a cell for a sample of family number `family`. `false`: a quota is used up, and nothing was taken.
    #[inline]
    pub fn take(&mut self, quotas: &Quotas<C>, family: u32) -> bool {
        let Some(now) = self.now else { return true };
        if let Some((most, limiter)) = &quotas.families {
            let place = family as usize;
            if place >= self.families.len() {
                self.families.resize_with(place + 1, Lease::default);
            }
            let ask = |n| limiter.check_key_n(&family, n).ok();
            if !self.families[place].take(now, *most, ask) {
                return false;
            }
        }
        if let Some((most, limiter)) = &quotas.total
            && !self.total.take(now, *most, |n| limiter.check_n(n).ok())
        {
            if quotas.families.is_some() {
                self.families[family as usize].cells += 1;
            }
            return false;
        }
        true
    }
}

/// Cells that one worker may use up without asking.
#[derive(Debug)]
struct Lease<I> {
    cells: u32,
    /// How many to ask for next, if this is used up while it is fresh.
    next: u32,
    since: Option<I>,
    /// Asking is in vain before.
    shut_until: Option<I>,
}

impl<I> Default for Lease<I> {
    fn default() -> Self {
        Self { cells: 0, next: 0, since: None, shut_until: None }
    }
}

impl<I: Reference> Lease<I> {
    /// Takes a cell of a quota of `most` a second. `ask` gets a number of them, or `None` past the burst.
    #[inline]
    fn take(&mut self, now: I, most: NonZeroU32, ask: impl Fn(NonZeroU32) -> Option<Result<(), NotUntil<I>>>) -> bool {
        let fresh = self.since.is_some_and(|since| Duration::from(now.duration_since(since)) < LEASE_TIME);
        if self.cells > 0 && fresh {
            self.cells -= 1;
            return true;
        }
        self.renew(fresh, now, most, ask)
    }

    #[cold]
    fn renew(
        &mut self,
        fresh: bool,
        now: I,
        most: NonZeroU32,
        ask: impl Fn(NonZeroU32) -> Option<Result<(), NotUntil<I>>>,
    ) -> bool {
        self.cells = 0;
        if self.shut_until.is_some_and(|until| now < until) {
            return false;
        }
        let most = most.get().div_ceil(LEASE_PART);
        let wanted = if fresh { self.next.clamp(1, most) } else { 1 };
        let mut shut_until = None;
        let mut part = wanted;
        // Less than a whole lease is taken to the last cell, and the next one asked for when all of it can be there.
        while self.cells < wanted
            && let Some(Some(outcome)) = NonZeroU32::new(part).map(&ask)
        {
            match outcome {
                Ok(()) => self.cells += part,
                Err(not_until) => {
                    shut_until.get_or_insert(not_until.earliest_possible());
                    part /= 2;
                }
            }
        }
        self.shut_until = shut_until;
        self.since = Some(now);
        self.next = wanted.saturating_mul(2);
        let any = self.cells > 0;
        self.cells -= u32::from(any);
        any
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn quotas(total: u32, family: u32) -> (Quotas<FakeRelativeClock>, FakeRelativeClock) {
        let limits = RateLimit {
            samples_per_second: NonZeroU32::new(total),
            family_samples_per_second: NonZeroU32::new(family),
        };
        let clock = FakeRelativeClock::default();
        (Quotas::with_clock(&limits, clock.clone()).expect("there is a quota"), clock)
    }

    /// Asks for `n` samples of a family at once; how many pass.
    fn burst(leases: &mut Leases<FakeRelativeClock>, quotas: &Quotas<FakeRelativeClock>, family: u32, n: u32) -> u32 {
        leases.at(quotas, quotas.now());
        (0..n).filter(|_| leases.take(quotas, family)).count() as u32
    }

    #[test]
    fn without_limits_there_is_nothing_to_ask() {
        let limits = RateLimit { samples_per_second: None, family_samples_per_second: None };
        assert!(Quotas::new(&limits).is_none());
    }

    #[test]
    fn a_second_s_worth_passes_at_once_and_then_the_quota() {
        for quota in [1, 2, 19, 20, 21, 100, 1000, 50_000] {
            let (quotas, clock) = quotas(quota, 0);
            let mut leases = Leases::default();
            let mut passed = burst(&mut leases, &quotas, 0, 3 * quota);
            assert_eq!(passed, quota);
            for _ in 0..1000 {
                clock.advance(Duration::from_millis(10));
                passed += burst(&mut leases, &quotas, 0, quota);
            }
            // What is too little for a whole lease waits for the next.
            assert!((11 * quota - quota.div_ceil(20)..=11 * quota).contains(&passed), "{quota}: {passed} in 10 s");
        }
    }

    #[test]
    fn the_largest_quota_holds_nothing_back() {
        let (quotas, _) = quotas(u32::MAX, u32::MAX);
        assert_eq!(burst(&mut Leases::default(), &quotas, 5, 100_000), 100_000);
    }

    #[test]
    fn each_family_has_a_quota_and_all_have_one_together() {
        let (quotas, clock) = quotas(100, 40);
        let mut leases = Leases::default();
        let passed = [0, 1, 7, 2].map(|family| burst(&mut leases, &quotas, family, 1000));
        assert_eq!(passed[..2], [40, 40]);
        assert_eq!(passed.iter().sum::<u32>(), 100);
        clock.advance(Duration::from_secs(1));
        assert_eq!(burst(&mut leases, &quotas, 7, 1000), 40);
    }

    #[test]
    fn a_cell_of_a_family_is_given_back_if_all_together_have_none() {
        let (quotas, clock) = quotas(1, 40);
        let mut leases = Leases::default();
        assert_eq!(burst(&mut leases, &quotas, 3, 1000), 1);
        clock.advance(Duration::from_millis(999));
        assert_eq!(burst(&mut leases, &quotas, 3, 1000), 0);
        let held = leases.families[3].cells;
        assert_eq!(burst(&mut leases, &quotas, 3, 1000), 0);
        assert_eq!(leases.families[3].cells, held);
    }

    #[test]
    fn workers_share_a_quota_to_the_last_lease() {
        let (quotas, clock) = quotas(1000, 0);
        let mut workers: Vec<Leases<FakeRelativeClock>> = (0..4).map(|_| Leases::default()).collect();
        let mut passed = 0;
        for _ in 0..300 {
            clock.advance(Duration::from_millis(10));
            passed += workers.iter_mut().map(|leases| burst(leases, &quotas, 0, 20)).sum::<u32>();
        }
        assert!((4000 - 4 * 50..=4000).contains(&passed), "{passed}");
    }

    #[test]
    fn an_idle_worker_gives_its_lease_up() {
        let (quotas, clock) = quotas(1000, 0);
        let (mut idle, mut busy) = (Leases::default(), Leases::default());
        assert_eq!(burst(&mut idle, &quotas, 0, 40), 40);
        assert!(idle.total.cells > 0, "it holds part of a lease");
        clock.advance(Duration::from_secs(2));
        assert_eq!(burst(&mut busy, &quotas, 0, 2000), 1000);
        assert_eq!(burst(&mut idle, &quotas, 0, 1), 0, "an old lease is worth nothing");
        // The next lease is small again.
        clock.advance(Duration::from_secs(1));
        assert_eq!(burst(&mut idle, &quotas, 0, 1), 1);
        assert_eq!(idle.total.cells, 0);
    }

    #[test]
    fn families_that_are_idle_are_released() {
        let (quotas, clock) = quotas(0, 10);
        let mut leases = Leases::default();
        (0..500).for_each(|family| _ = burst(&mut leases, &quotas, family, 1));
        assert_eq!((quotas.families(), leases.families.len()), (500, 500));
        clock.advance(Duration::from_secs(59));
        assert_eq!(burst(&mut leases, &quotas, 9, 30), 10);
        clock.advance(Duration::from_secs(1));
        assert_eq!(burst(&mut leases, &quotas, 9, 30), 10);
        assert_eq!((quotas.families(), leases.families.len()), (1, 10));
    }
}
