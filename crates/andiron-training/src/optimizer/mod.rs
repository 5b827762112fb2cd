//! The optimizer: AdamW or Muon, learning-rate schedule, gradient clipping and weight decay.
//!
//! It holds state for the trainable parameters of a model and for no others: a frozen parameter costs no memory, takes no
//! part in the gradient norm and does not decay.

mod clip;
mod config;
mod groups;
mod muon;
mod schedule;
mod state_file;

use andiron_core::ops::{self, AdamWStep, Moments, Momentum, MuonStep};
use andiron_models::weights::{ParamInfo, ParamPath};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};

use muon::HiddenMatrices;

pub use clip::{clip_scale, global_norm};
pub use config::{OptimizerConfig, OptimizerKind};
pub(crate) use groups::is_trainable;
use groups::trainable;
pub use groups::{decays, is_hidden_matrix};
pub use muon::{AdjustLr, MuonConfig};
pub use schedule::{Schedule, ScheduleKind};
pub use state_file::OptimizerError;

const MEAN: &str = "mean";
const SQUARE: &str = "square";
const MOMENTUM: &str = "momentum";
const AWAY: &str = "moments are away only during an update";

/// AdamW or Muon with decoupled weight decay. Moments are kept for each trainable parameter, under its name; parameters
/// are updated in place where the backend can.
///
/// AdamW keeps two moments per element. Muon keeps one per element of its matrices; during an update each thread needs
/// temporary memory of two to four times the largest matrix.
///
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>; for Muon see [`MuonConfig`].
#[derive(Clone, Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    config: OptimizerConfig,
    updates: u64,
}

/// The state of one trainable parameter; moments are flat, whatever the parameter's shape.
#[derive(Clone, Debug)]
struct Slot {
    name: String,
    shape: Vec<usize>,
    decays: bool,
    /// Set if Muon updates the parameter.
    muon: Option<HiddenMatrices>,
    /// In the order of [`Slot::keys`]; taken while they are updated.
    moments: Option<Vec<Tensor<1>>>,
}

impl Slot {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Names of the moments.
    fn keys(&self) -> &'static [&'static str] {
        if self.muon.is_some() { &[MOMENTUM] } else { &[MEAN, SQUARE] }
    }
}

impl Optimizer {
    /// An optimizer for the trainable parameters of `model`, which is in training mode; all moments are zero, on the plain
    /// device `device`.
    ///
    /// # Panics
    /// If nothing is trainable, as in a model that is not in training mode.
    pub fn new<M: Module>(model: &M, config: &OptimizerConfig, device: &Device) -> Self {
        let settings = config.muon.clone().unwrap_or_default();
        let slot = |parameter: ParamInfo| {
            let muon = match (&parameter.shape[..], parameter.weight) {
                (&[rows, cols], Some(kind))
                    if config.kind == OptimizerKind::Muon && is_hidden_matrix(&parameter) =>
                {
                    Some(HiddenMatrices::new([rows, cols], kind, settings.adjust_lr_fn))
                }
                _ => None,
            };
            let decays = decays(parameter.role, config.decay_embeddings);
            let ParamInfo { name, shape, .. } = parameter;
            let mut slot = Slot { name, shape, decays, muon, moments: None };
            slot.moments = Some(slot.keys().iter().map(|_| Tensor::zeros([slot.len()], device)).collect());
            slot
        };
        let slots: Vec<Slot> = trainable(model).into_iter().map(slot).collect();
        assert!(!slots.is_empty(), "a model in training mode has trainable parameters");
        Self { slots, config: config.clone(), updates: 0 }
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Updates the trainable parameters of `model` with the `gradients` of [`crate::step::compute`], multiplied by
    /// `grad_scale`, at the learning rate `lr`. Parameters without a gradient are unchanged.
    ///
    /// The precision of Muon's matmuls is that of [`with_precision`](andiron_core::precision::with_precision).
    ///
    /// # Panics
    /// If the model or the gradients are not those this optimizer was made for.
    pub fn update<M: Module>(
        &mut self,
        model: M,
        mut gradients: Vec<Option<Tensor<1>>>,
        lr: f64,
        grad_scale: f32,
    ) -> M {
        assert_eq!(gradients.len(), self.slots.len(), "one gradient for each trainable parameter");
        self.updates += 1;
        self.apply_muon(&mut gradients, grad_scale);
        let config = &self.config;
        let step = AdamWStep {
            lr: lr as f32,
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            eps: config.eps as f32,
            weight_decay: config.weight_decay as f32,
            step: self.updates,
            grad_scale,
        };
        let of_muon = config.muon.as_ref().and_then(|muon| muon.lr);
        model.map(&mut Update {
            slots: self.slots.iter_mut().zip(gradients),
            step,
            muon_lr: lr * of_muon.map_or(1.0, |largest| largest / config.lr),
            path: ParamPath::default(),
        })
    }

    /// Replaces the gradients of Muon's parameters by the directions of their steps.
    fn apply_muon(&mut self, gradients: &mut [Option<Tensor<1>>], grad_scale: f32) {
        let (mut places, mut found) = (Vec::new(), Vec::new());
        for (place, (slot, gradient)) in self.slots.iter_mut().zip(&mut *gradients).enumerate() {
            if let Some(HiddenMatrices { matrices, .. }) = slot.muon
                && let Some(grad) = gradient.take()
            {
                let momentum = slot.moments.take().and_then(|mut moments| moments.pop()).expect(AWAY);
                places.push(place);
                found.push(Momentum { grad, momentum, matrices });
            }
        }
        let settings = self.config.muon.clone().unwrap_or_default();
        let step = MuonStep {
            momentum: settings.momentum as f32,
            nesterov: settings.nesterov,
            ns_steps: settings.ns_steps,
            ns_coefficients: settings.ns_coefficients.map(|coefficient| coefficient as f32),
            eps: settings.eps as f32,
            grad_scale,
        };
        for (place, (direction, momentum)) in places.into_iter().zip(ops::muon_directions(found, step)) {
            gradients[place] = Some(direction);
            self.slots[place].moments = Some(vec![momentum]);
        }
    }
}

struct Update<I> {
    slots: I,
    step: AdamWStep,
    /// Learning rate of Muon.
    muon_lr: f64,
    path: ParamPath,
}

impl<'a, I> Update<I>
where
    I: Iterator<Item = (&'a mut Slot, Option<Tensor<1>>)>,
{
    /// The parameter after its step; all tensors are flat.
    fn moved(&self, slot: &mut Slot, value: Tensor<1>, grad: Tensor<1>) -> Tensor<1> {
        let weight_decay = if slot.decays { self.step.weight_decay } else { 0.0 };
        if let Some(hidden) = slot.muon {
            let keep = 1.0 - self.muon_lr * f64::from(weight_decay);
            return ops::sgd_step(value, grad, keep as f32, (self.muon_lr * hidden.lr_factor) as f32);
        }
        let moments: [Tensor<1>; 2] =
            slot.moments.take().and_then(|moments| moments.try_into().ok()).expect(AWAY);
        let [mean, square] = moments;
        let at = Moments { value, mean, square };
        let moved = ops::adamw(at, grad, AdamWStep { weight_decay, ..self.step });
        slot.moments = Some(vec![moved.mean, moved.square]);
        moved.value
    }
}

impl<'a, I> ModuleMapper for Update<I>
where
    I: Iterator<Item = (&'a mut Slot, Option<Tensor<1>>)>,
{
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_trainable(&param) {
            return param;
        }
        let (slot, grad) = self.slots.next().expect("one slot for each trainable parameter");
        assert_eq!(slot.name, self.path.name(), "the model the optimizer was made for");
        let Some(grad) = grad else { return param };
        // Every handle is moved, none cloned: what nobody else holds is updated in place.
        let (id, value, mapper) = param.consume();
        let shape = value.shape();
        let value: Tensor<D> = self.moved(slot, value.inner().reshape([slot.len()]), grad).reshape(shape);
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests;
