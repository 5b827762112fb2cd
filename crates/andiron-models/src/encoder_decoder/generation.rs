//! What an encoder-decoder's directory says about generating targets.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Seq2SeqConfig;
use crate::bundle::{Ids, is_there, read_json};
use crate::generate::{BeamOptions, EarlyStopping};
use crate::hf_config::ConfigError;

/// Keys of `config.json` that older generations of `transformers` wrote there and that belong to generation.
const SEARCH_KEYS: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "renormalize_logits",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Keys of `config.json` that name ids.
const ID_KEYS: &[&str] = &["bos_token_id", "eos_token_id", "forced_eos_token_id", "pad_token_id"];

/// An older way to say that the first id is `bos_token_id`.
const FORCE_BOS: &str = "force_bos_token_to_be_generated";

const START: &str = "decoder_start_token_id";

/// Where a target begins and ends and how it is searched for, in the names of `generation_config.json`; without that
/// file, what `config.json` says.
///
/// A length counts every id of the target, the start id included. What is `None` is not said anywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seq2SeqGeneration {
    /// Id before the first of a target.
    pub decoder_start_token_id: u32,
    /// Id that begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Ids that end a target.
    #[serde(default, skip_serializing_if = "Ids::is_empty")]
    pub eos_token_id: Ids,
    /// Id that fills rows up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// The id after the start id, whatever the model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_bos_token_id: Option<u32>,
    /// The last id of a target of the greatest length, whatever the model says.
    #[serde(default, skip_serializing_if = "Ids::is_empty")]
    pub forced_eos_token_id: Ids,
    /// Sequences of ids that never come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Greatest length of a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Greatest length of a target less one, the start id; goes before `max_length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// No end before this length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<usize>,
    /// Targets that a beam search follows at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_beams: Option<usize>,
    /// Targets that are returned for each source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_return_sequences: Option<usize>,
    /// A finished beam's score is divided by its length to this power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_penalty: Option<f32>,
    /// When a beam search ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// No sequence of so many ids comes twice in a target; 0 is no such rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Whether log-probabilities are made to sum to 1 again after ids were ruled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renormalize_logits: Option<bool>,
    /// Every other key, kept as it was.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Seq2SeqGeneration {
    /// How targets are searched for; what is not said is [`BeamOptions`]' default, but for one beam. Targets are at most as
    /// long as is said here.
    pub fn beam_options(&self) -> BeamOptions {
        let default = BeamOptions::default();
        let num_beams = self.num_beams.unwrap_or(1).max(1);
        let number = |key: &str| self.rest.get(key).and_then(Value::as_f64).map(|value| value as f32);
        BeamOptions {
            num_beams,
            num_return_sequences: self.num_return_sequences.unwrap_or(1),
            max_new_tokens: self
                .length_limit()
                .map_or(default.max_new_tokens, |limit| limit.saturating_sub(1)),
            stop_ids: self.eos_token_id.as_slice().to_vec(),
            length_penalty: self.length_penalty.unwrap_or(default.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(default.early_stopping),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
            repetition_penalty: number("repetition_penalty").unwrap_or(default.repetition_penalty),
            renormalize: self.renormalize_logits.unwrap_or(default.renormalize),
            ..default
        }
    }

    /// What `config` says, and nothing else.
    pub fn of(config: &Seq2SeqConfig) -> Self {
        serde_json::from_value(Value::Object(ids(config))).expect("ids of a configuration are ids here")
    }

    /// What the directory says whose `config.json` is the object `written`, read as `config`.
    ///
    /// `generation_config.json` goes before `config.json`, which then only lends the ids of start, end and padding.
    pub(super) fn read(
        config: &Seq2SeqConfig,
        written: &Map<String, Value>,
        (config_path, path): (&Path, &Path),
    ) -> Result<Self, ConfigError> {
        let mut fields = ids(config);
        let mut path = path;
        if is_there(path)? {
            fields.shift_remove("forced_eos_token_id");
            let said: Map<String, Value> = read_json(path, WHAT)?;
            fields.extend(said.into_iter().filter(|(_, value)| !value.is_null()));
        } else {
            path = config_path;
            let said = SEARCH_KEYS.iter().filter_map(|key| written.get_key_value(*key));
            fields.extend(
                said.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())),
            );
            let forced = written.get(FORCE_BOS) == Some(&Value::Bool(true));
            if let (true, Some(bos)) = (forced, fields.get("bos_token_id").cloned()) {
                fields.entry("forced_bos_token_id").or_insert(bos);
            }
        }
        let json = |source| ConfigError::Json { path: path.to_owned(), what: WHAT, source };
        let generation: Self = serde_json::from_value(Value::Object(fields)).map_err(json)?;
        generation.validate(config.target_vocab_size())?;
        Ok(generation)
    }

    /// Checks that every id that may be fed to the decoder or chosen from its predictions exists.
    ///
    /// # Errors
    /// Names the first key with an id that is not below `vocab_size`.
    pub fn validate(&self, vocab_size: usize) -> Result<(), ConfigError> {
        let check = |key: &'static str, ids: &[u32]| match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(ConfigError::TokenId { key, id, vocab_size }),
            None => Ok(()),
        };
        check(START, &[self.decoder_start_token_id])?;
        check("forced_bos_token_id", self.forced_bos_token_id.as_slice())?;
        check("forced_eos_token_id", self.forced_eos_token_id.as_slice())?;
        check("eos_token_id", self.eos_token_id.as_slice())?;
        self.bad_words_ids.iter().try_for_each(|ids| check("bad_words_ids", ids))
    }

    /// Greatest length of a target, the start id included, if it is said.
    pub fn length_limit(&self) -> Option<usize> {
        self.max_new_tokens.map(|new| new.saturating_add(1)).or(self.max_length)
    }
}

const WHAT: &str = "generation config";

/// The ids that a configuration names.
fn ids(config: &Seq2SeqConfig) -> Map<String, Value> {
    let Value::Object(fields) = config.to_value().expect("configurations are plain data") else {
        return Map::new();
    };
    let mut ids: Map<String, Value> = fields
        .into_iter()
        .filter(|(key, value)| ID_KEYS.contains(&key.as_str()) && !value.is_null())
        .collect();
    ids.insert(START.to_owned(), config.decoder_start_token_id().into());
    ids
}
