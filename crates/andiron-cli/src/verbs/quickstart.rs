//! `andiron quickstart`: train and evaluate a small model on a text, in one command.

use std::fs;
use std::path::{Path, PathBuf};

use andiron_core::Precision;
use andiron_corpus::prepare::{
    Existing, PrepareConfig, PrepareError, PrepareReport, Split, SplitBy, TokenizerChoice,
};
use andiron_data::loader::Order;
use andiron_data::source::{self, SourceOptions};
use andiron_data::tokenizer::SpecialTokens;
use andiron_models::DecoderConfig;
use andiron_models::bundle::Ids;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::decoder::qwen3::Qwen3Config;
use andiron_models::generate::{GenerateOptions, SamplingParams, WhenFull};
use andiron_models::hf_config::Activation;
use andiron_pipelines::GenerateRequest;
use andiron_training::config::{CheckpointConfig, DataConfig, EvaluateConfig, RunConfig, TrainConfig};
use andiron_training::optimizer::{MuonConfig, OptimizerConfig, OptimizerKind, ScheduleKind};
use andiron_training::trainer::{Status, TrainError};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{prepare, pretrain};
use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::{note, out};
use crate::model;
use crate::program::{Program, beginning, in_quotes, quoted};
use crate::stop;

/// Shakespeare's plays; see `examples/data/README.md` for where they come from.
const SHAKESPEARE: &str = include_str!("../../../../examples/data/shakespeare.txt");

const SAMPLES: u64 = 2;
const SAMPLE_TOKENS: usize = 300;

/// Train a small model on a text and evaluate it, in one command: start here
///
/// Makes a tokenizer, trains, evaluates, prints samples, and shows the command that serves the result.
///
/// The model predicts characters. The default text is a shipped selection of Shakespeare's plays; the default recipe takes about two
/// minutes on two cores. If interrupted, it saves a checkpoint; the same command resumes.
#[derive(Debug, Args)]
pub struct Quickstart {
    /// Plain text file to train on [default: the shipped plays]
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Output directory [default: runs/quickstart, or runs/quickstart-NAME for the corpus NAME.txt]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Model and training settings
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    recipe: Recipe,
    /// Optimizer steps [default: 1500 for two-minutes, 2000 for nanogpt]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Random seed of the initial weights, the order of the data, and the samples
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u64,
    /// Delete what an earlier quickstart wrote to the output directory, and start over
    #[arg(long)]
    restart: bool,
}

/// What `--recipe` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Recipe {
    /// The best model for two minutes on two cores: Qwen 3 architecture, 4 layers, d_model 160, context 256 characters, Muon
    #[default]
    TwoMinutes,
    /// nanoGPT's small CPU model: GPT-2 architecture, 4 layers, d_model 128, context 64 characters, AdamW
    Nanogpt,
}

impl Recipe {
    /// Optimizer steps.
    fn steps(self) -> u64 {
        match self {
            Self::TwoMinutes => 1500,
            Self::Nanogpt => 2000,
        }
    }
}

/// Validation loss of nanoGPT's recipe on the shipped text; see `benches/RESULTS.md`.
const NANOGPT_LOSS: f64 = 1.87;

impl Quickstart {
    /// Trains, evaluates and reports.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        common.open_device()?;
        let output = self.output();
        let (data, run) = (output.join("data"), output.join("run"));
        if self.restart {
            remove(&data)?;
            remove(&run)?;
        }
        let corpus = self.corpus(&output)?;

        note!("1. a character tokenizer and two datasets from {}", corpus.display());
        let report = prepare::run(&prepare_config(corpus.clone(), &data), Existing::Refuse, common)
            .map_err(|error| self.other_quickstart(error, &output))?;
        let train = report.train.stats.tokens;
        let valid = report.valid.as_ref().map_or(0, |valid| valid.stats.tokens);
        note!("   {} characters, {train} tokens to learn from, {valid} held out", report.vocab_size);

        let precision = common.fastest_precision()?;
        let config = self.config(&report, &data, (&run, precision));
        if let Some(context) = config.data.context {
            ensure_long_enough(&corpus, train.min(valid), context)?;
        }

        note!("2. training on {}, matmuls in {precision}", common.device_spec()?);
        let requests = stop::on_signal()?;
        let outcome = pretrain::train(&config, &requests, common)
            .map_err(|error| self.other_quickstart(error, &output))?;
        if outcome.status == Status::Interrupted {
            return pretrain::ending(&outcome, &config);
        }
        let loss = outcome.valid.clone().context("the held-out part was not measured")?;
        let dir = outcome.model.clone().context("the final model was not written")?;

        note!("3. evaluation over all {} held-out tokens, and samples", loss.n_targets);
        let samples = self.samples(&dir, common)?;
        if common.json {
            let result = json!({
                "validation_loss": loss.loss, "bits_per_token": loss.metric("bits_per_token"), "steps": outcome.step,
                "tokens": outcome.tokens, "model": dir, "samples": samples,
            });
            out!("{result}")?;
        } else {
            out!("validation loss {:.4}{}", loss.loss, self.beside())?;
            for sample in &samples {
                out!("\n--- a sample ---\n{sample}")?;
            }
            out!("\nThe model is in {}, in the Hugging Face layout.", dir.display())?;
            let (program, model) = (Program::of(common)?, format!("--model {}", quoted(&dir)));
            out!("Serve it:     {}", program.line("serve", &model))?;
            let prompt = in_quotes(&self.prompt(&corpus)?);
            out!("Continue it:  {} {prompt}", program.line("generate", &model))?;
        }
        pretrain::ending(&outcome, &config)
    }

    /// What the loss is to be compared with, where that is known.
    fn beside(&self) -> String {
        match (&self.corpus, self.steps, self.recipe) {
            (None, None, Recipe::TwoMinutes) => format!(" (nanoGPT's recipe for a CPU: {NANOGPT_LOSS})"),
            _ => String::new(),
        }
    }

    fn output(&self) -> PathBuf {
        let name = || match self.corpus.as_ref().and_then(|path| path.file_stem()) {
            Some(stem) => format!("quickstart-{}", stem.to_string_lossy()),
            None => "quickstart".to_owned(),
        };
        self.output.clone().unwrap_or_else(|| Path::new("runs").join(name()))
    }

    /// The text to learn from; the shipped one is written beside what is made of it.
    fn corpus(&self, output: &Path) -> anyhow::Result<PathBuf> {
        if let Some(corpus) = &self.corpus {
            return Ok(corpus.clone());
        }
        fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
        let path = output.join("shakespeare.txt");
        andiron_files::replace(&path, SHAKESPEARE.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Says in this verb's words what to do when the output holds the work of another quickstart.
    fn other_quickstart(&self, error: anyhow::Error, output: &Path) -> anyhow::Error {
        let prepared = matches!(error.downcast_ref(), Some(PrepareError::Exists { .. }));
        let trained = matches!(error.downcast_ref(), Some(TrainError::Mismatch { .. }));
        if prepared || trained {
            error.context(format!(
                "{} holds another quickstart; give another --output, or throw that one away with --restart",
                output.display()
            ))
        } else {
            error
        }
    }

    /// The recipe as a configuration.
    ///
    /// Source of nanoGPT's: <https://github.com/karpathy/nanoGPT>, README, "I only have a macbook" and
    /// `config/train_shakespeare_char.py`.
    fn config(
        &self,
        report: &PrepareReport,
        data: &Path,
        (run, precision): (&Path, Precision),
    ) -> TrainConfig {
        let steps = self.steps.unwrap_or(self.recipe.steps());
        let (model, context, rows, optimizer) = match self.recipe {
            Recipe::TwoMinutes => {
                let model = DecoderConfig::Qwen3(two_minutes(report.vocab_size));
                let muon = MuonConfig { lr: Some(6e-3), ..MuonConfig::default() };
                let optimizer = OptimizerConfig {
                    kind: OptimizerKind::Muon,
                    schedule: ScheduleKind::Linear,
                    weight_decay: 0.3,
                    muon: Some(muon),
                    ..OptimizerConfig::constant(3e-3)
                };
                (model, CONTEXT, 6, optimizer)
            }
            Recipe::Nanogpt => {
                let model = Gpt2Config::nano(report.vocab_size);
                let context = model.n_positions;
                let optimizer = OptimizerConfig {
                    schedule: ScheduleKind::Cosine,
                    min_lr: 1e-4,
                    ..OptimizerConfig::constant(1e-3)
                };
                (DecoderConfig::Gpt2(model), context, 12, optimizer)
            }
        };
        TrainConfig {
            run: RunConfig {
                output: run.to_owned(),
                seed: self.seed,
                steps: Some(steps),
                epochs: None,
                accumulate: 1,
                log_every: 1,
                precision,
                activation_checkpointing: false,
            },
            data: DataConfig {
                valid: Some(data.join("valid")),
                tokenizer: Some(data.join("tokenizer")),
                context: Some(context),
                order: Order::Windows,
                ..DataConfig::new(data.join("train"), rows)
            },
            optimizer: OptimizerConfig { warmup_steps: 100.min(steps / 2), ..optimizer },
            checkpoint: CheckpointConfig { every: 500, keep_last: 2, keep_best: false },
            evaluate: EvaluateConfig {
                every: 500,
                rows: 64,
                max_windows: Some(64),
                ..EvaluateConfig::default()
            },
            init: None,
            model: Some(model.into()),
            adapter: None,
            objective: None,
        }
    }

    fn samples(&self, dir: &Path, common: &Common) -> anyhow::Result<Vec<String>> {
        let model = model::open(dir, &common.open_device()?)?.decoder()?;
        // A text without line ends: any character of it will do.
        let prompt = model.prompt_ids(&"\n".into()).unwrap_or_else(|_| vec![0]);
        let sample = |number| {
            let sampling = SamplingParams {
                temperature: 0.8,
                seed: self.seed.wrapping_add(number),
                ..SamplingParams::default()
            };
            let options = GenerateOptions {
                sampling,
                max_new_tokens: SAMPLE_TOKENS,
                when_full: WhenFull::Slide,
                ..GenerateOptions::default()
            };
            let request = GenerateRequest { prompt: prompt.clone(), options, stops: None };
            Ok(model.generate(request, |_| ())?.text.trim().to_owned())
        };
        (0..SAMPLES).map(sample).collect()
    }

    /// A beginning that suits the text: its own, or that of a speech of the shipped plays.
    fn prompt(&self, corpus: &Path) -> anyhow::Result<String> {
        if self.corpus.is_none() {
            return Ok("ROMEO:".to_owned());
        }
        let first = source::open(corpus, &SourceOptions::default())?.next().transpose()?;
        Ok(first.map(|document| beginning(&document.text).to_owned()).unwrap_or_default())
    }
}

/// Characters that the first recipe's model reads at a time.
const CONTEXT: usize = 256;

/// Rotary positions, RMS norms, gates, and normed queries and keys: at this size they learn from half as many tokens.
fn two_minutes(vocab_size: usize) -> Qwen3Config {
    Qwen3Config {
        vocab_size,
        hidden_size: 160,
        intermediate_size: 448,
        num_hidden_layers: 4,
        num_attention_heads: 5,
        num_key_value_heads: Some(5),
        head_dim: 32,
        hidden_act: Activation::Silu,
        max_position_embeddings: CONTEXT,
        initializer_range: 0.02,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        attention_bias: false,
        attention_dropout: 0.0,
        use_sliding_window: false,
        sliding_window: Some(4096),
        max_window_layers: 4,
        layer_types: None,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_id: Ids::default(),
    }
}

/// Training and evaluation both need a window of text and the character after it.
fn ensure_long_enough(corpus: &Path, shorter: u64, context: usize) -> anyhow::Result<()> {
    let needed = context as u64 + 1;
    anyhow::ensure!(
        shorter >= needed,
        "{} is too short: its held-out tenth has {shorter} characters and the model reads {needed} at a time; \
         give a text of at least {} characters",
        corpus.display(),
        10 * needed
    );
    Ok(())
}

fn prepare_config(corpus: PathBuf, data: &Path) -> PrepareConfig {
    let characters = TokenizerChoice::Characters(SpecialTokens::default());
    PrepareConfig {
        split: Split { fraction: 0.1, by: SplitBy::Characters },
        ..PrepareConfig::new(vec![corpus], data.to_owned(), characters)
    }
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
