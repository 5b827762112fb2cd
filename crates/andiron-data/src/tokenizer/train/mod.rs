//! Training of vocabularies: one file per kind.

mod bpe;
mod chars;
mod pairs;
mod unigram;
mod word_piece;
mod words;

use super::error::TokenizerError;
use super::special::SpecialTokens;

pub use bpe::{BpeOptions, Framing, train_bpe};
pub use chars::train_chars;
pub use unigram::{UnigramOptions, train_unigram};
pub use word_piece::{WordPieceOptions, train_word_piece};

/// Why a tokenizer could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There is no training text.
    #[error("there is no text to make a vocabulary from")]
    NoText,
    /// The requested size is smaller than the initial vocabulary.
    #[error("a vocabulary of {asked} is too small: letters or bytes and control tokens alone take {least}")]
    VocabularyTooSmall {
        /// The size asked for.
        asked: usize,
        /// The smallest that works.
        least: usize,
    },
    /// A control token cannot be used.
    #[error("control token {token:?} is empty or also a token of the text")]
    ControlToken {
        /// The token.
        token: String,
    },
    /// The control tokens around a text need one that is not there.
    #[error("special_tokens.{role} is missing, which the control tokens around a text need")]
    MissingRole {
        /// The role.
        role: &'static str,
    },
    /// The trained tokenizer is not valid, or the library failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

fn check_special(special: &SpecialTokens, is_token: impl Fn(&str) -> bool) -> Result<(), TrainError> {
    match special.all().into_iter().find(|token| token.is_empty() || is_token(token)) {
        Some(token) => Err(TrainError::ControlToken { token: token.to_owned() }),
        None => Ok(()),
    }
}
