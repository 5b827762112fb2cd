//! An encoder-decoder that has read a source, seen as a model that continues targets.

use andiron_core::cache::Memory;
use andiron_core::{Forward, KvCache};
use burn::tensor::{Device, Int, Tensor};

use super::{Seq2SeqBundle, Seq2SeqGeneration, Seq2SeqModel};
use crate::RunPrecision;
use crate::bundle::{batch_over, floats, one_column, one_row, wanted_columns};
use crate::family::EncoderDecoder;
use crate::generate::{Batched, Logits, NextToken};

/// Longest target if neither the directory nor the model sets a limit: what T5 was trained with.
const UNSAID_LIMIT: usize = 512;

/// What comes next in the target of one source.
///
/// A target begins with [`Conditioned::start`], which is the prompt of a [`Decoding`](crate::generate::Decoding); its
/// stop ids are those of [`Seq2SeqGeneration::eos_token_id`]. What [`Seq2SeqGeneration::constrain`] rules out has a logit
/// of minus infinity.
#[derive(Clone, Debug)]
pub struct Conditioned {
    model: Seq2SeqModel,
    memory: Memory,
    rules: Option<Seq2SeqGeneration>,
    start: u32,
    vocab_size: usize,
    longest: usize,
    precision: RunPrecision,
    device: Device,
}

impl Conditioned {
    /// Reads `source`, token ids with the special tokens that the model was trained with. Targets are as long as the
    /// bundle's [`Seq2SeqGeneration`] says, or as the model is able to, or of 512 ids if that is any length.
    ///
    /// # Panics
    /// If the source is empty or longer than the model reads, or has an id that the model lacks.
    pub fn new(bundle: &Seq2SeqBundle, source: &[u32]) -> Self {
        assert!(!source.is_empty(), "a source has at least one id");
        let rules = bundle.generation.clone();
        let possible = bundle.config.max_positions();
        Self {
            model: bundle.model.clone(),
            memory: bundle.encode(&[source]),
            start: rules.decoder_start_token_id,
            longest: match rules.length_limit() {
                Some(limit) => limit.clamp(1, possible),
                None if possible == usize::MAX => UNSAID_LIMIT,
                None => possible,
            },
            rules: Some(rules),
            vocab_size: bundle.config.target_vocab_size(),
            precision: bundle.precision(),
            device: bundle.device().clone(),
        }
    }

    /// The same with targets of at most `len` ids, the start id included, if the model is able to.
    #[must_use]
    pub fn with_length_limit(self, len: usize) -> Self {
        let possible = self.model.new_cache().room();
        Self { longest: len.clamp(1, possible), ..self }
    }

    /// The same without rules: the model's own distribution, as for scoring a target that is given.
    #[must_use]
    pub fn without_rules(self) -> Self {
        Self { rules: None, longest: self.model.new_cache().room(), ..self }
    }

    /// What was read, for `n` targets.
    fn memory_of(&self, n: usize) -> Memory {
        let mut memory = self.memory.clone();
        if n > 1 {
            memory.select(&vec![0; n]);
        }
        memory
    }

    /// Logits of the ids after `ids_bt`, in the bundle's precision.
    fn logits(
        &self,
        ids_bt: Tensor<2, Int>,
        memory: &Memory,
        wanted: Logits,
        mut cx: Forward<'_>,
    ) -> Vec<f32> {
        self.precision.run(|| {
            let hidden_btd = self.model.hidden(ids_bt, memory, &mut cx);
            floats(self.model.logits(wanted_columns(hidden_btd, wanted, &cx)))
        })
    }

    /// The id that a target begins with.
    pub fn start(&self) -> u32 {
        self.start
    }
}

impl NextToken for Conditioned {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        self.longest
    }

    fn begin(&self) -> KvCache {
        self.model.new_cache()
    }

    fn extend(&self, cache: &mut KvCache, ids: &[u32], wanted: Logits) -> Vec<f32> {
        let cx = Forward::cached(cache);
        let mut logits = self.logits(one_row(ids, &self.device), &self.memory, wanted, cx);
        if let Some(rules) = &self.rules {
            let rows = logits.len() / self.vocab_size;
            // A row predicts the id after the one it belongs to.
            let first_len = cache.len() - rows + 1;
            for (row, scores_v) in logits.chunks_exact_mut(self.vocab_size).enumerate() {
                rules.constrain(first_len + row, self.longest, scores_v);
            }
        }
        logits
    }

    fn rewind(&self, cache: &mut KvCache, len: usize) -> bool {
        cache.truncate(len);
        true
    }
}

impl Batched for Conditioned {
    /// What is known of the targets; the source, once for each target.
    type State = (KvCache, Memory);

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        self.longest
    }

    fn begin_batch(&self, prompts: &[&[u32]]) -> (Self::State, Vec<f32>) {
        let mut cache = self.model.new_cache();
        let (ids_bt, cx) = batch_over(prompts, &mut cache, &self.device);
        let memory = self.memory_of(prompts.len());
        let logits = self.logits(ids_bt, &memory, Logits::Last, cx);
        ((cache, memory), logits)
    }

    fn extend_batch(&self, (cache, memory): &mut Self::State, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        cache.select(rows);
        if memory.len() != rows.len() {
            *memory = self.memory_of(rows.len());
        }
        self.logits(one_column(ids, &self.device), memory, Logits::Last, Forward::cached(cache))
    }

    fn rule_out(&self, len: usize, longest: usize, scores_v: &mut [f32]) {
        if let Some(rules) = &self.rules {
            rules.constrain(len, longest, scores_v);
        }
    }
}

impl Seq2SeqGeneration {
    /// Rules out, in the scores of the id that follows `len` others, start id included, what must not stand there, in
    /// a target of at most `longest` ids: single ids among `bad_words_ids`, ends before `min_length`, all but
    /// `forced_bos_token_id` in second place and all but `forced_eos_token_id` in the last. Scores are logits or
    /// log-probabilities; a forced id has 0, others that are ruled out minus infinity.
    ///
    /// Longer `bad_words_ids` and `no_repeat_ngram_size` depend on which ids came before, which is not known here.
    ///
    /// # Panics
    /// If an id has no score: see [`Seq2SeqGeneration::validate`].
    pub fn constrain(&self, len: usize, longest: usize, scores_v: &mut [f32]) {
        let ends = self.eos_token_id.as_slice();
        for words in &self.bad_words_ids {
            if let [id] = words.as_slice()
                && !ends.contains(id)
            {
                scores_v[*id as usize] = f32::NEG_INFINITY;
            }
        }
        if self.min_length.is_some_and(|least| len < least) {
            ends.iter().for_each(|&id| scores_v[id as usize] = f32::NEG_INFINITY);
        }
        let mut force = |ids: &[u32]| {
            scores_v.fill(f32::NEG_INFINITY);
            ids.iter().for_each(|&id| scores_v[id as usize] = 0.0);
        };
        match self.forced_bos_token_id {
            Some(id) if len == 1 => force(&[id]),
            _ => {}
        }
        let forced_ends = self.forced_eos_token_id.as_slice();
        if len + 1 == longest && !forced_ends.is_empty() {
            force(forced_ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NEVER: f32 = f32::NEG_INFINITY;

    /// What `rules` make of four scores of 1 in the place after `len` ids, in a target of at most 5.
    #[track_caller]
    fn check(rules: Value, len: usize, expected: [f32; 4]) {
        let mut fields = json!({ "decoder_start_token_id": 0, "eos_token_id": 2 });
        fields.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        let generation: Seq2SeqGeneration = serde_json::from_value(fields).unwrap();
        let mut scores = [1.0; 4];
        generation.constrain(len, 5, &mut scores);
        assert_eq!(scores, expected);
    }

    #[test]
    fn without_rules_scores_stay() {
        check(json!({}), 1, [1.0; 4]);
        check(json!({}), 4, [1.0; 4]);
    }

    #[test]
    fn single_ids_are_banned_and_ends_never_are() {
        check(json!({ "bad_words_ids": [[0], [2], [3, 1]] }), 2, [NEVER, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_second_id_may_be_forced() {
        check(json!({ "forced_bos_token_id": 3 }), 1, [NEVER, NEVER, NEVER, 0.0]);
        check(json!({ "forced_bos_token_id": 3 }), 2, [1.0; 4]);
    }

    #[test]
    fn the_last_id_may_be_forced() {
        let rules = json!({ "forced_eos_token_id": [2, 3], "bad_words_ids": [[3]] });
        check(rules.clone(), 4, [NEVER, NEVER, 0.0, 0.0]);
        check(rules, 3, [1.0, 1.0, 1.0, NEVER]);
    }

    #[test]
    fn a_target_does_not_end_early() {
        check(json!({ "min_length": 3 }), 2, [1.0, 1.0, NEVER, 1.0]);
        check(json!({ "min_length": 3 }), 3, [1.0; 4]);
    }
}
