//! A model with its tokenizer and the settings of its directory.

use std::path::Path;

use andiron_data::tokenizer::{ControlTokens, Tokenizer, TokenizerError};
use andiron_models::generate::GenerationConfig;
use andiron_models::weights::LoadError;
use andiron_models::weights::gguf::{self, GgufError};
use andiron_models::{
    AdapterError, AnyBundle, ClassifierBundle, DecoderBundle, EncoderBundle, Family, ModelFiles,
    RunPrecision, Seq2SeqBundle, UnknownKeys,
};
use burn::tensor::Device;

use crate::TextProcessor;

/// A model and its text processor.
#[derive(Clone, Debug)]
pub struct Pipeline<B = AnyBundle> {
    /// The model.
    pub bundle: B,
    /// Its tokenizer, end ids and grammar vocabulary.
    pub text: TextProcessor,
}

/// A decoder.
pub type DecoderPipeline = Pipeline<DecoderBundle>;
/// An encoder.
pub type EncoderPipeline = Pipeline<EncoderBundle>;
/// An encoder-decoder.
pub type Seq2SeqPipeline = Pipeline<Seq2SeqBundle>;
/// A decoder with a text classification head.
pub type ClassifierPipeline = Pipeline<ClassifierBundle>;

/// What a pipeline needs of a model.
pub trait ModelBundle {
    /// The model's `generation_config.json`, if it generates.
    fn generation(&self) -> Option<&GenerationConfig>;
}

impl ModelBundle for DecoderBundle {
    fn generation(&self) -> Option<&GenerationConfig> {
        Some(&self.generation)
    }
}

impl ModelBundle for Seq2SeqBundle {
    fn generation(&self) -> Option<&GenerationConfig> {
        Some(&self.generation)
    }
}

impl ModelBundle for EncoderBundle {
    fn generation(&self) -> Option<&GenerationConfig> {
        None
    }
}

impl ModelBundle for ClassifierBundle {
    fn generation(&self) -> Option<&GenerationConfig> {
        None
    }
}

impl ModelBundle for AnyBundle {
    fn generation(&self) -> Option<&GenerationConfig> {
        match self {
            Self::Decoder(bundle) => bundle.generation(),
            Self::Classifier(bundle) => bundle.generation(),
            Self::Encoder(bundle) => bundle.generation(),
            Self::EncoderDecoder(bundle) => bundle.generation(),
        }
    }
}

/// Why a pipeline does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tokenizer cannot be loaded.
    #[error("cannot use the tokenizer in {}", path.display())]
    Tokenizer {
        /// Where it is.
        path: std::path::PathBuf,
        /// Cause.
        source: TokenizerError,
    },
    /// The vocabulary of a GGUF file cannot be used.
    #[error("cannot use the tokenizer in {}", path.display())]
    GgufTokenizer {
        /// The file.
        path: std::path::PathBuf,
        /// Cause.
        source: GgufError,
    },
}

/// Why a model cannot run a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FamilyError {
    /// It classifies texts.
    #[error("this needs a decoder that predicts tokens; this one labels texts: use the task classify")]
    LabelsTexts,
    /// It is of another family.
    #[error("this needs {wanted}; this model is of the family {found}")]
    Other {
        /// What is needed.
        wanted: &'static str,
        /// The model's family.
        found: Family,
    },
}

impl<B: ModelBundle> Pipeline<B> {
    /// A model with its tokenizer, if it has one.
    pub fn new(bundle: B, tokenizer: Option<Tokenizer>) -> Self {
        let end_ids = bundle.generation().map(|files| files.eos_token_id.as_slice().to_vec());
        Self { text: TextProcessor::new(tokenizer, end_ids.unwrap_or_default()), bundle }
    }

    /// The model's `generation_config.json`, if it generates.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        self.bundle.generation()
    }
}

impl<B> Pipeline<B> {
    /// The end ids: `eos_token_id` of `generation_config.json`, or of `config.json` without that file. Empty for a model
    /// that does not generate.
    pub fn end_ids(&self) -> &[u32] {
        self.text.end_ids()
    }

    /// The same, with this handling of control tokens in raw prompts.
    #[must_use]
    pub fn with_control_tokens(self, control: ControlTokens) -> Self {
        Self { text: self.text.with_control_tokens(control), ..self }
    }
}

impl Pipeline {
    /// Opens a model directory or a `.gguf` file on `device`, to run at `precision`.
    ///
    /// A model without a tokenizer opens too; it takes token ids instead of text.
    ///
    /// # Errors
    /// If a file of the model or its tokenizer is missing, malformed or too new, or if they do not belong together.
    pub fn open(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, OpenError> {
        Self::open_files(ModelFiles::open(path)?, precision, device)
    }

    /// The same of files whose configuration has been read.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn open_files(
        mut files: ModelFiles,
        precision: RunPrecision,
        device: &Device,
    ) -> Result<Self, OpenError> {
        let bundle = AnyBundle::open_files(&mut files, precision, device)?;
        let tokenizer = open_tokenizer(&files, bundle.sizes().vocab_size)?;
        Ok(Self::new(bundle, tokenizer))
    }

    /// The same with the adapter in the directory `dir`, as `peft` writes it.
    ///
    /// # Errors
    /// If the directory is no adapter, or not one of this model.
    pub fn with_adapter(self, dir: &Path) -> Result<Self, AdapterError> {
        Ok(Self { bundle: self.bundle.with_adapter(dir)?, ..self })
    }

    /// Unknown keys in the files of the model and its tokenizer.
    pub fn unknown_keys(&self) -> UnknownKeys {
        let mut keys = self.bundle.unknown_keys().clone();
        let settings = self.text.tokenizer().map(Tokenizer::unread_settings).unwrap_or_default();
        keys.extend(settings.into_iter().map(|key| format!("{key} (tokenizer_config.json)")));
        keys
    }

    /// The decoder.
    ///
    /// # Errors
    /// If the model is of another family.
    pub fn decoder(self) -> Result<DecoderPipeline, FamilyError> {
        match self.bundle {
            AnyBundle::Decoder(bundle) => Ok(Pipeline { bundle, text: self.text }),
            AnyBundle::Classifier(_) => Err(FamilyError::LabelsTexts),
            other => Err(wrong("a decoder, such as GPT-2 or Llama", &other)),
        }
    }

    /// The encoder-decoder.
    ///
    /// # Errors
    /// If the model is of another family.
    pub fn encoder_decoder(self) -> Result<Seq2SeqPipeline, FamilyError> {
        match self.bundle {
            AnyBundle::EncoderDecoder(bundle) => Ok(Pipeline { bundle, text: self.text }),
            other => Err(wrong("an encoder-decoder, such as T5 or BART", &other)),
        }
    }

    /// The encoder.
    ///
    /// # Errors
    /// If the model is of another family.
    pub fn encoder(self) -> Result<EncoderPipeline, FamilyError> {
        match self.bundle {
            AnyBundle::Encoder(bundle) => Ok(Pipeline { bundle, text: self.text }),
            other => Err(wrong("an encoder, such as BERT", &other)),
        }
    }
}

fn wrong(wanted: &'static str, found: &AnyBundle) -> FamilyError {
    FamilyError::Other { wanted, found: found.family() }
}

fn open_tokenizer(files: &ModelFiles, vocab_size: usize) -> Result<Option<Tokenizer>, OpenError> {
    let path = files.folder();
    let unusable = |source| OpenError::Tokenizer { path: path.to_owned(), source };
    let in_file = |source| OpenError::GgufTokenizer { path: path.to_owned(), source };
    let tokenizer = if Tokenizer::is_in(path) {
        Tokenizer::load(path).map_err(unusable)?
    } else if let Some(file) = files.gguf() {
        if file.metadata("tokenizer.ggml.tokens").is_none() {
            return Ok(None);
        }
        let json = gguf::tokenizer_json(file).map_err(in_file)?.to_string();
        let config = gguf::tokenizer_config_json(file).map_err(in_file)?;
        Tokenizer::from_contents(json.as_bytes(), config).map_err(unusable)?
    } else {
        return Ok(None);
    };
    // It may have more ids than the model: only a text that gives one of them is an error.
    Ok(Some(tokenizer.for_model(vocab_size)))
}
