//! The time of the process, in whole seconds.
//!
//! In: nothing. Out: a [`Tick`], the same for all threads that share a [`Clock`].
//! Always: a tick never goes back, whatever is done to the system's time.

use std::time::Duration;

/// Whole seconds since a moment before the process started; 0 is before everything.
pub type Tick = u64;

/// Counts ticks; clones count the same ones.
#[derive(Clone, Debug)]
pub struct Clock {
    clock: quanta::Clock,
    started: quanta::Instant,
}

impl Default for Clock {
    fn default() -> Self {
        let clock = quanta::Clock::new();
        Self { started: clock.now(), clock }
    }
}

impl Clock {
    /// The tick now; at least 1. Costs about ten nanoseconds: once a batch, never once a line.
    pub fn tick(&self) -> Tick {
        self.now().as_secs() + 1
    }

    /// Time since the clock was made.
    pub fn now(&self) -> Duration {
        self.clock.now() - self.started
    }
}
