//! Configuration of the optimizer.

use serde::{Deserialize, Serialize};

use super::{AdafactorConfig, GroupConfig, LionConfig, MuonConfig, Schedule, ScheduleKind};
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
    /// Adafactor, whose second moments of a matrix are a number for each row and each column.
    Adafactor,
    /// Lion.
    Lion,
}

impl OptimizerKind {
    fn is_adamw(&self) -> bool {
        *self == Self::Adamw
    }

    /// Whether AdamW updates some parameters, so that its betas and epsilon have a meaning.
    fn has_adamw(self) -> bool {
        matches!(self, Self::Adamw | Self::Muon)
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
    /// Learning rate at the end of the run, or the lower bound of an `inverse_sqrt` schedule; ignored by a constant one.
    #[serde(default)]
    pub min_lr: f64,
    /// Warm-up steps; a shorter run ends during the warm-up.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Warm-up as a share of the run, rounded up to whole steps, in the place of `warmup_steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    /// Decay steps at the end of a `wsd` schedule, which requires them or `decay_ratio`; refused for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// The decay of a `wsd` schedule as a share of the run, rounded up to whole steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_ratio: Option<f64>,
    /// Steps after the warm-up in which the rate of an `inverse_sqrt` schedule falls by a factor of √2; absent, as many as
    /// the warm-up has, or 10 000 without a warm-up. Refused for other schedules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timescale: Option<u64>,
    /// AdamW's decay of the running mean of gradients, 0.9 if absent; refused for kinds without AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// AdamW's decay of the running mean of squared gradients, 0.999 if absent, as in torch; refused for kinds without AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// AdamW's epsilon, added to the root of the second moment, 1e-8 if absent; refused for kinds without AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
    /// Whether embeddings decay as well; see [`decays`](super::decays).
    #[serde(default)]
    pub decay_embeddings: bool,
    /// Maximum global gradient norm; 0 means no clipping.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
    /// Factor of the learning rate from each layer to the one below it, in `(0, 1]`: 1 after the blocks, `layer_decay` in the
    /// last block, its square in the one before, and once more than there are blocks for embeddings. Each stack of an
    /// encoder-decoder is counted by itself.
    ///
    /// Source: Bao et al. 2022, "BEiT", <https://arxiv.org/abs/2106.08254>. ELECTRA, where this comes from (Clark et al. 2020,
    /// <https://arxiv.org/abs/2003.10555>), has one factor more everywhere below the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
    /// Decay of an exponential moving average of the weights, which is validated and exported in their place; see
    /// [`Ema`](super::Ema).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// Settings of [`OptimizerKind::Muon`], allowed for that kind only; absent, the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// Settings of [`OptimizerKind::Adafactor`], allowed for that kind only; absent, the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adafactor: Option<AdafactorConfig>,
    /// Settings of [`OptimizerKind::Lion`], allowed for that kind only; absent, the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lion: Option<LionConfig>,
    /// Whether the processes that share a run divide the optimizer's state: each holds the moments of some parameters, updates
    /// those, and sends them to the others. This takes memory from each and changes no result; one process holds all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shard: bool,
    /// Parameter groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupConfig>,
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;

/// The second beta of [`OptimizerConfig::constant`].
const SMALL_MODELS_BETA2: f64 = 0.99;
const EPS: f64 = 1e-8;

/// Time scale of an `inverse_sqrt` schedule without a warm-up.
const TIMESCALE: u64 = 10_000;

fn default_clip_norm() -> f64 {
    1.0
}

impl OptimizerConfig {
    /// AdamW at a constant learning rate, with common settings for small language models: betas of 0.9 and 0.99, a weight decay
    /// of 0.1 without embeddings, a maximum gradient norm of 1. Other settings start from it by struct update.
    pub fn constant(lr: f64) -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            schedule: ScheduleKind::Constant,
            lr,
            min_lr: 0.0,
            warmup_steps: 0,
            warmup_ratio: None,
            decay_steps: None,
            decay_ratio: None,
            timescale: None,
            beta1: Some(BETA1),
            beta2: Some(SMALL_MODELS_BETA2),
            eps: Some(EPS),
            weight_decay: 0.1,
            decay_embeddings: false,
            clip_norm: default_clip_norm(),
            layer_decay: None,
            ema_decay: None,
            muon: None,
            adafactor: None,
            lion: None,
            shard: false,
            groups: Vec::new(),
        }
    }

    /// The same for another kind: settings of kinds it does not use are removed, those it needs get the values of
    /// [`constant`](Self::constant), or their defaults.
    #[must_use]
    pub fn with_kind(mut self, kind: OptimizerKind) -> Self {
        self.kind = kind;
        self.beta2 = kind.has_adamw().then(|| self.beta2.unwrap_or(SMALL_MODELS_BETA2));
        if !kind.has_adamw() {
            (self.beta1, self.eps) = (None, None);
        }
        self.muon = self.muon.filter(|_| kind == OptimizerKind::Muon);
        self.adafactor = self.adafactor.filter(|_| kind == OptimizerKind::Adafactor);
        self.lion = self.lion.filter(|_| kind == OptimizerKind::Lion);
        self.resolve();
        self
    }

    /// AdamW's decay of the running mean of gradients.
    pub(super) fn beta1(&self) -> f64 {
        self.beta1.unwrap_or(BETA1)
    }

    /// AdamW's decay of the running mean of squared gradients.
    pub(super) fn beta2(&self) -> f64 {
        self.beta2.unwrap_or(BETA2)
    }

    /// AdamW's epsilon.
    pub(super) fn eps(&self) -> f64 {
        self.eps.unwrap_or(EPS)
    }

    /// Checks the values for a run of `steps` steps.
    ///
    /// # Errors
    /// Names the first invalid field.
    pub fn validate(&self, steps: u64) -> Result<(), ConfigError> {
        check(is_positive(self.lr), "optimizer.lr", self.lr, "above 0")?;
        let below = is_at_least_0(self.min_lr) && self.min_lr <= self.lr;
        check(below, "optimizer.min_lr", self.min_lr, "at least 0 and at most optimizer.lr")?;
        let decay = self.weight_decay;
        check(is_at_least_0(decay), "optimizer.weight_decay", decay, "at least 0")?;
        check(is_at_least_0(self.clip_norm), "optimizer.clip_norm", self.clip_norm, "at least 0")?;
        if let Some(decay) = self.layer_decay {
            let fine = decay > 0.0 && decay <= 1.0;
            check(fine, "optimizer.layer_decay", decay, "above 0 and at most 1, or absent")?;
        }
        if let Some(decay) = self.ema_decay {
            let fine = decay > 0.0 && decay < 1.0;
            check(fine, "optimizer.ema_decay", decay, "between 0 and 1, or absent")?;
        }
        self.validate_kind()?;
        self.validate_schedule(steps)?;
        self.groups.iter().try_for_each(|group| self.validate_group(group))
    }

    /// The settings of the kind, and that there are none of another one.
    fn validate_kind(&self) -> Result<(), ConfigError> {
        let kind = self.kind;
        if kind.has_adamw() {
            check(is_share(self.beta1()), "optimizer.beta1", self.beta1(), "in 0..1")?;
            check(is_share(self.beta2()), "optimizer.beta2", self.beta2(), "in 0..1")?;
            check(is_positive(self.eps()), "optimizer.eps", self.eps(), "above 0")?;
        } else {
            let wanted = match kind {
                OptimizerKind::Lion => {
                    "absent: only the kinds adamw and muon have it, lion has optimizer.lion.beta1 and .beta2"
                }
                _ => "absent: only the kinds adamw and muon have it, see optimizer.adafactor",
            };
            for (field, value) in [
                ("optimizer.beta1", self.beta1),
                ("optimizer.beta2", self.beta2),
                ("optimizer.eps", self.eps),
            ] {
                check(value.is_none(), field, value.unwrap_or_default(), wanted)?;
            }
        }
        let is_muon = self.muon.is_none() || kind == OptimizerKind::Muon;
        check(is_muon, "optimizer.muon", "given", "absent: only the kind muon has it")?;
        let is_adafactor = self.adafactor.is_none() || kind == OptimizerKind::Adafactor;
        check(is_adafactor, "optimizer.adafactor", "given", "absent: only the kind adafactor has it")?;
        let is_lion = self.lion.is_none() || kind == OptimizerKind::Lion;
        check(is_lion, "optimizer.lion", "given", "absent: only the kind lion has it")?;
        self.muon.as_ref().map_or(Ok(()), validate_muon)?;
        self.adafactor.as_ref().map_or(Ok(()), |adafactor| self.validate_adafactor(adafactor))?;
        self.lion.as_ref().map_or(Ok(()), validate_lion)
    }

    fn validate_adafactor(&self, adafactor: &AdafactorConfig) -> Result<(), ConfigError> {
        let AdafactorConfig { scale_parameter: _, relative_step, warmup_init, .. } = *adafactor;
        let AdafactorConfig { clip_threshold, decay_rate, beta1, eps: [square, size], .. } = *adafactor;
        let wanted = "1.0 with adafactor.relative_step, of whose rate it is a factor";
        check(!relative_step || self.lr == 1.0, "optimizer.lr", self.lr, wanted)?;
        let wanted = "false without adafactor.relative_step";
        check(!warmup_init || relative_step, "optimizer.adafactor.warmup_init", "true", wanted)?;
        let field = "optimizer.adafactor.clip_threshold";
        check(is_positive(clip_threshold), field, clip_threshold, "above 0")?;
        let below_0 = decay_rate < 0.0 && decay_rate.is_finite();
        check(below_0, "optimizer.adafactor.decay_rate", decay_rate, "below 0")?;
        if let Some(beta1) = beta1 {
            check(is_share(beta1), "optimizer.adafactor.beta1", beta1, "in 0..1, or absent")?;
        }
        // What f32 takes for 0 would divide by 0.
        let fine = is_positive(square) && square >= f64::from(f32::MIN_POSITIVE) && is_at_least_0(size);
        let shown = format!("[{square:e}, {size:e}]");
        check(fine, "optimizer.adafactor.eps", shown, "two numbers, of at least 1.2e-38 and of at least 0")
    }

    fn validate_schedule(&self, steps: u64) -> Result<(), ConfigError> {
        if let Some(ratio) = self.warmup_ratio {
            let fine = (0.0..=1.0).contains(&ratio);
            check(fine, "optimizer.warmup_ratio", ratio, "a share of the run, from 0 to 1")?;
            let wanted = "absent with optimizer.warmup_steps";
            check(self.warmup_steps == 0, "optimizer.warmup_ratio", ratio, wanted)?;
        }
        if let Some(timescale) = self.timescale {
            check(timescale > 0, "optimizer.timescale", timescale, "at least 1, or absent")?;
            let is_inverse = self.schedule == ScheduleKind::InverseSqrt;
            let wanted = "absent: only the schedule inverse_sqrt has it";
            check(is_inverse, "optimizer.timescale", timescale, wanted)?;
        }
        let decay = match (self.decay_steps, self.decay_ratio) {
            (None, None) => {
                let needs = self.schedule == ScheduleKind::Wsd;
                let wanted = "given for the schedule wsd, or optimizer.decay_ratio";
                return check(!needs, "optimizer.decay_steps", "absent", wanted);
            }
            (Some(_), Some(ratio)) => {
                return check(false, "optimizer.decay_ratio", ratio, "absent with optimizer.decay_steps");
            }
            (Some(steps), None) => ("optimizer.decay_steps", steps.to_string()),
            (None, Some(ratio)) => {
                let fine = (0.0..=1.0).contains(&ratio);
                check(fine, "optimizer.decay_ratio", ratio, "a share of the run, from 0 to 1")?;
                ("optimizer.decay_ratio", ratio.to_string())
            }
        };
        let (field, value) = decay;
        let is_wsd = self.schedule == ScheduleKind::Wsd;
        check(is_wsd, field, &value, "absent: only the schedule wsd has it")?;
        let both = self.decay_steps(steps).checked_add(self.warmup_steps(steps));
        let fits = both.is_some_and(|both| both <= steps);
        check(fits, field, &value, "so that the decay and the warm-up fit into run.steps")
    }

    fn validate_group(&self, group: &GroupConfig) -> Result<(), ConfigError> {
        let GroupConfig { pattern, lr_scale, lr, weight_decay, freeze } = group;
        let fail = |fine: bool, what: &str, wanted: &str| {
            check(fine, "optimizer.groups", format!("match = \"{pattern}\", {what}"), wanted)
        };
        check(
            !pattern.is_empty(),
            "optimizer.groups",
            "match = \"\"",
            "a pattern of names, such as \"*.bias\"",
        )?;
        for (field, value) in [("lr_scale", lr_scale), ("lr", lr)] {
            if let Some(value) = *value {
                fail(is_positive(value), &format!("{field} = {value}"), "a number above 0, or absent")?;
            }
        }
        if let Some(decay) = *weight_decay {
            fail(
                is_at_least_0(decay),
                &format!("weight_decay = {decay}"),
                "a number of at least 0, or absent",
            )?;
        }
        let either = lr_scale.is_none() || lr.is_none();
        fail(either, "lr_scale and lr", "one of both")?;
        let is_relative = self.adafactor.as_ref().is_some_and(|adafactor| adafactor.relative_step);
        fail(!(is_relative && lr.is_some()), "lr", "lr_scale with adafactor.relative_step")?;
        let sets = lr_scale.is_some() || lr.is_some() || weight_decay.is_some();
        fail(!(*freeze && sets), "freeze and others", "freeze alone, which leaves nothing to set")?;
        fail(*freeze || sets, "nothing else", "with lr_scale, lr, weight_decay or freeze")
    }

    /// Fills in the defaults of absent settings.
    pub(crate) fn resolve(&mut self) {
        if self.kind.has_adamw() {
            self.beta1.get_or_insert(BETA1);
            self.beta2.get_or_insert(BETA2);
            self.eps.get_or_insert(EPS);
        }
        match self.kind {
            OptimizerKind::Adamw => {}
            OptimizerKind::Muon => _ = self.muon.get_or_insert_default(),
            OptimizerKind::Adafactor => _ = self.adafactor.get_or_insert_default(),
            OptimizerKind::Lion => _ = self.lion.get_or_insert_default(),
        }
    }

    /// Whether the learning rate of a step depends on the length of the run.
    pub(crate) fn depends_on_length(&self) -> bool {
        let endless = matches!(self.schedule, ScheduleKind::Constant | ScheduleKind::InverseSqrt);
        !endless || self.warmup_ratio.is_some()
    }

    /// Steps of warm-up of a run of `steps` steps.
    fn warmup_steps(&self, steps: u64) -> u64 {
        self.warmup_ratio.map_or(self.warmup_steps, |ratio| share_of(steps, ratio))
    }

    /// Steps of decay at the end of a run of `steps` steps.
    fn decay_steps(&self, steps: u64) -> u64 {
        let of_ratio = self.decay_ratio.map(|ratio| share_of(steps, ratio));
        self.decay_steps.or(of_ratio).unwrap_or(0)
    }

    /// The learning rate of a run of `steps` steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        let warmup_steps = self.warmup_steps(steps);
        let of_warmup = Some(warmup_steps).filter(|&steps| steps > 0).unwrap_or(TIMESCALE);
        Schedule {
            kind: self.schedule,
            lr: self.lr,
            min_lr: self.min_lr,
            warmup_steps,
            decay_steps: self.decay_steps(steps),
            timescale: self.timescale.unwrap_or(of_warmup),
            steps,
            relative: self.adafactor.as_ref().and_then(AdafactorConfig::relative),
        }
    }
}

fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn is_at_least_0(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn is_share(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}

/// This share of a run, rounded up, as in `transformers`.
fn share_of(steps: u64, ratio: f64) -> u64 {
    (steps as f64 * ratio).ceil() as u64
}

fn validate_muon(muon: &MuonConfig) -> Result<(), ConfigError> {
    let MuonConfig { lr, momentum, nesterov: _, ns_steps, ns_coefficients, eps, adjust_lr_fn: _ } = muon;
    if let Some(lr) = *lr {
        check(is_positive(lr), "optimizer.muon.lr", lr, "above 0, or absent")?;
    }
    check(is_share(*momentum), "optimizer.muon.momentum", momentum, "in 0..1")?;
    check((1..100).contains(ns_steps), "optimizer.muon.ns_steps", ns_steps, "in 1..100")?;
    let finite = ns_coefficients.iter().all(|coefficient| coefficient.is_finite());
    let shown = format!("{ns_coefficients:?}");
    check(finite, "optimizer.muon.ns_coefficients", shown, "three finite numbers")?;
    check(is_positive(*eps), "optimizer.muon.eps", eps, "above 0")
}

fn validate_lion(lion: &LionConfig) -> Result<(), ConfigError> {
    let LionConfig { beta1, beta2 } = *lion;
    check(is_share(beta1), "optimizer.lion.beta1", beta1, "in 0..1")?;
    check(is_share(beta2), "optimizer.lion.beta2", beta2, "in 0..1")
}

#[cfg(test)]
mod tests;
