//! The directory and the data of a run, open until the run ends.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use andiron_data::Prefetch;
use andiron_data::batch::HostBatch;
use andiron_data::loader::BatchSource;
use andiron_kernels::random::Seed;
use andiron_models::FamilyConfig;
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::base::Base;
use crate::checkpoint::Checkpoints;
use crate::collective::{Collective, CollectiveExt as _, OwnBatches, Part, Unit, agree, part_of};
use crate::config::{ConfigError, RunConfig, TrainConfig};
use crate::evaluation::Evaluation;
use crate::files::{self, DirectoryLock};
use crate::objective::{CausalConfig, ModelOf, Objective, ObjectiveConfig};
use crate::observe::{Observer, RunFacts, Warning};
use crate::optimizer::Share;
use crate::plan::{Beginning, Setup, Start, TrainingData};
use crate::state::{Adapted, Progress, TrainState};
use crate::step::FirstRow;
use crate::tokenizer::TokenizerSource;
use crate::trainer::{SaveError, TrainError};
use crate::validation::ValidationData;

const CONFIG: &str = "config.toml";
const MODEL: &str = "model";

/// Keys of the checksums in a run's identity.
pub(crate) const TRAIN_CHECKSUM: &str = "train_blake3";
pub(crate) const VALID_CHECKSUM: &str = "valid_blake3";
const TOKENIZER_CHECKSUM: &str = "tokenizer_blake3";

/// The inputs and outputs of a run.
#[derive(Debug)]
pub(crate) struct Run<C: FamilyConfig> {
    pub(crate) config: TrainConfig,
    /// Length of the run, in optimizer steps.
    pub(crate) steps: u64,
    start: Start<C>,
    data: TrainingData,
    batches: Prefetch,
    tokenizer: Option<TokenizerSource>,
    /// What the model is called, and the objective.
    model: String,
    objective: &'static str,
    device: Device,
    checkpoints: Checkpoints,
    /// The configuration and the checksums of the data, which a checkpoint must match.
    identity: Value,
    pub(crate) collective: Rc<dyn Collective>,
    /// The rows of each step that this process takes.
    own: Arc<OwnBatches>,
    /// That of the first process.
    _lock: Option<DirectoryLock>,
}

/// The part of each step that this process takes. Batches of a number of tokens differ in their rows, and are not divided.
fn own_batches(
    collective: &dyn Collective,
    config: &TrainConfig,
    data: &TrainingData,
    unit: Unit,
) -> Result<Arc<OwnBatches>, TrainError> {
    let (unit, rows) = match config.data.batch_tokens {
        Some(_) => (Unit::Batch, 1),
        None => (unit, config.data.rows),
    };
    let per_step = config.run.accumulate;
    let parts = part_of(collective, per_step, rows, unit)?;
    Ok(Arc::new(OwnBatches::new(data.train.clone(), parts, per_step, rows)))
}

impl<C: FamilyConfig> Run<C> {
    /// Locks the run's directory, if this is the first of the processes that share the run. `unit` is what they do not divide.
    pub(crate) fn open(
        setup: &Setup<'_>,
        start: Start<C>,
        data: TrainingData,
        unit: Unit,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let config = setup.config.clone();
        let steps = steps(&config, &*data.train)?;
        let tokenizer = setup.tokenizer().cloned();
        let identity = identity(&config, &setup.base, &data, tokenizer.as_ref())?;
        let collective = Rc::clone(&setup.collective);
        let own = own_batches(&*collective, &config, &data, unit)?;
        let batches = Prefetch::new(Arc::clone(&own) as Arc<dyn BatchSource>, config.data.workers);
        let (root, keep_last) = (&config.run.output, config.checkpoint.keep_last);
        let (checkpoints, lock) = if collective.is_first() {
            files::make_directory(root)?;
            let lock = DirectoryLock::take(root)?.ok_or_else(|| TrainError::Busy { path: root.clone() })?;
            (Checkpoints::open(root, keep_last)?, Some(lock))
        } else {
            (Checkpoints::of_another_process(root, keep_last), None)
        };
        let (model, objective, device) = (setup.base.name(), setup.objective()?.kind(), device.clone());
        Ok(Self {
            config,
            steps,
            start,
            data,
            batches,
            tokenizer,
            model,
            objective,
            device,
            checkpoints,
            identity,
            collective,
            own,
            _lock: lock,
        })
    }

    /// The state of the newest intact checkpoint; `None` if the run has none. The first process chooses it, and the others read the
    /// same one.
    pub(crate) fn load(&self, observer: &mut dyn Observer) -> Result<Option<TrainState<C>>, TrainError> {
        let collective = &*self.collective;
        let mut newest = Ok(None);
        if collective.is_first() {
            newest = self.load_newest(observer);
        }
        let newest = agree(collective, newest)?;
        let step = newest.as_ref().map_or(-1.0, |state| state.progress.step as f64);
        let step = collective.of_first(step);
        if step < 0.0 {
            return Ok(None);
        }
        let loaded = match newest {
            Some(state) => Ok(state),
            None => self.load_step(step as u64).and_then(|state| {
                let (rank, path) = (collective.rank(), self.config.run.output.clone());
                state.ok_or(TrainError::NotShared { rank, step: step as u64, path })
            }),
        };
        agree(collective, loaded).map(Some)
    }

    fn load_newest(&self, observer: &mut dyn Observer) -> Result<Option<TrainState<C>>, TrainError> {
        let base = || self.adapted();
        let read = |dir: &Path| {
            TrainState::load(dir, &self.config, &self.identity, (self.share(), &self.device), &base)
        };
        self.checkpoints
            .load_newest(read, &mut |aside| observer.on_warning(&Warning::DamagedCheckpoint(aside)))
    }

    /// The state of the checkpoint of a step; `None` if there is none, or it is damaged.
    pub(crate) fn load_step(&self, step: u64) -> Result<Option<TrainState<C>>, TrainError> {
        let base = || self.adapted();
        let read = |dir: &Path| {
            TrainState::load(dir, &self.config, &self.identity, (self.share(), &self.device), &base)
        };
        self.checkpoints.load_step(step, read)
    }

    /// The part of the optimizer's state that this process holds.
    fn share(&self) -> Share {
        match self.config.optimizer.shard {
            true => Share { rank: self.collective.rank(), size: self.collective.size() },
            false => Share::WHOLE,
        }
    }

    /// Writes the resolved configuration. Call it after [`load`](Self::load), which checks that the run may use it.
    pub(crate) fn write_config(&self) -> Result<(), TrainError> {
        let path = self.config.run.output.join(CONFIG);
        Ok(files::replace(&path, self.config.to_toml().as_bytes())?)
    }

    /// The rows of the next step that this process takes, and the first of them.
    pub(crate) fn next_batches(
        &mut self,
        progress: &mut Progress,
    ) -> Result<(Vec<HostBatch>, FirstRow), TrainError> {
        let per_step = self.config.run.accumulate;
        let indices = self.own.of_step(progress.next_batch / per_step);
        progress.next_batch += per_step;
        let batches = indices.map(|index| self.batches.take(index)).collect::<Result<_, _>>();
        let Part { batch, rows } = self.own.first();
        let first_row = FirstRow { batch: *batch, row: rows.start as u64 };
        Ok((batches.map_err(|source| TrainError::Workers { source })?, first_row))
    }

    /// How often every example was read, after that many batches; `None` if examples are drawn with replacement.
    pub(crate) fn epochs(&self, batches: u64) -> Option<f64> {
        Some(self.data.train.epoch()?.epochs(batches))
    }

    /// Rows of each step, if the data are rows and steps have the same number of them.
    pub(crate) fn rows_per_step(&self) -> Option<u64> {
        let data = &self.config.data;
        let has_number = self.data.has_rows && data.batch_tokens.is_none();
        has_number.then_some(data.rows as u64 * self.config.run.accumulate)
    }

    /// Rows of these batches, if the data are rows.
    pub(crate) fn rows_in(&self, batches: Range<u64>) -> Option<u64> {
        let rows = || batches.map(|index| self.data.train.n_rows_at(index)).sum();
        self.data.has_rows.then(rows)
    }

    /// Tokens that the model reads in the first step, or in a step at most if the configuration says that.
    pub(crate) fn tokens_per_step(&self) -> u64 {
        let of_batch = || self.data.train.batch_at(0).inputs.n_tokens();
        self.config.data.batch_tokens.unwrap_or_else(of_batch) as u64 * self.config.run.accumulate
    }

    pub(crate) fn fresh_state(&self) -> Result<TrainState<C>, TrainError> {
        let (bundle, adapter) = match self.adapted()? {
            Some((bundle, adapter)) => {
                let seed = Seed::new(self.config.run.seed).derive("adapter");
                let failed = |source| TrainError::Adapter { source: Box::new(source) };
                (bundle.with_lora(&adapter, seed).map_err(failed)?, Some(adapter))
            }
            None => (self.beginning()?.bundle, None),
        };
        Ok(TrainState::with_share((bundle, adapter), &self.config, self.share(), &self.device)?)
    }

    fn beginning(&self) -> Result<Beginning<C>, TrainError> {
        self.start.model(self.config.run.weights_seed(), &self.device)
    }

    /// The model that an adapter is trained of, without it, and the adapter; `None` if all of the model is trained.
    fn adapted(&self) -> Result<Option<Adapted<C>>, TrainError> {
        let Some(adapter) = &self.config.adapter else { return Ok(None) };
        let beginning = self.beginning()?;
        let adapter = beginning.adapter(adapter, &self.model);
        Ok(Some((beginning.bundle, adapter)))
    }

    /// Hugging Face's class of the model, if its head is newly initialized.
    pub(crate) fn new_head(&self) -> Option<&'static str> {
        self.start.new_head()
    }

    /// Rows of the data that were skipped.
    pub(crate) fn skipped_rows(&self) -> impl Iterator<Item = Warning> {
        self.data.skipped.iter().map(|(path, skipped)| Warning::SkippedRows {
            path: path.clone(),
            rows: skipped.rows,
            first: skipped.first.first().cloned().unwrap_or_default(),
        })
    }

    /// What the run's report says of it.
    pub(crate) fn facts(&self) -> RunFacts {
        let RunConfig { output, log_every, .. } = &self.config.run;
        let data = &self.config.data;
        let mut facts = Vec::new();
        let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
        add("Model", self.model.clone());
        add("Objective", self.objective.to_owned());
        let inputs = [
            ("Training data", Some(&*data.train), TRAIN_CHECKSUM),
            (
                "Validation data",
                data.valid.as_deref().or(data.held_out.and(Some(&*data.train))),
                VALID_CHECKSUM,
            ),
            ("Tokenizer", self.tokenizer.as_ref().map(TokenizerSource::path), TOKENIZER_CHECKSUM),
        ];
        for (name, path, checksum) in inputs {
            if let (Some(path), Some(checksum)) = (path, self.identity["data"][checksum].as_str()) {
                add(name, format!("{}, BLAKE3 {checksum}", path.display()));
            }
        }
        add("Andiron", env!("CARGO_PKG_VERSION").to_owned());
        let name = output.file_name().unwrap_or(output.as_os_str()).to_string_lossy().into_owned();
        RunFacts { name, facts, config: self.config.to_toml(), log_every: *log_every }
    }

    /// Saves a checkpoint and returns its path. That of the step `best` is kept as well.
    pub(crate) fn save(&self, state: &TrainState<C>, best: Option<u64>) -> Result<PathBuf, SaveError> {
        let tokenizer = self.tokenizer.as_ref();
        let write = |dir: &Path| state.save(dir, tokenizer, &self.identity);
        self.checkpoints.save_beside(best, state.progress.step, write)
    }

    /// Writes the final model directory, or that of the adapter, replacing an earlier one.
    pub(crate) fn export(&self, state: &TrainState<C>) -> Result<PathBuf, SaveError> {
        let target = self.config.run.output.join(MODEL);
        state.export(&target, self.tokenizer.as_ref())?;
        Ok(target)
    }

    /// The objective on the first `limit` rows of the validation data, rounded up to whole batches, in f32; `None` if the run
    /// has no validation data.
    pub(crate) fn evaluate<O: Objective<Family = C>>(
        &self,
        objective: &O,
        model: &ModelOf<O>,
        limit: Option<u64>,
    ) -> Option<Evaluation> {
        let valid = self.data.valid.as_deref()?;
        let all = valid.n_batches().expect("validation data is read once");
        let rows = self.config.evaluation_rows() as u64;
        let batches = limit.map_or(all, |limit| limit.div_ceil(rows).min(all));
        let of = ValidationData { valid, batches, bytes_per_target: self.data.bytes_per_target };
        Some(of.evaluate(objective, model, &self.device))
    }
}

/// Length of the run: `run.steps`, or as many steps as `run.epochs` take.
pub(crate) fn steps(config: &TrainConfig, train: &dyn BatchSource) -> Result<u64, TrainError> {
    let steps = match (config.run.steps, config.run.epochs) {
        (Some(steps), _) => steps,
        (None, Some(epochs)) => {
            let why = "examples are drawn with replacement, so that there are no epochs: or set data.order = \"epochs\"";
            let missing = ConfigError::Missing { field: "run.steps", why };
            train.epoch().ok_or(missing)?.steps(epochs, config.run.accumulate)
        }
        (None, None) => return Err(ConfigError::NoLength.into()),
    };
    config.optimizer.validate(steps)?;
    Ok(steps)
}

/// The configuration as JSON, with the checksums of the data and the tokenizer, and of the model below an adapter, and the
/// class of the model to begin with.
fn identity(
    config: &TrainConfig,
    base: &Base,
    data: &TrainingData,
    tokenizer: Option<&TokenizerSource>,
) -> Result<Value, TrainError> {
    let mut tree = serde_json::to_value(config).expect("a configuration is plain data");
    // It is the default of decoders: checkpoints of before there was a choice do not name it.
    if config.objective == Some(ObjectiveConfig::Causal(CausalConfig::default()))
        && let Some(fields) = tree.as_object_mut()
    {
        fields.remove("objective");
    }
    for (key, checksum) in &data.fingerprints {
        tree["data"][key] = json!(checksum);
    }
    if let Some(tokenizer) = tokenizer {
        tree["data"][TOKENIZER_CHECKSUM] = json!(tokenizer.checksum()?);
    }
    if base.directory.is_some() {
        tree["init"]["class"] = json!(base.config.class_name());
    }
    // Checkpoints hold the adapter only.
    if config.adapter.is_some()
        && let Some(checksum) = base.checksum()?
    {
        tree["init"]["weights_blake3"] = json!(checksum);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests;
