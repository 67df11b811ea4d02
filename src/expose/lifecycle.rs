//! Tells the outside whether the sidecar is ready, and itself when it may go.
//!
//! In: changes of state from the program, scrapes from the server. Out: readiness; the moment a last scrape is over.
//! Always: readiness goes from starting to ready to draining and never back.

use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

/// Where the program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not everything is bound yet.
    Starting,
    /// Lines are taken.
    Ready,
    /// Asked to stop; waits for a last scrape.
    Draining,
}

impl Phase {
    /// The text of `/-/ready`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting: the listeners are not bound yet\n",
            Self::Ready => "ready\n",
            Self::Draining => "draining: the process ends after the next scrape\n",
        }
    }
}

/// Whether the sidecar takes lines, and the way to its end.
#[derive(Debug)]
pub struct Lifecycle {
    phase: AtomicU8,
    begun: AtomicU64,
    /// How many of the scrapes begun are over, counted up to the last one that is.
    over: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            begun: AtomicU64::new(0),
            over: watch::Sender::new(0),
            stop: watch::Sender::new(false),
        }
    }
}

impl Lifecycle {
    /// Where the program stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Everything is bound. Has no effect once draining.
    pub fn set_ready(&self) {
        self.phase.fetch_max(Phase::Ready as u8, Relaxed);
    }

    /// Readiness turns 503; scrapes are answered as before.
    pub fn begin_drain(&self) {
        self.phase.fetch_max(Phase::Draining as u8, Relaxed);
    }

    /// Resolves once a scrape is over that began after this call (`true`), or after `limit` (`false`).
    ///
    /// Call it when what should be seen has been recorded: a scrape that is under way by then does not count. The last
    /// bytes may still be on their way; [`Self::stop`], and then the end of `http::serve`, waits for them.
    pub fn drained(&self, limit: Duration) -> impl Future<Output = bool> + Send + use<> {
        // A write, so that a scrape that counts on from here sees all that was recorded before.
        let begun = self.begun.fetch_add(0, AcqRel);
        let mut over = self.over.subscribe();
        async move { matches!(tokio::time::timeout(limit, over.wait_for(|last| *last > begun)).await, Ok(Ok(_))) }
    }

    /// No further connection is accepted, and those that are open end with the answer they are at.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves once [`Self::stop`] was called.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender lives as long as the program; if it should not, that is an end as well.
            _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// A scrape begins; its ticket goes to [`Self::scrape_over`] when all of it was handed to the connection.
    pub(super) fn scrape_begun(&self) -> u64 {
        self.begun.fetch_add(1, AcqRel) + 1
    }

    pub(super) fn scrape_over(&self, ticket: u64) {
        self.over.send_if_modified(|last| {
            let later = ticket > *last;
            *last = ticket.max(*last);
            later
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn readiness_never_goes_back() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.set_ready();
        assert_eq!(lifecycle.phase(), Phase::Ready);
        lifecycle.begin_drain();
        lifecycle.set_ready();
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[test]
    fn only_a_scrape_that_begins_after_the_call_ends_the_wait() {
        let lifecycle = Lifecycle::default();
        let before = lifecycle.scrape_begun();
        let drained = lifecycle.drained(Duration::from_millis(1));
        lifecycle.scrape_over(before);
        assert!(!wait(drained));
        let drained = lifecycle.drained(Duration::from_secs(60));
        let after = lifecycle.scrape_begun();
        lifecycle.scrape_over(after);
        lifecycle.scrape_over(before);
        assert!(wait(drained));
    }

    #[test]
    fn stopping_reaches_those_who_ask_before_and_after() {
        let lifecycle = Lifecycle::default();
        let early = lifecycle.stopped();
        lifecycle.stop();
        wait(early);
        wait(lifecycle.stopped());
    }
}
