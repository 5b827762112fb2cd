//! Steps of several generations in one forward pass.

use super::{Decoding, GenerateError, Progress};
use crate::generate::CausalLm;

impl<S> Decoding<S> {
    /// Whether the next step is a plain decode step of one id, so that it can be part of a
    /// [batch](Self::decode_step_batch).
    pub fn is_decoding(&self) -> bool {
        let reads_one = self.fed >= self.prefill_end && self.fed + 1 == self.ids.len();
        let chooses_one = self.ready.is_empty() && self.options.max_new_tokens > 0;
        self.finish_reason.is_none() && reads_one && chooses_one
    }

    /// Whether the next step prefills a chunk that is not scored, so that it can be part of a
    /// [batch](Self::prefill_step_batch).
    pub fn is_prefilling(&self) -> bool {
        let needs_model = self.ready.is_empty() && self.logits.is_none() && self.options.max_new_tokens > 0;
        self.finish_reason.is_none() && needs_model && self.fed < self.prefill_end && !self.is_scoring()
    }

    /// A batched prefill step: a chunk of several prompts in one forward pass; `None` if the model does not support it.
    /// Each must be [prefilling](Self::is_prefilling).
    ///
    /// # Panics
    /// As [`step`](Self::step), or if a generation is not prefilling. After a panic of the model each has to be
    /// [released](Self::release) before it can continue.
    pub fn prefill_step_batch<M: CausalLm<State = S>>(
        model: &M,
        decodings: &mut [&mut Self],
    ) -> Option<Vec<Result<Progress, GenerateError>>> {
        assert!(decodings.iter().all(|decoding| decoding.is_prefilling()), "each has a prompt to read");
        decodings.iter_mut().for_each(|decoding| decoding.begin_again(model));
        let ends: Vec<usize> = decodings.iter().map(|decoding| decoding.chunk_end()).collect();
        let mut logits = {
            let (mut states, chunks): (Vec<&mut S>, Vec<&[u32]>) = decodings
                .iter_mut()
                .zip(&ends)
                .map(|(decoding, &end)| {
                    let Self { state, ids, fed, .. } = &mut **decoding;
                    (state, &ids[*fed..end])
                })
                .unzip();
            model.forward_batch(&mut states, &chunks)?
        };
        let vocab_size = model.vocab_size();
        assert_eq!(logits.len(), ends.len() * vocab_size, "a row of {vocab_size} logits for each sequence");
        let rows = decodings.iter_mut().zip(ends).zip(logits.chunks_exact_mut(vocab_size));
        let step = |((decoding, end), logits): ((&mut &mut Self, usize), &mut [f32])| {
            decoding.fed = end;
            decoding.go_on(model, logits)
        };
        Some(rows.map(step).collect())
    }

    /// Where the next prefill chunk ends.
    fn chunk_end(&self) -> usize {
        self.prefill_end.min(self.fed + self.options.prefill_chunk.max(1))
    }

    /// A batched decode step: several generations in one forward pass; `None` if the model does not support batches.
    /// Each must be [decoding](Self::is_decoding). Batching changes no results, except by rounding on backends that are not
    /// batch-invariant. There are no drafts ([`GenerateOptions::prompt_lookup`](crate::generate::GenerateOptions::prompt_lookup)): a
    /// batch uses the processor well without.
    ///
    /// # Panics
    /// As [`step`](Self::step), or if a generation is not decoding. None of them can continue after a panic of the
    /// model.
    pub fn decode_step_batch<M: CausalLm<State = S>>(
        model: &M,
        decodings: &mut [&mut Self],
    ) -> Option<Vec<Result<Progress, GenerateError>>> {
        assert!(decodings.iter().all(|decoding| decoding.is_decoding()), "each has one id to give");
        let ids: Vec<u32> = decodings.iter().map(|decoding| decoding.ids[decoding.fed]).collect();
        let mut states: Vec<&mut S> = decodings.iter_mut().map(|decoding| &mut decoding.state).collect();
        let mut logits = model.decode_batch(&mut states, &ids)?;
        let vocab_size = model.vocab_size();
        assert_eq!(logits.len(), ids.len() * vocab_size, "a row of {vocab_size} logits for each sequence");
        let rows = decodings.iter_mut().zip(logits.chunks_exact_mut(vocab_size));
        let step = |(decoding, logits): (&mut &mut Self, &mut [f32])| {
            decoding.fed += 1;
            decoding.go_on(model, logits)
        };
        Some(rows.map(step).collect())
    }
}
