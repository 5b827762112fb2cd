//! Keys of a `config.json` without a field: inert values and unknown keys.
//!
//! The rule follows `transformers`. A key that its class reads and that can change a result is a field, or refused by
//! name unless its value is inert. Keys of its base class, current and older, are one list for all architectures. A
//! key that no release reads for an architecture cannot change a result: the model opens, and [`UnknownKeys`] names
//! it.
//!
//! `tests/golden/keys.json` lists what each class of `transformers` 5.24.0 reads; `cargo xtask golden keys` makes it.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde_json::{Map, Value};

use crate::hf_config::ConfigError;

/// Inert values of a key, which change nothing; null always is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inert {
    /// Any.
    Always,
    /// False, and an empty list or object.
    Off,
    /// True.
    On,
    /// Null.
    Null,
    /// This value.
    Number(f64),
    /// One of these texts, and a list of them.
    Texts(&'static [&'static str]),
}

impl Inert {
    /// Whether `value` is inert.
    pub(crate) fn holds(self, value: &Value) -> bool {
        let is_text =
            |value: &Value, texts: &[&str]| value.as_str().is_some_and(|text| texts.contains(&text));
        value.is_null()
            || match self {
                Self::Always => true,
                Self::Null => false,
                Self::Off => match value {
                    Value::Array(list) => list.is_empty(),
                    Value::Object(object) => object.is_empty(),
                    other => other == &Value::Bool(false),
                },
                Self::On => value == &Value::Bool(true),
                Self::Number(number) => value.as_f64() == Some(number),
                Self::Texts(texts) => match value {
                    Value::Array(list) => list.iter().all(|entry| is_text(entry, texts)),
                    other => is_text(other, texts),
                },
            }
    }
}

impl fmt::Display for Inert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("anything"),
            Self::Off => f.write_str("null or false"),
            Self::On => f.write_str("true"),
            Self::Null => f.write_str("null"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Texts(texts) => f.write_str(&texts.join(" or ")),
        }
    }
}

/// A key and its inert values.
pub(crate) type Rule = (&'static str, Inert);

/// Keys of an architecture's `config.json` that are not fields of its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyRules {
    /// Aliases of fields, as in `transformers`' `attribute_map`; they take precedence over the field.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Keys and their inert values. They take precedence over those of all architectures.
    pub inert: &'static [(&'static str, Inert)],
    /// Fields that never appear in a file under this name.
    pub own: &'static [&'static str],
    /// Sizes that a file may omit, with the defaults of `transformers`.
    pub defaults: &'static [(&'static str, usize)],
}

/// Keys of `transformers`' base configuration, from its second generation to its fifth, and of libraries around it.
/// Token ids without a field are not used by the architecture.
const ALL: &[Rule] = &[
    ("_attn_implementation", Inert::Always),
    ("_attn_implementation_autoset", Inert::Always),
    ("_attn_implementation_internal", Inert::Always),
    ("_auto_class", Inert::Always),
    ("_commit_hash", Inert::Always),
    ("_experts_implementation", Inert::Always),
    ("_experts_implementation_internal", Inert::Always),
    ("_flash_attn_2_enabled", Inert::Always),
    ("_is_quantized", Inert::Off),
    ("_name_or_path", Inert::Always),
    ("_num_labels", Inert::Always),
    ("_output_attentions", Inert::Always),
    ("_pre_quantization_dtype", Inert::Always),
    ("add_cross_attention", Inert::Off),
    ("architectures", Inert::Always),
    ("attention_chunk_size", Inert::Off),
    ("attn_implementation", Inert::Always),
    ("auto_map", Inert::Always),
    ("base_model_pp_plan", Inert::Always),
    ("base_model_tp_plan", Inert::Always),
    ("bos_token_id", Inert::Always),
    ("cache_implementation", Inert::Always),
    ("chunk_size_feed_forward", Inert::Always),
    // Read, like `hidden_dropout`, by heads that no decoder here has.
    ("classifier_dropout", Inert::Always),
    ("compression_config", Inert::Off),
    ("cross_attention_hidden_size", Inert::Off),
    ("custom_pipelines", Inert::Always),
    ("decoder_start_token_id", Inert::Always),
    ("distributed_config", Inert::Always),
    ("dtype", Inert::Always),
    ("eos_token_id", Inert::Always),
    ("experts_implementation", Inert::Always),
    ("finetuning_task", Inert::Always),
    ("fusion_config", Inert::Off),
    ("gradient_checkpointing", Inert::Always),
    ("hidden_dropout", Inert::Always),
    ("id2label", Inert::Always),
    ("ignore_keys_at_rope_validation", Inert::Always),
    // Read when masks are built.
    ("is_causal", Inert::On),
    ("is_composition", Inert::Off),
    ("is_decoder", Inert::Always),
    ("is_encoder_decoder", Inert::Off),
    ("label2id", Inert::Always),
    // Read when the cache is created.
    ("layer_types", Inert::Texts(&["full_attention"])),
    ("model_type", Inert::Always),
    ("name_or_path", Inert::Always),
    ("num_labels", Inert::Always),
    ("output_attentions", Inert::Always),
    ("output_hidden_states", Inert::Always),
    ("output_past", Inert::Always),
    ("pad_token_id", Inert::Always),
    ("partial_rotary_factor", Inert::Number(1.0)),
    ("per_layer_config", Inert::Off),
    ("prefix", Inert::Always),
    ("problem_type", Inert::Always),
    // Pruned heads of the fourth generation; the weights may still contain them.
    ("pruned_heads", Inert::Off),
    ("quantization_config", Inert::Off),
    ("return_dict", Inert::Always),
    ("sbert_ce_default_activation_function", Inert::Always),
    ("sentence_transformers", Inert::Always),
    ("sep_token_id", Inert::Always),
    // Read when the cache is created.
    ("sliding_window", Inert::Off),
    ("task_specific_params", Inert::Always),
    ("tf_legacy_loss", Inert::Always),
    ("tie_encoder_decoder", Inert::Off),
    ("tie_word_embeddings", Inert::Always),
    // A head that no architecture here has.
    ("token_classification_bias", Inert::Always),
    ("tokenizer_class", Inert::Always),
    ("torch_dtype", Inert::Always),
    ("torchscript", Inert::Always),
    ("transformers.js_config", Inert::Always),
    ("transformers_version", Inert::Always),
    // Another weight file.
    ("transformers_weights", Inert::Texts(&["model.safetensors"])),
    ("use_bfloat16", Inert::Always),
    ("use_cache", Inert::Always),
    ("use_return_dict", Inert::Always),
    ("xla_device", Inert::Always),
];

/// Generation settings, which older files have in `config.json`. The fifth generation of `transformers` removes these
/// keys from a configuration before it builds a model.
pub(crate) const GENERATION: &[&str] = &[
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_config",
    "compile_config",
    "constraints",
    "disable_compile",
    "diversity_penalty",
    "do_sample",
    "dola_layers",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "force_bos_token_to_be_generated",
    "force_words_ids",
    "forced_bos_token_id",
    "forced_decoder_ids",
    "forced_eos_token_id",
    "guidance_scale",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_length",
    "max_matching_ngram_size",
    "max_new_tokens",
    "max_time",
    "min_length",
    "min_new_tokens",
    "min_p",
    "mtp",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_logits",
    "output_scores",
    "penalty_alpha",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "return_dict_in_generate",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "token_healing",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
    "use_model_defaults",
    "watermarking_config",
];

impl KeyRules {
    /// Only the rules of all architectures.
    pub const NONE: Self = Self { aliases: &[], inert: &[], own: &[], defaults: &[] };

    /// Removes keys from `fields` that are not fields of `C`, and returns the unknown ones.
    ///
    /// # Errors
    /// Names a key that asks for something that is not implemented.
    pub(crate) fn apply<C: DeserializeOwned>(
        &self,
        fields: &mut Map<String, Value>,
    ) -> Result<UnknownKeys, ConfigError> {
        let known = field_names::<C>();
        let mut unknown = UnknownKeys::default();
        for (key, value) in std::mem::take(fields) {
            match self.rule(&key) {
                _ if known.contains(&key.as_str()) => drop(fields.insert(key, value)),
                Some(inert) if inert.holds(&value) => {}
                Some(supported) => {
                    return Err(ConfigError::NotSupported { key, value: Box::new(value), supported });
                }
                None => unknown.0.push(key),
            }
        }
        Ok(unknown)
    }

    /// Moves the values of aliases to their fields.
    pub(crate) fn rename(&self, fields: &mut Map<String, Value>) {
        for (alias, field) in self.aliases {
            match fields.shift_remove(*alias) {
                None | Some(Value::Null) => {}
                Some(value) => drop(fields.insert((*field).to_owned(), value)),
            }
        }
    }

    /// Fills in absent sizes.
    pub(crate) fn complete(&self, fields: &mut Map<String, Value>) {
        for (key, size) in self.defaults {
            fields.entry(*key).or_insert_with(|| (*size).into());
        }
    }

    /// Removes keys from `fields` that have the name of an own field.
    pub(crate) fn take_own(&self, fields: &mut Map<String, Value>) -> UnknownKeys {
        UnknownKeys(self.own.iter().filter_map(|key| Some(fields.shift_remove_entry(*key)?.0)).collect())
    }

    fn rule(&self, key: &str) -> Option<Inert> {
        let of = |rules: &[Rule]| rules.iter().find(|(name, _)| *name == key).map(|(_, inert)| *inert);
        let of_generation = || GENERATION.contains(&key).then_some(Inert::Always);
        of(self.inert).or_else(|| of(ALL)).or_else(of_generation)
    }
}

/// Keys of a model's configuration that no release of the reference program reads: `transformers` for a
/// `config.json`, llama.cpp for a GGUF file. They change nothing.
///
/// A dot separates a key from its object, as in `rope_scaling.finetuned`. Other files are named, as in `chat_format
/// (generation_config.json)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownKeys(Vec<String>);

/// Maximum number of keys in a message.
const LISTED: usize = 32;

impl UnknownKeys {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Refuses unknown keys, for strict mode.
    ///
    /// # Errors
    /// If there is one.
    pub fn refuse(&self) -> Result<(), ConfigError> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::UnknownKeys { keys: self.clone() }),
        }
    }
}

impl Extend<String> for UnknownKeys {
    fn extend<T: IntoIterator<Item = String>>(&mut self, others: T) {
        self.0.extend(others);
    }
}

impl IntoIterator for UnknownKeys {
    type Item = String;
    type IntoIter = std::vec::IntoIter<String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for UnknownKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<&str> = self.0.iter().take(LISTED).map(String::as_str).collect();
        f.write_str(&listed.join(", "))?;
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A parsed configuration and the unknown keys of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile<C> {
    /// The configuration.
    pub config: C,
    /// Unknown keys of the file.
    pub unknown_keys: UnknownKeys,
}

impl<C> ConfigFile<C> {
    /// Converts the configuration to another type.
    pub(crate) fn map<D>(self, into: impl FnOnce(C) -> D) -> ConfigFile<D> {
        ConfigFile { config: into(self.config), unknown_keys: self.unknown_keys }
    }
}

/// The field names of `C`.
fn field_names<C: DeserializeOwned>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only the names of fields are asked for"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // It fails by design; the requested field names are what counts.
    drop(C::deserialize(Names(&mut names)));
    names
}
