//! Task `score`: log-probability of each token of a sequence, given the tokens before it.

use andiron_core::{Forward, ids};
use andiron_data::tokenizer::{Special, Tokenizer, TokenizerError};
use andiron_models::generate::log_sum_exp;
use andiron_models::{Decoder, EncoderDecoder};
use burn::tensor::{Device, Int, Tensor};
use serde::Serialize;

use crate::batching::{BATCH_TOKENS, for_good, in_batches};
use crate::input::PromptInput;
use crate::text_processor::TextError;
use crate::{DecoderPipeline, Seq2SeqPipeline, TextProcessor};

/// Logits on the host at one time, in elements: 64 MiB of f32.
pub(crate) const LOGITS_AT_ONCE: usize = 1 << 24;

/// The scores of a sequence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Natural-log probability of each token, given the tokens before it; `None` for the first token of a text.
    pub logprobs: Vec<Option<f32>>,
    /// Sum of the log-probabilities; 0 for a sequence of fewer than two tokens.
    pub sum_logprob: f64,
    /// Whether each token is the likeliest one at its position (ties: the lowest id); `None` where there is no log-probability.
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
/// `device` holds the model's weights and has no autodiff.
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
    check(ids, context, model.head().dims()[0])?;
    Ok(score_batch(model, &[ids], device).pop().unwrap_or_default())
}

/// [`score`] of several sequences in one pass of the model, which have been checked.
fn score_batch(model: &impl Decoder, batch: &[&[u32]], device: &Device) -> Vec<Scores> {
    let vocab_size = model.head().dims()[0];
    // The last token is only predicted.
    let read: Vec<&[u32]> = batch.iter().map(|ids| &ids[..ids.len().saturating_sub(1)]).collect();
    let columns = read.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let first = |ids: &&[u32]| match ids.is_empty() {
        true => Scores::default(),
        false => Scores { logprobs: vec![None], sum_logprob: 0.0, is_greedy: vec![None] },
    };
    let mut all: Vec<Scores> = batch.iter().map(first).collect();
    if columns > 0 {
        // No token sees what stands behind it, so rows need no mask.
        let hidden_btd = model.hidden(upload(&read, columns, device), &mut Forward::evaluation());
        for (row, (scores, ids)) in all.iter_mut().zip(batch).enumerate() {
            let targets = ids.get(1..).unwrap_or_default();
            scores.add(&hidden_btd, row, targets, vocab_size, |rows_btd| model.logits(rows_btd));
        }
    }
    all
}

/// Sequences as rows of `columns` ids, filled up on the right.
fn upload(sequences: &[&[u32]], columns: usize, device: &Device) -> Tensor<2, Int> {
    let mut flat = Vec::with_capacity(sequences.len() * columns);
    for (row, ids) in sequences.iter().enumerate() {
        flat.extend_from_slice(ids);
        flat.resize((row + 1) * columns, 0);
    }
    ids::upload(&flat, [sequences.len(), columns], device)
}

/// Scores every token of a target given a source, the target beginning after the id `start`, which is not scored.
///
/// Every token has a score. Source and target have at most `context` tokens, `start` not counted.
///
/// # Errors
/// If one is longer than `context`, the source is empty, or an id is outside its vocabulary.
///
/// # Panics
/// If `context` is more than the model can read.
pub fn score_target(
    model: &impl EncoderDecoder,
    [source, target]: [&[u32]; 2],
    start: u32,
    [source_vocab, context]: [usize; 2],
    device: &Device,
) -> Result<Scores, ScoreError> {
    check(source, context, source_vocab)?;
    let vocab_size = model.head().dims()[0];
    check(target, context, vocab_size)?;
    if source.is_empty() {
        return Err(ScoreError::EmptySource);
    }
    let mut scores = Scores::default();
    if let Some((_, before)) = target.split_last() {
        let cross_cache = model.encode(upload(&[source], source.len(), device), &mut Forward::evaluation());
        let read = [&[start], before].concat();
        let read_bt = upload(&[&read], read.len(), device);
        let hidden_btd = model.hidden(read_bt, &cross_cache, &mut Forward::evaluation());
        scores.add(&hidden_btd, 0, target, vocab_size, |rows_btd| model.logits(rows_btd));
    }
    Ok(scores)
}

fn check(ids: &[u32], context: usize, vocab_size: usize) -> Result<(), ScoreError> {
    if ids.len() > context {
        return Err(ScoreError::TooLong { tokens: ids.len(), context });
    }
    match ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
        Some((position, &id)) => Err(ScoreError::UnknownId { id, position, vocab_size }),
        None => Ok(()),
    }
}

impl Scores {
    /// Adds the scores of `targets`, each predicted by the hidden state at its position in `row`.
    fn add(
        &mut self,
        hidden_btd: &Tensor<3>,
        row: usize,
        targets: &[u32],
        vocab_size: usize,
        logits: impl Fn(Tensor<3>) -> Tensor<3>,
    ) {
        let d = hidden_btd.dims()[2];
        let block = (LOGITS_AT_ONCE / vocab_size).max(1);
        for (number, targets) in targets.chunks(block).enumerate() {
            let start = number * block;
            let rows_btd = hidden_btd.clone().slice([row..row + 1, start..start + targets.len(), 0..d]);
            let logits = logits(rows_btd).into_data().convert::<f32>();
            let logits = logits.as_slice::<f32>().expect("just converted to f32");
            for (logits, &target) in logits.chunks_exact(vocab_size).zip(targets) {
                let logprob = logits[target as usize] - log_sum_exp(logits);
                self.logprobs.push(Some(logprob));
                self.sum_logprob += f64::from(logprob);
                self.is_greedy.push(Some(most_likely(logits) == target as usize));
            }
        }
    }
}

/// The lowest id with the highest logit.
pub(crate) fn most_likely(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// A text and its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredText {
    /// Its ids.
    pub ids: Vec<u32>,
    /// Their scores.
    pub scores: Scores,
    /// Bytes of the text that they spell; `None` without a tokenizer.
    pub bytes: Option<usize>,
}

/// A source and the target to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScorePair {
    /// The source.
    pub source: PromptInput,
    /// The target.
    pub target: PromptInput,
}

/// Why a text cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreTextError {
    /// Tokenizing or decoding fails.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Its ids cannot be scored.
    #[error(transparent)]
    Score(#[from] ScoreError),
}

impl DecoderPipeline {
    /// The scores of each text. Nothing is added in place of an empty text, unlike for a prompt.
    pub fn score(&self, texts: &[PromptInput]) -> Vec<Result<ScoredText, ScoreTextError>> {
        let bundle = &self.bundle;
        let context = bundle.config.max_positions();
        let vocab_size = bundle.model.head().dims()[0];
        let ids = |text: &PromptInput| -> Result<Vec<u32>, ScoreTextError> {
            let ids = bare_ids(text, self.text.tokenizer(), Tokenizer::encode_bare_prompt)?;
            check(&ids, context, vocab_size)?;
            Ok(ids)
        };
        let scored = for_good(texts.iter().map(ids).collect(), |good: &[Vec<u32>]| {
            let scores = in_batches(good, Vec::len, BATCH_TOKENS, |batch| {
                let batch: Vec<&[u32]> = batch.iter().map(|ids| ids.as_slice()).collect();
                bundle.precision().run(|| score_batch(&bundle.model, &batch, bundle.device()))
            });
            good.iter().cloned().zip(scores).collect()
        });
        scored
            .into_iter()
            .map(|row| row.and_then(|(ids, scores)| scored_text(&self.text, ids, scores)))
            .collect()
    }
}

impl Seq2SeqPipeline {
    /// The scores of each target, given its source.
    pub fn score(&self, pairs: &[ScorePair]) -> Vec<Result<ScoredText, ScoreTextError>> {
        let bundle = &self.bundle;
        let sizes = [bundle.config.vocab_size(), bundle.config.max_positions()];
        let score = |pair: &ScorePair| -> Result<ScoredText, ScoreTextError> {
            let source = bare_ids(&pair.source, self.text.tokenizer(), Tokenizer::encode_prompt)?;
            let target = bare_ids(&pair.target, self.text.target_tokenizer()?, Tokenizer::encode_prompt)?;
            let score =
                || score_target(&bundle.model, [&source, &target], bundle.start_id(), sizes, bundle.device());
            let scores = bundle.precision().run(score)?;
            scored_text(&self.text, target, scores)
        };
        pairs.iter().map(score).collect()
    }
}

/// The ids of an input; `encode` tokenizes a text.
fn bare_ids(
    input: &PromptInput,
    tokenizer: Option<&Tokenizer>,
    encode: impl FnOnce(&Tokenizer, &str) -> Result<Vec<u32>, TokenizerError>,
) -> Result<Vec<u32>, TextError> {
    match input {
        PromptInput::Ids(ids) => Ok(ids.clone()),
        PromptInput::Text(text) => Ok(encode(tokenizer.ok_or(TextError::NoTokenizer)?, text)?),
    }
}

fn scored_text(text: &TextProcessor, ids: Vec<u32>, scores: Scores) -> Result<ScoredText, ScoreTextError> {
    let decode = |tokenizer: &Tokenizer| tokenizer.decode(&ids, Special::Skip).map(|text| text.len());
    let bytes = text.tokenizer().map(decode).transpose().map_err(TextError::from)?;
    Ok(ScoredText { ids, scores, bytes })
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
    /// The source is empty.
    #[error("the source has no token")]
    EmptySource,
    /// A continuation, or what stands before it, is empty.
    #[error("the continuation or what stands before it has no token")]
    EmptyContinuation,
    /// An id is not in the vocabulary.
    #[error("token id {id} at position {position} is not below the model's vocabulary size {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// Its position.
        position: usize,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
}

#[cfg(test)]
mod tests {
    use andiron_kernels::random::Seed;
    use andiron_models::{Seq2SeqConfig, Seq2SeqModel};

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

    fn tiny_bart() -> Seq2SeqModel {
        let config = serde_json::json!({
            "model_type": "bart", "vocab_size": VOCAB, "d_model": 16, "max_position_embeddings": CONTEXT + 1,
            "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.6,
        });
        serde_json::from_value::<Seq2SeqConfig>(config).unwrap().init(Seed::new(5), &device())
    }

    #[test]
    fn every_token_of_a_target_has_a_score() {
        let (model, source) = (tiny_bart(), stream(5));
        let score = |source: &[u32], target: &[u32]| {
            score_target(&model, [source, target], 2, [VOCAB, CONTEXT], &device())
        };
        assert_eq!(score(&source, &[]).unwrap(), Scores::default());
        let mut total = 0.0;
        for id in 0..VOCAB as u32 {
            total += f64::from(score(&source, &[id]).unwrap().logprobs[0].unwrap()).exp();
        }
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        let (long, short) = (score(&source, &stream(CONTEXT)).unwrap(), score(&source, &stream(4)).unwrap());
        for (long, short) in long.logprobs.iter().zip(&short.logprobs) {
            assert!((long.unwrap() - short.unwrap()).abs() < 1e-5);
        }
        let other = score(&stream(4), &stream(4)).unwrap();
        assert_ne!(other.sum_logprob, short.sum_logprob);
        assert_eq!(score(&[], &[1]).unwrap_err(), ScoreError::EmptySource);
        assert!(matches!(score(&[99], &[1]).unwrap_err(), ScoreError::UnknownId { id: 99, .. }));
        let long = score(&source, &stream(CONTEXT + 1)).unwrap_err();
        assert_eq!(long, ScoreError::TooLong { tokens: CONTEXT + 1, context: CONTEXT });
    }
}
