//! Task `classify`: text classification.

use std::borrow::Borrow;

use andiron_models::encoder::EncoderInput;
use andiron_models::{ClassifierBundle, EncoderBundle};

use crate::Pipeline;
use crate::batching::{BATCH_TOKENS, for_good, in_batches};
use crate::input::{Encoded, InputError, ReadTexts, TextInput, Types};

/// A model with a text classification head.
pub trait ClassifyTexts: ReadTexts {
    /// The labels.
    fn labels(&self) -> &[String];

    /// A score for each label of each text: a probability, or for a regression the raw output.
    ///
    /// # Panics
    /// If the model has no text classification head, or a text is too long.
    fn label_scores(&self, inputs: &[EncoderInput<'_>]) -> Vec<Vec<f32>>;
}

impl ClassifyTexts for EncoderBundle {
    fn labels(&self) -> &[String] {
        self.config.labels()
    }

    fn label_scores(&self, inputs: &[EncoderInput<'_>]) -> Vec<Vec<f32>> {
        self.classify(inputs)
    }
}

impl ClassifyTexts for ClassifierBundle {
    fn labels(&self) -> &[String] {
        self.config.labels()
    }

    fn label_scores(&self, inputs: &[EncoderInput<'_>]) -> Vec<Vec<f32>> {
        let ids: Vec<&[u32]> = inputs.iter().map(|input| input.ids).collect();
        self.classify(&ids)
    }
}

/// The labels of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification<'a> {
    /// All labels, best first; ties in the model's order.
    pub labels: Vec<LabelScore<'a>>,
    /// Tokens that were read, special tokens included.
    pub tokens: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// A label and how well it fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelScore<'a> {
    /// Its name.
    pub label: &'a str,
    /// A probability, or the value itself of a regression.
    pub score: f32,
}

impl<B: ClassifyTexts> Pipeline<B> {
    /// The labels of each text, or pair of texts, best first.
    ///
    /// # Panics
    /// If the model has no text classification head.
    pub fn classify<T: Borrow<TextInput>>(
        &self,
        inputs: &[T],
    ) -> Vec<Result<Classification<'_>, InputError>> {
        let (reader, limit) = (self.reader(), self.bundle.max_positions());
        let read = |input: &T| reader.read(input.borrow(), limit, Types::ForModel);
        let encoded = inputs.iter().map(read).collect();
        for_good(encoded, |good: &[Encoded]| {
            let scores = in_batches(good, Encoded::len, BATCH_TOKENS, |batch| {
                let views: Vec<_> = batch.iter().map(|input| input.view()).collect();
                self.bundle.label_scores(&views)
            });
            let classification = |(scores, input): (Vec<f32>, &Encoded)| Classification {
                labels: best_first(self.bundle.labels(), scores),
                tokens: input.len(),
                truncated: input.framed.truncated,
            };
            scores.into_iter().zip(good).map(classification).collect()
        })
    }
}

fn best_first(labels: &[String], scores: Vec<f32>) -> Vec<LabelScore<'_>> {
    let mut labels: Vec<LabelScore<'_>> =
        labels.iter().zip(scores).map(|(label, score)| LabelScore { label, score }).collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    labels
}
