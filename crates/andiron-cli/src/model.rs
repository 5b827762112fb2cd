//! A model with its tokenizer, from a model directory or a GGUF file.

use std::path::Path;

use andiron_data::tokenizer::{ControlTokens, Tokenizer};
use andiron_models::generate::GenerationConfig;
use andiron_models::weights::gguf;
use andiron_models::{
    AnyBundle, AnyConfig, DecoderBundle, EncoderBundle, ModelFiles, RunPrecision, Seq2SeqBundle, UnknownKeys,
};
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
        Ok(self.precision)
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

/// A model, opened, and its tokenizer if there is one.
#[derive(Debug)]
pub struct Opened<B> {
    /// The model.
    pub bundle: B,
    /// Its tokenizer.
    pub tokenizer: Option<Tokenizer>,
}

/// A model of any family.
pub type AnyModel = Opened<AnyBundle>;
/// An encoder.
pub type EncoderModel = Opened<EncoderBundle>;
/// An encoder-decoder.
pub type Seq2SeqModel = Opened<Seq2SeqBundle>;
/// A decoder.
pub type TextModel = Opened<DecoderBundle>;

impl AnyModel {
    /// Opens the model directory or GGUF file `path` on `device`, with weights of f32.
    pub fn open(path: &Path, device: &Device) -> anyhow::Result<Self> {
        Self::of_files(ModelFiles::open(path)?, RunPrecision::F32, device, false)
    }

    /// Opens it to be run as exact as asked for.
    pub fn open_at(path: &Path, choice: RunChoice, common: &Common) -> anyhow::Result<Self> {
        choice.checked(common)?;
        Self::open_files(ModelFiles::open(path)?, choice, common)
    }

    /// The same of files whose configuration has been read.
    pub fn open_files(files: ModelFiles, choice: RunChoice, common: &Common) -> anyhow::Result<Self> {
        let (precision, device) = (choice.checked(common)?, common.open_device()?);
        if choice.strict {
            refuse(&files.config()?.unknown_keys, files.path())?;
        }
        memory::ensure_model_fits(&files, precision, Choice::Precision, common)?;
        Self::of_files(files, precision, &device, choice.strict)
    }

    /// Opens the model and its tokenizer.
    pub fn of_files(
        mut files: ModelFiles,
        precision: RunPrecision,
        device: &Device,
        strict: bool,
    ) -> anyhow::Result<Self> {
        let bundle = AnyBundle::open_files(&mut files, precision, device)?;
        let tokenizer = open_tokenizer(&files, bundle.sizes().vocab_size)?;
        let path = files.path();
        let mut keys = bundle.unknown_keys().clone();
        let settings = tokenizer.as_ref().map(Tokenizer::unread_settings).unwrap_or_default();
        keys.extend(settings.into_iter().map(|key| format!("{key} (tokenizer_config.json)")));
        if strict {
            refuse(&keys, path)?;
        }
        warn_of_unknown_keys(&keys, path);
        Ok(Self { bundle, tokenizer })
    }

    /// How the model's files say that it generates, if it does.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        match &self.bundle {
            AnyBundle::Decoder(bundle) => Some(&bundle.generation),
            AnyBundle::EncoderDecoder(bundle) => Some(&bundle.generation),
            AnyBundle::Classifier(_) | AnyBundle::Encoder(_) => None,
        }
    }

    /// The decoder.
    ///
    /// # Errors
    /// If it is none.
    pub fn decoder(self) -> anyhow::Result<TextModel> {
        match self.bundle {
            AnyBundle::Decoder(bundle) => Ok(Opened { bundle, tokenizer: self.tokenizer }),
            AnyBundle::Classifier(_) => anyhow::bail!(
                "this needs a decoder that predicts tokens; this one labels texts: use the task classify"
            ),
            other => anyhow::bail!(
                "this needs a decoder, such as GPT-2 or Llama; this model is of the family {}",
                other.family()
            ),
        }
    }

    /// The encoder-decoder.
    ///
    /// # Errors
    /// If it is none.
    pub fn encoder_decoder(self) -> anyhow::Result<Seq2SeqModel> {
        match self.bundle {
            AnyBundle::EncoderDecoder(bundle) => Ok(Opened { bundle, tokenizer: self.tokenizer }),
            other => anyhow::bail!(
                "this needs an encoder-decoder, such as T5 or BART; this model is of the family {}",
                other.family()
            ),
        }
    }

    /// The encoder.
    ///
    /// # Errors
    /// If it is none.
    pub fn encoder(self) -> anyhow::Result<EncoderModel> {
        match self.bundle {
            AnyBundle::Encoder(bundle) => Ok(Opened { bundle, tokenizer: self.tokenizer }),
            other => anyhow::bail!(
                "this needs an encoder, such as BERT; this model is of the family {}",
                other.family()
            ),
        }
    }
}

impl TextModel {
    /// Opens a decoder with weights of f32.
    pub fn open(path: &Path, device: &Device) -> anyhow::Result<Self> {
        AnyModel::open(path, device)?.decoder()
    }

    /// Opens a decoder to be run as exact as asked for.
    pub fn open_at(path: &Path, choice: RunChoice, common: &Common) -> anyhow::Result<Self> {
        AnyModel::open_at(path, choice, common)?.decoder()
    }
}

impl<B> Opened<B> {
    /// The same, reading control tokens in prompts as asked for.
    pub fn reading(mut self, choice: PromptChoice) -> Self {
        let read = |tokenizer: Tokenizer| tokenizer.with_control_tokens(choice.control_tokens());
        self.tokenizer = self.tokenizer.map(read);
        self
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If there is none beside the model.
    pub fn tokenizer(&self) -> anyhow::Result<&Tokenizer> {
        self.tokenizer
            .as_ref()
            .context("the model directory has no tokenizer: give token ids instead of text")
    }

    /// The model, and the tokenizer if there is one.
    pub fn into_parts(self) -> (B, Option<Tokenizer>) {
        (self.bundle, self.tokenizer)
    }
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

fn open_tokenizer(files: &ModelFiles, vocab_size: usize) -> anyhow::Result<Option<Tokenizer>> {
    let path = files.path();
    let said = || format!("cannot use the tokenizer in {}", path.display());
    let tokenizer = if Tokenizer::is_in(path) {
        Tokenizer::load(path).with_context(said)?
    } else if let Some(file) = files.gguf() {
        if file.metadata("tokenizer.ggml.tokens").is_none() {
            return Ok(None);
        }
        let json = gguf::tokenizer_json(file).with_context(said)?.to_string();
        Tokenizer::from_contents(json.as_bytes(), gguf::tokenizer_config_json(file)?).with_context(said)?
    } else {
        let found = Tokenizer::unread_files(path);
        if !found.is_empty() {
            note!(
                "warning: {} has no tokenizer.json, and {} cannot be read in its place: texts need one",
                path.display(),
                found.join(", ")
            );
        }
        return Ok(None);
    };
    // It may have more ids than the model: only a text that gives one of them is an error.
    Ok(Some(tokenizer.for_model(vocab_size)))
}
