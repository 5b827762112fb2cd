//! Keys of a `config.json` that are no fields of a configuration here: with which values they change nothing, and which
//! nothing reads.
//!
//! The rule is that of `transformers`. A key that its class reads and that can change a result is a field, or refused by
//! name unless its value is one that changes nothing. Keys of its base class, of today and of older releases, are one
//! list for all architectures. A key that no release reads for an architecture cannot change what is computed: the model
//! opens, and [`UnknownKeys`] names it.
//!
//! `tests/golden/keys.json` lists what each class of `transformers` 5.24.0 reads; `cargo xtask golden keys` makes it.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde_json::{Map, Value};

use crate::hf_config::ConfigError;

/// The values with which a key changes nothing; null is always one of them.
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
    /// This number.
    Number(f64),
    /// One of these texts, and a list of them.
    Texts(&'static [&'static str]),
}

impl Inert {
    /// Whether `value` is such a value.
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

/// A key and the values with which it changes nothing.
pub(crate) type Rule = (&'static str, Inert);

/// Keys of one architecture's `config.json` that are not fields of its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyRules {
    /// Other names of fields, as `transformers` has them in its `attribute_map`: what they say goes before the field.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Keys, and the values with which they change nothing. They go before those of all architectures.
    pub inert: &'static [(&'static str, Inert)],
    /// Fields that no file has under this name.
    pub own: &'static [&'static str],
    /// Sizes that a file may leave out, and what `transformers` takes them for.
    pub defaults: &'static [(&'static str, usize)],
}

/// Keys of the base class of every configuration in `transformers`, from its second generation to its fifth, and of
/// libraries around it. Ids that are no fields of an architecture are not used by it.
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
    // Read, as `hidden_dropout` is, by heads that no decoder here has.
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
    // Read where masks are made.
    ("is_causal", Inert::On),
    ("is_composition", Inert::Off),
    ("is_decoder", Inert::Always),
    ("is_encoder_decoder", Inert::Off),
    ("label2id", Inert::Always),
    // Read where the cache is made.
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
    // Heads that the fourth generation cut off; the weights may or may not have them still.
    ("pruned_heads", Inert::Off),
    ("quantization_config", Inert::Off),
    ("return_dict", Inert::Always),
    ("sbert_ce_default_activation_function", Inert::Always),
    ("sentence_transformers", Inert::Always),
    ("sep_token_id", Inert::Always),
    // Read where the cache is made.
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
    // Another file of weights.
    ("transformers_weights", Inert::Texts(&["model.safetensors"])),
    ("use_bfloat16", Inert::Always),
    ("use_cache", Inert::Always),
    ("use_return_dict", Inert::Always),
    ("xla_device", Inert::Always),
];

/// What `generation_config.json` says today and older files said in `config.json`. The fifth generation of
/// `transformers` takes these keys out of a configuration before a model is made.
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
    /// No rules but those of all architectures.
    pub const NONE: Self = Self { aliases: &[], inert: &[], own: &[], defaults: &[] };

    /// Takes out of `fields` what is no field of the configuration `C`, and returns what nothing reads of it.
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

    /// Gives what an alias says to its field.
    pub(crate) fn rename(&self, fields: &mut Map<String, Value>) {
        for (alias, field) in self.aliases {
            match fields.shift_remove(*alias) {
                None | Some(Value::Null) => {}
                Some(value) => drop(fields.insert((*field).to_owned(), value)),
            }
        }
    }

    /// Fills in the sizes that are absent.
    pub(crate) fn complete(&self, fields: &mut Map<String, Value>) {
        for (key, size) in self.defaults {
            fields.entry(*key).or_insert_with(|| (*size).into());
        }
    }

    /// Takes the keys out of `fields` that have the name of a field and cannot be meant for it.
    pub(crate) fn take_own(&self, fields: &mut Map<String, Value>) -> UnknownKeys {
        UnknownKeys(self.own.iter().filter_map(|key| Some(fields.shift_remove_entry(*key)?.0)).collect())
    }

    fn rule(&self, key: &str) -> Option<Inert> {
        let of = |rules: &[Rule]| rules.iter().find(|(name, _)| *name == key).map(|(_, inert)| *inert);
        let of_generation = || GENERATION.contains(&key).then_some(Inert::Always);
        of(self.inert).or_else(|| of(ALL)).or_else(of_generation)
    }
}

/// Keys of a model's configuration that no release of the reference program reads, so that they change nothing: of
/// `transformers` for a `config.json`, of llama.cpp for a GGUF file.
///
/// A dot separates the name of a key from that of the object it stands in, as in `rope_scaling.finetuned`. The file is named
/// where it is another one, as in `chat_format (generation_config.json)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownKeys(Vec<String>);

/// At most this many keys are listed in a message.
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

    /// Refuses them, for whoever wants to be strict.
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

/// A configuration, and what its file says beyond it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile<C> {
    /// The configuration.
    pub config: C,
    /// Keys of the file that nothing reads.
    pub unknown_keys: UnknownKeys,
}

impl<C> ConfigFile<C> {
    /// The same file, its configuration made into another type.
    pub(crate) fn map<D>(self, into: impl FnOnce(C) -> D) -> ConfigFile<D> {
        ConfigFile { config: into(self.config), unknown_keys: self.unknown_keys }
    }
}

/// The names of the fields that `C` is read from.
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
    // It fails by design: what it was asked for is what counts.
    drop(C::deserialize(Names(&mut names)));
    names
}
