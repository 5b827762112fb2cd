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
//! rows = 12                  # sequences in a micro-batch
//! context = 64               # tokens in a sequence
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
//!
//! Fine-tuning has `[init]` in place of `[model]`, and other models than decoders, or other objectives than the next token,
//! have an `[objective]`:
//!
//! ```toml
//! [init]
//! from = "models/minilm"     # weights, configuration and tokenizer
//!
//! [objective]
//! kind = "classify"
//! ```
//!
//! Conversations and other texts of a decoder may share rows, so that no work is done on padding:
//!
//! ```toml
//! [objective]
//! kind = "chat"              # or "causal", on a file of texts
//!
//! [data]
//! train = "chats.jsonl"
//! packing = true
//! max_length = 1024          # tokens of a conversation, and of a row
//! ```
//!
//! With `[adapter]` the model is frozen and a LoRA adapter of it is trained; its weights may then be stored in few bits (QLoRA):
//!
//! ```toml
//! [init]
//! from = "models/llama"
//! precision = "int4"
//!
//! [adapter]
//! rank = 16
//! alpha = 32
//! targets = "all-linear"     # or names of modules, or a regular expression
//! ```

mod data;
mod diff;
mod foreign;
mod load;
mod model;
mod quick;
mod quick_pretrain;
mod size;

use std::path::PathBuf;

use andiron_core::Precision;
use andiron_kernels::random::Seed;
use andiron_models::{AdapterError, Family, LoraConfig, RunPrecision};
use serde::{Deserialize, Serialize};

use crate::objective::ObjectiveConfig;
use crate::optimizer::OptimizerConfig;

pub use data::DataConfig;
pub(crate) use diff::{Difference, first_difference};
pub use model::ModelConfig;
pub use quick::QuickRun;
pub use quick_pretrain::QuickPretrain;
pub use size::{ParameterCount, SizedDecoder};

/// Configuration of a run. Together with its data it determines the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Output directory, seed, length, and precision.
    pub run: RunConfig,
    /// The model directory to begin with, in place of [`model`](Self::model).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitConfig>,
    /// The model, trained from random weights: the fields of a Hugging Face `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// The low-rank adapter that is trained in place of the model. A new head, and one for labels, is trained in full with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// The objective and its options; by default next-token prediction, for a decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveConfig>,
    /// The training and validation data.
    pub data: DataConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// When checkpoints are saved.
    pub checkpoint: CheckpointConfig,
    /// When the model is validated.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
}

/// The model that a run begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// A model directory of any family: weights, configuration and tokenizer. A head that the objective needs and the
    /// directory does not have is newly initialized.
    pub from: PathBuf,
    /// How the weights of the model below an adapter are stored: `"int8"` or `"int4"` take a quarter or less of the memory, and
    /// so does `"bf16"` with a half. Blocks of a GGUF file stay as they are. By default f32.
    #[serde(default, skip_serializing_if = "is_f32", with = "by_name")]
    pub precision: RunPrecision,
}

/// Output directory, seed, length and precision of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Directory of the run: checkpoints, metrics and the final model.
    pub output: PathBuf,
    /// Seed of all random streams: initial weights, data order, dropout.
    pub seed: u64,
    /// Length of the run, in optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length of the run, in passes over the data, in place of [`steps`](Self::steps).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Gradient accumulation: micro-batches per optimizer step.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// A line is written to `metrics.jsonl` every this many steps.
    #[serde(default = "one")]
    pub log_every: u64,
    /// Precision of matmuls in training, `"f32"` or `"mixed"` (bf16 mixed precision); by default the fastest on this machine.
    /// Validation always uses f32, and so do GPU backends.
    #[serde(default = "Precision::fastest", with = "by_name")]
    pub precision: Precision,
    /// Activation checkpointing: the backward pass computes each block of the model again instead of keeping its activations.
    /// It takes less memory and more time; the result is the same.
    #[serde(default, skip_serializing_if = "is_false")]
    pub activation_checkpointing: bool,
}

impl RunConfig {
    /// The seed of new weights.
    pub(crate) fn weights_seed(&self) -> Seed {
        Seed::new(self.seed).derive("weights")
    }
}

/// Serializes a precision by its name.
mod by_name {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'a, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'a>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
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
    /// Whether the model at the end is that of the best validation, not of the last one; its checkpoint is kept until then. The
    /// first of these that the validation has says which is the best: F1, accuracy, micro-averaged F1, chrF, Spearman's
    /// correlation, accuracy within a batch or of rewards; else the loss.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_best: bool,
}

/// When the model is validated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Steps between measurements; 0 measures only at the end.
    #[serde(default)]
    pub every: u64,
    /// Whether the model is measured before the first step, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_start: bool,
    /// Rows per batch.
    #[serde(default = "sixteen")]
    pub rows: usize,
    /// Number of rows per measurement during the run, rounded up to whole batches; all by default. The final measurement always
    /// uses all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_windows: Option<u64>,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self { every: 0, at_start: false, rows: sixteen(), max_windows: None }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_f32(precision: &RunPrecision) -> bool {
    *precision == RunPrecision::F32
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
        let Self { run, init, model, adapter, objective: _, data, optimizer, checkpoint, evaluate } = self;
        // TOML has signed integers only.
        check(i64::try_from(run.seed).is_ok(), "run.seed", run.seed, "at most 2^63 - 1")?;
        check(!run.output.as_os_str().is_empty(), "run.output", "empty", "a directory")?;
        match (run.steps, run.epochs) {
            (Some(steps), None) => check(steps > 0, "run.steps", steps, "at least 1")?,
            (None, Some(epochs)) => {
                check(epochs.is_finite() && epochs > 0.0, "run.epochs", epochs, "above 0")?;
            }
            (Some(_), Some(epochs)) => check(false, "run.epochs", epochs, "absent, as run.steps is given")?,
            (None, None) => return Err(ConfigError::NoLength),
        }
        check(run.accumulate > 0, "run.accumulate", run.accumulate, "at least 1")?;
        check(run.log_every > 0, "run.log_every", run.log_every, "at least 1")?;
        data.validate()?;
        check(checkpoint.every > 0, "checkpoint.every", checkpoint.every, "at least 1")?;
        check(checkpoint.keep_last >= 2, "checkpoint.keep_last", checkpoint.keep_last, "at least 2")?;
        let measures = data.valid.is_some() || data.held_out.is_some();
        let wanted = "false: there is no data.valid and no data.held_out to measure on";
        check(measures || !checkpoint.keep_best, "checkpoint.keep_best", true, wanted)?;
        check(evaluate.rows > 0, "evaluate.rows", evaluate.rows, "at least 1")?;
        check(evaluate.max_windows != Some(0), "evaluate.max_windows", 0, "at least 1, or absent")?;
        // Where it is known only once the data is open, the length is checked again then.
        optimizer.validate(run.steps.unwrap_or(u64::MAX))?;
        self.check_adapter(adapter.as_ref(), init.as_ref())?;
        match (init, model) {
            (Some(_), Some(_)) => Err(ConfigError::TwoModels),
            (None, None) => Err(ConfigError::NoModel),
            (Some(_), None) => self.check_length(usize::MAX),
            (None, Some(model)) => {
                model.validate().map_err(|source| ConfigError::Model { source: Box::new(source) })?;
                self.check_length(model.max_positions())
            }
        }
    }

    /// Checks that an adapter is one of a model directory, whose weights are in few bits only below it.
    fn check_adapter(
        &self,
        adapter: Option<&LoraConfig>,
        init: Option<&InitConfig>,
    ) -> Result<(), ConfigError> {
        if let Some(adapter) = adapter {
            let why = "an adapter is trained of a model directory, not of random weights";
            init.ok_or(ConfigError::Missing { field: "init.from", why })?;
            adapter.check_trainable().map_err(|source| ConfigError::Adapter { source: Box::new(source) })?;
        }
        let precision = init.map_or(RunPrecision::F32, |init| init.precision);
        if precision == RunPrecision::F32 {
            return Ok(());
        }
        let wanted = "int8, int4, bf16 or f32: run.precision is that of matmuls";
        check(precision.is_stored(), "init.precision", precision, wanted)?;
        let why =
            "init.precision stores the weights in few bits, which only an adapter of them can be trained on";
        if adapter.is_none() {
            return Err(ConfigError::Missing { field: "adapter", why });
        }
        Ok(())
    }

    /// Checks that sequences fit a model that reads `longest` tokens.
    pub(crate) fn check_length(&self, longest: usize) -> Result<(), ConfigError> {
        let Some(context) = self.data.context else { return Ok(()) };
        check(context > 0, "data.context", context, "at least 1")?;
        check(
            context <= longest,
            "data.context",
            context,
            &format!("at most the model's {longest} positions"),
        )
    }

    /// Rows of a batch of validation: no more than are wanted.
    pub(crate) fn evaluation_rows(&self) -> usize {
        let EvaluateConfig { rows, max_windows, .. } = self.evaluate;
        max_windows.map_or(rows, |limit| rows.min(usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// Whether a run may be resumed after the field at `path` was changed.
    pub(crate) fn may_change(&self, path: &str) -> bool {
        const FREE: &[&str] = &[
            "run.output",
            "run.log_every",
            // It changes no bit of the result.
            "run.activation_checkpointing",
            // The weights come from the checkpoint.
            "init.from",
            // Data is compared by its checksum, whatever its path.
            "data.train",
            "data.valid",
            "data.tokenizer",
            // They change no bit of the result.
            "data.workers",
            // Checkpoints hold the whole state.
            "optimizer.shard",
            "checkpoint.every",
            "checkpoint.keep_last",
            "checkpoint.keep_best",
            "evaluate.every",
            "evaluate.at_start",
            "evaluate.rows",
            "evaluate.max_windows",
        ];
        // A constant learning rate does not depend on the length of the run, so the run may be extended.
        let longer = matches!(path, "run.steps" | "run.epochs") && !self.optimizer.depends_on_length();
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
    #[error("{origin} is not a valid training configuration{hint}")]
    Toml {
        /// The origin of the text.
        origin: String,
        /// What to write instead, if the key is another program's word; otherwise empty.
        hint: String,
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
    /// A field that this run needs is absent.
    #[error("{field} is missing: {why}")]
    Missing {
        /// The field.
        field: &'static str,
        /// Why it is needed.
        why: &'static str,
    },
    /// The names of the fields do not fit the objective.
    #[error("data.fields does not fit the objective")]
    Fields {
        /// The cause; names the key.
        source: serde_json::Error,
    },
    /// Sequences cannot be divided into the spans that the objective removes.
    #[error(transparent)]
    Spans {
        /// The cause.
        source: andiron_data::collate::SpanCorruptionError,
    },
    /// There is no such objective for the model.
    #[error("{kind:?} is no objective for this model: choose {known}")]
    UnknownObjective {
        /// The name.
        kind: String,
        /// The objectives for the model.
        known: String,
    },
    /// The adapter cannot be trained.
    #[error("the adapter table cannot be used")]
    Adapter {
        /// The cause.
        source: Box<AdapterError>,
    },
    /// Neither `[init]` nor `[model]` is given.
    #[error("there is no model: give [init] from, a model directory to begin with, or the fields of [model]")]
    NoModel,
    /// Both `[init]` and `[model]` are given.
    #[error(
        "init.from and the model table are both given: keep one, as a model directory has a configuration of its own"
    )]
    TwoModels,
    /// The length of the run is absent.
    #[error("the length of the run is missing: set run.steps or run.epochs")]
    NoLength,
    /// There is no default objective for the model.
    #[error("objective.kind is missing: for this {family}, choose one of {kinds}")]
    NoObjective {
        /// The family of the model.
        family: Family,
        /// The kinds for it.
        kinds: String,
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
        check_refused("data.valid=\"\"", "data.valid");
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
    fn weights_in_few_bits_need_an_adapter_and_an_adapter_a_model_directory() {
        let of_directory = CONFIG.replace("[model]", "[init]\nfrom = \"base\"\n[unused]");
        let of_directory = &of_directory[..of_directory.find("[unused]").unwrap()];
        let rest = &CONFIG[CONFIG.find("[data]").unwrap()..];
        let text = format!("{of_directory}\n{rest}");
        let parse = |text: &str, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
            TrainConfig::parse(text, &sets)
        };
        let says = |text: &str, sets: &[&str], expected: &str| {
            let error = parse(text, sets).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        says(&text, &["init.precision=int8"], "adapter is missing");
        says(&text, &["init.precision=mixed", "adapter={ rank = 2, alpha = 4 }"], "init.precision is mixed");
        says(CONFIG, &["adapter={ rank = 2, alpha = 4 }"], "init.from is missing");
        says(&text, &["adapter={ rank = 0, alpha = 4 }"], "the adapter table");
        let config = parse(&text, &["init.precision=int4", "adapter={ rank = 2, alpha = 4 }"]).unwrap();
        assert_eq!(config.init.as_ref().unwrap().precision, RunPrecision::Int4);
        assert_eq!(parse(&config.to_toml(), &[]).unwrap(), config);
    }

    #[test]
    fn defaults_are_the_usual_ones() {
        let config = TrainConfig::parse(CONFIG, &[]).unwrap();
        assert_eq!((config.run.accumulate, config.run.log_every), (1, 1));
        assert_eq!((config.checkpoint.keep_last, config.evaluate), (3, EvaluateConfig::default()));
    }
}
