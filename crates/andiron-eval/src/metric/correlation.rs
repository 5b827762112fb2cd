//! Pearson's and Spearman's correlation, and the mean of squared and absolute errors.
//!
//! Values are those of SciPy 1.17 and scikit-learn 1.9.

/// Pearson's correlation, from -1 to 1; `None` where it is not defined: fewer than two pairs, or values that are all equal.
///
/// Source: Pearson 1895, "Notes on regression and inheritance in the case of two parents",
/// <https://doi.org/10.1098/rspl.1895.0041>.
///
/// # Panics
/// If there are not as many `y` as `x`.
///
/// # Example
/// ```
/// use andiron_eval::metric::correlation::{pearson, spearman};
/// let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 16.0]);
/// assert!((pearson(&x, &y).unwrap() - 0.98437).abs() < 1e-5);
/// assert_eq!(spearman(&x, &y), Some(1.0));
/// assert_eq!(pearson(&x, &[5.0; 4]), None);
/// ```
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "correlation is of pairs");
    let constant = |values: &[f64]| values.windows(2).all(|pair| pair[0] == pair[1]);
    if x.len() < 2 || constant(x) || constant(y) {
        return None;
    }
    let (x, y) = (unit(x), unit(y));
    let sum: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding may lead beyond.
    (!sum.is_nan()).then(|| sum.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation: Pearson's of the ranks, where equal values share the mean of theirs.
///
/// Source: Spearman 1904, "The Proof and Measurement of Association between Two Things", <https://doi.org/10.2307/1412159>.
///
/// # Panics
/// If there are not as many `y` as `x`.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// Mean of the squared errors; NaN of no pairs.
pub fn mean_squared_error(predictions: &[f64], labels: &[f64]) -> f64 {
    mean_of(predictions, labels, |error| error * error)
}

/// Mean of the absolute errors; NaN of no pairs.
pub fn mean_absolute_error(predictions: &[f64], labels: &[f64]) -> f64 {
    mean_of(predictions, labels, f64::abs)
}

fn mean_of(predictions: &[f64], labels: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    assert_eq!(predictions.len(), labels.len(), "an error is of a pair");
    let sum: f64 = predictions.iter().zip(labels).map(|(prediction, label)| of(prediction - label)).sum();
    sum / labels.len() as f64
}

/// The values less their mean, as a vector of length 1.
fn unit(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    // Scaled first, so that no square overflows.
    let scaled: Vec<f64> = values.iter().map(|value| (value - mean) / largest).collect();
    let length = scaled.iter().map(|value| value * value).sum::<f64>().sqrt();
    scaled.into_iter().map(|value| value / length).collect()
}

/// The ranks of values from 1; equal ones share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tie in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = start as f64 + (tie.len() as f64 + 1.0) / 2.0;
        tie.iter().for_each(|&at| ranks[at] = mean);
        start += tie.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[3.0, -0.0, 3.0, 0.0, 9.0]), [3.5, 1.5, 3.5, 1.5, 5.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn great_values_do_not_overflow() {
        let opposite = pearson(&[1e200, 2e200, 3e200], &[-1.0, -2.0, -3.0]).unwrap();
        assert!((opposite + 1.0).abs() < 1e-12, "{opposite}");
        assert_eq!(pearson(&[1.0], &[2.0]), None);
    }

    #[test]
    fn errors_of_nothing_are_not_a_number() {
        assert!(mean_squared_error(&[], &[]).is_nan());
        assert_eq!(mean_absolute_error(&[1.0, -1.0], &[2.0, 2.0]), 2.0);
    }
}
