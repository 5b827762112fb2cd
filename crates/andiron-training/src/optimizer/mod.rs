//! How gradients become new weights: groups, learning-rate schedule, clipping, AdamW.

mod adamw;
mod clip;
mod groups;
mod schedule;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, check};

pub use adamw::{AdamW, OptimizerError};
pub use clip::{clip_scale, global_norm};
pub use groups::decays;
pub use schedule::{Schedule, ScheduleKind};

/// AdamW, its learning rate over time and the limit on gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Shape of the learning rate after the warm-up.
    pub schedule: ScheduleKind,
    /// Largest learning rate.
    pub lr: f64,
    /// Learning rate at the end of the run; without effect on a constant one.
    #[serde(default)]
    pub min_lr: f64,
    /// Steps in which the learning rate rises; a shorter run ends while it rises.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Last steps in which a `wsd` learning rate falls; given for that schedule and for no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// Decay of the running mean of gradients.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the running mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Share of a weight that is taken away per unit of learning rate.
    pub weight_decay: f64,
    /// Whether embedding tables decay as well; see [`decays`].
    #[serde(default)]
    pub decay_embeddings: bool,
    /// Longest global gradient; 0 clips nothing.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
}

fn default_beta1() -> f64 {
    0.9
}

fn default_eps() -> f64 {
    1e-8
}

fn default_clip_norm() -> f64 {
    1.0
}

impl OptimizerConfig {
    /// A constant learning rate and what is usual for small language models: betas of 0.9 and 0.99, a decay of 0.1 that
    /// spares embeddings, gradients no longer than 1. The start for other settings by struct update.
    pub fn constant(lr: f64) -> Self {
        Self {
            schedule: ScheduleKind::Constant,
            lr,
            min_lr: 0.0,
            warmup_steps: 0,
            decay_steps: None,
            beta1: default_beta1(),
            beta2: 0.99,
            eps: default_eps(),
            weight_decay: 0.1,
            decay_embeddings: false,
            clip_norm: default_clip_norm(),
        }
    }

    /// Checks the values for a run of `steps` steps.
    ///
    /// # Errors
    /// Names the first field that makes no sense.
    pub fn validate(&self, steps: u64) -> Result<(), ConfigError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let at_least_0 = |value: f64| value.is_finite() && value >= 0.0;
        let share = |value: f64| (0.0..1.0).contains(&value);
        check(positive(self.lr), "optimizer.lr", self.lr, "above 0")?;
        let below = at_least_0(self.min_lr) && self.min_lr <= self.lr;
        check(below, "optimizer.min_lr", self.min_lr, "at least 0 and at most optimizer.lr")?;
        check(share(self.beta1), "optimizer.beta1", self.beta1, "in 0..1")?;
        check(share(self.beta2), "optimizer.beta2", self.beta2, "in 0..1")?;
        check(positive(self.eps), "optimizer.eps", self.eps, "above 0")?;
        check(at_least_0(self.weight_decay), "optimizer.weight_decay", self.weight_decay, "at least 0")?;
        check(at_least_0(self.clip_norm), "optimizer.clip_norm", self.clip_norm, "at least 0")?;
        match (self.schedule, self.decay_steps) {
            (ScheduleKind::Wsd, None) => {
                check(false, "optimizer.decay_steps", "absent", "given for the schedule wsd")
            }
            (ScheduleKind::Wsd, Some(decay)) => {
                let fits = decay.checked_add(self.warmup_steps).is_some_and(|both| both <= steps);
                check(fits, "optimizer.decay_steps", decay, "at most run.steps less optimizer.warmup_steps")
            }
            (_, Some(decay)) => {
                check(false, "optimizer.decay_steps", decay, "absent: only the schedule wsd has it")
            }
            (_, None) => Ok(()),
        }
    }

    /// The learning rate of a run of `steps` steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            kind: self.schedule,
            lr: self.lr,
            min_lr: self.min_lr,
            warmup_steps: self.warmup_steps,
            decay_steps: self.decay_steps.unwrap_or(0),
            steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::TrainConfig;
    use crate::testing::CONFIG;

    #[track_caller]
    fn check_refused(set: &[&str], field: &str) {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let error = TrainConfig::parse(CONFIG, &set).unwrap_err();
        assert!(error.to_string().starts_with(&format!("optimizer.{field} is ")), "{error}");
    }

    #[test]
    fn senseless_values_are_named() {
        check_refused(&["optimizer.lr=0.0"], "lr");
        check_refused(&["optimizer.lr=nan"], "lr");
        check_refused(&["optimizer.min_lr=1.0"], "min_lr");
        check_refused(&["optimizer.beta1=1.0"], "beta1");
        check_refused(&["optimizer.beta2=-0.1"], "beta2");
        check_refused(&["optimizer.eps=0.0"], "eps");
        check_refused(&["optimizer.weight_decay=inf"], "weight_decay");
        check_refused(&["optimizer.clip_norm=-1.0"], "clip_norm");
    }

    #[test]
    fn only_wsd_has_decay_steps() {
        check_refused(&["optimizer.schedule=wsd"], "decay_steps");
        check_refused(&["optimizer.decay_steps=3"], "decay_steps");
        check_refused(&["optimizer.schedule=wsd", "optimizer.decay_steps=21"], "decay_steps");
    }
}
