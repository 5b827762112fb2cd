//! The training loop: steps, validation, checkpoints, and recovery from failures.

mod error;
mod outcome;
mod requests;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use andiron_core::precision::with_precision;
use andiron_kernels::random::Seed;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};

use crate::collective::{Collective, CollectiveExt as _, Single, Unit, agree, floats, tensor};
use crate::config::{RunConfig, TrainConfig};
use crate::evaluation::Evaluation;
use crate::objective::{Objective, with_plan};
use crate::observe::report::ReportStatus;
use crate::observe::{Observer, RunRecord, RunStart, StepRecord, Warning, with_causes};
use crate::optimizer::{Schedule, clip_scale, is_trainable};
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
    start_or_resume_shared(config, device, observer, requests, Rc::new(Single))
}

/// [`start_or_resume`] of one of the processes that share a run. All of them call this with the same configuration, and read the same
/// files, as on a shared file system. The first one writes: it has the lock, encodes rows before the others read them, validates,
/// saves, and tells its observer; those of the others hear nothing. A request to one process is one to all, heeded after the same
/// step.
///
/// A checkpoint does not know how many processes there were: a run goes on with any number of them.
///
/// # Errors
/// As for [`start_or_resume`], and if a step has too few rows for so many processes. All processes return an error: that which failed
/// says why, the others that it did ([`TrainError::Elsewhere`]).
pub fn start_or_resume_shared(
    config: &TrainConfig,
    device: &Device,
    observer: &mut dyn Observer,
    requests: &Requests,
    collective: Rc<dyn Collective>,
) -> Result<Outcome, TrainError> {
    struct Start<'a> {
        setup: &'a Setup<'a>,
        device: &'a Device,
        is_planned: &'a Cell<bool>,
    }

    impl PlanUser for Start<'_> {
        type Output = Outcome;

        fn with<O: Objective>(self, plan: Plan<O>) -> Result<Outcome, TrainError> {
            let collective = &*self.setup.collective;
            self.is_planned.set(true);
            if collective.is_first() {
                // Now the others plan.
                agree::<_, TrainError>(collective, Ok(()))?;
            }
            agree::<_, TrainError>(collective, Ok(()))?;
            let trainer = agree(collective, Trainer::open(self.setup, plan, self.device))?;
            self.setup.with_watch(|observer, requests| trainer.run(observer, requests))
        }
    }

    let mut nobody = ();
    let observer = if collective.is_first() { observer } else { &mut nobody };
    let setup = agree(&*collective, Setup::open(config, device))?;
    let setup = setup.shared(Rc::clone(&collective)).watched(observer, requests);
    if !collective.is_first() {
        // The first process plans before the others: what it encodes, they find.
        agree::<_, TrainError>(&*collective, Ok(()))?;
    }
    let is_planned = Cell::new(false);
    let result = with_plan(&setup, Start { setup: &setup, device, is_planned: &is_planned });
    // The others wait for the plan.
    if is_planned.get() { result } else { agree(&*collective, result) }
}

/// A run that is ready to train: its directory is locked and its data is open.
#[derive(Debug)]
pub struct Trainer<O: Objective> {
    run: Run<O::Family>,
    objective: O,
    schedule: Schedule,
    dropout: Seed,
    collective: Rc<dyn Collective>,
    failed_saves: u32,
    saved_step: Option<u64>,
    /// Seconds of the steps of this process, and of those the ones spent waiting for data.
    step_s: f64,
    data_wait_s: f64,
}

impl<O: Objective> Trainer<O> {
    /// Locks the output directory of a run with this plan.
    ///
    /// # Errors
    /// If the length of the run is unknown, or the output directory cannot be used.
    pub fn open(setup: &Setup<'_>, plan: Plan<O>, device: &Device) -> Result<Self, TrainError> {
        let Plan { objective, start, data } = plan;
        let unit = if objective.compares_rows() { Unit::Batch } else { Unit::Row };
        let run = Run::open(setup, start, data, unit, device)?;
        let schedule = run.config.optimizer.schedule(run.steps);
        let dropout = Seed::new(run.config.run.seed).derive("dropout");
        let collective = Rc::clone(&run.collective);
        Ok(Self {
            run,
            objective,
            schedule,
            dropout,
            collective,
            failed_saves: 0,
            saved_step: None,
            step_s: 0.0,
            data_wait_s: 0.0,
        })
    }

    /// Trains to the end, or until a request to stop; see [`start_or_resume`].
    ///
    /// # Errors
    /// As for [`start_or_resume`].
    pub fn run(mut self, observer: &mut dyn Observer, requests: &Requests) -> Result<Outcome, TrainError> {
        let mut record = RunRecord::new(&self.run.config.run.output, self.run.facts(), observer);
        if !self.collective.is_first() {
            record = record.unkept();
        }
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
        agree(&*self.collective, self.write_config())?;
        let resumed_from = loaded.as_ref().map(|state| state.progress.step);
        self.saved_step = resumed_from;
        let mut state = match loaded {
            Some(state) => state,
            None => agree(&*self.collective, self.begin(record))?,
        };
        state.bundle.model = from_first(&*self.collective, state.bundle.model);
        agree(&*self.collective, record.open(state.progress.step).map_err(TrainError::from))?;
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
            self.measure_once(&state, false, record);
        }
        let mut valid = None;
        let mut is_stopped = self.asked(requests, state.progress.step).stop;
        while state.progress.step < steps {
            if is_stopped {
                self.save(&state, record);
                let outcome = self.outcome(&state, resumed_from, Status::Interrupted);
                return Ok(Outcome { best: record.best(), ..outcome });
            }
            (state, valid) = self.step(state, record)?;
            let asked = self.asked(requests, state.progress.step);
            if asked.save {
                self.save(&state, record);
            }
            is_stopped = asked.stop;
        }
        let finished = match self.collective.is_first() {
            true => self.finish(&state, valid, resumed_from, record),
            false => Ok(self.outcome(&state, resumed_from, Status::Finished)),
        };
        agree(&*self.collective, finished)
    }

    /// What any process was asked for until after `step` steps.
    fn asked(&self, requests: &Requests, step: u64) -> Asked {
        let [stop, save] = self.collective.any([requests.is_stopped_at(step), requests.take_save()]);
        Asked { stop, save }
    }

    fn write_config(&self) -> Result<(), TrainError> {
        if self.collective.is_first() { self.run.write_config() } else { Ok(()) }
    }

    /// The last validation and the model of a run whose steps are done.
    fn finish(
        &mut self,
        state: &TrainState<O::Family>,
        valid: Option<Evaluation>,
        resumed_from: Option<u64>,
        record: &mut RunRecord<'_>,
    ) -> Result<Outcome, TrainError> {
        // A run that had already finished is measured again.
        let valid = match valid {
            Some(valid) => Some(valid),
            None => self.measure(state, true, record),
        };
        let chosen = self.best(state, record)?;
        let valid = match &chosen {
            Some(best) => self.measure(best, true, record),
            None => valid,
        };
        let exported = chosen.as_ref().unwrap_or(state);
        let model = self.run.export(exported).map_err(|source| TrainError::Export { source })?;
        let outcome = self.outcome(state, resumed_from, Status::Finished);
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
        let first_batch = state.progress.next_batch;
        let (batches, first) = self.run.next_batches(&mut state.progress)?;
        let data_wait_s = started.elapsed().as_secs_f64();
        let lr = self.schedule.at(before);
        let RunConfig { precision, activation_checkpointing: checkpointing, .. } = self.run.config.run;
        let dropout = Some(self.dropout.at(before));
        let options = StepOptions { dropout, precision, checkpointing, collective: &*self.collective, first };
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
            state =
                with_precision(precision, || state.updated_shared(computed, lr, scale, &*self.collective));
            state.progress.tokens += tokens;
        }
        state.progress.step = step;
        let seconds = started.elapsed().as_secs_f64();
        self.step_s += seconds;
        self.data_wait_s += data_wait_s;
        let is_last = step == self.run.steps;
        let valid = if self.measures_after(step) { self.measure_once(&state, is_last, record) } else { None };
        state.progress.elapsed_s += started.elapsed().as_secs_f64();
        record.on_step(&StepRecord {
            step,
            first_batch,
            loss,
            lr,
            grad_norm,
            tokens: state.progress.tokens,
            skipped,
            valid_loss: valid.as_ref().map(|evaluation| evaluation.loss),
            valid_metrics: valid.iter().flat_map(|evaluation| evaluation.metrics.iter().cloned()).collect(),
            tokens_per_s: tokens as f64 / seconds,
            rows_per_s: self
                .run
                .rows_in(first_batch..state.progress.next_batch)
                .map(|rows| rows as f64 / seconds),
            step_s: seconds,
            data_wait_s,
            elapsed_s: state.progress.elapsed_s,
        });
        let is_best = valid.is_some() && self.best_step(record) == Some(step);
        let [is_best] = self.collective.any([is_best]);
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
            let diverged = TrainError::Diverged { step: failed.step + 1, rollbacks: failed.rollbacks };
            return agree(&*self.collective, Err(diverged));
        }
        let mut state = match self.run.load(record)? {
            Some(state) => state,
            None => agree(&*self.collective, self.run.fresh_state())?,
        };
        state.progress.next_batch = failed.next_batch;
        state.progress.rollbacks = count;
        state.progress.elapsed_s = failed.elapsed_s;
        state.progress.recent_skips.clear();
        let to = state.progress.step;
        agree(&*self.collective, record.roll_back(to).map_err(TrainError::from))?;
        record.on_warning(&Warning::RolledBack { to, count });
        Ok(state)
    }

    fn measures_after(&self, step: u64) -> bool {
        let every = self.run.config.evaluate.every;
        step == self.run.steps || (every > 0 && step.is_multiple_of(every))
    }

    /// [`measure`](Self::measure) of the first process, for which the others wait: the tallies of objectives are not added up over
    /// processes.
    fn measure_once(
        &self,
        state: &TrainState<O::Family>,
        on_all: bool,
        observer: &mut dyn Observer,
    ) -> Option<Evaluation> {
        let valid = if self.collective.is_first() { self.measure(state, on_all, observer) } else { None };
        self.collective.wait_for_all();
        valid
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
        // Others may hold parts of the optimizer's state.
        let whole = state.optimizer.gathered(&*self.collective);
        let whole = whole.map(|optimizer| TrainState { optimizer, ..state.clone() });
        let state = whole.as_ref().unwrap_or(state);
        let saved = self.collective.is_first().then(|| {
            // The lines before a checkpoint must outlive it: a resumed run does not write them again.
            let best = self.best_step(record);
            record.sync().map_err(SaveError::from).and_then(|()| self.run.save(state, best))
        });
        self.collective.wait_for_all();
        let [is_saved] = self.collective.any([matches!(saved, Some(Ok(_)))]);
        match is_saved {
            true => self.saved_step = Some(step),
            false => self.failed_saves += 1,
        }
        match saved {
            Some(Ok(path)) => record.on_checkpoint(step, &path),
            Some(Err(source)) => record.on_warning(&Warning::NotSaved { step, source }),
            None => {}
        }
    }

    fn outcome(&self, state: &TrainState<O::Family>, resumed_from: Option<u64>, status: Status) -> Outcome {
        Outcome {
            status,
            step: state.progress.step,
            tokens: state.progress.tokens,
            epochs: self.run.epochs(state.progress.next_batch),
            resumed_from,
            rows: self.run.rows_in(0..state.progress.next_batch),
            elapsed_s: state.progress.elapsed_s,
            data_wait: Some(self.data_wait_s / self.step_s).filter(|share| share.is_finite()),
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

/// What a run was asked for.
struct Asked {
    stop: bool,
    save: bool,
}

/// `model` with the trained parameters of the first process, which other processors may have computed with other last bits.
fn from_first<M: Module>(collective: &dyn Collective, model: M) -> M {
    struct FromFirst<'a>(&'a dyn Collective);
    impl ModuleMapper for FromFirst<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !is_trainable(&param) {
                return param;
            }
            param.map(|value| {
                let value = value.inner();
                let (shape, device) = (value.shape(), value.device());
                let mut numbers = floats(value.reshape([-1]));
                self.0.broadcast(&mut numbers, 0);
                Tensor::from_inner(tensor(numbers, &device).reshape(shape)).require_grad()
            })
        }
    }
    if collective.size() == 1 { model } else { model.map(&mut FromFirst(collective)) }
}

#[cfg(test)]
mod tests;
