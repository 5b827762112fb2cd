//! An encoder-decoder that has read a source, seen as a model that continues targets.

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KvCache, KvCacheDtype};
use burn::tensor::{Device, Int, Tensor};

use super::{Seq2SeqBundle, Seq2SeqModel};
use crate::RunPrecision;
use crate::batch::{batch_over, floats, one_column, one_row, wanted_columns};
use crate::family::EncoderDecoder;
use crate::generate::{BatchedLm, CausalLm, GenerationConfig, Logits};

/// Longest target if neither the directory nor the model sets a limit: what T5 was trained with.
const UNSAID_LIMIT: usize = 512;

/// What comes next in the target of one source.
///
/// A target begins with [`Seq2SeqGenerator::start`], which is the prompt of a [`Decoding`](crate::generate::Decoding); its
/// stop ids are those of [`GenerationConfig::eos_token_id`]. The rules of the bundle's [`GenerationConfig`] hold in each target.
#[derive(Clone, Debug)]
pub struct Seq2SeqGenerator {
    model: Seq2SeqModel,
    cross_cache: CrossAttentionCache,
    source: Vec<u32>,
    rules: Option<GenerationConfig>,
    start: u32,
    vocab_size: usize,
    longest: usize,
    precision: RunPrecision,
    kv_cache_dtype: KvCacheDtype,
    device: Device,
}

impl Seq2SeqGenerator {
    /// Reads `source`, token ids with the special tokens that the model was trained with. Targets are as long as the
    /// bundle's [`GenerationConfig`] says, or as the model is able to, or of 512 ids if that is any length.
    ///
    /// # Panics
    /// If the source is empty or longer than the model reads, or has an id that the model lacks.
    pub fn new(bundle: &Seq2SeqBundle, source: &[u32]) -> Self {
        assert!(!source.is_empty(), "a source has at least one id");
        let rules = bundle.generation.clone();
        let possible = bundle.config.max_positions();
        Self {
            model: bundle.model.clone(),
            cross_cache: bundle.encode(&[source]),
            source: source.to_vec(),
            start: bundle.start_id(),
            longest: match rules.length_limit() {
                Some(limit) => limit.clamp(1, possible),
                None if possible == usize::MAX => UNSAID_LIMIT,
                None => possible,
            },
            rules: Some(rules),
            vocab_size: bundle.config.target_vocab_size(),
            precision: bundle.precision(),
            kv_cache_dtype: bundle.kv_cache_dtype(),
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
    fn cross_cache_for(&self, n: usize) -> CrossAttentionCache {
        let mut cross_cache = self.cross_cache.clone();
        if n > 1 {
            cross_cache.select(&vec![0; n]);
        }
        cross_cache
    }

    /// Logits of the ids after `ids_bt`, in the bundle's precision.
    fn logits(
        &self,
        ids_bt: Tensor<2, Int>,
        cross_cache: &CrossAttentionCache,
        wanted: Logits,
        mut cx: Forward<'_>,
    ) -> Vec<f32> {
        self.precision.run(|| {
            let hidden_btd = self.model.hidden(ids_bt, cross_cache, &mut cx);
            floats(self.model.logits(wanted_columns(hidden_btd, wanted, &cx)))
        })
    }

    /// The id that a target begins with.
    pub fn start(&self) -> u32 {
        self.start
    }
}

impl CausalLm for Seq2SeqGenerator {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        self.longest
    }

    fn begin(&self) -> KvCache {
        self.model.new_cache().with_dtype(self.kv_cache_dtype)
    }

    fn forward(&self, cache: &mut KvCache, ids: &[u32], wanted: Logits) -> Vec<f32> {
        let cx = Forward::cached(cache);
        self.logits(one_row(ids, &self.device), &self.cross_cache, wanted, cx)
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        self.rules.as_ref()
    }

    fn source(&self) -> Option<&[u32]> {
        Some(&self.source)
    }

    fn fork(&self, cache: &KvCache) -> Option<KvCache> {
        Some(cache.clone())
    }

    fn rewind(&self, cache: &mut KvCache, len: usize) -> bool {
        cache.truncate(len);
        true
    }
}

impl BatchedLm for Seq2SeqGenerator {
    /// What is known of the targets; the source, once for each target.
    type State = (KvCache, CrossAttentionCache);

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        self.longest
    }

    fn prefill(&self, prompts: &[&[u32]]) -> (Self::State, Vec<f32>) {
        let mut cache = self.begin();
        let (ids_bt, cx) = batch_over(prompts, &mut cache, &self.device);
        let cross_cache = self.cross_cache_for(prompts.len());
        let logits = self.logits(ids_bt, &cross_cache, Logits::Last, cx);
        ((cache, cross_cache), logits)
    }

    fn decode_step(&self, (cache, cross_cache): &mut Self::State, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        cache.select(rows);
        if cross_cache.len() != rows.len() {
            *cross_cache = self.cross_cache_for(rows.len());
        }
        self.logits(one_column(ids, &self.device), cross_cache, Logits::Last, Forward::cached(cache))
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        self.rules.as_ref()
    }

    fn source(&self) -> Option<&[u32]> {
        Some(&self.source)
    }
}
