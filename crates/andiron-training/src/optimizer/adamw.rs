//! AdamW over all parameters of a model, its moments kept under the parameters' names.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use andiron_core::ops::{self, AdamWStep, Moments};
use andiron_models::weights::{ParamPath, names};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

use super::{OptimizerConfig, decays};
use crate::files::{self, FileError};

const MEAN: &str = "mean";
const SQUARE: &str = "square";

/// AdamW with decoupled weight decay: two running moments for each parameter, updated in place where the backend
/// can.
///
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>.
#[derive(Clone, Debug)]
pub struct AdamW {
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
    /// Taken while they are updated.
    moments: Option<(Tensor<1>, Tensor<1>)>,
}

impl Slot {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl AdamW {
    /// An optimizer for the parameters of `model`, all moments zero, on the plain device `device`.
    pub fn new<M: Module>(model: &M, config: &OptimizerConfig, device: &Device) -> Self {
        let zeros = |n: usize| Tensor::zeros([n], device);
        let slot = |(name, shape): (String, Vec<usize>)| {
            let n = shape.iter().product();
            let decays = decays(&name, shape.len(), config.decay_embeddings);
            Slot { name, shape, decays, moments: Some((zeros(n), zeros(n))) }
        };
        Self { slots: names(model).into_iter().map(slot).collect(), config: config.clone(), updates: 0 }
    }

    /// How many updates were made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moves the parameters of `model` against `gradients`, which [`crate::step::compute`] gave, multiplied by
    /// `grad_scale`, at the learning rate `lr`. A parameter without a gradient stays as it is.
    ///
    /// # Panics
    /// If the model or the gradients are not those this optimizer was made for.
    pub fn update<M: Module>(
        &mut self,
        model: M,
        gradients: Vec<Option<Tensor<1>>>,
        lr: f64,
        grad_scale: f32,
    ) -> M {
        assert_eq!(gradients.len(), self.slots.len(), "one gradient a parameter");
        self.updates += 1;
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
        model.map(&mut Update {
            slots: self.slots.iter_mut().zip(gradients),
            step,
            path: ParamPath::default(),
        })
    }

    /// Writes the moments as a safetensors file with the keys `<parameter>.mean` and `<parameter>.square`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), OptimizerError> {
        let tensors = self.slots.iter().flat_map(|slot| {
            let (mean, square) = slot.moments.as_ref().expect("moments are away only during an update");
            [(MEAN, mean), (SQUARE, square)].map(|(moment, values)| {
                (key(slot, moment), Moment { shape: slot.shape.clone(), values: values.clone() })
            })
        });
        safetensors::serialize_to_file(tensors, None, path)
            .map_err(|source| OptimizerError::Write { path: path.to_owned(), source })?;
        Ok(files::sync(path)?)
    }

    /// Takes the moments from a file that [`save`](Self::save) wrote after `updates` updates.
    ///
    /// # Errors
    /// If the file cannot be read, or is not for exactly these parameters.
    pub fn load(&mut self, path: &Path, updates: u64, device: &Device) -> Result<(), OptimizerError> {
        let bytes = files::read_bounded(path, u64::MAX - 1)?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| OptimizerError::Malformed { path: path.to_owned(), source })?;
        if file.len() != 2 * self.slots.len() {
            return Err(OptimizerError::Count { found: file.len(), wanted: 2 * self.slots.len() });
        }
        for slot in &mut self.slots {
            let [mean, square] = [MEAN, SQUARE].map(|moment| {
                let key = key(slot, moment);
                let found = file.tensor(&key).ok();
                match found.filter(|view| view.dtype() == Dtype::F32 && view.shape() == slot.shape) {
                    Some(view) => {
                        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
                        Ok(Tensor::from_data(TensorData::new(values, [slot.len()]), device))
                    }
                    None => Err(OptimizerError::Tensor { key, shape: slot.shape.clone() }),
                }
            });
            slot.moments = Some((mean?, square?));
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
    path: ParamPath,
}

impl<'a, I> ModuleMapper for Update<I>
where
    I: Iterator<Item = (&'a mut Slot, Option<Tensor<1>>)>,
{
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
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
        let (mean, square) = slot.moments.take().expect("moments are away only during an update");
        let weight_decay = if slot.decays { self.step.weight_decay } else { 0.0 };
        let at = Moments { value: value.inner().reshape([slot.len()]), mean, square };
        let moved = ops::adamw(at, grad, AdamWStep { weight_decay, ..self.step });
        slot.moments = Some((moved.mean, moved.square));
        let value: Tensor<D> = moved.value.reshape(shape);
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
    /// The file cannot be read or brought to the disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
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
    use burn::module::ModuleVisitor;

    use super::*;
    use crate::config::TrainConfig;
    use crate::testing::{CONFIG, device};

    fn config() -> TrainConfig {
        TrainConfig::parse(CONFIG, &[]).unwrap()
    }

    fn model() -> DecoderModel {
        config().model.init(Seed::new(3), &device()).train()
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
    fn two_updates_are_those_of_the_paper() {
        let (lr, clip) = (0.01, 0.5);
        let config = config().optimizer;
        let mut model = model();
        let mut optimizer = AdamW::new(&model, &config, &device());
        let mut wanted = parameters(&model);
        let mut moments: Vec<Vec<(f64, f64)>> =
            wanted.iter().map(|values| vec![(0.0, 0.0); values.len()]).collect();
        for step in 1..=2 {
            let grads = gradients(&model, step);
            for (at, (name, shape)) in names(&model).iter().enumerate() {
                let decay = if decays(name, shape.len(), false) { config.weight_decay } else { 0.0 };
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
        let model = model();
        let before = parameters(&model);
        let mut optimizer = AdamW::new(&model, &config().optimizer, &device());
        let mut gradients = gradients(&model, 1);
        gradients[3] = None;
        let after = parameters(&optimizer.update(model, gradients, 0.01, 1.0));
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before == after, at == 3, "parameter {at}");
        }
    }

    #[test]
    fn a_saved_state_goes_on_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        let config = config().optimizer;
        let mut first = AdamW::new(&model(), &config, &device());
        let model = first.update(model(), gradients(&model(), 1), 0.01, 1.0);
        first.save(&path).unwrap();
        let mut second = AdamW::new(&model, &config, &device());
        second.load(&path, first.updates(), &device()).unwrap();
        let one = first.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
        let other = second.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
        assert_eq!(parameters(&one), parameters(&other));
        assert_ne!(parameters(&one), parameters(&model));
    }

    #[test]
    fn a_state_of_another_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        let config = config();
        AdamW::new(&model(), &config.optimizer, &device()).save(&path).unwrap();
        for (set, count) in [("model.n_layer=1", true), ("model.n_embd=8", false)] {
            let other =
                TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap().model.init(Seed::new(1), &device());
            let mut optimizer = AdamW::new(&other, &config.optimizer, &device());
            let error = optimizer.load(&path, 1, &device()).unwrap_err();
            assert_eq!(matches!(error, OptimizerError::Count { .. }), count, "{error}");
            assert_eq!(matches!(error, OptimizerError::Tensor { .. }), !count, "{error}");
        }
        std::fs::write(&path, b"no tensors").unwrap();
        let mut optimizer = AdamW::new(&model(), &config.optimizer, &device());
        assert!(matches!(optimizer.load(&path, 1, &device()), Err(OptimizerError::Malformed { .. })));
    }
}
