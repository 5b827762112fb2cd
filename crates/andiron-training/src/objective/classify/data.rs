//! Rows of texts with labels, and the model that fits their labels.

use std::sync::Arc;

use andiron_data::collate::{self, Target};
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{
    ClassifyFields, Label, LabelCollector, LabelType, LabelVocabulary, LabelledText, RowError, RowFault,
};
use andiron_models::catalog::Sizes;
use andiron_models::encoder::Problem;
use andiron_models::{AnyConfig, ClassifierConfig, EncoderConfig, EncoderHead};
use serde_json::json;

use super::{Classify, ClassifyConfig};
use crate::base::model_error;
use crate::objective::FromConfig;
use crate::plan::{Plan, Setup, TrainingData};
use crate::rows::{EncodeFault, Encoding, text_columns};
use crate::trainer::TrainError;

/// The data and the labels of a classification, before there is a model for them.
struct Labelled {
    fields: ClassifyFields,
    problem: Problem,
    vocabulary: LabelVocabulary,
}

impl Labelled {
    /// Reads the rows, if they are to say which labels there are.
    fn read(config: &ClassifyConfig, setup: &Setup<'_>) -> Result<Self, TrainError> {
        let mut fields: ClassifyFields =
            setup.fields("a text, or two, with a label: name them in data.fields")?;
        match config.problem {
            Some(Problem::SingleLabel) => fields.label_type = LabelType::Class,
            Some(Problem::MultiLabel) => fields.label_type = LabelType::Classes,
            Some(Problem::Regression | Problem::OneLabel) => fields.label_type = LabelType::Numbers,
            None => {}
        }
        let problem = match fields.label_type {
            LabelType::Class => Problem::SingleLabel,
            LabelType::Classes => Problem::MultiLabel,
            LabelType::Numbers => Problem::Regression,
        };
        let vocabulary = match &config.labels {
            Some(labels) => LabelVocabulary::of_model(labels.clone()),
            None => labels_of_rows(&fields, setup)?,
        };
        Ok(Self { fields, problem, vocabulary })
    }

    /// The records of the rows.
    fn data(
        &self,
        setup: &Setup<'_>,
        [vocab_size, longest, n_types]: [usize; 3],
        pad: u32,
    ) -> Result<TrainingData, TrainError> {
        let tokenizer = setup.open_tokenizer()?;
        let max_length = setup.max_length(longest);
        let typed = n_types > 1 && self.fields.pair.is_some();
        let n_labels = self.vocabulary.names().len();
        let mut columns = text_columns(typed);
        let (target, column) = match self.problem {
            Problem::SingleLabel => (Target::Class, (columns::LABELS, ColumnType::Ids)),
            _ => (Target::Values(n_labels), (columns::VALUES, ColumnType::Numbers)),
        };
        columns.push(column);
        let encode = |example: LabelledText| -> Result<Record<'static>, EncodeFault> {
            let framed = tokenizer.frame(&example.text, example.pair.as_deref(), max_length)?;
            if framed.ids.is_empty() {
                return Err(RowFault::Empty { field: self.fields.text.clone() }.into());
            }
            let mut record = Record::default().with_ids(columns::IDS, framed.ids);
            if typed {
                record = record.with_ids(columns::TYPE_IDS, framed.type_ids);
            }
            Ok(match example.label {
                Label::Class(class) => record.with_ids(columns::LABELS, vec![self.vocabulary.id(&class)?]),
                Label::Classes(classes) => {
                    let mut values = vec![0.0; n_labels];
                    for class in &classes {
                        values[self.vocabulary.id(class)? as usize] = 1.0;
                    }
                    record.with_numbers(columns::VALUES, values)
                }
                Label::Numbers(numbers) if numbers.len() == n_labels => {
                    record.with_numbers(columns::VALUES, numbers)
                }
                Label::Numbers(numbers) => {
                    let (first, n_first) = (self.fields.label.clone(), numbers.len());
                    let second = "label of the first row".to_owned();
                    return Err(RowFault::Lengths { first, n_first, second, n_second: n_labels }.into());
                }
            })
        };
        let encoding = Encoding {
            shape: self.fields.clone(),
            columns: &columns,
            settings: json!({ "labels": self.vocabulary.names(), "max_length": max_length }),
            vocabularies: &[(columns::IDS, vocab_size)],
            encode: &encode,
        };
        setup.records(&encoding, Arc::new(collate::Classify { target, pad }))
    }
}

/// The labels that occur in the training rows; those of the model, in its order, if they are the same.
fn labels_of_rows(fields: &ClassifyFields, setup: &Setup<'_>) -> Result<LabelVocabulary, TrainError> {
    let mut collector = LabelCollector::default();
    let mut width = None;
    let mut examples = setup.examples(&setup.config.data.train, fields.clone());
    while let Some(found) = examples.next() {
        let (example, origin) = found?;
        let added = match &example.label {
            Label::Class(class) => collector.add(class),
            Label::Classes(classes) => classes.iter().try_for_each(|class| collector.add(class)),
            Label::Numbers(numbers) => {
                width.get_or_insert(numbers.len());
                Ok(())
            }
        };
        if let Err(fault) = added {
            examples.refuse(RowError { origin, fault })?;
        }
    }
    if let Some(width) = width {
        return Ok(LabelVocabulary::of_model((0..width).map(|label| format!("LABEL_{label}"))));
    }
    setup.vocabulary(collector)
}

impl FromConfig for Classify<EncoderConfig> {
    type Config = ClassifyConfig;

    fn plan(config: &ClassifyConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let labelled = Labelled::read(config, setup)?;
        let head = EncoderHead::Classify { problem: labelled.problem };
        let (config, start) = setup.base.start_encoder(head, labelled.vocabulary.names())?;
        let sizes = [config.vocab_size(), config.max_positions(), config.n_token_types()];
        let data = labelled.data(setup, sizes, config.pad_token_id())?;
        Ok(Plan { objective: Self { config }, start, data })
    }
}

impl FromConfig for Classify<ClassifierConfig> {
    type Config = ClassifyConfig;

    fn plan(config: &ClassifyConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let labelled = Labelled::read(config, setup)?;
        let names = labelled.vocabulary.names().to_vec();
        let wanted = match &setup.base.config {
            AnyConfig::Classifier(config) => config.with_labels(labelled.problem, names),
            _ => {
                let pad = setup.open_tokenizer()?.pad_id();
                ClassifierConfig::of_decoder(setup.base.decoder()?, labelled.problem, names, pad)
            }
        };
        let wanted = wanted.map_err(model_error)?;
        let Sizes { vocab_size, max_positions, .. } = wanted.sizes();
        // No position sees the padding behind its text, so that any id will do.
        let pad = wanted.pad_token_id().filter(|&pad| (pad as usize) < vocab_size).unwrap_or(0);
        let data = labelled.data(setup, [vocab_size, max_positions, 0], pad)?;
        let start = setup.base.start_classifier(wanted.clone())?;
        Ok(Plan { objective: Self { config: wanted }, start, data })
    }
}
