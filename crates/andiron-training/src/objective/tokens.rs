//! What objectives that predict tokens have in common.

use andiron_eval::{LossReport, LossSum};

use super::{Measured, Metrics};

/// Perplexity, bits per token and, if the text is known, bits per byte.
pub fn token_metrics(measured: &Measured) -> Metrics {
    let Measured { loss, n_targets, bytes_per_target } = *measured;
    let mut sum = LossSum::default();
    sum.add(loss * n_targets as f64, n_targets);
    let bytes = bytes_per_target.map(|bytes| (bytes * n_targets as f64).round() as u64);
    let LossReport { perplexity, bits_per_token, bits_per_byte, .. } =
        LossReport::new(sum, bytes.filter(|&bytes| bytes > 0));
    let mut values =
        vec![("perplexity".to_owned(), perplexity), ("bits_per_token".to_owned(), bits_per_token)];
    values.extend(bits_per_byte.map(|bits| ("bits_per_byte".to_owned(), bits)));
    Metrics { values, confusion: None }
}
