//! Task `classify`: which labels a text has.

use serde_json::json;

use super::input::Input;
use super::{Answer, Row, RowError, ensure_empty, object};
use crate::model::EncoderModel;

pub(super) struct Classify {
    pub(super) model: EncoderModel,
}

impl Answer for Classify {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let config = &self.model.bundle.config;
        let input = Input::take_pair(&mut row, &self.model, config.max_positions())?;
        ensure_empty(&row)?;
        let scores = self.model.bundle.classify(&[input.view()]).pop().unwrap_or_default();
        let mut labels: Vec<_> = config.labels().iter().zip(scores).collect();
        labels.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let labels: Vec<_> =
            labels.into_iter().map(|(label, score)| json!({ "label": label, "score": score })).collect();
        let mut answer = object(json!({ "labels": labels }));
        input.tell_truncation(&mut answer);
        Ok(answer)
    }
}
