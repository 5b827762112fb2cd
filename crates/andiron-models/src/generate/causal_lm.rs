//! The interface between generation and a model.

use super::GenerationConfig;

/// The rows of logits that [`CausalLm::forward`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// One row: the logits after the last id.
    Last,
    /// One row per input id, in order; needed to score a prompt.
    All,
}

/// A causal language model: token ids in, next-token logits out.
///
/// Implemented by every decoder, and by test doubles. `&self` is shared by all sequences; each sequence has its own
/// [`State`](Self::State), so sequences can be interleaved in any order.
pub trait CausalLm: Send {
    /// The state of one sequence: its KV cache.
    type State: Send;

    /// Vocabulary size; every id is below it, and every row of logits has this length.
    fn vocab_size(&self) -> usize;

    /// Context length: maximum number of prompt and generated ids in one state.
    fn context_len(&self) -> usize;

    /// The state of an empty sequence.
    fn begin(&self) -> Self::State;

    /// The state of an empty target of `source`, of an encoder-decoder that generates targets of many sources.
    ///
    /// # Panics
    /// If the model reads no source, or not this one.
    fn begin_target(&self, _source: &[u32]) -> Self::State {
        panic!("a decoder has no source")
    }

    /// Prefill: runs the model over `ids` of a prompt, appends them to the sequence, and returns logits: of the last position
    /// only, or of each. How a prompt is divided over calls should not change them.
    ///
    /// # Shape
    /// `ids`: `[t]` → `[1, vocab_size]` for [`Logits::Last`], `[t, vocab_size]` for [`Logits::All`], row-major. Minus
    /// infinity marks an impossible id; any other value is finite.
    ///
    /// # Panics
    /// If `ids` is empty, if an id is not below [`vocab_size`](Self::vocab_size), or if the sequence would exceed
    /// [`context_len`](Self::context_len).
    fn forward(&self, state: &mut Self::State, ids: &[u32], wanted: Logits) -> Vec<f32>;

    /// The same for ids that were generated: a decode step of one sequence, or the verification of several draft ids. Logits
    /// should not depend on the number of ids, and be those of [`decode_batch`](Self::decode_batch).
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    fn decode(&self, state: &mut Self::State, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.forward(state, ids, wanted)
    }

    /// A decode step of several sequences, none of them empty: appends one id to each and returns one row of logits
    /// per sequence, in order. `None`, without any effect, if the model does not support batches.
    ///
    /// A batch reads the weights once. Its logits should be those of [`decode`](Self::decode), to the last bit.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), or if the numbers of ids and states differ. The states are invalid after a
    /// panic.
    fn decode_batch(&self, _states: &mut [&mut Self::State], _ids: &[u32]) -> Option<Vec<f32>> {
        None
    }

    /// The model's generation config. Its rules, such as `suppress_tokens`, apply to every generation.
    fn generation_config(&self) -> Option<&GenerationConfig> {
        None
    }

    /// Source token ids of an encoder-decoder; `None` if the model reads the prompt only.
    fn source(&self) -> Option<&[u32]> {
        None
    }

    /// A copy of the state, to continue the sequence in another way; `None` if the model cannot copy states.
    fn fork(&self, _state: &Self::State) -> Option<Self::State> {
        None
    }

    /// Truncates the sequence to its first `len` ids. Returns false if the model cannot.
    ///
    /// # Panics
    /// If the sequence is shorter than `len`.
    fn rewind(&self, _state: &mut Self::State, _len: usize) -> bool {
        false
    }
}
