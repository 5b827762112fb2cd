//! The command line: what every verb shares, and the verbs.

use std::io::IsTerminal as _;

use andiron_core::{DeviceError, DeviceSpec, Precision};
use anyhow::Context as _;
use burn::tensor::Device;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::exit::{Ending, Usage};
use crate::lines::out;
use crate::{settings, verbs};

/// A language-model workshop: from a pile of text to a model behind an API.
#[derive(Debug, Parser)]
#[command(name = "andiron", version, max_term_width = 110, propagate_version = true)]
pub struct Flags {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Backend to run on, with a device number if it has several devices, as in `wgpu:1`. `andiron doctor` lists the
    /// backends of this build [default: the first of them]
    #[arg(long, global = true, value_name = "BACKEND[:N]", help_heading = "Common options")]
    device: Option<String>,
    /// Compute threads [default: one per logical processor]
    #[arg(long, global = true, value_name = "N", help_heading = "Common options")]
    threads: Option<std::num::NonZeroUsize>,
    /// Print the result as one JSON object on one line of standard output
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
    /// Do not check whether the model, or its training, fits into memory
    #[arg(long, global = true, help_heading = "Common options")]
    pub no_memory_check: bool,
    /// Log level on standard error: off, error, warn, info, debug or trace; or `crate=level` pairs, separated by commas
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Common options"
    )]
    log: String,
    /// Format of log lines: text, or json with one object on each line
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value_t = LogFormat::Text,
        value_enum,
        hide_possible_values = true,
        help_heading = "Common options"
    )]
    log_format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object on each line, with the time.
    Json,
}

// A verb's description is that of its own type: one here would take its place, and its long form would not be shown.
#[derive(Debug, Subcommand)]
enum Verb {
    Quickstart(verbs::quickstart::Quickstart),
    Prepare(verbs::prepare::Prepare),
    #[command(subcommand)]
    Tokenizer(verbs::tokenizer::TokenizerVerb),
    Pretrain(verbs::pretrain::Pretrain),
    Finetune(verbs::finetune::Finetune),
    Evaluate(verbs::evaluate::Evaluate),
    Metric(verbs::metric::MetricVerb),
    Predict(verbs::predict::Predict),
    Generate(verbs::generate::Generate),
    Chat(verbs::chat::Chat),
    Serve(Box<verbs::serve::Serve>),
    Inspect(verbs::inspect::Inspect),
    Export(verbs::export::Export),
    Doctor(verbs::doctor::Doctor),
    #[command(subcommand)]
    Bench(verbs::bench::BenchVerb),
}

/// Reads the command line, with the settings of `serve` from elsewhere, and runs the verb.
pub fn run() -> anyhow::Result<Ending> {
    let args: Vec<_> = std::env::args_os().collect();
    let read = settings::read(Flags::command(), &args, std::env::vars_os());
    // Clap ends the process itself: it knows which messages are help.
    let read =
        read.map_err(|error| error.downcast::<clap::Error>().map_or_else(|other| other, |own| own.exit()))?;
    if let Some(settings) = read.printed {
        out!("{}", settings.trim_end())?;
        return Ok(Ending::Done);
    }
    Flags::from_arg_matches(&read.matches).unwrap_or_else(|error| error.exit()).run()
}

impl Flags {
    /// Runs the verb.
    fn run(self) -> anyhow::Result<Ending> {
        self.common.set_up()?;
        let common = &self.common;
        match self.verb {
            Verb::Quickstart(verb) => verb.run(common),
            Verb::Prepare(verb) => verb.run(common),
            Verb::Tokenizer(verb) => verb.run(common),
            Verb::Pretrain(verb) => verb.run(common),
            Verb::Finetune(verb) => verb.run(common),
            Verb::Evaluate(verb) => verb.run(common),
            Verb::Metric(verb) => verb.run(common),
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
    /// Starts logging, and the thread pool that kernels, loaders and tensors share.
    fn set_up(&self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log)
            .map_err(|error| Usage(format!("--log {:?} is not a filter: {error}", self.log)))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            // It would be logged to standard error, which is what failed.
            .log_internal_errors(false)
            .with_target(false);
        match self.log_format {
            LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).without_time().compact().init(),
            LogFormat::Json => {
                log.json().flatten_event(true).with_current_span(false).with_span_list(false).init()
            }
        }
        let threads = match self.threads {
            Some(threads) => threads.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        // The main thread is part of the pool, so that threads do not outnumber processors. A pool of one gets a thread of its
        // own: a busy main thread would block tasks from other threads.
        let pool = if threads > 1 { pool.use_current_thread() } else { pool };
        pool.build_global().context("cannot start threads")
    }

    /// Threads that the kernels use.
    pub fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    /// `--device`, or the first backend of this build.
    pub fn device_spec(&self) -> anyhow::Result<DeviceSpec> {
        let spec = match &self.device {
            Some(text) => DeviceSpec::parse(text),
            None => DeviceSpec::first_compiled(),
        };
        spec.map_err(usage)
    }

    /// The precision that trains fastest on the device without hurting the loss. GPU backends support f32 only.
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
