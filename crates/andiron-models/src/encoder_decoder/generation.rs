//! What an encoder-decoder's directory says about generating targets.

use std::path::Path;

use serde_json::{Map, Value};

use super::Seq2SeqConfig;
use crate::generate::GenerationConfig;
use crate::hf_config::ConfigError;
use crate::model_files::{CONFIG, ModelFiles};

/// Keys of `config.json` that name ids.
const ID_KEYS: &[&str] = &["bos_token_id", "eos_token_id", "forced_eos_token_id", "pad_token_id"];

const START: &str = "decoder_start_token_id";

/// What `config` says about generating targets, and nothing else.
pub(super) fn of(config: &Seq2SeqConfig) -> GenerationConfig {
    GenerationConfig::from_fields(ids(config), Path::new(CONFIG))
        .expect("ids of a configuration are ids here")
}

/// What the files say whose configuration is read as `config`.
///
/// `generation_config.json` goes before `config.json`, which then only lends the ids of start, end and padding.
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
    // No token can have what the file says.
    let start = || config.decoder_start_token_id();
    generation.decoder_start_token_id = Some(generation.decoder_start_token_id.unwrap_or_else(start));
    generation.settle(config.target_vocab_size())?;
    Ok(generation)
}

/// The ids that a configuration names.
fn ids(config: &Seq2SeqConfig) -> Map<String, Value> {
    let Value::Object(fields) = config.to_value() else { return Map::new() };
    let mut ids: Map<String, Value> = fields
        .into_iter()
        .filter(|(key, value)| ID_KEYS.contains(&key.as_str()) && !value.is_null())
        .collect();
    ids.insert(START.to_owned(), config.decoder_start_token_id().into());
    ids
}
