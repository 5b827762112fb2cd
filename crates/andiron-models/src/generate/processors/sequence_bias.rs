//! Biases on ids and sequences of ids.

use std::collections::BTreeMap;

use super::{LogitsProcessor, Place, Scores};

/// Adds to the score of the id that completes a sequence.
///
/// Source: `SequenceBiasLogitsProcessor` and `NoBadWordsLogitsProcessor` of Hugging Face transformers; `logit_bias` of
/// OpenAI's API for single ids.
#[derive(Debug)]
pub(super) struct SequenceBias {
    /// Ids and their bias.
    single: Vec<(u32, f32)>,
    /// Prefix of the sequence, the id that completes it, and its bias.
    longer: Vec<(Vec<u32>, u32, f32)>,
}

impl SequenceBias {
    /// From single ids; biases of an id given twice add up.
    pub(super) fn of_ids(bias: &[(u32, f32)]) -> Option<Self> {
        (!bias.is_empty()).then(|| Self { single: bias.to_vec(), longer: Vec::new() })
    }

    /// From sequences; of equal ones the last counts.
    pub(super) fn of_sequences(sequences: &[(Vec<u32>, f32)]) -> Option<Self> {
        Self::of(sequences.iter().map(|(sequence, bias)| (sequence.as_slice(), *bias)))
    }

    /// From `bad_words_ids`: masks sequences, except single stop ids.
    pub(super) fn of_bad_words(words: &[Vec<u32>], ends: &[u32]) -> Option<Self> {
        let banned = |word: &&[u32]| !matches!(word, [id] if ends.contains(id));
        Self::of(words.iter().map(Vec::as_slice).filter(banned).map(|word| (word, f32::NEG_INFINITY)))
    }

    fn of<'a>(sequences: impl Iterator<Item = (&'a [u32], f32)>) -> Option<Self> {
        let (mut single, mut longer) = (Vec::new(), Vec::new());
        for (sequence, bias) in sequences.collect::<BTreeMap<_, _>>() {
            match sequence {
                [] => {}
                [id] => single.push((*id, bias)),
                [before @ .., id] => longer.push((before.to_vec(), *id, bias)),
            }
        }
        (!single.is_empty() || !longer.is_empty()).then_some(Self { single, longer })
    }
}

impl LogitsProcessor for SequenceBias {
    fn process(&self, at: Place<'_>, scores: &mut Scores<'_>) {
        for &(id, bias) in &self.single {
            scores.apply(id, |score| score + bias);
        }
        for (before, id, bias) in &self.longer {
            if at.ids.ends_with(before) {
                scores.apply(*id, |score| score + bias);
            }
        }
    }
}
