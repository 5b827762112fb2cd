//! Task `token-classify`: what stands where in a text, such as names.

use serde_json::{Value, json};

use super::input::{Input, stretch};
use super::reader::EncoderReader;
use super::{Answer, Row, RowError, ensure_empty, object};

pub(super) struct TokenClassify {
    pub(super) model: EncoderReader,
}

impl Answer for TokenClassify {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let config = &self.model.bundle.config;
        let text = row.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
        let input = Input::take(&mut row, &self.model, config.max_positions())?;
        ensure_empty(&row)?;
        let entities = self.model.bundle.entities(input.view(), &input.own(|_| true));
        let entities: Vec<_> = entities
            .into_iter()
            .map(|entity| {
                let label = &config.labels()[entity.label];
                let label = label.strip_prefix("B-").or_else(|| label.strip_prefix("I-")).unwrap_or(label);
                // Of ids, the places are positions among them.
                let (start, end, text) = match input.by_ids {
                    true => (entity.tokens.start.into(), entity.tokens.end.into(), Value::Null),
                    false => {
                        let places = || input.framed.places[entity.tokens.clone()].iter().flatten();
                        let start = places().map(|place| place.bytes.start).min().unwrap_or(0);
                        let end = places().map(|place| place.bytes.end).max().unwrap_or(0);
                        stretch(&text, start..end)
                    }
                };
                json!({ "label": label, "start": start, "end": end, "text": text, "score": entity.score })
            })
            .collect();
        let mut answer = object(json!({ "entities": entities }));
        input.tell_truncation(&mut answer);
        Ok(answer)
    }
}
