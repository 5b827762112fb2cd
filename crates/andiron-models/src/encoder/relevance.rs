//! Activation of a cross-encoder's output, under the keys of sentence-transformers.

use serde_json::{Map, Value, json};

use crate::hf_config::ConfigError;

const KEY: &str = "sentence_transformers";
const ACTIVATION: &str = "activation_fn";
const NEWEST_KEY: &str = "activation_fn of config_sentence_transformers.json";
/// The key that versions before 4 wrote.
const OLD_KEY: &str = "sbert_ce_default_activation_function";

/// Activation of a cross-encoder's single output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relevance {
    /// Sigmoid: a probability.
    #[default]
    Probability,
    /// Identity: the logit.
    LogOdds,
}

impl Relevance {
    /// Reads the activation: `newest` from `config_sentence_transformers.json`, where sentence-transformers 6 puts
    /// it, else the object in `config.json`; sigmoid if neither sets it.
    pub(super) fn of_files(newest: Option<&Value>, config: &Map<String, Value>) -> Result<Self, ConfigError> {
        if let Some(value) = newest {
            return Self::named(NEWEST_KEY, value);
        }
        let new = config.get(KEY).and_then(|section| section.get(ACTIVATION)).map(|value| (KEY, value));
        let old = config.get(OLD_KEY).map(|value| (OLD_KEY, value));
        match new.or(old).filter(|(_, value)| !value.is_null()) {
            None => Ok(Self::default()),
            Some((key, value)) => Self::named(key, value),
        }
    }

    fn named(key: &'static str, value: &Value) -> Result<Self, ConfigError> {
        match value.as_str().and_then(|path| path.rsplit('.').next()) {
            Some("Sigmoid") => Ok(Self::Probability),
            Some("Identity") => Ok(Self::LogOdds),
            _ => Err(ConfigError::Relevance { key, value: value.clone() }),
        }
    }

    pub(crate) fn write(self, fields: &mut Map<String, Value>) {
        let path = match self {
            Self::Probability => "torch.nn.modules.activation.Sigmoid",
            Self::LogOdds => "torch.nn.modules.linear.Identity",
        };
        fields.insert(KEY.to_owned(), json!({ ACTIVATION: path }));
    }

    /// The score of an output.
    pub fn of(self, output: f32) -> f32 {
        match self {
            Self::Probability => 1.0 / (1.0 + (-output).exp()),
            Self::LogOdds => output,
        }
    }
}
