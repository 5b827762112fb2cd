//! `generation_config.json`.

mod keys;

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{BeamOptions, EarlyStopping, SamplingChoice, SamplingParams};
use crate::hf_config::{ConfigError, Ids};

pub(crate) const WHAT: &str = "generation config";

/// A model's generation config, with the keys of `generation_config.json`; `None` is unset.
///
/// Rules such as `suppress_tokens` apply to every generation: see [`CausalLm`](super::CausalLm). Settings such as
/// `temperature` are defaults for callers that set none: see [`sampling`](Self::sampling) and
/// [`beam_options`](Self::beam_options).
///
/// Source: `GenerationConfig` of Hugging Face transformers 5.24.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Decoder start token id of an encoder-decoder.
    #[serde(deserialize_with = "possible_id", skip_serializing_if = "Option::is_none")]
    pub decoder_start_token_id: Option<u32>,
    /// Beginning-of-text token id.
    #[serde(deserialize_with = "possible_id", skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// End-of-text token ids.
    #[serde(skip_serializing_if = "Ids::is_empty")]
    pub eos_token_id: Ids,
    /// Strings that end a text. Finding them needs a tokenizer, so callers with one do it, not this crate.
    #[serde(deserialize_with = "one_or_several", skip_serializing_if = "Vec::is_empty")]
    pub stop_strings: Vec<String>,
    /// Padding token id.
    #[serde(deserialize_with = "possible_id", skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// Maximum length, prompt or start id included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Maximum number of new ids; overrides `max_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// Minimum length, prompt or start id included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<usize>,
    /// Minimum number of new ids; overrides `min_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<usize>,
    /// Whether to sample; otherwise greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_sample: Option<bool>,
    /// See [`SamplingParams::temperature`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// See [`SamplingParams::top_k`]; negative means all.
    #[serde(deserialize_with = "count_or_all", skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// See [`SamplingParams::top_p`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// See [`SamplingParams::min_p`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// See [`SamplingParams::typical_p`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// See [`SamplingParams::epsilon_cutoff`]; off unless between 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_cutoff: Option<f32>,
    /// See [`SamplingParams::eta_cutoff`]; off unless between 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_cutoff: Option<f32>,
    /// See [`SamplingParams::repetition_penalty`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// See [`SamplingParams::no_repeat_ngram_size`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Multiplies the positive and divides the negative scores of the source's ids, or of the prompt's ids for a
    /// decoder; 1 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_repetition_penalty: Option<f32>,
    /// Size of source n-grams that may not be generated; 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_no_repeat_ngram_size: Option<usize>,
    /// Sequences of ids that are never generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    /// Bias on the score of the id that completes each sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence_bias: Option<Vec<(Vec<u32>, f32)>>,
    /// Ids that are always masked.
    #[serde(skip_serializing_if = "Ids::is_empty")]
    pub suppress_tokens: Ids,
    /// Ids that are masked at the first generated position.
    #[serde(skip_serializing_if = "Ids::is_empty")]
    pub begin_suppress_tokens: Ids,
    /// Token id forced in the second position, whatever its logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forced_bos_token_id: Option<u32>,
    /// Token id forced at the maximum length, whatever its logit.
    #[serde(skip_serializing_if = "Ids::is_empty")]
    pub forced_eos_token_id: Ids,
    /// Start and factor: after that many generated ids, `|score| · (factor ^ ids beyond − 1)` is added to the scores
    /// of the end-of-text ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_decay_length_penalty: Option<(i64, f64)>,
    /// Whether NaN and infinite scores are replaced instead of being an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_invalid_values: Option<bool>,
    /// Number of beams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_beams: Option<usize>,
    /// See [`BeamOptions::num_beam_groups`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_beam_groups: Option<usize>,
    /// See [`BeamOptions::diversity_penalty`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diversity_penalty: Option<f32>,
    /// Number of returned sequences per prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_return_sequences: Option<usize>,
    /// Length penalty: a finished beam's score is divided by its length to this power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_penalty: Option<f32>,
    /// Stopping criterion of beam search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Whether beam search renormalizes log-probabilities after logits processing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renormalize_logits: Option<bool>,
    /// All other keys, unchanged: inert ones and [unknown ones](Self::unread).
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An id, or none if it is negative, such as the -1 of Llama 1.
fn possible_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Ids::deserialize(deserializer)?.as_slice().first().copied())
}

/// A list of strings, or one string.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or a list of strings")]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(string) => vec![string],
        Given::Several(strings) => strings,
    })
}

/// A count; negative values, as other programs write them, become 0.
fn count_or_all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let count = Option::<i64>::deserialize(deserializer)?;
    Ok(count.map(|count| usize::try_from(count).unwrap_or(0)))
}

impl GenerationConfig {
    /// Parses the object of a `generation_config.json`; null is unset.
    ///
    /// # Errors
    /// If a value has the wrong type, or a key asks for something that is not implemented.
    pub(crate) fn from_fields(fields: Map<String, Value>, path: &Path) -> Result<Self, ConfigError> {
        let mut fields: Map<String, Value> =
            fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        keys::check(&fields)?;
        keys::modernize(&mut fields);
        let json = |source| ConfigError::Json { path: path.to_owned(), what: WHAT, source };
        serde_json::from_value(Value::Object(fields)).map_err(json)
    }

    /// The generation settings of a `config.json` without `generation_config.json`, as older versions of
    /// `transformers` wrote it: those in the object `written`, and `ids`.
    ///
    /// # Errors
    /// As [`from_fields`](Self::from_fields).
    pub(crate) fn of_model_config(
        ids: Map<String, Value>,
        written: &Map<String, Value>,
        path: &Path,
    ) -> Result<Self, ConfigError> {
        let mut fields = ids;
        let said = written.iter().filter(|(key, value)| keys::is_setting(key) && !value.is_null());
        fields.extend(said.map(|(key, value)| (key.clone(), value.clone())));
        let forced = written.get(keys::FORCE_BOS) == Some(&Value::Bool(true));
        if let (true, Some(bos)) = (forced, fields.get("bos_token_id").cloned()) {
            fields.entry("forced_bos_token_id").or_insert(bos);
        }
        Self::from_fields(fields, path)
    }

    /// Drops end-of-text and suppressed ids outside the vocabulary, which cannot be generated, and validates the rest.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub(crate) fn drop_ids_outside(&mut self, vocab_size: usize) -> Result<(), ConfigError> {
        let possible = |id: &u32| (*id as usize) < vocab_size;
        for ids in [&mut self.eos_token_id, &mut self.suppress_tokens, &mut self.begin_suppress_tokens] {
            ids.retain(possible);
        }
        self.validate(vocab_size)
    }

    /// Checks that ids are in the vocabulary and values in their range.
    ///
    /// # Errors
    /// Names the first invalid key.
    fn validate(&self, vocab_size: usize) -> Result<(), ConfigError> {
        let check = |key: &'static str, ids: &[u32]| match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(ConfigError::TokenId { key, id, vocab_size }),
            None => Ok(()),
        };
        check("decoder_start_token_id", self.decoder_start_token_id.as_slice())?;
        check("forced_bos_token_id", self.forced_bos_token_id.as_slice())?;
        check("forced_eos_token_id", self.forced_eos_token_id.as_slice())?;
        check("eos_token_id", self.eos_token_id.as_slice())?;
        self.bad_words_ids.iter().flatten().try_for_each(|ids| check("bad_words_ids", ids))?;
        self.sequence_bias.iter().flatten().try_for_each(|(ids, _)| check("sequence_bias", ids))?;
        for (key, forced) in [
            ("forced_bos_token_id", self.forced_bos_token_id.as_slice()),
            ("forced_eos_token_id", self.forced_eos_token_id.as_slice()),
        ] {
            let suppressed = self.suppress_tokens.as_slice();
            if !forced.is_empty() && forced.iter().all(|id| suppressed.contains(id)) {
                return Err(ConfigError::Generation {
                    key,
                    value: forced.into(),
                    wanted: "an id that suppress_tokens does not rule out",
                });
            }
        }
        if self.stop_strings.iter().any(String::is_empty) {
            let value = self.stop_strings.as_slice().into();
            return Err(ConfigError::Generation {
                key: "stop_strings",
                value,
                wanted: "strings that are not empty",
            });
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: f64, wanted| ConfigError::Generation { key, value: value.into(), wanted };
        let positive = "a finite number above 0";
        if let Some(penalty) = self.encoder_repetition_penalty
            && !(penalty.is_finite() && penalty > 0.0)
        {
            return Err(refuse("encoder_repetition_penalty", penalty.into(), positive));
        }
        if let Some((_, factor)) = self.exponential_decay_length_penalty
            && !(factor.is_finite() && factor > 0.0)
        {
            return Err(refuse("exponential_decay_length_penalty", factor, positive));
        }
        for (_, bias) in self.sequence_bias.iter().flatten() {
            if bias.is_nan() {
                return Err(refuse("sequence_bias", (*bias).into(), "a list of pairs: ids and a number"));
            }
        }
        let sampling = SamplingParams::from(self.sampling());
        let searching = self.beam_options();
        sampling.validate().and_then(|()| searching.validate()).map_err(ConfigError::GenerationNumber)
    }

    /// Whether the config asks for beam search.
    pub fn searches(&self) -> bool {
        self.num_beams.is_some_and(|beams| beams > 1) && self.do_sample != Some(true)
    }

    /// Keys that `transformers` never reads, which change no result.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.rest.keys().map(String::as_str).filter(|key| !keys::is_known(key))
    }

    /// The same, for [`UnknownKeys`](crate::UnknownKeys).
    pub(crate) fn unknown_keys(&self) -> impl Iterator<Item = String> {
        self.unread().map(|key| format!("{key} (generation_config.json)"))
    }

    /// Default sampling parameters.
    ///
    /// As in `transformers`, decoding is greedy (temperature 0) if `do_sample` is false, or if it is absent and a
    /// parameter that affects sampling only, such as `temperature`, is set.
    pub fn sampling(&self) -> SamplingChoice {
        let Self { temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, .. } = *self;
        let numbers = [temperature, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff];
        let says_how = numbers.iter().any(Option::is_some) || top_k.is_some();
        let cutoff =
            |said: Option<f32>| said.map(|value| if (0.0..1.0).contains(&value) { value } else { 0.0 });
        let greedy = match self.do_sample {
            Some(draws) => !draws,
            None => says_how,
        };
        SamplingChoice {
            temperature: if greedy { Some(0.0) } else { temperature },
            top_k,
            top_p,
            min_p,
            typical_p,
            epsilon_cutoff: cutoff(epsilon_cutoff),
            eta_cutoff: cutoff(eta_cutoff),
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
        }
    }

    /// Default beam search options: [`BeamOptions`]' defaults where unset, but one beam. The maximum length is that
    /// for a prompt of one id.
    pub fn beam_options(&self) -> BeamOptions {
        let default = BeamOptions::default();
        BeamOptions {
            num_beams: self.num_beams.unwrap_or(1).max(1),
            num_return_sequences: self.num_return_sequences.unwrap_or(1),
            max_new_tokens: self.max_new(1).unwrap_or(default.max_new_tokens),
            stop_ids: self.eos_token_id.as_slice().to_vec(),
            length_penalty: self.length_penalty.unwrap_or(default.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(default.early_stopping),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            renormalize: self.renormalize_logits.unwrap_or(default.renormalize),
            num_beam_groups: self.num_beam_groups.unwrap_or(default.num_beam_groups),
            diversity_penalty: self.diversity_penalty.unwrap_or(default.diversity_penalty),
            ..default
        }
    }

    /// Maximum number of new ids after a prompt of `prompt_len`, if one is set and positive.
    pub fn max_new(&self, prompt_len: usize) -> Option<usize> {
        let by_length = || self.max_length.map(|limit| limit.saturating_sub(prompt_len));
        self.max_new_tokens.or_else(by_length).filter(|&most| most > 0)
    }

    /// Maximum target length, the start id included, if set.
    pub fn length_limit(&self) -> Option<usize> {
        self.max_new_tokens.map(|new| new.saturating_add(1)).or(self.max_length)
    }

    /// Minimum length, prompt included; 0 if unset.
    pub(super) fn least_length(&self, prompt_len: usize) -> usize {
        match self.min_new_tokens {
            Some(least) => prompt_len.saturating_add(least),
            None => self.min_length.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests;
