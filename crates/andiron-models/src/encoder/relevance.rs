//! What a cross-encoder's one output is said as, in sentence-transformers' keys of `config.json`.

use serde_json::{Map, Value, json};

use crate::hf_config::ConfigError;

const KEY: &str = "sentence_transformers";
const ACTIVATION: &str = "activation_fn";
/// What versions before 4 wrote.
const OLD_KEY: &str = "sbert_ce_default_activation_function";

/// What the one output of a cross-encoder goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relevance {
    /// A logistic function, so that it is a probability.
    #[default]
    Probability,
    /// Nothing: it is the logarithm of the odds.
    LogOdds,
}

impl Relevance {
    /// Reads the object in a `config.json`; a file that says nothing means a probability.
    pub(crate) fn read(config: &Value) -> Result<Self, ConfigError> {
        let new = config.get(KEY).and_then(|section| section.get(ACTIVATION)).map(|value| (KEY, value));
        let old = config.get(OLD_KEY).map(|value| (OLD_KEY, value));
        match new.or(old).filter(|(_, value)| !value.is_null()) {
            None => Ok(Self::default()),
            Some((key, value)) => match value.as_str().and_then(|path| path.rsplit('.').next()) {
                Some("Sigmoid") => Ok(Self::Probability),
                Some("Identity") => Ok(Self::LogOdds),
                _ => Err(ConfigError::Relevance { key, value: value.clone() }),
            },
        }
    }

    pub(crate) fn write(self, fields: &mut Map<String, Value>) {
        let path = match self {
            Self::Probability => "torch.nn.modules.activation.Sigmoid",
            Self::LogOdds => "torch.nn.modules.linear.Identity",
        };
        fields.insert(KEY.to_owned(), json!({ ACTIVATION: path }));
    }

    pub(super) fn of(self, output: f32) -> f32 {
        match self {
            Self::Probability => 1.0 / (1.0 + (-output).exp()),
            Self::LogOdds => output,
        }
    }
}
