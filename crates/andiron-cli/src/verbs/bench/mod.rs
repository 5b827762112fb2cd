//! `andiron bench`: the speed of this build on this machine.

mod decode;
mod embed;
mod serve;
mod train;
mod translate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use andiron_core::ops::{OpKind, OpTimes, with_op_times};
use andiron_core::{DeviceSpec, Precision};
use andiron_kernels::gemm::{Epilogue, MatRef, matmul};
use andiron_kernels::random::Seed;
use andiron_kernels::{Cpu, Isa};
use andiron_models::hf_config::ConfigError;
use andiron_models::summary::Summary;
use andiron_models::weights::{LoadError, SaveError};
use andiron_models::{
    AdapterError, AnyConfig, DecoderBundle, DecoderConfig, EncoderBundle, EncoderConfig, RunPrecision,
    Seq2SeqBundle, Seq2SeqConfig,
};
use burn::tensor::Device;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;
use crate::machine;
use crate::model::{AdapterChoice, RunChoice, refuse_unknown_keys};

/// Measure the speed of this build on this machine, or of a running server
#[derive(Debug, Subcommand)]
pub enum BenchVerb {
    Train(train::TrainBench),
    Decode(decode::DecodeBench),
    Prefill(decode::PrefillBench),
    Translate(translate::TranslateBench),
    Embed(embed::EmbedBench),
    Serve(serve::ServeBench),
}

impl BenchVerb {
    /// Runs the benchmark.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        match self {
            Self::Train(bench) => bench.run(common),
            Self::Decode(bench) => bench.run(common),
            Self::Prefill(bench) => bench.run(common),
            Self::Translate(bench) => bench.run(common),
            Self::Embed(bench) => bench.run(common),
            Self::Serve(bench) => bench.run(common),
        }
    }
}

/// The model to measure.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true).args(["model", "config"]))]
struct Subject {
    /// Model directory in the Hugging Face layout, or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Hugging Face `config.json` of a model to measure with random weights
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterChoice,
}

/// A model of a family that can be measured.
trait Measured: Sized {
    /// A model with random weights, from a `config.json`.
    fn init(config: &Path, device: &Device) -> Result<Self, ConfigError>;

    fn open_at(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError>;

    fn with_adapter(self, dir: &Path) -> Result<Self, AdapterError>;

    fn save(&self, dir: &Path) -> Result<(), SaveError>;
}

/// Forwards [`Measured`] to what bundles have under the same names.
macro_rules! measured {
    ($($bundle:ident, $config:ident;)+) => {$(
        impl Measured for $bundle {
            fn init(config: &Path, device: &Device) -> Result<Self, ConfigError> {
                Ok(Self::init($config::read(config)?, Seed::new(1), device))
            }

            fn open_at(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
                Self::open_at(path, precision, device)
            }

            fn with_adapter(self, dir: &Path) -> Result<Self, AdapterError> {
                self.with_adapter(dir)
            }

            fn save(&self, dir: &Path) -> Result<(), SaveError> {
                self.save(dir)
            }
        }
    )+};
}
measured! {
    DecoderBundle, DecoderConfig;
    EncoderBundle, EncoderConfig;
    Seq2SeqBundle, Seq2SeqConfig;
}

impl Subject {
    fn open<B: Measured>(&self, choice: RunChoice, device: &Device) -> anyhow::Result<B> {
        self.adapter.apply(self.open_base(choice, device)?, B::with_adapter)
    }

    /// The configuration of the model, of whichever family.
    fn config(&self) -> anyhow::Result<AnyConfig> {
        match (&self.model, &self.config) {
            (Some(dir), _) => Ok(AnyConfig::open(dir)?),
            (None, Some(config)) => Ok(AnyConfig::read(config)?),
            (None, None) => unreachable!("clap asks for one of them"),
        }
    }

    fn open_base<B: Measured>(&self, choice: RunChoice, device: &Device) -> anyhow::Result<B> {
        if let Some(path) = self.model.as_ref().or(self.config.as_ref()) {
            refuse_unknown_keys(path, choice.strict)?;
        }
        let precision = choice.precision;
        match (&self.model, &self.config) {
            (Some(dir), _) => Ok(B::open_at(dir, precision, device)?),
            (None, Some(config)) => {
                let bundle = B::init(config, device)?;
                if precision == RunPrecision::F32 {
                    return Ok(bundle);
                }
                // Weights are converted when they are loaded, so the model is saved and loaded.
                let dir = std::env::temp_dir().join(format!("andiron-bench-{}", std::process::id()));
                let saved = bundle.save(&dir);
                let opened = saved.map(|()| B::open_at(&dir, precision, device));
                std::fs::remove_dir_all(&dir)?;
                Ok(opened??)
            }
            (None, None) => unreachable!("clap asks for one of them"),
        }
    }
}

/// One run: its time, and the time of its operations.
type Measure = (Duration, OpTimes);

/// Runs `work` once.
fn measure(work: impl FnOnce()) -> Measure {
    let start = Instant::now();
    let ((), times) = with_op_times(work);
    (start.elapsed(), times)
}

/// Figures by name, in the order they are printed.
struct Figures(Map<String, Value>);

impl Figures {
    fn new() -> Self {
        Self(Map::new())
    }

    fn number(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), rounded(value));
    }

    /// Adds the time of the median run by type of operation, per unit of the `units` in a run.
    fn operations(&mut self, mut runs: Vec<Measure>, units: f64) {
        runs.sort_by_key(|&(time, _)| time);
        let (time, times) = runs[runs.len() / 2];
        let other = time.saturating_sub(times.total());
        let kinds = OpKind::ALL.map(|kind| (kind.name(), times.of(kind)));
        let rows = kinds.into_iter().chain([("other", other)]).map(|(name, part)| {
            let (ms, share) = (part.as_secs_f64() * 1e3 / units, part.as_secs_f64() / time.as_secs_f64());
            (name.to_owned(), json!({"ms": rounded(ms), "share": rounded(share)}))
        });
        self.0.insert("operations".to_owned(), rows.collect::<Map<_, _>>().into());
    }

    /// Adds the figures common to all benchmarks, and prints. `flops_per_token` counts multiplications and additions; without it
    /// no rate of them is given.
    fn print(
        mut self,
        common: &Common,
        (precision, products): (impl fmt::Display, Precision),
        flops_per_token: impl Into<Option<f64>>,
    ) -> anyhow::Result<Ending> {
        let spec = common.device_spec()?;
        // Before anything below needs memory of its own.
        let peak_rss = machine::peak_rss_bytes();
        let rate = self.0.get("tokens_per_s").and_then(Value::as_f64).unwrap_or(0.0);
        let flops = flops_per_token.into().map(|per_token| rate * per_token);
        if let Some(flops) = flops {
            self.number("flops_per_s", flops);
        }
        if spec.backend.is_cpu() {
            let peak = attainable_flops(common.threads(), products);
            self.number("peak_flops_per_s", peak);
            if let Some(flops) = flops {
                self.number("peak_share", flops / peak);
            }
        } else {
            self.0.insert("peak_share".to_owned(), Value::Null);
            // GPU calls return before the operation has run, so their times mean nothing.
            self.0.remove("operations");
        }
        if let Some(bytes) = peak_rss {
            self.number("peak_rss_mb", bytes as f64 / 1e6);
        }
        let facts = [
            ("backend", json!(spec.backend.name())),
            ("device", json!(device_name(spec))),
            ("precision", json!(precision.to_string())),
            ("threads", json!(common.threads())),
            (
                "kernels",
                json!(if spec.backend.is_cpu() { Isa::best().to_string() } else { "cubecl".to_owned() }),
            ),
        ];
        self.0.extend(facts.map(|(name, value)| (name.to_owned(), value)));
        if common.json {
            out!("{}", Value::Object(self.0))?;
            return Ok(Ending::Done);
        }
        for (name, value) in &self.0 {
            match value {
                Value::Object(_) => {}
                Value::String(text) => out!("{name:>17}  {text}")?,
                other => out!("{name:>17}  {other}")?,
            }
        }
        if let Some(Value::Object(kinds)) = self.0.get("operations") {
            out!("\n{:>17}  {:>10}  {:>6}", "operations", "ms", "share")?;
            for (name, row) in kinds {
                let [ms, share] = ["ms", "share"].map(|figure| row[figure].as_f64().unwrap_or(0.0));
                if ms > 0.0 {
                    out!("{name:>17}  {ms:>10.3}  {:>5.1}%", 100.0 * share)?;
                }
            }
        }
        Ok(Ending::Done)
    }
}

/// Five digits are more than any measurement here is good for.
fn rounded(value: f64) -> Value {
    let digits = 4 - value.abs().max(1e-9).log10().floor() as i32;
    let scale = 10f64.powi(digits);
    json!((value * scale).round() / scale)
}

fn device_name(spec: DeviceSpec) -> String {
    let found = spec.backend.found();
    found.get(spec.index.unwrap_or(0)).cloned().unwrap_or_else(|| spec.to_string())
}

/// What a large matrix product reaches here: the roof that `peak_share` is a share of.
fn attainable_flops(threads: usize, precision: Precision) -> f64 {
    const N: usize = 1024;
    let cpu = Cpu::detect(threads).at(precision);
    let a: Vec<f32> = (0..N * N).map(|at| (at % 7) as f32 - 3.0).collect();
    let mut c = vec![0.0; N * N];
    let best = (0..5).map(|_| {
        let start = Instant::now();
        let matrix = MatRef::row_major(&a, N, N);
        matmul(cpu, matrix, matrix, Epilogue { bias: None, accumulate: false }, &mut c);
        start.elapsed()
    });
    let best = best.min().unwrap_or(Duration::from_secs(1));
    2.0 * (N * N * N) as f64 / best.as_secs_f64()
}

/// The median, in milliseconds.
fn median_ms(times: impl IntoIterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Parameters that take part in a matmul for every token, counted from the shapes.
fn matmul_parameters(bundle: &DecoderBundle) -> f64 {
    Summary::new(&andiron_models::weights::describe(&bundle.model), true).matmul_parameters as f64
}
