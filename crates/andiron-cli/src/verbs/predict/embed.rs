//! Task `embed`: one vector for a text.

use serde_json::json;

use super::input::Input;
use super::reader::EncoderReader;
use super::{Answer, Row, RowError, ensure_empty, object, take};

pub(super) struct Embed {
    pub(super) model: EncoderReader,
}

impl Answer for Embed {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let (input, n_prompt) = if row.contains_key("ids") {
            (Input::take(&mut row, &self.model, self.model.embed_limit())?, 0)
        } else {
            let text = take::<String>(&mut row, "text", "a string")?
                .ok_or_else(|| RowError::invalid("there is neither text nor ids"))?;
            let prompt = self.model.bundle.embedding.as_ref().map_or("", |pipeline| pipeline.prompts.usual());
            self.model.embed_input(prompt, &text)?
        };
        ensure_empty(&row)?;
        let embedding = self.model.bundle.embed_after(&[&input.framed.ids], n_prompt).pop();
        let mut answer = object(json!({ "embedding": embedding }));
        input.tell_truncation(&mut answer);
        Ok(answer)
    }
}
