//! Rows of chosen and rejected answers, with the reference's log-probabilities of them.

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;

use andiron_data::collate::{self, CollateRecords as _, Sample};
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{self, PreferenceFields};
use andiron_models::{DecoderBundle, DecoderConfig};
use serde_json::json;

use super::journal::Journal;
use super::{Preference, PreferenceConfig};
use crate::files;
use crate::objective::weighted_text::WeightedText;
use crate::objective::{FromConfig, Pass};
use crate::plan::{Plan, Setup, Start};
use crate::rows::{EncodeFault, Encoding};
use crate::trainer::TrainError;

/// The model at the beginning, which is opened when the first record needs it: a run that finds its records does not.
struct Reference<'a, 's> {
    setup: &'a Setup<'s>,
    start: &'a Start<DecoderConfig>,
    collator: collate::Preference,
    bundle: OnceCell<DecoderBundle>,
    /// What was computed so far, and where: a pass over many answers takes its time and may be interrupted.
    journal: RefCell<Option<Journal>>,
    checksum: String,
}

/// The file of the journal in the directory of the records.
const JOURNAL: &str = "reference.partial";

impl Reference<'_, '_> {
    fn bundle(&self) -> Result<&DecoderBundle, TrainError> {
        if let Some(bundle) = self.bundle.get() {
            return Ok(bundle);
        }
        let Setup { config, device, .. } = self.setup;
        let bundle = self.start.model(config.run.weights_seed(), device)?.bundle;
        Ok(self.bundle.get_or_init(|| bundle))
    }

    fn journal_path(&self) -> PathBuf {
        self.setup.records_directory().join(JOURNAL)
    }

    /// The log-probabilities of a record's two answers, computed unless an earlier process has.
    fn log_probabilities(&self, record: &Record<'_>) -> Result<[f32; 2], TrainError> {
        let mut journal = self.journal.borrow_mut();
        let journal = match &mut *journal {
            Some(journal) => journal,
            none => none.insert(Journal::open(&self.journal_path(), &self.checksum)?),
        };
        journal.find_or(record, || self.compute(record))
    }

    /// The log-probabilities of a record's two answers, in f32.
    fn compute(&self, record: &Record<'_>) -> Result<[f32; 2], TrainError> {
        let seed = self.setup.config.run.weights_seed();
        let batch = self.collator.collate(&[Sample { data: record.clone(), seed }]);
        let pass = Pass::evaluation(self.setup.device);
        let of_answers = Preference::log_probabilities(&self.bundle()?.model, &batch, &pass);
        let of_answers = of_answers.into_data().try_into_vec::<f32>().expect("log-probabilities are f32");
        Ok(of_answers.try_into().expect("a record has two answers"))
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
        let checksum = setup.start_checksum()?;
        let (bundle, journal) = (OnceCell::new(), RefCell::new(None));
        let reference = Reference { setup, start: &start, collator, bundle, journal, checksum };
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
            Ok(record.with_numbers(columns::REFERENCE, of_answers.to_vec()))
        };
        let encoding = Encoding {
            shape,
            columns: &[
                (columns::IDS, ColumnType::Ids),
                (columns::LENGTHS, ColumnType::Ids),
                (columns::WEIGHTS, ColumnType::Numbers),
                (columns::REFERENCE, ColumnType::Numbers),
            ],
            settings: json!({ "reference_blake3": reference.checksum, "max_length": max_length }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let data = setup.records(&encoding, Arc::new(collator))?;
        // The records have it all.
        files::remove_file(&reference.journal_path())?;
        drop(reference);
        Ok(Plan { objective: Self { config: *config }, start, data })
    }
}
