//! The model's state of a generation, for callers that manage the memory of many.

use super::{Decoding, Shared, begin};
use crate::generate::CausalLm;

impl<S> Decoding<S> {
    /// The ids in the window: those that the state holds, or will.
    pub fn window(&self) -> &[u32] {
        &self.ids[self.window_start..]
    }

    /// Number of ids that the state holds.
    pub fn held(&self) -> usize {
        self.fed - self.window_start
    }

    /// Number of ids of the [`window`](Self::window) that are prefilled; later ones are decoded.
    pub fn prefill_len(&self) -> usize {
        self.prefill_end - self.window_start
    }

    /// Position in the sequence at which the [`window`](Self::window) begins.
    pub fn window_start(&self) -> usize {
        self.window_start
    }

    /// The model's state.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Begins with a state that holds the first `len` ids of the [`window`](Self::window). A prompt that is to be scored has to be
    /// prefilled whole.
    ///
    /// # Panics
    /// If the state holds ids already, or the next token needs no forward pass.
    pub fn adopt(&mut self, state: S, len: usize) {
        assert!(self.fed == self.window_start && len < self.window().len(), "adopted before the first step");
        self.state = state;
        self.released = false;
        self.fed += len;
    }

    /// Makes the empty state that was released, before the first step that needs it.
    pub(super) fn begin_again<M: CausalLm<State = S>>(&mut self, model: &M) {
        if std::mem::take(&mut self.released) {
            self.state = begin(model, self.options.source.as_deref());
        }
    }

    /// Frees the state; it is computed again by the next steps. The text goes on as if it had been kept, up to rounding on backends
    /// that are not batch-invariant.
    pub fn release<M: CausalLm<State = S>>(&mut self, model: &M) {
        self.state = model.begin();
        self.released = true;
        self.fed = self.window_start;
        self.logits = None;
        self.scored |= self.prompt_tokens.len() + 1 >= self.prompt_len;
        if !self.scored {
            self.prompt_tokens.clear();
        }
        if !self.generated().is_empty() {
            self.shared = Shared::No;
        }
    }
}
