//! A model with its tokenizer, from a model directory or a GGUF file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use andiron_core::KvCacheDtype;
use andiron_data::tokenizer::{ControlTokens, Tokenizer};
use andiron_models::generate::GenerationConfig;
use andiron_models::{AdapterFiles, AnyConfig, ModelFiles, RunPrecision, UnknownKeys};
use andiron_pipelines::Pipeline;
use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;

use crate::flags::Common;
use crate::lines::note;
use crate::memory::{self, Choice};

/// The model to run.
#[derive(Clone, Debug, Args)]
pub struct ModelChoice {
    /// Model directory in the Hugging Face layout, or a GGUF file
    #[arg(id = "model", long = "model", value_name = "DIR")]
    pub path: PathBuf,
    #[command(flatten)]
    pub adapter: AdapterChoice,
}

/// An adapter of the model.
#[derive(Clone, Debug, Default, Args)]
pub struct AdapterChoice {
    /// Directory of a LoRA adapter of the model, as peft writes it. The model itself may be quantized
    #[arg(id = "adapter", long = "adapter", value_name = "DIR")]
    pub path: Option<PathBuf>,
}

impl AdapterChoice {
    /// Adds the adapter, if there is one, to a model.
    pub fn apply<M, E>(&self, model: M, add: impl FnOnce(M, &Path) -> Result<M, E>) -> anyhow::Result<M>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        match &self.path {
            Some(dir) => add(model, dir).with_context(|| in_adapter(dir)),
            None => Ok(model),
        }
    }

    /// Configuration of the model with the head that the adapter was trained with, if the adapter brings one.
    pub fn model_config(&self) -> anyhow::Result<Option<AnyConfig>> {
        let Some(dir) = &self.path else { return Ok(None) };
        let files = AdapterFiles::open(dir).with_context(|| in_adapter(dir))?;
        Ok(files.model_config().cloned())
    }
}

/// What an error of an adapter is about.
pub fn in_adapter(dir: &Path) -> String {
    format!("cannot use the adapter {}", dir.display())
}

/// The precision of weights, matmuls and the KV cache.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct RunChoice {
    /// Precision of weights and matmuls: f32; mixed (weights f32, operands of large matmuls bf16); bf16 (weights bf16, too); int8
    /// or int4 (weights quantized to 8 or 4 bits). Fewer bits take less memory and decode faster. With bf16, int8 and int4,
    /// quantized weights of a GGUF file are used as stored. All but f32 need a CPU backend
    #[arg(long, value_name = "PRECISION", default_value_t = RunPrecision::F32)]
    pub precision: RunPrecision,
    /// Element type of the KV cache, which holds the keys and values of past tokens: f32; bf16 (half the memory, and faster
    /// decoding of long texts; needs a CPU backend); or auto (f32 with --precision f32, else bf16)
    #[arg(long, value_name = "DTYPE", default_value_t = KvCacheChoice::Auto)]
    pub kv_cache_dtype: KvCacheChoice,
    /// Fail on unknown keys in the model's configuration files, instead of warning
    #[arg(long)]
    pub strict: bool,
}

impl RunChoice {
    /// The precision, checked against the device.
    ///
    /// # Errors
    /// If the device supports f32 only.
    pub fn checked(self, common: &Common) -> anyhow::Result<RunPrecision> {
        let spec = common.device_spec()?;
        anyhow::ensure!(
            self.precision == RunPrecision::F32 || spec.backend.is_cpu(),
            "--precision {} runs on the backends ndarray and flex; {spec} runs f32",
            self.precision
        );
        anyhow::ensure!(
            self.kv_cache_dtype != KvCacheChoice::Of(KvCacheDtype::Bf16) || spec.backend.is_cpu(),
            "--kv-cache-dtype bf16 runs on the backends ndarray and flex; {spec} keeps f32"
        );
        Ok(self.precision)
    }

    /// The element type of the KV cache.
    pub fn kv_cache_dtype(self) -> KvCacheDtype {
        match self.kv_cache_dtype {
            KvCacheChoice::Auto => self.precision.kv_cache_dtype(),
            KvCacheChoice::Of(dtype) => dtype,
        }
    }
}

/// The element type of the KV cache, on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvCacheChoice {
    /// Follows the precision.
    #[default]
    Auto,
    /// This.
    Of(KvCacheDtype),
}

impl fmt::Display for KvCacheChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Of(dtype) => dtype.fmt(f),
        }
    }
}

impl FromStr for KvCacheChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            _ => match name.parse() {
                Ok(dtype) => Ok(Self::Of(dtype)),
                Err(_) => Err(format!("{name:?} is no element type of a KV cache: choose auto, f32 or bf16")),
            },
        }
    }
}

/// How control tokens in a raw prompt are tokenized.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct PromptChoice {
    /// Tokenize control tokens that are spelled out in the text, such as <|im_start|>, as ordinary text. By default they become
    /// the control tokens themselves, as in transformers, vLLM and llama.cpp
    #[arg(long)]
    no_parse_special: bool,
}

impl PromptChoice {
    /// The tokenizer's setting.
    pub fn control_tokens(self) -> ControlTokens {
        if self.no_parse_special { ControlTokens::AsText } else { ControlTokens::Parsed }
    }
}

/// Opens the model directory or GGUF file `path` on `device`, in f32.
pub fn open(path: &Path, device: &Device) -> anyhow::Result<Pipeline> {
    open_f32(ModelFiles::open(path)?, &AdapterChoice::default(), device)
}

/// Opens a model whose configuration has been read, in f32.
pub fn open_f32(files: ModelFiles, adapter: &AdapterChoice, device: &Device) -> anyhow::Result<Pipeline> {
    warned(files, adapter, RunPrecision::F32, device, false)
}

/// Opens a model, and its adapter, in the chosen precision.
pub fn open_at(model: &ModelChoice, choice: RunChoice, common: &Common) -> anyhow::Result<Pipeline> {
    // A device that does not exist is told before a model that does not.
    choice.checked(common)?;
    common.open_device()?;
    open_files(ModelFiles::open(&model.path)?, &model.adapter, choice, common)
}

/// Opens a model whose configuration has been read, in the chosen precision.
pub fn open_files(
    files: ModelFiles,
    adapter: &AdapterChoice,
    choice: RunChoice,
    common: &Common,
) -> anyhow::Result<Pipeline> {
    let (precision, device) = (choice.checked(common)?, common.open_device()?);
    if choice.strict {
        refuse(&files.config()?.unknown_keys, files.path())?;
    }
    memory::ensure_model_fits(&files, precision, Choice::Precision, common)?;
    let model = warned(files, adapter, precision, &device, choice.strict)?;
    let bundle = model.bundle.with_kv_cache_dtype(choice.kv_cache_dtype());
    Ok(Pipeline { bundle, ..model })
}

/// Opens a model. Warns of unknown keys in its files, or refuses it if `strict`.
fn warned(
    files: ModelFiles,
    adapter: &AdapterChoice,
    precision: RunPrecision,
    device: &Device,
    strict: bool,
) -> anyhow::Result<Pipeline> {
    let path = files.path().to_owned();
    let path = path.as_path();
    let model = Pipeline::open_files(files, precision, device)?;
    let model = adapter.apply(model, Pipeline::with_adapter)?;
    let found = match model.text.tokenizer() {
        None if path.is_dir() => Tokenizer::unread_files(path),
        _ => Vec::new(),
    };
    if !found.is_empty() {
        note!(
            "warning: {} has no tokenizer.json, and {} cannot be read in its place: texts need one",
            path.display(),
            found.join(", ")
        );
    }
    let keys = model.unknown_keys();
    if strict {
        refuse(&keys, path)?;
    }
    warn_of_unknown_keys(&keys, path);
    Ok(model)
}

/// Refuses a model with unknown configuration keys, if `strict`. Reads no weights.
pub fn refuse_unknown_keys(path: &Path, strict: bool) -> anyhow::Result<()> {
    if strict {
        let keys = match path.extension().is_some_and(|extension| extension == "json") {
            true => AnyConfig::read_file(path)?.unknown_keys,
            false => AnyConfig::open_file(path)?.unknown_keys,
        };
        refuse(&keys, path)?;
    }
    Ok(())
}

/// Refuses unknown keys.
pub fn refuse(keys: &UnknownKeys, path: &Path) -> anyhow::Result<()> {
    keys.refuse().with_context(|| format!("--strict: cannot use {}", path.display()))
}

/// One warning for all unknown keys of a configuration.
pub fn warn_of_unknown_keys(keys: &UnknownKeys, path: &Path) {
    if !keys.is_empty() {
        tracing::warn!(
            "the configuration of {} has keys that nothing reads, so they change nothing: {keys} (--strict refuses them)",
            path.display()
        );
    }
}

/// Warns if the model's files ask for beam search, which only `predict` does.
pub fn warn_of_beams(files: &GenerationConfig) {
    if files.num_beams.is_some_and(|beams| beams > 1) {
        tracing::warn!(
            "generation_config.json asks for beam search (num_beams), which only predict does; here it is not used"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_rounded_with_what_is_rounded_or_as_asked() {
        let dtype = |precision, kv_cache_dtype: &str| {
            let kv_cache_dtype = kv_cache_dtype.parse().unwrap();
            RunChoice { precision, kv_cache_dtype, strict: false }.kv_cache_dtype().to_string()
        };
        assert_eq!(dtype(RunPrecision::F32, "auto"), "f32");
        assert_eq!(dtype(RunPrecision::Mixed, "auto"), "bf16");
        assert_eq!(dtype(RunPrecision::Int4, "auto"), "bf16");
        assert_eq!(dtype(RunPrecision::Int4, "f32"), "f32");
        assert_eq!(dtype(RunPrecision::F32, "bf16"), "bf16");
        let error = "fp8".parse::<KvCacheChoice>().unwrap_err();
        assert_eq!(error, "\"fp8\" is no element type of a KV cache: choose auto, f32 or bf16");
        assert_eq!(KvCacheChoice::default().to_string().parse(), Ok(KvCacheChoice::Auto));
    }
}
