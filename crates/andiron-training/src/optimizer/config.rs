//! Configuration of the optimizer.

use serde::{Deserialize, Serialize};

use super::{MuonConfig, Schedule, ScheduleKind};
use crate::config::{ConfigError, check};

/// Kind of optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW.
    #[default]
    Adamw,
    /// Muon for the matrices of the blocks, AdamW for everything else; see
    /// [`is_hidden_matrix`](super::is_hidden_matrix).
    Muon,
}

impl OptimizerKind {
    fn is_adamw(&self) -> bool {
        *self == Self::Adamw
    }
}

/// Settings of the optimizer, the learning-rate schedule and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Kind of optimizer.
    // Not written where it is AdamW: checkpoints of before there was a choice do not name it.
    #[serde(default, skip_serializing_if = "OptimizerKind::is_adamw")]
    pub kind: OptimizerKind,
    /// Learning-rate schedule after the warm-up.
    pub schedule: ScheduleKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end of the run; ignored by a constant schedule.
    #[serde(default)]
    pub min_lr: f64,
    /// Warm-up steps; a shorter run ends during the warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Decay steps at the end of a `wsd` schedule; required for that schedule and refused for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// AdamW's decay of the running mean of gradients.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// AdamW's decay of the running mean of squared gradients.
    pub beta2: f64,
    /// AdamW's epsilon, added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
    /// Whether embeddings decay as well; see [`decays`](super::decays).
    #[serde(default)]
    pub decay_embeddings: bool,
    /// Maximum global gradient norm; 0 means no clipping.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
    /// Settings of [`OptimizerKind::Muon`], allowed for that kind only; absent, the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
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
    /// A constant learning rate and common settings for small language models: betas of 0.9 and 0.99, a weight decay of 0.1
    /// without embeddings, a maximum gradient norm of 1. Other settings start from it by struct update.
    pub fn constant(lr: f64) -> Self {
        Self {
            kind: OptimizerKind::Adamw,
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
            muon: None,
        }
    }

    /// Checks the values for a run of `steps` steps.
    ///
    /// # Errors
    /// Names the first invalid field.
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
        self.validate_muon()?;
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

    fn validate_muon(&self) -> Result<(), ConfigError> {
        let Some(muon) = &self.muon else { return Ok(()) };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let MuonConfig { lr, momentum, nesterov: _, ns_steps, ns_coefficients, eps, adjust_lr_fn: _ } = muon;
        let is_muon = self.kind == OptimizerKind::Muon;
        check(is_muon, "optimizer.muon", "given", "absent: only the kind muon has it")?;
        if let Some(lr) = *lr {
            check(positive(lr), "optimizer.muon.lr", lr, "above 0, or absent")?;
        }
        check((0.0..1.0).contains(momentum), "optimizer.muon.momentum", momentum, "in 0..1")?;
        check((1..100).contains(ns_steps), "optimizer.muon.ns_steps", ns_steps, "in 1..100")?;
        let finite = ns_coefficients.iter().all(|coefficient| coefficient.is_finite());
        let shown = format!("{ns_coefficients:?}");
        check(finite, "optimizer.muon.ns_coefficients", shown, "three finite numbers")?;
        check(positive(*eps), "optimizer.muon.eps", eps, "above 0")
    }

    /// Fills in the defaults of absent settings.
    pub(crate) fn resolve(&mut self) {
        if self.kind == OptimizerKind::Muon {
            self.muon.get_or_insert_default();
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
    use super::*;
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
    fn senseless_values_of_muon_are_named() {
        for (set, field) in [
            ("muon.lr=0.0", "muon.lr"),
            ("muon.momentum=1.0", "muon.momentum"),
            ("muon.ns_steps=0", "muon.ns_steps"),
            ("muon.ns_steps=100", "muon.ns_steps"),
            ("muon.ns_coefficients=[1.0, nan, 2.0]", "muon.ns_coefficients"),
            ("muon.eps=0.0", "muon.eps"),
        ] {
            check_refused(&["optimizer.kind=muon", &format!("optimizer.{set}")], field);
        }
        check_refused(&["optimizer.muon.momentum=0.9"], "muon");
    }

    #[test]
    fn an_unknown_choice_is_answered_with_the_known_ones() {
        for (set, known) in [
            ("optimizer.kind=sgd", "`adamw` or `muon`"),
            ("optimizer.muon.adjust_lr_fn=none", "`original`, `match_rms_adamw`, `spectral_unclamped`"),
        ] {
            let error = TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(known), "{cause}");
        }
    }

    #[test]
    fn settings_of_muon_are_written_out() {
        let config = TrainConfig::parse(CONFIG, &["optimizer.kind=muon".to_owned()]).unwrap();
        assert_eq!(config.optimizer.muon, Some(MuonConfig::default()));
        let text = config.to_toml();
        assert!(text.contains("kind = \"muon\"") && text.contains("ns_steps = 5"), "{text}");
        assert_eq!(TrainConfig::parse(&text, &[]).unwrap(), config);
    }

    /// The settings shown in the README.
    #[test]
    fn the_readme_shows_the_defaults_of_muon() {
        let readme = include_str!("../../README.md");
        let shown = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let (before, after) = (CONFIG.find("[optimizer]").unwrap(), CONFIG.find("[checkpoint]").unwrap());
        let text = format!("{}{shown}\n{}", &CONFIG[..before], &CONFIG[after..]);
        let config = TrainConfig::parse(&text, &[]).unwrap();
        assert_eq!(config.optimizer.kind, OptimizerKind::Muon);
        assert_eq!(config.optimizer.muon, Some(MuonConfig::default()));
    }

    #[test]
    fn adamw_is_written_as_it_was_before_there_was_a_choice() {
        let config = TrainConfig::parse(CONFIG, &[]).unwrap();
        assert_eq!(config.optimizer.kind, OptimizerKind::Adamw);
        let text = config.to_toml();
        assert!(!text.contains("kind") && !text.contains("muon"), "{text}");
    }

    #[test]
    fn only_wsd_has_decay_steps() {
        check_refused(&["optimizer.schedule=wsd"], "decay_steps");
        check_refused(&["optimizer.decay_steps=3"], "decay_steps");
        check_refused(&["optimizer.schedule=wsd", "optimizer.decay_steps=21"], "decay_steps");
    }
}
