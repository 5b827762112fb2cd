//! Task `classify`: which labels a text has.

use andiron_models::encoder::EncoderInput;
use andiron_models::{ClassifierBundle, EncoderBundle};
use serde_json::json;

use super::input::Input;
use super::reader::{Reader, Reads};
use super::{Answer, Row, RowError, ensure_empty, object};

/// A model that labels texts.
pub(super) trait Labels: Reads {
    fn labels(&self) -> &[String];

    /// Longest text, in tokens.
    fn max_positions(&self) -> usize;

    /// A score for each label.
    fn scores(&self, input: EncoderInput<'_>) -> Vec<f32>;
}

impl Labels for EncoderBundle {
    fn labels(&self) -> &[String] {
        self.config.labels()
    }

    fn max_positions(&self) -> usize {
        self.config.max_positions()
    }

    fn scores(&self, input: EncoderInput<'_>) -> Vec<f32> {
        self.classify(&[input]).pop().unwrap_or_default()
    }
}

impl Labels for ClassifierBundle {
    fn labels(&self) -> &[String] {
        self.config.labels()
    }

    fn max_positions(&self) -> usize {
        self.config.sizes().max_positions
    }

    fn scores(&self, input: EncoderInput<'_>) -> Vec<f32> {
        self.classify(&[input.ids]).pop().unwrap_or_default()
    }
}

pub(super) struct Classify<B> {
    pub(super) model: Reader<B>,
}

impl<B: Labels> Answer for Classify<B> {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let bundle = &self.model.bundle;
        let input = Input::take_pair(&mut row, &self.model, bundle.max_positions())?;
        ensure_empty(&row)?;
        let mut labels: Vec<_> = bundle.labels().iter().zip(bundle.scores(input.view())).collect();
        labels.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let labels: Vec<_> =
            labels.into_iter().map(|(label, score)| json!({ "label": label, "score": score })).collect();
        let mut answer = object(json!({ "labels": labels }));
        input.tell_truncation(&mut answer);
        Ok(answer)
    }
}
