//! Generation config of an encoder-decoder's directory.

use std::path::Path;

use serde_json::{Map, Value};

use super::Seq2SeqConfig;
use crate::generate::GenerationConfig;
use crate::hf_config::ConfigError;
use crate::model_files::{CONFIG, ModelFiles};

/// Token id keys of `config.json`.
const ID_KEYS: &[&str] = &["bos_token_id", "eos_token_id", "forced_eos_token_id", "pad_token_id"];

const START: &str = "decoder_start_token_id";

/// The generation config implied by `config` alone.
pub(super) fn of(config: &Seq2SeqConfig) -> GenerationConfig {
    GenerationConfig::from_fields(ids(config), Path::new(CONFIG))
        .expect("ids of a configuration are ids here")
}

/// Reads the generation config; `config` is the parsed `config.json`.
///
/// `generation_config.json` overrides `config.json`, which then only supplies start, end and padding ids.
pub(super) fn read(config: &Seq2SeqConfig, files: &ModelFiles) -> Result<GenerationConfig, ConfigError> {
    let mut fields = ids(config);
    let mut generation = match files.generation_fields()? {
        Some(said) => {
            fields.shift_remove("forced_eos_token_id");
            fields.extend(said.into_iter().filter(|(_, value)| !value.is_null()));
            GenerationConfig::from_fields(fields, &files.generation_path())?
        }
        None => GenerationConfig::of_model_config(fields, files.config_fields(), &files.config_path())?,
    };
    // Negative ids are absent.
    let start = || config.decoder_start_token_id();
    generation.decoder_start_token_id = Some(generation.decoder_start_token_id.unwrap_or_else(start));
    generation.drop_ids_outside(config.target_vocab_size())?;
    Ok(generation)
}

/// Token ids of a configuration.
fn ids(config: &Seq2SeqConfig) -> Map<String, Value> {
    let Value::Object(fields) = config.to_value() else { return Map::new() };
    let mut ids: Map<String, Value> = fields
        .into_iter()
        .filter(|(key, value)| ID_KEYS.contains(&key.as_str()) && !value.is_null())
        .collect();
    ids.insert(START.to_owned(), config.decoder_start_token_id().into());
    ids
}
