//! Who is served, and who gives way when more want to be than may.
//!
//! In: connections, and what each of them does. Out: a [`Place`] for each that is served.
//! Not here: limits of time that hold for every connection (`connection`).
//! Always: no more places are taken than there are. Somebody who asks for nothing, or takes an answer too slowly, keeps
//! a place only as long as nobody else wants one, but for a grace: a silent client costs a scraper a moment, a dripping
//! one up to `answer_grace`. One that asks again and again has its next answer and goes, so that each place is passed
//! on.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a connection may wait before its request is there, though others want its place: some way over a long line.
const QUIET_GRACE: Duration = Duration::from_millis(200);

/// The places of one server.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<Vec<Arc<Place>>>,
    wish: Arc<Wish>,
}

/// What those who have a place and those who want one tell each other.
#[derive(Debug, Default)]
struct Wish {
    /// A place may have become free, or its holder silent.
    freed: Notify,
    /// Somebody waits for a place, and nobody is on the way out.
    waits: AtomicBool,
}

/// A connection that is served.
#[derive(Debug)]
pub(super) struct Place {
    begun: Instant,
    /// Microseconds from then until something last happened.
    touched: AtomicU64,
    /// And until it began to do what it does now: to wait for a request, or to answer one.
    since: AtomicU64,
    answers: AtomicUsize,
    /// It was told to leave.
    leaves: AtomicBool,
    leave: Notify,
    /// It asked although others wait.
    last: Notify,
    /// That of all places.
    wish: Arc<Wish>,
}

/// Holds a place until dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    places: &'a Places,
    place: Arc<Place>,
}

/// Held by an answer from the request on, until it is out or given up.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Places {
    pub(super) fn new() -> Self {
        Self { taken: Mutex::default(), wish: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        // Each change of the list is whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, of which there are `limit()`, if there is one or as soon as there is. Tells one who has a place to leave
    /// if need be, and `ousted` of that. An answer is safe for `answer_grace`.
    pub(super) async fn take(
        &self,
        limit: impl Fn() -> usize,
        answer_grace: Duration,
        ousted: impl Fn(),
    ) -> Arc<Place> {
        loop {
            let freed = self.wish.freed.notified();
            let wait = {
                let mut taken = self.lock();
                let limit = limit();
                if taken.len() < limit {
                    let place = Arc::new(Place::new(self.wish.clone()));
                    taken.push(place.clone());
                    self.wish.waits.store(false, Relaxed);
                    return place;
                }
                let staying: Vec<&Arc<Place>> = taken.iter().filter(|place| !place.leaves.load(Relaxed)).collect();
                let wait = if staying.len() < limit {
                    // Some are on their way.
                    None
                } else {
                    let next = next_to_leave(&staying, answer_grace);
                    if let Some((Duration::ZERO, place)) = next {
                        place.leaves.store(true, Relaxed);
                        place.leave.notify_one();
                        ousted();
                        None
                    } else {
                        next.map(|(left, _)| left)
                    }
                };
                self.wish.waits.store(wait.is_some(), Relaxed);
                wait
            };
            match wait {
                None => freed.await,
                Some(left) => _ = tokio::time::timeout(left, freed).await,
            }
        }
    }

    /// Holds `place` of these.
    pub(super) fn hold(&self, place: Arc<Place>) -> Held<'_> {
        Held { places: self, place }
    }

    /// There may be more of them now.
    pub(super) fn changed(&self) {
        self.wish.freed.notify_waiters();
    }

    /// Resolves once nobody has one.
    pub(super) async fn emptied(&self) {
        loop {
            let freed = self.wish.freed.notified();
            if self.lock().is_empty() {
                return;
            }
            freed.await;
        }
    }
}

/// Who has to leave next, and how long that one is safe yet: of those who ask for nothing, or else of those who are being
/// answered, the one who has done so longest.
fn next_to_leave<'a>(places: &[&'a Arc<Place>], answer_grace: Duration) -> Option<(Duration, &'a Arc<Place>)> {
    let longest = |answering: bool, grace: Duration| {
        let those = places.iter().filter(|place| place.is_answering() == answering);
        let (so_long, place) = those.map(|place| (place.so_long(), *place)).max_by_key(|(so_long, _)| *so_long)?;
        Some((grace.saturating_sub(so_long), place))
    };
    let (silent, answered) = (longest(false, QUIET_GRACE), longest(true, answer_grace));
    // Of two who may have to leave at once, it is the silent one.
    silent.into_iter().chain(answered).min_by_key(|(left, _)| *left)
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.places.lock().retain(|place| !Arc::ptr_eq(place, &self.place));
        self.places.changed();
    }
}

impl Place {
    fn new(wish: Arc<Wish>) -> Self {
        let [touched, since] = [AtomicU64::new(0), AtomicU64::new(0)];
        let (answers, leaves) = (AtomicUsize::new(0), AtomicBool::new(false));
        let [leave, last] = [Notify::new(), Notify::new()];
        Self { begun: Instant::now(), touched, since, answers, leaves, leave, last, wish }
    }

    /// Resolves once it has to make room for another.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether others wait for a place, so that what is asked now is to be the last that is answered here.
    pub(super) fn is_wanted(&self) -> bool {
        self.wish.waits.load(Relaxed)
    }

    /// Resolves once something was asked though others wait.
    pub(super) async fn asked_its_last(&self) {
        self.last.notified().await;
    }

    fn elapsed_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn touch(&self) {
        self.touched.store(self.elapsed_us(), Relaxed);
    }

    fn is_answering(&self) -> bool {
        self.answers.load(Relaxed) > 0
    }

    /// How long it has waited for a request, or been answered.
    fn so_long(&self) -> Duration {
        Duration::from_micros(self.elapsed_us().saturating_sub(self.since.load(Relaxed)))
    }

    /// Resolves once no request came for `idle` (`false`), or nothing was taken of an answer for `stalled` (`true`): no
    /// whole frame of a body, which is some 64 KiB. For HTTP/2, which has no limits of time of its own.
    pub(super) async fn ceases(&self, idle: Duration, stalled: Duration) -> bool {
        loop {
            let is_busy = self.is_answering();
            let end = Duration::from_micros(self.touched.load(Relaxed)) + if is_busy { stalled } else { idle };
            let left = end.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return is_busy;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Busy {
    pub(super) fn new(place: &Arc<Place>) -> Self {
        place.touch();
        if place.answers.fetch_add(1, Relaxed) == 0 {
            place.since.store(place.elapsed_us(), Relaxed);
        }
        if place.is_wanted() {
            place.last.notify_one();
        }
        Self(place.clone())
    }

    /// A further frame is wanted.
    pub(super) fn goes_on(&self) {
        self.0.touch();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        if self.0.answers.fetch_sub(1, Relaxed) == 1 {
            self.0.since.store(self.0.elapsed_us(), Relaxed);
            self.0.wish.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that has done what it does for so long.
    fn place(answering: bool, so_long: Duration) -> Arc<Place> {
        let place = Place { begun: Instant::now() - so_long, ..Place::new(Arc::default()) };
        place.answers.store(usize::from(answering), Relaxed);
        Arc::new(place)
    }

    #[test]
    fn the_silent_leave_before_the_slow_and_those_before_the_quick() {
        const SECOND: Duration = Duration::from_secs(1);
        let places = [
            place(true, 100 * SECOND),
            place(false, SECOND),
            place(false, 3 * SECOND),
            place(true, 11 * SECOND),
            place(true, SECOND),
        ];
        let mut places: Vec<&Arc<Place>> = places.iter().collect();
        for expected in [(false, 3), (false, 1), (true, 100), (true, 11)] {
            let (left, next) = next_to_leave(&places, 10 * SECOND).unwrap();
            assert_eq!((left, next.is_answering(), next.so_long().as_secs()), (Duration::ZERO, expected.0, expected.1));
            let next = next.clone();
            places.retain(|place| !Arc::ptr_eq(place, &next));
        }
        let (left, _) = next_to_leave(&places, 10 * SECOND).unwrap();
        assert!(left > 8 * SECOND && left <= 9 * SECOND, "{left:?}");
        assert!(next_to_leave(&[], SECOND).is_none());
    }

    #[test]
    fn who_asks_again_though_others_wait_asks_for_the_last_time() {
        const HOUR: Duration = Duration::from_secs(3600);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let places = Places::new();
            let take = || places.take(|| 1, HOUR, || panic!("nobody is told to leave"));
            let is_over =
                async |place: &Place| tokio::time::timeout(Duration::ZERO, place.asked_its_last()).await.is_ok();
            let first = take().await;
            let held = places.hold(first.clone());
            for _ in 0..2 {
                drop(Busy::new(&first));
                assert!(!first.is_wanted() && !is_over(&first).await, "nobody waits");
            }
            let busy = Busy::new(&first);
            let mut second = Box::pin(take());
            assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
            assert!(first.is_wanted() && !is_over(&first).await, "what it asked before is no offence");
            drop(busy);
            let _busy = Busy::new(&first);
            assert!(first.is_wanted() && is_over(&first).await);
            drop(held);
            let second = second.await;
            assert!(!second.is_wanted(), "it was the only one that waited");
        });
    }
}
