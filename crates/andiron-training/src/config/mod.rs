//! What a run is: a tree of typed parts, read from TOML.
//!
//! ```toml
//! [run]
//! output = "runs/tiny"
//! seed = 1337
//! steps = 2000
//!
//! [model]                    # the fields of Hugging Face's config.json
//! model_type = "gpt2"
//! vocab_size = 65
//! n_positions = 64
//! n_embd = 128
//! n_layer = 4
//! n_head = 4
//! attn_pdrop = 0.0
//!
//! [data]
//! train = "data/train"       # a directory of shards
//! valid = "data/valid"
//! tokenizer = "data/tokenizer"
//! rows = 12
//! context = 64
//! order = "windows"
//!
//! [optimizer]
//! schedule = "cosine"
//! lr = 1e-3
//! min_lr = 1e-4
//! warmup_steps = 100
//! beta2 = 0.99
//! weight_decay = 0.1
//!
//! [checkpoint]
//! every = 250
//!
//! [evaluate]
//! every = 250
//! rows = 32
//! ```

mod diff;
mod load;

use std::path::PathBuf;

use andiron_core::Precision;
use andiron_data::loader::Order;
use andiron_models::DecoderConfig;
use serde::{Deserialize, Serialize};

use crate::optimizer::{OptimizerConfig, ScheduleKind};

pub(crate) use diff::{Difference, first_difference};

/// Configuration of a run. Together with its data it determines the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Output directory, seed, length, and precision.
    pub run: RunConfig,
    /// The model, trained from random weights: the fields of a Hugging Face `config.json`.
    pub model: DecoderConfig,
    /// The training and validation data.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// When checkpoints are saved.
    pub checkpoint: CheckpointConfig,
    /// When the validation loss is measured.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
}

/// Output directory, seed, length and precision of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Directory of the run: checkpoints, metrics and the final model.
    pub output: PathBuf,
    /// Seed of all random streams: initial weights, data order, dropout.
    pub seed: u64,
    /// Length of the run, in optimizer steps.
    pub steps: u64,
    /// Gradient accumulation: micro-batches per optimizer step.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// A line is written to `metrics.jsonl` every this many steps.
    #[serde(default = "one")]
    pub log_every: u64,
    /// Precision of matmuls in training, `"f32"` or `"mixed"` (bf16 mixed precision); by default the fastest on this machine.
    /// Validation always uses f32, and so do GPU backends.
    #[serde(default = "Precision::fastest", with = "precision_name")]
    pub precision: Precision,
}

/// Serializes a precision by its name.
mod precision_name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Precision;

    pub(super) fn serialize<S: Serializer>(precision: &Precision, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(precision)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Precision, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The training and validation data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Directory of the training shards.
    pub train: PathBuf,
    /// Directory of the validation shards; without it the validation loss is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<PathBuf>,
    /// Directory of the tokenizer, whose files are copied into every saved model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Sequences per micro-batch.
    pub rows: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// Sampling order.
    pub order: Order,
}

/// When checkpoints are saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; there is always one at the end.
    pub every: u64,
    /// Number of newest checkpoints that are kept; at least 2.
    #[serde(default = "three")]
    pub keep_last: usize,
}

/// When the validation loss is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Steps between measurements; 0 measures only at the end.
    #[serde(default)]
    pub every: u64,
    /// Windows per batch.
    #[serde(default = "sixteen")]
    pub rows: usize,
    /// Number of windows per measurement during the run; all by default. The final measurement always uses all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_windows: Option<u64>,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { every: 0, rows: sixteen(), max_windows: None }
    }
}

fn one() -> u64 {
    1
}

fn three() -> usize {
    3
}

fn sixteen() -> usize {
    16
}

impl TrainConfig {
    /// Checks every value and their combinations.
    ///
    /// # Errors
    /// Names the first invalid field, its value and what is expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { run, model, data, optimizer, checkpoint, evaluate } = self;
        // TOML has signed integers only.
        check(i64::try_from(run.seed).is_ok(), "run.seed", run.seed, "at most 2^63 - 1")?;
        check(!run.output.as_os_str().is_empty(), "run.output", "empty", "a directory")?;
        check(run.steps > 0, "run.steps", run.steps, "at least 1")?;
        check(run.accumulate > 0, "run.accumulate", run.accumulate, "at least 1")?;
        check(run.log_every > 0, "run.log_every", run.log_every, "at least 1")?;
        check(data.rows > 0, "data.rows", data.rows, "at least 1")?;
        check(data.context > 0, "data.context", data.context, "at least 1")?;
        let endless = data.order != Order::Sequential;
        check(endless, "data.order", "sequential", "windows or epochs: training does not end with the data")?;
        check(checkpoint.every > 0, "checkpoint.every", checkpoint.every, "at least 1")?;
        check(checkpoint.keep_last >= 2, "checkpoint.keep_last", checkpoint.keep_last, "at least 2")?;
        check(evaluate.rows > 0, "evaluate.rows", evaluate.rows, "at least 1")?;
        check(evaluate.max_windows != Some(0), "evaluate.max_windows", 0, "at least 1, or absent")?;
        optimizer.validate(run.steps)?;
        let trainable = model.validate();
        trainable.map_err(|source| ConfigError::Model { source: Box::new(source) })?;
        let longest = model.max_positions();
        let fits = data.context <= longest;
        check(fits, "data.context", data.context, &format!("at most the model's {longest} positions"))
    }

    /// Whether a run may be resumed after the field at `path` was changed.
    pub(crate) fn may_change(&self, path: &str) -> bool {
        const FREE: &[&str] = &[
            "run.output",
            "run.log_every",
            // Data is compared by its checksum, whatever its path.
            "data.train",
            "data.valid",
            "data.tokenizer",
            "checkpoint.every",
            "checkpoint.keep_last",
            "evaluate.every",
            "evaluate.rows",
            "evaluate.max_windows",
        ];
        // A constant learning rate does not depend on the length of the run, so the run may be extended.
        let longer = path == "run.steps" && self.optimizer.schedule == ScheduleKind::Constant;
        longer || FREE.contains(&path)
    }
}

/// Fails with the name of `field` unless `fine` is true.
pub(crate) fn check(
    fine: bool,
    field: &'static str,
    value: impl ToString,
    wanted: &str,
) -> Result<(), ConfigError> {
    if fine {
        return Ok(());
    }
    Err(ConfigError::Field { field, value: value.to_string(), wanted: wanted.to_owned() })
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The text is not TOML, or its keys are not those of a configuration.
    #[error("{origin} is not a valid training configuration")]
    Toml {
        /// The origin of the text.
        origin: String,
        /// The cause; names the key.
        source: Box<toml::de::Error>,
    },
    /// An override is not of the form `a.b=c`, or its path contains a key that is not a table.
    #[error("override {text:?} does not set a key: write table.key=value, for example optimizer.lr=3e-4")]
    Override {
        /// The override.
        text: String,
    },
    /// A field's value is invalid.
    #[error("{field} is {value}: it must be {wanted}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        wanted: String,
    },
    /// The model cannot be trained with its configuration.
    #[error("the model table cannot be trained")]
    Model {
        /// The cause; names the key.
        source: Box<andiron_models::hf_config::ConfigError>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CONFIG;

    #[track_caller]
    fn check_refused(set: &str, field: &str) {
        let error = TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{field} is ")), "{error}");
    }

    #[test]
    fn senseless_values_are_named() {
        check_refused("run.steps=0", "run.steps");
        check_refused("run.output=\"\"", "run.output");
        check_refused("run.accumulate=0", "run.accumulate");
        check_refused("data.rows=0", "data.rows");
        check_refused("data.context=0", "data.context");
        check_refused("data.context=1000", "data.context");
        check_refused("data.order=sequential", "data.order");
        check_refused("checkpoint.keep_last=1", "checkpoint.keep_last");
        check_refused("checkpoint.every=0", "checkpoint.every");
        check_refused("evaluate.max_windows=0", "evaluate.max_windows");
    }

    #[test]
    fn a_model_that_cannot_be_built_is_refused() {
        for (set, cause) in [("model.n_head=3", "3 attention heads"), ("model.attn_pdrop=1.5", "attn_pdrop")]
        {
            let error = TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap_err();
            match error {
                ConfigError::Model { source } => assert!(source.to_string().contains(cause), "{source}"),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn defaults_are_the_usual_ones() {
        let config = TrainConfig::parse(CONFIG, &[]).unwrap();
        assert_eq!((config.run.accumulate, config.run.log_every), (1, 1));
        assert_eq!((config.checkpoint.keep_last, config.evaluate), (3, EvaluateConfig::default()));
    }
}
