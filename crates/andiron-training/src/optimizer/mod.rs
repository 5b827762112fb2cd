//! The optimizer: AdamW, Muon, Adafactor or Lion, with learning-rate schedule, gradient clipping, parameter groups and
//! weight decay, and an average of the weights.
//!
//! It holds state for the trainable parameters of a model and for no others: a frozen parameter costs no memory, takes no
//! part in the gradient norm and does not decay.

mod adafactor;
mod clip;
mod config;
mod ema;
mod groups;
mod lion;
mod muon;
mod pattern;
mod schedule;
mod share;
mod slot;
mod state_file;

use andiron_core::ops::{self, Momentum, MuonStep};
use andiron_models::weights::{ParamPath, depths};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};

use slot::{Rule, Slot, Step};

pub use adafactor::{AdafactorConfig, RelativeStep};
pub use clip::{clip_scale, global_norm};
pub use config::{OptimizerConfig, OptimizerKind};
pub use ema::Ema;
pub(crate) use groups::is_trainable;
pub use groups::{GroupConfig, GroupError, decays, is_hidden_matrix};
pub use lion::LionConfig;
pub use muon::{AdjustLr, MuonConfig};
pub use pattern::NamePattern;
pub use schedule::{Schedule, ScheduleKind};
pub use share::Share;
pub use state_file::OptimizerError;

/// The optimizer of a model, with decoupled weight decay. Moments are kept for each trainable parameter, under its name;
/// parameters are updated in place where the backend can.
///
/// AdamW keeps two moments per element, Lion one, Adafactor those of the rows and columns of a matrix. Muon keeps one per
/// element of its matrices; during an update each thread needs temporary memory of two to four times the largest matrix.
///
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>; for the others see [`MuonConfig`],
/// [`AdafactorConfig`] and [`LionConfig`].
#[derive(Clone, Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    config: OptimizerConfig,
    updates: u64,
    share: Share,
    device: Device,
}

impl Optimizer {
    /// An optimizer for the trainable parameters of `model`, which is in training mode and was frozen by
    /// [`OptimizerConfig::freeze`]; all moments are zero, on the plain device `device`.
    ///
    /// # Errors
    /// If a group has no trainable parameter, or groups freeze everything.
    ///
    /// # Panics
    /// If nothing is trainable for another reason, as in a model that is not in training mode, or a parameter is trainable that a
    /// group freezes.
    pub fn new<M: Module>(model: &M, config: &OptimizerConfig, device: &Device) -> Result<Self, GroupError> {
        Self::divided(model, config, Share::WHOLE, device)
    }

    /// The same with a share of the moments, for [`update_shared`](Self::update_shared).
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    ///
    /// # Panics
    /// As for [`new`](Self::new).
    pub fn divided<M: Module>(
        model: &M,
        config: &OptimizerConfig,
        share: Share,
        device: &Device,
    ) -> Result<Self, GroupError> {
        let (parameters, trained): (Vec<_>, Vec<_>) = groups::parameters(model).into_iter().unzip();
        let names = parameters.iter().map(|parameter| parameter.name.as_str());
        let assigned = groups::assign(&config.groups, names)?;
        for group in config.groups.iter().filter(|group| !group.freeze) {
            let is_of = |assigned: &Option<&GroupConfig>| assigned.is_some_and(|of| std::ptr::eq(of, group));
            if !assigned.iter().zip(&trained).any(|(assigned, &trained)| trained && is_of(assigned)) {
                return Err(GroupError::Untrained { pattern: group.pattern.to_string() });
            }
        }
        let depths = depths(&parameters);
        let each =
            parameters.into_iter().zip(depths).zip(assigned).zip(trained).filter(|(_, trained)| *trained);
        let mut slots: Vec<Slot> =
            each.map(|(((parameter, depth), group), _)| Slot::new(parameter, depth, group, config)).collect();
        let owners = share.owners(&slots.iter().map(Slot::len).collect::<Vec<_>>());
        for (slot, owner) in slots.iter_mut().zip(owners) {
            slot.owner = owner;
            if owner == share.rank {
                slot.begin(device);
            }
        }
        if slots.is_empty() && config.groups.iter().any(|group| group.freeze) {
            return Err(GroupError::AllFrozen);
        }
        assert!(!slots.is_empty(), "a model in training mode has trainable parameters");
        Ok(Self { slots, config: config.clone(), updates: 0, share, device: device.clone() })
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
        let step = Step { config: &self.config, number: self.updates, lr, grad_scale };
        let slots = self.slots.iter_mut().zip(gradients);
        model.map(&mut Update { slots, step, path: ParamPath::default() })
    }

    /// Replaces the gradients of Muon's parameters by the directions of their steps.
    fn apply_muon(&mut self, gradients: &mut [Option<Tensor<1>>], grad_scale: f32) {
        let (mut places, mut found) = (Vec::new(), Vec::new());
        for (place, (slot, gradient)) in self.slots.iter_mut().zip(&mut *gradients).enumerate() {
            if let Rule::Muon(hidden) = slot.rule
                && let Some(grad) = gradient.take()
            {
                let [momentum] = slot.take_moments();
                places.push(place);
                found.push(Momentum { grad, momentum, matrices: hidden.matrices });
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

struct Update<'a, I> {
    slots: I,
    step: Step<'a>,
    path: ParamPath,
}

impl<'a, I> ModuleMapper for Update<'_, I>
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
        let value = value.inner().reshape([slot.len()]);
        let value: Tensor<D> = slot.moved(value, grad, self.step).reshape(shape);
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests;
