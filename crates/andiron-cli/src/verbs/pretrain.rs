//! `andiron pretrain`: train a model from random weights.

use std::path::{Path, PathBuf};

use andiron_training::checkpoint;
use andiron_training::config::{ConfigError, TrainConfig};
use andiron_training::trainer::{Outcome, Status, start_or_resume};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::{note, out};
use crate::progress::TrainingProgress;
use crate::{memory, stop};

/// Train a model from random weights, configured by a TOML file
///
/// Running the same command again resumes from the newest checkpoint; on a CPU the result is bit for bit that of an uninterrupted
/// run. Ctrl-C, SIGTERM and SIGHUP save a checkpoint and exit with 75; SIGUSR1 and SIGUSR2 save one, and training continues.
/// While the run goes on and after it, `report.html` in the output directory shows its curves, and TensorBoard reads `tensorboard`.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// Configuration file. Every run writes its own as `config.toml` in its output directory; quickstart's is a good start
    #[arg(value_name = "TOML")]
    config: PathBuf,
    /// Override a value of the configuration, as in `--set optimizer.lr=3e-4`; repeat the option for several
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Fail if there is no checkpoint to resume from
    #[arg(long)]
    resume: bool,
}

impl Pretrain {
    /// Trains and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let config = load(&self.config, &self.overrides)?;
        ensure_resumable(&config, self.resume)?;
        let outcome = train(&config, common)?;
        report(&outcome, &config, common)?;
        ending(&outcome, &config)
    }
}

/// Fails if a run is to be resumed and has no checkpoint.
pub fn ensure_resumable(config: &TrainConfig, resume: bool) -> anyhow::Result<()> {
    let output = &config.run.output;
    if resume {
        let found = checkpoint::steps_in(output)?;
        anyhow::ensure!(!found.is_empty(), "{} has no checkpoint to resume from", output.display());
    }
    Ok(())
}

/// Prints what a run has reached.
pub fn report(outcome: &Outcome, config: &TrainConfig, common: &Common) -> anyhow::Result<()> {
    if common.json {
        out!(
            "{}",
            json!({ "step": outcome.step, "tokens": outcome.tokens, "model": outcome.model,
                    "validation": outcome.valid, "interrupted": outcome.status == Status::Interrupted })
        )?;
        return Ok(());
    }
    if let Some(evaluation) = &outcome.valid {
        out!("validation loss {:.4}", evaluation.loss)?;
        for (name, value) in &evaluation.metrics {
            out!("{name} {value:.4}")?;
        }
    }
    if let (Some(adapter), Some(_)) = (&outcome.model, &config.adapter) {
        out!("The adapter is in {}, in peft's layout.", adapter.display())?;
    } else if let Some(model) = &outcome.model {
        out!("The model is in {}, in the Hugging Face layout.", model.display())?;
    }
    out!("The report is {}.", config.run.output.join("report.html").display())?;
    Ok(())
}

/// Trains, showing progress, until the end or a signal.
pub fn train(config: &TrainConfig, common: &Common) -> anyhow::Result<Outcome> {
    let device = common.open_device()?;
    let advice = match config.run.activation_checkpointing {
        true => "make data.rows smaller and run.accumulate larger, or the model smaller",
        false => {
            "set run.activation_checkpointing = true, make data.rows smaller and run.accumulate larger, or the model smaller"
        }
    };
    memory::ensure_fits("training", config.memory_bytes(&device)?, advice, common)?;
    let requests = stop::on_signal()?;
    let mut progress = TrainingProgress::default();
    let outcome = start_or_resume(config, &device, &mut progress, &requests);
    progress.finish();
    Ok(outcome?)
}

/// Reads the configuration; if only the overrides make it wrong, the error names them instead of blaming the file.
pub fn load(path: &Path, overrides: &[String]) -> anyhow::Result<TrainConfig> {
    match TrainConfig::load(path, overrides) {
        Err(error @ ConfigError::Override { .. }) => Err(Usage(error.to_string()).into()),
        Err(error) if !overrides.is_empty() && TrainConfig::load(path, &[]).is_ok() => {
            Err(error).with_context(|| format!("cannot apply --set {}", overrides.join(" --set ")))
        }
        result => Ok(result?),
    }
}

/// Reads a derived configuration; if the overrides make it wrong, the error names them.
pub fn parse(text: &str, overrides: &[String]) -> anyhow::Result<TrainConfig> {
    match TrainConfig::parse(text, overrides) {
        Err(error @ ConfigError::Override { .. }) => Err(Usage(error.to_string()).into()),
        Err(error) if !overrides.is_empty() => {
            Err(error).with_context(|| format!("cannot apply --set {}", overrides.join(" --set ")))
        }
        result => Ok(result?),
    }
}

/// How a run's outcome ends the program.
pub fn ending(outcome: &Outcome, config: &TrainConfig) -> anyhow::Result<Ending> {
    if outcome.failed_saves > 0 {
        let newest = match outcome.saved_step {
            Some(step) => format!("the newest one is of step {step}"),
            None => "there is none".to_owned(),
        };
        anyhow::ensure!(
            outcome.saved,
            "the checkpoint of the last step, {}, could not be saved, which the warnings above explain; {newest}",
            outcome.step
        );
    }
    match outcome.status {
        Status::Finished => Ok(Ending::Done),
        Status::Interrupted => {
            let output = config.run.output.display();
            note!("saved after step {} in {output}; run the same command again to go on", outcome.step);
            Ok(Ending::Interrupted)
        }
    }
}
