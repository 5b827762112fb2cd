//! Task `embed`: one vector for a text.

use serde_json::json;

use super::input::Input;
use super::reader::EncoderReader;
use super::{Answer, Row, RowError, ensure_empty, object};

pub(super) struct Embed {
    pub(super) model: EncoderReader,
}

impl Answer for Embed {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let input = Input::take(&mut row, &self.model, self.model.bundle.max_tokens())?;
        ensure_empty(&row)?;
        let embedding = self.model.bundle.embed(&[&input.framed.ids]).pop();
        let mut answer = object(json!({ "embedding": embedding }));
        input.tell_truncation(&mut answer);
        Ok(answer)
    }
}
