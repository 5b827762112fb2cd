//! Task `label`: token classification, such as named entities.

use std::borrow::Borrow;
use std::ops::Range;

use crate::EncoderPipeline;
use crate::batching::{BATCH_TOKENS, for_good, in_batches};
use crate::input::{Encoded, InputError, TextInput, Types, characters};

/// The labelled spans of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledText<'a> {
    /// Spans with a label other than `O`, in order.
    pub entities: Vec<LabelledEntity<'a>>,
    /// Tokens that were read, special tokens included.
    pub tokens: usize,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// Consecutive tokens with the same label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledEntity<'a> {
    /// The label, without the `B-` or `I-` before it.
    pub label: &'a str,
    /// Its range: in characters of the text, or in tokens if ids were given.
    pub span: Range<usize>,
    /// Its text; `None` if ids were given.
    pub text: Option<String>,
    /// Mean probability of the label over the tokens.
    pub score: f32,
}

impl EncoderPipeline {
    /// The labelled spans of each text.
    ///
    /// # Panics
    /// If the model has no token classification head.
    pub fn label<T: Borrow<TextInput>>(&self, inputs: &[T]) -> Vec<Result<LabelledText<'_>, InputError>> {
        let (reader, limit) = (self.reader(), self.bundle.config.max_positions());
        let encoded = inputs.iter().map(|input| {
            let input = input.borrow();
            let encoded = reader.read(input, limit, Types::ForModel)?;
            let text = match input {
                TextInput::Text { text, .. } => Some(text.as_str()),
                TextInput::Ids { .. } => None,
            };
            Ok((encoded, text))
        });
        for_good(encoded.collect(), |good: &[(Encoded, Option<&str>)]| {
            in_batches(
                good,
                |(input, _)| input.len(),
                BATCH_TOKENS,
                |batch| {
                    let views: Vec<_> = batch.iter().map(|(input, _)| input.view()).collect();
                    let counts: Vec<_> = batch.iter().map(|(input, _)| input.own(|_| true)).collect();
                    let found = self.bundle.entities(&views, &counts);
                    batch
                        .iter()
                        .zip(found)
                        .map(|((input, text), entities)| self.labelled(input, *text, entities))
                        .collect()
                },
            )
        })
    }

    fn labelled(
        &self,
        input: &Encoded,
        text: Option<&str>,
        entities: Vec<andiron_models::encoder::Entity>,
    ) -> LabelledText<'_> {
        let entity = |entity: andiron_models::encoder::Entity| {
            let label = self.bundle.config.labels()[entity.label].as_str();
            let label = label.strip_prefix("B-").or_else(|| label.strip_prefix("I-")).unwrap_or(label);
            let (span, text) = match text {
                None => (entity.tokens, None),
                Some(text) => {
                    let (span, text) = characters(text, input.bytes(entity.tokens));
                    (span, Some(text))
                }
            };
            LabelledEntity { label, span, text, score: entity.score }
        };
        let entities = entities.into_iter().map(entity).collect();
        LabelledText { entities, tokens: input.len(), truncated: input.framed.truncated }
    }
}
