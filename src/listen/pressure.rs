//! How hard pressed a worker is: the fill of its socket's buffer, and its CPU.
//!
//! In: each datagram's arrival and length, the ends of batches, drop counts. Out: [`Signals`], once an interval.
//! Not here: what they lead to (`admit::sampling`).
//! Always: no call of the kernel but once an interval, two if the thread's control group has a quota.
//!
//! The kernel has no cheap call for the fill that safe code can make: FIONREAD tells of the next datagram only,
//! SO_MEMINFO has no safe wrapper, and `/proc/self/net/udp` walks every UDP socket of the machine. It need not be
//! asked. Each datagram carries the time it arrived, and they come in order, so the queue as it stood at some moment is
//! what arrived until then and was read since: a mark is set, datagrams are added up until one is younger than the
//! mark, and the sum is what the kernel held at the mark. A batch that was not full is the whole queue. The next mark
//! is set when one is passed, so no peak that takes more than one filling of the queue goes unseen. Drops say that it
//! was full.

use std::time::Duration;

use super::cpu::Cpu;
use crate::admit::sampling::Signals;
use crate::pipeline::Pipeline;

/// What the kernel charges a receive buffer for one datagram of `length` bytes.
///
/// Measured on Linux 6.18 over loopback from 1 byte (832) over 1,432 (2,304) to 32,000 (32,832): 256 for the
/// bookkeeping and the next power of two of the bytes and 384 of headers; 832 is the least.
fn charge(length: usize) -> u64 {
    (256 + (length + 384).next_power_of_two() as u64).max(832)
}

/// The fill of one socket's receive buffer, told from what is read.
#[derive(Debug)]
struct Fill {
    /// Bytes that the kernel granted, as it charges them; 0 where nothing is lost when it is full.
    limit: u64,
    /// Nanoseconds since 1970; `None` while batches are not full.
    mark: Option<u64>,
    /// Charged for datagrams read since the mark that had arrived by then.
    waited: u64,
    /// Charged for this batch.
    batch: u64,
    largest: u64,
    drops: Option<u32>,
}

impl Fill {
    fn new(limit: u64) -> Self {
        Self { limit, mark: None, waited: 0, batch: 0, largest: 0, drops: None }
    }

    /// A datagram of this batch; `arrival` is in nanoseconds since 1970, 0 if the kernel did not tell.
    #[inline]
    fn took(&mut self, arrival: u64, length: usize) {
        let charge = charge(length);
        self.batch += charge;
        if self.mark.is_some_and(|mark| arrival > 0 && arrival <= mark) {
            self.waited += charge;
        } else if self.mark.is_some() {
            self.passed();
        }
    }

    /// A batch is over at `now`; `full` says that more may wait.
    fn ended(&mut self, full: bool, now: u64) {
        self.largest = self.largest.max(self.batch).max(self.waited);
        self.batch = 0;
        if !full {
            self.passed();
        } else if self.mark.is_none() {
            self.mark = Some(now);
        }
    }

    fn passed(&mut self) {
        self.largest = self.largest.max(self.waited);
        self.mark = None;
        self.waited = 0;
    }

    /// The socket's drop count, as a datagram carried it.
    fn dropped(&mut self, count: u32) {
        if self.drops.replace(count).unwrap_or(0) != count {
            self.largest = self.limit;
        }
    }

    /// The largest share since this was last asked.
    fn take(&mut self) -> f64 {
        let largest = std::mem::take(&mut self.largest);
        if self.limit == 0 { 0.0 } else { (largest as f64 / self.limit as f64).min(1.0) }
    }
}

/// Watches one worker; made and used on its thread.
#[derive(Debug)]
pub(super) struct Pressure {
    fill: Fill,
    cpu: Cpu,
    looked: Duration,
}

impl Pressure {
    /// Begins to watch the calling thread, which reads a socket with a granted buffer of `buffer_bytes`; `None` if a
    /// full one makes senders wait.
    pub(super) fn new(buffer_bytes: Option<u64>, now: Duration) -> Self {
        Self { fill: Fill::new(buffer_bytes.unwrap_or(0)), cpu: Cpu::of_this_thread(), looked: now }
    }

    /// See [`Fill::took`].
    #[inline]
    pub(super) fn took(&mut self, arrival: u64, length: usize) {
        self.fill.took(arrival, length);
    }

    /// A batch is over at `now`, nanoseconds since 1970; `full` says that more may wait.
    pub(super) fn ended(&mut self, full: bool, now: u64) {
        self.fill.ended(full, now);
    }

    /// The socket's drop count, as a datagram carried it.
    pub(super) fn dropped(&mut self, count: u32) {
        self.fill.dropped(count);
    }

    /// Tells the pipeline how things are if an interval is over by `now`; says whether it did.
    pub(super) fn tell(&mut self, pipeline: &mut Pipeline, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.looked);
        let interval = pipeline.sampling_interval();
        if elapsed < interval {
            return false;
        }
        self.looked = now;
        let (load, throttled) = self.cpu.look(elapsed);
        let intervals = elapsed.as_nanos() / interval.as_nanos().max(1);
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        pipeline.adjust(&Signals { load, throttled, fill: self.fill.take(), intervals });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charge_is_the_kernel_s() {
        for (length, charged) in [
            (1, 832),
            (100, 832),
            (200, 1_280),
            (600, 1_280),
            (700, 2_304),
            (1_432, 2_304),
            (1_600, 2_304),
            (2_000, 4_352),
            (3_600, 4_352),
            (4_000, 8_448),
            (8_192, 16_640),
            (16_000, 16_640),
        ] {
            assert_eq!(charge(length), charged, "{length}");
        }
    }

    /// A queue of datagrams of one byte by their arrivals; reads it in batches of at most `room`, each in a moment.
    fn read(fill: &mut Fill, queue: &mut Vec<u64>, room: usize, now: u64) {
        let arrived = queue.iter().take_while(|arrival| **arrival <= now).count().min(room);
        queue.drain(..arrived).for_each(|arrival| fill.took(arrival, 1));
        fill.ended(arrived == room, now);
    }

    #[test]
    fn a_batch_that_is_not_full_is_the_whole_queue() {
        let mut fill = Fill::new(832 * 100);
        read(&mut fill, &mut vec![1, 2, 3], 64, 10);
        assert_eq!(fill.take(), 0.03);
        assert_eq!(fill.take(), 0.0);
    }

    #[test]
    fn what_waited_at_a_mark_is_added_up_over_batches() {
        let mut fill = Fill::new(832 * 1000);
        // 500 are there at once; each batch of 10 takes a while, in which 2 more arrive.
        let mut queue: Vec<u64> =
            (0..500).map(|_| 1).chain((0..100).flat_map(|n| [10 + 10 * n, 10 + 10 * n])).collect();
        let mut now = 5;
        while !queue.is_empty() && queue[0] <= now {
            read(&mut fill, &mut queue, 10, now);
            now += 10;
        }
        // The first mark is set behind the first batch.
        assert_eq!(fill.take(), 0.49);
    }

    #[test]
    fn a_stream_that_is_kept_up_with_fills_nothing() {
        let mut fill = Fill::new(832 * 1000);
        let mut queue: Vec<u64> = (0..100_000).collect();
        // Batches are full every time, and ten more than a batch wait at each.
        let mut now = 74;
        while now < 100_000 {
            read(&mut fill, &mut queue, 64, now);
            now += 64;
        }
        let share = fill.take();
        assert!((0.064..=0.08).contains(&share), "{share}");
    }

    #[test]
    fn a_drop_means_that_the_buffer_was_full() {
        let mut fill = Fill::new(1_000_000);
        for (count, share) in [(0, 0.0), (3, 1.0), (3, 0.0), (4, 1.0)] {
            fill.dropped(count);
            assert_eq!(fill.take(), share, "{count}");
        }
        // More was read than can have been there: the clock was set back.
        fill.largest = 2_000_000;
        assert_eq!(fill.take(), 1.0);
    }

    #[test]
    fn without_stamps_only_single_batches_count() {
        let mut fill = Fill::new(832 * 100);
        for _ in 0..10 {
            (0..10).for_each(|_| fill.took(0, 1));
            fill.ended(true, 5);
        }
        assert_eq!(fill.take(), 0.1);
    }
}
