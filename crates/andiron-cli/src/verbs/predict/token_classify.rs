//! Task `token-classify`: labelled spans of a text, such as named entities.

use andiron_pipelines::{EncoderPipeline, LabelledText};
use serde_json::{Value, json};

use super::rows::{Answer, Row, RowError, answer_parsed, object, take_input, tell_truncation};

pub(super) struct TokenClassify {
    pub(super) model: EncoderPipeline,
}

impl Answer for TokenClassify {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(rows, take_input, |inputs| {
            let labelled = self.model.label(&inputs);
            labelled.into_iter().map(|labelled| Ok(row(&labelled?))).collect()
        })
    }
}

fn row(labelled: &LabelledText<'_>) -> Row {
    let entities = labelled.entities.iter().map(|entity| {
        json!({ "label": entity.label, "start": entity.span.start, "end": entity.span.end, "text": entity.text,
                "score": entity.score })
    });
    let mut row = object(json!({ "entities": entities.collect::<Vec<Value>>() }));
    tell_truncation(&mut row, labelled.truncated);
    row
}
