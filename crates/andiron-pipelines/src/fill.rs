//! Task `fill`: predict masked tokens.

use std::borrow::Borrow;

use andiron_data::tokenizer::Special;

use crate::EncoderPipeline;
use crate::batching::{BATCH_TOKENS, for_good, in_batches};
use crate::input::{Encoded, InputError, TextInput, Types};

/// A text with masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedText {
    /// The text with mask tokens, or its ids. Not truncated: an input that is too long is an error.
    pub input: TextInput,
    /// Positions to predict, among the ids; `None` is those of the mask token.
    pub positions: Option<Vec<usize>>,
}

/// Predictions for one position.
#[derive(Clone, Debug, PartialEq)]
pub struct FilledMask {
    /// The position among the ids.
    pub position: usize,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<Guess>,
}

/// A candidate token.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// Its id.
    pub id: u32,
    /// Its text; `None` without a tokenizer.
    pub token: Option<String>,
    /// Its probability.
    pub probability: f32,
}

/// Why nothing can be predicted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// The text or its ids cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A position outside the text.
    #[error("there is no position {position}: the text has {tokens} tokens")]
    NoPosition {
        /// The position.
        position: usize,
        /// Tokens of the text.
        tokens: usize,
    },
    /// A position given twice.
    #[error("mask_positions has the position {position} twice")]
    Twice {
        /// The position.
        position: usize,
    },
    /// The text has no mask.
    #[error("nothing is masked: {}", mask.as_ref().map_or_else(|| "give mask_positions".to_owned(), |mask| format!("write {mask} in it")))]
    NothingMasked {
        /// The mask token, if the tokenizer has one.
        mask: Option<String>,
    },
}

impl EncoderPipeline {
    /// The `top` likeliest tokens at each masked position of each text.
    ///
    /// # Panics
    /// If the model has no head for masked tokens.
    pub fn fill<T: Borrow<MaskedText>>(
        &self,
        texts: &[T],
        top: usize,
    ) -> Vec<Result<Vec<FilledMask>, FillError>> {
        let encoded = texts.iter().map(|text| self.masked(text.borrow())).collect();
        for_good(encoded, |good: &[(Encoded, Vec<usize>)]| {
            in_batches(
                good,
                |(input, _)| input.len(),
                BATCH_TOKENS,
                |batch| {
                    let views: Vec<_> = batch.iter().map(|(input, _)| input.view()).collect();
                    let positions: Vec<&[usize]> =
                        batch.iter().map(|(_, positions)| positions.as_slice()).collect();
                    let guesses = self.bundle.fill(&views, &positions, top);
                    positions.iter().zip(guesses).map(|(at, guesses)| self.filled(at, guesses)).collect()
                },
            )
        })
    }

    fn filled(&self, positions: &[usize], guesses: Vec<Vec<(u32, f32)>>) -> Vec<FilledMask> {
        let mask = |(&position, top): (&usize, Vec<(u32, f32)>)| FilledMask {
            position,
            top: top.into_iter().map(|guess| self.guess(guess)).collect(),
        };
        positions.iter().zip(guesses).map(mask).collect()
    }

    fn guess(&self, (id, probability): (u32, f32)) -> Guess {
        let token = self.text.tokenizer().and_then(|tokenizer| tokenizer.decode(&[id], Special::Keep).ok());
        Guess { id, token, probability }
    }

    /// A text and the positions to predict.
    fn masked(&self, text: &MaskedText) -> Result<(Encoded, Vec<usize>), FillError> {
        let (reader, limit) = (self.reader(), self.bundle.config.max_positions());
        let input = match &text.input {
            TextInput::Text { text, .. } => {
                let framed = reader.tokenizer()?.frame_masked(text, limit).map_err(InputError::from)?;
                if framed.truncated {
                    return Err(InputError::TooLong { limit }.into());
                }
                reader.framed(framed, limit)?
            }
            ids => reader.read(ids, limit, Types::ForModel)?,
        };
        let ids = &input.framed.ids;
        let mask = self.text.tokenizer().and_then(|tokenizer| tokenizer.mask_id());
        let masked = || (0..ids.len()).filter(|&at| Some(ids[at]) == mask).collect();
        let positions = text.positions.clone().unwrap_or_else(masked);
        let tokens = ids.len();
        let mut seen = vec![false; tokens];
        for &position in &positions {
            match seen.get_mut(position) {
                None => return Err(FillError::NoPosition { position, tokens }),
                Some(true) => return Err(FillError::Twice { position }),
                Some(seen) => *seen = true,
            }
        }
        if positions.is_empty() {
            let mask = self.text.tokenizer().and_then(|tokenizer| tokenizer.special_tokens().mask.clone());
            return Err(FillError::NothingMasked { mask });
        }
        Ok((input, positions))
    }
}
