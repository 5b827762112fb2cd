//! The state of one parameter, and its step.

use andiron_core::ops::{self, Adafactor, AdafactorStep, AdamWStep, LionStep, Moments, SquaredGradients};
use andiron_models::weights::{Depth, ParamInfo};
use burn::tensor::{Device, Tensor};

use super::muon::HiddenMatrices;
use super::{
    AdafactorConfig, GroupConfig, LionConfig, OptimizerConfig, OptimizerKind, decays, is_hidden_matrix,
};

const MEAN: &str = "mean";
const SQUARE: &str = "square";
const SQUARE_ROWS: &str = "square_rows";
const SQUARE_COLUMNS: &str = "square_columns";
const MOMENTUM: &str = "momentum";
pub(super) const AWAY: &str = "moments are away only during an update";

/// The state of one trainable parameter.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    shape: Vec<usize>,
    pub(super) rule: Rule,
    /// Multiplies the learning rate.
    lr_factor: f64,
    weight_decay: f32,
    /// The process that has the moments, of those that share a run.
    pub(super) owner: usize,
    /// In the order of [`Slot::moment_shapes`], flattened; taken while they are updated, and absent where another process has them.
    pub(super) moments: Option<Vec<Tensor<1>>>,
}

/// How a parameter is updated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    Adamw,
    Muon(HiddenMatrices),
    Adafactor {
        /// Whether there is a running mean of updates.
        mean: bool,
    },
    Lion,
}

/// A step, as it is for all parameters.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) config: &'a OptimizerConfig,
    /// Number of this update, from 1.
    pub(super) number: u64,
    pub(super) lr: f64,
    pub(super) grad_scale: f32,
}

impl Slot {
    /// A parameter and its settings; the owner is the first process, and there are no moments yet.
    ///
    /// # Panics
    /// If the group freezes the parameter.
    pub(super) fn new(
        parameter: ParamInfo,
        depth: Depth,
        group: Option<&GroupConfig>,
        config: &OptimizerConfig,
    ) -> Self {
        let rule = Rule::of(&parameter, config);
        let group_lr = group.and_then(|group| group.lr);
        let lr_scale = group.and_then(|group| group.lr_scale).unwrap_or(1.0);
        let of_muon = config.muon.as_ref().filter(|_| matches!(rule, Rule::Muon(_))).and_then(|muon| muon.lr);
        let peak = group_lr.unwrap_or(of_muon.unwrap_or(config.lr) * lr_scale);
        let above = depth.layers_above().min(i32::MAX as usize) as i32;
        let of_role = if decays(parameter.role, config.decay_embeddings) { config.weight_decay } else { 0.0 };
        let weight_decay = group.and_then(|group| group.weight_decay).unwrap_or(of_role) as f32;
        let ParamInfo { name, shape, .. } = parameter;
        assert!(group.is_none_or(|group| !group.freeze), "{name} is frozen before an optimizer is made");
        let lr_factor = peak / config.lr * config.layer_decay.unwrap_or(1.0).powi(above);
        Self { name, shape, rule, lr_factor, weight_decay, owner: 0, moments: None }
    }

    /// The moments before the first update.
    pub(super) fn begin(&mut self, device: &Device) {
        let zeros = |(_, shape): (_, Vec<usize>)| Tensor::zeros([shape.iter().product::<usize>()], device);
        self.moments = Some(self.moment_shapes().into_iter().map(zeros).collect());
    }

    /// Elements of the parameter.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Names and shapes of the moments.
    pub(super) fn moment_shapes(&self) -> Vec<(&'static str, Vec<usize>)> {
        let whole = |name| (name, self.shape.clone());
        match (self.rule, &self.shape[..]) {
            (Rule::Adamw, _) => vec![whole(MEAN), whole(SQUARE)],
            (Rule::Muon(_), _) => vec![whole(MOMENTUM)],
            (Rule::Lion, _) => vec![whole(MEAN)],
            (Rule::Adafactor { mean }, shape) => {
                let mut squares = match *shape {
                    [rows, columns] => vec![(SQUARE_ROWS, vec![rows]), (SQUARE_COLUMNS, vec![columns])],
                    _ => vec![whole(SQUARE)],
                };
                squares.extend(mean.then(|| whole(MEAN)));
                squares
            }
        }
    }

    /// The moments, of which there are `N`.
    pub(super) fn take_moments<const N: usize>(&mut self) -> [Tensor<1>; N] {
        self.moments.take().and_then(|moments| moments.try_into().ok()).expect(AWAY)
    }

    /// The parameter after its step; all tensors are flat. The gradient of Muon's is the direction already.
    pub(super) fn moved(&mut self, value: Tensor<1>, grad: Tensor<1>, step: Step<'_>) -> Tensor<1> {
        let lr = step.lr * self.lr_factor;
        match self.rule {
            Rule::Adamw => self.adamw(value, grad, step.adamw(lr as f32, self.weight_decay)),
            Rule::Muon(hidden) => {
                let keep = 1.0 - lr * f64::from(self.weight_decay);
                ops::sgd_step(value, grad, keep as f32, (lr * hidden.lr_factor) as f32)
            }
            Rule::Adafactor { mean } => {
                self.adafactor(value, grad, mean, step.adafactor(lr as f32, self.weight_decay))
            }
            Rule::Lion => {
                let [mean] = self.take_moments();
                let (value, mean) = ops::lion(value, grad, mean, step.lion(lr as f32, self.weight_decay));
                self.moments = Some(vec![mean]);
                value
            }
        }
    }

    fn adamw(&mut self, value: Tensor<1>, grad: Tensor<1>, step: AdamWStep) -> Tensor<1> {
        let [mean, square] = self.take_moments();
        let Moments { value, mean, square } = ops::adamw(Moments { value, mean, square }, grad, step);
        self.moments = Some(vec![mean, square]);
        value
    }

    fn adafactor(
        &mut self,
        value: Tensor<1>,
        grad: Tensor<1>,
        has_mean: bool,
        step: AdafactorStep,
    ) -> Tensor<1> {
        let mut moments = self.moments.take().expect(AWAY);
        let mean = if has_mean { moments.pop() } else { None };
        let squares = match <[Tensor<1>; 2]>::try_from(moments) {
            Ok([rows, columns]) => SquaredGradients::Factored { rows, columns },
            Err(mut whole) => SquaredGradients::Whole(whole.pop().expect(AWAY)),
        };
        let moved = ops::adafactor(Adafactor { value, squares, mean }, grad, step);
        let mut moments = match moved.squares {
            SquaredGradients::Factored { rows, columns } => vec![rows, columns],
            SquaredGradients::Whole(whole) => vec![whole],
        };
        moments.extend(moved.mean);
        self.moments = Some(moments);
        moved.value
    }
}

impl Rule {
    fn of(parameter: &ParamInfo, config: &OptimizerConfig) -> Self {
        match (config.kind, &parameter.shape[..], parameter.weight) {
            (OptimizerKind::Muon, &[rows, columns], Some(kind)) if is_hidden_matrix(parameter) => {
                let adjust = config.muon.clone().unwrap_or_default().adjust_lr_fn;
                Self::Muon(HiddenMatrices::new([rows, columns], kind, adjust))
            }
            (OptimizerKind::Adamw | OptimizerKind::Muon, ..) => Self::Adamw,
            (OptimizerKind::Adafactor, ..) => {
                let mean = config.adafactor.as_ref().is_some_and(|adafactor| adafactor.beta1.is_some());
                Self::Adafactor { mean }
            }
            (OptimizerKind::Lion, ..) => Self::Lion,
        }
    }
}

impl Step<'_> {
    fn adamw(self, lr: f32, weight_decay: f32) -> AdamWStep {
        AdamWStep {
            lr,
            beta1: self.config.beta1() as f32,
            beta2: self.config.beta2() as f32,
            eps: self.config.eps() as f32,
            weight_decay,
            step: self.number,
            grad_scale: self.grad_scale,
        }
    }

    fn lion(self, lr: f32, weight_decay: f32) -> LionStep {
        let LionConfig { beta1, beta2 } = self.config.lion.clone().unwrap_or_default();
        let (beta1, beta2) = (beta1 as f32, beta2 as f32);
        LionStep { lr, beta1, beta2, weight_decay, grad_scale: self.grad_scale }
    }

    fn adafactor(self, lr: f32, weight_decay: f32) -> AdafactorStep {
        let AdafactorConfig { scale_parameter, clip_threshold, decay_rate, beta1, eps, .. } =
            self.config.adafactor.clone().unwrap_or_default();
        AdafactorStep {
            lr,
            scale_parameter,
            min_rms: eps[1] as f32,
            eps: eps[0] as f32,
            clip_threshold: clip_threshold as f32,
            decay_rate: decay_rate as f32,
            beta1: beta1.unwrap_or(0.0) as f32,
            weight_decay,
            step: self.number,
            grad_scale: self.grad_scale,
        }
    }
}
