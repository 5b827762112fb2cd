//! `andiron pretrain`: train a model from random weights.

mod ending;
mod verify_resume;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use andiron_training::checkpoint;
use andiron_training::config::{ConfigError, ParameterCount, QuickPretrain, SizedDecoder, TrainConfig};
use andiron_training::trainer::{Outcome, Status, start_or_resume_shared};
use andiron_training::{Collective, Requests, Single, TrainError, agree};
use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::note;
use crate::progress::TrainingProgress;
use crate::{launch, memory, stop};

/// Train a model from random weights, configured by a TOML file, or by its size and data
///
/// Running the same command again resumes from the newest checkpoint; on a CPU the result is bit for bit that of an uninterrupted
/// run. Ctrl-C, SIGTERM and SIGHUP save a checkpoint and exit with 75; SIGUSR1 and SIGUSR2 save one, and training continues.
/// While the run goes on and after it, `report.html` in the output directory shows its curves, and TensorBoard reads `tensorboard`.
#[derive(Debug, Args)]
pub struct Pretrain {
    /// Configuration file. Every run writes its own as `config.toml` in its output directory; quickstart's is a good start
    #[arg(value_name = "TOML", required_unless_present = "data", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Train a decoder of about N parameters, such as 300K, 10M or 1.5B, in place of the configuration's model table. It is a Qwen 3
    /// with tied embeddings. Heads are 64 wide, or 32 in models up to 256 wide. Of the widths and depths that come within 2 % of N,
    /// it has those whose ratio (from 16 to 128) is nearest to 64, or to 32 up to a width of 256, with embeddings of at most half of
    /// the parameters if that can be; the feed-forward width is near 8/3 of the width. The vocabulary is that of the model table, or
    /// of the data. The context is 256 tokens below 3M parameters, 512 below 100M, 1024 below 1B, then 2048
    #[arg(long, value_name = "N")]
    params: Option<ParameterCount>,
    /// Directory that `prepare` wrote, in place of a configuration file: the rest of the configuration is derived from the data and
    /// --params, shown, and written to the output directory as `config.toml`. AdamW with a cosine schedule, on 20 tokens for each
    /// parameter or at most 4 passes over the data
    #[arg(long, value_name = "DIR", requires = "params", requires = "output")]
    data: Option<PathBuf>,
    /// Directory of the run, with --data
    #[arg(long, short, value_name = "DIR", requires = "data")]
    output: Option<PathBuf>,
    /// Length of the run in steps, with --data
    #[arg(long, value_name = "N", requires = "data", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    #[command(flatten)]
    options: RunOptions,
}

/// Options of the verbs that train.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// Override a value of the configuration, as in `--set optimizer.lr=3e-4`; repeat the option for several
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Fail if there is no checkpoint to resume from
    #[arg(long)]
    resume: bool,
    /// After step N, save a checkpoint and stop, as at a signal; the same command without this option goes on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    stop_after: Option<u64>,
    /// Do not train, but prove that stopping and resuming changes nothing: train N steps in one go, and N steps with a stop after
    /// half of them, in processes of their own, and compare losses, gradient norms, weights and the state of the optimizer bit for
    /// bit. Exits with 1 and the first difference if there is one. Stops come between steps, so never within the micro-batches of
    /// one. Works beside the output directory, where it needs room for three checkpoints; the run itself is not touched
    #[arg(long, value_name = "N", conflicts_with_all = ["resume", "stop_after"])]
    verify_resume: Option<u64>,
    /// Of a run on several processes: if one keeps the others waiting for longer than SECONDS within a step, end all of them with exit
    /// code 75, naming it. Validation and checkpoints, for which the others wait, may take longer
    #[arg(long, value_name = "SECONDS")]
    step_timeout: Option<NonZeroU64>,
}

impl Pretrain {
    /// Trains and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        run(|| self.config(common), &self.options, common)
    }

    fn config(&self, common: &Common) -> anyhow::Result<TrainConfig> {
        let overrides = &self.options.overrides;
        let (config, sizes) = match (&self.config, &self.data, &self.output, self.params) {
            (Some(path), _, _, None) => return load(path, overrides),
            (Some(path), _, _, Some(params)) => load_sized(path, overrides, params)?,
            (None, Some(data), Some(output), Some(params)) => {
                let (data, output) = (data.clone(), output.clone());
                let quick = QuickPretrain { params, data, output, steps: self.steps };
                let (derived, sizes) = quick.config(common.fastest_precision()?)?;
                let config = parse(&derived.to_toml(), overrides)?;
                note!("{}", config.to_toml());
                (config, sizes)
            }
            _ => return Err(Usage("--data needs --params and --output".to_owned()).into()),
        };
        note!("{sizes}");
        if sizes.embedding_share() > 0.5 {
            note!("a tokenizer with fewer tokens would leave more of them to the layers");
        }
        Ok(config)
    }
}

/// Trains as the options say, alone or with the other processes that a launcher has started, and reports.
pub fn run(
    config: impl FnOnce() -> anyhow::Result<TrainConfig>,
    options: &RunOptions,
    common: &Common,
) -> anyhow::Result<Ending> {
    let timeout = options.step_timeout.map(|seconds| Duration::from_secs(seconds.get()));
    let ranks = launch::ranks(timeout)?;
    let config = &agree(&*ranks, config())?;
    if let Some(steps) = options.verify_resume {
        anyhow::ensure!(ranks.size() == 1, "--verify-resume starts processes itself: start it as one");
        return verify_resume::verify(config, steps, common);
    }
    agree(&*ranks, ensure_resumable(config, options.resume))?;
    let requests = if ranks.size() == 1 { stop::on_signal() } else { stop::on_forwarded_signal() };
    let requests = agree(&*ranks, requests)?;
    if let Some(step) = options.stop_after {
        requests.stop_after(step);
    }
    let outcome = match train_shared(config, &requests, common, Rc::clone(&ranks)) {
        // The first process was stopped while it encoded rows, and so was this one.
        Err(error) if ranks.rank() > 0 && requests.is_stopped() => Err(elsewhere_stopped(error)),
        outcome => outcome,
    }?;
    ending::report(&outcome, config, common)?;
    ending(&outcome, config)
}

fn elsewhere_stopped(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(TrainError::Elsewhere { .. }) => TrainError::Stopped.into(),
        _ => error,
    }
}

/// Fails if a run is to be resumed and has no checkpoint.
fn ensure_resumable(config: &TrainConfig, resume: bool) -> anyhow::Result<()> {
    let output = &config.run.output;
    if resume {
        let found = checkpoint::steps_in(output)?;
        anyhow::ensure!(!found.is_empty(), "{} has no checkpoint to resume from", output.display());
    }
    Ok(())
}

/// Trains, showing progress, until the end or a request to stop.
pub fn train(config: &TrainConfig, requests: &Requests, common: &Common) -> anyhow::Result<Outcome> {
    train_shared(config, requests, common, Rc::new(Single))
}

/// [`train`] of one of the processes that share the run.
fn train_shared(
    config: &TrainConfig,
    requests: &Requests,
    common: &Common,
    ranks: Rc<dyn Collective>,
) -> anyhow::Result<Outcome> {
    let device = agree(&*ranks, open(config, ranks.size(), common))?;
    let mut progress = TrainingProgress::default();
    let outcome = start_or_resume_shared(config, &device, &mut progress, requests, ranks);
    progress.finish();
    Ok(outcome?)
}

/// The device, if training fits into memory.
fn open(config: &TrainConfig, processes: usize, common: &Common) -> anyhow::Result<Device> {
    let device = common.open_device()?;
    let advice = match config.run.activation_checkpointing {
        true => "make data.rows smaller and run.accumulate larger, or the model smaller",
        false => {
            "set run.activation_checkpointing = true, make data.rows smaller and run.accumulate larger, or the model smaller"
        }
    };
    memory::ensure_fits("training", config.memory_bytes_of_each(processes, &device)?, advice, common)?;
    Ok(device)
}

/// Reads the configuration; if only the overrides make it wrong, the error names them instead of blaming the file.
pub fn load(path: &Path, overrides: &[String]) -> anyhow::Result<TrainConfig> {
    blaming(overrides, TrainConfig::load(path, overrides), || TrainConfig::load(path, &[]).is_ok())
}

/// [`load`] with a new model of about `count` parameters.
fn load_sized(
    path: &Path,
    overrides: &[String],
    count: ParameterCount,
) -> anyhow::Result<(TrainConfig, SizedDecoder)> {
    match TrainConfig::load_sized(path, overrides, count) {
        Err(TrainError::Config(error)) => {
            blaming(overrides, Err(error), || TrainConfig::load_sized(path, &[], count).is_ok())
        }
        result => Ok(result?),
    }
}

/// Reads a derived configuration; if the overrides make it wrong, the error names them.
pub fn parse(text: &str, overrides: &[String]) -> anyhow::Result<TrainConfig> {
    blaming(overrides, TrainConfig::parse(text, overrides), || true)
}

/// The result, whose error names the overrides if the configuration `is_fine_without` them.
fn blaming<T>(
    overrides: &[String],
    result: Result<T, ConfigError>,
    is_fine_without: impl FnOnce() -> bool,
) -> anyhow::Result<T> {
    match result {
        Err(error @ ConfigError::Override { .. }) => Err(Usage(error.to_string()).into()),
        Err(error) if !overrides.is_empty() && is_fine_without() => {
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
