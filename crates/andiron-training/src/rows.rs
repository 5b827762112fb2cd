//! Rows of a file as records on disk: encoded once, and kept beside the run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use andiron_data::collate::{CollatePacked, CollateRecords};
use andiron_data::loader::{BatchSource, LoaderError};
use andiron_data::records::{
    BatchBudget, ColumnType, LengthGroups, PackedLoader, PackedLoaderOptions, PackedOrder, Record,
    RecordDataset, RecordLoader, RecordLoaderOptions, RecordOrder, RecordWriter, TokenLoader, columns,
};
use andiron_data::rows::{
    Examples, LabelCollector, LabelVocabulary, Origin, Part, RowError, RowFault, RowReader, RowsError, Shape,
    Skipped,
};
use andiron_data::source::OnError;
use andiron_data::tokenizer::{Tokenizer, TokenizerError};
use andiron_kernels::random::Seed;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::{ConfigError, TrainConfig, check};
use crate::observe::Preparation;
use crate::plan::{Setup, TrainingData};
use crate::tokenizer::TokenizerSource;
use crate::trainer::TrainError;

/// Directory of the records in that of the run.
const RECORDS: &str = "records";

/// What an example becomes: a record, or several.
pub trait IntoRecords {
    /// The records.
    fn into_records(self) -> impl Iterator<Item = Record<'static>>;
}

impl IntoRecords for Record<'static> {
    fn into_records(self) -> impl Iterator<Item = Record<'static>> {
        std::iter::once(self)
    }
}

impl IntoRecords for Vec<Record<'static>> {
    fn into_records(self) -> impl Iterator<Item = Record<'static>> {
        self.into_iter()
    }
}

/// How an objective makes records of examples.
pub struct Encoding<'a, S: Shape, R = Record<'static>> {
    /// The fields of a row.
    pub shape: S,
    /// The columns of a record.
    pub columns: &'a [(&'a str, ColumnType)],
    /// What the records depend on besides rows, fields, tokenizer and lengths.
    pub settings: Value,
    /// Vocabulary size of the model, for each column of token ids.
    pub vocabularies: &'a [(&'a str, usize)],
    /// Makes a record of an example, or several.
    #[allow(clippy::type_complexity)] // A borrowed closure.
    pub encode: &'a dyn Fn(S::Example) -> Result<R, EncodeFault>,
}

/// Why an example is no record.
#[derive(Debug)]
pub enum EncodeFault {
    /// The row does not fit.
    Row(RowFault),
    /// The tokenizer fails.
    Tokenizer(TokenizerError),
    /// Within the longest length nothing is left to learn.
    NothingToLearn,
    /// The model does not know an id.
    Id(u32),
    /// The model that the record needs fails.
    Model(Box<TrainError>),
}

impl From<RowFault> for EncodeFault {
    fn from(fault: RowFault) -> Self {
        Self::Row(fault)
    }
}

impl From<TokenizerError> for EncodeFault {
    fn from(error: TokenizerError) -> Self {
        Self::Tokenizer(error)
    }
}

impl From<Box<TrainError>> for EncodeFault {
    fn from(error: Box<TrainError>) -> Self {
        Self::Model(error)
    }
}

/// How records become batches.
enum Collator {
    /// A row for each record, or for each of its texts.
    Records(Arc<dyn CollateRecords>),
    /// Rows of this many positions that several records are packed into.
    Packed(Arc<dyn CollatePacked>, usize),
}

impl Collator {
    /// Batches of the validation data.
    fn once(
        &self,
        dataset: Arc<RecordDataset>,
        rows: usize,
        seed: Seed,
    ) -> Result<Box<dyn BatchSource>, LoaderError> {
        Ok(match self {
            Self::Records(collator) => {
                let options = RecordLoaderOptions { rows, order: RecordOrder::Sequential };
                Box::new(RecordLoader::new(dataset, collator.clone(), options, seed)?)
            }
            Self::Packed(collator, columns) => {
                let options = PackedLoaderOptions { rows, columns: *columns, order: PackedOrder::Sequential };
                Box::new(PackedLoader::new(dataset, collator.clone(), options, seed)?)
            }
        })
    }

    /// Batches of the training data.
    fn endless(
        &self,
        dataset: Arc<RecordDataset>,
        config: &TrainConfig,
        seed: Seed,
    ) -> Result<Arc<dyn BatchSource>, TrainError> {
        let data = &config.data;
        let failed = loader_error(&data.train);
        Ok(match self {
            Self::Records(collator) => {
                let rows = data.rows;
                if let Some(tokens) = data.batch_tokens {
                    let budget = BatchBudget { tokens: tokens as u64, records: data.max_rows() };
                    let loader = TokenLoader::new(dataset, collator.clone(), budget, seed);
                    return Ok(Arc::new(loader.map_err(failed)?));
                }
                let order = match data.length_groups {
                    Some(groups) => {
                        let rows = rows * config.run.accumulate as usize;
                        RecordOrder::EpochsByLength(LengthGroups { rows, groups })
                    }
                    None => RecordOrder::Epochs,
                };
                let options = RecordLoaderOptions { rows, order };
                Arc::new(RecordLoader::new(dataset, collator.clone(), options, seed).map_err(failed)?)
            }
            &Self::Packed(ref collator, columns) => {
                let rows = data.rows_of(columns)?;
                let options = PackedLoaderOptions { rows, columns, order: PackedOrder::Epochs };
                Arc::new(PackedLoader::new(dataset, collator.clone(), options, seed).map_err(failed)?)
            }
        })
    }
}

impl Setup<'_> {
    /// The tokenizer, for objectives that read text.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open_tokenizer(&self) -> Result<Tokenizer, TrainError> {
        let why = "this objective reads text, and the model to begin with has no tokenizer";
        let tokenizer = self.tokenizer().ok_or(ConfigError::Missing { field: "data.tokenizer", why })?;
        tokenizer.open().map_err(|source| self.tokenizer_error(source))
    }

    /// The error of the tokenizer.
    pub(crate) fn tokenizer_error(&self, source: TokenizerError) -> TrainError {
        TrainError::Tokenizer { path: self.tokenizer_path(), source: Box::new(source) }
    }

    /// Checks that a model with this vocabulary knows all tokens, for objectives that put tokens into texts.
    ///
    /// # Errors
    /// If the tokenizer has more.
    pub(crate) fn check_vocabulary(
        &self,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Result<(), TrainError> {
        if tokenizer.vocab_size() <= vocab_size {
            return Ok(());
        }
        let path = self.tokenizer_path();
        Err(TrainError::Vocabulary { path, data: tokenizer.vocab_size(), model: vocab_size })
    }

    /// Whether the data are rows of a file, not a token stream.
    ///
    /// # Errors
    /// If there is no data, or the validation data of rows is a directory.
    pub fn has_rows(&self) -> Result<bool, TrainError> {
        let path = &self.config.data.train;
        if !crate::files::is_there(path)? {
            let absent = io::Error::new(io::ErrorKind::NotFound, "no such file or directory");
            return Err(crate::files::failed("read", path)(absent).into());
        }
        let has_rows = !crate::files::is_directory(path)?;
        if let (true, Some(valid)) = (has_rows, &self.config.data.valid)
            && crate::files::is_directory(valid)?
        {
            return Err(TrainError::NotRows { path: valid.clone() });
        }
        Ok(has_rows)
    }

    /// Longest sequence of a row, in tokens: `data.max_length`, at most `longest`; by default 512.
    pub fn max_length(&self, longest: usize) -> usize {
        self.config.data.text_length(longest)
    }

    /// The names of the fields: `data.fields`, or those that the first row has.
    ///
    /// # Errors
    /// If the names do not fit the objective, or the row has no fields that do.
    pub fn fields<S: Shape + DeserializeOwned>(&self, wanted: &'static str) -> Result<S, TrainError> {
        let path = &self.config.data.train;
        if let Some(fields) = &self.config.data.fields {
            let fields = serde_json::from_value(Value::Object(fields.clone()));
            return fields.map_err(|source| ConfigError::Fields { source }.into());
        }
        let first = RowReader::open(path, &self.config.data.row_options())?.next().transpose()?;
        let first = first.ok_or_else(|| TrainError::NoRows { path: path.clone() })?;
        S::guess(&first).ok_or_else(|| TrainError::Shape {
            path: path.clone(),
            found: first.names().map(str::to_owned).collect::<Vec<_>>().join(", "),
            wanted,
        })
    }

    /// The labels that were collected from the training rows; those of the model, in its order, if they are the same, or if
    /// nothing is trained.
    ///
    /// # Errors
    /// If there are none.
    pub fn vocabulary(&self, found: LabelCollector) -> Result<LabelVocabulary, TrainError> {
        let found = found.vocabulary();
        if found.names().is_empty() {
            return Err(TrainError::NoRows { path: self.config.data.train.clone() });
        }
        let of_model = self.base.labels();
        if self.is_measured && !of_model.is_empty() {
            return Ok(LabelVocabulary::of_model(of_model.to_vec()));
        }
        let same =
            of_model.len() == found.names().len() && found.names().iter().all(|name| of_model.contains(name));
        Ok(if same { LabelVocabulary::of_model(of_model.to_vec()) } else { found })
    }

    /// The examples of a file.
    pub fn examples<S: Shape>(&self, path: &Path, shape: S) -> Examples<S> {
        let data = &self.config.data;
        Examples::new(vec![path.to_owned()], shape, data.row_options(), data.bad_rows)
    }

    /// The validation rows, if there are any: of a file of their own, or held out.
    pub(crate) fn valid_rows(&self) -> Option<RowFile<'_>> {
        let data = &self.config.data;
        match (&data.valid, data.held_out) {
            (Some(path), _) => Some(RowFile { path, part: Part::All }),
            (None, Some(share)) => Some(RowFile { path: &data.train, part: Part::HeldOut(share) }),
            (None, None) => None,
        }
    }

    /// The training rows.
    fn train_rows(&self) -> RowFile<'_> {
        let data = &self.config.data;
        RowFile { path: &data.train, part: data.held_out.map_or(Part::All, Part::Rest) }
    }

    /// Rows that `encoding` makes records of, and `collator` batches.
    ///
    /// # Errors
    /// If a file cannot be read, a row does not fit and is not to be skipped, or records are to be packed.
    pub fn records<S: Shape + Clone + Serialize, R: IntoRecords>(
        &self,
        encoding: &Encoding<'_, S, R>,
        collator: Arc<dyn CollateRecords>,
    ) -> Result<TrainingData, TrainError> {
        let wanted = "false: only texts and answers that a decoder learns are packed";
        check(!self.config.data.packing, "data.packing", true, wanted)?;
        self.batches(encoding, &Collator::Records(collator))
    }

    /// The same of texts that are packed into rows if `data.packing` says so.
    ///
    /// # Errors
    /// As for [`records`](Self::records), and if a packed row would be shorter than the longest text.
    pub fn packable_records<S: Shape + Clone + Serialize, R: IntoRecords>(
        &self,
        encoding: &Encoding<'_, S, R>,
        collator: Arc<dyn CollatePacked>,
    ) -> Result<TrainingData, TrainError> {
        let (data, longest) = (&self.config.data, self.base.config.sizes().max_positions);
        let Some(columns) = data.packed_length(longest) else {
            return self.batches(encoding, &Collator::Records(collator));
        };
        let length = data.text_length(longest);
        let wanted = format!("at least {length}, the longest text: or set data.max_length");
        check(columns >= length, "data.context", columns, &wanted)?;
        self.batches(encoding, &Collator::Packed(collator, columns))
    }

    fn batches<S: Shape + Clone + Serialize, R: IntoRecords>(
        &self,
        encoding: &Encoding<'_, S, R>,
        collator: &Collator,
    ) -> Result<TrainingData, TrainError> {
        let data = &self.config.data;
        let mut skipped = Vec::new();
        let valid_rows = self.valid_rows();
        let train = self.record_dataset(self.train_rows(), "train", encoding, &mut skipped)?;
        let valid =
            valid_rows.map(|rows| self.record_dataset(rows, "valid", encoding, &mut skipped)).transpose()?;
        if let (Some(share), Some(valid)) = (data.held_out, &valid) {
            let rows = data.train.display();
            let larger = format!("larger: it holds out none of the rows of {rows}");
            check(valid.n_records() > 0, "data.held_out", share, &larger)?;
            let smaller = format!("smaller: it leaves none of the rows of {rows} to train on");
            check(train.n_records() > 0, "data.held_out", share, &smaller)?;
        }
        let mut fingerprints = vec![("train_blake3", train.fingerprint().to_owned())];
        fingerprints.extend(valid.as_ref().map(|valid| ("valid_blake3", valid.fingerprint().to_owned())));
        let seed = Seed::new(self.config.run.seed);
        let valid = match (valid, valid_rows) {
            (Some(dataset), Some(RowFile { path, .. })) => Some(
                collator
                    .once(dataset, self.config.evaluation_rows(), seed.derive("valid"))
                    .map_err(loader_error(path))?,
            ),
            _ => None,
        };
        // A packed row holds several of the file's.
        let has_rows = matches!(collator, Collator::Records(_));
        let train = collator.endless(train, self.config, seed)?;
        Ok(TrainingData { train, valid, fingerprints, bytes_per_target: None, has_rows, skipped })
    }

    /// The directory of the records.
    pub(crate) fn records_directory(&self) -> PathBuf {
        self.config.run.output.join(RECORDS)
    }

    /// The records of a file, made unless they are there.
    fn record_dataset<S: Shape + Clone + Serialize, R: IntoRecords>(
        &self,
        RowFile { path: rows, part }: RowFile<'_>,
        name: &str,
        encoding: &Encoding<'_, S, R>,
        skipped: &mut Vec<(PathBuf, Skipped)>,
    ) -> Result<Arc<RecordDataset>, TrainError> {
        let data = &self.config.data;
        let tokenizer = self.tokenizer().map(TokenizerSource::checksum).transpose()?;
        let mut settings = json!({
            "rows_blake3": crate::files::checksum(rows)?,
            "fields": encoding.shape,
            "bad_rows": data.bad_rows,
            "tokenizer_blake3": tokenizer,
            "max_length": data.max_length,
            "max_target_length": data.max_target_length,
            "objective": encoding.settings,
        });
        if !data.quotes {
            settings["quotes"] = json!(false);
        }
        if part != Part::All {
            settings["held_out"] = json!(data.held_out);
        }
        let path = self.records_directory().join(name);
        let failed = |source| TrainError::Data { source: Box::new(source) };
        if let Some(dataset) = RecordDataset::open_if_made_from(&path, &settings).map_err(failed)? {
            return Ok(Arc::new(dataset));
        }
        crate::files::make_directory(&self.records_directory())?;
        let mut writer = RecordWriter::create(&path, encoding.columns, settings).map_err(failed)?;
        let mut examples = self.examples(rows, encoding.shape.clone()).of_part(part);
        let mut left_out = Skipped::default();
        let bytes_total = std::fs::metadata(rows).map_or(0, |metadata| metadata.len());
        let mut n_rows = 0;
        while let Some(found) = examples.next() {
            let (example, origin) = found?;
            n_rows += 1;
            let bytes_done = examples.bytes_read().min(bytes_total);
            self.tell(&Preparation { path: rows, rows: n_rows, bytes_done, bytes_total })?;
            match (encoding.encode)(example) {
                Ok(records) => {
                    for record in records.into_records() {
                        check_ids(&record, encoding.vocabularies, &origin)?;
                        writer.push(&record).map_err(failed)?;
                    }
                }
                Err(EncodeFault::Row(fault)) => examples.refuse(RowError { origin, fault })?,
                Err(EncodeFault::NothingToLearn) => {
                    let why = "nothing to learn is left within data.max_length";
                    leave_out(&mut left_out, "too-long", format!("{origin}: {why}"));
                }
                Err(EncodeFault::Tokenizer(TokenizerError::NoChatTemplate)) => {
                    let path = self.tokenizer_path();
                    return Err(TrainError::NoChatTemplate { path });
                }
                Err(EncodeFault::Tokenizer(source))
                    if data.bad_rows == OnError::Skip && is_of_row(&source) =>
                {
                    leave_out(&mut left_out, "not-tokenized", format!("{origin}: {source}"));
                }
                Err(EncodeFault::Tokenizer(source)) => {
                    return Err(TrainError::Tokenize { origin: Box::new(origin), source: Box::new(source) });
                }
                Err(EncodeFault::Id(id)) => {
                    let vocab_size = encoding.vocabularies.iter().map(|(_, size)| *size).min();
                    let vocab_size = vocab_size.unwrap_or_default();
                    return Err(TrainError::TokenId { origin: Box::new(origin), id, vocab_size });
                }
                Err(EncodeFault::Model(error)) => return Err(*error),
            }
        }
        for found in [examples.skipped(), &left_out] {
            if found.rows > 0 {
                skipped.push((rows.to_owned(), found.clone()));
            }
        }
        writer.finish().map_err(failed)?;
        Ok(Arc::new(RecordDataset::open(&path).map_err(failed)?))
    }
}

/// Rows of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowFile<'a> {
    /// The file.
    pub(crate) path: &'a Path,
    /// The rows that are read.
    pub(crate) part: Part,
}

fn loader_error(path: &Path) -> impl FnOnce(LoaderError) -> TrainError + use<> {
    let path = path.to_owned();
    |source| TrainError::Loader { path, source }
}

/// Checks that the model knows the ids of a tokenizer.
fn check_ids(record: &Record<'_>, vocabularies: &[(&str, usize)], origin: &Origin) -> Result<(), TrainError> {
    for (column, vocab_size) in vocabularies {
        if let Some(&id) = record.ids(column).iter().find(|&&id| id as usize >= *vocab_size) {
            return Err(TrainError::TokenId {
                origin: Box::new(origin.clone()),
                id,
                vocab_size: *vocab_size,
            });
        }
    }
    Ok(())
}

/// The columns of a text, with its token types if the model has them.
pub(crate) fn text_columns(typed: bool) -> Vec<(&'static str, ColumnType)> {
    let types = typed.then_some((columns::TYPE_IDS, ColumnType::Ids));
    std::iter::once((columns::IDS, ColumnType::Ids)).chain(types).collect()
}

/// Counts a row that makes no record.
fn leave_out(skipped: &mut Skipped, reason: &str, message: String) {
    skipped.rows += 1;
    *skipped.reasons.entry(reason.to_owned()).or_default() += 1;
    if skipped.first.is_empty() {
        skipped.first.push(message);
    }
}

/// Whether another row could be tokenized: chat templates refuse conversations, such as those that begin with the assistant.
fn is_of_row(error: &TokenizerError) -> bool {
    error.is_about_text() || matches!(error, TokenizerError::ChatTemplate { .. })
}

impl From<RowsError> for TrainError {
    fn from(source: RowsError) -> Self {
        Self::Rows { source: Box::new(source) }
    }
}
