//! The bytes that each token adds to a text, for constrained decoding.

use super::validate::Decoding;
use super::{Special, Tokenizer, TokenizerError, bytes};

/// The bytes that the tokens of a vocabulary add to a text; see [`Tokenizer::spellings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spellings {
    /// The bytes that each id adds within a text; empty for control tokens, the unknown token, and ids without a token.
    pub tokens: Vec<Vec<u8>>,
    /// Control tokens by id.
    pub control: Vec<(u32, String)>,
    /// Whether a space at the beginning of a text is dropped, as by SentencePiece and WordPiece.
    pub drops_first_space: bool,
}

impl Tokenizer {
    /// The bytes of one token, which may be part of a character; those of its name if it is a control token. Empty for an id
    /// without a token.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.decoded_token(id) else { return Vec::new() };
        if self.is_special(id) {
            return token.into_bytes();
        }
        match self.inner.decoding() {
            Decoding::ByteLevel | Decoding::Concatenate => self.inner.bytes_of(&token),
            decoding => match bytes::fallback(&token).filter(|_| decoding == Decoding::ByteFallback) {
                Some(byte) => vec![byte],
                None => self.decode_raw(&[id], Special::Keep).unwrap_or(token).into_bytes(),
            },
        }
    }

    /// The bytes that each token adds to a text, for grammars that constrain generation. It covers the model's vocabulary, if
    /// that is known ([`for_model`](Self::for_model)).
    ///
    /// The concatenated spellings of some ids are their [`decode`](Self::decode), if tokens are decoded independently of their
    /// neighbours. WordPiece and `clean_up_tokenization_spaces` are exceptions: they join `do` and `n't`.
    ///
    /// # Errors
    /// If the library fails.
    pub fn spellings(&self) -> Result<Spellings, TokenizerError> {
        let n_ids = self.model_ids.map_or(self.vocab_size(), |n| n.min(self.vocab_size()));
        let ids = || 0..n_ids as u32;
        let spells = |id: &u32| {
            let token = self.inner.decoded_token(*id)?;
            let says_nothing = self.is_special(*id) || self.inner.facts.unknown.as_ref() == Some(&token);
            (!says_nothing).then_some(token)
        };
        let named = |id: u32| Some((id, self.inner.decoded_token(id).filter(|_| self.is_special(id))?));
        let control: Vec<(u32, String)> = ids().filter_map(named).collect();
        if let Decoding::ByteLevel | Decoding::Concatenate = self.inner.decoding() {
            let tokens =
                ids().map(|id| spells(&id).map(|token| self.inner.bytes_of(&token)).unwrap_or_default());
            return Ok(Spellings { tokens: tokens.collect(), control, drops_first_space: false });
        }
        // Other decoders look at whole texts, so each token is seen after one that is a plain letter.
        let text = |ids: &[u32]| self.decode_raw(ids, Special::Keep);
        let is_letter = |id: &u32| {
            spells(id).is_some_and(|token| token.len() == 1 && token.as_bytes()[0].is_ascii_alphabetic())
        };
        let before: Vec<u32> = ids().find(is_letter).into_iter().collect();
        let prefix = text(&before)?;
        let mut drops_first_space = false;
        let mut tokens = Vec::with_capacity(n_ids);
        for id in ids() {
            let Some(token) = spells(&id) else {
                tokens.push(Vec::new());
                continue;
            };
            let byte = bytes::fallback(&token).filter(|_| self.inner.decoding() == Decoding::ByteFallback);
            tokens.push(match byte {
                Some(byte) => vec![byte],
                None => {
                    let both = text(&[before.as_slice(), &[id]].concat())?;
                    let added = both.strip_prefix(&prefix).unwrap_or(&token).to_owned();
                    drops_first_space |=
                        added.len() > 1 && added.starts_with(' ') && text(&[id])? == added[1..];
                    added.into_bytes()
                }
            });
        }
        Ok(Spellings { tokens, control, drops_first_space })
    }
}
