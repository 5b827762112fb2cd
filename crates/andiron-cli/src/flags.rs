//! The command line: what every verb shares, and the verbs.

use std::io::IsTerminal as _;

use andiron_core::{DeviceError, DeviceSpec, Precision};
use anyhow::Context as _;
use burn::tensor::Device;
use clap::{Args, Parser, Subcommand};

use crate::exit::{Ending, Usage};
use crate::verbs;

/// A language-model workshop: from a pile of text to a model behind an API.
#[derive(Debug, Parser)]
#[command(name = "andiron", version, max_term_width = 110, propagate_version = true)]
pub struct Flags {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Args)]
pub struct Common {
    /// Where the model runs: a backend of this build (`andiron doctor` lists them), with a device number if the
    /// backend has several devices, as in `wgpu:1` [default: the first backend of this build]
    #[arg(long, global = true, value_name = "BACKEND[:N]", help_heading = "Common options")]
    device: Option<String>,
    /// Threads to compute with [default: one for each processor]
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    threads: Option<std::num::NonZeroUsize>,
    /// Print the result as one JSON object on standard output
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
    /// Go on even if a model, or training it, needs more memory than there is
    #[arg(long, global = true, help_heading = "Common options")]
    pub no_memory_check: bool,
    /// What to log on standard error: off, error, warn, info, debug or trace, or `crate=level` pairs
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Common options"
    )]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// From a text to a model that can be served, in one command: the place to begin
    Quickstart(verbs::quickstart::Quickstart),
    /// Turn text into shards of token ids
    Prepare(verbs::prepare::Prepare),
    /// Train a tokenizer, measure it, or see how it splits a text
    #[command(subcommand)]
    Tokenizer(verbs::tokenizer::TokenizerVerb),
    /// Train a model from random weights as a TOML file says; run again, it resumes
    Pretrain(verbs::pretrain::Pretrain),
    /// Measure a model's loss and perplexity on a text
    Evaluate(verbs::evaluate::Evaluate),
    /// Answer the rows of a JSONL file: continue, score, embed, label, find answers, and more
    Predict(verbs::predict::Predict),
    /// Continue a prompt
    Generate(verbs::generate::Generate),
    /// Talk with a model
    Chat(verbs::chat::Chat),
    /// Serve a model over HTTP with an OpenAI-compatible API and a web page
    Serve(verbs::serve::Serve),
    /// Show what a model is made of: parts, parameters, memory, work per token
    Inspect(verbs::inspect::Inspect),
    /// Write a model in another layout: a Hugging Face directory, or a GGUF file
    Export(verbs::export::Export),
    /// Show what this machine has and what this build uses of it
    Doctor(verbs::doctor::Doctor),
    /// Measure the speed of this build on this machine
    #[command(subcommand)]
    Bench(verbs::bench::BenchVerb),
}

impl Flags {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<Ending> {
        self.common.set_up()?;
        let common = &self.common;
        match self.verb {
            Verb::Quickstart(verb) => verb.run(common),
            Verb::Prepare(verb) => verb.run(common),
            Verb::Tokenizer(verb) => verb.run(common),
            Verb::Pretrain(verb) => verb.run(common),
            Verb::Evaluate(verb) => verb.run(common),
            Verb::Predict(verb) => verb.run(common),
            Verb::Generate(verb) => verb.run(common),
            Verb::Chat(verb) => verb.run(common),
            Verb::Serve(verb) => verb.run(common),
            Verb::Inspect(verb) => verb.run(common),
            Verb::Export(verb) => verb.run(common),
            Verb::Doctor(verb) => verb.run(common),
            Verb::Bench(verb) => verb.run(common),
        }
    }
}

impl Common {
    /// Starts logging and the one thread pool that kernels, loaders and tensors share.
    fn set_up(&self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log)
            .map_err(|error| Usage(format!("--log {:?} is not a filter: {error}", self.log)))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            // Told on standard error, which is where the failure was.
            .log_internal_errors(false)
            .with_target(false)
            .without_time()
            .compact()
            .init();
        let threads = match self.threads {
            Some(threads) => threads.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        // This thread computes, too: with as many others beside it there would be one more than processors. Alone in the
        // pool it would keep those waiting that ask from elsewhere.
        let pool = if threads > 1 { pool.use_current_thread() } else { pool };
        pool.build_global().context("cannot start threads")
    }

    /// Threads that the kernels use.
    pub fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    /// The device asked for, or the first of this build.
    pub fn device_spec(&self) -> anyhow::Result<DeviceSpec> {
        let spec = match &self.device {
            Some(text) => DeviceSpec::parse(text),
            None => DeviceSpec::first_compiled(),
        };
        spec.map_err(usage)
    }

    /// The precision that trains fastest there without harm. GPU backends have no other than f32.
    pub fn fastest_precision(&self) -> anyhow::Result<Precision> {
        match self.device_spec()?.backend.is_cpu() {
            true => Ok(Precision::fastest()),
            false => Ok(Precision::F32),
        }
    }

    /// Opens the device.
    pub fn open_device(&self) -> anyhow::Result<Device> {
        self.device_spec()?.open().map_err(usage)
    }
}

fn usage(error: DeviceError) -> anyhow::Error {
    Usage(error.to_string()).into()
}
