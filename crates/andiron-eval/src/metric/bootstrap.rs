//! Standard errors, bootstrap intervals, and the significance of a difference.
//!
//! A standard error of a mean is that of lm-evaluation-harness 0.4. The bootstrap draws rows with replacement and computes
//! the metric of each such sample. Its rows are a function of the seed and of the number of the sample, on any number of
//! threads. The paired test is sacreBLEU's, which is that of Moses.

use std::ops::Range;

use andiron_kernels::random::Seed;
use rayon::prelude::*;

/// The mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample (divided by one less than the count); `None` of fewer than two values.
pub fn sample_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() >= 2).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// Standard error of the mean of rows' scores, as lm-evaluation-harness reports it; `None` of fewer than two rows.
pub fn standard_error(scores: &[f64]) -> Option<f64> {
    Some(sample_deviation(scores)? / (scores.len() as f64).sqrt())
}

/// How often rows are drawn again, and from which random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Samples; each has as many rows as there are.
    pub samples: usize,
    /// Where the random numbers come from.
    pub seed: Seed,
}

impl Bootstrap {
    /// The rows of one sample out of `rows`, in ascending order, each as often as it was drawn. Scores are read fastest in the
    /// order in which they are stored.
    ///
    /// # Panics
    /// If there are 2^32 rows or more.
    pub fn draw(&self, sample: u64, rows: usize) -> Vec<u32> {
        let n = u64::from(u32::try_from(rows).expect("fewer than 2^32 rows"));
        let seed = self.seed.derive("bootstrap").at(sample);
        let mut counts = vec![0u32; rows];
        for counter in 0..rows.div_ceil(2) {
            // Two rows from 64 bits. A row's chance is off by less than one in 2^32 divided by the number of rows.
            let bits = seed.bits(counter as u64);
            let pair = [bits & 0xffff_ffff, bits >> 32];
            for bits in &pair[..2.min(rows - 2 * counter)] {
                counts[((bits * n) >> 32) as usize] += 1;
            }
        }
        let mut drawn = Vec::with_capacity(rows);
        for (row, count) in (0..).zip(counts) {
            drawn.extend(std::iter::repeat_n(row, count as usize));
        }
        drawn
    }

    /// `statistic` of every sample's rows, in the order of the samples.
    pub fn resample<T: Send>(&self, rows: usize, statistic: impl Fn(&[u32]) -> T + Sync) -> Vec<T> {
        let samples = (0..self.samples as u64).into_par_iter();
        samples.map(|sample| statistic(&self.draw(sample, rows))).collect()
    }

    /// The paired bootstrap test of the difference between two systems on the same rows: `first` and `second` are their metric
    /// over some of the rows, or over all.
    ///
    /// The p-value is the part of the samples in which the difference is farther above its mean over the samples than the
    /// difference is above 0, with one added to both counts.
    ///
    /// Source: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation",
    /// <https://aclanthology.org/W04-3250>; sacreBLEU 2.6.0 (`--paired-bs`).
    pub fn compare(
        &self,
        rows: usize,
        first: impl Fn(&[u32]) -> f64 + Sync,
        second: impl Fn(&[u32]) -> f64 + Sync,
    ) -> Comparison {
        let all: Vec<u32> = (0..rows as u32).collect();
        let (a, b) = (first(&all), second(&all));
        Comparison::of_samples(a, b, self.resample(rows, |rows| second(rows) - first(rows)))
    }
}

/// The paired bootstrap test of the mean of rows' scores: `first[i]` and `second[i]` are of the same row.
///
/// # Panics
/// If there are not as many of both.
///
/// # Example
/// ```
/// use andiron_eval::metric::bootstrap::{Bootstrap, paired_bootstrap};
/// use andiron_kernels::random::Seed;
/// let first = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0];
/// let second = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0];
/// let bootstrap = Bootstrap { samples: 1000, seed: Seed::new(1) };
/// let comparison = paired_bootstrap(&first, &second, bootstrap);
/// assert_eq!(comparison.difference, 0.5);
/// assert!(comparison.p_value.unwrap() < 0.05);
/// ```
pub fn paired_bootstrap(first: &[f64], second: &[f64], bootstrap: Bootstrap) -> Comparison {
    assert_eq!(first.len(), second.len(), "both systems answer the same rows");
    bootstrap.compare(first.len(), mean_of(first), mean_of(second))
}

/// The mean of chosen rows.
pub fn mean_of(scores: &[f64]) -> impl Fn(&[u32]) -> f64 + Sync + '_ {
    |rows| rows.iter().map(|&row| scores[row as usize]).sum::<f64>() / rows.len() as f64
}

/// Two systems, compared by one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The first system's.
    pub first: f64,
    /// The second system's.
    pub second: f64,
    /// The second one's less the first one's.
    pub difference: f64,
    /// How often chance alone would make a difference as large, in either direction; `None` without samples.
    pub p_value: Option<f64>,
    /// Bounds of the difference in 95 % of the samples; `None` without samples.
    pub interval: Option<[f64; 2]>,
}

impl Comparison {
    /// From the metrics of all rows, and the differences of samples of them.
    ///
    /// Systems that differ in no sample have the p-value 1, where sacreBLEU gives its least one, as if they surely differed.
    pub fn of_samples(first: f64, second: f64, mut differences: Vec<f64>) -> Self {
        let difference = second - first;
        differences.retain(|value| !value.is_nan());
        let sizes: Vec<f64> = differences.iter().map(|value| value.abs()).collect();
        let mean = mean(&sizes);
        let larger = sizes.iter().filter(|&size| size - mean > difference.abs()).count();
        let p_value = match sizes.iter().all(|&size| size == 0.0) && difference == 0.0 {
            true => 1.0,
            false => (larger + 1) as f64 / (sizes.len() + 1) as f64,
        };
        let p_value = (!sizes.is_empty()).then_some(p_value);
        Self { first, second, difference, p_value, interval: interval(&mut differences) }
    }
}

/// The bounds of the middle 95 % of `values`, which are sorted; `None` of none.
pub fn interval(values: &mut [f64]) -> Option<[f64; 2]> {
    values.sort_unstable_by(f64::total_cmp);
    (!values.is_empty()).then(|| [quantile(values, 0.025), quantile(values, 0.975)])
}

/// The quantile of sorted values, between the two nearest ones in proportion to the distance, as in NumPy.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let Range { start, end } = at.floor() as usize..at.ceil() as usize;
    let share = at - start as f64;
    sorted[start] + (sorted[end] - sorted[start]) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTSTRAP: Bootstrap = Bootstrap { samples: 2000, seed: Seed::new(7) };

    /// `mean_stderr` of lm-evaluation-harness 0.4.13, and `numpy.percentile` of NumPy 2.4.
    #[test]
    fn errors_and_quantiles_are_those_of_the_references() {
        let scores = [0.0, 1.0, 1.0, 0.5, 0.25];
        assert!((standard_error(&scores).unwrap() - 0.199_999_999_999_999_98).abs() < 1e-15);
        assert_eq!((standard_error(&[1.0]), sample_deviation(&[])), (None, None));
        let [low, high] = interval(&mut [3.0, 1.0, 4.0, 1.5, 9.0]).unwrap();
        assert!((low - 1.05).abs() < 1e-12 && (high - 8.5).abs() < 1e-12, "{low} {high}");
        assert_eq!((interval(&mut [2.0]), interval(&mut [])), (Some([2.0, 2.0]), None));
    }

    #[test]
    fn samples_have_the_spread_of_the_mean() {
        let scores: Vec<f64> = (0..200).map(|row| f64::from(row % 3)).collect();
        let values = BOOTSTRAP.resample(scores.len(), mean_of(&scores));
        let (spread, expected) = (sample_deviation(&values).unwrap(), standard_error(&scores).unwrap());
        assert!((spread / expected - 1.0).abs() < 0.05, "{spread} {expected}");
        assert!((mean(&values) - mean(&scores)).abs() < 0.01);
        assert_eq!(values, BOOTSTRAP.resample(scores.len(), mean_of(&scores)));
    }

    #[test]
    fn every_row_is_drawn_as_often() {
        let mut counts = [0; 7];
        for sample in 0..2000 {
            let drawn = BOOTSTRAP.draw(sample, 7);
            assert!(drawn.len() == 7 && drawn.is_sorted());
            drawn.iter().for_each(|&row| counts[row as usize] += 1);
        }
        assert_eq!((BOOTSTRAP.draw(3, 1), BOOTSTRAP.draw(3, 0)), (vec![0], vec![]));
        assert!(counts.iter().all(|count| (1850..2150).contains(count)), "{counts:?}");
    }

    #[test]
    fn samples_without_a_value_are_left_out() {
        let comparison = Comparison::of_samples(0.0, 1.0, vec![f64::NAN, 1.0, 1.5, f64::NAN]);
        assert_eq!(comparison.interval, Some([1.0125, 1.4875]));
        let comparison = Bootstrap { samples: 0, ..BOOTSTRAP }.compare(3, |_| 1.0, |_| 2.0);
        assert_eq!((comparison.difference, comparison.p_value, comparison.interval), (1.0, None, None));
    }

    #[test]
    fn a_system_does_not_differ_from_itself() {
        let scores: Vec<f64> = (0..50).map(f64::from).collect();
        let comparison = paired_bootstrap(&scores, &scores, BOOTSTRAP);
        assert_eq!((comparison.difference, comparison.p_value), (0.0, Some(1.0)));
    }
}
