//! GGUF metadata from a configuration and a `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::Path;

use andiron_core::ops;
use serde_json::{Value as Json, json};

use super::config::{ARCHITECTURE, LLAMA3_HIGH, LLAMA3_LOW, LLAMA3_ORIGINAL, llama3_factors};
use super::file::GgufError;
use super::tokenizer::{self as keys, Splitting};
use super::value::{Array, Value};
use super::write::{GgufModel, not_supported};
use crate::DecoderConfig;
use crate::decoder::gpt2::Gpt2Config;
use crate::decoder::llama_like::{LlamaLike, Shape};
use crate::decoder::rope::RopeScalingConfig;
use crate::hf_config::Activation;

/// Metadata of a file to write, and what else follows from the configuration.
pub(super) struct Pairs {
    pub(super) model_type: String,
    /// Number of query heads and of key/value heads.
    pub(super) n_heads: [usize; 2],
    pub(super) pairs: Vec<(String, Value)>,
    /// Divisors of the RoPE frequencies, if they are not simply scaled.
    pub(super) rope_factors: Option<Vec<f32>>,
}

impl Pairs {
    pub(super) fn of(model: &GgufModel<'_>, path: &Path) -> Result<Self, GgufError> {
        let heads = |shape: Shape| [shape.num_attention_heads, shape.num_key_value_heads];
        let n_heads = match model.config {
            DecoderConfig::Gpt2(config) => [config.n_head; 2],
            DecoderConfig::Llama(config) => heads(Shape::of(config)),
            DecoderConfig::Qwen2(config) => heads(Shape::of(config)),
            DecoderConfig::Qwen3(config) => heads(Shape::of(config)),
            other => {
                let known = "gpt2, llama, qwen2, qwen3".to_owned();
                let architecture = other.model_type().to_owned();
                return Err(GgufError::Architecture { path: path.to_owned(), architecture, known });
            }
        };
        let model_type = model.config.model_type();
        let mut made =
            Self { model_type: model_type.to_owned(), n_heads, pairs: Vec::new(), rope_factors: None };
        made.put(ARCHITECTURE, Value::String(model_type.to_owned()));
        made.put("general.type", Value::String("model".to_owned()));
        made.put("general.file_type", Value::Unsigned(model.half.into()));
        match model.config {
            DecoderConfig::Gpt2(config) => made.gpt2(config, path)?,
            DecoderConfig::Llama(config) => made.llama_like(config, path)?,
            DecoderConfig::Qwen2(config) => made.llama_like(config, path)?,
            DecoderConfig::Qwen3(config) => made.llama_like(config, path)?,
            _ => {}
        }
        made.tokenizer(model, path)?;
        if let Some(template) = model.chat_template {
            made.put(keys::CHAT_TEMPLATE, Value::String(template.to_owned()));
        }
        Ok(made)
    }

    fn put(&mut self, key: &str, value: Value) {
        self.pairs.push((key.to_owned(), value));
    }

    /// A key of the architecture.
    fn put_own(&mut self, key: &str, value: Value) {
        self.pairs.push((format!("{}.{key}", self.model_type), value));
    }

    fn put_size(&mut self, key: &str, size: usize) {
        self.put_own(key, Value::Unsigned(size as u64));
    }

    fn put_number(&mut self, key: &str, number: f64) {
        self.put_own(key, Value::F32(number as f32));
    }

    fn gpt2(&mut self, config: &Gpt2Config, path: &Path) -> Result<(), GgufError> {
        let keys = [
            ("scale_attn_weights", json!(config.scale_attn_weights), config.scale_attn_weights),
            (
                "scale_attn_by_inverse_layer_idx",
                json!(config.scale_attn_by_inverse_layer_idx),
                !config.scale_attn_by_inverse_layer_idx,
            ),
            (
                "activation_function",
                json!(config.activation_function),
                config.activation_function.function() == ops::Activation::GeluTanh,
            ),
        ];
        check(&keys, path)?;
        self.put_size("vocab_size", config.vocab_size);
        self.put_size("context_length", config.n_positions);
        self.put_size("embedding_length", config.n_embd);
        self.put_size("feed_forward_length", config.n_inner.unwrap_or(4 * config.n_embd));
        self.put_size("block_count", config.n_layer);
        self.put_size("attention.head_count", config.n_head);
        self.put_number("attention.layer_norm_epsilon", config.layer_norm_epsilon);
        Ok(())
    }

    fn llama_like<C: LlamaLike>(&mut self, config: &C, path: &Path) -> Result<(), GgufError> {
        let (common, shape) = (config.common(), Shape::of(config));
        let windows = config.differences().windows.map(|windows| windows.by_layer()).unwrap_or_default();
        let slides = windows.iter().any(Option::is_some);
        let keys = [
            ("hidden_act", json!(common.hidden_act), common.hidden_act == Activation::Silu),
            ("use_sliding_window", json!(slides), !slides),
        ];
        check(&keys, path)?;
        let head_dim = shape.d_head();
        self.put_size("vocab_size", common.vocab_size);
        self.put_size("context_length", common.rope.max_position_embeddings);
        self.put_size("embedding_length", common.hidden_size);
        self.put_size("feed_forward_length", common.intermediate_size);
        self.put_size("block_count", common.num_hidden_layers);
        self.put_size("attention.head_count", shape.num_attention_heads);
        self.put_size("attention.head_count_kv", shape.num_key_value_heads);
        self.put_size("attention.key_length", head_dim);
        self.put_size("attention.value_length", head_dim);
        self.put_size("rope.dimension_count", head_dim);
        self.put_number("attention.layer_norm_rms_epsilon", common.rms_norm_eps);
        self.put_number("rope.freq_base", common.rope.theta);
        match common.rope.scaling {
            None => Ok(()),
            Some(RopeScalingConfig::Linear { factor }) => {
                self.put_own("rope.scaling.type", Value::String("linear".to_owned()));
                self.put_number("rope.scaling.factor", *factor);
                Ok(())
            }
            Some(RopeScalingConfig::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            }) => {
                let original = original.unwrap_or(common.rope.max_position_embeddings);
                let keys = [
                    ("low_freq_factor", json!(low), *low == LLAMA3_LOW),
                    ("high_freq_factor", json!(high), *high == LLAMA3_HIGH),
                    ("original_max_position_embeddings", json!(original), original == LLAMA3_ORIGINAL),
                ];
                check(&keys, path)?;
                let factors = llama3_factors(head_dim, common.rope.theta, *factor);
                self.rope_factors = Some(factors.into_iter().map(|factor| factor as f32).collect());
                Ok(())
            }
            Some(RopeScalingConfig::Dynamic { .. }) => {
                Err(not_supported(path, "rope_scaling", "dynamic is not written"))
            }
            Some(RopeScalingConfig::Yarn { .. }) => {
                Err(not_supported(path, "rope_scaling", "yarn is not written"))
            }
        }
    }

    fn tokenizer(&mut self, model: &GgufModel<'_>, path: &Path) -> Result<(), GgufError> {
        let Some(tokenizer) = model.tokenizer else {
            self.put(keys::MODEL, Value::String("none".to_owned()));
            return Ok(());
        };
        let wrong = |what: &str, reason: &str| not_supported(path, &format!("tokenizer: {what}"), reason);
        if tokenizer["model"]["type"] != "BPE" || tokenizer["decoder"]["type"] != "ByteLevel" {
            return Err(wrong("model", "only byte-level BPE is written"));
        }
        let Some(pre) = pre_name(tokenizer) else {
            return Err(wrong("pre_tokenizer", "it is none that GGUF has a name for"));
        };
        let (tokens, types) = tokens(tokenizer, model.config.vocab_size()).ok_or_else(|| {
            wrong("vocab", "an id is no place in the model's vocabulary, or is given twice")
        })?;
        let merges = merges(tokenizer).ok_or_else(|| wrong("merges", "one is not a pair of tokens"))?;
        self.put(keys::MODEL, Value::String("gpt2".to_owned()));
        self.put(keys::PRE, Value::String(pre.to_owned()));
        let n_tokens = tokens.len() as u64;
        self.put(keys::TOKENS, Value::Array(Array::String(tokens)));
        self.put(keys::TOKEN_TYPE, Value::Array(Array::Signed(types)));
        self.put(keys::MERGES, Value::Array(Array::String(merges)));
        // If there are several, the first is the end-of-text id.
        let end_id = model.config.end_ids().as_slice().first().copied();
        for (key, id) in [(keys::BOS, model.config.sizes().bos_token_id), (keys::EOS, end_id)] {
            if let Some(id) = id.map(u64::from).filter(|&id| id < n_tokens) {
                self.put(key, Value::Unsigned(id));
            }
        }
        self.put(keys::ADD_BOS, Value::Bool(begins_with_token(&tokenizer["post_processor"])));
        Ok(())
    }
}

/// Checks that llama.cpp supports these settings: `(key, value, supported)`.
fn check(keys: &[(&str, Json, bool)], path: &Path) -> Result<(), GgufError> {
    match keys.iter().find(|(.., right)| !right) {
        None => Ok(()),
        Some((key, value, _)) => {
            let reason = format!("llama.cpp's model of this type does not do {value}");
            Err(not_supported(path, &format!("config key {key}"), &reason))
        }
    }
}

/// GGUF's name of the pre-tokenizer.
fn pre_name(tokenizer: &Json) -> Option<&'static str> {
    let ours = steps(&tokenizer["pre_tokenizer"])?;
    // Only Qwen 2 has a normalizer.
    let normalizes = match tokenizer["normalizer"]["type"].as_str() {
        None => false,
        Some("NFC") => true,
        Some(_) => return None,
    };
    let same = |splitting: Splitting| {
        steps(&splitting.pre_tokenizer()).as_ref() == Some(&ours)
            && splitting.normalizer().is_null() != normalizes
    };
    Splitting::KNOWN.iter().find(|(_, splitting)| same(*splitting)).map(|(name, _)| *name)
}

/// The steps of a pre-tokenizer, without those that do not affect tokens; none if one is unknown.
fn steps(pre_tokenizer: &Json) -> Option<Vec<String>> {
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            let steps: Option<Vec<_>> =
                pre_tokenizer["pretokenizers"].as_array()?.iter().map(steps).collect();
            Some(steps?.concat())
        }
        "ByteLevel" if pre_tokenizer["add_prefix_space"] == false => {
            Some(vec![if pre_tokenizer["use_regex"] == false { "bytes" } else { "words" }.to_owned()])
        }
        "Digits" if pre_tokenizer["individual_digits"] == true => Some(vec!["digits".to_owned()]),
        "Split" if pre_tokenizer["behavior"] == "Isolated" && pre_tokenizer["invert"] != true => {
            Some(vec![pre_tokenizer["pattern"]["Regex"].as_str()?.to_owned()])
        }
        _ => None,
    }
}

/// Name and type of each of `n` ids; none if an id is out of range or two tokens share it.
fn tokens(tokenizer: &Json, n: usize) -> Option<(Vec<String>, Vec<i64>)> {
    let mut by_id: BTreeMap<u64, (String, i64)> = BTreeMap::new();
    for (token, id) in tokenizer["model"]["vocab"].as_object()? {
        if by_id.insert(id.as_u64()?, (token.clone(), keys::NORMAL)).is_some() {
            return None;
        }
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let kind = if added["special"] == true { keys::CONTROL } else { keys::USER_DEFINED };
        let content = added["content"].as_str()?.to_owned();
        let before = by_id.insert(added["id"].as_u64()?, (content.clone(), kind));
        if before.is_some_and(|(token, _)| token != content) {
            return None;
        }
    }
    if by_id.last_key_value().is_some_and(|(&id, _)| id >= n as u64) {
        return None;
    }
    let filled = |id| by_id.remove(&id).unwrap_or_else(|| (format!("[PAD{id}]"), keys::UNUSED));
    Some((0..n as u64).map(filled).unzip())
}

/// Merges as two tokens separated by a space.
fn merges(tokenizer: &Json) -> Option<Vec<String>> {
    let text = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    };
    tokenizer["model"]["merges"].as_array()?.iter().map(text).collect()
}

/// Whether a post-processor prepends a token to a text.
fn begins_with_token(post_processor: &Json) -> bool {
    match post_processor["type"].as_str() {
        Some("Sequence") => {
            post_processor["processors"].as_array().is_some_and(|steps| steps.iter().any(begins_with_token))
        }
        Some("TemplateProcessing") => !post_processor["single"][0]["SpecialToken"].is_null(),
        _ => false,
    }
}
