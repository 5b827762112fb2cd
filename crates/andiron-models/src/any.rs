//! A model of any family, chosen by its `config.json`.

use std::fmt;
use std::path::Path;

use andiron_core::KvCacheDtype;
use andiron_kernels::random::Seed;
use burn::tensor::Device;

use crate::RunPrecision;
use crate::adapter::{AdapterError, AdapterFiles};
use crate::bundle::{Bundle, FamilyConfig as _};
use crate::catalog::{self, DecoderConfig, Sizes};
use crate::decoder::DecoderBundle;
use crate::decoder::classifier::{ClassifierBundle, ClassifierConfig};
use crate::encoder::{EncoderBundle, EncoderConfig, EncoderHead};
use crate::encoder_decoder::{Seq2SeqBundle, Seq2SeqConfig};
use crate::hf_config::ConfigError;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::model_files::{ModelFiles, read_config};
use crate::summary::Summary;
use crate::weights::{self, LoadError, ParamInfo};

/// The family of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Predicts each token from those before it.
    Decoder,
    /// Reads a whole text.
    Encoder,
    /// Reads a source and generates a target.
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
    /// Of a decoder with a sequence-classification head.
    Classifier(ClassifierConfig),
    /// Of an encoder.
    Encoder(EncoderConfig),
    /// Of an encoder-decoder.
    EncoderDecoder(Seq2SeqConfig),
}

/// A model of any family with its configuration and settings, without the tokenizer.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one, and it is moved once.
pub enum AnyBundle {
    /// A decoder.
    Decoder(DecoderBundle),
    /// A decoder with a sequence-classification head.
    Classifier(ClassifierBundle),
    /// An encoder.
    Encoder(EncoderBundle),
    /// An encoder-decoder.
    EncoderDecoder(Seq2SeqBundle),
}

/// Applies one expression to every variant of [`AnyConfig`] or [`AnyBundle`].
macro_rules! each {
    ($any:expr, $kind:ident, $held:ident => $do:expr) => {
        match $any {
            $kind::Decoder($held) => $do,
            $kind::Classifier($held) => $do,
            $kind::Encoder($held) => $do,
            $kind::EncoderDecoder($held) => $do,
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

    /// Reads the configuration and lists the keys that are not used.
    ///
    /// # Errors
    /// As [`AnyConfig::open`].
    pub fn open_file(path: &Path) -> Result<ConfigFile<Self>, LoadError> {
        Ok(ModelFiles::open(path)?.config()?.clone())
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or does not describe a model that can be built here.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::read_file(path)?.config)
    }

    /// Reads a `config.json` and lists its unknown keys.
    ///
    /// # Errors
    /// As [`AnyConfig::read`].
    pub fn read_file(path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        Self::from_object(read_config(path)?, path)
    }

    pub(crate) fn from_object(
        fields: serde_json::Map<String, serde_json::Value>,
        path: &Path,
    ) -> Result<ConfigFile<Self>, ConfigError> {
        let known: Vec<&str> =
            [DecoderConfig::MODEL_TYPES, EncoderConfig::MODEL_TYPES, Seq2SeqConfig::MODEL_TYPES].concat();
        catalog::from_object(fields, path, &known, |model_type, fields| {
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
        each!(self, AnyConfig, config => config.model_type())
    }

    /// Hugging Face's class for the model with its head.
    pub fn class_name(&self) -> &'static str {
        each!(self, AnyConfig, config => config.class_name())
    }

    /// The sizes that every configuration has.
    pub fn sizes(&self) -> Sizes {
        each!(self, AnyConfig, config => config.sizes())
    }

    /// The model's parameters; draws no weights.
    pub fn parameters(&self, device: &Device) -> Vec<ParamInfo> {
        each!(self, AnyConfig, config => weights::describe(&config.init(Seed::new(0), device)))
    }

    /// Checks that an adapter is one of this model; draws and reads no weights.
    ///
    /// # Errors
    /// The first tensor of the adapter that does not fit.
    pub fn check_adapter(&self, files: &AdapterFiles, device: &Device) -> Result<(), AdapterError> {
        each!(files.model_config().unwrap_or(self), AnyConfig, config => {
            files.check(&config.init(Seed::new(0), device), &config.adapter_names())
        })
    }

    /// Parameter counts by part; draws no weights.
    pub fn summary(&self, device: &Device) -> Summary {
        let predicts = match self {
            Self::Decoder(_) | Self::EncoderDecoder(_) => true,
            Self::Encoder(config) => config.head() == EncoderHead::MaskedLm,
            Self::Classifier(_) => false,
        };
        Summary::new(&self.parameters(device), predicts)
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

    /// As [`open`](Self::open), at a given precision: see [`DecoderBundle::open_at`].
    ///
    /// # Errors
    /// As [`AnyBundle::open`].
    pub fn open_at(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        Self::open_files(&mut ModelFiles::open(path)?, precision, device)
    }

    /// As above, for files whose configuration has already been read.
    ///
    /// # Errors
    /// As [`AnyBundle::open`].
    pub fn open_files(
        files: &mut ModelFiles,
        precision: RunPrecision,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let ConfigFile { config, unknown_keys } = files.config()?.clone();
        Ok(match config {
            AnyConfig::Decoder(config) => {
                let read = ConfigFile { config, unknown_keys };
                Self::Decoder(Bundle::load(read, files, precision, device)?)
            }
            AnyConfig::Classifier(config) => {
                let read = ConfigFile { config, unknown_keys };
                Self::Classifier(Bundle::load(read, files, precision, device)?)
            }
            AnyConfig::Encoder(config) => {
                let read = ConfigFile { config, unknown_keys };
                Self::Encoder(Bundle::load(read, files, precision, device)?)
            }
            AnyConfig::EncoderDecoder(config) => {
                let read = ConfigFile { config, unknown_keys };
                Self::EncoderDecoder(Bundle::load(read, files, precision, device)?)
            }
        })
    }

    /// Sets the element type of KV caches; no effect on models without one.
    #[must_use]
    pub fn with_kv_cache_dtype(self, dtype: KvCacheDtype) -> Self {
        match self {
            Self::Decoder(bundle) => Self::Decoder(bundle.with_kv_cache_dtype(dtype)),
            Self::EncoderDecoder(bundle) => Self::EncoderDecoder(bundle.with_kv_cache_dtype(dtype)),
            Self::Classifier(_) | Self::Encoder(_) => self,
        }
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        match self {
            Self::Decoder(_) | Self::Classifier(_) => Family::Decoder,
            Self::Encoder(_) => Family::Encoder,
            Self::EncoderDecoder(_) => Family::EncoderDecoder,
        }
    }

    /// Unknown keys of the files.
    pub fn unknown_keys(&self) -> &UnknownKeys {
        each!(self, AnyBundle, bundle => &bundle.unknown_keys)
    }

    /// The sizes that every configuration has.
    pub fn sizes(&self) -> Sizes {
        each!(self, AnyBundle, bundle => bundle.config.sizes())
    }
}
