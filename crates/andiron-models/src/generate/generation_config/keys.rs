//! Keys of `generation_config.json` besides the fields of [`GenerationConfig`](super::GenerationConfig).

use serde_json::{Map, Value, json};

use crate::hf_config::ConfigError;

/// Keys of transformers 5.24 that change no result: outputs besides ids, cache placement, speed, speculative
/// decoding, and file metadata.
const INERT: &[&str] = &[
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "cache_config",
    "compile_config",
    "continuous_batching_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "return_dict_in_generate",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
];

/// Fields of the configuration that are not ids.
const SETTINGS: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Older key: forces `bos_token_id` as the first id.
pub(super) const FORCE_BOS: &str = "force_bos_token_to_be_generated";

/// Unsupported keys of transformers 5.24, with the values that change nothing.
fn refused() -> [(&'static str, Vec<Value>, &'static str); 10] {
    [
        ("cache_implementation", Vec::new(), "a cache that rounds nothing"),
        ("constraints", vec![json!([])], "none"),
        ("dola_layers", Vec::new(), "none"),
        ("force_words_ids", vec![json!([])], "none"),
        ("guidance_scale", vec![json!(1)], "1"),
        ("max_time", Vec::new(), "none"),
        ("penalty_alpha", vec![json!(0)], "0"),
        ("token_healing", vec![json!(false)], "false"),
        ("top_h", Vec::new(), "none"),
        ("watermarking_config", Vec::new(), "none"),
    ]
}

/// Whether a value equals `inert`; numbers may have a decimal point.
fn is(value: &Value, inert: &Value) -> bool {
    value == inert || value.as_f64().is_some_and(|value| inert.as_f64() == Some(value))
}

/// Refuses unsupported keys.
pub(super) fn check(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    let draws = fields.get("do_sample") == Some(&Value::Bool(true));
    for (key, inert, wanted) in refused() {
        let Some(value) = fields.get(key) else { continue };
        let without_effect = match key {
            "cache_implementation" => value != "quantized",
            // Truncation matters only when sampling.
            "top_h" => !draws,
            // Ignored when sampling, and with one candidate.
            "penalty_alpha" => {
                draws || fields.get("top_k").is_some_and(|k| k.as_u64().is_some_and(|k| k < 2))
            }
            _ => false,
        };
        if !without_effect && !inert.iter().any(|inert| is(value, inert)) {
            return Err(ConfigError::Generation { key, value: value.clone(), wanted });
        }
    }
    match fields.get("forced_bos_token_id") {
        Some(id) if id.as_u64().is_none_or(|id| u32::try_from(id).is_err()) => Err(ConfigError::Generation {
            key: "forced_bos_token_id",
            value: id.clone(),
            wanted: "a token id",
        }),
        _ => Ok(()),
    }
}

/// Rewrites older keys as current ones.
pub(super) fn modernize(fields: &mut Map<String, Value>) {
    let from_model_config = fields.get("_from_model_config") == Some(&Value::Bool(true));
    if from_model_config
        && fields.get(FORCE_BOS) == Some(&Value::Bool(true))
        && let Some(bos) = fields.get("bos_token_id").cloned()
    {
        fields.insert("forced_bos_token_id".to_owned(), bos);
    }
}

/// Whether the key is a generation setting other than a begin, end or padding id.
pub(super) fn is_setting(key: &str) -> bool {
    SETTINGS.contains(&key) || refused().iter().any(|(refused, ..)| *refused == key)
}

/// Whether `transformers` reads the key, among those without a field.
pub(super) fn is_known(key: &str) -> bool {
    key == FORCE_BOS || INERT.contains(&key) || refused().iter().any(|(refused, ..)| *refused == key)
}
