//! Log-probabilities under the model's own distribution.

use std::cmp::Ordering;

use andiron_kernels::{Isa, logits};

/// Natural logarithm of the sum of exponentials, so that `logits[i] - log_sum_exp(logits)` is the log-probability of `i`.
///
/// Nothing overflows. Minus infinity for an empty row or one of minus infinities only; NaN if a logit is NaN or infinity.
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    logits::log_sum_exp(Isa::best(), logits)
}

/// The `n` likeliest ids with their natural-log probabilities, best first, lower id first among equals.
///
/// Ids with a logit of minus infinity are left out, so there may be fewer than `n`. Linear in the row: only the `n`
/// kept ids are sorted.
pub fn top_logprobs(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    top_given(logits, n, log_sum_exp(logits))
}

/// [`top_logprobs`] given the row's [`log_sum_exp`].
pub(super) fn top_given(logits: &[f32], n: usize, log_sum: f32) -> Vec<(u32, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(2 * n.min(logits.len()));
    let mut floor = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        // Ids ascend, so a later equal never displaces an earlier one.
        if logit > floor {
            best.push((id as u32, logit));
            if best.len() >= 2 * n {
                best.select_nth_unstable_by(n - 1, likelier_first);
                best.truncate(n);
                floor = best[n - 1].1;
            }
        }
    }
    best.sort_unstable_by(likelier_first);
    best.truncate(n);
    best.iter_mut().for_each(|(_, logit)| *logit -= log_sum);
    best
}

pub(super) fn likelier_first(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_of_two_equal_logits_adds_ln_two() {
        assert!((log_sum_exp(&[1.0, 1.0]) - (1.0 + std::f32::consts::LN_2)).abs() < 1e-6);
        assert!((log_sum_exp(&[1e4, 1e4]) - (1e4 + std::f32::consts::LN_2)).abs() < 1e-2);
        assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY, 3.0]), 3.0);
    }

    #[test]
    fn the_best_come_first_and_ties_go_to_the_lower_id() {
        let top = top_logprobs(&[0.0, 2.0, 1.0, 2.0], 3);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2]);
        // 2 - ln(1 + e + 2 e^2) = 2 - ln 18.49639
        assert!((top[0].1 + 0.917_575_8).abs() < 1e-5, "{}", top[0].1);
    }

    #[test]
    fn impossible_ids_are_left_out() {
        assert_eq!(top_logprobs(&[f32::NEG_INFINITY, 0.0], 5), [(1, 0.0)]);
        assert!(top_logprobs(&[1.0], 0).is_empty());
    }

    proptest! {
        #[test]
        fn the_selection_equals_a_full_sort(logits in prop::collection::vec(-4i8..4, 0..200), n in 0usize..40) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut sorted: Vec<(u32, f32)> = logits.iter().enumerate().map(|(id, &l)| (id as u32, l)).collect();
            sorted.sort_by(likelier_first);
            sorted.truncate(n);
            let ids: Vec<u32> = top_logprobs(&logits, n).into_iter().map(|t| t.0).collect();
            prop_assert_eq!(ids, sorted.into_iter().map(|t| t.0).collect::<Vec<_>>());
        }
    }
}
