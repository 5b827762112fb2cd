//! `andiron finetune`: train a model directory further, for an objective.

use std::path::PathBuf;

use andiron_training::ObjectiveConfig;
use andiron_training::config::{QuickRun, TrainConfig};
use clap::Args;

use super::pretrain::{self, RunOptions};
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::note;

/// Fine-tune a model directory of any family
///
/// Takes a TOML configuration, or a model, an objective and data, from which it derives a whole configuration, shows it, and writes
/// it to the output directory as `config.toml`. Running the same command again resumes from the newest checkpoint.
#[derive(Debug, Args)]
pub struct Finetune {
    /// Configuration file with `[init] from`, in place of --model, --objective, --train and --output
    #[arg(value_name = "TOML", required_unless_present = "model", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Model directory to begin with
    #[arg(long, value_name = "DIR", requires = "objective", requires = "train", requires = "output")]
    model: Option<PathBuf>,
    #[arg(long, value_name = "KIND", requires = "model", help = objective_help())]
    objective: Option<String>,
    /// Training data: a file of rows (JSONL, JSON, CSV, TSV, also .gz), or a directory of `prepare`
    #[arg(long, value_name = "PATH", requires = "model")]
    train: Option<PathBuf>,
    /// Validation data of the same kind
    #[arg(long, value_name = "PATH", requires = "model")]
    valid: Option<PathBuf>,
    /// Share of the training rows to hold out for validation, such as 0.1
    #[arg(long, value_name = "0..1", requires = "model", conflicts_with = "valid")]
    held_out: Option<f64>,
    /// Directory of the run
    #[arg(long, short, value_name = "DIR", requires = "model")]
    output: Option<PathBuf>,
    /// Train a LoRA adapter of the model, which stays as it is, in place of the model
    #[arg(long, requires = "model")]
    lora: bool,
    /// Rank of the adapter
    #[arg(long, value_name = "N", default_value_t = 16, requires = "lora")]
    lora_rank: usize,
    #[command(flatten)]
    options: RunOptions,
}

impl Finetune {
    /// Trains and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        pretrain::run(|| self.config(common), &self.options, common)
    }

    fn config(&self, common: &Common) -> anyhow::Result<TrainConfig> {
        if let Some(path) = &self.config {
            return pretrain::load(path, &self.options.overrides);
        }
        let missing = || Usage("--model needs --objective, --train and --output".to_owned());
        let (Some(model), Some(objective), Some(train), Some(output)) =
            (&self.model, &self.objective, &self.train, &self.output)
        else {
            return Err(missing().into());
        };
        let quick = QuickRun {
            model: model.clone(),
            objective: objective.clone(),
            train: train.clone(),
            valid: self.valid.clone(),
            held_out: self.held_out,
            output: output.clone(),
            lora_rank: self.lora.then_some(self.lora_rank),
        };
        let derived = quick.config(common.fastest_precision()?)?.to_toml();
        let config = pretrain::parse(&derived, &self.options.overrides)?;
        note!("{}", config.to_toml());
        Ok(config)
    }
}

/// The kinds of objectives, as the library lists them.
fn objective_help() -> String {
    format!("Objective: one of {}", ObjectiveConfig::KINDS.join(", "))
}
