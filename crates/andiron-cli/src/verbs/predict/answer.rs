//! Task `answer`: find the answer to a question in a text of any length.

use serde_json::json;

use super::input::{Input, stretch};
use super::reader::EncoderReader;
use super::{Answer, Row, RowError, ensure_empty, object, take};

/// Tokens that consecutive parts of a long text share.
const OVERLAP: usize = 128;

pub(super) struct FindAnswer {
    pub(super) model: EncoderReader,
    /// Longest answer, in tokens.
    pub(super) max_tokens: usize,
}

impl Answer for FindAnswer {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let limit = self.model.bundle.config.max_positions();
        if row.contains_key("ids") {
            return self.answer_ids(row, limit);
        }
        let mut wanted = |key: &str| {
            take::<String>(&mut row, key, "a string")?.ok_or_else(|| {
                RowError::invalid(format!("there is no {key}; question and context are needed"))
            })
        };
        let (question, context) = (wanted("question")?, wanted("context")?);
        ensure_empty(&row)?;
        let tokenizer = self.model.tokenizer()?;
        let overlap = OVERLAP.min(limit / 4);
        let windows =
            tokenizer.frame_windows(&question, &context, limit, overlap).map_err(RowError::failed)?;
        let windows: Vec<Input> = windows
            .into_iter()
            .map(|framed| Input::of_text(framed, &self.model, limit))
            .collect::<Result<_, _>>()?;
        let views: Vec<_> = windows.iter().map(Input::view).collect();
        let allowed: Vec<_> = windows.iter().map(|window| window.own(|place| place.text == 1)).collect();
        let found = self.model.bundle.answers(&views, &allowed, self.max_tokens);
        let Some((window, span)) = found.into_iter().next() else {
            return Err(RowError::invalid("context has no token in which an answer could be"));
        };
        let places = || windows[window].framed.places[span.tokens.clone()].iter().flatten();
        let start = places().map(|place| place.bytes.start).min().unwrap_or(0);
        let end = places().map(|place| place.bytes.end).max().unwrap_or(0);
        let (start, end, text) = stretch(&context, start..end);
        Ok(object(json!({ "answer": text, "start": start, "end": end, "score": span.score })))
    }
}

impl FindAnswer {
    /// Of ids, those whose type is 1 may answer, or all if there is one type; places are positions among them.
    fn answer_ids(&self, mut row: Row, limit: usize) -> Result<Row, RowError> {
        let input = Input::take_ids(&mut row, &self.model, limit, true)?;
        ensure_empty(&row)?;
        let types = &input.framed.type_ids;
        let two = types.iter().any(|&id| id != 0);
        let allowed = types.iter().map(|&id| !two || id == 1).collect();
        let found = self.model.bundle.answers(&[input.view()], &[allowed], self.max_tokens);
        let Some((_, span)) = found.into_iter().next() else {
            return Err(RowError::invalid("there is no token in which an answer could be"));
        };
        let ids = &input.framed.ids[span.tokens.clone()];
        Ok(object(json!({
            "answer": null, "answer_ids": ids, "start": span.tokens.start, "end": span.tokens.end, "score": span.score
        })))
    }
}
