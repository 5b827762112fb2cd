//! Speculative (prompt-lookup) decoding: draft ids, verified in one forward pass.

use super::{Decoding, GenerateError};
use crate::generate::repeats::lookup;
use crate::generate::{CausalLm, Logits};

/// Maximum n-gram length of prompt lookup.
const LONGEST_LOOKUP: usize = 3;

/// Most steps without a draft after drafts that were wrong from their first id on.
const LONGEST_PAUSE: usize = 31;

/// Steps without a draft: twice as many after each draft that was wrong from its first id on, so that a text which does not repeat
/// itself costs little more than without drafts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    left: usize,
    length: usize,
}

impl Pause {
    /// Whether this step is to be without a draft.
    fn passes(&mut self) -> bool {
        let passes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        passes
    }

    /// So many ids of a draft were right.
    fn learn(&mut self, right: usize) {
        self.length = if right > 0 { 0 } else { (2 * self.length + 1).min(LONGEST_PAUSE) };
        self.left = self.length;
    }
}

impl<S> Decoding<S> {
    /// Whether the next step only returns a token that was computed before, or ends the generation: it needs no forward pass.
    pub fn is_ahead(&self) -> bool {
        !self.ready.is_empty() || self.finish_reason.is_some()
    }

    /// A speculative step: verifies draft ids in one forward pass and queues the accepted ones. False if there is no
    /// draft, or the model cannot rewind.
    pub(super) fn try_ahead<M: CausalLm<State = S>>(&mut self, model: &M) -> Result<bool, GenerateError> {
        let held = self.fed - self.window_start;
        let room = model.context_len().saturating_sub(held + 1);
        let left = self.options.max_new_tokens - self.generated().len();
        // The last token needs no draft.
        let n = self.options.prompt_lookup.min(room).min(left.saturating_sub(1));
        if n == 0 || self.pause.passes() {
            return Ok(false);
        }
        let guess = lookup(&self.ids, LONGEST_LOOKUP, n).to_vec();
        if guess.is_empty() || !model.rewind(&mut self.state, held) {
            return Ok(false);
        }
        let given = [&self.ids[self.fed..], &guess].concat();
        let mut logits = model.decode(&mut self.state, &given, Logits::All);
        let known = self.ids.len();
        let mut came = 0;
        for (row, logits) in logits.chunks_exact_mut(model.vocab_size()).enumerate() {
            let chosen = self.choose(logits);
            let token = match chosen {
                Ok(token) => token,
                // The step that reaches it reports the error.
                Err(_) if row > 0 => break,
                Err(error) => {
                    self.ids.truncate(known);
                    model.rewind(&mut self.state, held);
                    return Err(error);
                }
            };
            self.ids.push(token.id);
            let as_guessed = guess.get(row) == Some(&token.id);
            let ends = self.ends_at(token.id) || self.text_is_over();
            self.ready.push_back(token);
            came = row;
            if !as_guessed || ends {
                break;
            }
        }
        self.ids.truncate(known);
        self.pause.learn(came);
        // All accepted tokens but the last are in the model's state.
        self.fed += 1 + came;
        model.rewind(&mut self.state, self.fed - self.window_start);
        Ok(true)
    }
}
