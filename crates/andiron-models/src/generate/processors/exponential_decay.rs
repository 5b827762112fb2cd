//! From some length on, the end becomes ever more likely.

use super::{LogitsProcessor, Place, Scores};

/// Multiplies the scores of the ids that end a text, by a factor to the power of the ids beyond a number of them.
///
/// Source: `ExponentialDecayLengthPenalty` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct ExponentialDecayLengthPenalty {
    /// Length, prompt included, from which on it counts.
    start: i64,
    factor: f64,
    ends: Vec<u32>,
}

impl ExponentialDecayLengthPenalty {
    /// A penalty from so many generated ids on, and its factor.
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
