//! Encoding of many texts, and how well a vocabulary fits them.

use rayon::prelude::*;

use super::{Special, Tokenizer, TokenizerError};

impl Tokenizer {
    /// The ids of several texts, by all threads of the rayon pool: [`encode`](Self::encode) of each.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode), of a text that has one.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>, TokenizerError> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }
}

/// How well a vocabulary fits some texts.
///
/// # Example
/// ```
/// use andiron_data::tokenizer::{BpeOptions, Compression, train_bpe};
/// let tokenizer = train_bpe(["low lower lowest"], &BpeOptions::new(260))?;
/// let found = Compression::of(&tokenizer, &["low low", "new"])?;
/// assert_eq!((found.texts, found.bytes, found.tokens, found.exact), (2, 10, 5, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// The texts.
    pub texts: u64,
    /// Their length in UTF-8, in bytes.
    pub bytes: u64,
    /// Their length in characters.
    pub characters: u64,
    /// The tokens that they are encoded as.
    pub tokens: u64,
    /// The tokens among these that stand for what the vocabulary lacks.
    pub unknown: u64,
    /// The texts that decoding gives back byte for byte.
    pub exact: u64,
    /// The texts that cannot be encoded, because the vocabulary lacks a character and has no unknown token. They count
    /// nowhere else.
    pub refused: u64,
}

impl Compression {
    /// Encodes and decodes texts, by all threads of the rayon pool.
    ///
    /// # Errors
    /// If the tokenizer fails, for another reason than what the text is.
    pub fn of<S: AsRef<str> + Sync>(tokenizer: &Tokenizer, texts: &[S]) -> Result<Self, TokenizerError> {
        let one = |text: &S| Self::of_one(tokenizer, text.as_ref());
        texts.par_iter().map(one).try_reduce(Self::default, |a, b| Ok(a.plus(b)))
    }

    fn of_one(tokenizer: &Tokenizer, text: &str) -> Result<Self, TokenizerError> {
        let ids = match tokenizer.encode(text) {
            Ok(ids) => ids,
            Err(error) if error.is_about_text() => return Ok(Self { refused: 1, ..Self::default() }),
            Err(error) => return Err(error),
        };
        let unknown = tokenizer.inner.unknown;
        Ok(Self {
            texts: 1,
            bytes: text.len() as u64,
            characters: text.chars().count() as u64,
            tokens: ids.len() as u64,
            unknown: ids.iter().filter(|&&id| Some(id) == unknown).count() as u64,
            exact: u64::from(tokenizer.decode(&ids, Special::Keep)? == text),
            refused: 0,
        })
    }

    /// That of both texts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            texts: self.texts + other.texts,
            bytes: self.bytes + other.bytes,
            characters: self.characters + other.characters,
            tokens: self.tokens + other.tokens,
            unknown: self.unknown + other.unknown,
            exact: self.exact + other.exact,
            refused: self.refused + other.refused,
        }
    }

    /// The mean length of a token, in bytes; 0 without tokens.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }

    /// The share of the texts that come back byte for byte, from 0 to 1.
    pub fn exact_share(&self) -> f64 {
        self.exact as f64 / self.texts.max(1) as f64
    }

    /// The share of the tokens that are unknown, from 0 to 1.
    pub fn unknown_share(&self) -> f64 {
        self.unknown as f64 / self.tokens.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SpecialTokens, WordPieceOptions, train_chars, train_word_piece};
    use super::*;

    #[test]
    fn what_a_vocabulary_lacks_is_counted() {
        let characters = train_chars(["abc "], &SpecialTokens::default()).unwrap();
        let found = Compression::of(&characters, &["ab c", "é", "a"]).unwrap();
        assert_eq!((found.texts, found.tokens, found.exact, found.refused), (2, 5, 2, 1));
        let pieces = train_word_piece(["aaa bbb"], &WordPieceOptions::new(20)).unwrap();
        let found = Compression::of(&pieces, &["AAA 한"]).unwrap();
        assert_eq!((found.unknown, found.exact, found.characters, found.bytes), (1, 0, 5, 7));
        assert_eq!(found.unknown_share(), 1.0 / found.tokens as f64);
        assert_eq!(Compression::of::<&str>(&pieces, &[]).unwrap().bytes_per_token(), 0.0);
    }
}
