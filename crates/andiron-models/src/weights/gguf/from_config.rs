//! Metadata from a `config.json` and a `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::config::{ARCHITECTURE, llama3_factors};
use super::file::GgufError;
use super::tokenizer::{self as keys, Splitting};
use super::value::{Array, Value};
use super::write::{GgufModel, not_supported};

/// The metadata of a file to write, and what else follows from the configuration.
pub(super) struct Pairs {
    pub(super) model_type: String,
    /// Heads of queries and of keys.
    pub(super) n_heads: [usize; 2],
    pub(super) pairs: Vec<(String, Value)>,
    /// What rotary frequencies are divided by, if they are not simply scaled.
    pub(super) rope_factors: Option<Vec<f32>>,
}

impl Pairs {
    pub(super) fn of(model: &GgufModel<'_>, path: &Path) -> Result<Self, GgufError> {
        let config = Config { fields: model.config, path };
        let model_type = model.config["model_type"].as_str().unwrap_or_default();
        let n_heads = match model_type {
            "gpt2" => [config.size("n_head")?; 2],
            "llama" | "qwen2" | "qwen3" => {
                let n_heads = config.size("num_attention_heads")?;
                [n_heads, config.optional_size("num_key_value_heads")?.unwrap_or(n_heads)]
            }
            other => {
                let known = "gpt2, llama, qwen2, qwen3".to_owned();
                let architecture = other.to_owned();
                return Err(GgufError::Architecture { path: path.to_owned(), architecture, known });
            }
        };
        let mut made =
            Self { model_type: model_type.to_owned(), n_heads, pairs: Vec::new(), rope_factors: None };
        made.put(ARCHITECTURE, Value::String(model_type.to_owned()));
        made.put("general.type", Value::String("model".to_owned()));
        made.put("general.file_type", Value::Unsigned(model.half.into()));
        if model_type == "gpt2" {
            made.gpt2(&config)?;
        } else {
            made.llama(&config)?;
        }
        made.tokenizer(model, &config)?;
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

    fn gpt2(&mut self, config: &Config<'_>) -> Result<(), GgufError> {
        config.must_be("scale_attn_weights", &[Json::Bool(true), Json::Null])?;
        config.must_be("scale_attn_by_inverse_layer_idx", &[Json::Bool(false), Json::Null])?;
        let activations = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"].map(Json::from);
        config.must_be("activation_function", &[&activations[..], &[Json::Null]].concat())?;
        let width = config.size("n_embd")?;
        self.put_size("vocab_size", config.size("vocab_size")?);
        self.put_size("context_length", config.size("n_positions")?);
        self.put_size("embedding_length", width);
        self.put_size("feed_forward_length", config.optional_size("n_inner")?.unwrap_or(4 * width));
        self.put_size("block_count", config.size("n_layer")?);
        self.put_size("attention.head_count", self.n_heads[0]);
        let eps = config.number("layer_norm_epsilon")?;
        self.put_own("attention.layer_norm_epsilon", Value::F32(eps as f32));
        Ok(())
    }

    fn llama(&mut self, config: &Config<'_>) -> Result<(), GgufError> {
        config.must_be("hidden_act", &["silu".into(), Json::Null])?;
        config.must_be("use_sliding_window", &[Json::Bool(false), Json::Null])?;
        let width = config.size("hidden_size")?;
        let head_dim = config.optional_size("head_dim")?.unwrap_or(width / self.n_heads[0]);
        self.put_size("vocab_size", config.size("vocab_size")?);
        self.put_size("context_length", config.size("max_position_embeddings")?);
        self.put_size("embedding_length", width);
        self.put_size("feed_forward_length", config.size("intermediate_size")?);
        self.put_size("block_count", config.size("num_hidden_layers")?);
        self.put_size("attention.head_count", self.n_heads[0]);
        self.put_size("attention.head_count_kv", self.n_heads[1]);
        self.put_size("attention.key_length", head_dim);
        self.put_size("attention.value_length", head_dim);
        self.put_size("rope.dimension_count", head_dim);
        let eps = config.number("rms_norm_eps")?;
        self.put_own("attention.layer_norm_rms_epsilon", Value::F32(eps as f32));

        // The fifth generation of `transformers` has one key for what were two.
        let new = Config { fields: &config.fields["rope_parameters"], path: config.path };
        let old = Config { fields: &config.fields["rope_scaling"], path: config.path };
        let theta = config.optional_number("rope_theta")?;
        let theta = theta.or(new.optional_number("rope_theta")?).unwrap_or(10_000.0);
        self.put_own("rope.freq_base", Value::F32(theta as f32));
        let scaling = if old.fields.is_null() { new } else { old };
        let kind = ["rope_type", "type"].into_iter().find_map(|key| scaling.fields[key].as_str());
        match kind {
            None | Some("default") => {}
            Some("linear") => {
                self.put_own("rope.scaling.type", Value::String("linear".to_owned()));
                self.put_own("rope.scaling.factor", Value::F32(scaling.number("factor")? as f32));
            }
            Some("llama3") => {
                scaling.must_be("low_freq_factor", &[1.into(), 1.0.into()])?;
                scaling.must_be("high_freq_factor", &[4.into(), 4.0.into()])?;
                scaling.must_be("original_max_position_embeddings", &[8192.into()])?;
                let factors = llama3_factors(head_dim, theta, scaling.number("factor")?);
                self.rope_factors = Some(factors.into_iter().map(|factor| factor as f32).collect());
            }
            Some(other) => {
                return Err(not_supported(config.path, "rope_scaling", &format!("{other} is not written")));
            }
        }
        Ok(())
    }

    fn tokenizer(&mut self, model: &GgufModel<'_>, config: &Config<'_>) -> Result<(), GgufError> {
        let Some(tokenizer) = model.tokenizer else {
            self.put(keys::MODEL, Value::String("none".to_owned()));
            return Ok(());
        };
        let wrong =
            |what: &str, reason: &str| not_supported(config.path, &format!("tokenizer: {what}"), reason);
        if tokenizer["model"]["type"] != "BPE" || tokenizer["decoder"]["type"] != "ByteLevel" {
            return Err(wrong("model", "only byte-level BPE is written"));
        }
        let Some(pre) = pre_name(tokenizer) else {
            return Err(wrong("pre_tokenizer", "it is none that GGUF has a name for"));
        };
        let (tokens, types) = tokens(tokenizer, config.size("vocab_size")?).ok_or_else(|| {
            wrong("vocab", "an id is no place in the model's vocabulary, or is given twice")
        })?;
        let merges = merges(tokenizer).ok_or_else(|| wrong("merges", "one is not a pair of tokens"))?;
        self.put(keys::MODEL, Value::String("gpt2".to_owned()));
        self.put(keys::PRE, Value::String(pre.to_owned()));
        let n_tokens = tokens.len() as u64;
        self.put(keys::TOKENS, Value::Array(Array::String(tokens)));
        self.put(keys::TOKEN_TYPE, Value::Array(Array::Signed(types)));
        self.put(keys::MERGES, Value::Array(Array::String(merges)));
        for (key, name) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
            // Where there are several, the first is the one that ends a text.
            let given = &config.fields[key];
            let id = given.as_u64().or_else(|| given[0].as_u64()).filter(|&id| id < n_tokens);
            if let Some(id) = id {
                self.put(&format!("tokenizer.ggml.{name}_token_id"), Value::Unsigned(id));
            }
        }
        self.put(keys::ADD_BOS, Value::Bool(begins_with_token(&tokenizer["post_processor"])));
        Ok(())
    }
}

/// Fields of a JSON object.
struct Config<'a> {
    fields: &'a Json,
    path: &'a Path,
}

impl Config<'_> {
    fn wrong(&self, key: &str, reason: &str) -> GgufError {
        not_supported(self.path, &format!("config key {key}"), reason)
    }

    fn size(&self, key: &str) -> Result<usize, GgufError> {
        self.optional_size(key)?.ok_or_else(|| self.wrong(key, "it is missing"))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let value = &self.fields[key];
        if value.is_null() {
            return Ok(None);
        }
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0);
        size.map(Some).ok_or_else(|| self.wrong(key, "it is not a positive integer"))
    }

    fn number(&self, key: &str) -> Result<f64, GgufError> {
        self.optional_number(key)?.ok_or_else(|| self.wrong(key, "it is missing"))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let value = &self.fields[key];
        if value.is_null() {
            return Ok(None);
        }
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "it is not a number"))
    }

    fn must_be(&self, key: &str, allowed: &[Json]) -> Result<(), GgufError> {
        let value = &self.fields[key];
        if allowed.contains(value) {
            return Ok(());
        }
        Err(self.wrong(key, &format!("llama.cpp's model of this type does not do {value}")))
    }
}

/// What GGUF calls the pre-tokenizer.
fn pre_name(tokenizer: &Json) -> Option<&'static str> {
    let ours = steps(&tokenizer["pre_tokenizer"])?;
    // Qwen 2 is the only one that normalizes.
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

/// The steps of a pre-tokenizer, without what makes no difference to tokens; none if one is not known.
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

/// A name and a type for each of `n` ids; none if an id is out of range or two tokens share it.
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

/// Merges as two tokens with a space between them.
fn merges(tokenizer: &Json) -> Option<Vec<String>> {
    let text = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    };
    tokenizer["model"]["merges"].as_array()?.iter().map(text).collect()
}

/// Whether a post-processor puts a token in front of a text.
fn begins_with_token(post_processor: &Json) -> bool {
    match post_processor["type"].as_str() {
        Some("Sequence") => {
            post_processor["processors"].as_array().is_some_and(|steps| steps.iter().any(begins_with_token))
        }
        Some("TemplateProcessing") => !post_processor["single"][0]["SpecialToken"].is_null(),
        _ => false,
    }
}
