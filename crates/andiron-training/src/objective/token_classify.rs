//! Classification of tokens, such as named entities and parts of speech: for encoders.

use std::sync::Arc;

use andiron_core::loss;
use andiron_data::batch::HostBatch;
use andiron_data::collate;
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{LabelCollector, LabelVocabulary, RowError, RowFault, TagFields, TaggedTokens};
use andiron_data::tokenizer::LabelledTokens;
use andiron_eval::metric::classification::{Average, LabelCounts, average};
use andiron_eval::metric::seqeval::{SpanCounts, TagScheme};
use andiron_models::encoder::Head;
use andiron_models::{Encoder as _, EncoderConfig, EncoderHead};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::classify::greatest;
use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass, WeightedTargets};
use crate::config::check;
use crate::plan::{Plan, Setup};
use crate::rows::{EncodeFault, Encoding, text_columns};
use crate::trainer::TrainError;

/// Options of [`TokenClassify`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenClassifyConfig {
    /// Names of the labels, in the order of the head's outputs; by default those of the rows, sorted, or those of the model
    /// if it has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// Cross-entropy of the label of the first token of each word. Other tokens have no label.
///
/// Source: the loss of Hugging Face's `…ForTokenClassification`, with labels as its `run_ner` example aligns them.
#[derive(Clone, Debug)]
pub struct TokenClassify {
    /// Names of the labels.
    pub labels: Vec<String>,
}

/// What a classification of tokens collects over the validation data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenClassifyTally {
    /// Label and predicted label of each labelled token, text by text.
    pub texts: Vec<Vec<(u32, u32)>>,
}

impl TokenClassify {
    /// Label logits of all positions.
    ///
    /// # Shape
    /// `[rows · columns, labels]`.
    fn logits(model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<2> {
        let inputs = &batch.inputs;
        let mut cx = pass.context(inputs);
        let hidden_btd = model.hidden(pass.ids(inputs), pass.type_ids(inputs), &mut cx);
        let Head::TokenClassification(head) = model.head() else {
            panic!("an encoder with a head for labels of tokens")
        };
        let logits_btl = head.forward(hidden_btd, &mut cx);
        let [b, t, l] = logits_btl.dims();
        logits_btl.reshape([b * t, l])
    }

    fn loss_of(logits_nl: Tensor<2>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let labels = batch.token_labels().expect("a collator of tokens");
        let WeightedTargets { positions_n, targets_n, weights_n } = pass.weighted_targets(labels);
        (loss::cross_entropy(logits_nl.select(0, positions_n), targets_n, 0.0) * weights_n).sum()
    }

    /// Whether labels are those of spans, such as `B-PER` and `I-PER`.
    fn has_spans(&self) -> bool {
        self.labels.iter().any(|label| label.starts_with("B-") || label.starts_with("I-"))
    }
}

impl Objective for TokenClassify {
    type Family = EncoderConfig;
    type Tally = TokenClassifyTally;
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        Self::loss_of(Self::logits(model, batch, pass), batch, pass)
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut TokenClassifyTally,
    ) -> Tensor<1> {
        let logits_nl = Self::logits(model, batch, pass);
        let loss = Self::loss_of(logits_nl.clone(), batch, pass);
        let labels = batch.token_labels().expect("a collator of tokens");
        let logits = logits_nl.into_data().try_into_vec::<f32>().expect("logits are f32");
        let columns = batch.inputs.columns;
        let rows = logits.chunks_exact(columns * self.labels.len());
        let rows = rows.zip(labels.ids.chunks_exact(columns).zip(labels.weights.chunks_exact(columns)));
        tally.texts.extend(rows.map(|(logits, (ids, weights))| {
            let tokens = logits.chunks_exact(self.labels.len()).zip(ids.iter().zip(weights));
            let labelled = tokens.filter(|(_, (_, weight))| **weight > 0.0);
            labelled.map(|(logits, (&label, _))| (label, greatest(logits))).collect()
        }));
        loss
    }

    fn metrics(&self, _: &Measured, tally: &TokenClassifyTally) -> Metrics {
        let pairs = tally.texts.iter().flatten();
        let counts = LabelCounts::new(
            self.labels.len(),
            pairs.map(|&(label, predicted)| (label as usize, predicted as usize)),
        );
        let mut values = vec![("accuracy".to_owned(), counts.accuracy())];
        if self.has_spans() {
            let mut spans = SpanCounts::default();
            for text in &tally.texts {
                let names = |of: fn(&(u32, u32)) -> u32| -> Vec<&str> {
                    text.iter().map(|pair| self.labels[of(pair) as usize].as_str()).collect()
                };
                let (labels, predicted) = (names(|pair| pair.0), names(|pair| pair.1));
                let added = spans.add(&predicted, &labels, TagScheme::Lenient);
                added.expect("labels are no empty texts, and each has a prediction");
            }
            let scores = average(spans.classes().map(|(_, counts)| counts), Average::Micro);
            values.extend(
                [("f1", scores.f1), ("precision", scores.precision), ("recall", scores.recall)]
                    .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        Metrics { values, confusion: None }
    }
}

impl FromConfig for TokenClassify {
    type Config = TokenClassifyConfig;

    fn plan(config: &TokenClassifyConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let fields: TagFields =
            setup.fields("a list of words and a list of their tags: name them in data.fields")?;
        let vocabulary = match &config.labels {
            Some(labels) => {
                let fine = !labels.is_empty() && !labels.iter().any(String::is_empty);
                check(
                    fine,
                    "objective.labels",
                    format!("{labels:?}"),
                    "a list of names, none of them empty",
                )?;
                LabelVocabulary::of_model(labels.clone())
            }
            None => labels_of_rows(&fields, setup)?,
        };
        let (model, start) = setup.base.start_encoder(EncoderHead::TokenClassify, vocabulary.names())?;
        let tokenizer = setup.open_tokenizer()?;
        let max_length = setup.max_length(model.max_positions());
        let encode = |example: TaggedTokens| -> Result<Record<'static>, EncodeFault> {
            let tags = example.tags.iter().map(|tag| vocabulary.id(tag)).collect::<Result<Vec<_>, _>>()?;
            let framed = tokenizer.frame_words(&example.tokens, max_length)?;
            let (labels, weights) = framed.labels(&tags, LabelledTokens::First);
            if weights.iter().all(|&weight| weight == 0.0) {
                return Err(RowFault::Empty { field: fields.tokens.clone() }.into());
            }
            Ok(Record::default()
                .with_ids(columns::IDS, framed.framed.ids)
                .with_ids(columns::LABELS, labels)
                .with_numbers(columns::WEIGHTS, weights))
        };
        let mut columns = text_columns(false);
        columns.extend([(columns::LABELS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)]);
        let encoding = Encoding {
            shape: fields.clone(),
            columns: &columns,
            settings: json!({ "labels": vocabulary.names(), "max_length": max_length }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let collator = collate::TokenClassify { pad: model.pad_token_id() };
        let data = setup.records(&encoding, Arc::new(collator))?;
        Ok(Plan { objective: Self { labels: vocabulary.names().to_vec() }, start, data })
    }
}

/// The labels that occur in the training rows.
fn labels_of_rows(fields: &TagFields, setup: &Setup<'_>) -> Result<LabelVocabulary, TrainError> {
    let mut collector = LabelCollector::default();
    let mut examples = setup.examples(&setup.config.data.train, fields.clone());
    while let Some(found) = examples.next() {
        let (example, origin) = found?;
        if let Err(fault) = example.tags.iter().try_for_each(|tag| collector.add(tag)) {
            examples.refuse(RowError { origin, fault })?;
        }
    }
    setup.vocabulary(collector)
}
