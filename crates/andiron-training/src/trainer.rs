//! The training loop: steps, validation, checkpoints, and recovery from failures.

mod error;
mod outcome;
mod requests;

use std::time::Instant;

use andiron_core::precision::with_precision;
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::Device;

use crate::collective::{Collective, Single};
use crate::config::{RunConfig, TrainConfig};
use crate::evaluation::Evaluation;
use crate::objective::{Objective, with_plan};
use crate::observe::report::ReportStatus;
use crate::observe::{Observer, RunRecord, RunStart, StepRecord, Warning, with_causes};
use crate::optimizer::{Schedule, clip_scale};
use crate::plan::{Plan, PlanUser, Setup};
use crate::run::Run;
use crate::state::TrainState;
use crate::step::{Computed, StepOptions, compute_shared};

pub use error::{SaveError, TrainError};
pub use outcome::{Outcome, Status};
pub use requests::Requests;

/// If more than this many of the last hundred steps were skipped, the run is rolled back.
const MAX_SKIPS: usize = 3;

/// Maximum number of rollbacks of a run.
const MAX_ROLLBACKS: u32 = 3;

/// Trains according to `config`, from the newest checkpoint in its output directory or from the beginning.
///
/// `device` is a plain one (no autodiff). After a request to stop or save, the run finishes the current step and saves a
/// checkpoint; before the first step, while rows are encoded, it ends with [`TrainError::Stopped`].
///
/// # Errors
/// If the configuration, the data or the output directory cannot be used, if a checkpoint was made with another
/// configuration, or if the loss stays non-finite. A checkpoint that cannot be *saved* is not an error: training continues,
/// and the outcome reports it.
pub fn start_or_resume(
    config: &TrainConfig,
    device: &Device,
    observer: &mut dyn Observer,
    requests: &Requests,
) -> Result<Outcome, TrainError> {
    struct Start<'a> {
        setup: &'a Setup<'a>,
        device: &'a Device,
    }

    impl PlanUser for Start<'_> {
        type Output = Outcome;

        fn with<O: Objective>(self, plan: Plan<O>) -> Result<Outcome, TrainError> {
            let trainer = Trainer::open(self.setup, plan, self.device)?;
            self.setup.with_watch(|observer, requests| trainer.run(observer, requests))
        }
    }

    let setup = Setup::open(config, device)?.watched(observer, requests);
    with_plan(&setup, Start { setup: &setup, device })
}

/// A run that is ready to train: its directory is locked and its data is open.
#[derive(Debug)]
pub struct Trainer<O: Objective> {
    run: Run<O::Family>,
    objective: O,
    schedule: Schedule,
    dropout: Seed,
    collective: Box<dyn Collective>,
    failed_saves: u32,
    saved_step: Option<u64>,
}

impl<O: Objective> Trainer<O> {
    /// Locks the output directory of a run with this plan.
    ///
    /// # Errors
    /// If the length of the run is unknown, or the output directory cannot be used.
    pub fn open(setup: &Setup<'_>, plan: Plan<O>, device: &Device) -> Result<Self, TrainError> {
        let Plan { objective, start, data } = plan;
        let run = Run::open(setup, start, data, device)?;
        let schedule = run.config.optimizer.schedule(run.steps);
        let dropout = Seed::new(run.config.run.seed).derive("dropout");
        let collective = Box::new(Single);
        Ok(Self { run, objective, schedule, dropout, collective, failed_saves: 0, saved_step: None })
    }

    /// Trains to the end, or until a request to stop; see [`start_or_resume`].
    ///
    /// # Errors
    /// As for [`start_or_resume`].
    pub fn run(mut self, observer: &mut dyn Observer, requests: &Requests) -> Result<Outcome, TrainError> {
        let mut record = RunRecord::new(&self.run.config.run.output, self.run.facts(), observer);
        let result = self.run_recorded(&mut record, requests);
        record.end(match &result {
            Ok(Outcome { status: Status::Finished, .. }) => ReportStatus::Finished,
            Ok(Outcome { status: Status::Interrupted, .. }) => ReportStatus::Interrupted,
            Err(error) => ReportStatus::Failed(with_causes(error)),
        });
        result
    }

    fn run_recorded(
        &mut self,
        record: &mut RunRecord<'_>,
        requests: &Requests,
    ) -> Result<Outcome, TrainError> {
        self.run.skipped_rows().for_each(|warning| record.on_warning(&warning));
        let loaded = self.run.load(record)?;
        self.run.write_config()?;
        let resumed_from = loaded.as_ref().map(|state| state.progress.step);
        self.saved_step = resumed_from;
        let mut state = match loaded {
            Some(state) => state,
            None => self.begin(record)?,
        };
        record.open(state.progress.step)?;
        let steps = self.run.steps;
        record.on_start(&RunStart {
            steps,
            resumed_from,
            n_parameters: state.bundle.model.num_params(),
            tokens_per_step: self.run.tokens_per_step(),
            rows_per_step: self.run.rows_per_step(),
            unit: O::UNIT,
        });
        if self.run.config.evaluate.at_start && state.progress.step == 0 {
            self.measure(&state, false, record);
        }
        let mut valid = None;
        while state.progress.step < steps {
            if requests.is_stopped_at(state.progress.step) {
                self.save(&state, record);
                let outcome = self.outcome(&state, resumed_from, Status::Interrupted);
                return Ok(Outcome { best: record.best(), ..outcome });
            }
            (state, valid) = self.step(state, record)?;
            if requests.take_save() {
                self.save(&state, record);
            }
        }
        // A run that had already finished is measured again.
        let valid = match valid {
            Some(valid) => Some(valid),
            None => self.measure(&state, true, record),
        };
        let chosen = self.best(&state, record)?;
        let valid = match &chosen {
            Some(best) => self.measure(best, true, record),
            None => valid,
        };
        let exported = chosen.as_ref().unwrap_or(&state);
        let model = self.run.export(exported).map_err(|source| TrainError::Export { source })?;
        let outcome = self.outcome(&state, resumed_from, Status::Finished);
        let model_step = Some(exported.progress.step);
        Ok(Outcome { valid, best: record.best(), model: Some(model), model_step, ..outcome })
    }

    /// The state of the best validation, if that is to be kept and is not the last one, `state`.
    fn best(
        &self,
        state: &TrainState<O::Family>,
        record: &mut RunRecord<'_>,
    ) -> Result<Option<TrainState<O::Family>>, TrainError> {
        let Some(step) = self.best_step(record).filter(|&step| step != state.progress.step) else {
            return Ok(None);
        };
        let best = self.run.load_step(step)?;
        if best.is_none() {
            record.on_warning(&Warning::NoBest { step });
        }
        Ok(best)
    }

    /// The step of the best validation so far, if its checkpoint is to be kept.
    fn best_step(&self, record: &RunRecord<'_>) -> Option<u64> {
        record.best_step().filter(|_| self.run.config.checkpoint.keep_best)
    }

    /// The state before the first step.
    fn begin(&self, observer: &mut dyn Observer) -> Result<TrainState<O::Family>, TrainError> {
        if let Some(class) = self.run.new_head() {
            observer.on_warning(&Warning::NewHead { class });
        }
        self.run.fresh_state()
    }

    /// One step, and the validation, metrics and checkpoint that are due after it.
    fn step(
        &mut self,
        mut state: TrainState<O::Family>,
        record: &mut RunRecord<'_>,
    ) -> Result<(TrainState<O::Family>, Option<Evaluation>), TrainError> {
        let started = Instant::now();
        let before = state.progress.step;
        let batches = self.run.next_batches(&mut state.progress);
        let lr = self.schedule.at(before);
        let RunConfig { precision, activation_checkpointing: checkpointing, .. } = self.run.config.run;
        let dropout = Some(self.dropout.at(before));
        let options = StepOptions { dropout, precision, checkpointing, collective: &*self.collective };
        let computed = compute_shared(&state.bundle.model, &self.objective, &batches, options);
        let Computed { loss, grad_norm, tokens, .. } = computed;
        let step = before + 1;
        let skipped = !computed.is_finite();
        if skipped {
            record.on_warning(&Warning::Skipped { step, loss, grad_norm });
            if state.progress.skip(step) > MAX_SKIPS {
                return Ok((self.roll_back(state, record)?, None));
            }
        } else {
            let scale = clip_scale(grad_norm, self.run.config.optimizer.clip_norm);
            state = with_precision(precision, || state.updated(computed, lr, scale));
            state.progress.tokens += tokens;
        }
        state.progress.step = step;
        let seconds = started.elapsed().as_secs_f64();
        let is_last = step == self.run.steps;
        let valid = if self.measures_after(step) { self.measure(&state, is_last, record) } else { None };
        state.progress.elapsed_s += started.elapsed().as_secs_f64();
        record.on_step(&StepRecord {
            step,
            loss,
            lr,
            grad_norm,
            tokens: state.progress.tokens,
            skipped,
            valid_loss: valid.as_ref().map(|evaluation| evaluation.loss),
            valid_metrics: valid.iter().flat_map(|evaluation| evaluation.metrics.iter().cloned()).collect(),
            tokens_per_s: tokens as f64 / seconds,
            rows_per_s: self.run.rows_per_step().map(|rows| rows as f64 / seconds),
            elapsed_s: state.progress.elapsed_s,
        });
        let is_best = valid.is_some() && self.best_step(record) == Some(step);
        if step.is_multiple_of(self.run.config.checkpoint.every) || is_last || is_best {
            self.save(&state, record);
        }
        Ok((state, valid))
    }

    /// An earlier state that skips the data used since then.
    fn roll_back(
        &mut self,
        state: TrainState<O::Family>,
        record: &mut RunRecord<'_>,
    ) -> Result<TrainState<O::Family>, TrainError> {
        let failed = state.progress;
        let count = failed.rollbacks + 1;
        if count > MAX_ROLLBACKS {
            return Err(TrainError::Diverged { step: failed.step + 1, rollbacks: failed.rollbacks });
        }
        let mut state = match self.run.load(record)? {
            Some(state) => state,
            None => self.run.fresh_state()?,
        };
        state.progress.next_batch = failed.next_batch;
        state.progress.rollbacks = count;
        state.progress.elapsed_s = failed.elapsed_s;
        state.progress.recent_skips.clear();
        let to = state.progress.step;
        record.roll_back(to)?;
        record.on_warning(&Warning::RolledBack { to, count });
        Ok(state)
    }

    fn measures_after(&self, step: u64) -> bool {
        let every = self.run.config.evaluate.every;
        step == self.run.steps || (every > 0 && step.is_multiple_of(every))
    }

    /// Validates: on all rows, or on the number that is configured for during the run.
    fn measure(
        &self,
        state: &TrainState<O::Family>,
        on_all: bool,
        observer: &mut dyn Observer,
    ) -> Option<Evaluation> {
        let step = state.progress.step;
        let limit = if on_all { None } else { self.run.config.evaluate.max_windows };
        let evaluation = self.run.evaluate(&self.objective, &state.plain_model(), limit)?;
        observer.on_eval(step, &evaluation);
        if let Some(confusion) = &evaluation.confusion {
            observer.on_confusion(step, confusion);
        }
        Some(evaluation)
    }

    /// Saves a checkpoint; a failure is reported and counted.
    fn save(&mut self, state: &TrainState<O::Family>, record: &mut RunRecord<'_>) {
        let step = state.progress.step;
        if self.saved_step == Some(step) {
            return;
        }
        // The lines before a checkpoint must outlive it: a resumed run does not write them again.
        let best = self.best_step(record);
        let saved = record.sync().map_err(SaveError::from).and_then(|()| self.run.save(state, best));
        match saved {
            Ok(path) => {
                self.saved_step = Some(step);
                record.on_checkpoint(step, &path);
            }
            Err(source) => {
                self.failed_saves += 1;
                record.on_warning(&Warning::NotSaved { step, source });
            }
        }
    }

    fn outcome(&self, state: &TrainState<O::Family>, resumed_from: Option<u64>, status: Status) -> Outcome {
        Outcome {
            status,
            step: state.progress.step,
            tokens: state.progress.tokens,
            epochs: self.run.epochs(state.progress.next_batch),
            resumed_from,
            rows: self
                .run
                .rows_per_step()
                .map(|_| self.run.config.data.rows as u64 * state.progress.next_batch),
            elapsed_s: state.progress.elapsed_s,
            valid: None,
            best: Vec::new(),
            model: None,
            model_step: None,
            saved: self.saved_step == Some(state.progress.step),
            saved_step: self.saved_step,
            failed_saves: self.failed_saves,
            rollbacks: state.progress.rollbacks,
        }
    }
}

#[cfg(test)]
mod tests;
