//! Several encoded sources of an encoder-decoder, whose targets are generated as one batch.

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KernelChoice, KvCache};

use super::Seq2SeqBundle;
use super::seq2seq_generator::{longest_target, target_logits};
use crate::batch::{batch_over, one_column};
use crate::family::EncoderDecoder as _;
use crate::generate::{BatchedLm, GenerationConfig, Logits};

/// Generates one target for each of several sources, by [`generate_batch`](crate::generate::generate_batch) from one prompt
/// for each source, which is the [start](Seq2SeqBundle::start_id).
///
/// The rules of the bundle's [`GenerationConfig`] apply to each target, but for those that depend on its source.
#[derive(Debug)]
pub struct Seq2SeqBatch<'a> {
    bundle: &'a Seq2SeqBundle,
    cross_cache: CrossAttentionCache,
}

impl<'a> Seq2SeqBatch<'a> {
    /// Encodes sources as one batch. Targets are at most as long as those of
    /// [`Seq2SeqGenerator`](super::Seq2SeqGenerator).
    ///
    /// # Panics
    /// If there is no source, one is empty or too long, or an id is outside the vocabulary.
    pub fn new<R: AsRef<[u32]>>(bundle: &'a Seq2SeqBundle, sources: &[R]) -> Self {
        let are_there = sources.iter().all(|source| !source.as_ref().is_empty());
        assert!(are_there, "a source has at least one id");
        Self { bundle, cross_cache: bundle.encode(sources) }
    }
}

impl BatchedLm for Seq2SeqBatch<'_> {
    /// KV cache of the targets, and the cross-attention cache of their sources.
    type State = (KvCache, CrossAttentionCache);

    fn vocab_size(&self) -> usize {
        self.bundle.config.target_vocab_size()
    }

    fn context_len(&self) -> usize {
        longest_target(self.bundle)
    }

    fn prefill(&self, prompts: &[&[u32]]) -> (Self::State, Vec<f32>) {
        assert_eq!(prompts.len(), self.cross_cache.len(), "a prompt for each source");
        let Seq2SeqBundle { model, .. } = self.bundle;
        let mut cache = model.new_cache().with_dtype(self.bundle.kv_cache_dtype());
        let (ids_bt, cx) = batch_over(prompts, &mut cache, self.bundle.device());
        let cross_cache = self.cross_cache.clone();
        let how = (self.bundle.precision(), KernelChoice::Prefill);
        let logits = target_logits(model, how, ids_bt, &cross_cache, Logits::Last, cx);
        ((cache, cross_cache), logits)
    }

    fn decode_step(&self, (cache, cross_cache): &mut Self::State, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        if rows.len() != cross_cache.len() {
            cross_cache.select(rows);
        }
        cache.select(rows);
        let (model, how) = (&self.bundle.model, (self.bundle.precision(), KernelChoice::Decode));
        let ids_bt = one_column(ids, self.bundle.device());
        target_logits(model, how, ids_bt, cross_cache, Logits::Last, Forward::cached(cache))
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.bundle.generation)
    }
}
