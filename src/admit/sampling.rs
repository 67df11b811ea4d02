//! Thins a worker's stream under load, and weighs what is kept.
//!
//! In: how loaded the worker was in the last interval ([`Signals`]), and one question per line. Out: whether the line
//! is kept, and for how many lines it then stands.
//! Not here: which lines may be thinned (`parse::glance`), where load and fill come from (`listen::pressure`).
//! Always: the rate stays within `min_rate` and 1; a line is kept with exactly the probability that its weight is one
//! over, so sums and observation counts keep their expected value, whatever the rate does meanwhile (Horvitz and
//! Thompson 1952).

use std::time::Duration;

use crate::config::{Sampling, SamplingMode};

/// What one step of the ladder multiplies the rate by. Six of them make a fourth, twenty-one a hundredth.
const STEP: f64 = 0.8;
/// Load above this many times the target is too much, below [`LOW`] times it there is room.
const HIGH: f64 = 1.5;
const LOW: f64 = 0.5;
/// Share of the socket buffer above which datagrams may soon be lost.
const FULL: f64 = 0.5;
/// Between the two, the rate rises by a step in this many intervals.
const PATIENCE: u32 = 10;
/// Below this load a worker that does not thin needs no looking at.
const IDLE: f64 = 0.01;

/// How a worker fared since it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signals {
    /// CPU time of the worker's thread, as a share of a core or of the CPU quota if that is less.
    pub load: f64,
    /// The kernel held the process back for its CPU quota.
    pub throttled: bool,
    /// The largest fill of the socket's buffer, 0 to 1.
    pub fill: f64,
    /// Whole intervals that this is about, at least 1: a worker that sleeps is not looked at.
    pub intervals: u32,
}

/// The CPU ladder: a rate of 0.8^k, with k moved by one thing and another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    steps: u32,
    /// Intervals between the two bands since the last step.
    between: u32,
}

impl Controller {
    /// The rate, `min_rate` to 1.
    pub fn rate(&self, settings: &Sampling) -> f64 {
        STEP.powi(self.steps.min(1000) as i32).max(settings.min_rate)
    }

    /// Goes one step down the rate if the worker was pressed, one up for each interval of low load, and one up for
    /// every tenth interval in between.
    ///
    /// A long look back goes down by one step only: what happened in it happened once.
    pub fn step(&mut self, settings: &Sampling, signals: &Signals) {
        if signals.throttled || signals.fill > FULL || signals.load > HIGH * settings.target_load {
            self.between = 0;
            if self.rate(settings) > settings.min_rate {
                self.steps += 1;
            }
        } else if signals.load < LOW * settings.target_load {
            self.between = 0;
            self.steps = self.steps.saturating_sub(signals.intervals);
        } else {
            self.between = if self.steps > 0 { self.between.saturating_add(signals.intervals) } else { 0 };
            self.steps = self.steps.saturating_sub(self.between / PATIENCE);
            self.between %= PATIENCE;
        }
    }
}

/// Decides for each line of one worker whether it is kept.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Sampling,
    controller: Controller,
    /// Seeded at start: a sender that knew the sequence could choose what is kept.
    generator: fastrand::Rng,
    rate: f64,
    weight: f64,
    /// A line is kept if the generator's next 64 bits are below it; unused at a rate of 1.
    threshold: u64,
    load: f64,
}

impl Sampler {
    /// Keeps everything until it is told of load, or a share from the start if `settings` say so.
    pub fn new(settings: Sampling, seed: u64) -> Self {
        let mut sampler = Self {
            settings,
            controller: Controller::default(),
            generator: fastrand::Rng::with_seed(seed),
            rate: 1.0,
            weight: 1.0,
            threshold: 0,
            load: 0.0,
        };
        sampler.set_rate();
        sampler
    }

    /// Goes on under new settings. A ladder that was climbed is stepped down from, not jumped off.
    pub fn follow(&mut self, settings: &Sampling) {
        if settings.mode != SamplingMode::Adaptive {
            self.controller = Controller::default();
        }
        self.settings = *settings;
        self.set_rate();
    }

    /// Takes in how the last interval was.
    pub fn adjust(&mut self, signals: &Signals) {
        self.load = signals.load;
        if self.settings.mode == SamplingMode::Adaptive {
            self.controller.step(&self.settings, signals);
            self.set_rate();
        }
    }

    fn set_rate(&mut self) {
        self.rate = match self.settings.mode {
            SamplingMode::Off => 1.0,
            SamplingMode::Fixed => self.settings.rate,
            SamplingMode::Adaptive => self.controller.rate(&self.settings),
        };
        self.weight = 1.0 / self.rate;
        // 2^64 as a double; the product is exact, since a power of two changes only the exponent.
        self.threshold = (self.rate * 18_446_744_073_709_551_616.0) as u64;
    }

    /// Whether any line is left out at present.
    #[inline]
    pub fn thins(&self) -> bool {
        self.rate < 1.0
    }

    /// Draws for one line: how many lines it stands for, or `None` if it is left out. Ask only if [`Sampler::thins`].
    #[inline]
    pub fn draw(&mut self) -> Option<f64> {
        (self.generator.u64(..) < self.threshold).then_some(self.weight)
    }

    /// Share of lines kept now.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The load last heard of.
    pub fn load(&self) -> f64 {
        self.load
    }

    /// How often it wants to hear of load.
    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// Whether it has to hear of the next interval even if no datagram comes: rate or load would stay as they are.
    pub fn is_restless(&self) -> bool {
        self.load >= IDLE || self.controller.steps > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: Sampling = Sampling {
        mode: SamplingMode::Adaptive,
        rate: 1.0,
        min_rate: 0.01,
        target_load: 0.5,
        interval: Duration::from_secs(1),
    };
    /// Loads of the three bands for a target of 0.5, and their edges.
    const HIGH: f64 = 0.76;
    const EDGES: [f64; 2] = [0.25, 0.75];
    const MIDDLE: f64 = 0.5;
    const LOW: f64 = 0.24;

    fn load(load: f64) -> Signals {
        Signals { load, throttled: false, fill: 0.0, intervals: 1 }
    }

    /// The rate after `n` intervals of the same signals.
    fn after(sampler: &mut Sampler, n: u32, signals: Signals) -> f64 {
        (0..n).for_each(|_| sampler.adjust(&signals));
        sampler.rate()
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-12
    }

    #[test]
    fn one_interval_moves_the_rate_by_one_step_or_none() {
        // From k = 3.
        for (signals, steps) in [
            (load(HIGH), 4),
            (load(EDGES[1]), 3),
            (load(MIDDLE), 3),
            (load(EDGES[0]), 3),
            (load(LOW), 2),
            (load(0.0), 2),
            (load(9.0), 4),
            (Signals { throttled: true, ..load(0.0) }, 4),
            (Signals { fill: 0.51, ..load(0.0) }, 4),
            (Signals { fill: 0.5, ..load(0.0) }, 2),
            (Signals { fill: 0.51, throttled: true, ..load(HIGH) }, 4),
            (Signals { intervals: 2, ..load(LOW) }, 1),
            (Signals { intervals: 100, ..load(LOW) }, 0),
            (Signals { intervals: 100, ..load(HIGH) }, 4),
            (Signals { intervals: 25, ..load(MIDDLE) }, 1),
            (Signals { intervals: u32::MAX, ..load(MIDDLE) }, 0),
        ] {
            let mut sampler = Sampler::new(ADAPTIVE, 1);
            after(&mut sampler, 3, load(HIGH));
            let rate = after(&mut sampler, 1, signals);
            assert!(close(rate, 0.8_f64.powi(steps)), "{signals:?}: {rate}");
        }
    }

    #[test]
    fn the_rate_never_falls_below_its_minimum_and_leaves_it_at_once() {
        for (min_rate, steps) in [(0.01, 21), (0.5, 4), (0.8, 1), (1.0, 0), (1e-9, 93)] {
            let mut sampler = Sampler::new(Sampling { min_rate, ..ADAPTIVE }, 1);
            assert!(close(after(&mut sampler, 1000, load(HIGH)), min_rate), "{min_rate}");
            assert_eq!(sampler.controller.steps, steps, "{min_rate}");
            if steps > 0 {
                assert!(after(&mut sampler, 1, load(LOW)) > min_rate, "{min_rate}");
            }
        }
    }

    #[test]
    fn from_every_rung_and_after_any_wait_between_the_bands_the_rate_is_1_within_a_minute_of_the_load_falling() {
        for steps in 0..=21 {
            for waited in 0..2 * PATIENCE {
                for low in [0.0, 0.1, LOW] {
                    let mut sampler = Sampler::new(ADAPTIVE, 1);
                    after(&mut sampler, steps, load(HIGH));
                    after(&mut sampler, waited, load(MIDDLE));
                    assert_eq!(after(&mut sampler, 60, load(low)), 1.0, "{steps} steps, {waited} waited, load {low}");
                }
                // Asleep for that minute, it is looked at once.
                let mut sampler = Sampler::new(ADAPTIVE, 1);
                after(&mut sampler, steps, load(HIGH));
                after(&mut sampler, waited, load(MIDDLE));
                assert_eq!(after(&mut sampler, 1, Signals { intervals: 60, ..load(0.0) }), 1.0);
            }
        }
    }

    #[test]
    fn a_flood_that_thinning_holds_between_the_bands_leaves_no_thinning_a_minute_behind_it() {
        // A line left out costs a quarter of one that is kept. The flood would take so many cores, the traffic
        // behind it so many.
        let taken = |sampler: &Sampler, cores: f64| load(cores * (0.25 + 0.75 * sampler.rate()));
        for flood in (12..30).map(|tenths| f64::from(tenths) / 10.0) {
            for calm in [0.0, 0.05, LOW] {
                for seconds in 300..320 {
                    let mut sampler = Sampler::new(ADAPTIVE, 1);
                    for _ in 0..seconds {
                        let signals = taken(&sampler, flood);
                        sampler.adjust(&signals);
                    }
                    let held = taken(&sampler, flood).load;
                    assert!(sampler.thins() && EDGES[0] < held && held < 1.0, "{flood} cores, held at {held}");
                    for _ in 0..60 {
                        let signals = taken(&sampler, calm);
                        sampler.adjust(&signals);
                    }
                    assert_eq!(sampler.rate(), 1.0, "{flood} cores for {seconds} s, then {calm}");
                }
            }
        }
    }

    #[test]
    fn between_the_bands_the_rate_rises_by_a_step_in_ten_intervals() {
        let mut sampler = Sampler::new(ADAPTIVE, 1);
        after(&mut sampler, 2, load(HIGH));
        for (intervals, steps) in [(9, 2), (1, 1), (9, 1), (1, 0), (100, 0)] {
            let rate = after(&mut sampler, intervals, load(MIDDLE));
            assert!(close(rate, 0.8_f64.powi(steps)), "{intervals}: {rate}");
        }
        // What was waited for is forgotten where the load goes up or down meanwhile.
        after(&mut sampler, 2, load(HIGH));
        after(&mut sampler, 9, load(MIDDLE));
        after(&mut sampler, 1, load(HIGH));
        assert!(close(after(&mut sampler, 9, load(MIDDLE)), 0.8_f64.powi(3)));
        // At a rate of 1 no wait is saved up.
        let mut sampler = Sampler::new(ADAPTIVE, 1);
        after(&mut sampler, 9, load(MIDDLE));
        after(&mut sampler, 1, load(HIGH));
        assert!(close(after(&mut sampler, 9, load(MIDDLE)), 0.8));
    }

    #[test]
    fn only_adaptive_moves() {
        for (mode, rate) in [(SamplingMode::Off, 1.0), (SamplingMode::Fixed, 0.3)] {
            let mut sampler = Sampler::new(Sampling { mode, rate: 0.3, ..ADAPTIVE }, 1);
            assert_eq!(sampler.rate(), rate);
            assert_eq!(after(&mut sampler, 50, load(HIGH)), rate);
            assert_eq!((sampler.thins(), sampler.load()), (rate < 1.0, HIGH));
        }
    }

    #[test]
    fn new_settings_hold_at_once_and_keep_the_ladder() {
        let mut sampler = Sampler::new(ADAPTIVE, 1);
        after(&mut sampler, 5, load(HIGH));
        sampler.follow(&Sampling { min_rate: 0.5, ..ADAPTIVE });
        assert_eq!(sampler.rate(), 0.5);
        sampler.follow(&ADAPTIVE);
        assert!(close(sampler.rate(), 0.8_f64.powi(5)));
        sampler.follow(&Sampling { mode: SamplingMode::Off, ..ADAPTIVE });
        assert_eq!((sampler.rate(), sampler.is_restless()), (1.0, true));
        sampler.follow(&ADAPTIVE);
        assert_eq!(sampler.rate(), 1.0);
    }

    #[test]
    fn a_worker_is_looked_at_until_it_is_idle_and_keeps_everything() {
        let mut sampler = Sampler::new(ADAPTIVE, 1);
        assert!(!sampler.is_restless());
        after(&mut sampler, 1, load(MIDDLE));
        assert!(sampler.is_restless(), "its load would be shown for ever");
        after(&mut sampler, 1, load(0.0));
        assert!(!sampler.is_restless());
        after(&mut sampler, 2, load(HIGH));
        after(&mut sampler, 1, load(0.0));
        assert!(sampler.is_restless(), "its rate is below 1");
    }

    #[test]
    fn lines_are_kept_with_the_probability_that_their_weight_stands_for() {
        const DRAWS: u32 = 1_000_000;
        for rate in [0.8, 0.5, 0.1, 0.01] {
            let mut sampler = Sampler::new(Sampling { mode: SamplingMode::Fixed, rate, ..ADAPTIVE }, 7);
            let weights: Vec<f64> = (0..DRAWS).filter_map(|_| sampler.draw()).collect();
            assert!(weights.iter().all(|weight| close(weight * rate, 1.0)));
            let deviations =
                (weights.len() as f64 - f64::from(DRAWS) * rate) / (f64::from(DRAWS) * rate * (1.0 - rate)).sqrt();
            assert!(deviations.abs() < 4.0, "{rate}: {} kept, {deviations} standard deviations off", weights.len());
        }
    }
}
