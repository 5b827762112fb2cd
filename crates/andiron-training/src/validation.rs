//! The validation of an objective: in a run, or of a model as it is.

use std::path::Path;

use andiron_data::loader::BatchSource;
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::evaluation::Evaluation;
use crate::objective::{Measured, ModelOf, Objective, Pass, with_plan};
use crate::plan::{Plan, PlanUser, Setup};
use crate::trainer::TrainError;

/// Loss and metrics of a model on the validation data of `config`, with the model as `[init] from` has it: nothing is trained.
/// Encoded rows are kept in the run's directory. `adapter` is the directory of an adapter of the model, to measure with it.
///
/// `device` is a plain one (no autodiff).
///
/// # Errors
/// If the configuration, the model, the adapter or the data cannot be used, there is no validation data, or the model has no
/// head for the objective.
pub fn validate(
    config: &TrainConfig,
    adapter: Option<&Path>,
    device: &Device,
) -> Result<Evaluation, TrainError> {
    struct Validate<'a> {
        setup: &'a Setup<'a>,
        device: &'a Device,
    }

    impl PlanUser for Validate<'_> {
        type Output = Evaluation;

        fn with<O: Objective>(
            self,
            Plan { objective, start, data }: Plan<O>,
        ) -> Result<Evaluation, TrainError> {
            let model = self.setup.base.name();
            let beginning = start.model(self.setup.config.run.weights_seed(), self.device)?;
            if start.new_head().is_some() || !beginning.new_modules.is_empty() {
                return Err(TrainError::NoHead { model });
            }
            let Some(valid) = data.valid.as_deref() else { return Err(TrainError::NoValidation) };
            let batches = valid.n_batches().expect("validation data is read once");
            let of = ValidationData { valid, batches, bytes_per_target: data.bytes_per_target };
            Ok(of.evaluate(&objective, &beginning.bundle.model, self.device))
        }
    }

    let mut setup = Setup::open(config, device)?;
    setup.is_measured = true;
    if let Some(dir) = adapter {
        setup.base = setup.base.with_adapter(dir)?;
    }
    with_plan(&setup, Validate { setup: &setup, device })
}

/// Batches to validate on.
pub(crate) struct ValidationData<'a> {
    pub(crate) valid: &'a dyn BatchSource,
    /// How many of them.
    pub(crate) batches: u64,
    pub(crate) bytes_per_target: Option<f64>,
}

impl ValidationData<'_> {
    /// The objective on the data, in f32.
    pub(crate) fn evaluate<O: Objective>(
        &self,
        objective: &O,
        model: &ModelOf<O>,
        device: &Device,
    ) -> Evaluation {
        let pass = Pass::evaluation(device);
        let mut tally = O::Tally::default();
        let (mut sum, mut weight, mut n_targets) = (0.0, 0.0, 0);
        for batch in (0..self.batches).map(|index| self.valid.batch_at(index)) {
            sum += f64::from(objective.measure(model, &batch, &pass, &mut tally).into_scalar::<f32>());
            weight += objective.weight(&batch);
            n_targets += batch.n_targets() as u64;
        }
        let loss = if weight > 0.0 { sum / weight } else { 0.0 };
        let measured = Measured { loss, n_targets, bytes_per_target: self.bytes_per_target };
        let metrics = objective.metrics(&measured, &tally);
        let (metrics, confusion) = (metrics.values, metrics.confusion);
        Evaluation { loss, metrics, confusion, n_targets, unit: O::UNIT }
    }
}
