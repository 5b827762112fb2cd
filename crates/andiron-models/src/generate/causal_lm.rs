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

/// How the states of a model take memory: in blocks of positions, which states can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBlocks {
    /// Positions per block.
    pub len: usize,
    /// Bytes per block, of all layers.
    pub bytes: usize,
    /// Bytes per id of a [source](CausalLm::begin_target), besides.
    pub source_bytes: usize,
}

impl StateBlocks {
    /// Number of blocks of a state of `positions`.
    pub fn count(self, positions: usize) -> usize {
        positions.div_ceil(self.len)
    }
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

    /// Prefill steps of several sequences in one pass: as [`forward`](Self::forward) of each with its own ids, with
    /// [`Logits::Last`]. `None`, without any effect, if the model does not support it.
    ///
    /// # Shape
    /// `[n]` lists of ids → `[n, vocab_size]`, row-major.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), or if the numbers of lists and states differ. The states are invalid after a panic.
    fn forward_batch(&self, _states: &mut [&mut Self::State], _ids: &[&[u32]]) -> Option<Vec<f32>> {
        None
    }

    /// As [`forward`](Self::forward), for ids that were generated: a decode step of one sequence, or the verification of several
    /// draft ids. Logits should not depend on the number of ids, and be those of [`decode_batch`](Self::decode_batch).
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

    /// The blocks of a state; `None` if states share nothing. May run the model.
    fn state_blocks(&self) -> Option<StateBlocks> {
        None
    }

    /// Block `index` of a state, as a state that holds its ids only, for [`append_block`](Self::append_block). Cheap: the memory is
    /// shared until one of the states changes it.
    ///
    /// # Panics
    /// If the block is not full, or there are no [`state_blocks`](Self::state_blocks).
    fn block(&self, _state: &Self::State, _index: usize) -> Self::State {
        unreachable!("a model without blocks has none to share")
    }

    /// Continues a state with a block of another one that began with the same ids.
    ///
    /// # Panics
    /// If the state does not end with a full block, or there are no [`state_blocks`](Self::state_blocks).
    fn append_block(&self, _state: &mut Self::State, _block: &Self::State) {
        unreachable!("a model without blocks has none to share")
    }

    /// Truncates the sequence to its first `len` ids. Returns false if the model cannot.
    ///
    /// # Panics
    /// If the sequence is shorter than `len`.
    fn rewind(&self, _state: &mut Self::State, _len: usize) -> bool {
        false
    }
}
