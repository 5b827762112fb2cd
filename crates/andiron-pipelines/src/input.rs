//! Inputs of tasks: text, or token ids in its place.

use std::ops::Range;

use andiron_data::tokenizer::{Framed, Place, Tokenizer, TokenizerError};
use andiron_models::encoder::EncoderInput;
use andiron_models::{ClassifierBundle, EncoderBundle};

use crate::{Pipeline, TextProcessor};

const TYPES: &str = "token_type_ids";

/// A prompt, or the source of an encoder-decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptInput {
    /// A text, to be tokenized.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

impl From<&str> for PromptInput {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A text for an encoder, or two, or their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextInput {
    /// Text to tokenize, with the special tokens around it. Truncated to the model's limit.
    Text {
        /// The text.
        text: String,
        /// The second text of a pair.
        pair: Option<String>,
    },
    /// Token ids, special tokens included. Never truncated.
    Ids {
        /// The ids.
        ids: Vec<u32>,
        /// Token type of each; `None` is all 0.
        type_ids: Option<Vec<u32>>,
    },
}

impl From<&str> for TextInput {
    fn from(text: &str) -> Self {
        Self::Text { text: text.to_owned(), pair: None }
    }
}

/// Why a text or its ids cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// There is no tokenizer for a text.
    #[error("the model directory has no tokenizer: give token ids instead of text")]
    NoTokenizer,
    /// The tokenizer refuses the text, or fails.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer gives a token type that the model does not have.
    #[error("the tokenizer gives the token type {id}: the model has {n_types} types")]
    TokenizerType {
        /// The type.
        id: u32,
        /// Types that the model has.
        n_types: usize,
    },
    /// An id that the model does not have.
    #[error("there is no token {id}: the vocabulary has {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
    /// The input is empty.
    #[error("there is no token to read")]
    Empty,
    /// The input is too long, and this task does not truncate.
    #[error("the text is longer than the {limit} tokens that the model reads")]
    TooLong {
        /// The most.
        limit: usize,
    },
    /// Too many ids of a source.
    #[error("there are {ids} ids, and the model reads at most {limit}")]
    TooManyIds {
        /// How many.
        ids: usize,
        /// The most.
        limit: usize,
    },
    /// There are more or fewer token types than ids.
    #[error("there are {types} type_ids for {ids} ids")]
    TypesForIds {
        /// How many types.
        types: usize,
        /// How many ids.
        ids: usize,
    },
    /// A token type for a model without token types.
    #[error("type_ids has {id} at position {position}: the model has no token types, leave type_ids out")]
    NoTypes {
        /// The type.
        id: u32,
        /// Its position.
        position: usize,
    },
    /// A token type that the model does not have.
    #[error("type_ids has {id} at position {position}: there are the types 0 to {last}")]
    UnknownType {
        /// The type.
        id: u32,
        /// Its position.
        position: usize,
        /// The last type.
        last: usize,
    },
    /// The prompt fills the whole limit, so nothing of the text is left.
    #[error("the prompt takes all of the {limit} tokens that are read")]
    PromptFillsLimit {
        /// The limit, in tokens.
        limit: usize,
    },
}

impl InputError {
    /// Whether the given ids or types are invalid; other errors are about text or the tokenizer.
    pub fn is_about_ids(&self) -> bool {
        !matches!(self, Self::NoTokenizer | Self::Tokenizer(_) | Self::TokenizerType { .. })
    }
}

/// Limits of a model that reads whole texts.
pub trait ReadTexts {
    /// The architecture's name.
    fn model_type(&self) -> &'static str;

    /// Entries of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Number of token types, 0 if the model has none.
    fn n_token_types(&self) -> usize;

    /// Longest text, in tokens.
    fn max_positions(&self) -> usize;
}

impl ReadTexts for EncoderBundle {
    fn model_type(&self) -> &'static str {
        self.config.model_type()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn n_token_types(&self) -> usize {
        self.config.n_token_types()
    }

    fn max_positions(&self) -> usize {
        self.config.max_positions()
    }
}

impl ReadTexts for ClassifierBundle {
    fn model_type(&self) -> &'static str {
        self.config.model_type()
    }

    fn vocab_size(&self) -> usize {
        self.config.sizes().vocab_size
    }

    fn n_token_types(&self) -> usize {
        0
    }

    fn max_positions(&self) -> usize {
        self.config.sizes().max_positions
    }
}

/// What token types are for in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Types {
    ForModel,
    /// They also mark which tokens may answer, so a model without token types accepts them.
    MarkTokens,
}

/// An input in ids.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) framed: Framed,
    /// Whether ids were given, so that there is no text to map tokens back to.
    pub(crate) by_ids: bool,
}

impl Encoded {
    pub(crate) fn view(&self) -> EncoderInput<'_> {
        EncoderInput { ids: &self.framed.ids, type_ids: &self.framed.type_ids }
    }

    pub(crate) fn len(&self) -> usize {
        self.framed.ids.len()
    }

    /// Whether each token comes from the text and is `wanted`; true for all if ids were given.
    pub(crate) fn own(&self, wanted: impl Fn(&Place) -> bool) -> Vec<bool> {
        self.framed.places.iter().map(|place| self.by_ids || place.as_ref().is_some_and(&wanted)).collect()
    }

    /// The byte range of the text that a range of tokens covers.
    pub(crate) fn bytes(&self, tokens: Range<usize>) -> Range<usize> {
        let places = || self.framed.places[tokens.clone()].iter().flatten();
        let start = places().map(|place| place.bytes.start).min().unwrap_or(0);
        let end = places().map(|place| place.bytes.end).max().unwrap_or(0);
        start..end
    }
}

/// A byte range of `text`, trimmed: its range in characters, and the text in it.
pub(crate) fn characters(text: &str, bytes: Range<usize>) -> (Range<usize>, String) {
    // Tokens of some vocabularies hold the space before a word.
    let found = &text[bytes.clone()];
    let trimmed = found.trim_start();
    let start = text[..bytes.end - trimmed.len()].chars().count();
    let trimmed = trimmed.trim_end();
    (start..start + trimmed.chars().count(), trimmed.to_owned())
}

/// Reads inputs for one model.
pub(crate) struct Reader<'a, B> {
    bundle: &'a B,
    text: &'a TextProcessor,
    /// Whether the model takes token types.
    gives_types: bool,
}

impl<B: ReadTexts> Pipeline<B> {
    pub(crate) fn reader(&self) -> Reader<'_, B> {
        let names = self.text.tokenizer().and_then(Tokenizer::model_input_names);
        // Where the files name neither inputs nor a class, transformers takes the class that the architecture has there.
        let named =
            names.map_or(self.bundle.model_type() == "bert", |names| names.iter().any(|name| name == TYPES));
        let gives_types = self.bundle.n_token_types() > 1 && named;
        Reader { bundle: &self.bundle, text: &self.text, gives_types }
    }
}

impl<B: ReadTexts> Reader<'_, B> {
    pub(crate) fn tokenizer(&self) -> Result<&Tokenizer, InputError> {
        self.text.tokenizer().ok_or(InputError::NoTokenizer)
    }

    /// Tokenizes and checks an input of at most `limit` tokens.
    pub(crate) fn read(&self, input: &TextInput, limit: usize, types: Types) -> Result<Encoded, InputError> {
        match input {
            TextInput::Text { text, pair } => {
                self.framed(self.tokenizer()?.frame(text, pair.as_deref(), limit)?, limit)
            }
            TextInput::Ids { ids, type_ids } => self.ids(ids, type_ids.as_deref(), limit, types),
        }
    }

    /// Checks ids that include their special tokens.
    fn ids(
        &self,
        ids: &[u32],
        type_ids: Option<&[u32]>,
        limit: usize,
        types: Types,
    ) -> Result<Encoded, InputError> {
        let type_ids = type_ids.map_or_else(|| vec![0; ids.len()], <[u32]>::to_vec);
        if type_ids.len() != ids.len() {
            return Err(InputError::TypesForIds { types: type_ids.len(), ids: ids.len() });
        }
        self.check_types(&type_ids, types)?;
        let places = vec![None; ids.len()];
        let framed = Framed { ids: ids.to_vec(), type_ids, places, truncated: false };
        self.checked(Encoded { framed, by_ids: true }, limit)
    }

    /// Checks what the tokenizer returned for a text.
    pub(crate) fn framed(&self, framed: Framed, limit: usize) -> Result<Encoded, InputError> {
        let type_ids = self.types_of_text(framed.type_ids)?;
        self.checked(Encoded { framed: Framed { type_ids, ..framed }, by_ids: false }, limit)
    }

    fn checked(&self, encoded: Encoded, limit: usize) -> Result<Encoded, InputError> {
        let (ids, vocab_size) = (&encoded.framed.ids, self.bundle.vocab_size());
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(InputError::UnknownId { id, vocab_size }),
            None if ids.is_empty() => Err(InputError::Empty),
            None if ids.len() > limit => Err(InputError::TooLong { limit }),
            None => Ok(encoded),
        }
    }

    /// Token types for the model, from the tokenizer's `type_ids`.
    fn types_of_text(&self, type_ids: Vec<u32>) -> Result<Vec<u32>, InputError> {
        if !self.gives_types {
            return Ok(vec![0; type_ids.len()]);
        }
        let n_types = self.bundle.n_token_types();
        match type_ids.iter().find(|&&id| id as usize >= n_types) {
            Some(&id) => Err(InputError::TokenizerType { id, n_types }),
            None => Ok(type_ids),
        }
    }

    fn check_types(&self, type_ids: &[u32], types: Types) -> Result<(), InputError> {
        let n_types = match self.bundle.n_token_types() {
            0 | 1 if types == Types::MarkTokens => 2,
            n_types => n_types.max(1),
        };
        match type_ids.iter().enumerate().find(|&(_, &id)| id as usize >= n_types) {
            None => Ok(()),
            Some((position, &id)) if n_types == 1 => Err(InputError::NoTypes { id, position }),
            Some((position, &id)) => Err(InputError::UnknownType { id, position, last: n_types - 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_counted_in_characters_and_has_no_space_around_it() {
        assert_eq!(characters("née à Orléans.", 4..16), (4..13, "à Orléans".to_owned()));
        assert_eq!(characters("née à Orléans.", 4..7), (4..5, "à".to_owned()));
        assert_eq!(characters("a b", 0..0), (0..0, String::new()));
    }
}
