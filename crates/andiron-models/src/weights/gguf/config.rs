//! The `config.json` equivalent of a GGUF file's metadata.

use andiron_core::position::rope_scaling::yarn_amplitude;
use serde_json::{Map, Value as Json, json};

use super::file::{GgufError, GgufFile};
use super::names::ARCHITECTURES;
use super::value::Value;
use crate::key_rules::Inert;

pub(super) const ARCHITECTURE: &str = "general.architecture";
const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";
/// Divisors of the RoPE frequencies, the result of Llama 3's scaling.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Constants of Llama 3's RoPE scaling in every published model; the factor differs.
pub(super) const LLAMA3_LOW: f64 = 1.0;
pub(super) const LLAMA3_HIGH: f64 = 4.0;
pub(super) const LLAMA3_ORIGINAL: usize = 8192;
/// Tolerance between the file's f32 divisors and those implied by the configuration.
const FACTOR_TOLERANCE: f64 = 1e-4;

/// Supported keys of an architecture, without its name.
const KNOWN: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "feed_forward_length",
    "pooling_type",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
];

/// Keys that llama.cpp reads for these architectures and that are not implemented, or that it reads without using;
/// with the values that change nothing.
const INERT: &[(&str, Inert)] = &[
    ("expert_feed_forward_length", Inert::Always),
    ("expert_group_count", Inert::Always),
    ("expert_group_used_count", Inert::Always),
    ("expert_used_count", Inert::Always),
    ("rope.scaling.finetuned", Inert::Always),
    ("rope.scaling.yarn_attn_factor", Inert::Number(1.0)),
    ("rope.scaling.yarn_beta_fast", Inert::Number(32.0)),
    ("rope.scaling.yarn_beta_slow", Inert::Number(1.0)),
    ("rope.scaling.yarn_ext_factor", Inert::Number(1.0)),
    ("rope.scaling.yarn_log_multiplier", Inert::Number(0.0)),
    ("tensor_data_layout", Inert::Always),
    ("vocab_size", Inert::Always),
];

const ATTN_FACTOR: &str = "rope.scaling.attn_factor";

/// The architecture, equal to Hugging Face's `model_type`.
///
/// # Errors
/// If the key is missing, or the architecture is unknown.
pub(super) fn model_type(file: &GgufFile) -> Result<&str, GgufError> {
    let architecture = file.wanted(ARCHITECTURE, "a string", Value::as_str)?;
    if ARCHITECTURES.contains(&architecture) {
        return Ok(architecture);
    }
    Err(GgufError::Architecture {
        path: file.path().to_owned(),
        architecture: architecture.to_owned(),
        known: ARCHITECTURES.join(", "),
    })
}

/// Number of query heads and of key/value heads.
pub(super) fn n_heads(file: &GgufFile) -> Result<[usize; 2], GgufError> {
    let keys = Keys { file, architecture: model_type(file)? };
    let n_heads = keys.size("attention.head_count")?;
    Ok([n_heads, keys.optional_size("attention.head_count_kv")?.unwrap_or(n_heads)])
}

/// The `config.json` of the model in a GGUF file, for the architectures `llama`, `qwen2`, `qwen3`, `gpt2` and `bert`.
///
/// It has the keys that describe the model, under their names in `transformers`. Keys without a value in the file,
/// such as dropout, are omitted.
///
/// # Errors
/// If a key is missing, has the wrong type, or asks for something that Hugging Face's model of this type does not do.
pub fn config_json(file: &GgufFile) -> Result<Json, GgufError> {
    config_fields(file).map(Json::Object)
}

/// The fields of [`config_json`].
pub(crate) fn config_fields(file: &GgufFile) -> Result<Map<String, Json>, GgufError> {
    let keys = Keys { file, architecture: model_type(file)? };
    keys.unread()?;
    let mut config = Map::new();
    config.insert("model_type".to_owned(), keys.architecture.into());
    match keys.architecture {
        "gpt2" => keys.gpt2(&mut config)?,
        "bert" => keys.bert(&mut config)?,
        _ => keys.llama(&mut config)?,
    }
    for (key, id) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        let id = file.optional(&format!("tokenizer.ggml.{id}_token_id"), "an id", Value::as_u64)?;
        // The encoder does not use the first two, and has no keys for them.
        if let Some(id) = id.filter(|_| keys.architecture != "bert" || key == "pad_token_id") {
            config.insert(key.to_owned(), id.into());
        }
    }
    Ok(config)
}

/// Keys of the architecture that llama.cpp does not read.
///
/// # Errors
/// If a key asks for something that is not implemented.
pub(crate) fn unknown_keys(file: &GgufFile) -> Result<Vec<String>, GgufError> {
    Keys { file, architecture: model_type(file)? }.unread()
}

/// End-of-text and end-of-turn token ids.
///
/// # Errors
/// If one is not an integer.
pub(crate) fn end_ids(file: &GgufFile) -> Result<Vec<u32>, GgufError> {
    let mut ids = Vec::new();
    for name in ["eos", "eot", "eom"] {
        let read = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = file.optional(&format!("tokenizer.ggml.{name}_token_id"), "an id", read)?;
        ids.extend(id.filter(|id| !ids.contains(id)));
    }
    Ok(ids)
}

/// Keys that begin with the architecture's name.
struct Keys<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

impl Keys<'_> {
    fn size(&self, key: &str) -> Result<usize, GgufError> {
        let positive = |value: &Value| value.as_usize().filter(|&size| size > 0);
        self.file.wanted(&self.full(key), "a positive integer", positive)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let positive = |value: &Value| value.as_usize().filter(|&size| size > 0);
        self.file.optional(&self.full(key), "a positive integer", positive)
    }

    fn number(&self, key: &str) -> Result<f64, GgufError> {
        self.file.wanted(&self.full(key), "a number", finite)
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn not_supported(&self, what: &str, reason: &str) -> GgufError {
        let path = self.file.path().to_owned();
        GgufError::NotSupported { path, what: what.to_owned(), reason: reason.to_owned() }
    }

    /// Unknown keys; a key that asks for something that is not implemented is an error.
    fn unread(&self) -> Result<Vec<String>, GgufError> {
        let prefix = self.full("");
        let mut unread = Vec::new();
        for (key, value) in self.file.all_metadata() {
            let Some(short) = key.strip_prefix(&prefix).filter(|short| !KNOWN.contains(short)) else {
                continue;
            };
            match self.inert(short) {
                Some(inert) if inert.holds(&scalar(value)) => {}
                Some(inert) => return Err(self.not_supported(key, &format!("only {inert} is"))),
                None => unread.push(key.to_owned()),
            }
        }
        match self.file.metadata(&self.full("expert_count")).map(Value::as_u64) {
            None | Some(Some(0)) => Ok(unread),
            Some(_) => Err(self.not_supported(&self.full("expert_count"), "experts are not implemented")),
        }
    }

    /// The inert values of a key that llama.cpp reads.
    fn inert(&self, key: &str) -> Option<Inert> {
        match (key, self.architecture) {
            ("attention.causal", "bert") => Some(Inert::Off),
            ("attention.causal", _) => Some(Inert::On),
            _ => INERT.iter().find(|(name, _)| *name == key).map(|(_, inert)| *inert),
        }
    }

    /// Number of rows of the tensor `name`.
    fn rows(&self, name: &str) -> Result<usize, GgufError> {
        let missing = || GgufError::NoTensor { path: self.file.path().to_owned(), tensor: name.to_owned() };
        Ok(self.file.tensor(name).ok_or_else(missing)?.shape.first().copied().unwrap_or(1))
    }

    /// Whether the output head is tied to the token embeddings: it is absent, or a copy.
    fn tied(&self) -> Result<bool, GgufError> {
        let (Some(output), Some(embedding)) = (self.file.tensor(OUTPUT), self.file.tensor(EMBEDDING)) else {
            return Ok(self.file.tensor(OUTPUT).is_none());
        };
        Ok(output.element == embedding.element
            && self.file.read_bytes(OUTPUT)? == self.file.read_bytes(EMBEDDING)?)
    }

    fn gpt2(&self, config: &mut Map<String, Json>) -> Result<(), GgufError> {
        let fields = [
            ("vocab_size", json!(self.rows(EMBEDDING)?)),
            ("n_positions", json!(self.size("context_length")?)),
            ("n_embd", json!(self.size("embedding_length")?)),
            ("n_layer", json!(self.size("block_count")?)),
            ("n_head", json!(self.size("attention.head_count")?)),
            ("n_inner", json!(self.size("feed_forward_length")?)),
            ("activation_function", json!("gelu_new")),
            ("layer_norm_epsilon", json!(self.number("attention.layer_norm_epsilon")?)),
            ("tie_word_embeddings", json!(self.tied()?)),
        ];
        config.extend(fields.map(|(key, value)| (key.to_owned(), value)));
        Ok(())
    }

    fn bert(&self, config: &mut Map<String, Json>) -> Result<(), GgufError> {
        let fields = [
            ("vocab_size", json!(self.rows(EMBEDDING)?)),
            ("hidden_size", json!(self.size("embedding_length")?)),
            ("num_hidden_layers", json!(self.size("block_count")?)),
            ("num_attention_heads", json!(self.size("attention.head_count")?)),
            ("intermediate_size", json!(self.size("feed_forward_length")?)),
            ("hidden_act", json!("gelu")),
            ("max_position_embeddings", json!(self.size("context_length")?)),
            ("type_vocab_size", json!(self.rows("token_types.weight")?)),
            ("layer_norm_eps", json!(self.number("attention.layer_norm_epsilon")?)),
        ];
        config.extend(fields.map(|(key, value)| (key.to_owned(), value)));
        Ok(())
    }

    fn llama(&self, config: &mut Map<String, Json>) -> Result<(), GgufError> {
        let width = self.size("embedding_length")?;
        let [n_heads, n_kv_heads] = n_heads(self.file)?;
        let rotated = self.optional_size("rope.dimension_count")?;
        let head_dim = self.optional_size("attention.key_length")?.or(rotated).unwrap_or(width / n_heads);
        if rotated.is_some_and(|n| n != head_dim) {
            let key = self.full("rope.dimension_count");
            return Err(self.not_supported(&key, "only whole heads are rotated here"));
        }
        if self.optional_size("attention.value_length")?.is_some_and(|n| n != head_dim) {
            let key = self.full("attention.value_length");
            return Err(self.not_supported(&key, "keys and values must be of one width"));
        }
        let theta = self.file.optional(&self.full("rope.freq_base"), "a number", finite)?.unwrap_or(10_000.0);
        let fields = [
            ("vocab_size", json!(self.rows(EMBEDDING)?)),
            ("hidden_size", json!(width)),
            ("intermediate_size", json!(self.size("feed_forward_length")?)),
            ("num_hidden_layers", json!(self.size("block_count")?)),
            ("num_attention_heads", json!(n_heads)),
            ("num_key_value_heads", json!(n_kv_heads)),
            ("hidden_act", json!("silu")),
            ("max_position_embeddings", json!(self.size("context_length")?)),
            ("rms_norm_eps", json!(self.number("attention.layer_norm_rms_epsilon")?)),
            ("rope_theta", json!(theta)),
            ("tie_word_embeddings", json!(self.tied()?)),
        ];
        config.extend(fields.map(|(key, value)| (key.to_owned(), value)));
        // Qwen 2 always has these biases and `hidden_size / n_heads`, without keys for them.
        if self.architecture != "qwen2" {
            config.insert("head_dim".to_owned(), head_dim.into());
            let bias = self.file.tensor("blk.0.attn_q.bias").is_some();
            config.insert("attention_bias".to_owned(), bias.into());
        } else if Some(width) != head_dim.checked_mul(n_heads) {
            let key = self.full("attention.key_length");
            return Err(self.not_supported(&key, "the heads of this architecture share out its width"));
        }
        if self.architecture == "llama" {
            let bias = self.file.tensor("blk.0.ffn_up.bias").is_some();
            config.insert("mlp_bias".to_owned(), bias.into());
        }
        if let Some(scaling) = self.rope_scaling(head_dim, theta)? {
            config.insert("rope_scaling".to_owned(), scaling);
        }
        Ok(())
    }

    fn rope_scaling(&self, head_dim: usize, theta: f64) -> Result<Option<Json>, GgufError> {
        let (key, attn_key) = (self.full("rope.scaling.type"), self.full(ATTN_FACTOR));
        let kind = self.file.optional(&key, "a string", Value::as_str)?.unwrap_or("linear");
        let attn_factor = self.file.optional(&attn_key, "a number", finite)?.unwrap_or(1.0);
        let factor = self.stretch()?;
        if attn_factor != 1.0 && kind != "yarn" {
            return Err(self.not_supported(&attn_key, "only 1 is, unless the scaling is yarn"));
        }
        if self.file.tensor(ROPE_FACTORS).is_some() {
            return match (kind, factor) {
                ("none", _) | (_, None) => self.llama3_scaling(head_dim, theta).map(Some),
                _ => Err(self.not_supported(&key, &format!("{ROPE_FACTORS} scales already"))),
            };
        }
        match (kind, factor) {
            ("none", _) | ("linear", None) => Ok(None),
            ("linear", Some(factor)) => Ok(Some(json!({ "rope_type": "linear", "factor": factor }))),
            ("yarn", factor) => {
                let factor = factor.unwrap_or(1.0);
                let original = self.optional_size("rope.scaling.original_context_length")?;
                let mut scaling = json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "original_max_position_embeddings":
                        original.map_or_else(|| self.size("context_length"), Ok)?,
                });
                if attn_factor != 1.0 {
                    scaling["attention_factor"] = json!(attn_factor * yarn_amplitude(factor, 1.0));
                }
                Ok(Some(scaling))
            }
            (other, _) => Err(self.not_supported(&key, &format!("{other} is none of linear and yarn"))),
        }
    }

    /// RoPE scaling factor, if any: from the current key, else from the older one.
    fn stretch(&self) -> Result<Option<f64>, GgufError> {
        for key in ["rope.scaling.factor", "rope.scale_linear"] {
            if let Some(factor) = self.file.optional(&self.full(key), "a number", finite)? {
                return Ok(Some(factor).filter(|&factor| factor != 0.0 && factor != 1.0));
            }
        }
        Ok(None)
    }

    /// Llama 3's RoPE scaling; the file holds only the resulting divisors.
    fn llama3_scaling(&self, head_dim: usize, theta: f64) -> Result<Json, GgufError> {
        let stored = self.file.read_f32(ROPE_FACTORS)?;
        // The head width is checked before a value per channel pair is allocated.
        if stored.len() != head_dim / 2 {
            return Err(
                self.not_supported(ROPE_FACTORS, "it does not have a number for each pair of channels")
            );
        }
        let factor = stored.iter().copied().fold(1.0, f32::max);
        let implied = llama3_factors(head_dim, theta, factor.into());
        let close = |(&stored, implied): (&f32, f64)| {
            (f64::from(stored) - implied).abs() <= FACTOR_TOLERANCE * implied
        };
        if !stored.iter().zip(implied).all(close) {
            return Err(self.not_supported(ROPE_FACTORS, "it is not what Llama 3 divides frequencies by"));
        }
        Ok(json!({
            "rope_type": "llama3",
            "factor": f64::from(factor),
            "low_freq_factor": LLAMA3_LOW,
            "high_freq_factor": LLAMA3_HIGH,
            "original_max_position_embeddings": LLAMA3_ORIGINAL,
        }))
    }
}

/// A metadata value as JSON. Lists are never inert.
fn scalar(value: &Value) -> Json {
    match value {
        Value::Unsigned(number) => json!(number),
        Value::Signed(number) => json!(number),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::Bool(flag) => json!(flag),
        Value::String(text) => json!(text),
        Value::Array(_) => json!([Json::Null]),
    }
}

fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|value| value.is_finite())
}

/// Llama 3's divisor of each RoPE frequency, for a context extended by `factor`.
pub(super) fn llama3_factors(head_dim: usize, theta: f64, factor: f64) -> Vec<f64> {
    let original = LLAMA3_ORIGINAL as f64;
    (0..head_dim / 2)
        .map(|pair| {
            let wavelength = std::f64::consts::TAU * theta.powf((2 * pair) as f64 / head_dim as f64);
            if wavelength < original / LLAMA3_HIGH {
                1.0
            } else if wavelength > original / LLAMA3_LOW {
                factor
            } else {
                let smooth = (original / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect()
}
