//! Forced token ids.

use super::{LogitsProcessor, Place, Scores};

/// Forces the id in the second position.
///
/// Source: `ForcedBOSTokenLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct ForcedBosToken(u32);

impl ForcedBosToken {
    pub(super) fn new(id: Option<u32>) -> Option<Self> {
        id.map(Self)
    }
}

impl LogitsProcessor for ForcedBosToken {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        if at.ids.len() == 1 {
            scores.force(&[self.0]);
        }
    }
}

/// Forces one of these ids at the maximum length.
///
/// Source: `ForcedEOSTokenLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct ForcedEosToken {
    ids: Vec<u32>,
    longest: usize,
}

impl ForcedEosToken {
    pub(super) fn new(ids: &[u32], longest: usize) -> Option<Self> {
        (!ids.is_empty()).then(|| Self { ids: ids.to_vec(), longest })
    }
}

impl LogitsProcessor for ForcedEosToken {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        if at.ids.len() + 1 == self.longest {
            scores.force(&self.ids);
        }
    }
}
