//! Repetition penalties.

use super::{LogitsProcessor, Place, Scores};

/// Divides the positive and multiplies the negative scores of all ids in the text.
///
/// Source: `RepetitionPenaltyLogitsProcessor` of Hugging Face transformers; Keskar et al. 2019, "CTRL",
/// <https://arxiv.org/abs/1909.05858>.
#[derive(Debug)]
pub(super) struct RepetitionPenalty(f32);

impl RepetitionPenalty {
    pub(super) fn new(penalty: f32) -> Option<Self> {
        (penalty != 1.0).then_some(Self(penalty))
    }
}

impl LogitsProcessor for RepetitionPenalty {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        penalize(&unique(at.ids), self.0, scores);
    }
}

/// The inverse for ids of the source: values above 1 favour them.
///
/// Source: `EncoderRepetitionPenaltyLogitsProcessor` of Hugging Face transformers.
#[derive(Debug)]
pub(super) struct EncoderRepetitionPenalty {
    source: Vec<u32>,
    penalty: f32,
}

impl EncoderRepetitionPenalty {
    pub(super) fn new(penalty: Option<f32>, source: &[u32]) -> Option<Self> {
        let penalty = penalty.filter(|&penalty| penalty != 1.0)?;
        Some(Self { source: unique(source), penalty: 1.0 / penalty })
    }
}

impl LogitsProcessor for EncoderRepetitionPenalty {
    fn process(&self, _: Place<'_>, scores: &mut Scores<'_>) {
        penalize(&self.source, self.penalty, scores);
    }
}

fn penalize(ids: &[u32], penalty: f32, scores: &mut Scores<'_>) {
    for &id in ids {
        scores.apply(id, |score| if score < 0.0 { score * penalty } else { score / penalty });
    }
}

/// Each id once.
fn unique(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}
