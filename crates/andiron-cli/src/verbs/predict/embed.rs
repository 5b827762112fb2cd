//! Task `embed`: text embeddings.

use andiron_pipelines::{Embedding, EncoderPipeline, InputError};
use serde_json::json;

use super::rows::{Answer, Row, RowError, answer_parsed, object, take_input, tell_truncation};

pub(super) struct Embed {
    pub(super) model: EncoderPipeline,
}

impl Answer for Embed {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(rows, take_input, |inputs| {
            let row = |embedding: Result<Embedding, InputError>| {
                let embedding = embedding?;
                let mut row = object(json!({ "embedding": embedding.vector }));
                tell_truncation(&mut row, embedding.truncated);
                Ok(row)
            };
            self.model.embed(&inputs).into_iter().map(row).collect()
        })
    }
}
