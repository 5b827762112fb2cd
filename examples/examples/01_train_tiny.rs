//! Trains a character model on a few pages of a play, in seconds.
//!
//! ```sh
//! cargo run --release -p andiron-examples --example 01_train_tiny
//! ```
//!
//! It tokenizes a text to shards on disk, trains on batches of them, and writes a model directory that `transformers` opens.
//! Interrupt it and run it again: it resumes bit for bit.

use std::fs;
use std::path::Path;

use andiron_core::DeviceSpec;
use andiron_core::Precision;
use andiron_corpus::prepare::{PrepareConfig, PrepareOptions, TokenizerChoice, prepare};
use andiron_data::loader::Order;
use andiron_data::tokenizer::SpecialTokens;
use andiron_models::DecoderConfig;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_training::config::{CheckpointConfig, DataConfig, EvaluateConfig, RunConfig, TrainConfig};
use andiron_training::observe::{Observer, StepRecord};
use andiron_training::optimizer::{OptimizerConfig, ScheduleKind};
use andiron_training::trainer::{Requests, start_or_resume};

/// Prints the progress; the library itself never prints.
struct Losses;

impl Observer for Losses {
    fn on_step(&mut self, record: &StepRecord) {
        if record.step.is_multiple_of(50) {
            println!(
                "step {:>4}  loss {:.3}  {:>6.0} tokens/s",
                record.step, record.loss, record.tokens_per_s
            );
        }
    }
}

fn main() -> anyhow::Result<()> {
    let home = Path::new("runs/example-tiny");
    fs::create_dir_all(home)?;

    // 1. A text: the first pages of the example corpus.
    let play = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/shakespeare.txt"))?;
    let pages: String = play.chars().take(60_000).collect();
    fs::write(home.join("pages.txt"), pages)?;

    // 2. A character vocabulary and the text as ids: nine tenths for training, one for validation. Done once; the second run
    //    reuses the output.
    let data = home.join("data");
    let vocabulary = TokenizerChoice::Characters(SpecialTokens::default());
    let pipeline = PrepareConfig::new(vec![home.join("pages.txt")], data.clone(), vocabulary);
    let report = prepare(&pipeline, &PrepareOptions::default(), &mut |_| ())?;
    println!("{} characters, {} tokens to learn from", report.vocab_size, report.train.stats.tokens);

    // 3. The configuration of model and training. A run is a function of these values, the seed and the data.
    let model = Gpt2Config { n_layer: 2, n_embd: 64, n_head: 4, ..Gpt2Config::nano(report.vocab_size) };
    let config = TrainConfig {
        run: RunConfig {
            output: home.join("run"),
            seed: 1,
            steps: Some(400),
            epochs: None,
            accumulate: 1,
            log_every: 1,
            activation_checkpointing: false,
            precision: Precision::fastest(),
        },
        data: DataConfig {
            valid: Some(data.join("valid")),
            tokenizer: Some(data.join("tokenizer")),
            context: Some(model.n_positions),
            order: Order::Windows,
            ..DataConfig::new(data.join("train"), 16)
        },
        init: None,
        model: Some(DecoderConfig::Gpt2(model).into()),
        objective: None,
        adapter: None,
        optimizer: OptimizerConfig {
            schedule: ScheduleKind::Cosine,
            min_lr: 3e-4,
            warmup_steps: 20,
            ..OptimizerConfig::constant(3e-3)
        },
        checkpoint: CheckpointConfig { every: 100, keep_last: 2, keep_best: false },
        evaluate: EvaluateConfig::default(),
    };

    // 4. The program, not the library, chooses the device. `stop` would be set by a signal handler.
    let device = DeviceSpec::first_compiled()?.open()?;
    let outcome = start_or_resume(&config, &device, &mut Losses, &Requests::default())?;

    if let Some(valid) = outcome.valid {
        let bits = valid.metric("bits_per_token").unwrap_or(f64::NAN);
        println!("validation loss {:.3}, {bits:.3} bits a character", valid.loss);
    }
    if let Some(dir) = outcome.model {
        println!("the model is in {}; 02_generate continues texts with it", dir.display());
    }
    Ok(())
}
