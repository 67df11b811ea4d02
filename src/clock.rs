//! The time of the process.
//!
//! In: nothing. Out: the time since the start, and as whole seconds a [`Tick`]; the same for all threads that share a
//! [`Clock`].
//! Always: nothing that is done to the system's time matters. Should the processor's counter go back all the same, so does
//! this: whoever subtracts two times saturates.

use std::time::Duration;

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
}

impl Default for Clock {
    fn default() -> Self {
        let clock = quanta::Clock::new();
        Self { started: clock.now(), clock }
    }
}

impl Clock {
    /// The tick now.
    pub fn tick(&self) -> Tick {
        tick(self.now())
    }

    /// Time since the clock was made. Costs about ten nanoseconds: once a batch, never once a line.
    pub fn now(&self) -> Duration {
        self.clock.now().checked_duration_since(self.started).unwrap_or_default()
    }
}
