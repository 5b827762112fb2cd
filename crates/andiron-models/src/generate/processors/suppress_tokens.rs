//! Suppressed token ids.

use super::{LogitsProcessor, Place, Scores};

/// Masks some ids.
///
/// Source: `SuppressTokensLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct SuppressTokens(Vec<u32>);

impl SuppressTokens {
    pub(super) fn new(ids: &[u32]) -> Option<Self> {
        (!ids.is_empty()).then(|| Self(ids.to_vec()))
    }
}

impl LogitsProcessor for SuppressTokens {
    fn process(&self, _: Place<'_>, scores: &mut Scores<'_>) {
        self.0.iter().for_each(|&id| scores.mask(id));
    }
}

/// Masks some ids at the first generated position.
///
/// Source: `SuppressTokensAtBeginLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct SuppressTokensAtBegin {
    ids: Vec<u32>,
    /// Length, prompt included, at which they are masked.
    begin: usize,
}

impl SuppressTokensAtBegin {
    pub(super) fn new(ids: &[u32], begin: usize) -> Option<Self> {
        (!ids.is_empty()).then(|| Self { ids: ids.to_vec(), begin })
    }
}

impl LogitsProcessor for SuppressTokensAtBegin {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        if at.ids.len() == self.begin {
            self.ids.iter().for_each(|&id| scores.mask(id));
        }
    }
}
