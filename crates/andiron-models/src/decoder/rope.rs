//! RoPE in `config.json`: `rope_theta` with `rope_scaling`, or both in one `rope_parameters`.

use andiron_core::position::rope_scaling::{RopeScaling, ScaledRotary, yarn_amplitude};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hf_config::{ConfigError, entries, positive_number};
use crate::key_rules::Inert;

const THETA: &str = "rope_theta";
const SCALING: &str = "rope_scaling";
const PARAMETERS: &str = "rope_parameters";
const KIND: &str = "rope_type";
/// Name of `rope_type` in old files.
const OLD_KIND: &str = "type";
const PARTIAL: &str = "partial_rotary_factor";
const TRAINED_LEN: &str = "original_max_position_embeddings";

/// The keys that each kind of scaling reads.
const READ: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("linear", &["factor"]),
    ("dynamic", &["factor"]),
    ("llama3", &["factor", "low_freq_factor", "high_freq_factor", TRAINED_LEN]),
    (
        "yarn",
        &[
            "factor",
            TRAINED_LEN,
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ],
    ),
];

/// `rope_scaling`: extension of the context beyond the training length.
///
/// Lengths are in tokens; the default is `max_position_embeddings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScalingConfig {
    /// [`RopeScaling::Linear`].
    Linear {
        /// Factor by which the context is extended.
        factor: f64,
    },
    /// [`RopeScaling::Dynamic`]: sequences longer than `max_position_embeddings`, up to `factor` times that.
    Dynamic {
        /// Factor by which the context is extended.
        factor: f64,
    },
    /// [`RopeScaling::Llama3`].
    Llama3 {
        /// Factor by which the context is extended.
        factor: f64,
        /// Channel pairs with fewer rotations than this over the training length are interpolated.
        low_freq_factor: f64,
        /// Channel pairs with more rotations than this over the training length stay as they are.
        high_freq_factor: f64,
        /// Longest sequence in training, in tokens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original_max_position_embeddings: Option<usize>,
    },
    /// [`RopeScaling::Yarn`].
    Yarn {
        /// Factor by which the context is extended; the ratio of the two lengths if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        factor: Option<f64>,
        /// Longest sequence in training, in tokens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original_max_position_embeddings: Option<usize>,
        /// Attention factor: multiplies sines and cosines; derived from `factor` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
        /// Channel pairs with more rotations than this over the training length stay as they are; 32 if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta_fast: Option<f64>,
        /// Channel pairs with fewer rotations than this over the training length are interpolated; 1 if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta_slow: Option<f64>,
        /// With `mscale_all_dim`, an alternative to `attention_factor`: a ratio of two magnitudes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale: Option<f64>,
        /// Weight of the magnitude in the denominator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale_all_dim: Option<f64>,
        /// Whether the bounds of the transition are rounded to channel pairs; true if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        truncate: Option<bool>,
    },
}

/// RoPE settings of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rope<'a> {
    /// `rope_theta`.
    pub(crate) theta: f64,
    /// `rope_scaling`.
    pub(crate) scaling: Option<&'a RopeScalingConfig>,
    /// `max_position_embeddings`.
    pub(crate) max_position_embeddings: usize,
}

impl Rope<'_> {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        use RopeScalingConfig::{Dynamic, Linear, Llama3, Yarn};
        entries("max_position_embeddings", self.max_position_embeddings)?;
        positive_number(THETA, self.theta)?;
        let Some(scaling) = self.scaling else { return Ok(()) };
        entries("original_max_position_embeddings", self.trained_len())?;
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

    /// Longest sequence, in tokens.
    ///
    /// `max_position_embeddings` is the training length for dynamic scaling, and may be for YaRN; otherwise it is the
    /// maximum length.
    pub(super) fn longest(&self) -> usize {
        let stretched = match self.scaling {
            Some(
                RopeScalingConfig::Dynamic { factor } | RopeScalingConfig::Yarn { factor: Some(factor), .. },
            ) => (self.trained_len() as f64 * factor) as usize,
            _ => 0,
        };
        self.max_position_embeddings.max(stretched)
    }

    /// The rotary embedding of the first `n` channels of a head.
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

/// Rewrites either form to `rope_theta` and `rope_scaling`; if a file has both, `rope_scaling` counts.
///
/// Keys that its kind of scaling does not read become separate keys, such as `rope_scaling.finetuned`, so that they
/// are reported as unknown. An unknown kind is left to the deserializer.
pub(super) fn normalise(fields: &mut Map<String, Value>) {
    let said = |value: &Value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty());
    let new = fields.shift_remove(PARAMETERS).filter(said);
    let old = fields.shift_remove(SCALING).filter(said);
    let trained_len = fields.shift_remove(TRAINED_LEN).filter(said);
    let (name, mut scaling) = match (old, new) {
        (Some(Value::Object(scaling)), _) => (SCALING, scaling),
        (None, Some(Value::Object(scaling))) => (PARAMETERS, scaling),
        (None, None) => return,
        (Some(other), _) | (None, Some(other)) => {
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
    if let Some((_, read)) = READ.iter().find(|(name, _)| kind == *name) {
        // A length beside the object takes precedence over the one in it.
        if let Some(trained_len) = trained_len.filter(|_| read.contains(&TRAINED_LEN)) {
            scaling.insert(TRAINED_LEN.to_owned(), trained_len);
        }
        for (key, value) in std::mem::take(&mut scaling) {
            match read.contains(&key.as_str()) {
                true => scaling.insert(key, value),
                false => fields.insert(format!("{name}.{key}"), value),
            };
        }
    }
    if kind != "default" {
        scaling.insert(KIND.to_owned(), kind);
        fields.insert(SCALING.to_owned(), scaling.into());
    }
}

/// The RoPE base in `parameters`, the settings of one layer type, which must be unscaled.
///
/// Unknown keys of the object `name` become separate keys of `fields`.
///
/// # Errors
/// If RoPE is scaled or partial.
pub(crate) fn plain_theta(
    name: &str,
    mut parameters: Map<String, Value>,
    fields: &mut Map<String, Value>,
) -> Result<Option<Value>, ConfigError> {
    let old_kind = parameters.shift_remove(OLD_KIND);
    let wanted = [
        (KIND, parameters.shift_remove(KIND).or(old_kind), Inert::Texts(&["default"])),
        (PARTIAL, parameters.shift_remove(PARTIAL), Inert::Number(1.0)),
    ];
    for (key, value, supported) in wanted {
        if let Some(value) = value.filter(|value| !supported.holds(value)) {
            let (key, value) = (format!("{name}.{key}"), Box::new(value));
            return Err(ConfigError::NotSupported { key, value, supported });
        }
    }
    let theta = parameters.shift_remove(THETA);
    fields.extend(parameters.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
    Ok(theta)
}

/// Refuses a `head_dim` other than the model's head width, where only RoPE reads it.
///
/// # Errors
/// If it differs.
pub(crate) fn refuse_other_head_width(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let Some(value) = fields.shift_remove("head_dim").filter(|value| !value.is_null()) else { return Ok(()) };
    let size = |key: &str| fields.get(key).and_then(Value::as_u64);
    let width = size("hidden_size").zip(size("num_attention_heads").filter(|&heads| heads > 0));
    match width.map(|(width, heads)| width / heads) {
        Some(width) if value.as_u64() == Some(width) => Ok(()),
        Some(width) => Err(ConfigError::NotSupported {
            key: "head_dim".to_owned(),
            value: Box::new(value),
            supported: Inert::Number(width as f64),
        }),
        // The deserializer names the missing size.
        None => Ok(()),
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
        let expected = json!({"rope_theta": 5.0, "partial_rotary_factor": 1.0});
        check(json!({"rope_parameters": usual}), expected);
        let strange = json!({"rope_theta": 5.0, "mrope_section": [1]});
        let expected = json!({"rope_theta": 5.0, "rope_parameters.mrope_section": [1]});
        check(json!({"rope_parameters": strange}), expected);
    }

    #[test]
    fn what_a_kind_of_scaling_does_not_read_stands_apart() {
        let yarn = json!({"rope_type": "yarn", "factor": 4.0, "attn_factor": 0.8, "finetuned": true});
        let expected = json!({"rope_scaling.attn_factor": 0.8, "rope_scaling.finetuned": true,
            "rope_scaling": {"factor": 4.0, "rope_type": "yarn"}});
        check(json!({"rope_scaling": yarn}), expected);
        let unknown = json!({"rope_scaling": {"short_factor": [1.0], "rope_type": "longrope"}});
        check(unknown.clone(), unknown);
    }

    #[test]
    fn a_length_of_training_beside_the_object_goes_before_the_one_in_it() {
        let yarn =
            |len: usize| json!({"factor": 4.0, "original_max_position_embeddings": len, "rope_type": "yarn"});
        let given = json!({"rope_scaling": yarn(64), "original_max_position_embeddings": 77});
        check(given, json!({"rope_scaling": yarn(77)}));
        let linear = json!({"rope_scaling": {"factor": 2.0, "rope_type": "linear"}});
        let Value::Object(mut both) = linear.clone() else { panic!("an object") };
        both.insert("original_max_position_embeddings".to_owned(), 77.into());
        check(Value::Object(both), linear);
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
