//! DRY: penalizes continuing a repeat, the more the longer it is.

use super::super::SamplingParams;
use super::super::repeats::for_each_continuation;
use super::{LogitsProcessor, Place, Scores};

/// Subtracts from the score of an id that would continue a repeat: DRY of llama.cpp.
#[derive(Debug)]
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    sequence_breakers: Vec<u32>,
}

impl Dry {
    pub(super) fn new(params: &SamplingParams) -> Option<Self> {
        (params.dry_multiplier > 0.0).then(|| Self {
            multiplier: params.dry_multiplier,
            base: params.dry_base,
            allowed_length: params.dry_allowed_length,
            sequence_breakers: params.dry_sequence_breakers.clone(),
        })
    }
}

impl LogitsProcessor for Dry {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        for_each_continuation(at.ids, &self.sequence_breakers, |id, len| {
            if let Some(beyond) = len.checked_sub(self.allowed_length) {
                let penalty = self.multiplier * self.base.powf(beyond as f32);
                scores.apply(id, |score| score - penalty.min(f32::MAX));
            }
        });
    }
}
