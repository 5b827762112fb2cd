//! Gradient clipping by global norm.

/// Global gradient norm, given the sum of squares of each gradient.
///
/// Summed in f64 in the order given, so the result does not depend on threads.
pub fn global_norm(square_sums: &[f32]) -> f64 {
    square_sums.iter().map(|&square| f64::from(square)).sum::<f64>().sqrt()
}

/// Factor that scales gradients of global norm `norm` to at most `limit`; a limit of 0 means no clipping.
///
/// As in `torch.nn.utils.clip_grad_norm_`, 1e-6 is added to the norm.
///
/// Source: Pascanu, Mikolov and Bengio 2013, <https://arxiv.org/abs/1211.5063>.
pub fn clip_scale(norm: f64, limit: f64) -> f32 {
    if limit == 0.0 {
        return 1.0;
    }
    (limit / (norm + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_that_of_all_parts_together() {
        assert_eq!(global_norm(&[9.0, 16.0]), 5.0);
        assert_eq!(global_norm(&[]), 0.0);
        assert!(global_norm(&[f32::NAN, 1.0]).is_nan());
        assert_eq!(global_norm(&[f32::INFINITY, 1.0]), f64::INFINITY);
    }

    #[test]
    fn only_long_gradients_are_shortened() {
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(0.0, 1.0), 1.0);
        assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_scale(4.0, 0.0), 1.0);
    }
}
