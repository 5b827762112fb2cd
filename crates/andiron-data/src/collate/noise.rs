//! Random choices that several collators make.

use crate::seed::Seed;

/// A choice of exactly `n` of `total` indices, all choices being equally likely.
///
/// # Panics
/// If `n` is more than `total`.
pub(super) fn choose(seed: Seed, n: usize, total: usize) -> Vec<bool> {
    assert!(n <= total, "{n} of {total}");
    (0..total as u64).map(|at| seed.permute(at, total as u64) < n as u64).collect()
}

/// `0..n` in random order.
pub(super) fn shuffled(seed: Seed, n: usize) -> Vec<usize> {
    (0..n as u64).map(|at| seed.permute(at, n as u64) as usize).collect()
}

/// A number of a Poisson distribution, by inversion of its cumulative distribution.
///
/// `uniform` is in `[0, 1)`; `mean` is at most [`MOST_MEAN`], for whose `e^-mean` f64 has room.
pub(super) fn poisson(uniform: f64, mean: f64) -> usize {
    let mut probability = (-mean).exp();
    let mut below = probability;
    let mut n = 0;
    // The bound is for sums that stay below `uniform` by rounding.
    while uniform >= below && n < 1000 {
        n += 1;
        probability *= mean / n as f64;
        below += probability;
    }
    n
}

/// Largest mean of [`poisson`].
pub(super) const MOST_MEAN: f32 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisson_distribution_has_its_probabilities() {
        let n = 100_000;
        let mut counts = [0; 12];
        for at in 0..n {
            let drawn = poisson(f64::from(Seed::new(4).uniform(at)), 3.0);
            counts[drawn.min(11)] += 1;
        }
        // e^-3 3^k / k!
        let expected = [0.049787, 0.149361, 0.224042, 0.224042, 0.168031, 0.100819, 0.050409];
        for (k, expected) in expected.into_iter().enumerate() {
            let found = f64::from(counts[k]) / n as f64;
            assert!((found - expected).abs() < 0.004, "{k}: {found} is not {expected}");
        }
        assert_eq!((poisson(0.0, 3.0), poisson(1.0 - 1e-9, 0.0), poisson(1.0, 3.0)), (0, 0, 1000));
    }

    #[test]
    fn every_choice_is_as_likely_as_another() {
        let mut counts = std::collections::HashMap::new();
        for at in 0..6000 {
            *counts.entry(choose(Seed::new(at), 2, 4)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (850..1150).contains(n)), "{counts:?}");
    }
}
