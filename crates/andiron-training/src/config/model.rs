//! The `[model]` table: the fields of a `config.json`, of any family.

use andiron_models::hf_config::ConfigError;
use andiron_models::{AnyConfig, DecoderConfig, EncoderConfig, Family, Seq2SeqConfig};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A model to train from random weights: the fields of a Hugging Face `config.json`, told apart by `model_type`. The objective
/// chooses the head.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ModelConfig {
    /// A decoder.
    Decoder(DecoderConfig),
    /// An encoder.
    Encoder(EncoderConfig),
    /// An encoder-decoder.
    EncoderDecoder(Seq2SeqConfig),
}

impl ModelConfig {
    /// Checks that the sizes describe a model.
    ///
    /// # Errors
    /// Names the first key that makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Decoder(config) => config.validate(),
            Self::Encoder(config) => config.validate(),
            Self::EncoderDecoder(config) => config.validate(),
        }
    }

    /// The family.
    pub fn family(&self) -> Family {
        AnyConfig::from(self.clone()).family()
    }

    /// Longest sequence, in tokens; `usize::MAX` if unlimited.
    pub fn max_positions(&self) -> usize {
        AnyConfig::from(self.clone()).sizes().max_positions
    }
}

impl<'a> Deserialize<'a> for ModelConfig {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        fn of<C: DeserializeOwned, E: serde::de::Error>(fields: Map<String, Value>) -> Result<C, E> {
            serde_json::from_value(Value::Object(fields)).map_err(E::custom)
        }
        let fields = Map::<String, Value>::deserialize(from)?;
        let model_type = fields.get("model_type").and_then(Value::as_str);
        let model_type = model_type.ok_or_else(|| D::Error::missing_field("model_type"))?;
        if EncoderConfig::MODEL_TYPES.contains(&model_type) {
            of(fields).map(Self::Encoder)
        } else if Seq2SeqConfig::MODEL_TYPES.contains(&model_type) {
            of(fields).map(Self::EncoderDecoder)
        } else if DecoderConfig::MODEL_TYPES.contains(&model_type) {
            of(fields).map(Self::Decoder)
        } else {
            let known = [DecoderConfig::MODEL_TYPES, EncoderConfig::MODEL_TYPES, Seq2SeqConfig::MODEL_TYPES];
            let known = known.concat().join(", ");
            Err(D::Error::custom(format_args!("model_type is {model_type:?}: it must be one of {known}")))
        }
    }
}

impl From<ModelConfig> for AnyConfig {
    fn from(config: ModelConfig) -> Self {
        match config {
            ModelConfig::Decoder(config) => Self::Decoder(config),
            ModelConfig::Encoder(config) => Self::Encoder(config),
            ModelConfig::EncoderDecoder(config) => Self::EncoderDecoder(config),
        }
    }
}

impl From<DecoderConfig> for ModelConfig {
    fn from(config: DecoderConfig) -> Self {
        Self::Decoder(config)
    }
}

impl From<EncoderConfig> for ModelConfig {
    fn from(config: EncoderConfig) -> Self {
        Self::Encoder(config)
    }
}

impl From<Seq2SeqConfig> for ModelConfig {
    fn from(config: Seq2SeqConfig) -> Self {
        Self::EncoderDecoder(config)
    }
}
