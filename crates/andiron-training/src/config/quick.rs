//! A whole configuration from a model, an objective and data.

use std::path::{Path, PathBuf};

use andiron_core::Precision;
use andiron_data::loader::Order;
use andiron_data::rows::{Part, RowOptions, RowReader};
use andiron_data::shard::Dataset;
use andiron_models::{AnyConfig, Family, LoraConfig, ModelFiles, RunPrecision};
use serde_json::json;

use super::{CheckpointConfig, ConfigError, DataConfig, EvaluateConfig, InitConfig, RunConfig, TrainConfig};
use crate::objective::ObjectiveConfig;
use crate::optimizer::{OptimizerConfig, ScheduleKind};
use crate::trainer::TrainError;

/// Sequences in a micro-batch.
const ROWS: usize = 32;
/// Passes over the data.
const EPOCHS: u64 = 4;
/// Share of the steps in which the learning rate rises.
const WARM_UP: f64 = 0.06;
/// Steps of rows that are arranged by length.
const LENGTH_GROUPS: usize = 50;
/// Tokens in a sequence of a token stream.
const CONTEXT: usize = 512;

/// What a fine-tuning is told on the command line; the rest of its configuration follows from it.
///
/// | setting | value |
/// |---|---|
/// | `data.rows` | 32, or 8 for a decoder, whose sequences are longer; 4 pairs of answers |
/// | `run.epochs` | 4, or 1 for pairs of answers |
/// | `optimizer` | AdamW, betas 0.9 and 0.999, no weight decay, linear decay to 0 after 6 % of warm-up |
/// | `optimizer.lr` | 5e-5 · (768 / width)², at most 5e-4: narrow models take larger steps; a fiftieth of it for pairs of answers |
/// | `optimizer.lr` with an adapter | ten times that, and at least 2e-4; for pairs of answers at least 4e-6 |
/// | `adapter` | alpha twice the rank, for all linear projections |
/// | `data.length_groups` | 50 for rows: those of similar length come together |
/// | `evaluate`, `checkpoint` | once an epoch; embeddings are measured before the first step, too |
/// | `checkpoint.keep_best` | true, if there is validation data: two classes are soon learnt by heart |
#[derive(Clone, Debug, PartialEq)]
pub struct QuickRun {
    /// The model directory to begin with.
    pub model: PathBuf,
    /// The kind of the objective.
    pub objective: String,
    /// The training data: a file of rows or a directory of shards.
    pub train: PathBuf,
    /// The validation data.
    pub valid: Option<PathBuf>,
    /// Share of the training rows to hold out for validation, in place of `valid`.
    pub held_out: Option<f64>,
    /// Directory of the run.
    pub output: PathBuf,
    /// Rank of the adapter to train in place of the model.
    pub lora_rank: Option<usize>,
}

impl QuickRun {
    /// The configuration.
    ///
    /// # Errors
    /// If the model or the data cannot be read, or there is no such objective.
    pub fn config(&self, precision: Precision) -> Result<TrainConfig, TrainError> {
        let failed = |source| TrainError::Init { path: self.model.clone(), source: Box::new(source) };
        let model = ModelFiles::open(&self.model).map_err(failed)?.config().map_err(failed)?.config.clone();
        let objective: ObjectiveConfig =
            serde_json::from_value(json!({ "kind": self.objective })).map_err(|_| {
                ConfigError::UnknownObjective {
                    kind: self.objective.clone(),
                    known: ObjectiveConfig::kinds_for(model.family()).join(", "),
                }
            })?;
        let is_contrastive = matches!(objective, ObjectiveConfig::Contrastive(_));
        let is_preference = matches!(objective, ObjectiveConfig::Preference(_));
        let (rows, epochs, lr_scale) = match (is_preference, model.family()) {
            (true, _) => (4, 1, 0.02),
            (false, Family::Decoder) => (8, EPOCHS, 1.0),
            (false, _) => (ROWS, EPOCHS, 1.0),
        };
        let measures = self.valid.is_some() || self.held_out.is_some();
        let (n_rows, context) = self.size(&model)?;
        let per_epoch = n_rows.div_ceil(rows as u64).max(1);
        let width = model.sizes().d_model as f64;
        let of_whole = (5e-5 * (768.0 / width).powi(2)).min(5e-4);
        let lr = if self.lora_rank.is_some() { (10.0 * of_whole).max(2e-4) } else { of_whole } * lr_scale;
        Ok(TrainConfig {
            run: RunConfig {
                output: self.output.clone(),
                seed: 1337,
                steps: None,
                epochs: Some(epochs as f64),
                accumulate: 1,
                log_every: 1,
                precision,
                activation_checkpointing: false,
            },
            init: Some(InitConfig { from: self.model.clone(), precision: RunPrecision::F32 }),
            model: None,
            adapter: self.lora_rank.map(|rank| LoraConfig::new(rank, 2.0 * rank as f32)),
            objective: Some(objective),
            data: DataConfig {
                valid: self.valid.clone(),
                held_out: self.held_out,
                context,
                order: Order::Epochs,
                length_groups: context.is_none().then_some(LENGTH_GROUPS),
                ..DataConfig::new(self.train.clone(), rows)
            },
            optimizer: OptimizerConfig {
                schedule: ScheduleKind::Linear,
                warmup_steps: ((per_epoch * epochs) as f64 * WARM_UP).ceil() as u64,
                beta2: Some(0.999),
                weight_decay: 0.0,
                // Two digits: this is read by people.
                ..OptimizerConfig::constant(format!("{lr:.1e}").parse().unwrap_or(lr))
            },
            checkpoint: CheckpointConfig { every: per_epoch, keep_last: 2, keep_best: measures },
            evaluate: EvaluateConfig {
                every: per_epoch,
                at_start: is_contrastive,
                rows: 2 * rows,
                max_windows: None,
            },
        })
    }

    /// Number of rows of the training data, and the length of its sequences if it is a token stream.
    fn size(&self, model: &AnyConfig) -> Result<(u64, Option<usize>), TrainError> {
        if !crate::files::is_directory(&self.train)? {
            let rows = RowReader::open(&self.train, &RowOptions::default())?;
            let part = self.held_out.map_or(Part::All, Part::Rest);
            let rows = (0..).zip(rows).filter(|(number, row)| row.is_ok() && part.has(*number));
            return Ok((rows.count() as u64, None));
        }
        let dataset =
            Dataset::open(&self.train).map_err(|source| TrainError::Data { source: Box::new(source) })?;
        let context = CONTEXT.min(model.sizes().max_positions);
        Ok((dataset.tokens() / context as u64, Some(context)))
    }
}

impl TrainConfig {
    /// The same objective and the same reading of rows for the validation ([`validate`](crate::validate)) of the model in the
    /// directory `model` on the file `rows`. Encoded rows go to `output`.
    #[must_use]
    pub fn to_measure(self, model: &Path, rows: &Path, output: &Path) -> Self {
        let Self { mut run, mut data, .. } = self;
        run.output = output.to_owned();
        data.train = rows.to_owned();
        data.valid = Some(rows.to_owned());
        (data.held_out, data.tokenizer) = (None, None);
        if !data.packing {
            // Of a token stream.
            data.context = None;
        }
        let init = Some(InitConfig { from: model.to_owned(), precision: RunPrecision::F32 });
        Self { run, init, model: None, adapter: None, data, ..self }
    }
}
