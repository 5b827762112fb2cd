//! Rows of chosen and rejected answers, with the reference's log-probabilities of them.

use std::cell::OnceCell;
use std::sync::Arc;

use andiron_data::collate::{self, CollateRecords as _, Sample};
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{self, PreferenceFields};
use andiron_models::{DecoderBundle, DecoderConfig};
use serde_json::json;

use super::{Preference, PreferenceConfig};
use crate::objective::weighted_text::WeightedText;
use crate::objective::{FromConfig, Pass};
use crate::plan::{Plan, Setup, Start};
use crate::rows::{EncodeFault, Encoding};
use crate::trainer::TrainError;

/// The model at the beginning, which is opened when the first record needs it: a run that finds its records does not.
struct Reference<'a> {
    setup: &'a Setup<'a>,
    start: &'a Start<DecoderConfig>,
    collator: collate::Preference,
    bundle: OnceCell<DecoderBundle>,
}

impl Reference<'_> {
    fn bundle(&self) -> Result<&DecoderBundle, TrainError> {
        if let Some(bundle) = self.bundle.get() {
            return Ok(bundle);
        }
        let Setup { config, device, .. } = self.setup;
        let bundle = self.start.model(config.run.weights_seed(), device)?.bundle;
        Ok(self.bundle.get_or_init(|| bundle))
    }

    /// The log-probabilities of a record's two answers, in f32.
    fn log_probabilities(&self, record: &Record<'_>) -> Result<Vec<f32>, TrainError> {
        let seed = self.setup.config.run.weights_seed();
        let batch = self.collator.collate(&[Sample { data: record.clone(), seed }]);
        let pass = Pass::evaluation(self.setup.device);
        let of_answers = Preference::log_probabilities(&self.bundle()?.model, &batch, &pass);
        Ok(of_answers.into_data().try_into_vec::<f32>().expect("log-probabilities are f32"))
    }
}

impl FromConfig for Preference {
    type Config = PreferenceConfig;

    fn plan(config: &PreferenceConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        config.validate()?;
        let model = setup.base.decoder()?;
        let tokenizer = setup.open_tokenizer()?;
        let max_length = setup.max_length(model.max_positions());
        let shape: PreferenceFields = setup
            .fields("a chosen and a rejected answer, perhaps with a prompt: name them in data.fields")?;
        let start = setup.base.start(model.clone());
        let collator = collate::Preference { limit: max_length, pad: 0 };
        let reference = Reference { setup, start: &start, collator, bundle: OnceCell::new() };
        let encode = |example: rows::Preference| -> Result<Record<'static>, EncodeFault> {
            let rows::Preference { prompt, chosen, rejected } = example;
            let text = |answer| -> Result<WeightedText, EncodeFault> {
                WeightedText::of_answer(&tokenizer, prompt.clone(), answer)?.truncated(max_length)
            };
            let (chosen, rejected) = (text(chosen)?, text(rejected)?);
            let lengths = [&chosen, &rejected].map(|text| text.ids.len() as u32);
            let record = Record::default()
                .with_ids(columns::IDS, [chosen.ids, rejected.ids].concat())
                .with_ids(columns::LENGTHS, lengths.to_vec())
                .with_numbers(columns::WEIGHTS, [chosen.weights, rejected.weights].concat());
            if let Some(&id) = record.ids(columns::IDS).iter().find(|&&id| id as usize >= model.vocab_size())
            {
                return Err(EncodeFault::Id(id));
            }
            let of_answers = reference.log_probabilities(&record).map_err(Box::new)?;
            Ok(record.with_numbers(columns::REFERENCE, of_answers))
        };
        let encoding = Encoding {
            shape,
            columns: &[
                (columns::IDS, ColumnType::Ids),
                (columns::LENGTHS, ColumnType::Ids),
                (columns::WEIGHTS, ColumnType::Numbers),
                (columns::REFERENCE, ColumnType::Numbers),
            ],
            settings: json!({ "reference_blake3": setup.start_checksum()?, "max_length": max_length }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let data = setup.records(&encoding, Arc::new(collator))?;
        drop(reference);
        Ok(Plan { objective: Self { config: *config }, start, data })
    }
}
