//! The catalog of architectures, one row each: from `model_type` to a configuration to a model.

use std::path::Path;

use andiron_core::{Forward, KvCache, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

use crate::decoder::{self, DecoderArchitecture};
use crate::family::Decoder;
use crate::hf_config::{ConfigError, Ids};
use crate::key_rules::{ConfigFile, KeyRules};
use crate::named_fields;
use crate::weights::NameRules;

/// The sizes that every configuration has, under different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Longest sequence, in tokens; `usize::MAX` if unlimited.
    pub max_positions: usize,
    /// Beginning-of-text token id.
    pub bos_token_id: Option<u32>,
    /// End-of-text token id.
    pub eos_token_id: Option<u32>,
}

impl Sizes {
    /// Drops a beginning-of-text id outside the vocabulary.
    pub(crate) fn without_impossible_ids(self) -> Self {
        let bos_token_id = self.bos_token_id.filter(|&id| (id as usize) < self.vocab_size);
        Self { bos_token_id, ..self }
    }
}

/// An architecture: its configuration in Hugging Face's field names, and how to build its model.
pub trait Architecture: Serialize + DeserializeOwned {
    /// The model. Parameter paths are the tensor names in the file.
    type Model: Module;
    /// Keys of `config.json` that are not fields of the configuration.
    const KEYS: KeyRules;

    /// Hugging Face's class for the model with its head.
    fn class_name(&self) -> &'static str;

    /// How tensor names in files may differ from parameter paths.
    fn name_rules(&self) -> NameRules;

    /// Rewrites the fields of older and newer `transformers` to one form, before they are parsed.
    ///
    /// # Errors
    /// If a key asks for something that is not implemented.
    fn normalise(_fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Adds keys that other generations of `transformers` read to the written object.
    fn supplement(&self, _fields: &mut Map<String, Value>) {}

    /// Checks that the sizes describe a model. Serde alone does not.
    ///
    /// # Errors
    /// Names the first key that makes no sense.
    fn validate(&self) -> Result<(), ConfigError>;

    /// The sizes that generation and training need.
    fn sizes(&self) -> Sizes;

    /// End-of-text token ids: [`Sizes::eos_token_id`] and any others.
    fn end_ids(&self) -> Ids {
        self.sizes().eos_token_id.map_or(Ids::default(), Ids::One)
    }

    /// A model with random weights. Each parameter is drawn from its own stream of `seed`, at first use.
    fn init(&self, seed: Seed, device: &Device) -> Self::Model;
}

/// Defines the configuration enum and the model enum of a family. The macro `$forward` gets the names of the variants
/// and implements the methods that only this family has.
macro_rules! architectures {
    ($family:literal, $configs:ident, $models:ident, $forward:ident; $($(#[$doc:meta])* $variant:ident, $model_type:literal, $config:path;)+) => {
        #[doc = concat!("The configuration of ", $family, ", by architecture: the fields of its `config.json`, told apart by")]
        /// `model_type`. Serde reads and writes these fields only; [`Self::read`] also takes a `config.json` with the
        /// inert keys that Hugging Face adds.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "model_type")]
        pub enum $configs {
            $($(#[$doc])* #[serde(rename = $model_type)] $variant($config),)+
        }

        #[doc = concat!("The model of ", $family, ", by architecture.")]
        #[derive(burn::module::Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum $models {
            $($(#[$doc])* $variant(<$config as $crate::catalog::Architecture>::Model),)+
        }

        impl $configs {
            /// The `model_type`s that are implemented.
            pub const MODEL_TYPES: &[&str] = &[$($model_type),+];

            /// The architecture's name in `config.json`.
            pub fn model_type(&self) -> &'static str {
                match self { $(Self::$variant(_) => $model_type,)+ }
            }

            /// Hugging Face's class for the model with its head.
            pub fn class_name(&self) -> &'static str {
                match self { $(Self::$variant(config) => $crate::catalog::Architecture::class_name(config),)+ }
            }

            /// Reads a `config.json`.
            ///
            /// # Errors
            /// If the file cannot be read, or does not describe a model of this family that can be built here.
            pub fn read(path: &std::path::Path) -> Result<Self, $crate::hf_config::ConfigError> {
                Ok(Self::read_file(path)?.config)
            }

            /// Reads a `config.json` and lists its unknown keys.
            ///
            /// # Errors
            /// As [`Self::read`].
            pub fn read_file(
                path: &std::path::Path,
            ) -> Result<$crate::key_rules::ConfigFile<Self>, $crate::hf_config::ConfigError> {
                Self::from_object($crate::model_files::read_config(path)?, path)
            }

            /// Parses the object of a `config.json`, or an equivalent one from `path`.
            pub(crate) fn from_object(
                fields: serde_json::Map<String, serde_json::Value>,
                path: &std::path::Path,
            ) -> Result<$crate::key_rules::ConfigFile<Self>, $crate::hf_config::ConfigError> {
                $crate::catalog::from_object(fields, path, Self::MODEL_TYPES, Self::from_fields)
            }

            /// Parses the fields of a `config.json` without `model_type`.
            pub(crate) fn from_fields(
                model_type: &str,
                fields: serde_json::Map<String, serde_json::Value>,
            ) -> Option<Result<$crate::key_rules::ConfigFile<Self>, $crate::catalog::ReadError>> {
                match model_type {
                    $($model_type => Some(
                        $crate::catalog::from_fields(fields).map(|file| file.map(Self::$variant)),
                    ),)+
                    _ => None,
                }
            }

            /// The object to write as `config.json`: the fields, and the keys that both generations of `transformers`
            /// read.
            pub(crate) fn to_value(&self) -> serde_json::Value {
                let mut value = serde_json::to_value(self).expect("configurations are plain data");
                if let serde_json::Value::Object(fields) = &mut value {
                    fields.insert("architectures".to_owned(), vec![self.class_name()].into());
                    fields.insert("dtype".to_owned(), "float32".into());
                    fields.insert("torch_dtype".to_owned(), "float32".into());
                    match self {
                        $(Self::$variant(config) => $crate::catalog::Architecture::supplement(config, fields),)+
                    }
                }
                value
            }

            pub(crate) fn name_rules(&self) -> $crate::weights::NameRules {
                match self { $(Self::$variant(config) => $crate::catalog::Architecture::name_rules(config),)+ }
            }

            /// A model with random weights drawn from `seed`.
            pub fn init(&self, seed: andiron_kernels::random::Seed, device: &burn::tensor::Device) -> $models {
                match self {
                    $(Self::$variant(config) => $models::$variant($crate::catalog::Architecture::init(config, seed, device)),)+
                }
            }

            /// The sizes that generation and training need.
            pub fn sizes(&self) -> $crate::catalog::Sizes {
                match self { $(Self::$variant(config) => $crate::catalog::Architecture::sizes(config),)+ }
                    .without_impossible_ids()
            }

            /// End-of-text token ids.
            pub fn end_ids(&self) -> $crate::hf_config::Ids {
                match self { $(Self::$variant(config) => $crate::catalog::Architecture::end_ids(config),)+ }
            }

            /// Checks that the sizes describe a model. Serde alone does not.
            ///
            /// # Errors
            /// Names the first key that makes no sense.
            pub fn validate(&self) -> Result<(), $crate::hf_config::ConfigError> {
                match self { $(Self::$variant(config) => $crate::catalog::Architecture::validate(config),)+ }
            }
        }

        $forward!($($variant),+);
    };
}
#[allow(unused_imports)] // Used by the families that live in folders of their own.
pub(crate) use architectures;

/// Implements the decoder-only methods of the enums.
macro_rules! forward_decoder {
    ($($variant:ident),+) => {
        impl Decoder for DecoderModel {
            fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
                match self { $(Self::$variant(model) => model.hidden(ids_bt, cx),)+ }
            }

            fn head(&self) -> &Weight {
                match self { $(Self::$variant(model) => model.head(),)+ }
            }

            fn new_cache(&self) -> KvCache {
                match self { $(Self::$variant(model) => model.new_cache(),)+ }
            }
        }

        impl DecoderConfig {
            /// Hugging Face's class with a sequence-classification head.
            pub(crate) fn classifier_class(&self) -> &'static str {
                match self { $(Self::$variant(config) => config.classifier_class(),)+ }
            }
        }
    };
}

architectures! { "a decoder", DecoderConfig, DecoderModel, forward_decoder;
    /// GPT-2 and models of the same architecture, such as nanoGPT's.
    Gpt2, "gpt2", decoder::gpt2::Gpt2Config;
    /// Llama and models of the same architecture, such as SmolLM.
    Llama, "llama", decoder::llama::LlamaConfig;
    /// Mistral.
    Mistral, "mistral", decoder::mistral::MistralConfig;
    /// Qwen 2 and 2.5.
    Qwen2, "qwen2", decoder::qwen2::Qwen2Config;
    /// Qwen 3.
    Qwen3, "qwen3", decoder::qwen3::Qwen3Config;
    /// GPT-NeoX, and Pythia.
    GptNeox, "gpt_neox", decoder::gpt_neox::GptNeoxConfig;
    /// Gemma 3, text only.
    Gemma3, "gemma3_text", decoder::gemma3::Gemma3Config;
}

impl DecoderConfig {
    /// Vocabulary size.
    pub fn vocab_size(&self) -> usize {
        self.sizes().vocab_size
    }

    /// Longest sequence, in tokens; `usize::MAX` if unlimited.
    pub fn max_positions(&self) -> usize {
        self.sizes().max_positions
    }
}

/// An invalid configuration, or invalid JSON.
pub(crate) enum ReadError {
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

/// Parses the object of a `config.json` as one of the architectures that `from_fields` knows.
pub(crate) fn from_object<C>(
    fields: Map<String, Value>,
    path: &Path,
    known: &[&str],
    from_fields: impl Fn(&str, Map<String, Value>) -> Option<Result<ConfigFile<C>, ReadError>>,
) -> Result<ConfigFile<C>, ConfigError> {
    of_model_type(fields, known, from_fields).map_err(|error| match error {
        ReadError::Config(reason) => ConfigError::InFile { path: path.to_owned(), reason: Box::new(reason) },
        ReadError::Json(source) => ConfigError::Json { path: path.to_owned(), what: "model config", source },
    })
}

fn of_model_type<C>(
    fields: Map<String, Value>,
    known: &[&str],
    from_fields: impl Fn(&str, Map<String, Value>) -> Option<Result<ConfigFile<C>, ReadError>>,
) -> Result<ConfigFile<C>, ReadError> {
    let Some(Value::String(model_type)) = fields.get("model_type").cloned() else {
        return Err(serde_json::Error::missing_field("model_type").into());
    };
    from_fields(&model_type, fields).unwrap_or_else(|| {
        Err(ConfigError::UnknownArchitecture { model_type, known: known.join(", ") }.into())
    })
}

/// Parses the fields of one architecture's `config.json`.
pub(crate) fn from_fields<A: Architecture>(
    mut fields: Map<String, Value>,
) -> Result<ConfigFile<A>, ReadError> {
    A::KEYS.rename(&mut fields);
    A::KEYS.complete(&mut fields);
    let mut unknown_keys = A::KEYS.take_own(&mut fields);
    A::normalise(&mut fields)?;
    unknown_keys.extend(A::KEYS.apply::<A>(&mut fields)?);
    drop_impossible_ids(&mut fields);
    let config: A = named_fields::from_fields(fields)?;
    config.validate()?;
    Ok(ConfigFile { config, unknown_keys })
}

/// Treats negative token ids as absent: files of the first Llamas contain -1. A target cannot begin without an id, so
/// `decoder_start_token_id` keeps its value, to be refused as it is written.
fn drop_impossible_ids(fields: &mut Map<String, Value>) {
    let impossible = |value: &Value| value.as_i64().is_some_and(|id| id < 0);
    for (_, value) in
        fields.iter_mut().filter(|(key, _)| key.ends_with("_token_id") && *key != "decoder_start_token_id")
    {
        match value {
            Value::Array(ids) => ids.retain(|id| !impossible(id)),
            id if impossible(id) => *id = Value::Null,
            _ => {}
        }
    }
}
