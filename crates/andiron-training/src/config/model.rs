//! The `model` table: a `config.json` in TOML, told apart by `model_type`.

use andiron_models::DecoderConfig;
use andiron_models::decoder::gpt2::Gpt2Config;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(tag = "model_type")]
enum ModelTable {
    #[serde(rename = "gpt2")]
    Gpt2(Gpt2Config),
}

pub(super) fn serialize<S: Serializer>(config: &DecoderConfig, serializer: S) -> Result<S::Ok, S::Error> {
    match config {
        DecoderConfig::Gpt2(config) => ModelTable::Gpt2(config.clone()).serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DecoderConfig, D::Error> {
    match ModelTable::deserialize(deserializer)? {
        ModelTable::Gpt2(config) => {
            config.validate().map_err(D::Error::custom)?;
            Ok(DecoderConfig::Gpt2(config))
        }
    }
}
