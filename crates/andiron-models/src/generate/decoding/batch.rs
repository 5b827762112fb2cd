//! Offline batch generation: several prompts, one forward pass per step.

use std::ops::ControlFlow;

use super::{Decoding, FinishReason, GenerateError, GenerateOptions, Ground, Token, WhenFull};
use crate::generate::GenerationConfig;

/// A causal language model that decodes a fixed batch of sequences.
pub trait BatchedLm {
    /// The state of all sequences: their KV cache.
    type State;

    /// Vocabulary size.
    fn vocab_size(&self) -> usize;

    /// Context length: maximum number of prompt and generated ids of a sequence.
    fn context_len(&self) -> usize;

    /// Prefills prompts of any lengths: returns their state, and the logits after each.
    ///
    /// # Shape
    /// `[n]` prompts → `[n, vocab_size]`, row-major.
    ///
    /// # Panics
    /// If there is no prompt, or one is empty or longer than [`context_len`](Self::context_len).
    fn prefill(&self, prompts: &[&[u32]]) -> (Self::State, Vec<f32>);

    /// A decode step: replaces the sequences by those at `rows`, in this order, and appends one id to each. A row may
    /// be dropped, or repeated to be continued in several ways.
    ///
    /// # Shape
    /// `rows` and `ids`: `[n]` → `[n, vocab_size]`, row-major.
    fn decode_step(&self, state: &mut Self::State, rows: &[usize], ids: &[u32]) -> Vec<f32>;

    /// The model's generation config. Its rules, such as `suppress_tokens`, apply to every generation.
    fn generation_config(&self) -> Option<&GenerationConfig> {
        None
    }

    /// Source token ids of an encoder-decoder for the prompt of this number; `None` if the model reads prompts only.
    fn source(&self, prompt: usize) -> Option<&[u32]> {
        let _ = prompt;
        None
    }
}

/// The result of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Generated tokens, a final stop id included.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Generates for several prompts as one batch, each with its own options. A step costs little more for many rows than
/// for one; finished rows leave the batch.
///
/// Each row gets the result that it would get alone; on backends that are not batch-invariant up to rounding, which can swap
/// nearly equal logits. `show` is called with each token and the index of its prompt, and ends that
/// row by [`ControlFlow::Break`]. An error of one row does not affect the others.
///
/// [`GenerateOptions::score_prompt`] and [`WhenFull::Slide`] are not supported, since they need a state per sequence.
/// [`GenerateOptions::prompt_lookup`] and [`GenerateOptions::prefill_chunk`] do not change results and are ignored.
///
/// # Panics
/// If the model breaks its contract on the number of logits.
pub fn generate_batch<M: BatchedLm>(
    model: &M,
    requests: Vec<(Vec<u32>, GenerateOptions)>,
    mut show: impl FnMut(usize, &Token) -> ControlFlow<()>,
) -> Vec<Result<Generated, GenerateError>> {
    let (vocab_size, context) = (model.vocab_size(), model.context_len());
    let files = model.generation_config();
    let row = |(number, (prompt, options)): (usize, (Vec<u32>, GenerateOptions))| {
        Row::new(Ground { vocab_size, context, files, source: model.source(number) }, &prompt, options)
    };
    let mut rows: Vec<Result<Row, GenerateError>> = requests.into_iter().enumerate().map(row).collect();
    // Numbers of the requests whose sequences the model holds.
    let mut running: Vec<usize> = (0..rows.len()).filter(|&number| goes_on(&rows[number])).collect();
    let prompts: Vec<&[u32]> = rows.iter().filter(|row| goes_on(row)).flatten().map(Row::prompt).collect();
    if prompts.is_empty() {
        return rows.into_iter().map(|row| row.map(Row::finish)).collect();
    }
    let (mut state, mut logits) = model.prefill(&prompts);
    loop {
        assert_eq!(logits.len(), running.len() * vocab_size, "a row of logits for each sequence");
        let (mut kept, mut ids) = (Vec::new(), Vec::new());
        for (at, logits_v) in logits.chunks_exact_mut(vocab_size).enumerate() {
            let number = running[at];
            let Ok(row) = &mut rows[number] else { continue };
            let token = match row.advance(context, logits_v) {
                Ok(token) => token,
                Err(error) => {
                    rows[number] = Err(error);
                    continue;
                }
            };
            let id = token.id;
            if show(number, token).is_break() {
                row.decoding.finish(FinishReason::Stop);
            }
            if goes_on(&rows[number]) {
                kept.push(at);
                ids.push(id);
            }
        }
        if kept.is_empty() {
            return rows.into_iter().map(|row| row.map(Row::finish)).collect();
        }
        running = kept.iter().map(|&at| running[at]).collect();
        logits = model.decode_step(&mut state, &kept, &ids);
    }
}

/// A row of the batch.
struct Row {
    decoding: Decoding<()>,
    tokens: Vec<Token>,
}

fn goes_on(row: &Result<Row, GenerateError>) -> bool {
    row.as_ref().is_ok_and(|row| row.decoding.finish_reason.is_none())
}

impl Row {
    fn new(ground: Ground<'_>, prompt: &[u32], options: GenerateOptions) -> Result<Self, GenerateError> {
        let alone = [
            ("score_prompt", options.score_prompt),
            ("when_full: slide", options.when_full == WhenFull::Slide),
        ];
        if let Some(&(option, _)) = alone.iter().find(|(_, wanted)| *wanted) {
            return Err(GenerateError::NotInBatch { option });
        }
        let mut decoding = Decoding::with_state((), ground, prompt, options)?;
        if decoding.options.max_new_tokens == 0 {
            decoding.finish(FinishReason::Length);
        } else if decoding.text_is_over() {
            decoding.finish(FinishReason::Stop);
        }
        Ok(Self { decoding, tokens: Vec::new() })
    }

    fn prompt(&self) -> &[u32] {
        self.decoding.prompt()
    }

    fn advance(&mut self, context: usize, logits_v: &mut [f32]) -> Result<&Token, GenerateError> {
        let token = self.decoding.choose(logits_v)?;
        self.decoding.ids.push(token.id);
        self.decoding.end_if_done(context);
        self.tokens.push(token);
        Ok(&self.tokens[self.tokens.len() - 1])
    }

    fn finish(self) -> Generated {
        let finish_reason = self.decoding.finish_reason.expect("rows are given back when they have ended");
        Generated { tokens: self.tokens, finish_reason }
    }
}
