//! Task `classify`: text classification.

use andiron_pipelines::{Classification, ClassifyTexts, Pipeline};
use serde_json::{Value, json};

use super::rows::{Answer, Row, RowError, answer_parsed, object, take_pair, tell_truncation};

pub(super) struct Classify<B> {
    pub(super) model: Pipeline<B>,
    /// Number of labels at most, the best ones.
    pub(super) top: usize,
}

impl<B: ClassifyTexts> Answer for Classify<B> {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(rows, take_pair, |inputs| {
            let found = self.model.classify(&inputs);
            found.into_iter().map(|found| Ok(row(&found?, self.top))).collect()
        })
    }
}

fn row(found: &Classification<'_>, top: usize) -> Row {
    let best = found.labels.iter().take(top);
    let labels: Vec<Value> =
        best.map(|found| json!({ "label": found.label, "score": found.score })).collect();
    let mut row = object(json!({ "labels": labels }));
    tell_truncation(&mut row, found.truncated);
    row
}
