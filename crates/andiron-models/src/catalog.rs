//! Every architecture, one row each: from `model_type` to a configuration, and from there to a model.

use std::fs;
use std::path::Path;

use andiron_core::{Forward, KvCache};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decoder::gpt2;
use crate::family::Decoder;
use crate::hf_config::ConfigError;
use crate::weights::NameRules;

/// What every decoder's configuration says, under whatever names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub max_positions: usize,
    /// Id that begins a text.
    pub bos_token_id: Option<u32>,
    /// Id that ends a text.
    pub eos_token_id: Option<u32>,
}

/// Makes the configuration enum and the model enum of a family.
macro_rules! decoders {
    ($($(#[$doc:meta])* $variant:ident, $model_type:literal, $class:literal, $config:path, $model:path, $module:ident;)+) => {
        /// The configuration of a decoder, by architecture: the fields of its `config.json`, told apart by
        /// `model_type`. Serde reads and writes these fields only; [`DecoderConfig::read`] also takes a
        /// `config.json` with the inert keys that Hugging Face adds.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        pub enum DecoderConfig {
            $($(#[$doc])* #[serde(rename = $model_type)] $variant($config),)+
        }

        /// A decoder, by architecture.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum DecoderModel {
            $($(#[$doc])* $variant($model),)+
        }

        impl DecoderConfig {
            /// The `model_type`s that are implemented.
            pub const MODEL_TYPES: &[&str] = &[$($model_type),+];

            /// The architecture's name in `config.json`.
            pub fn model_type(&self) -> &'static str {
                match self { $(Self::$variant(_) => $model_type,)+ }
            }

            /// Hugging Face's class for the architecture with a language-model head.
            pub fn class_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $class,)+ }
            }

            fn from_fields(model_type: &str, fields: &mut serde_json::Map<String, Value>) -> Result<Self, ReadError> {
                match model_type {
                    $($model_type => {
                        $module::INERT.strip(fields)?;
                        let config: $config = serde_json::from_value(Value::Object(std::mem::take(fields)))?;
                        config.validate()?;
                        Ok(Self::$variant(config))
                    })+
                    other => Err(ConfigError::UnknownArchitecture {
                        model_type: other.to_owned(),
                        known: Self::MODEL_TYPES.join(", "),
                    }.into()),
                }
            }

            pub(crate) fn name_rules(&self) -> NameRules {
                match self { $(Self::$variant(_) => $module::NAMES,)+ }
            }

            /// A model with random weights drawn from `seed`.
            pub fn init(&self, seed: Seed, device: &Device) -> DecoderModel {
                match self { $(Self::$variant(config) => DecoderModel::$variant(config.init(seed, device)),)+ }
            }

            /// What generation and training ask of any decoder.
            pub fn sizes(&self) -> Sizes {
                match self { $(Self::$variant(config) => config.sizes(),)+ }
            }

            /// Checks that the sizes describe a model. Serde alone does not.
            ///
            /// # Errors
            /// Names the first key that makes no sense.
            pub fn validate(&self) -> Result<(), ConfigError> {
                match self { $(Self::$variant(config) => config.validate(),)+ }
            }

            /// Checks that training computes what the configuration says.
            ///
            /// # Errors
            /// If it asks for something that is implemented for inference only.
            pub fn check_trainable(&self) -> Result<(), ConfigError> {
                match self { $(Self::$variant(config) => config.check_trainable(),)+ }
            }
        }

        impl Decoder for DecoderModel {
            fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
                match self { $(Self::$variant(model) => model.hidden(ids_bt, cx),)+ }
            }

            fn head(&self) -> Tensor<2> {
                match self { $(Self::$variant(model) => model.head(),)+ }
            }

            fn new_cache(&self) -> KvCache {
                match self { $(Self::$variant(model) => model.new_cache(),)+ }
            }
        }
    };
}

decoders! {
    /// GPT-2 and what shares its shape, such as nanoGPT's models.
    Gpt2, "gpt2", "GPT2LMHeadModel", gpt2::Gpt2Config, gpt2::Gpt2, gpt2;
}

/// A configuration that is wrong, or JSON that is.
enum ReadError {
    Config(ConfigError),
    Json(serde_json::Error),
}

impl From<ConfigError> for ReadError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl DecoderConfig {
    /// Entries of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Longest sequence, in tokens.
    pub fn max_positions(&self) -> usize {
        self.sizes().max_positions
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or does not describe a decoder that can be built here.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let json = |source| ConfigError::Json { path: path.to_owned(), what: "model config", source };
        Self::from_json(serde_json::from_slice(&text).map_err(json)?, path)
    }

    /// Reads the object in a `config.json`, or one like it that comes from `path`.
    pub(crate) fn from_json(value: Value, path: &Path) -> Result<Self, ConfigError> {
        Self::from_value(value).map_err(|error| match error {
            ReadError::Config(error) => error,
            ReadError::Json(source) => {
                ConfigError::Json { path: path.to_owned(), what: "model config", source }
            }
        })
    }

    /// Reads the object in a `config.json`.
    fn from_value(value: Value) -> Result<Self, ReadError> {
        let mut fields = match value {
            Value::Object(fields) => fields,
            _ => return Err(ReadError::Json(serde::de::Error::custom("expected a JSON object"))),
        };
        let model_type = match fields.get("model_type") {
            Some(Value::String(model_type)) => model_type.clone(),
            _ => return Err(ReadError::Json(serde::de::Error::missing_field("model_type"))),
        };
        Self::from_fields(&model_type, &mut fields)
    }

    /// The object to write as `config.json`: the fields, and what `transformers` of either generation looks for.
    pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Value::Object(fields) = &mut value {
            fields.insert("architectures".to_owned(), vec![self.class_name()].into());
            fields.insert("dtype".to_owned(), "float32".into());
            fields.insert("torch_dtype".to_owned(), "float32".into());
        }
        Ok(value)
    }
}
