//! Direct preference optimization, for decoders: of two answers to a prompt, the chosen one becomes likelier.
//!
//! Source: Rafailov et al. 2023, "Direct Preference Optimization", <https://arxiv.org/abs/2305.18290>.

mod data;
mod journal;

use andiron_core::loss::{self, DpoLosses, DpoOptions};
use andiron_core::ops;
use andiron_data::batch::{HostBatch, Labels};
use andiron_models::{Decoder as _, DecoderConfig};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Measured, Metrics, ModelOf, Objective, Pass};
use crate::config::{ConfigError, check};

/// Options of [`Preference`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceConfig {
    /// How closely the model at the beginning is followed.
    pub beta: f32,
    /// Probability that a preference is the wrong way round ("conservative DPO"), below 0.5. TRL ignores its setting of this
    /// name.
    pub label_smoothing: f32,
}

impl Default for PreferenceConfig {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

impl PreferenceConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let Self { beta, label_smoothing } = *self;
        check(beta > 0.0 && beta.is_finite(), "objective.beta", beta, "above 0")?;
        let fits = (0.0..0.5).contains(&label_smoothing);
        check(fits, "objective.label_smoothing", label_smoothing, "at least 0 and below 0.5")
    }
}

/// The sigmoid loss of direct preference optimization, averaged over pairs of answers.
///
/// The log-probabilities of the reference, which is the model at the beginning, are part of the data. Dropout is off, as in
/// TRL: answers are compared with those of a reference without it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preference {
    /// Its options.
    pub config: PreferenceConfig,
}

/// What a preference objective collects over the validation data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceTally {
    /// Rewards of the chosen and of the rejected answer of each pair.
    pub rewards: Vec<[f32; 2]>,
}

impl Preference {
    /// Log-probability of the answer in each row.
    ///
    /// # Shape
    /// `[rows]`.
    fn log_probabilities(model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let pass = Pass { dropout: None, scale: 1.0, ..*pass };
        let tokens = batch.token_labels().expect("a collator of answers");
        let hidden_btd = model.hidden(pass.ids(&batch.inputs), &mut pass.causal_context());
        let [b, t, d] = hidden_btd.dims();
        let (targets_n, weights_n) = pass.targets(tokens);
        let hidden_nd = hidden_btd.reshape([b * t, d]);
        let losses_n =
            ops::head_losses(hidden_nd, pass.head(model.head().val()), targets_n, weights_n.clone());
        loss::sequence_log_probabilities(losses_n, weights_n, b)
    }

    fn losses(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> DpoLosses {
        let Labels::Preferences { reference, .. } = &batch.labels else { panic!("a collator of pairs") };
        let reference = TensorData::new(reference.clone(), [reference.len()]);
        let reference_n = Tensor::from_data(reference, pass.device);
        let PreferenceConfig { beta, label_smoothing } = self.config;
        let options = DpoOptions { beta, label_smoothing };
        loss::dpo(Self::log_probabilities(model, batch, pass), reference_n, options)
    }
}

impl Objective for Preference {
    type Family = DecoderConfig;
    type Tally = PreferenceTally;
    const UNIT: &'static str = "pairs";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        self.losses(model, batch, pass).losses_p.sum().mul_scalar(pass.scale)
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut PreferenceTally,
    ) -> Tensor<1> {
        let DpoLosses { losses_p, rewards_p2 } = self.losses(model, batch, pass);
        let rewards = rewards_p2.into_data().try_into_vec::<f32>().expect("rewards are f32");
        tally.rewards.extend(rewards.as_chunks::<2>().0);
        losses_p.sum().mul_scalar(pass.scale)
    }

    fn metrics(&self, _: &Measured, tally: &PreferenceTally) -> Metrics {
        let n = tally.rewards.len() as f64;
        if tally.rewards.is_empty() {
            return Metrics::default();
        }
        let mean = |of: fn(&[f32; 2]) -> f64| tally.rewards.iter().map(of).sum::<f64>() / n;
        let values = [
            ("reward_accuracy", mean(|[chosen, rejected]| f64::from(u8::from(chosen > rejected)))),
            ("reward_margin", mean(|[chosen, rejected]| f64::from(chosen - rejected))),
            ("chosen_reward", mean(|[chosen, _]| f64::from(*chosen))),
            ("rejected_reward", mean(|[_, rejected]| f64::from(*rejected))),
        ];
        Metrics { values: values.map(|(name, value)| (name.to_owned(), value)).to_vec(), confusion: None }
    }
}
