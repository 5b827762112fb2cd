//! A curve over steps in bounded memory.

use std::borrow::Cow;

/// Buckets of a curve: about one for each pixel column of a chart.
const MAX_BUCKETS: usize = 720;

/// Values over steps, kept as at most 720 buckets of equal width.
///
/// As long as there are few steps, each has a bucket of its own. When there are too many buckets, they become twice as wide, and
/// neighbours are merged. So a run of a million steps takes the same memory as one of a thousand, and the extremes of every
/// bucket stay exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    buckets: Vec<Bucket>,
    /// Steps per bucket, a power of two.
    width: u64,
    first: Option<(u64, f64)>,
    last: Option<(u64, f64)>,
    lowest: Option<(u64, f64)>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { buckets: Vec::new(), width: 1, first: None, last: None, lowest: None }
    }
}

/// The values of neighbouring steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    pub(super) first_step: u64,
    pub(super) last_step: u64,
    min: f64,
    max: f64,
    sum: f64,
    n_finite: u64,
    pub(super) n_not_finite: u64,
}

impl Bucket {
    fn new(step: u64, value: f64) -> Self {
        let bucket = Self {
            first_step: step,
            last_step: step,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            n_finite: 0,
            n_not_finite: 0,
        };
        if value.is_finite() {
            Self { min: value, max: value, sum: value, n_finite: 1, ..bucket }
        } else {
            Self { n_not_finite: 1, ..bucket }
        }
    }

    fn merge(&mut self, later: &Self) {
        self.last_step = later.last_step;
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.sum += later.sum;
        self.n_finite += later.n_finite;
        self.n_not_finite += later.n_not_finite;
    }

    /// The middle of its steps.
    pub(super) fn step(&self) -> f64 {
        self.first_step as f64 + (self.last_step - self.first_step) as f64 / 2.0
    }

    /// Its smallest and its largest finite value; `None` if it has none.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        (self.n_finite > 0).then_some((self.min, self.max))
    }

    /// The mean of its finite values.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.n_finite > 0).then(|| (self.sum / self.n_finite as f64).clamp(self.min, self.max))
    }
}

impl Curve {
    /// Adds the value of a step, which may be NaN or infinite: the curve then has a gap.
    ///
    /// A step that is not after the last one is ignored.
    pub fn push(&mut self, step: u64, value: f64) {
        if self.buckets.last().is_some_and(|last| step <= last.last_step) {
            return;
        }
        if value.is_finite() {
            self.first.get_or_insert((step, value));
            self.last = Some((step, value));
            if self.lowest.is_none_or(|(_, lowest)| value < lowest) {
                self.lowest = Some((step, value));
            }
        }
        self.add(Bucket::new(step, value));
        self.widen(MAX_BUCKETS);
    }

    /// Makes the buckets wider until there are at most `limit`.
    fn widen(&mut self, limit: usize) {
        while self.buckets.len() > limit {
            self.width *= 2;
            for bucket in std::mem::take(&mut self.buckets) {
                self.add(bucket);
            }
        }
    }

    /// The curve with at most `limit` buckets.
    pub(super) fn at_most(&self, limit: usize) -> Cow<'_, Self> {
        if self.buckets.len() <= limit {
            return Cow::Borrowed(self);
        }
        let mut coarse = self.clone();
        coarse.widen(limit.max(1));
        Cow::Owned(coarse)
    }

    fn add(&mut self, bucket: Bucket) {
        let width = self.width;
        match self.buckets.last_mut() {
            Some(last) if last.first_step / width == bucket.first_step / width => last.merge(&bucket),
            _ => self.buckets.push(bucket),
        }
    }

    /// Whether no step was added.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The first and the last step; `None` if there are none.
    pub(super) fn steps(&self) -> Option<(u64, u64)> {
        Some((self.buckets.first()?.first_step, self.buckets.last()?.last_step))
    }

    /// The first finite value and its step.
    pub fn first(&self) -> Option<(u64, f64)> {
        self.first
    }

    /// The last finite value and its step.
    pub fn last(&self) -> Option<(u64, f64)> {
        self.last
    }

    /// The smallest value, and the first step that had it.
    pub fn lowest(&self) -> Option<(u64, f64)> {
        self.lowest
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Number of values that were not finite.
    pub(super) fn n_not_finite(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.n_not_finite).sum()
    }

    /// The curve without its noise: a local linear regression at each bucket, weighted by a Gaussian over the steps with the
    /// standard deviation `deviation` and by the number of values. Empty buckets are gaps.
    ///
    /// Unlike an exponential average it does not show a falling curve late.
    ///
    /// Source: Cleveland 1979, "Robust Locally Weighted Regression and Smoothing Scatterplots",
    /// <https://doi.org/10.1080/01621459.1979.10481038>; without its robust iterations, and with a Gaussian for the weights.
    pub(super) fn smoothed(&self, deviation: f64) -> Vec<(f64, Option<f64>)> {
        let reach = 3.0 * deviation;
        let mut from = 0;
        let smooth = |bucket: &Bucket| {
            let center = bucket.step();
            while self.buckets[from].step() < center - reach {
                from += 1;
            }
            let near = self.buckets[from..].iter().take_while(|near| near.step() <= center + reach);
            let mut fit = LineFit::default();
            for (near, mean) in near.filter_map(|near| Some((near, near.mean()?))) {
                let distance = (near.step() - center) / deviation;
                fit.add(distance, mean, (-0.5 * distance * distance).exp() * near.n_finite as f64);
            }
            (center, bucket.mean().map(|_| fit.at_zero()))
        };
        self.buckets.iter().map(smooth).collect()
    }
}

/// Sums of a weighted linear regression.
#[derive(Default)]
struct LineFit {
    weights: f64,
    x: f64,
    xx: f64,
    y: f64,
    xy: f64,
    range: Option<(f64, f64)>,
}

impl LineFit {
    fn add(&mut self, x: f64, y: f64, weight: f64) {
        self.weights += weight;
        self.x += weight * x;
        self.xx += weight * x * x;
        self.y += weight * y;
        self.xy += weight * x * y;
        self.range = Some(self.range.map_or((y, y), |(low, high)| (low.min(y), high.max(y))));
    }

    /// The line at `x = 0`, within the range of the values; NaN without values.
    fn at_zero(&self) -> f64 {
        let Some((low, high)) = self.range else { return f64::NAN };
        let determinant = self.weights * self.xx - self.x * self.x;
        let flat = determinant <= 1e-9 * self.weights * self.weights;
        let value =
            if flat { self.y / self.weights } else { (self.xx * self.y - self.x * self.xy) / determinant };
        value.clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: impl IntoIterator<Item = (u64, f64)>) -> Curve {
        let mut curve = Curve::default();
        values.into_iter().for_each(|(step, value)| curve.push(step, value));
        curve
    }

    #[test]
    fn a_million_steps_stay_bounded_and_keep_their_extremes() {
        let value = |step: u64| match step {
            123_457 => -5.0,
            777_777 => 50.0,
            _ => 1.0 + (step % 7) as f64,
        };
        let curve = curve((1..=1_000_000).map(|step| (step, value(step))));
        assert!(
            (MAX_BUCKETS / 2..=MAX_BUCKETS).contains(&curve.buckets().len()),
            "{}",
            curve.buckets().len()
        );
        let total: u64 = curve.buckets().iter().map(|bucket| bucket.n_finite).sum();
        assert_eq!(total, 1_000_000);
        let ranges: Vec<_> = curve.buckets().iter().filter_map(Bucket::range).collect();
        assert_eq!(ranges.iter().map(|range| range.0).fold(f64::MAX, f64::min), -5.0);
        assert_eq!(ranges.iter().map(|range| range.1).fold(f64::MIN, f64::max), 50.0);
        assert_eq!(
            (curve.lowest(), curve.last().map(|last| last.0)),
            (Some((123_457, -5.0)), Some(1_000_000))
        );
        let order = curve.buckets().windows(2).all(|pair| pair[0].last_step < pair[1].first_step);
        assert!(order && curve.buckets()[0].first_step == 1);
    }

    #[test]
    fn steps_far_apart_keep_their_own_buckets_while_there_is_room() {
        let curve = curve((1..=700).map(|i| (1000 * i, i as f64)));
        assert_eq!(curve.buckets().len(), 700);
        assert!(curve.buckets().iter().all(|bucket| bucket.first_step == bucket.last_step));
    }

    #[test]
    fn steps_far_apart_are_merged_when_there_are_too_many() {
        let curve = curve((1..=2000).map(|i| (1_000_000 * i, i as f64)));
        assert!((1..=MAX_BUCKETS).contains(&curve.buckets().len()));
        assert_eq!(curve.last(), Some((2_000_000_000, 2000.0)));
    }

    #[test]
    fn what_is_not_finite_is_a_gap_and_counted() {
        let curve = curve([(1, 2.0), (2, f64::NAN), (3, f64::INFINITY), (4, 1.0)]);
        assert_eq!(curve.n_not_finite(), 2);
        let ranges: Vec<_> = curve.buckets().iter().map(Bucket::range).collect();
        assert_eq!(ranges, [Some((2.0, 2.0)), None, None, Some((1.0, 1.0))]);
        assert_eq!((curve.last(), curve.lowest()), (Some((4, 1.0)), Some((4, 1.0))));
        let gaps: Vec<_> = curve.smoothed(1.0).iter().map(|(_, value)| value.is_none()).collect();
        assert_eq!(gaps, [false, true, true, false]);
    }

    #[test]
    fn a_step_comes_once() {
        let curve = curve([(5, 2.0), (5, 9.0), (3, 9.0), (6, 1.0)]);
        assert_eq!(curve.buckets().iter().map(|bucket| bucket.first_step).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn smoothing_keeps_a_straight_line_and_removes_what_alternates() {
        let line = curve((0..100).map(|step| (step, 3.0 - 0.02 * step as f64)));
        for (step, value) in line.smoothed(4.0) {
            assert!((value.unwrap() - (3.0 - 0.02 * step)).abs() < 1e-9, "{step} {value:?}");
        }
        let noisy = curve((0..100).map(|step| (step, 1.0 + if step % 2 == 0 { 0.5 } else { -0.5 })));
        for (step, value) in noisy.smoothed(4.0).into_iter().filter(|(step, _)| (12.0..88.0).contains(step)) {
            assert!((value.unwrap() - 1.0).abs() < 1e-3, "{step} {value:?}");
        }
    }
}
