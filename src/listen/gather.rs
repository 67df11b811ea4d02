//! Decides how a worker waits for its next datagrams.
//!
//! In: what each read took, and when. Out: whether to read on, to sleep in the kernel, or to let datagrams gather.
//! Always: never a wait longer than `listen.coalesce`, nor than a quarter of the socket's buffer lasts.
//!
//! A wake-up costs 10 to 20 us, fifteen times the reading of a datagram. Three or more datagrams in one timed wait pay
//! for its timer; on fewer, each would pay for two wake-ups (measured: 2.7 times the cost at 770 datagrams a second),
//! so a trickle is waited for in the kernel, where nothing is spent until one is there.

use std::time::Duration;

/// Expected datagrams in one wait from which gathering starts, and below which it ends.
const START: f64 = 3.0;
const STOP: f64 = 2.0;
/// The rate is taken over at least this long, so that a few datagrams close together are not yet a stream.
const WINDOW: Duration = Duration::from_millis(20);
/// A timer cannot wait for less than this with any use.
const SHORTEST: Duration = Duration::from_micros(100);

/// What a worker does before its next read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Reads at once: more is there.
    None,
    /// Sleeps until the socket has something.
    Kernel,
    /// Sleeps until this long after the last read began, whatever arrives.
    Timer(Duration),
}

/// The decision's memory; one for each socket.
#[derive(Debug)]
pub(super) struct Gather {
    coalesce: Duration,
    /// A quarter of what the queue holds: bytes as the kernel charges them, or datagrams.
    quarter: f64,
    /// The queue is bounded by the number of datagrams, not by their bytes.
    of_few: bool,
    gathering: bool,
    /// Datagrams since the window began.
    seen: u64,
    window: Duration,
}

impl Gather {
    /// For a socket with a granted buffer of `buffer_bytes`.
    pub(super) fn new(coalesce: Duration, buffer_bytes: u64) -> Self {
        Self {
            coalesce,
            quarter: buffer_bytes as f64 / 4.0,
            of_few: false,
            gathering: false,
            seen: 0,
            window: Duration::ZERO,
        }
    }

    /// For a socket whose queue holds up to `datagrams`, whatever their size; its senders wait when it is full.
    pub(super) fn of_few(coalesce: Duration, datagrams: u64) -> Self {
        Self { of_few: true, ..Self::new(coalesce, datagrams) }
    }

    /// What to do after a read that took `datagrams` with `bytes` in all and began `elapsed` after the one before;
    /// `full` says that it took as many as it had room for.
    pub(super) fn after(&mut self, datagrams: usize, bytes: usize, elapsed: Duration, full: bool) -> Wait {
        self.seen += datagrams as u64;
        self.window += elapsed;
        if self.window >= WINDOW {
            let expected = self.seen as f64 / self.window.as_secs_f64() * self.coalesce.as_secs_f64();
            self.gathering = expected >= if self.gathering { STOP } else { START };
            self.seen = 0;
            self.window = Duration::ZERO;
        }
        if full {
            return Wait::None;
        }
        if !self.gathering || datagrams == 0 {
            return Wait::Kernel;
        }
        // At the rate of this very read, how long the quarter lasts.
        let charged = if self.of_few { datagrams as f64 } else { charge(datagrams, bytes) };
        let charged_per_second = charged / elapsed.as_secs_f64().max(1e-6);
        let lasts = Duration::try_from_secs_f64(self.quarter / charged_per_second).unwrap_or(self.coalesce);
        let wait = self.coalesce.min(lasts);
        // Too few to pay for a timer.
        let few = datagrams as f64 * wait.as_secs_f64() < STOP * elapsed.as_secs_f64();
        if wait < SHORTEST || few { Wait::Kernel } else { Wait::Timer(wait) }
    }
}

/// What the kernel charges a receive buffer for datagrams, bytes, rounded up.
///
/// Measured on Linux 6.18 over loopback: 832 for a short one, 2,304 for 1,432 bytes; the data's block is a power of
/// two, so twice the length and a fixed part are never too little.
fn charge(datagrams: usize, bytes: usize) -> f64 {
    (datagrams * 832 + bytes * 2) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The last decision after a second of `rate` evenly spaced datagrams, each read alone unless gathered.
    fn steady(gather: &mut Gather, rate: u32, bytes: usize) -> Wait {
        let gap = Duration::from_secs(1) / rate;
        let mut wait = Wait::Kernel;
        let mut time = Duration::ZERO;
        while time < Duration::from_secs(1) {
            let (elapsed, datagrams) = match wait {
                Wait::Timer(wait) => (wait, (wait.as_secs_f64() * f64::from(rate)) as usize),
                _ => (gap, 1),
            };
            time += elapsed.max(gap);
            wait = gather.after(datagrams, datagrams * bytes, elapsed, false);
        }
        wait
    }

    #[test]
    fn a_trickle_is_waited_for_in_the_kernel() {
        let mut gather = Gather::new(2 * MS, 8 << 20);
        assert_eq!(steady(&mut gather, 770, 60), Wait::Kernel);
    }

    #[test]
    fn a_stream_gathers_for_the_time_configured() {
        let mut gather = Gather::new(2 * MS, 8 << 20);
        assert_eq!(steady(&mut gather, 5_000, 60), Wait::Timer(2 * MS));
        assert_eq!(steady(&mut gather, 10_000, 1_432), Wait::Timer(2 * MS));
    }

    #[test]
    fn gathering_ends_with_the_stream() {
        let mut gather = Gather::new(2 * MS, 8 << 20);
        steady(&mut gather, 10_000, 60);
        assert_eq!(gather.after(0, 0, 2 * MS, false), Wait::Kernel);
        assert_eq!(steady(&mut gather, 500, 60), Wait::Kernel);
    }

    #[test]
    fn a_wait_is_over_before_a_quarter_of_the_buffer_is_full() {
        let mut gather = Gather::new(2 * MS, 212_992);
        let Wait::Timer(wait) = steady(&mut gather, 20_000, 1_432) else { panic!("a stream gathers") };
        let arriving = wait.as_secs_f64() * 20_000.0 * 2_304.0;
        assert!(wait < 2 * MS && arriving <= 212_992.0 / 4.0, "{wait:?}, {arriving} bytes");
    }

    #[test]
    fn a_queue_of_ten_is_never_left_to_fill_and_one_of_512_gathers_a_quarter_at_most() {
        let mut gather = Gather::of_few(2 * MS, 10);
        assert_eq!(steady(&mut gather, 50_000, 60), Wait::Kernel);
        assert!(matches!(steady(&mut gather, 5_000, 60), Wait::Kernel | Wait::Timer(_)));
        let mut gather = Gather::of_few(2 * MS, 512);
        assert_eq!(steady(&mut gather, 10_000, 60), Wait::Timer(2 * MS));
        let Wait::Timer(wait) = steady(&mut gather, 200_000, 60) else { panic!("a stream gathers") };
        assert!(wait.as_secs_f64() * 200_000.0 <= 128.0, "{wait:?}");
    }

    #[test]
    fn a_full_batch_is_read_on_and_zero_turns_gathering_off() {
        let mut gather = Gather::new(2 * MS, 8 << 20);
        steady(&mut gather, 10_000, 60);
        assert_eq!(gather.after(64, 64 * 60, 2 * MS, true), Wait::None);
        let mut gather = Gather::new(Duration::ZERO, 8 << 20);
        assert_eq!(steady(&mut gather, 50_000, 60), Wait::Kernel);
    }
}
