//! Histograms of values whose range is not known before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most bins.
const MAX_BINS: i64 = 64;

/// The smallest width of a bin is 2 to this power.
const FINEST: i32 = -20;

/// How bins are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Bins of equal width: for shares and ratios.
    #[default]
    Linear,
    /// Bins of equal ratio, for lengths. Values below 1 count as 1.
    Logarithmic,
}

/// How many values are where, in at most 65 bins.
///
/// The width of the bins is the smallest power of two for which they are enough. So the histogram is a function of the set of values: neither
/// their order nor the order of merging counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    scale: Scale,
    /// The width of a bin is 2 to this power, in values or in their binary logarithms.
    exponent: i32,
    bins: BTreeMap<i64, u64>,
    n: u64,
    not_finite: u64,
    /// Whether all values are whole numbers, of which a bin then holds one at least.
    whole: bool,
    least: f64,
    most: f64,
}

impl Histogram {
    /// No values.
    pub fn new(scale: Scale) -> Self {
        Self {
            scale,
            exponent: FINEST,
            bins: BTreeMap::new(),
            n: 0,
            not_finite: 0,
            whole: true,
            least: 0.0,
            most: 0.0,
        }
    }

    /// Counts a value. Those that are not finite are only counted apart.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.include(value, value, 1);
        self.whole &= value.fract() == 0.0;
        let at = self.position(value);
        // Beyond this, an index of the finest bins would not be exact: then the bins are made wider first.
        while (at / self.width()).abs() > 2f64.powi(52) {
            self.widen();
        }
        *self.bins.entry((at / self.width()).floor() as i64).or_default() += 1;
        self.shrink();
    }

    /// Adds the values of another histogram.
    ///
    /// # Panics
    /// If its scale is another.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.scale, other.scale, "histograms of different scales");
        self.not_finite += other.not_finite;
        if other.n == 0 {
            return;
        }
        self.include(other.least, other.most, other.n);
        self.whole &= other.whole;
        let mut other = other.clone();
        while self.exponent < other.exponent {
            self.widen();
        }
        while other.exponent < self.exponent {
            other.widen();
        }
        for (bin, count) in other.bins {
            *self.bins.entry(bin).or_default() += count;
        }
        self.shrink();
    }

    /// How many values there are, without those that are not finite.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// How many values are not finite.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// How the bins are laid out.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The smallest and the largest value, if there are any.
    pub fn range(&self) -> Option<(f64, f64)> {
        (self.n > 0).then_some((self.least, self.most))
    }

    /// From where to where each bin goes, and its count; empty ones are left out.
    pub fn bins(&self) -> Vec<(f64, f64, u64)> {
        let wider = match self.scale {
            Scale::Linear if self.whole => -self.exponent.min(0),
            _ => 0,
        };
        let width = f64::from(self.exponent + wider).exp2();
        let value = |at: i64| match self.scale {
            Scale::Linear => at as f64 * width,
            Scale::Logarithmic => (at as f64 * width).exp2(),
        };
        let mut bins: Vec<(i64, u64)> = Vec::new();
        for (bin, count) in &self.bins {
            let bin = bin >> wider;
            match bins.last_mut().filter(|last| last.0 == bin) {
                Some(last) => last.1 += count,
                None => bins.push((bin, *count)),
            }
        }
        bins.into_iter().map(|(bin, count)| (value(bin), value(bin + 1), count)).collect()
    }

    /// The value below which about this share of all values is; within the bin it is estimated.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let (least, most) = self.range()?;
        let wanted = share.clamp(0.0, 1.0) * self.n as f64;
        let mut below = 0.0;
        for (from, to, count) in self.bins() {
            if below + count as f64 >= wanted {
                let inside = (wanted - below) / count as f64;
                return Some((from + inside * (to - from)).clamp(least, most));
            }
            below += count as f64;
        }
        Some(most)
    }

    fn include(&mut self, least: f64, most: f64, n: u64) {
        (self.least, self.most) =
            if self.n == 0 { (least, most) } else { (self.least.min(least), self.most.max(most)) };
        self.n += n;
    }

    fn position(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1.0).log2(),
        }
    }

    fn width(&self) -> f64 {
        f64::from(self.exponent).exp2()
    }

    fn shrink(&mut self) {
        while let (Some((first, _)), Some((last, _))) =
            (self.bins.first_key_value(), self.bins.last_key_value())
            && last - first > MAX_BINS
        {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.exponent += 1;
        let mut bins = BTreeMap::new();
        for (bin, count) in &self.bins {
            *bins.entry(bin.div_euclid(2)).or_default() += count;
        }
        self.bins = bins;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(scale: Scale, values: &[f64]) -> Histogram {
        let mut histogram = Histogram::new(scale);
        values.iter().for_each(|value| histogram.add(*value));
        histogram
    }

    #[test]
    fn bins_are_as_fine_as_their_number_allows() {
        let histogram = of(Scale::Linear, &[0.0, 0.25, 0.25, 1.0, f64::NAN]);
        let bins = histogram.bins();
        let width = 1.0 / 64.0;
        assert_eq!(bins, [(0.0, width, 1), (0.25, 0.25 + width, 2), (1.0, 1.0 + width, 1)]);
        assert_eq!((histogram.n(), histogram.not_finite(), histogram.range()), (4, 1, Some((0.0, 1.0))));
        assert_eq!(Histogram::new(Scale::Linear).quantile(0.5), None);
    }

    #[test]
    fn whole_numbers_have_bins_of_one_at_least() {
        assert_eq!(of(Scale::Linear, &[3.0, 4.0, 4.0]).bins(), [(3.0, 4.0, 1), (4.0, 5.0, 2)]);
        assert_eq!(of(Scale::Linear, &[3.0, 3.5]).bins().len(), 2);
    }

    #[test]
    fn lengths_are_in_bins_of_equal_ratio() {
        let lengths: Vec<f64> = (0..=1_000_000).step_by(10).map(f64::from).collect();
        let histogram = of(Scale::Logarithmic, &lengths);
        assert!(histogram.bins().iter().all(|(from, to, _)| (to / from - 2f64.powf(0.5)).abs() < 1e-9));
        let median = histogram.quantile(0.5).unwrap();
        assert!((median / 500_000.0 - 1.0).abs() < 0.02, "{median}");
    }

    #[test]
    fn no_value_breaks_it() {
        let values = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, f64::INFINITY];
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let histogram = of(scale, &values);
            assert_eq!((histogram.n(), histogram.not_finite()), (4, 1));
            assert!(histogram.quantile(0.3).is_some());
        }
    }

    proptest! {
        #[test]
        fn order_and_merging_do_not_count(mut values in proptest::collection::vec(-1e9..1e9f64, 1..60), at in 0..60usize) {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let one = of(scale, &values);
                prop_assert_eq!(one.bins().iter().map(|(_, _, count)| count).sum::<u64>(), values.len() as u64);
                let (a, b) = values.split_at(at.min(values.len()));
                let mut merged = of(scale, b);
                merged.merge(&of(scale, a));
                prop_assert_eq!(&merged, &one);
                values.reverse();
                prop_assert_eq!(of(scale, &values), one);
            }
        }
    }
}
