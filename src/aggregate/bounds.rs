//! The bounds of a classic histogram, and the text of numbers in labels.

/// Upper bounds, ascending and finite, with `+Inf` behind the last.
#[derive(Debug, Default, PartialEq)]
pub struct Bounds {
    upper: Box<[f64]>,
    /// The values of `le`, one for each bound and `+Inf`.
    le: Box<[Box<str>]>,
}

impl Bounds {
    /// Bounds from checked numbers.
    pub fn new(upper: &[f64]) -> Self {
        let texts = upper.iter().map(|bound| text(*bound).into_boxed_str());
        Self { upper: upper.into(), le: texts.chain(["+Inf".into()]).collect() }
    }

    /// The bucket that takes `value`: the first whose bound is not below it, the last for what is above all.
    ///
    /// Looks at all bounds: to stop at the right one costs more, as no CPU foresees which it is.
    #[inline]
    pub fn place(&self, value: f64) -> usize {
        self.upper.iter().map(|bound| usize::from(*bound < value)).sum()
    }

    /// Buckets, `+Inf` among them.
    pub fn buckets(&self) -> usize {
        self.upper.len() + 1
    }

    /// The bounds, without `+Inf`.
    pub fn upper(&self) -> &[f64] {
        &self.upper
    }

    /// The value of `le` for each bucket.
    pub fn le(&self) -> impl Iterator<Item = &str> {
        self.le.iter().map(AsRef::as_ref)
    }

    /// Sample lines of one series: the buckets, `_sum` and `_count`.
    pub fn lines(&self) -> u64 {
        self.buckets() as u64 + 2
    }
}

/// A bound or quantile as Prometheus writes it when it reads protobuf, so that the label is the same in every format:
/// the shortest digits that give the number back, always with a point or an exponent.
///
/// Source: Prometheus `model/textparse`, where bounds become labels; Go's `%g` with an exponent below -4 and from 21.
pub(super) fn text(bound: f64) -> String {
    let scientific = format!("{bound:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if bound != 0.0 && !(-4..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{bound}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_prometheus_does() {
        for (bound, written) in [
            (0.005, "0.005"),
            (1.0, "1.0"),
            (30.0, "30.0"),
            (0.0, "0.0"),
            (-2.5, "-2.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e20, "100000000000000000000.0"),
            (1e21, "1e+21"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(text(bound), written);
        }
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_it() {
        let bounds = Bounds::new(&[1.0, 2.0]);
        let places: Vec<usize> = [-1.0, 1.0, 1.5, 2.0, 2.1].map(|value| bounds.place(value)).into();
        assert_eq!(places, [0, 0, 1, 1, 2]);
        assert_eq!((bounds.buckets(), bounds.lines()), (3, 5));
    }
}
