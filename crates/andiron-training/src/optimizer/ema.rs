//! An exponential moving average of the weights.

use std::path::Path;

use andiron_core::ops;
use andiron_models::weights::ParamPath;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use super::{OptimizerError, is_trainable, state_file};

/// An exponential moving average of the trainable parameters of a model: `average + (1 − decay) · (weight − average)` after
/// each update, from the initial weights on.
///
/// Call [`update`](Self::update) after each update of the weights, with the model in training mode; a skipped step updates
/// nothing. Validate and export [`apply`](Self::apply) of the model in their place. [`save`](Self::save) it with each
/// checkpoint; a run that goes on makes a new one and calls [`load`](Self::load). It takes the memory of the trainable parameters once more.
///
/// Equal to PyTorch's `AveragedModel` with `get_ema_multi_avg_fn(decay)` whose first update is with the initial weights.
///
/// Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging",
/// <https://doi.org/10.1137/0330046>.
#[derive(Clone, Debug)]
pub struct Ema {
    /// In the order of the module.
    averages: Vec<Average>,
    decay: f64,
}

/// The average of one parameter.
#[derive(Clone, Debug)]
struct Average {
    name: String,
    shape: Vec<usize>,
    /// Taken while it is updated.
    values: Option<Tensor<1>>,
}

const AWAY: &str = "an average is away only during an update";

impl Ema {
    /// The average of `model`, which is in training mode, before its first update.
    ///
    /// # Panics
    /// If `decay` is not between 0 and 1.
    pub fn new<M: Module>(model: &M, decay: f64) -> Self {
        assert!(decay > 0.0 && decay < 1.0, "a decay of {decay} is not between 0 and 1");
        let mut averages = Vec::new();
        visit(model, |path, shape, values| {
            averages.push(Average { name: path.name(), shape, values: Some(values) });
        });
        Self { averages, decay }
    }

    /// Takes in the parameters of `model`, which is in training mode, after an update.
    ///
    /// # Panics
    /// If the model is not the one it was made for.
    pub fn update<M: Module>(&mut self, model: &M) {
        let share = (1.0 - self.decay) as f32;
        let mut averages = self.averages.iter_mut();
        visit(model, |path, shape, values| {
            let average = averages.next().expect("one average for each trainable parameter");
            assert!(average.name == path.name() && average.shape == shape, "the model it was made for");
            // Moved, so that what nobody else holds is updated in place.
            average.values = Some(ops::lerp(average.values.take().expect(AWAY), values, share));
        });
        assert!(averages.next().is_none(), "one trainable parameter for each average");
    }

    /// The model with averages in the place of its trainable parameters; it may be in training mode or not.
    ///
    /// # Panics
    /// If the model is not the one it was made for.
    pub fn apply<M: Module>(&self, model: M) -> M {
        let mut apply = Apply { averages: self.averages.iter().peekable(), path: ParamPath::default() };
        let model = model.map(&mut apply);
        assert!(apply.averages.peek().is_none(), "each average has a parameter");
        model
    }

    /// Writes a safetensors file with the averages under the names of their parameters.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), OptimizerError> {
        let values = self.averages.iter().map(|average| average.values.clone().expect(AWAY));
        state_file::write(path, self.keys().into_iter().zip(values))
    }

    /// Loads the averages from a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// If the file cannot be read, or is not for exactly these parameters.
    pub fn load(&mut self, path: &Path, device: &Device) -> Result<(), OptimizerError> {
        let values = state_file::read(path, &self.keys(), device)?;
        for (average, values) in self.averages.iter_mut().zip(values) {
            average.values = Some(values);
        }
        Ok(())
    }

    fn keys(&self) -> Vec<(String, Vec<usize>)> {
        self.averages.iter().map(|average| (average.name.clone(), average.shape.clone())).collect()
    }
}

/// Calls `each` with path, shape and flattened values of each trainable parameter.
fn visit<M: Module>(model: &M, each: impl FnMut(&ParamPath, Vec<usize>, Tensor<1>)) {
    struct Visit<F> {
        path: ParamPath,
        each: F,
    }

    impl<F: FnMut(&ParamPath, Vec<usize>, Tensor<1>)> ModuleVisitor for Visit<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if is_trainable(param) {
                let value = param.val().inner();
                let (shape, len) = (value.shape().to_vec(), value.shape().num_elements());
                (self.each)(&self.path, shape, value.reshape([len]));
            }
        }
    }

    model.visit(&mut Visit { path: ParamPath::default(), each });
}

struct Apply<'a> {
    averages: std::iter::Peekable<std::slice::Iter<'a, Average>>,
    path: ParamPath,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(average) = self.averages.next_if(|average| average.name == self.path.name()) else {
            return param;
        };
        let is_trained = is_trainable(&param);
        let (id, value, mapper) = param.consume();
        let values: Tensor<D> = average.values.clone().expect(AWAY).reshape(value.shape());
        let values = if is_trained { Tensor::from_inner(values).require_grad() } else { values };
        Param::from_mapped_value(id, values, mapper)
    }
}

#[cfg(test)]
mod tests {
    use andiron_models::DecoderModel;
    use andiron_models::weights::{freeze, names};

    use super::super::OptimizerKind;
    use super::super::tests::{gradients, model, optimizer, parameters};
    use super::*;
    use crate::testing::device;

    const DECAY: f64 = 0.75;

    /// The model after so many updates, and the average over them.
    fn trained(model: DecoderModel, updates: std::ops::Range<u64>, ema: &mut Ema) -> DecoderModel {
        let mut optimizer = optimizer(&model, OptimizerKind::Adamw);
        updates.fold(model, |model, step| {
            let gradients = gradients(&model, step);
            let model = optimizer.update(model, gradients, 0.01, 1.0);
            ema.update(&model);
            model
        })
    }

    #[test]
    fn each_update_takes_in_a_share() {
        let start = model();
        let mut ema = Ema::new(&start, DECAY);
        let first = trained(start.clone(), 1..2, &mut ema);
        let second = trained(first.clone(), 2..3, &mut ema);
        let average = parameters(&ema.apply(second.clone()));
        let [start, first, second] = [start, first, second].map(|model| parameters(&model));
        for (at, average) in average.iter().enumerate() {
            for (i, average) in average.iter().enumerate() {
                let expected = (start[at][i] * 0.75 + first[at][i] * 0.25) * 0.75 + second[at][i] * 0.25;
                assert!((average - expected).abs() < 1e-6, "{average} {expected}");
            }
        }
        assert_ne!(average, second);
    }

    /// A model for validation and export has no gradients.
    #[test]
    fn a_model_that_is_not_in_training_gets_the_same_averages() {
        let mut ema = Ema::new(&model(), DECAY);
        let model = trained(model(), 1..3, &mut ema);
        let in_training = ema.apply(model.clone());
        let valid = ema.apply(model.valid());
        assert_eq!(parameters(&in_training), parameters(&valid.train()));
    }

    #[test]
    fn a_saved_average_goes_on_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ema.safetensors");
        let mut ema = Ema::new(&model(), DECAY);
        let model = trained(model(), 1..3, &mut ema);
        ema.save(&path).unwrap();
        let mut other = Ema::new(&model, DECAY);
        other.load(&path, &device()).unwrap();
        let later = trained(model.clone(), 3..4, &mut ema);
        other.update(&later);
        let averages = [&ema, &other].map(|ema| parameters(&ema.apply(later.clone())));
        assert_eq!(averages[0], averages[1]);
        let another = OptimizerKind::Muon;
        optimizer(&model, another).save(&path).unwrap();
        assert!(matches!(other.load(&path, &device()), Err(OptimizerError::Count { .. })));
    }

    #[test]
    fn what_is_frozen_has_no_average() {
        let is_bias = |name: &str| name.ends_with(".bias");
        let model = freeze(model().valid(), |parameter| is_bias(&parameter.name)).train();
        let ema = Ema::new(&model, DECAY);
        let kept = names(&model).into_iter().filter(|(name, _)| !is_bias(name)).count();
        assert_eq!(ema.averages.len(), kept);
        ema.apply(model);
    }

    #[test]
    fn an_average_of_what_does_not_change_is_exact() {
        let model = model();
        let mut ema = Ema::new(&model, 0.9999);
        let before = parameters(&model);
        (0..100).for_each(|_| ema.update(&model));
        assert_eq!(parameters(&ema.apply(model)), before);
    }
}
