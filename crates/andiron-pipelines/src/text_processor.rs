//! The text side of a model: its tokenizer, the ids that end a text, and the vocabulary that grammars are compiled for.

use std::sync::OnceLock;

use andiron_data::tokenizer::{ControlTokens, Special, Spellings, Tokenizer, TokenizerError};
use andiron_models::generate::{Constraint, ConstraintError, Grammar, Interrupt, Vocabulary};

use crate::text_stream::{TextStream, TextStreamError};

/// A model's tokenizer, if it has one, with what generation needs of it.
///
/// It holds no tensors, so it can be used on another thread than the model.
#[derive(Clone, Debug, Default)]
pub struct TextProcessor {
    tokenizer: Option<Tokenizer>,
    end_ids: Vec<u32>,
    /// Made when first needed.
    vocabulary: OnceLock<Vocabulary>,
    /// Made when first needed.
    target_tokenizer: OnceLock<Tokenizer>,
    /// Found when first needed.
    longest_token: OnceLock<Option<usize>>,
}

/// Why text cannot be tokenized, ids cannot be decoded, or a grammar cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// There is no tokenizer.
    #[error("the model directory has no tokenizer: give token ids instead of text")]
    NoTokenizer,
    /// A grammar was given, and there is no tokenizer.
    #[error("a choice, regex or JSON schema needs a tokenizer, which the model directory does not have")]
    GrammarWithoutTokenizer,
    /// The prompt is empty, and the model has neither BOS nor EOS id.
    #[error("the prompt is empty and the model has no id that begins a text: give a prompt")]
    EmptyPrompt,
    /// The tokenizer fails.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The grammar is invalid, or cannot be used with this vocabulary.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

impl TextProcessor {
    /// A tokenizer, if there is one, and the ids that end a generated text.
    pub fn new(tokenizer: Option<Tokenizer>, end_ids: Vec<u32>) -> Self {
        Self { tokenizer, end_ids, ..Self::default() }
    }

    /// The same, with this handling of control tokens in raw prompts.
    #[must_use]
    pub fn with_control_tokens(self, control: ControlTokens) -> Self {
        let tokenizer = self.tokenizer.map(|tokenizer| tokenizer.with_control_tokens(control));
        Self { tokenizer, ..self }
    }

    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`TextError::NoTokenizer`].
    pub fn require_tokenizer(&self) -> Result<&Tokenizer, TextError> {
        self.tokenizer.as_ref().ok_or(TextError::NoTokenizer)
    }

    /// The tokenizer of an encoder-decoder's targets, which may differ from that of its sources.
    ///
    /// # Errors
    /// If its files cannot be used.
    pub fn target_tokenizer(&self) -> Result<Option<&Tokenizer>, TextError> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        if let Some(known) = self.target_tokenizer.get() {
            return Ok(Some(known));
        }
        let targets = tokenizer.for_targets()?;
        Ok(Some(self.target_tokenizer.get_or_init(|| targets)))
    }

    /// The ids that end a generated text.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// Compiles `grammar` for this vocabulary.
    ///
    /// # Errors
    /// If there is no tokenizer, or the grammar is invalid or exceeds a bound.
    pub fn constraint(&self, grammar: Grammar) -> Result<Constraint, TextError> {
        self.constraint_unless(grammar, &Interrupt::default())
    }

    /// The same, which `interrupt` may end early.
    ///
    /// # Errors
    /// As [`constraint`](Self::constraint), and if it was ended.
    pub fn constraint_unless(
        &self,
        grammar: Grammar,
        interrupt: &Interrupt,
    ) -> Result<Constraint, TextError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(TextError::GrammarWithoutTokenizer)?;
        let vocabulary = match self.vocabulary.get() {
            Some(vocabulary) => vocabulary,
            None => {
                let spellings = tokenizer.spellings()?;
                let Spellings { tokens, control, drops_first_space } = spellings;
                let vocabulary = Vocabulary::with_control_tokens(&tokens, &control, drops_first_space)?;
                self.vocabulary.get_or_init(|| vocabulary)
            }
        };
        Ok(Constraint::new_unless(vocabulary, grammar, interrupt)?)
    }

    /// The text of `ids` after `prompt`; empty without a tokenizer.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn continuation(&self, prompt: &[u32], ids: &[u32]) -> Result<String, TextStreamError> {
        let mut stream = TextStream::new(self, prompt, &[], &[])?;
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(id)?.text);
        }
        text.push_str(&stream.finish()?.text);
        Ok(text)
    }

    /// The text of one id, or its name in the vocabulary if it is part of a character.
    pub fn token_text(&self, id: u32) -> String {
        let text = self.tokenizer.as_ref().and_then(|t| t.decode(&[id], Special::Keep).ok());
        match text {
            Some(text) if !text.is_empty() && !text.contains('\u{fffd}') => text,
            _ => self.token_name(id),
        }
    }

    /// The bytes of one id, of which characters may need several; empty without a tokenizer.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.token_bytes(id)).unwrap_or_default()
    }

    /// The unique name of an id in the vocabulary; `token_id:` and the id if it has none.
    pub fn token_name(&self, id: u32) -> String {
        let spelled = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.id_to_token(id));
        spelled.unwrap_or_else(|| format!("token_id:{id}"))
    }

    /// Length of the longest token in bytes; `None` without a tokenizer, or if its vocabulary does not tell.
    pub fn longest_token(&self) -> Option<usize> {
        *self.longest_token.get_or_init(|| longest_token(self.tokenizer.as_ref()?))
    }
}

fn longest_token(tokenizer: &Tokenizer) -> Option<usize> {
    let spelled = tokenizer.spellings().ok()?.tokens.iter().map(Vec::len).max()?;
    // Control tokens spell nothing and have a name.
    let named = (0..u32::try_from(tokenizer.vocab_size()).ok()?)
        .filter(|&id| tokenizer.is_special(id))
        .filter_map(|id| tokenizer.id_to_token(id))
        .map(|name| name.len())
        .max();
    Some(spelled.max(named.unwrap_or(0)).max(1))
}
