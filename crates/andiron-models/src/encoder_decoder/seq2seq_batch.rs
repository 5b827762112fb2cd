//! Several encoded sources of an encoder-decoder, whose targets are generated as one batch.

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KernelChoice, KvCache};

use super::Seq2SeqBundle;
use super::seq2seq_generator::{longest_target, target_logits};
use crate::batch::{batch_over, one_column};
use crate::family::EncoderDecoder as _;
use crate::generate::{BatchedLm, GenerationConfig, Logits};

/// Generates targets of several sources, by [`generate_batch`](crate::generate::generate_batch) or
/// [`beam_search_batch`](crate::generate::beam_search_batch) from one prompt for each source, which is the
/// [start](Seq2SeqBundle::start_id). The rules of the bundle's [`GenerationConfig`] apply to each target.
#[derive(Debug)]
pub struct Seq2SeqBatch<'a> {
    bundle: &'a Seq2SeqBundle,
    sources: Vec<Vec<u32>>,
    cross_cache: CrossAttentionCache,
    longest: usize,
}

/// The targets of a [`Seq2SeqBatch`] in progress.
#[derive(Debug)]
pub struct BatchState {
    cache: KvCache,
    /// Number of the source of each row.
    sources: Vec<usize>,
    /// Of the sources in `read`.
    cross_cache: CrossAttentionCache,
    /// Numbers of the sources, each once for as many rows as any other.
    read: Vec<usize>,
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
        let cross_cache = bundle.encode(sources);
        let sources = sources.iter().map(|source| source.as_ref().to_vec()).collect();
        Self { bundle, sources, cross_cache, longest: longest_target(bundle) }
    }

    /// Limits targets to `len` ids, the start id included, at most the model's maximum.
    #[must_use]
    pub fn with_length_limit(self, len: usize) -> Self {
        let possible = self.bundle.model.new_cache().room();
        Self { longest: len.clamp(1, possible), ..self }
    }
}

/// The sources of rows, each once if all have equally many rows, one after another; else that of each row.
fn once_each(sources: &[usize]) -> Vec<usize> {
    let mut runs = sources.chunk_by(|a, b| a == b);
    let each = runs.next().map_or(0, <[usize]>::len);
    match runs.all(|run| run.len() == each) {
        true => sources.iter().copied().step_by(each.max(1)).collect(),
        false => sources.to_vec(),
    }
}

impl BatchedLm for Seq2SeqBatch<'_> {
    type State = BatchState;

    fn vocab_size(&self) -> usize {
        self.bundle.config.target_vocab_size()
    }

    fn context_len(&self) -> usize {
        self.longest
    }

    fn prefill(&self, prompts: &[&[u32]]) -> (BatchState, Vec<f32>) {
        assert_eq!(prompts.len(), self.sources.len(), "a prompt for each source");
        let Seq2SeqBundle { model, .. } = self.bundle;
        let mut cache = model.new_cache().with_dtype(self.bundle.kv_cache_dtype());
        let (ids_bt, cx) = batch_over(prompts, &mut cache, self.bundle.device());
        let how = (self.bundle.precision(), KernelChoice::Prefill);
        let logits = target_logits(model, how, ids_bt, &self.cross_cache, Logits::Last, cx);
        let sources: Vec<usize> = (0..prompts.len()).collect();
        let state =
            BatchState { cache, cross_cache: self.cross_cache.clone(), read: sources.clone(), sources };
        (state, logits)
    }

    fn decode_step(&self, state: &mut BatchState, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        state.sources = rows.iter().map(|&row| state.sources[row]).collect();
        let read = once_each(&state.sources);
        if read != state.read {
            state.cross_cache = self.cross_cache.clone();
            state.cross_cache.select(&read);
            state.read = read;
        }
        state.cache.select(rows);
        let (model, how) = (&self.bundle.model, (self.bundle.precision(), KernelChoice::Decode));
        let ids_bt = one_column(ids, self.bundle.device());
        let cx = Forward::cached(&mut state.cache);
        target_logits(model, how, ids_bt, &state.cross_cache, Logits::Last, cx)
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.bundle.generation)
    }

    fn source(&self, prompt: usize) -> Option<&[u32]> {
        Some(&self.sources[prompt])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_once_for_all_its_rows() {
        assert_eq!(once_each(&[0, 0, 2, 2, 5, 5]), [0, 2, 5]);
        assert_eq!(once_each(&[3, 1, 2]), [3, 1, 2]);
        assert_eq!(once_each(&[0, 0, 1]), [0, 0, 1]);
        assert_eq!(once_each(&[4, 4]), [4]);
        assert!(once_each(&[]).is_empty());
    }
}
