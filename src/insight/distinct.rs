//! Unique values by HyperLogLog, over windows that move on in fifths.
//!
//! In: hashes of values, and the time. Out: the registers of a window, and what they say of the number of values.
//! Always: a register is the highest rank of its window, the same on every instance that hashes alike, so registers of
//! workers and of instances merge by maximum; one writer for each [`Registers`].
//! Follows: Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), the improved raw estimator.
//!
//! A window is a ring of 5 slices and looks back over four of them and what has passed of the fifth: between 80 and
//! 100 % of its span. Each slice carries the number of its time; one that is out of date counts as empty, so a worker
//! that sleeps need not be woken to forget.

use std::sync::Arc;

use crate::config::Config;
use crate::sync::{AtomicU8, AtomicU64, Ordering};

/// Slices of a window.
pub const SLICES: usize = 5;

/// 2 ln 2, the inverse of the bias that HyperLogLog has with ever more registers.
const TWO_LN_2: f64 = 1.386_294_361_119_890_6;

/// Terms of `sigma`: enough for 65,536 registers, where the last is below e^-16 of the first.
const TERMS: u32 = 20;

/// The register of a hash among `registers` (a power of two from 2 on), and its rank: leading zeros of what is left,
/// and 1.
#[inline]
pub fn place(hash: u64, registers: usize) -> (usize, u8) {
    place_by(hash, registers.trailing_zeros())
}

/// The same for 2^`bits` registers.
#[inline]
fn place_by(hash: u64, bits: u32) -> (usize, u8) {
    let rank = ((hash << bits) | (1 << (bits - 1))).leading_zeros() + 1;
    ((hash >> (64 - bits)) as usize, rank as u8)
}

/// How many different values left these registers behind; the standard error is 1.04 / sqrt(registers).
pub fn estimate(registers: &[u8]) -> f64 {
    let m = registers.len() as f64;
    let zeros = registers.iter().filter(|rank| **rank == 0).count();
    if zeros == registers.len() {
        return 0.0;
    }
    // By rank, so that there are some 60 powers to take and not one for each register; most of these are 0 as a rule.
    let mut of_rank = [0_u32; 64];
    for some in registers.chunks(16).filter(|some| some.iter().fold(0, |any, rank| any | rank) > 0) {
        some.iter().for_each(|rank| of_rank[usize::from(*rank) % 64] += 1);
    }
    let ranks = of_rank.iter().enumerate().skip(1).filter(|(_, count)| **count > 0);
    let inverse: f64 = ranks.map(|(rank, count)| f64::from(*count) * (-(rank as f64)).exp2()).sum();
    m * m / TWO_LN_2 / (inverse + m * sigma(zeros as f64 / m))
}

/// z + sum over k of 2^(k-1) * z^(2^k), for z below 1.
fn sigma(z: f64) -> f64 {
    let (mut sum, mut power, mut factor) = (z, z, 1.0);
    for _ in 0..TERMS {
        power *= power;
        sum += factor * power;
        factor *= 2.0;
    }
    sum
}

/// What is known of one rule in one window, merged over the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The first tag of the bucketing rule.
    pub tag: String,
    /// The window as configured.
    pub window: String,
    /// The registers, none above 61.
    pub registers: Vec<u8>,
}

impl Estimate {
    /// See [`estimate`].
    pub fn value(&self) -> f64 {
        estimate(&self.registers)
    }
}

/// Where the registers of a rule, window and slice are; the same for all workers.
#[derive(Clone, Debug)]
pub struct Layout {
    rules: usize,
    /// How long a slice of each window lasts, milliseconds.
    slices_ms: Vec<u64>,
    registers: usize,
}

impl Layout {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        let slice = |span: std::time::Duration| (span.as_millis() as u64 / SLICES as u64).max(1);
        Self {
            rules: config.bucketing.len(),
            slices_ms: config.distinct.windows.iter().map(|window| slice(window.span)).collect(),
            registers: config.distinct.registers,
        }
    }

    /// Registers of an estimate.
    pub fn registers(&self) -> usize {
        self.registers
    }

    /// The number of the slice that is being written; 0 stands for never.
    fn number(&self, window: usize, now_ms: u64) -> u64 {
        now_ms / self.slices_ms[window] + 1
    }

    /// Registers of one rule.
    fn rule_len(&self) -> usize {
        self.slices_ms.len() * SLICES * self.registers
    }

    /// The first register of a slice of rule 0.
    fn start(&self, window: usize, slice: usize) -> usize {
        (window * SLICES + slice) * self.registers
    }
}

/// The registers of one worker: rules x windows x 5 x registers bytes.
#[derive(Debug)]
pub struct Registers {
    cells: Box<[AtomicU8]>,
    /// For each slice of each window the number of the time it holds; the rules turn together.
    numbers: Box<[AtomicU64]>,
}

impl Registers {
    /// Nothing seen.
    pub fn new(layout: &Layout) -> Self {
        let cells = layout.rules * layout.rule_len();
        let numbers = layout.slices_ms.len() * SLICES;
        Self {
            cells: (0..cells).map(|_| AtomicU8::new(0)).collect(),
            numbers: (0..numbers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Raises `merged` to what this worker saw of a rule in the window that ends at `now_ms`.
    pub fn merge_into(&self, layout: &Layout, rule: usize, window: usize, now_ms: u64, merged: &mut [u8]) {
        let current = layout.number(window, now_ms);
        for slice in 0..SLICES {
            // Acquire: a slice that says it is new is seen cleared. What is added later may be missing until the next
            // look, as with any counter.
            let number = self.numbers[window * SLICES + slice].load(Ordering::Acquire);
            // The worker's clock may be read a moment later than ours, so a slice may also be ahead.
            if number == 0 || number + SLICES as u64 <= current {
                continue;
            }
            let start = rule * layout.rule_len() + layout.start(window, slice);
            for (merged, cell) in merged.iter_mut().zip(&self.cells[start..start + layout.registers]) {
                *merged = (*merged).max(cell.load(Ordering::Relaxed));
            }
        }
    }
}

/// The one writer of some [`Registers`].
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    registers: Arc<Registers>,
    /// For each window the number of the slice being written, and its first register of rule 0.
    current: Vec<(u64, usize)>,
    /// Worked out once, for [`Writer::add`].
    bits: u32,
    rule_len: usize,
}

impl Writer {
    /// Writes as of time 0 until [`Writer::turn`] tells better.
    pub fn new(layout: &Layout, registers: Arc<Registers>) -> Self {
        let current = vec![(0, 0); layout.slices_ms.len()];
        let bits = layout.registers.trailing_zeros();
        let mut writer = Self { layout: layout.clone(), registers, current, bits, rule_len: layout.rule_len() };
        writer.turn(0);
        writer
    }

    /// Moves on to the slices of `now_ms`, and clears those that come around again. A time before the last changes
    /// nothing.
    pub fn turn(&mut self, now_ms: u64) {
        for (window, (current, start)) in self.current.iter_mut().enumerate() {
            let number = self.layout.number(window, now_ms);
            if number <= *current {
                continue;
            }
            let slice = (number % SLICES as u64) as usize;
            let label = &self.registers.numbers[window * SLICES + slice];
            *current = number;
            *start = self.layout.start(window, slice);
            // Another writer of this worker was here in the same slice; what it saw stays.
            if label.load(Ordering::Relaxed) == number {
                continue;
            }
            for rule in 0..self.layout.rules {
                let first = rule * self.layout.rule_len() + *start;
                for cell in &self.registers.cells[first..first + self.layout.registers] {
                    cell.store(0, Ordering::Relaxed);
                }
            }
            // Release: whoever sees the new number sees the slice cleared. Until then the old number counts as stale.
            label.store(number, Ordering::Release);
        }
    }

    /// A value of `rule` with this hash was seen. A load for each window, and seldom a store.
    #[inline]
    pub fn add(&mut self, rule: usize, hash: u64) {
        let (register, rank) = place_by(hash, self.bits);
        let offset = rule * self.rule_len + register;
        let cells = &*self.registers.cells;
        for (_, start) in &self.current {
            // Relaxed, and no read-modify-write: nobody else writes.
            if let Some(cell) = cells.get(start + offset)
                && cell.load(Ordering::Relaxed) < rank
            {
                cell.store(rank, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use xxhash_rust::xxh64::xxh64;

    fn layout(windows: &[Duration], registers: usize) -> Layout {
        let slices_ms = windows.iter().map(|window| window.as_millis() as u64 / 5).collect();
        Layout { rules: 1, slices_ms, registers }
    }

    /// The estimate for `users` ids that begin at `first`, under a salt.
    fn estimated(users: u64, seed: u64, registers: usize) -> f64 {
        let mut found = vec![0; registers];
        for user in 0..users {
            let (register, rank) = place(xxh64(format!("{seed}/{user}").as_bytes(), 0), registers);
            found[register] = found[register].max(rank);
        }
        estimate(&found)
    }

    #[test]
    fn estimates_are_within_three_standard_errors() {
        for seed in 1..=8 {
            assert_eq!(estimated(0, seed, 1024), 0.0);
            for users in [1, 10, 1000, 100_000, 300_000] {
                let found = estimated(users, seed, 1024);
                let error = found / users as f64 - 1.0;
                assert!(error.abs() < 3.0 * 1.04 / 32.0, "{users} users, seed {seed}: {found}");
            }
        }
    }

    /// Where the series has to be longer than for 1,024 registers.
    #[test]
    fn few_users_in_many_registers_are_counted_one_by_one() {
        for registers in [16, 1024, 65536] {
            let found = estimated(1, 1, registers);
            assert!((found - 1.0).abs() < 0.05, "{registers} registers: {found}");
        }
        assert!((estimated(10, 1, 65536) - 10.0).abs() < 0.05);
    }

    /// With no rank from registers that ever saw a value missing, the mean over seeds shows no bias either.
    #[test]
    fn the_mean_over_many_seeds_is_nearer_than_one_estimate() {
        for users in [300, 1000, 3000] {
            let mean = (1..=100).map(|seed| estimated(users, seed, 256)).sum::<f64>() / 100.0;
            let error = mean / users as f64 - 1.0;
            assert!(error.abs() < 3.0 * 1.04 / 16.0 / 10.0, "{users} users: {mean}");
        }
    }

    #[test]
    fn the_top_bits_choose_the_register_and_the_zeros_behind_them_the_rank() {
        for (hash, registers, expected) in [
            (0, 16, (0, 61)),
            (u64::MAX, 16, (15, 1)),
            (0xA800_0000_0000_0000, 16, (10, 1)),
            (0xA400_0000_0000_0000, 16, (10, 2)),
            (1 << 53, 1024, (0, 1)),
            (1, 1024, (0, 54)),
            (0, 1024, (0, 55)),
            (0xFFFF_0000_0000_0000, 65536, (65535, 49)),
        ] {
            assert_eq!(place(hash, registers), expected, "{hash:#x} {registers}");
        }
    }

    #[test]
    fn users_leave_the_window_slice_by_slice() {
        let layout = layout(&[Duration::from_secs(5), Duration::from_secs(50)], 1024);
        let registers = Arc::new(Registers::new(&layout));
        let mut writer = Writer::new(&layout, registers.clone());
        let count = |window, now| {
            let mut merged = vec![0; 1024];
            registers.merge_into(&layout, 0, window, now, &mut merged);
            estimate(&merged).round() as u64
        };
        // One new user each second, of 20.
        for second in 0..20_u64 {
            writer.turn(second * 1000);
            writer.add(0, xxh64(&second.to_le_bytes(), 0));
            assert_eq!(count(0, second * 1000), (second + 1).min(5), "second {second}");
        }
        assert_eq!(count(0, 19_999), 5);
        // Nobody turns the ring any more; the reader still lets go of one slice each second.
        for (now, left) in [(20_000, 4), (22_500, 2), (23_000, 1), (24_000, 0), (1_000_000, 0)] {
            assert_eq!(count(0, now), left, "at {now}");
        }
        assert_eq!(count(1, 20_000), 20);
        // After a long sleep the ring begins anew, whichever slice it comes to.
        for second in [100, 103, 104, 107] {
            writer.turn(second * 1000);
            writer.add(0, xxh64(&second.to_le_bytes(), 0));
        }
        assert_eq!(count(0, 107_000), 3);
        // A clock that goes back changes nothing.
        writer.turn(50_000);
        assert_eq!(count(0, 107_000), 3);
    }
}
