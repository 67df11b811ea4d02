//! Who is served, and who gives way when more want to be than may.
//!
//! In: connections, and what each of them does. Out: a [`Place`] for each that is served.
//! Not here: limits of time that hold for every connection (`connection`).
//! Always: no more places are taken than there are. Somebody who asks for nothing, or takes an answer too slowly, keeps
//! a place only as long as nobody else wants one, but for a grace: a silent client costs a scraper a moment, a dripping
//! one up to `answer_grace`. One that asks again and again within the grace is not told to leave.

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
    /// One may have become free, or its holder silent.
    freed: Arc<Notify>,
}

/// A connection that is served.
#[derive(Debug)]
pub(super) struct Place {
    begun: Instant,
    /// Microseconds from then until something last happened.
    last: AtomicU64,
    /// And until it began to do what it does now: to wait for a request, or to answer one.
    since: AtomicU64,
    answers: AtomicUsize,
    /// It was told to leave.
    leaves: AtomicBool,
    leave: Notify,
    /// That of all places.
    freed: Arc<Notify>,
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
        Self { taken: Mutex::default(), freed: Arc::default() }
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
            let freed = self.freed.notified();
            let wait = {
                let mut taken = self.lock();
                let limit = limit();
                if taken.len() < limit {
                    let place = Arc::new(Place::new(self.freed.clone()));
                    taken.push(place.clone());
                    return place;
                }
                let staying: Vec<&Arc<Place>> = taken.iter().filter(|place| !place.leaves.load(Relaxed)).collect();
                if staying.len() < limit {
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
                }
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
        self.freed.notify_waiters();
    }

    /// Resolves once nobody has one.
    pub(super) async fn emptied(&self) {
        loop {
            let freed = self.freed.notified();
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
    fn new(freed: Arc<Notify>) -> Self {
        let [last, since] = [AtomicU64::new(0), AtomicU64::new(0)];
        let (answers, leaves) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { begun: Instant::now(), last, since, answers, leaves, leave: Notify::new(), freed }
    }

    /// Resolves once it has to make room for another.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }

    fn elapsed_us(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn touch(&self) {
        self.last.store(self.elapsed_us(), Relaxed);
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
            let end = Duration::from_micros(self.last.load(Relaxed)) + if is_busy { stalled } else { idle };
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
            self.0.freed.notify_waiters();
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
}
