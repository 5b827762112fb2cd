//! A prompt and its completion as one sequence of tokens.

use super::{ControlTokens, Tokenizer, TokenizerError};

/// A prompt with its completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The ids of both.
    pub ids: Vec<u32>,
    /// How many of them belong to the prompt.
    pub n_prompt: usize,
}

impl Tokenizer {
    /// The ids of a prompt and its completion, encoded as one text, with the special tokens that are added before a text and
    /// the end-of-sequence token after it. Control tokens in both are ordinary text.
    ///
    /// A token that spans the border belongs to the prompt. The prompt should end where words do, so that the model sees the
    /// same tokens when it is asked.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_completion(&self, prompt: &str, completion: &str) -> Result<Completion, TokenizerError> {
        let text = [prompt, completion].concat();
        let tokens = self.inner.tokens(&text, ControlTokens::AsText)?;
        let before = self.added_around()?.before;
        let n_prompt =
            before.len() + tokens.iter().take_while(|token| token.offsets.0 < prompt.len()).count();
        let ids =
            before.into_iter().chain(tokens.iter().map(|token| token.id)).chain(self.eos_id()).collect();
        Ok(Completion { ids: self.known(ids)?, n_prompt })
    }
}

impl Completion {
    /// The weight of each id as a target: 1 in the completion, 0 in the prompt.
    pub fn weights(&self) -> Vec<f32> {
        (0..self.ids.len()).map(|at| if at < self.n_prompt { 0.0 } else { 1.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::tokenizer::{BpeOptions, SpecialTokens, train_bpe};

    #[test]
    fn the_completion_ends_with_the_end_token() {
        let options =
            BpeOptions { special_tokens: SpecialTokens::end_of_text("<e>"), ..BpeOptions::new(258) };
        let tokenizer = train_bpe(["ab ab ab"], &options).unwrap();
        let completion = tokenizer.encode_completion("a", "b é<e>").unwrap();
        let plain = tokenizer.encode("ab é<e>").unwrap();
        assert_eq!(completion.ids, [&plain[..], &[tokenizer.eos_id().unwrap()]].concat());
        // "ab" is one token, and the prompt's.
        assert_eq!(tokenizer.id_to_token(completion.ids[0]).as_deref(), Some("ab"));
        assert_eq!(completion.n_prompt, 1);
        assert_eq!(completion.weights().iter().sum::<f32>() as usize, completion.ids.len() - 1);
        assert_eq!(tokenizer.encode_completion("", "a").unwrap().n_prompt, 0);
    }
}
