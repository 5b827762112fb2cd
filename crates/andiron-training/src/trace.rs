//! The documents that a step of a run has seen.

use andiron_data::loader::SeenDocument;
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::objective::{Objective, with_plan};
use crate::observe::MetricsFile;
use crate::plan::{Plan, PlanUser, Setup};
use crate::run::steps;
use crate::trainer::TrainError;

/// A document of which a batch of a step contains a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenInBatch {
    /// The batch among all of the run, from 0.
    pub batch: u64,
    /// The document and its place.
    pub document: SeenDocument,
}

/// The documents that a step of a run sees, batch by batch and row by row. Steps are counted from 1, as in the run's metrics. Nothing
/// is trained: which documents they are follows from the configuration and the data, and, if the run was rolled back, from its
/// metrics.
///
/// # Errors
/// If the configuration or the data cannot be used, the run has fewer steps, or the data are rows.
///
/// # Panics
/// If the step is 0.
pub fn documents_of_step(
    config: &TrainConfig,
    step: u64,
    device: &Device,
) -> Result<Vec<SeenInBatch>, TrainError> {
    struct Trace<'a> {
        config: &'a TrainConfig,
        step: u64,
    }

    impl PlanUser for Trace<'_> {
        type Output = Vec<SeenInBatch>;

        fn with<O: Objective>(self, plan: Plan<O>) -> Result<Self::Output, TrainError> {
            let run = &self.config.run;
            let steps = steps(self.config, &*plan.data.train)?;
            if self.step > steps {
                return Err(TrainError::NoStep { step: self.step, steps });
            }
            let recorded = MetricsFile::first_batch_of(&run.output, self.step);
            let first = recorded.unwrap_or((self.step - 1) * run.accumulate);
            let mut seen = Vec::new();
            for batch in first..first + run.accumulate {
                let documents = plan.data.train.documents_of(batch);
                let path = &self.config.data.train;
                let documents = documents.ok_or_else(|| TrainError::NoDocuments { path: path.clone() })?;
                seen.extend(documents.into_iter().map(|document| SeenInBatch { batch, document }));
            }
            Ok(seen)
        }
    }

    assert!(step > 0, "steps are counted from 1");
    let setup = Setup::open(config, device)?;
    with_plan(&setup, Trace { config, step })
}
