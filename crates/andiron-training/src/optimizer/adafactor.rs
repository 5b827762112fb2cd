//! Settings of Adafactor.

use serde::{Deserialize, Serialize};

/// Settings of Adafactor, named as in `transformers`' `Adafactor`.
///
/// Where this differs from `transformers` 5.24: its class has `scale_parameter` and `relative_step` on by default, its
/// `Trainer` turns both off, and so do the defaults here. With `relative_step`, `optimizer.lr` is a factor of the relative
/// step and must be 1, where `Adafactor` wants no `lr`; the schedule is a factor too, and the rate in the metrics is their
/// product. `optimizer.clip_norm` scales gradients as for every kind; its authors clip updates only, which is
/// `clip_norm = 0.0`. The number of a step is that of the optimizer, also for a parameter that has had no gradient in some steps.
///
/// Source: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
/// <https://arxiv.org/abs/1804.04235>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdafactorConfig {
    /// Multiply the learning rate of each parameter by its RMS, which is taken to be at least `eps[1]`.
    pub scale_parameter: bool,
    /// The learning rate follows the step; see [`RelativeStep`].
    pub relative_step: bool,
    /// The relative step begins with a warm-up.
    pub warmup_init: bool,
    /// Updates of a larger RMS, before the learning rate, are divided so that they have this one.
    pub clip_threshold: f64,
    /// Exponent of the step in the share of new squared gradients in their running means, below 0.
    pub decay_rate: f64,
    /// Decay of the running mean of updates; absent, there is none, which saves its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// Added to squared gradients, and the lower bound of a parameter's RMS.
    pub eps: [f64; 2],
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        Self {
            scale_parameter: false,
            relative_step: false,
            warmup_init: false,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            eps: [1e-30, 1e-3],
        }
    }
}

impl AdafactorConfig {
    /// The factor of the learning rate, if it follows the step.
    pub(super) fn relative(&self) -> Option<RelativeStep> {
        self.relative_step.then_some(RelativeStep { warmup_init: self.warmup_init })
    }
}

/// Adafactor's own learning rate at step `t`, counted from 1: `1 / √t`, but at most 0.01, or at most `t / 10⁶` with a
/// warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeStep {
    /// Whether it begins with a warm-up.
    pub warmup_init: bool,
}

impl RelativeStep {
    /// The rate of step `step`, counted from 0.
    pub(super) fn at(self, step: u64) -> f64 {
        let number = step.saturating_add(1) as f64;
        let most = if self.warmup_init { 1e-6 * number } else { 1e-2 };
        most.min(number.sqrt().recip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relative_step_falls_with_the_root_of_the_step() {
        let at = |warmup_init, number: u64| RelativeStep { warmup_init }.at(number - 1);
        assert_eq!([1, 10_000].map(|number| at(false, number)), [1e-2, 1e-2]);
        assert_eq!(at(false, 40_000), 5e-3);
        assert_eq!(at(true, 1), 1e-6);
        assert_eq!(at(true, 5_000), 1e-6 * 5e3);
        // Both rules meet at the 10 000th step.
        assert_eq!(at(true, 40_000), 5e-3);
    }
}
