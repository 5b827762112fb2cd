//! An encoder-decoder with an encoded source, as a language model of the target.

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KernelChoice, KvCache, KvCacheDtype};
use burn::tensor::{Device, Int, Tensor};

use super::{Seq2SeqBundle, Seq2SeqModel};
use crate::RunPrecision;
use crate::batch::{batch_over, floats, one_column, one_row, wanted_columns};
use crate::family::EncoderDecoder;
use crate::generate::{BatchedLm, CausalLm, GenerationConfig, Logits};

/// Maximum target length if neither the directory nor the model sets one: the training length of T5.
const UNSAID_LIMIT: usize = 512;

/// Generates targets of one source.
///
/// The prompt of a [`Decoding`](crate::generate::Decoding) is [`Seq2SeqGenerator::start`]; its stop ids are
/// [`GenerationConfig::eos_token_id`]. The rules of the bundle's [`GenerationConfig`] apply to each target.
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
    /// Encodes `source`, token ids with the special tokens that the model was trained with. The maximum target length
    /// is that of the bundle's [`GenerationConfig`], else the model's, else 512.
    ///
    /// # Panics
    /// If the source is empty or too long, or an id is outside the vocabulary.
    pub fn new(bundle: &Seq2SeqBundle, source: &[u32]) -> Self {
        assert!(!source.is_empty(), "a source has at least one id");
        Self {
            model: bundle.model.clone(),
            cross_cache: bundle.encode(&[source]),
            source: source.to_vec(),
            start: bundle.start_id(),
            longest: longest_target(bundle),
            rules: Some(bundle.generation.clone()),
            vocab_size: bundle.config.target_vocab_size(),
            precision: bundle.precision(),
            kv_cache_dtype: bundle.kv_cache_dtype(),
            device: bundle.device().clone(),
        }
    }

    /// Limits targets to `len` ids, the start id included, at most the model's maximum.
    #[must_use]
    pub fn with_length_limit(self, len: usize) -> Self {
        let possible = self.model.new_cache().room();
        Self { longest: len.clamp(1, possible), ..self }
    }

    /// Disables the generation config's rules: the model's own distribution, for scoring a given target.
    #[must_use]
    pub fn without_rules(self) -> Self {
        Self { rules: None, longest: self.model.new_cache().room(), ..self }
    }

    /// Logits of the ids after `ids_bt`, in the bundle's precision, by these kernels.
    fn logits(
        &self,
        kernels: KernelChoice,
        ids_bt: Tensor<2, Int>,
        wanted: Logits,
        cx: Forward<'_>,
    ) -> Vec<f32> {
        target_logits(&self.model, (self.precision, kernels), ids_bt, &self.cross_cache, wanted, cx)
    }

    /// Decoder start token id.
    pub fn start(&self) -> u32 {
        self.start
    }
}

/// Maximum length of a target, the start id included: that of the bundle's [`GenerationConfig`], else the model's, else 512.
pub(super) fn longest_target(bundle: &Seq2SeqBundle) -> usize {
    let possible = bundle.config.max_positions();
    match bundle.generation.length_limit() {
        Some(limit) => limit.clamp(1, possible),
        None if possible == usize::MAX => UNSAID_LIMIT,
        None => possible,
    }
}

/// Logits of the ids after `ids_bt`, row-major.
pub(super) fn target_logits(
    model: &Seq2SeqModel,
    (precision, kernels): (RunPrecision, KernelChoice),
    ids_bt: Tensor<2, Int>,
    cross_cache: &CrossAttentionCache,
    wanted: Logits,
    mut cx: Forward<'_>,
) -> Vec<f32> {
    precision.run_with(kernels, || {
        let hidden_btd = model.hidden(ids_bt, cross_cache, &mut cx);
        floats(model.logits(wanted_columns(hidden_btd, wanted, &cx)))
    })
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
        let (ids_bt, cx) = (one_row(ids, &self.device), Forward::cached(cache));
        self.logits(KernelChoice::Prefill, ids_bt, wanted, cx)
    }

    fn decode(&self, cache: &mut KvCache, ids: &[u32], wanted: Logits) -> Vec<f32> {
        let (ids_bt, cx) = (one_row(ids, &self.device), Forward::cached(cache));
        self.logits(KernelChoice::Decode, ids_bt, wanted, cx)
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
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        self.longest
    }

    fn prefill(&self, prompts: &[&[u32]]) -> (KvCache, Vec<f32>) {
        let mut cache = self.begin();
        let (ids_bt, cx) = batch_over(prompts, &mut cache, &self.device);
        let logits = self.logits(KernelChoice::Prefill, ids_bt, Logits::Last, cx);
        (cache, logits)
    }

    fn decode_step(&self, cache: &mut KvCache, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        cache.select(rows);
        let (ids_bt, cx) = (one_column(ids, &self.device), Forward::cached(cache));
        self.logits(KernelChoice::Decode, ids_bt, Logits::Last, cx)
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        self.rules.as_ref()
    }

    fn source(&self, _prompt: usize) -> Option<&[u32]> {
        Some(&self.source)
    }
}
