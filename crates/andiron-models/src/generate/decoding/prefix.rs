//! Shared prefixes, which the model prefills once.
//!
//! A [`Prefix`] is the state that a finished generation leaves: the next one, such as the next turn of a
//! conversation, prefills only where it differs. A [`Prefill`] is a prefilled prompt for other generations with the
//! same prompt: the `n` choices of a request.

use super::{Decoding, GenerateError, GenerateOptions, Token};
use crate::generate::CausalLm;

/// Token ids and the model's state after them.
#[derive(Clone, Debug)]
pub struct Prefix<S> {
    ids: Vec<u32>,
    state: S,
}

impl<S> Prefix<S> {
    /// The token ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

/// A prefilled prompt: the model's state and the logits after it.
#[derive(Debug)]
pub struct Prefill<S> {
    prompt: Vec<u32>,
    state: S,
    logits: Vec<f32>,
    /// The scored prompt, if it was scored, with so many alternatives.
    prompt_tokens: Vec<Token>,
    top_logprobs: usize,
}

impl<S> Prefill<S> {
    /// The ids of the prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Bytes besides the state.
    pub fn n_bytes(&self) -> usize {
        let alternatives: usize =
            self.prompt_tokens.iter().map(|token| size_of_val(token.top.as_slice())).sum();
        size_of_val(self.prompt.as_slice())
            + size_of_val(self.logits.as_slice())
            + size_of_val(self.prompt_tokens.as_slice())
            + alternatives
    }

    /// Whether `options` can continue it: a prompt that is to be scored must have been scored in the same way.
    pub fn suits(&self, options: &GenerateOptions) -> bool {
        let scored =
            self.prompt_tokens.len() + 1 == self.prompt.len() && self.top_logprobs == options.top_logprobs;
        !options.score_prompt || scored
    }
}

/// Whether a decoding shares its prefill.
#[derive(Debug, Default)]
pub(super) enum Shared<S> {
    #[default]
    No,
    /// The prefill, after the prompt.
    Wanted,
    Ready(Prefill<S>),
}

impl<S> Shared<S> {
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted)
    }
}

impl<S> Decoding<S> {
    /// As [`new`](Self::new), reusing the common beginning of `prefix` and the prompt, if the model can
    /// [rewind](CausalLm::rewind). A prompt that is to be scored is prefilled whole.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn after<M: CausalLm<State = S>>(
        model: &M,
        prefix: Prefix<S>,
        prompt: &[u32],
        options: GenerateOptions,
    ) -> Result<Self, GenerateError> {
        let mut decoding = Self::new(model, prompt, options)?;
        let Prefix { ids, mut state } = prefix;
        let common = ids.iter().zip(prompt).take_while(|(read, id)| read == id).count();
        // The last id of the prompt is read anew: its logits were not kept.
        let common = common.min(prompt.len() - 1);
        if common > 0 && !decoding.options.score_prompt && model.rewind(&mut state, common) {
            decoding.state = state;
            decoding.fed = common;
        }
        Ok(decoding)
    }

    /// The ids and state, for [`after`](Self::after); `None` once the window has slid.
    pub fn into_prefix(mut self) -> Option<Prefix<S>> {
        // Ids that were tried ahead and did not come may be in the state, behind these.
        self.ids.truncate(self.fed);
        (self.window_start == 0).then_some(Prefix { ids: self.ids, state: self.state })
    }

    /// Keeps a copy of the state after the prompt for [`take_prefill`](Self::take_prefill).
    pub fn share_prefill(&mut self) {
        if self.fed < self.prompt_len {
            self.shared = Shared::Wanted;
        }
    }

    /// The prefilled prompt, if [`share_prefill`](Self::share_prefill) was called, the prompt was just prefilled, and
    /// the model can [fork](CausalLm::fork) a state.
    pub fn take_prefill(&mut self) -> Option<Prefill<S>> {
        match std::mem::take(&mut self.shared) {
            Shared::Ready(prefill) => Some(prefill),
            other => {
                self.shared = other;
                None
            }
        }
    }

    /// Adopts a prefilled prompt instead of prefilling it. Returns false, without any effect, if the prompt differs
    /// or was not scored as this one should be, or if the model cannot [fork](CausalLm::fork).
    ///
    /// Bit-identical to prefilling the prompt in chunks of the same sizes.
    pub fn adopt_prefill<M: CausalLm<State = S>>(&mut self, model: &M, prefill: &Prefill<S>) -> bool {
        if self.fed > 0 || self.ids != prefill.prompt || !prefill.suits(&self.options) {
            return false;
        }
        let Some(state) = model.fork(&prefill.state) else { return false };
        self.state = state;
        self.released = false;
        self.fed = self.ids.len();
        self.logits = Some(prefill.logits.clone());
        if self.options.score_prompt {
            self.prompt_tokens.clone_from(&prefill.prompt_tokens);
        }
        true
    }

    /// Stores the prefill if the prompt has just been completed; `logits` are those after it.
    pub(super) fn keep_prefill<M: CausalLm<State = S>>(&mut self, model: &M, logits: &[f32]) {
        if !self.shared.is_wanted() || self.fed != self.prompt_len || self.window_start > 0 {
            return;
        }
        self.shared = match model.fork(&self.state) {
            Some(state) => Shared::Ready(Prefill {
                prompt: self.prompt().to_vec(),
                state,
                logits: logits.to_vec(),
                prompt_tokens: self.prompt_tokens.clone(),
                top_logprobs: self.options.top_logprobs,
            }),
            None => Shared::No,
        };
    }
}
