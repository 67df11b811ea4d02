//! The time of the process.
//!
//! In: nothing. Out: the time since the start, and as whole seconds a [`Tick`]; the same for all threads that share a
//! [`Clock`]. And when that start was, by the calendar.
//! Always: nothing that is done to the system's time after the start matters. Should the processor's counter go back
//! all the same, so does this: whoever subtracts two times saturates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole seconds since a moment before the process started; 0 is before everything.
pub type Tick = u64;

/// The tick at a time of a [`Clock`]; at least 1.
pub fn tick(now: Duration) -> Tick {
    now.as_secs() + 1
}

/// Counts ticks; clones count the same ones.
#[derive(Clone, Debug)]
pub struct Clock {
    clock: quanta::Clock,
    started: quanta::Instant,
    started_at: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        let clock = quanta::Clock::new();
        let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: clock.now(), clock, started_at }
    }
}

impl Clock {
    /// When the clock was made, since 1970, as the system's time was then. It is asked once, so that what was made at
    /// one tick has the same time in every scrape, whatever is done to the system's time in between.
    pub fn started_at(&self) -> Duration {
        self.started_at
    }

    /// The tick now.
    pub fn tick(&self) -> Tick {
        tick(self.now())
    }

    /// Time since the clock was made. Costs about ten nanoseconds: once a batch, never once a line.
    pub fn now(&self) -> Duration {
        self.clock.now().checked_duration_since(self.started).unwrap_or_default()
    }
}
