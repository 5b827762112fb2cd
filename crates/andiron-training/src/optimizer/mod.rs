//! How gradients become new weights: groups, learning-rate schedule, clipping, AdamW and Muon.

mod clip;
mod config;
mod groups;
mod muon;
mod schedule;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use andiron_core::ops::{self, AdamWStep, Moments, Momentum, MuonStep};
use andiron_models::weights::{self, ParamInfo, ParamPath, describe, write_tensors};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

use crate::files::{self, FileError};
use muon::HiddenMatrices;

pub use clip::{clip_scale, global_norm};
pub use config::{OptimizerConfig, OptimizerKind};
pub use groups::{decays, is_hidden_matrix};
pub use muon::{AdjustLr, MuonConfig};
pub use schedule::{Schedule, ScheduleKind};

const MEAN: &str = "mean";
const SQUARE: &str = "square";
const MOMENTUM: &str = "momentum";
const AWAY: &str = "moments are away only during an update";

/// AdamW or Muon with decoupled weight decay: the running moments of every parameter, kept under its name, which move it
/// in place where the backend can.
///
/// AdamW keeps two numbers for each number of a parameter. Muon keeps one for those of the matrices that it moves; while
/// it does, each thread needs room for the largest of them two to four times.
///
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>; for Muon see [`MuonConfig`].
#[derive(Clone, Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    config: OptimizerConfig,
    updates: u64,
}

/// The state of one parameter; moments are lists, whatever the parameter's shape.
#[derive(Clone, Debug)]
struct Slot {
    name: String,
    shape: Vec<usize>,
    decays: bool,
    /// What Muon knows of the parameter, if it is the one that moves it.
    muon: Option<HiddenMatrices>,
    /// In the order of [`Slot::keys`]; taken while they are updated.
    moments: Option<Vec<Tensor<1>>>,
}

impl Slot {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// What the moments are called.
    fn keys(&self) -> &'static [&'static str] {
        if self.muon.is_some() { &[MOMENTUM] } else { &[MEAN, SQUARE] }
    }
}

impl Optimizer {
    /// An optimizer for the parameters of `model`, all moments zero, on the plain device `device`.
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
        Self { slots: describe(model).into_iter().map(slot).collect(), config: config.clone(), updates: 0 }
    }

    /// How many updates were made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moves the parameters of `model` against `gradients`, which [`crate::step::compute`] gave, multiplied by
    /// `grad_scale`, at the learning rate `lr`. A parameter without a gradient stays as it is.
    ///
    /// Muon's products are as exact as [`with_precision`](andiron_core::precision::with_precision) says.
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
        assert_eq!(gradients.len(), self.slots.len(), "one gradient a parameter");
        self.updates += 1;
        self.turn(&mut gradients, grad_scale);
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
    fn turn(&mut self, gradients: &mut [Option<Tensor<1>>], grad_scale: f32) {
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

    /// Writes the moments as a safetensors file with the keys `<parameter>.mean` and `<parameter>.square`, or
    /// `<parameter>.momentum` for those that Muon moves.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), OptimizerError> {
        let tensors = self.slots.iter().flat_map(|slot| {
            let moments = slot.moments.as_ref().expect(AWAY);
            slot.keys().iter().zip(moments).map(|(moment, values)| {
                (key(slot, moment), Moment { shape: slot.shape.clone(), values: values.clone() })
            })
        });
        Ok(write_tensors(path, tensors.collect(), None)?)
    }

    /// Takes the moments from a file that [`save`](Self::save) wrote after `updates` updates.
    ///
    /// # Errors
    /// If the file cannot be read, or is not for exactly these parameters and this kind of optimizer.
    pub fn load(&mut self, path: &Path, updates: u64, device: &Device) -> Result<(), OptimizerError> {
        let bytes = files::read_bounded(path, u64::MAX - 1)?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| OptimizerError::Malformed { path: path.to_owned(), source })?;
        let wanted = self.slots.iter().map(|slot| slot.keys().len()).sum();
        if file.len() != wanted {
            return Err(OptimizerError::Count { found: file.len(), wanted });
        }
        for slot in &mut self.slots {
            let read = |moment: &&str| {
                let key = key(slot, moment);
                let found = file.tensor(&key).ok();
                match found.filter(|view| view.dtype() == Dtype::F32 && view.shape() == slot.shape) {
                    Some(view) => {
                        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
                        Ok(Tensor::from_data(TensorData::new(values, [slot.len()]), device))
                    }
                    None => Err(OptimizerError::Tensor { key, shape: slot.shape.clone() }),
                }
            };
            slot.moments = Some(slot.keys().iter().map(read).collect::<Result<_, _>>()?);
        }
        self.updates = updates;
        Ok(())
    }
}

fn key(slot: &Slot, moment: &str) -> String {
    format!("{}.{moment}", slot.name)
}

struct Update<I> {
    slots: I,
    step: AdamWStep,
    /// Learning rate of what Muon moves.
    muon_lr: f64,
    path: ParamPath,
}

impl<'a, I> Update<I>
where
    I: Iterator<Item = (&'a mut Slot, Option<Tensor<1>>)>,
{
    /// The parameter after its step, both as lists.
    fn moved(&self, slot: &mut Slot, value: Tensor<1>, grad: Tensor<1>) -> Tensor<1> {
        let weight_decay = if slot.decays { self.step.weight_decay } else { 0.0 };
        if let Some(hidden) = slot.muon {
            let keep = 1.0 - self.muon_lr * f64::from(weight_decay);
            return ops::descend(value, grad, keep as f32, (self.muon_lr * hidden.lr_factor) as f32);
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
        let (slot, grad) = self.slots.next().expect("one slot a parameter");
        assert_eq!(slot.name, self.path.name(), "the model the optimizer was made for");
        let Some(grad) = grad else { return param };
        // Every handle is moved, none cloned: what nobody else holds is updated in place.
        let (id, value, mapper) = param.consume();
        let shape = value.shape();
        let value: Tensor<D> = self.moved(slot, value.inner().reshape([slot.len()]), grad).reshape(shape);
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

/// A moment, read from its device when it is written.
struct Moment {
    shape: Vec<usize>,
    values: Tensor<1>,
}

impl View for Moment {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.values.clone().into_data().convert::<f32>();
        let values = values.as_slice::<f32>().expect("just converted to f32");
        Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Why the optimizer's state cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] weights::FileError),
    /// The file is not a safetensors file.
    #[error("{} is not a safetensors file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
    /// The file has more or fewer tensors than the model has moments.
    #[error("the optimizer state has {found} tensors, the model wants {wanted}")]
    Count {
        /// Tensors in the file.
        found: usize,
        /// Moments of the model.
        wanted: usize,
    },
    /// A moment is missing or of another shape.
    #[error("the optimizer state has no f32 tensor {key} of shape {shape:?}")]
    Tensor {
        /// Its key.
        key: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

#[cfg(test)]
mod tests {
    use andiron_kernels::random::Seed;
    use andiron_models::DecoderModel;
    use andiron_models::weights::names;
    use burn::module::ModuleVisitor;

    use super::*;
    use crate::config::TrainConfig;
    use crate::testing::{CONFIG, device};

    const KINDS: [OptimizerKind; 2] = [OptimizerKind::Adamw, OptimizerKind::Muon];

    fn config() -> TrainConfig {
        TrainConfig::parse(CONFIG, &[]).unwrap()
    }

    fn model() -> DecoderModel {
        config().model.init(Seed::new(3), &device()).train()
    }

    fn optimizer(model: &DecoderModel, kind: OptimizerKind) -> Optimizer {
        let settings = OptimizerConfig { kind, ..config().optimizer };
        Optimizer::new(model, &settings, &device())
    }

    fn parameters(model: &DecoderModel) -> Vec<Vec<f32>> {
        struct Read(Vec<Vec<f32>>);
        impl ModuleVisitor for Read {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                assert!(param.val().is_require_grad(), "parameters stay leaves that want gradients");
                self.0.push(param.val().into_data().try_into_vec::<f32>().unwrap());
            }
        }
        let mut read = Read(Vec::new());
        model.visit(&mut read);
        read.0
    }

    fn gradients(model: &DecoderModel, step: u64) -> Vec<Option<Tensor<1>>> {
        let of = |(name, shape): (String, Vec<usize>)| {
            let (seed, n) = (Seed::new(step).derive(&name), shape.iter().product::<usize>());
            let values: Vec<f32> = (0..n as u64).map(|i| seed.normal(i)).collect();
            Some(Tensor::from_data(TensorData::new(values, [n]), &device()))
        };
        names(model).into_iter().map(of).collect()
    }

    #[test]
    fn two_updates_of_adamw_are_those_of_the_paper() {
        let (lr, clip) = (0.01, 0.5);
        let config = config().optimizer;
        let mut model = model();
        let mut optimizer = optimizer(&model, OptimizerKind::Adamw);
        let mut wanted = parameters(&model);
        let mut moments: Vec<Vec<(f64, f64)>> =
            wanted.iter().map(|values| vec![(0.0, 0.0); values.len()]).collect();
        for step in 1..=2 {
            let grads = gradients(&model, step);
            for (at, parameter) in describe(&model).iter().enumerate() {
                let decay = if decays(parameter.role, false) { config.weight_decay } else { 0.0 };
                let grads = grads[at].clone().unwrap().into_data().try_into_vec::<f32>().unwrap();
                for (i, grad) in grads.into_iter().enumerate() {
                    let (grad, (mean, square)) = (f64::from(grad) * clip, &mut moments[at][i]);
                    *mean = config.beta1 * *mean + (1.0 - config.beta1) * grad;
                    *square = config.beta2 * *square + (1.0 - config.beta2) * grad * grad;
                    let mean = *mean / (1.0 - config.beta1.powi(step as i32));
                    let square = *square / (1.0 - config.beta2.powi(step as i32));
                    let value = f64::from(wanted[at][i]) * (1.0 - lr * decay);
                    wanted[at][i] = (value - lr * mean / (square.sqrt() + config.eps)) as f32;
                }
            }
            model = optimizer.update(model, grads, lr, clip as f32);
        }
        assert_eq!(optimizer.updates(), 2);
        for (found, wanted) in parameters(&model).concat().into_iter().zip(wanted.concat()) {
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }

    #[test]
    fn a_parameter_without_a_gradient_stays() {
        // A gain of a norm, and a matrix.
        for (kind, left_out) in KINDS.into_iter().flat_map(|kind| [2, 4].map(|at| (kind, at))) {
            let model = model();
            let before = parameters(&model);
            let mut optimizer = optimizer(&model, kind);
            let mut gradients = gradients(&model, 1);
            gradients[left_out] = None;
            let after = parameters(&optimizer.update(model, gradients, 0.01, 1.0));
            for (at, (before, after)) in before.iter().zip(&after).enumerate() {
                assert_eq!(before == after, at == left_out, "{kind:?}: parameter {at}");
            }
        }
    }

    #[test]
    fn muon_moves_the_matrices_of_layers_and_adamw_the_rest() {
        let model = model();
        let [adamw, muon] = KINDS.map(|kind| {
            parameters(&optimizer(&model, kind).update(model.clone(), gradients(&model, 1), 0.01, 1.0))
        });
        let mut hidden = 0;
        for ((name, shape), (adamw, muon)) in names(&model).into_iter().zip(adamw.iter().zip(&muon)) {
            let moved = name.contains(".h.") && shape.len() == 2;
            assert_eq!(adamw != muon, moved, "{name}");
            hidden += usize::from(moved);
        }
        assert_eq!(hidden, 2 * 4);
    }

    #[test]
    fn muon_has_a_learning_rate_of_its_own() {
        let model = model();
        let step = |largest: Option<f64>| {
            let muon = Some(MuonConfig { lr: largest, ..MuonConfig::default() });
            let config = OptimizerConfig { kind: OptimizerKind::Muon, muon, ..config().optimizer };
            // Half of the largest learning rate, as in the middle of a schedule.
            let mut optimizer = Optimizer::new(&model, &config, &device());
            parameters(&optimizer.update(model.clone(), gradients(&model, 1), 0.5 * config.lr, 1.0))
        };
        let (before, one, three) = (parameters(&model), step(None), step(Some(3.0 * config().optimizer.lr)));
        for (at, parameter) in describe(&model).iter().enumerate() {
            let factor = if is_hidden_matrix(parameter) { 3.0 } else { 1.0 };
            let name = &parameter.name;
            for (i, before) in before[at].iter().enumerate() {
                let (one, three) = (one[at][i] - before, three[at][i] - before);
                assert!((three - factor * one).abs() < 1e-6, "{name}: {one} {three}");
            }
        }
    }

    #[test]
    fn a_saved_state_goes_on_bit_for_bit() {
        for kind in KINDS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("optimizer.safetensors");
            let mut first = optimizer(&model(), kind);
            let model = first.update(model(), gradients(&model(), 1), 0.01, 1.0);
            first.save(&path).unwrap();
            let mut second = optimizer(&model, kind);
            second.load(&path, first.updates(), &device()).unwrap();
            let one = first.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
            let other = second.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
            assert_eq!(parameters(&one), parameters(&other), "{kind:?}");
            assert_ne!(parameters(&one), parameters(&model));
            // The moments count, too.
            let mut anew = optimizer(&model, kind);
            anew.updates = first.updates() - 1;
            let without = anew.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
            assert_ne!(parameters(&one), parameters(&without), "{kind:?}");
        }
    }

    #[test]
    fn muon_saves_one_moment_of_what_it_moves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        optimizer(&model(), OptimizerKind::Muon).save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let matrix = "transformer.h.0.attn.c_attn.weight";
        assert_eq!(file.tensor(&format!("{matrix}.momentum")).unwrap().shape(), [16, 48]);
        assert!(file.tensor(&format!("{matrix}.mean")).is_err());
        for moment in ["mean", "square"] {
            assert!(file.tensor(&format!("transformer.wte.weight.{moment}")).is_ok());
        }
        assert_eq!(file.len(), 2 * names(&model()).len() - 8);
        // It is no state of AdamW.
        let error = optimizer(&model(), OptimizerKind::Adamw).load(&path, 1, &device()).unwrap_err();
        assert!(matches!(error, OptimizerError::Count { .. }), "{error}");
    }

    #[test]
    fn a_state_of_another_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        optimizer(&model(), OptimizerKind::Adamw).save(&path).unwrap();
        for (set, count) in [("model.n_layer=1", true), ("model.n_embd=8", false)] {
            let other =
                TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap().model.init(Seed::new(1), &device());
            let mut optimizer = optimizer(&other, OptimizerKind::Adamw);
            let error = optimizer.load(&path, 1, &device()).unwrap_err();
            assert_eq!(matches!(error, OptimizerError::Count { .. }), count, "{error}");
            assert_eq!(matches!(error, OptimizerError::Tensor { .. }), !count, "{error}");
        }
        std::fs::write(&path, b"no tensors").unwrap();
        let mut optimizer = optimizer(&model(), OptimizerKind::Adamw);
        assert!(matches!(optimizer.load(&path, 1, &device()), Err(OptimizerError::Malformed { .. })));
    }
}
