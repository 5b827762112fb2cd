//! A model with its tokenizer, from a model directory or a GGUF file.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use andiron_core::KvCacheDtype;
use andiron_data::tokenizer::{ControlTokens, Tokenizer};
use andiron_models::generate::GenerationConfig;
use andiron_models::{AnyConfig, ModelFiles, RunPrecision, UnknownKeys};
use andiron_pipelines::Pipeline;
use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;

use crate::flags::Common;
use crate::lines::note;
use crate::memory::{self, Choice};

/// How exact a model is run.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct RunChoice {
    /// How exact the model is run: f32, mixed (products of bf16), bf16, int8 or int4 (weights in so many bits, which are
    /// read the faster; blocks of a GGUF file stay as they are). All but f32 on the CPU only
    #[arg(long, value_name = "PRECISION", default_value_t = RunPrecision::F32)]
    pub precision: RunPrecision,
    /// What keys and values of past tokens are kept in: f32, bf16 (half the memory, and long texts go on faster; on the CPU
    /// only), or auto: f32 with --precision f32, else bf16
    #[arg(long, value_name = "DTYPE", default_value_t = KvCacheChoice::Auto)]
    pub kv_cache_dtype: KvCacheChoice,
    /// Refuse a model whose configuration has keys that nothing reads, instead of warning of them
    #[arg(long)]
    pub strict: bool,
}

impl RunChoice {
    /// The precision.
    ///
    /// # Errors
    /// If the device has no other than f32.
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

    /// What keys and values are kept in.
    pub fn kv_cache_dtype(self) -> KvCacheDtype {
        match self.kv_cache_dtype {
            KvCacheChoice::Auto => self.precision.kv_cache_dtype(),
            KvCacheChoice::Of(dtype) => dtype,
        }
    }
}

/// What keys and values of past tokens are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvCacheChoice {
    /// What goes with the precision.
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

/// How the control tokens in a raw prompt are read.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct PromptChoice {
    /// Read control tokens in the text, such as <|im_start|>, as ordinary text; without this they are the control tokens
    /// that they spell, as in transformers, vLLM and llama.cpp
    #[arg(long)]
    no_parse_special: bool,
}

impl PromptChoice {
    /// The same for a tokenizer.
    pub fn control_tokens(self) -> ControlTokens {
        if self.no_parse_special { ControlTokens::AsText } else { ControlTokens::Parsed }
    }
}

/// Opens the model directory or GGUF file `path` on `device`, in f32.
pub fn open(path: &Path, device: &Device) -> anyhow::Result<Pipeline> {
    open_f32(ModelFiles::open(path)?, device)
}

/// Opens a model whose configuration has been read, in f32.
pub fn open_f32(files: ModelFiles, device: &Device) -> anyhow::Result<Pipeline> {
    warned(files, RunPrecision::F32, device, false)
}

/// Opens the model directory or GGUF file `path` in the chosen precision.
pub fn open_at(path: &Path, choice: RunChoice, common: &Common) -> anyhow::Result<Pipeline> {
    // A device that does not exist is told before a model that does not.
    choice.checked(common)?;
    common.open_device()?;
    open_files(ModelFiles::open(path)?, choice, common)
}

/// Opens a model whose configuration has been read, in the chosen precision.
pub fn open_files(files: ModelFiles, choice: RunChoice, common: &Common) -> anyhow::Result<Pipeline> {
    let (precision, device) = (choice.checked(common)?, common.open_device()?);
    if choice.strict {
        refuse(&files.config()?.unknown_keys, files.path())?;
    }
    memory::ensure_model_fits(&files, precision, Choice::Precision, common)?;
    let model = warned(files, precision, &device, choice.strict)?;
    let bundle = model.bundle.with_kv_cache_dtype(choice.kv_cache_dtype());
    Ok(Pipeline { bundle, ..model })
}

/// Opens a model, and warns of what nothing reads of its files, or refuses it.
fn warned(
    files: ModelFiles,
    precision: RunPrecision,
    device: &Device,
    strict: bool,
) -> anyhow::Result<Pipeline> {
    let path = files.path().to_owned();
    let path = path.as_path();
    let model = Pipeline::open_files(files, precision, device)?;
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

/// Refuses a model whose configuration has keys that nothing reads, if `strict`; no weight is read.
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

/// Refuses keys that nothing reads.
pub fn refuse(keys: &UnknownKeys, path: &Path) -> anyhow::Result<()> {
    keys.refuse().with_context(|| format!("--strict: cannot use {}", path.display()))
}

/// One warning for all keys of a configuration that nothing reads.
pub fn warn_of_unknown_keys(keys: &UnknownKeys, path: &Path) {
    if !keys.is_empty() {
        tracing::warn!(
            "the configuration of {} has keys that nothing reads, so they change nothing: {keys} (--strict refuses them)",
            path.display()
        );
    }
}

/// Tells of a search that a model's files ask for and that only `predict` makes.
pub fn warn_of_beams(files: &GenerationConfig) {
    if files.num_beams.is_some_and(|beams| beams > 1) {
        tracing::warn!(
            "generation_config.json asks for a search of several beams, which predict makes; here one text is followed"
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
