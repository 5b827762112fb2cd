//! What encoders read, taken out of a row.

use andiron_data::tokenizer::{Framed, Place};
use andiron_models::encoder::EncoderInput;
use serde_json::{Value, json};

use super::reader::{Reader, Reads};
use super::{Row, RowError, take};

/// A framed text, or two.
pub(super) struct Input {
    pub(super) framed: Framed,
    /// Whether the row gave ids, so that there is no text for places to lead back to.
    pub(super) by_ids: bool,
}

impl Input {
    /// `text`, or `ids` and perhaps `type_ids`.
    pub(super) fn take(row: &mut Row, model: &Reader<impl Reads>, limit: usize) -> Result<Self, RowError> {
        Self::take_with(row, None, model, limit)
    }

    /// The same with `text_pair`, if the row has it.
    pub(super) fn take_pair(
        row: &mut Row,
        model: &Reader<impl Reads>,
        limit: usize,
    ) -> Result<Self, RowError> {
        let pair = take::<String>(row, "text_pair", "a string")?;
        Self::take_with(row, pair.as_deref(), model, limit)
    }

    fn take_with(
        row: &mut Row,
        pair: Option<&str>,
        model: &Reader<impl Reads>,
        limit: usize,
    ) -> Result<Self, RowError> {
        if row.contains_key("ids") {
            if row.contains_key("text") || pair.is_some() {
                return Err(RowError::invalid("give text or ids, not both"));
            }
            return Self::take_ids(row, model, limit, false);
        }
        let text = take::<String>(row, "text", "a string")?
            .ok_or_else(|| RowError::invalid("there is neither text nor ids"))?;
        let framed = model.tokenizer()?.frame(&text, pair, limit).map_err(RowError::failed)?;
        Self::of_text(framed, model, limit)
    }

    /// `ids` and perhaps `type_ids`, framed already. `mark` says that types tell which tokens count as well.
    pub(super) fn take_ids(
        row: &mut Row,
        model: &Reader<impl Reads>,
        limit: usize,
        mark: bool,
    ) -> Result<Self, RowError> {
        let ids: Vec<u32> = take(row, "ids", "a list of token ids")?.unwrap_or_default();
        let type_ids: Vec<u32> =
            take(row, "type_ids", "a list of numbers")?.unwrap_or_else(|| vec![0; ids.len()]);
        if type_ids.len() != ids.len() {
            return Err(RowError::invalid(format!(
                "there are {} type_ids for {} ids",
                type_ids.len(),
                ids.len()
            )));
        }
        model.check_types(&type_ids, mark)?;
        let places = vec![None; ids.len()];
        Self::checked(Framed { ids, type_ids, places, truncated: false }, true, model, limit)
    }

    /// What the tokenizer made of a text.
    pub(super) fn of_text(
        framed: Framed,
        model: &Reader<impl Reads>,
        limit: usize,
    ) -> Result<Self, RowError> {
        let type_ids = model.types_of_text(framed.type_ids)?;
        Self::checked(Framed { type_ids, ..framed }, false, model, limit)
    }

    fn checked(
        framed: Framed,
        by_ids: bool,
        model: &Reader<impl Reads>,
        limit: usize,
    ) -> Result<Self, RowError> {
        let vocab_size = model.bundle.vocab_size();
        match framed.ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(id) => {
                Err(RowError::invalid(format!("there is no token {id}: the vocabulary has {vocab_size}")))
            }
            None if framed.ids.is_empty() => Err(RowError::invalid("there is no token to read")),
            None if framed.ids.len() > limit => Err(too_long(limit)),
            None => Ok(Self { framed, by_ids }),
        }
    }

    pub(super) fn view(&self) -> EncoderInput<'_> {
        EncoderInput { ids: &self.framed.ids, type_ids: &self.framed.type_ids }
    }

    /// Whether each token is the text's own; with ids nobody knows, so that all are.
    pub(super) fn own(&self, wanted: impl Fn(&Place) -> bool) -> Vec<bool> {
        self.framed.places.iter().map(|place| self.by_ids || place.as_ref().is_some_and(&wanted)).collect()
    }

    /// Says in `answer` that the end of a text was not read.
    pub(super) fn tell_truncation(&self, answer: &mut Row) {
        if self.framed.truncated {
            answer.insert("truncated".to_owned(), json!(true));
        }
    }
}

pub(super) fn too_long(limit: usize) -> RowError {
    RowError::invalid(format!("the text is longer than the {limit} tokens that the model reads"))
}

/// Stretches of `text` in characters, as people count them, and what stands there.
pub(super) fn stretch(text: &str, bytes: std::ops::Range<usize>) -> (Value, Value, Value) {
    // Tokens of some vocabularies hold the space before a word.
    let found = &text[bytes.clone()];
    let trimmed = found.trim_start();
    let start = text[..bytes.end - trimmed.len()].chars().count();
    let trimmed = trimmed.trim_end();
    (start.into(), (start + trimmed.chars().count()).into(), trimmed.into())
}
