//! The command line: what every verb shares, and the verbs.

use andiron_core::{DeviceError, DeviceSpec};
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
    /// Where tensors live: a backend of this build, with a device number if it has several, as in `wgpu:1`
    #[arg(long, global = true, value_name = "BACKEND[:N]", help_heading = "Common options")]
    device: Option<String>,
    /// Threads of the CPU kernels; all of the machine's if not given
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    threads: Option<std::num::NonZeroUsize>,
    /// Print the result as JSON on standard output
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
    /// How much to log on standard error: a level, or `target=level` pairs
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
    /// The whole story on one text: tokenizer, training, evaluation, samples, and how to serve the result
    Quickstart(verbs::quickstart::Quickstart),
    /// Turn text into shards of token ids
    Prepare(verbs::prepare::Prepare),
    /// Train or look into a tokenizer
    #[command(subcommand)]
    Tokenizer(verbs::tokenizer::TokenizerVerb),
    /// Train a model as a TOML file says
    Pretrain(verbs::pretrain::Pretrain),
    /// Measure a model's loss on held-out text
    Evaluate(verbs::evaluate::Evaluate),
    /// Answer rows of a JSONL file: score or generate
    Predict(verbs::predict::Predict),
    /// Continue a prompt
    Generate(verbs::generate::Generate),
    /// Serve a model over HTTP with an OpenAI-compatible API and a web page
    Serve(verbs::serve::Serve),
    /// What this machine and this build have
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
            Verb::Serve(verb) => verb.run(common),
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
            .with_target(false)
            .without_time()
            .compact()
            .init();
        let threads = self.threads.map_or(0, usize::from);
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start threads")
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

    /// Opens the device.
    pub fn open_device(&self) -> anyhow::Result<Device> {
        self.device_spec()?.open().map_err(usage)
    }
}

fn usage(error: DeviceError) -> anyhow::Error {
    Usage(error.to_string()).into()
}
