//! Log-probability of each token of a sequence, given all before it.

use andiron_core::Forward;
use andiron_models::Decoder;
use andiron_models::generate::log_sum_exp;
use burn::tensor::Device;
use serde::Serialize;

use super::batch::upload_rows;

/// Logits on the host at one time, in elements: 64 MiB of f32.
const LOGITS_AT_ONCE: usize = 1 << 24;

/// What a model thinks of a sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Natural-log probability of each token given all before it; `None` for the first, which has none before.
    pub logprobs: Vec<Option<f32>>,
    /// Sum of the log-probabilities; 0 for a sequence of fewer than two tokens.
    pub sum_logprob: f64,
    /// Whether each token is the most likely one at its place (the lowest id among equals); `None` for the first.
    pub is_greedy: Vec<Option<bool>>,
}

impl Scores {
    /// Whether greedy decoding from the first token would have written exactly this sequence.
    pub fn all_greedy(&self) -> bool {
        self.is_greedy.iter().all(|greedy| *greedy != Some(false))
    }
}

/// Scores every token of `ids`, a sequence of at most `context` tokens.
///
/// `device` is a plain one (no autodiff) and holds the model's weights.
///
/// # Errors
/// If the sequence is longer than `context` or an id is outside the vocabulary.
///
/// # Panics
/// If a sequence of `context − 1` tokens is longer than the model can read: the last token is only predicted.
pub fn score(
    model: &impl Decoder,
    ids: &[u32],
    context: usize,
    device: &Device,
) -> Result<Scores, ScoreError> {
    if ids.len() > context {
        return Err(ScoreError::TooLong { tokens: ids.len(), context });
    }
    let vocab_size = model.head().dims()[0];
    if let Some((position, &id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
        return Err(ScoreError::UnknownId { id, position, vocab_size });
    }
    let Some((_, targets)) = ids.split_first() else { return Ok(Scores::default()) };
    let mut scores = Scores { logprobs: vec![None], sum_logprob: 0.0, is_greedy: vec![None] };
    if targets.is_empty() {
        return Ok(scores);
    }
    let read = &ids[..targets.len()];
    let hidden_btd = model.hidden(upload_rows(read, 1, device), &mut Forward::evaluation());
    let d = hidden_btd.dims()[2];
    let block = (LOGITS_AT_ONCE / vocab_size).max(1);
    for (number, targets) in targets.chunks(block).enumerate() {
        let start = number * block;
        let rows_btd = hidden_btd.clone().slice([0..1, start..start + targets.len(), 0..d]);
        let logits = model.logits(rows_btd).into_data().convert::<f32>();
        let logits = logits.as_slice::<f32>().expect("just converted to f32");
        for (logits, &target) in logits.chunks_exact(vocab_size).zip(targets) {
            let logprob = logits[target as usize] - log_sum_exp(logits);
            scores.logprobs.push(Some(logprob));
            scores.sum_logprob += f64::from(logprob);
            scores.is_greedy.push(Some(most_likely(logits) == target as usize));
        }
    }
    Ok(scores)
}

/// The lowest id with the highest logit.
fn most_likely(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// Why a sequence cannot be scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScoreError {
    /// The sequence does not fit the context.
    #[error("the sequence has {tokens} tokens, the model reads at most {context}: shorten it")]
    TooLong {
        /// Tokens in the sequence.
        tokens: usize,
        /// The limit.
        context: usize,
    },
    /// An id is not in the vocabulary.
    #[error("token id {id} at position {position} is not below the model's vocabulary size {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONTEXT, VOCAB, device, stream, tiny};

    #[test]
    fn the_first_token_has_no_score() {
        let model = tiny();
        assert_eq!(score(&model, &[], CONTEXT, &device()).unwrap(), Scores::default());
        let one = score(&model, &[3], CONTEXT, &device()).unwrap();
        assert_eq!((one.logprobs, one.sum_logprob, one.is_greedy), (vec![None], 0.0, vec![None]));
        let many = score(&model, &stream(6), CONTEXT, &device()).unwrap();
        assert_eq!((many.logprobs.len(), many.is_greedy.len()), (6, 6));
        assert!(many.logprobs[1..].iter().all(|logprob| logprob.is_some_and(|value| value < 0.0)));
    }

    #[test]
    fn probabilities_of_all_continuations_sum_to_one() {
        let (model, prefix) = (tiny(), stream(5));
        let mut total = 0.0;
        let mut greedy = 0;
        for id in 0..VOCAB as u32 {
            let ids = [prefix.as_slice(), &[id]].concat();
            let scores = score(&model, &ids, CONTEXT, &device()).unwrap();
            total += f64::from(scores.logprobs[5].unwrap()).exp();
            greedy += usize::from(scores.is_greedy[5].unwrap());
        }
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        assert_eq!(greedy, 1);
    }

    #[test]
    fn a_longer_text_does_not_change_the_scores_of_its_beginning() {
        let (model, ids) = (tiny(), stream(CONTEXT));
        let whole = score(&model, &ids, CONTEXT, &device()).unwrap();
        let part = score(&model, &ids[..5], CONTEXT, &device()).unwrap();
        for (whole, part) in whole.logprobs.iter().zip(&part.logprobs).skip(1) {
            assert!((whole.unwrap() - part.unwrap()).abs() < 1e-5);
        }
        let sum: f64 = whole.logprobs.iter().flatten().map(|&logprob| f64::from(logprob)).sum();
        assert_eq!(whole.sum_logprob, sum);
    }

    #[test]
    fn greedy_text_is_recognised() {
        let model = tiny();
        let mut ids = vec![1];
        while ids.len() < 6 {
            let next = (0..VOCAB as u32).find(|&id| {
                let ids = [ids.as_slice(), &[id]].concat();
                score(&model, &ids, CONTEXT, &device()).unwrap().all_greedy()
            });
            ids.push(next.unwrap());
        }
        assert!(score(&model, &ids, CONTEXT, &device()).unwrap().all_greedy());
        ids[5] = (ids[5] + 1) % VOCAB as u32;
        assert!(!score(&model, &ids, CONTEXT, &device()).unwrap().all_greedy());
    }

    #[test]
    fn bad_sequences_are_refused() {
        let model = tiny();
        let long = score(&model, &stream(CONTEXT + 1), CONTEXT, &device()).unwrap_err();
        assert_eq!(long, ScoreError::TooLong { tokens: CONTEXT + 1, context: CONTEXT });
        let unknown = score(&model, &[0, 99], CONTEXT, &device()).unwrap_err();
        assert_eq!(unknown, ScoreError::UnknownId { id: 99, position: 1, vocab_size: VOCAB });
    }
}
