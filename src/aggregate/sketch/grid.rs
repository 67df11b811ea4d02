//! Buckets whose bounds grow by a constant factor, and their numbers.
//!
//! In: a value. Out: the key of its bucket, which orders as values do; and back, the values that a bucket stands for.
//! Always: a bucket holds what is above its lower bound and up to its upper one; two buckets of one resolution make one
//! of the next, whose bounds are among theirs.
//! Follows: the native histograms of Prometheus for [`Scale::Native`], with 2^schema buckets for each power of two.

use std::sync::LazyLock;

/// Values this near to 0 count as 0. The least power of two that Prometheus has no bucket below at its coarsest.
pub const ZERO: f64 = f64::from_bits((1023 - 128) << 52);

/// How often a resolution can be halved.
pub const MOST_HALVINGS: u8 = 12;

/// The schema of the finest native resolution; it is one less for each halving.
const FINEST_SCHEMA: i32 = 8;

/// Between 0 and the key of the first bucket, so that keys of positive values are positive.
const OFFSET: i32 = 1 << 17;

/// What the finest buckets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 256 for each power of two: schema 8 of native histograms.
    Native,
    /// 36 for each power of two: the middle of a bucket is within 0.97 % of all that is in it.
    Percent,
}

/// The bounds between 1 and 2, and where to look for them.
struct Octave {
    /// 2^(j/n), for j from 0 to n.
    bounds: Box<[f64]>,
    /// By the first eight bits behind the point: the first bound that is not below all such numbers.
    start: [u16; 256],
}

impl Octave {
    fn new(n: u16) -> Self {
        let bounds: Box<[f64]> = (0..=n).map(|j| (f64::from(j) / f64::from(n)).exp2()).collect();
        let first = |low: f64| bounds.iter().position(|bound| low <= *bound).unwrap_or_default() as u16;
        let start = std::array::from_fn(|bits| first(1.0 + bits as f64 / 256.0));
        Self { bounds, start }
    }
}

static NATIVE: LazyLock<Octave> = LazyLock::new(|| Octave::new(256));
static PERCENT: LazyLock<Octave> = LazyLock::new(|| Octave::new(36));

impl Scale {
    #[inline]
    fn octave(self) -> &'static Octave {
        match self {
            Self::Native => &NATIVE,
            Self::Percent => &PERCENT,
        }
    }

    /// Buckets for each power of two.
    #[inline]
    fn per_octave(self) -> i32 {
        match self {
            Self::Native => 256,
            Self::Percent => 36,
        }
    }

    /// The key of the bucket of a finite value, of a resolution that was halved so often.
    #[inline]
    pub fn key(self, value: f64, halvings: u8) -> i32 {
        let size = value.abs();
        if size <= ZERO {
            return 0;
        }
        let bits = size.to_bits();
        let exponent = (bits >> 52) as i32 - 1023;
        let fraction = f64::from_bits(bits & ((1 << 52) - 1) | 1.0_f64.to_bits());
        let octave = self.octave();
        let mut place = usize::from(octave.start[(bits >> 44 & 0xFF) as usize]);
        while octave.bounds[place] < fraction {
            place += 1;
        }
        let finest = exponent * self.per_octave() + place as i32;
        let key = OFFSET + ((finest + (1 << halvings) - 1) >> halvings);
        if value < 0.0 { -key } else { key }
    }

    /// What the bucket of `key` stands for: the value whose relative distance to both bounds is the same.
    pub fn middle(self, key: i32, halvings: u8) -> f64 {
        let Some(index) = index(key) else { return 0.0 };
        let (low, high) = (self.bound(index - 1, halvings), self.bound(index, halvings));
        let middle = (2.0 / (1.0 / low + 1.0 / high)).min(f64::MAX);
        if key < 0 { -middle } else { middle }
    }

    /// The upper bound of the bucket of this index.
    fn bound(self, index: i32, halvings: u8) -> f64 {
        let (finest, n) = (index << halvings, self.per_octave());
        self.octave().bounds[finest.rem_euclid(n) as usize] * f64::from(finest.div_euclid(n)).exp2()
    }
}

/// The index of the bucket of `key`, by which Prometheus knows it; `None` of the zero bucket. Positive and negative
/// ones count alike.
pub fn index(key: i32) -> Option<i32> {
    (key != 0).then(|| key.abs() - OFFSET)
}

/// The key of the bucket that holds this one, once the resolution is half of what it was.
pub fn halved(key: i32) -> i32 {
    let Some(index) = index(key) else { return 0 };
    let half = OFFSET + ((index + 1) >> 1);
    if key < 0 { -half } else { half }
}

/// How often the finest native resolution has to be halved so that buckets grow by about `factor`, and by no more.
///
/// The coarsest, where they grow by 65,536, if `factor` is larger than that. `None` from 1 down: no native histogram.
pub fn halvings_for(factor: f64) -> Option<u8> {
    let schema = -(factor.log2().log2().floor());
    (factor > 1.0).then(|| (f64::from(FINEST_SCHEMA) - schema).clamp(0.0, f64::from(MOST_HALVINGS)) as u8)
}

/// The schema of a native resolution.
pub fn schema(halvings: u8) -> i32 {
    FINEST_SCHEMA - i32::from(halvings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_that_prometheus_puts_it_in() {
        // By hand from the definition: bucket i of schema s holds (2^((i-1)/2^s), 2^(i/2^s)].
        for (value, schema, expected) in [
            (1.0, 8, 0),
            (1.0, 0, 0),
            (1.0 + f64::EPSILON, 8, 1),
            (1.0 + f64::EPSILON, 0, 1),
            (2.0, 0, 1),
            (2.1, 0, 2),
            (2.0, 3, 8),
            (0.5, 3, -8),
            (0.1, 3, -26),
            (0.1, 0, -3),
            (4.0, -1, 1),
            (4.1, -1, 2),
            (1.0, -4, 0),
            (3.0, -4, 1),
            (65_536.0, -4, 1),
            (65_537.0, -4, 2),
            (2.0_f64.powi(-120), -4, -7),
        ] {
            let halvings = (8 - schema) as u8;
            assert_eq!(index(Scale::Native.key(value, halvings)), Some(expected), "{value} at {schema}");
            assert_eq!(Scale::Native.key(-value, halvings), -Scale::Native.key(value, halvings));
        }
        assert_eq!([0.0, -0.0, ZERO, -ZERO, f64::MIN_POSITIVE].map(|value| Scale::Native.key(value, 5)), [0; 5]);
        assert!(Scale::Native.key(ZERO * 1.1, 0) > 0 && Scale::Native.key(-ZERO * 1.1, 0) < 0);
    }

    #[test]
    fn keys_order_as_values_do_and_a_bucket_holds_what_is_between_its_bounds() {
        let mut random = fastrand::Rng::with_seed(1);
        for scale in [Scale::Native, Scale::Percent] {
            for _ in 0..20_000 {
                let halvings = random.u8(..=MOST_HALVINGS);
                let value = (random.f64() * 1100.0 - 120.0).exp2();
                let key = scale.key(value, halvings);
                let index = index(key).expect("no zero");
                let (low, high) = (scale.bound(index - 1, halvings), scale.bound(index, halvings));
                assert!(low < value && value <= high, "{low} {value} {high}");
                let other = (random.f64() * 1100.0 - 120.0).exp2() * [1.0, -1.0][random.usize(..2)];
                let order = scale.key(other, halvings).cmp(&key);
                assert!(order == std::cmp::Ordering::Equal || order == other.total_cmp(&value), "{other} {value}");
                if halvings < MOST_HALVINGS {
                    assert_eq!(halved(key), scale.key(value, halvings + 1));
                    assert_eq!(halved(-key), scale.key(-value, halvings + 1));
                }
            }
        }
        assert_eq!(halved(0), 0);
    }

    #[test]
    fn the_middle_is_within_a_percent() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let value = (random.f64() * 200.0 - 100.0).exp2();
            let middle = Scale::Percent.middle(Scale::Percent.key(value, 0), 0);
            assert!((middle / value - 1.0).abs() < 0.0097, "{value} {middle}");
        }
        assert_eq!(Scale::Percent.middle(0, 0), 0.0);
        let three = Scale::Percent.key(3.0, 0);
        assert_eq!(Scale::Percent.middle(-three, 0), -Scale::Percent.middle(three, 0));
        assert!(Scale::Native.middle(Scale::Native.key(f64::MAX, MOST_HALVINGS), MOST_HALVINGS).is_finite());
    }

    #[test]
    fn a_factor_gives_the_schema_that_clients_of_prometheus_choose() {
        for (factor, expected) in [
            (1.1, Some(3)),
            (1.0905, Some(4)),
            (1.5, Some(1)),
            (2.0, Some(0)),
            (4.0, Some(-1)),
            (65_536.0, Some(-4)),
            (1e9, Some(-4)),
            (1.002, Some(8)),
            (1.0001, Some(8)),
            (1.0, None),
        ] {
            assert_eq!(halvings_for(factor).map(schema), expected, "{factor}");
        }
    }
}
