//! Minimum length.

use super::{LogitsProcessor, Place, Scores};

/// Masks the stop ids below a minimum length, prompt included.
///
/// Source: `MinLengthLogitsProcessor` and `MinNewTokensLengthLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct MinLength {
    least: usize,
    ends: Vec<u32>,
}

impl MinLength {
    pub(super) fn new(least: usize, ends: &[u32]) -> Option<Self> {
        (least > 0 && !ends.is_empty()).then(|| Self { least, ends: ends.to_vec() })
    }
}

impl LogitsProcessor for MinLength {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        if at.ids.len() < self.least {
            self.ends.iter().for_each(|&id| scores.mask(id));
        }
    }
}
