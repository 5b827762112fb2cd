//! What generation asks of a model.

use super::GenerationConfig;

/// Which rows of logits a call to [`CausalLm::forward`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// One row: the prediction after the last id.
    Last,
    /// One row per id given, in order; needed to score a prompt.
    All,
}

/// A language model seen from the generation side: ids in, next-token logits out.
///
/// Implemented for every decoder; test doubles implement it too. `&self` is shared by all sequences, what
/// belongs to one sequence is in its [`State`](Self::State), so that sequences can be given in any order.
pub trait CausalLm: Send {
    /// The decoding state of one sequence, its key-value cache. A value, never shared.
    type State: Send;

    /// Number of ids the model knows; every id is below it and every row of logits has this length.
    fn vocab_size(&self) -> usize;

    /// Longest sequence, prompt and generated ids together, that one state can hold.
    fn context_len(&self) -> usize;

    /// The state of an empty sequence.
    fn begin(&self) -> Self::State;

    /// Appends `ids` to the sequence and returns logits: of the last position only, or of each of `ids`.
    ///
    /// # Shape
    /// `ids`: `[t]` → `[1, vocab_size]` for [`Logits::Last`], `[t, vocab_size]` for [`Logits::All`], row-major.
    /// Minus infinity marks an id that can never come; any other value is finite.
    ///
    /// # Panics
    /// If `ids` is empty, if an id is not below [`vocab_size`](Self::vocab_size), or if the sequence would grow past
    /// [`context_len`](Self::context_len).
    fn forward(&self, state: &mut Self::State, ids: &[u32], wanted: Logits) -> Vec<f32>;

    /// [Extends](Self::forward) several sequences, none of them empty, by one id each: a row of logits of each, in order.
    /// `None`, and nothing is done, if the model takes only one sequence at a time.
    ///
    /// Going together they share the cost of reading the weights. Their logits may be rounded otherwise than alone.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), or if there are not as many ids as states. The states are then of no use.
    fn decode_batch(&self, _states: &mut [&mut Self::State], _ids: &[u32]) -> Option<Vec<f32>> {
        None
    }

    /// What the model's files say about generating; their rules, such as `suppress_tokens`, hold in every text.
    fn generation_config(&self) -> Option<&GenerationConfig> {
        None
    }

    /// The ids of what the model has read, if that is not the prompt.
    fn source(&self) -> Option<&[u32]> {
        None
    }

    /// A second state of the same sequence, to be continued in another way; `None` if the model cannot copy one.
    fn fork(&self, _state: &Self::State) -> Option<Self::State> {
        None
    }

    /// Forgets all but the first `len` ids of the sequence, and says whether that is possible.
    ///
    /// # Panics
    /// If the sequence is shorter.
    fn rewind(&self, _state: &mut Self::State, _len: usize) -> bool {
        false
    }
}
