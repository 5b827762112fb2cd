//! A model of any family: what `config.json` says decides which.

use std::fmt;
use std::path::Path;

use andiron_kernels::random::Seed;
use burn::tensor::Device;

use crate::RunPrecision;
use crate::bundle::{DecoderBundle, read_config};
use crate::catalog::{self, DecoderConfig, Sizes};
use crate::decoder::classifier::{ClassifierBundle, ClassifierConfig};
use crate::encoder::{EncoderBundle, EncoderConfig, EncoderHead};
use crate::encoder_decoder::{Seq2SeqBundle, Seq2SeqConfig};
use crate::hf_config::ConfigError;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::summary::Summary;
use crate::weights::gguf::{self, GgufFile};
use crate::weights::{self, FileError, LoadError};

/// What a model reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Predicts each token from those before it.
    Decoder,
    /// Reads a whole text.
    Encoder,
    /// Reads a text and writes another.
    EncoderDecoder,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decoder => "decoder",
            Self::Encoder => "encoder",
            Self::EncoderDecoder => "encoder-decoder",
        })
    }
}

/// A configuration of any family.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyConfig {
    /// Of a decoder.
    Decoder(DecoderConfig),
    /// Of a decoder that labels texts.
    Classifier(ClassifierConfig),
    /// Of an encoder.
    Encoder(EncoderConfig),
    /// Of an encoder-decoder.
    EncoderDecoder(Seq2SeqConfig),
}

/// A model of any family, with everything that its directory says, except the tokenizer.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one, and it is moved once.
pub enum AnyBundle {
    /// A decoder.
    Decoder(DecoderBundle),
    /// A decoder that labels texts.
    Classifier(ClassifierBundle),
    /// An encoder.
    Encoder(EncoderBundle),
    /// An encoder-decoder.
    EncoderDecoder(Seq2SeqBundle),
}

/// Does the same with whatever a value of [`AnyConfig`] holds.
macro_rules! each {
    ($any:expr, $config:ident => $do:expr) => {
        match $any {
            AnyConfig::Decoder($config) => $do,
            AnyConfig::Classifier($config) => $do,
            AnyConfig::Encoder($config) => $do,
            AnyConfig::EncoderDecoder($config) => $do,
        }
    };
}

impl AnyConfig {
    /// Reads the configuration of a model directory, or of a file called `.gguf`.
    ///
    /// # Errors
    /// If there is none, or it does not describe a model that can be built here.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Ok(Self::open_file(path)?.config)
    }

    /// Reads it, and says which keys of its file nothing reads.
    ///
    /// # Errors
    /// As [`AnyConfig::open`].
    pub fn open_file(path: &Path) -> Result<ConfigFile<Self>, LoadError> {
        if !path.is_dir() && gguf::is_gguf(path) {
            let file = GgufFile::open(path).map_err(FileError::from)?;
            let json = gguf::config_json(&file).map_err(FileError::from)?;
            let mut read = Self::from_json(json, path)?;
            read.unknown_keys.extend(gguf::unknown_keys(&file).map_err(FileError::from)?);
            return Ok(read);
        }
        read_config(path, Self::read_file)
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or does not describe a model that can be built here.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::read_file(path)?.config)
    }

    /// Reads a `config.json`, and says which of its keys nothing reads.
    ///
    /// # Errors
    /// As [`AnyConfig::read`].
    pub fn read_file(path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        Self::from_json(catalog::read_object(path)?, path)
    }

    fn from_json(value: serde_json::Value, path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        let known: Vec<&str> =
            [DecoderConfig::MODEL_TYPES, EncoderConfig::MODEL_TYPES, Seq2SeqConfig::MODEL_TYPES].concat();
        catalog::from_json(value, path, &known, |model_type, fields| {
            if EncoderConfig::MODEL_TYPES.contains(&model_type) {
                EncoderConfig::from_fields(model_type, fields).map(|read| Ok(read?.map(Self::Encoder)))
            } else if Seq2SeqConfig::MODEL_TYPES.contains(&model_type) {
                Seq2SeqConfig::from_fields(model_type, fields).map(|read| Ok(read?.map(Self::EncoderDecoder)))
            } else if ClassifierConfig::is_meant(&fields) {
                ClassifierConfig::from_fields(model_type, fields).map(|read| Ok(read?.map(Self::Classifier)))
            } else {
                DecoderConfig::from_fields(model_type, fields).map(|read| Ok(read?.map(Self::Decoder)))
            }
        })
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        match self {
            Self::Decoder(_) | Self::Classifier(_) => Family::Decoder,
            Self::Encoder(_) => Family::Encoder,
            Self::EncoderDecoder(_) => Family::EncoderDecoder,
        }
    }

    /// The architecture's name in `config.json`.
    pub fn model_type(&self) -> &'static str {
        each!(self, config => config.model_type())
    }

    /// Hugging Face's class for the model with its head.
    pub fn class_name(&self) -> &'static str {
        each!(self, config => config.class_name())
    }

    /// What every model's configuration says.
    pub fn sizes(&self) -> Sizes {
        each!(self, config => config.sizes())
    }

    /// What the model is made of; no weight is drawn.
    pub fn summary(&self, device: &Device) -> Summary {
        let tensors = each!(self, config => weights::names(&config.init(Seed::new(0), device)));
        let predicts = match self {
            Self::Decoder(_) | Self::EncoderDecoder(_) => true,
            Self::Encoder(config) => config.head() == EncoderHead::MaskedLm,
            Self::Classifier(_) => false,
        };
        Summary::new(&tensors, predicts)
    }
}

impl AnyBundle {
    /// Opens a model directory, or a file called `.gguf`, on `device`.
    ///
    /// # Errors
    /// If a file is missing, malformed or too new, or if weights and configuration do not belong together.
    pub fn open(path: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::open_at(path, RunPrecision::F32, device)
    }

    /// The same, to be run as exact as `precision` says: see [`DecoderBundle::open_at`].
    ///
    /// # Errors
    /// As [`AnyBundle::open`].
    pub fn open_at(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        Ok(match AnyConfig::open(path)? {
            AnyConfig::Decoder(_) => Self::Decoder(DecoderBundle::open_at(path, precision, device)?),
            AnyConfig::Classifier(_) => Self::Classifier(ClassifierBundle::open_at(path, precision, device)?),
            AnyConfig::Encoder(_) => Self::Encoder(EncoderBundle::open_at(path, precision, device)?),
            AnyConfig::EncoderDecoder(_) => {
                Self::EncoderDecoder(Seq2SeqBundle::open_at(path, precision, device)?)
            }
        })
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        match self {
            Self::Decoder(_) | Self::Classifier(_) => Family::Decoder,
            Self::Encoder(_) => Family::Encoder,
            Self::EncoderDecoder(_) => Family::EncoderDecoder,
        }
    }

    /// Keys of the configuration that nothing reads.
    pub fn unknown_keys(&self) -> &UnknownKeys {
        match self {
            Self::Decoder(bundle) => &bundle.unknown_keys,
            Self::Classifier(bundle) => &bundle.unknown_keys,
            Self::Encoder(bundle) => &bundle.unknown_keys,
            Self::EncoderDecoder(bundle) => &bundle.unknown_keys,
        }
    }

    /// What every model's configuration says.
    pub fn sizes(&self) -> Sizes {
        match self {
            Self::Decoder(bundle) => bundle.config.sizes(),
            Self::Classifier(bundle) => bundle.config.sizes(),
            Self::Encoder(bundle) => bundle.config.sizes(),
            Self::EncoderDecoder(bundle) => bundle.config.sizes(),
        }
    }
}
