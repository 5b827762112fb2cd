//! Rotary positions in `config.json`: `rope_theta` with `rope_scaling`, or both in one `rope_parameters`.

use andiron_core::position::rope_scaling::{RopeScaling, ScaledRotary, yarn_amplitude};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hf_config::{ConfigError, positive, positive_number};

const THETA: &str = "rope_theta";
const SCALING: &str = "rope_scaling";
const PARAMETERS: &str = "rope_parameters";
const KIND: &str = "rope_type";
/// What `rope_type` is called in old files.
const OLD_KIND: &str = "type";
const PARTIAL: &str = "partial_rotary_factor";

/// `rope_scaling`: how a model reads further than it was trained to.
///
/// Lengths are in tokens; where one is absent it is `max_position_embeddings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScalingConfig {
    /// [`RopeScaling::Linear`].
    Linear {
        /// How many times as far.
        factor: f64,
    },
    /// [`RopeScaling::Dynamic`]: texts of more than `max_position_embeddings` tokens, up to `factor` times as many.
    Dynamic {
        /// How many times as far.
        factor: f64,
    },
    /// [`RopeScaling::Llama3`].
    Llama3 {
        /// How many times as far.
        factor: f64,
        /// Pairs that turn fewer times than this in a text of training are slow.
        low_freq_factor: f64,
        /// Pairs that turn more often than this in a text of training are fast.
        high_freq_factor: f64,
        /// Longest text of training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original_max_position_embeddings: Option<usize>,
    },
    /// [`RopeScaling::Yarn`].
    Yarn {
        /// How many times as far; from the two lengths if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        factor: Option<f64>,
        /// Longest text of training.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original_max_position_embeddings: Option<usize>,
        /// Multiplies sines and cosines; from the factor if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
        /// Pairs that turn more often than this in a text of training are fast; 32 if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta_fast: Option<f64>,
        /// Pairs that turn fewer times than this in a text of training are slow; 1 if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta_slow: Option<f64>,
        /// With `mscale_all_dim`, another way to say `attention_factor`: a ratio of two amplitudes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale: Option<f64>,
        /// The weight of the amplitude that is divided by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale_all_dim: Option<f64>,
        /// Whether the transition begins and ends at a pair; yes if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        truncate: Option<bool>,
    },
}

/// What a configuration says about rotary positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rope<'a> {
    /// `rope_theta`.
    pub(super) theta: f64,
    /// `rope_scaling`.
    pub(super) scaling: Option<&'a RopeScalingConfig>,
    /// `max_position_embeddings`.
    pub(super) max_position_embeddings: usize,
}

impl Rope<'_> {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        use RopeScalingConfig::{Dynamic, Linear, Llama3, Yarn};
        positive("max_position_embeddings", self.max_position_embeddings)?;
        positive_number(THETA, self.theta)?;
        let Some(scaling) = self.scaling else { return Ok(()) };
        positive("original_max_position_embeddings", self.trained_len())?;
        match scaling {
            Linear { factor } | Dynamic { factor } => positive_number("rope_scaling.factor", *factor),
            Llama3 { factor, low_freq_factor, high_freq_factor, .. } => {
                positive_number("rope_scaling.factor", *factor)?;
                positive_number("rope_scaling.low_freq_factor", *low_freq_factor)?;
                positive_number(
                    "rope_scaling.high_freq_factor minus low_freq_factor",
                    high_freq_factor - low_freq_factor,
                )
            }
            Yarn { factor, attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, .. } => {
                let numbers = [
                    ("rope_scaling.factor", factor),
                    ("rope_scaling.attention_factor", attention_factor),
                    ("rope_scaling.beta_fast", beta_fast),
                    ("rope_scaling.beta_slow", beta_slow),
                    ("rope_scaling.mscale", mscale),
                    ("rope_scaling.mscale_all_dim", mscale_all_dim),
                ];
                numbers
                    .iter()
                    .try_for_each(|(key, number)| number.map_or(Ok(()), |n| positive_number(key, n)))
            }
        }
    }

    fn trained_len(&self) -> usize {
        let stored = match self.scaling {
            Some(
                RopeScalingConfig::Llama3 { original_max_position_embeddings: len, .. }
                | RopeScalingConfig::Yarn { original_max_position_embeddings: len, .. },
            ) => *len,
            _ => None,
        };
        stored.unwrap_or(self.max_position_embeddings)
    }

    /// Longest text, in tokens.
    ///
    /// `max_position_embeddings` is that of training for dynamic scaling, and may be for YaRN; elsewhere it is taken at
    /// its word.
    pub(super) fn longest(&self) -> usize {
        let stretched = match self.scaling {
            Some(
                RopeScalingConfig::Dynamic { factor } | RopeScalingConfig::Yarn { factor: Some(factor), .. },
            ) => (self.trained_len() as f64 * factor) as usize,
            _ => 0,
        };
        self.max_position_embeddings.max(stretched)
    }

    /// For the first `n` channels of a head.
    pub(super) fn rotary(&self, n: usize) -> ScaledRotary {
        let trained_len = self.trained_len();
        let scaling = self.scaling.map(|scaling| match *scaling {
            RopeScalingConfig::Linear { factor } => RopeScaling::Linear { factor },
            RopeScalingConfig::Dynamic { factor } => RopeScaling::Dynamic { factor, trained_len },
            RopeScalingConfig::Llama3 { factor, low_freq_factor, high_freq_factor, .. } => {
                RopeScaling::Llama3 {
                    factor,
                    slow_turns: low_freq_factor,
                    fast_turns: high_freq_factor,
                    trained_len,
                }
            }
            RopeScalingConfig::Yarn {
                factor,
                attention_factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                truncate,
                ..
            } => {
                let factor = factor.unwrap_or(self.max_position_embeddings as f64 / trained_len as f64);
                let amplitude = attention_factor.unwrap_or_else(|| match (mscale, mscale_all_dim) {
                    (Some(above), Some(below)) => {
                        yarn_amplitude(factor, above) / yarn_amplitude(factor, below)
                    }
                    _ => yarn_amplitude(factor, 1.0),
                });
                RopeScaling::Yarn {
                    factor,
                    slow_turns: beta_slow.unwrap_or(1.0),
                    fast_turns: beta_fast.unwrap_or(32.0),
                    trained_len,
                    whole_pairs: truncate.unwrap_or(true),
                    amplitude,
                }
            }
        });
        ScaledRotary::new(self.theta, n, scaling)
    }
}

/// Makes `rope_theta` and `rope_scaling` of whatever a file has; one that has both forms means `rope_scaling`.
///
/// What does not fit in either is left where the reader of the fields complains about it.
pub(super) fn normalise(fields: &mut Map<String, Value>) {
    let said = |value: &Value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty());
    let new = fields.shift_remove(PARAMETERS).filter(said);
    let old = fields.shift_remove(SCALING).filter(said);
    let mut scaling = match old.or(new) {
        None => return,
        Some(Value::Object(scaling)) => scaling,
        Some(other) => {
            fields.insert(SCALING.to_owned(), other);
            return;
        }
    };
    if let Some(theta) = scaling.shift_remove(THETA) {
        fields.insert(THETA.to_owned(), theta);
    }
    let old_kind = scaling.shift_remove(OLD_KIND);
    let kind = scaling.shift_remove(KIND).or(old_kind).unwrap_or_else(|| "default".into());
    if let Some(share) = scaling.shift_remove(PARTIAL) {
        fields.insert(PARTIAL.to_owned(), share);
    }
    if fields.get(PARTIAL).and_then(Value::as_f64) == Some(1.0) {
        fields.shift_remove(PARTIAL);
    }
    if kind != "default" {
        scaling.insert(KIND.to_owned(), kind);
        fields.insert(SCALING.to_owned(), scaling.into());
        return;
    }
    for (key, value) in scaling {
        fields.insert(format!("{PARAMETERS}.{key}"), value);
    }
}

/// Adds `rope_parameters`, which the fifth generation of `transformers` reads, to `rope_theta` and `rope_scaling`,
/// which the fourth reads.
pub(super) fn supplement(fields: &mut Map<String, Value>) {
    let mut parameters = match fields.get(SCALING) {
        Some(Value::Object(scaling)) => scaling.clone(),
        _ => Map::from_iter([(KIND.to_owned(), "default".into())]),
    };
    parameters.extend(fields.get(THETA).map(|theta| (THETA.to_owned(), theta.clone())));
    fields.insert(PARAMETERS.to_owned(), parameters.into());
}

pub(super) fn default_theta() -> f64 {
    10_000.0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Rope, RopeScalingConfig, normalise, supplement};

    #[track_caller]
    fn check(given: Value, expected: Value) {
        let Value::Object(mut fields) = given else { panic!("an object") };
        normalise(&mut fields);
        assert_eq!(Value::Object(fields), expected);
    }

    #[test]
    fn either_generation_gives_the_same_fields() {
        let linear = json!({"rope_theta": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}});
        check(json!({"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}}), linear.clone());
        let new = json!({"rope_type": "linear", "type": "linear", "factor": 2.0, "rope_theta": 5.0});
        check(json!({"rope_parameters": new}), linear.clone());
        let Value::Object(mut both) = linear.clone() else { panic!("an object") };
        supplement(&mut both);
        assert_eq!(both["rope_parameters"], json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}));
        check(Value::Object(both), linear);
    }

    #[test]
    fn the_default_is_no_scaling() {
        check(json!({"rope_theta": 5.0, "rope_scaling": null}), json!({"rope_theta": 5.0}));
        let usual = json!({"rope_type": "default", "rope_theta": 5.0, "partial_rotary_factor": 1.0});
        check(json!({"rope_parameters": usual}), json!({"rope_theta": 5.0}));
        let strange = json!({"rope_theta": 5.0, "mrope_section": [1]});
        let expected = json!({"rope_theta": 5.0, "rope_parameters.mrope_section": [1]});
        check(json!({"rope_parameters": strange}), expected);
    }

    #[test]
    fn the_longest_text_is_stretched_where_the_length_is_that_of_training() {
        let longest = |scaling: Value| {
            let scaling: RopeScalingConfig = serde_json::from_value(scaling).expect("a scaling");
            let rope = Rope { theta: 1e4, scaling: Some(&scaling), max_position_embeddings: 100 };
            rope.check().expect("it is possible");
            rope.longest()
        };
        assert_eq!(longest(json!({"rope_type": "linear", "factor": 2.5})), 100);
        assert_eq!(longest(json!({"rope_type": "dynamic", "factor": 2.5})), 250);
        let yarn = json!({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 50});
        assert_eq!(longest(yarn), 100);
        assert_eq!(longest(json!({"rope_type": "yarn", "factor": 2.0})), 200);
    }
}
