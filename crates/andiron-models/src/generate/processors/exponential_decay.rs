//! Exponential length penalty: raises the scores of stop ids from some length on.

use super::{LogitsProcessor, Place, Scores};

/// Adds `|score| · (factor ^ ids beyond start − 1)` to the scores of the stop ids.
///
/// Source: `ExponentialDecayLengthPenalty` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct ExponentialDecayLengthPenalty {
    /// Length, prompt included, after which it applies.
    start: i64,
    factor: f64,
    ends: Vec<u32>,
}

impl ExponentialDecayLengthPenalty {
    /// `penalty`: number of generated ids after which it applies, and factor.
    pub(super) fn new(penalty: Option<(i64, f64)>, ends: &[u32], prompt_len: usize) -> Option<Self> {
        let (generated, factor) = penalty.filter(|_| !ends.is_empty())?;
        let start = generated.saturating_add(i64::try_from(prompt_len).unwrap_or(i64::MAX));
        Some(Self { start, factor, ends: ends.to_vec() })
    }
}

impl LogitsProcessor for ExponentialDecayLengthPenalty {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        let beyond = i64::try_from(at.ids.len()).unwrap_or(i64::MAX).saturating_sub(self.start);
        if beyond > 0 {
            let grown = (self.factor.powf(beyond as f64) - 1.0) as f32;
            for &id in &self.ends {
                scores.apply(id, |score| score + score.abs() * grown);
            }
        }
    }
}
