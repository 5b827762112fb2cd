//! An encoder-decoder as a language model of the targets of many sources, which join and leave a batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KernelChoice, KvCache};

use super::Seq2SeqBundle;
use super::seq2seq_generator::target_logits;
use crate::batch::{one_column, one_row};
use crate::family::EncoderDecoder as _;
use crate::generate::{CausalLm, GenerationConfig, Logits, StateBlocks};

/// Longest target if the model sets none, start id included.
const UNSAID_LIMIT: usize = 4096;

/// Generates targets of many sources, each a sequence with [`GenerateOptions::source`](crate::generate::GenerateOptions::source) and
/// the prompt [`Seq2SeqBundle::start_id`]. Targets of several sources are decoded as one batch.
#[derive(Debug)]
pub struct Targets {
    bundle: Seq2SeqBundle,
    next_source: AtomicU64,
    /// The sources of the latest batch, joined: most batches are of the same sequences as the one before.
    joined: Mutex<Option<Joined>>,
}

/// A target in progress.
#[derive(Debug)]
pub struct TargetState {
    cache: KvCache,
    /// `None` for the state of no source.
    source: Option<EncodedSource>,
}

#[derive(Debug)]
struct EncodedSource {
    number: u64,
    cross_cache: CrossAttentionCache,
}

#[derive(Debug)]
struct Joined {
    numbers: Vec<u64>,
    cross_cache: CrossAttentionCache,
}

impl Targets {
    /// Targets of `bundle`.
    pub fn new(bundle: Seq2SeqBundle) -> Self {
        Self { bundle, next_source: AtomicU64::new(0), joined: Mutex::new(None) }
    }

    fn new_cache(&self) -> KvCache {
        self.bundle.model.new_cache().with_dtype(self.bundle.kv_cache_dtype())
    }

    /// The sources of a batch as one cache.
    fn join(&self, sources: &[&EncodedSource]) -> CrossAttentionCache {
        let numbers: Vec<u64> = sources.iter().map(|source| source.number).collect();
        // A panic leaves the old batch, which is whole.
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = joined.as_ref().filter(|known| known.numbers == numbers) {
            return known.cross_cache.clone();
        }
        // Freed first, so that two are never held.
        *joined = None;
        let caches: Vec<&CrossAttentionCache> = sources.iter().map(|source| &source.cross_cache).collect();
        let cross_cache = CrossAttentionCache::join(&caches);
        *joined = Some(Joined { numbers, cross_cache: cross_cache.clone() });
        cross_cache
    }

    /// Logits of the ids after `ids`, row-major.
    fn logits(
        &self,
        kernels: KernelChoice,
        state: &mut TargetState,
        ids: &[u32],
        wanted: Logits,
    ) -> Vec<f32> {
        let run = (self.bundle.precision(), kernels);
        let cross_cache = state.source().cross_cache.clone();
        let (ids_bt, cx) = (one_row(ids, self.bundle.device()), Forward::cached(&mut state.cache));
        target_logits(&self.bundle.model, run, ids_bt, &cross_cache, wanted, cx)
    }
}

impl TargetState {
    fn source(&self) -> &EncodedSource {
        self.source.as_ref().expect("a target has a source")
    }
}

impl CausalLm for Targets {
    type State = TargetState;

    fn vocab_size(&self) -> usize {
        self.bundle.config.target_vocab_size()
    }

    fn context_len(&self) -> usize {
        self.new_cache().room().min(UNSAID_LIMIT)
    }

    /// A state without a source, which nothing can be appended to.
    fn begin(&self) -> TargetState {
        TargetState { cache: self.new_cache(), source: None }
    }

    fn begin_target(&self, source: &[u32]) -> TargetState {
        let number = self.next_source.fetch_add(1, Ordering::Relaxed);
        let cross_cache = self.bundle.encode(&[source]);
        TargetState { cache: self.new_cache(), source: Some(EncodedSource { number, cross_cache }) }
    }

    fn forward(&self, state: &mut TargetState, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.logits(KernelChoice::Prefill, state, ids, wanted)
    }

    fn decode(&self, state: &mut TargetState, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.logits(KernelChoice::Decode, state, ids, wanted)
    }

    fn decode_batch(&self, states: &mut [&mut TargetState], ids: &[u32]) -> Option<Vec<f32>> {
        assert_eq!(states.len(), ids.len(), "an id for each sequence");
        let sources: Vec<&EncodedSource> = states.iter().map(|state| state.source()).collect();
        let cross_cache = self.join(&sources);
        let own = states.iter_mut().map(|state| std::mem::replace(&mut state.cache, self.new_cache()));
        let mut cache = KvCache::join(own);
        let run = (self.bundle.precision(), KernelChoice::Decode);
        let ids_bt = one_column(ids, self.bundle.device());
        let cx = Forward::cached(&mut cache);
        let logits = target_logits(&self.bundle.model, run, ids_bt, &cross_cache, Logits::Last, cx);
        for (state, row) in states.iter_mut().zip(cache.split()) {
            state.cache = row;
        }
        Some(logits)
    }

    fn state_blocks(&self) -> Option<StateBlocks> {
        let mut state = self.begin_target(&[0]);
        self.forward(&mut state, &[self.bundle.start_id()], Logits::Last);
        Some(StateBlocks {
            len: KvCache::block_len(self.bundle.device()),
            bytes: state.cache.n_bytes(),
            // Its own, and as part of a batch.
            source_bytes: 2 * state.source().cross_cache.n_bytes(),
        })
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.bundle.generation)
    }
}

#[cfg(test)]
mod tests {
    use andiron_core::{Backend, DeviceSpec};
    use andiron_kernels::random::Seed;
    use serde_json::json;

    use super::*;
    use crate::encoder_decoder::{Seq2SeqConfig, Seq2SeqGenerator};
    use crate::generate::{Decoding, GenerateOptions, SamplingParams};

    fn bundle() -> Seq2SeqBundle {
        let config = json!({
            "model_type": "t5", "vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
            "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "initializer_factor": 4.0,
        });
        let config: Seq2SeqConfig = serde_json::from_value(config).expect("a configuration");
        let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().expect("a device");
        Seq2SeqBundle::init(config, Seed::new(3), &device)
    }

    fn options(max_new_tokens: usize) -> GenerateOptions {
        GenerateOptions { sampling: SamplingParams::greedy(), max_new_tokens, ..GenerateOptions::default() }
    }

    #[test]
    fn targets_in_a_batch_are_those_of_each_source_alone() {
        let bundle = bundle();
        let sources: [&[u32]; 3] = [&[5, 9, 3, 1], &[7, 1], &[2, 2, 8, 4, 6, 11, 1]];
        let alone = sources.map(|source| {
            let model = Seq2SeqGenerator::new(&bundle, source);
            let mut decoding = Decoding::new(&model, &[model.start()], options(9)).expect("a decoding");
            while decoding.next_token(&model).expect("a token").is_some() {}
            decoding.generated().to_vec()
        });
        let start = bundle.start_id();
        let model = Targets::new(bundle);
        let begin = |source: &[u32]| {
            let options = GenerateOptions { source: Some(source.into()), ..options(9) };
            Decoding::new(&model, &[start], options).expect("a decoding")
        };
        let mut first = begin(sources[0]);
        // It is ahead of those that join it.
        first.step(&model).expect("a token");
        let mut decodings = [first, begin(sources[1]), begin(sources[2])];
        for decoding in &mut decodings[1..] {
            decoding.step(&model).expect("a token");
        }
        for _ in 0..20 {
            let mut running: Vec<_> =
                decodings.iter_mut().filter(|decoding| decoding.is_decoding()).collect();
            if running.is_empty() {
                break;
            }
            Decoding::decode_step_batch(&model, &mut running).expect("batches");
        }
        assert_eq!(decodings.each_ref().map(|decoding| decoding.generated().to_vec()), alone);
        assert!(alone.iter().any(|target| *target != alone[0]), "the sources matter");
    }

    #[test]
    fn a_batch_of_the_same_sources_is_joined_once() {
        let model = Targets::new(bundle());
        let (mut a, mut b) = (model.begin_target(&[5, 1]), model.begin_target(&[6, 7, 1]));
        model.decode_batch(&mut [&mut a, &mut b], &[0, 0]).expect("batches");
        let numbers = |model: &Targets| {
            model.joined.lock().expect("whole").as_ref().map(|joined| joined.numbers.clone())
        };
        assert_eq!(numbers(&model), Some(vec![0, 1]));
        model.decode_batch(&mut [&mut b], &[4]).expect("batches");
        assert_eq!(numbers(&model), Some(vec![1]));
    }
}
