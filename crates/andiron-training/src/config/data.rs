//! The data of a run.

use std::path::PathBuf;

use andiron_data::loader::Order;
use andiron_data::rows::RowOptions;
use andiron_data::source::OnError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigError, check};

/// More threads than this that make batches are a mistake.
const MOST_WORKERS: usize = 256;

/// Longest sequence of a row that is read by default, in tokens.
const USUAL_LENGTH: usize = 512;

/// The training and validation data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The training data: a directory of shards, or a file of rows (JSONL, JSON, CSV, TSV, also compressed).
    pub train: PathBuf,
    /// The validation data, of the same kind; without it the model is not validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<PathBuf>,
    /// Share of the training rows to hold out for validation, in place of [`valid`](Self::valid). The same rows of a file are
    /// held out in every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// Directory of the tokenizer, whose files are copied into every saved model; by default that of the model directory to
    /// begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Sequences per micro-batch; with [`batch_tokens`](Self::batch_tokens) at most that many, and without limit if it is absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: usize,
    /// Tokens per micro-batch at most, padding included, in place of a number of [`rows`](Self::rows): few long rows or many
    /// short ones. Rows of similar length come together. The gradient is the mean over the targets of a step, however many each
    /// micro-batch has. Of an encoder-decoder the longer side counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Threads that make batches ahead of the steps that read them. Their number changes no bit of the result; 0 makes a batch
    /// when its step begins. Each holds two batches in memory.
    #[serde(default = "one")]
    pub workers: usize,
    /// Tokens per sequence of a token stream, or, with [`packing`](Self::packing), per row; by default of that
    /// [`max_length`](Self::max_length).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Sampling order.
    #[serde(default = "epochs")]
    pub order: Order,
    /// Longest sequence of a row, in tokens; longer texts are truncated. By default 512, and at most what the model reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Longest target of a row, in tokens; by default as long as its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_target_length: Option<usize>,
    /// Names of the fields of a row; by default the usual names that the first row has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Map<String, Value>>,
    /// Whether quotes around a cell of a table are part of its syntax; `false` for tables whose cells have single quotes.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub quotes: bool,
    /// Whether a row that does not fit is an error, or skipped and counted.
    #[serde(default, skip_serializing_if = "is_fail")]
    pub bad_rows: OnError,
    /// Rows of similar length come together, which saves padding: of this many steps of shuffled rows, the longest make the
    /// rows of a step, and so on. Packed rows have one length already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_groups: Option<usize>,
    /// Several texts share a row, so that there is hardly any padding: `rows` then counts such rows. Texts do not see each
    /// other, and positions restart with each. For decoders that learn texts or answers.
    #[serde(default, skip_serializing_if = "is_false")]
    pub packing: bool,
}

impl DataConfig {
    /// Training data in micro-batches of `rows` rows, and the defaults of everything else.
    pub fn new(train: PathBuf, rows: usize) -> Self {
        Self {
            train,
            valid: None,
            held_out: None,
            tokenizer: None,
            rows,
            batch_tokens: None,
            workers: one(),
            context: None,
            order: Order::Epochs,
            max_length: None,
            max_target_length: None,
            fields: None,
            quotes: true,
            bad_rows: OnError::Fail,
            length_groups: None,
            packing: false,
        }
    }

    /// Checks what can be checked without the files.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let paths = [("data.train", Some(&self.train)), ("data.valid", self.valid.as_ref())];
        for (field, path) in paths {
            let is_empty = path.is_some_and(|path| path.as_os_str().is_empty());
            check(!is_empty, field, "empty", "a file or a directory")?;
        }
        let has_size = self.rows > 0 || self.batch_tokens.is_some();
        check(has_size, "data.rows", self.rows, "at least 1, unless data.batch_tokens is given")?;
        check(self.batch_tokens != Some(0), "data.batch_tokens", 0, "at least 1")?;
        check(
            self.workers <= MOST_WORKERS,
            "data.workers",
            self.workers,
            &format!("at most {MOST_WORKERS}"),
        )?;
        let endless = self.order != Order::Sequential;
        check(endless, "data.order", "sequential", "windows or epochs: training does not end with the data")?;
        check(self.max_length != Some(0), "data.max_length", 0, "at least 1")?;
        check(self.max_target_length != Some(0), "data.max_target_length", 0, "at least 1")?;
        check(self.length_groups != Some(0), "data.length_groups", 0, "at least 1")?;
        if let (Some(groups), Some(_)) = (self.length_groups, self.batch_tokens) {
            let wanted = "absent: rows of similar length come together with data.batch_tokens";
            check(false, "data.length_groups", groups, wanted)?;
        }
        if let Some(share) = self.held_out {
            check(share > 0.0 && share < 1.0, "data.held_out", share, "above 0 and below 1")?;
            check(self.valid.is_none(), "data.held_out", share, "absent, as data.valid is given")?;
        }
        Ok(())
    }

    /// Rows of a micro-batch whose rows have `columns` tokens each.
    ///
    /// # Errors
    /// If not one fits [`batch_tokens`](Self::batch_tokens).
    pub(crate) fn rows_of(&self, columns: usize) -> Result<usize, ConfigError> {
        let Some(tokens) = self.batch_tokens else { return Ok(self.rows) };
        let fits = columns > 0 && tokens >= columns;
        check(fits, "data.batch_tokens", tokens, &format!("at least {columns}, the tokens of a row"))?;
        Ok(self.max_rows().map_or(tokens / columns, |most| most.min(tokens / columns)))
    }

    /// Rows that a micro-batch may have at most, if there is a limit.
    pub(crate) fn max_rows(&self) -> Option<usize> {
        Some(self.rows).filter(|&rows| rows > 0)
    }

    /// How rows are read.
    pub(crate) fn row_options(&self) -> RowOptions {
        RowOptions { quotes: self.quotes, ..RowOptions::default() }
    }

    /// Longest sequence of a row, in tokens, of a model that reads `longest`.
    pub(crate) fn text_length(&self, longest: usize) -> usize {
        self.max_length.unwrap_or(USUAL_LENGTH).min(longest)
    }

    /// Tokens in a row that texts are packed into, for a model that reads `longest`; `None` if they are not packed.
    pub(crate) fn packed_length(&self, longest: usize) -> Option<usize> {
        self.packing.then(|| self.context.unwrap_or_else(|| self.text_length(longest)))
    }
}

fn one() -> usize {
    1
}

fn is_zero(rows: &usize) -> bool {
    *rows == 0
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_fail(on_error: &OnError) -> bool {
    *on_error == OnError::Fail
}

fn epochs() -> Order {
    Order::Epochs
}
