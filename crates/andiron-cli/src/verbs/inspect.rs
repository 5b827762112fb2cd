//! `andiron inspect`: summary of a model, and the attention of a text.

mod attention;

use std::path::{Path, PathBuf};

use andiron_models::summary::Summary;
use andiron_models::{AdapterError, AdapterFiles, AnyConfig, ConfigFile};
use anyhow::Context as _;
use attention::AttentionChoice;
use burn::tensor::Device;
use clap::Args;
use serde_json::{Value, json};

use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;
use crate::model::{AdapterChoice, in_adapter, refuse, warn_of_unknown_keys};

/// Bytes per weight at each precision.
const PRECISIONS: &[(&str, f64)] =
    &[("f32", 4.0), ("bf16", 2.0), ("int8", 1.0 + 2.0 / 32.0), ("int4", 0.5 + 2.0 / 32.0)];

/// Show a model's parameters by module, weight memory at each precision, and FLOPs per token
///
/// Loads no weights, except to show the attention of a text.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Model directory in the Hugging Face layout, a GGUF file, or a `config.json`
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    adapter: AdapterChoice,
    /// Fail on unknown keys in the model's configuration files, instead of warning
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    attention: AttentionChoice,
}

impl Inspect {
    /// Reads the configuration and prints the summary.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        if let Some(ending) = self.attention.show(&self.model, &self.adapter, self.strict, common)? {
            return Ok(ending);
        }
        let ConfigFile { config, unknown_keys } =
            match self.model.extension().is_some_and(|extension| extension == "json") {
                true => AnyConfig::read_file(&self.model)?,
                false => AnyConfig::open_file(&self.model)?,
            };
        if self.strict {
            refuse(&unknown_keys, &self.model)?;
        }
        warn_of_unknown_keys(&unknown_keys, &self.model);
        let device = common.open_device()?;
        let adapter = match &self.adapter.path {
            Some(dir) => {
                let files = open_adapter(dir, &config, &device).with_context(|| in_adapter(dir))?;
                if self.strict {
                    refuse(files.unknown_keys(), dir)?;
                }
                Some(files)
            }
            None => None,
        };
        let summary = config.summary(&device);
        let sizes = config.sizes();
        if common.json {
            let parts = summary.parts.iter().map(|part| {
                json!({ "name": part.name, "repeats": part.repeats, "tensors": part.tensors,
                        "parameters": part.parameters })
            });
            let memory = PRECISIONS
                .iter()
                .map(|&(name, bytes)| (name.to_owned(), json!(weight_bytes(&summary, bytes))));
            out!(
                "{}",
                json!({
                    "family": config.family().to_string(),
                    "model_type": config.model_type(),
                    "class": config.class_name(),
                    "vocab_size": sizes.vocab_size,
                    "max_positions": Some(sizes.max_positions).filter(|&longest| longest < usize::MAX),
                    "parameters": summary.parameters,
                    "unknown_keys": unknown_keys.names(),
                    "flops_per_token": summary.flops_per_token(),
                    "weight_bytes": memory.collect::<serde_json::Map<_, _>>(),
                    "parts": parts.collect::<Vec<_>>(),
                    "adapter": adapter.as_ref().map(describe),
                })
            )?;
            return Ok(Ending::Done);
        }
        out!("{} ({}), {}", config.class_name(), config.model_type(), config.family())?;
        let longest = match sizes.max_positions {
            usize::MAX => "texts of any length".to_owned(),
            longest => format!("up to {longest} tokens"),
        };
        out!("vocabulary {}, {longest}", sizes.vocab_size)?;
        out!("")?;
        let width = summary.parts.iter().map(|part| part.name.len()).max().unwrap_or(0).max("part".len());
        out!("{:width$}  {:>7}  {:>7}  {:>13}  {:>6}", "part", "repeats", "tensors", "parameters", "share")?;
        for part in &summary.parts {
            let share = 100.0 * part.parameters as f64 / summary.parameters as f64;
            out!(
                "{:width$}  {:>7}  {:>7}  {:>13}  {share:>5.1}%",
                part.name,
                part.repeats,
                part.tensors,
                part.parameters
            )?;
        }
        out!("{:width$}  {:>7}  {:>7}  {:>13}", "together", "", "", summary.parameters)?;
        out!("")?;
        for &(name, bytes) in PRECISIONS {
            out!("{name:>5} weights  {:>9.1} MB", weight_bytes(&summary, bytes) as f64 / 1e6)?;
        }
        out!("work per token  {:.3} GFLOP, without attention", summary.flops_per_token() as f64 / 1e9)?;
        if let Some(files) = &adapter {
            let (config, n) = (files.config(), files.n_parameters());
            let forms = [(config.dora, ", DoRA"), (config.rslora, ", rsLoRA")];
            let forms: String = forms.iter().filter(|(has, _)| *has).map(|(_, form)| *form).collect();
            let share = 100.0 * n as f64 / summary.parameters as f64;
            out!(
                "adapter         rank {}, alpha {}{forms}: {n} parameters ({share:.1}%) for {} modules",
                config.rank,
                config.alpha,
                files.modules().len()
            )?;
        }
        Ok(Ending::Done)
    }
}

/// Opens an adapter and checks that it is one of the model.
fn open_adapter(dir: &Path, config: &AnyConfig, device: &Device) -> Result<AdapterFiles, AdapterError> {
    let files = AdapterFiles::open(dir)?;
    config.check_adapter(&files, device)?;
    warn_of_unknown_keys(files.unknown_keys(), dir);
    Ok(files)
}

/// An adapter as JSON.
fn describe(files: &AdapterFiles) -> Value {
    let config = files.config();
    json!({
        "rank": config.rank,
        "alpha": config.alpha,
        "dora": config.dora,
        "rslora": config.rslora,
        "base_model": config.base_model,
        "modules": files.modules(),
        "modules_to_save": config.modules_to_save,
        "parameters": files.n_parameters(),
    })
}

/// Memory of the weights. A quantized block of 32 weights has a scale of two bytes.
fn weight_bytes(summary: &Summary, per_element: f64) -> u64 {
    (summary.parameters as f64 * per_element) as u64
}
