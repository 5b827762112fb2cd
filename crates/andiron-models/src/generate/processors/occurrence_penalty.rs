//! Presence and frequency penalties.

use super::{LogitsProcessor, Place, Scores};

/// Subtracts from the score of each generated id: once (presence), and once per occurrence (frequency).
///
/// Source: `presence_penalty` and `frequency_penalty` of OpenAI's API, which count generated ids only.
#[derive(Debug)]
pub(super) struct OccurrencePenalty {
    presence: f32,
    frequency: f32,
}

impl OccurrencePenalty {
    pub(super) fn new(presence: f32, frequency: f32) -> Option<Self> {
        (presence != 0.0 || frequency != 0.0).then_some(Self { presence, frequency })
    }
}

impl LogitsProcessor for OccurrencePenalty {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        let mut ids = at.generated().to_vec();
        ids.sort_unstable();
        for run in ids.chunk_by(|a, b| a == b) {
            let penalty = self.presence + self.frequency * run.len() as f32;
            scores.apply(run[0], |score| score - penalty);
        }
    }
}
