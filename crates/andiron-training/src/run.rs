//! The directory and the data of a run, open until the run ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use andiron_data::batch::HostBatch;
use andiron_data::collate::Causal;
use andiron_data::loader::{BatchSource as _, Loader, LoaderOptions};
use andiron_data::shard::Dataset;
use andiron_eval::LossReport;
use andiron_eval::task::windows::{Windows, WindowsError, loss_over_windows};
use andiron_files::PartialDirectory;
use andiron_kernels::random::Seed;
use andiron_models::DecoderModel;
use burn::tensor::Device;
use serde_json::Value;

use crate::checkpoint::Checkpoints;
use crate::config::{RunConfig, TrainConfig};
use crate::files::{self, DirectoryLock};
use crate::observe::{Observer, RunFacts, Warning};
use crate::state::{Progress, TrainState, tokenizer_checksum};
use crate::trainer::{SaveError, TrainError};

const CONFIG: &str = "config.toml";
const MODEL: &str = "model";

/// Keys of the checksums in a run's identity.
const TRAIN_CHECKSUM: &str = "train_blake3";
const VALID_CHECKSUM: &str = "valid_blake3";
const TOKENIZER_CHECKSUM: &str = "tokenizer_blake3";

/// The inputs and outputs of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) config: TrainConfig,
    loader: Loader,
    device: Device,
    valid: Option<Dataset>,
    checkpoints: Checkpoints,
    /// The configuration and the checksums of the data, which a checkpoint must match.
    identity: Value,
    _lock: DirectoryLock,
}

impl Run {
    /// Opens the data and locks the run's directory.
    pub(crate) fn open(config: &TrainConfig, device: &Device) -> Result<Self, TrainError> {
        config.validate()?;
        let dataset = |path: &Path| {
            let dataset =
                Dataset::open(path).map_err(|source| TrainError::Data { source: Box::new(source) })?;
            let (found, wanted) = (dataset.vocab_size(), config.model.vocab_size());
            if found > wanted {
                return Err(TrainError::Vocabulary { path: path.to_owned(), data: found, model: wanted });
            }
            Ok(dataset)
        };
        let train = dataset(&config.data.train)?;
        let valid = config.data.valid.as_deref().map(dataset).transpose()?;
        let identity = identity(config, &train, valid.as_ref())?;
        if let Some(valid) = &valid {
            let windows = Windows { context: config.data.context, rows: 1, limit: None };
            if windows.count(valid.tokens()) == 0 {
                let tokens = valid.tokens();
                return Err(TrainError::Evaluate { source: WindowsError::TooShort { tokens } });
            }
        }
        let loader = open_loader(config, train)?;
        let root = &config.run.output;
        files::make_directory(root)?;
        let lock = DirectoryLock::take(root)?.ok_or_else(|| TrainError::Busy { path: root.clone() })?;
        let checkpoints = Checkpoints::open(root, config.checkpoint.keep_last)?;
        let (config, device) = (config.clone(), device.clone());
        Ok(Self { config, loader, device, valid, checkpoints, identity, _lock: lock })
    }

    /// The state of the newest intact checkpoint; `None` if the run has none.
    pub(crate) fn load(&self, observer: &mut dyn Observer) -> Result<Option<TrainState>, TrainError> {
        let read = |dir: &Path| TrainState::load(dir, &self.config, &self.identity, &self.device);
        self.checkpoints
            .load_newest(read, &mut |aside| observer.on_warning(&Warning::DamagedCheckpoint(aside)))
    }

    /// Writes the resolved configuration. Call it after [`load`](Self::load), which checks that the run may use it.
    pub(crate) fn write_config(&self) -> Result<(), TrainError> {
        let path = self.config.run.output.join(CONFIG);
        Ok(files::replace(&path, self.config.to_toml().as_bytes())?)
    }

    /// The micro-batches of the next step.
    pub(crate) fn next_batches(&self, progress: &mut Progress) -> Vec<HostBatch> {
        let first = progress.next_batch;
        progress.next_batch += self.config.run.accumulate;
        (first..progress.next_batch).map(|index| self.loader.batch_at(index)).collect()
    }

    pub(crate) fn fresh_state(&self) -> TrainState {
        TrainState::fresh(&self.config, &self.device)
    }

    /// What the run's report says of it.
    pub(crate) fn facts(&self) -> RunFacts {
        let RunConfig { output, log_every, .. } = &self.config.run;
        let data = &self.config.data;
        let mut facts = Vec::new();
        let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
        add("Model", self.identity["model"]["model_type"].as_str().unwrap_or_default().to_owned());
        add("Objective", "causal".to_owned());
        let inputs = [
            ("Training data", Some(&data.train), TRAIN_CHECKSUM),
            ("Validation data", data.valid.as_ref(), VALID_CHECKSUM),
            ("Tokenizer", data.tokenizer.as_ref(), TOKENIZER_CHECKSUM),
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

    /// Saves a checkpoint and returns its path.
    pub(crate) fn save(&self, state: &TrainState) -> Result<PathBuf, SaveError> {
        let tokenizer = self.config.data.tokenizer.as_deref();
        self.checkpoints.save(state.progress.step, |dir| state.save(dir, tokenizer, &self.identity))
    }

    /// Writes the final model directory, replacing an earlier one.
    pub(crate) fn export(&self, state: &TrainState) -> Result<PathBuf, SaveError> {
        let target = self.config.run.output.join(MODEL);
        let building = PartialDirectory::begin(&target).map_err(files::failed("write", &target))?;
        state.save_model(building.path(), self.config.data.tokenizer.as_deref())?;
        building.publish().map_err(files::failed("write", &target))?;
        Ok(target)
    }

    /// The validation loss of `model` on the first `limit` windows; `None` if the run has no validation data.
    pub(crate) fn evaluate(
        &self,
        model: &DecoderModel,
        limit: Option<u64>,
    ) -> Result<Option<LossReport>, TrainError> {
        let Some(valid) = &self.valid else { return Ok(None) };
        let windows = Windows { context: self.config.data.context, rows: self.config.evaluate.rows, limit };
        let sum = loss_over_windows(model, valid, windows, &self.device)
            .map_err(|source| TrainError::Evaluate { source })?;
        // Bytes of the measured tokens, estimated by their share of all tokens; exact except for the first token.
        let bytes = valid.stats().bytes as f64 * sum.tokens() as f64 / valid.tokens() as f64;
        Ok(Some(LossReport::new(sum, Some(bytes.round() as u64).filter(|&bytes| bytes > 0))))
    }
}

fn open_loader(config: &TrainConfig, train: Dataset) -> Result<Loader, TrainError> {
    let data = &config.data;
    let collator = Arc::new(Causal { columns: data.context, pad: 0 });
    let options = LoaderOptions { rows: data.rows, order: data.order };
    Loader::new(Arc::new(train), collator, options, Seed::new(config.run.seed))
        .map_err(|source| TrainError::Loader { path: data.train.clone(), source })
}

/// The configuration as JSON, with the checksums of the data and the tokenizer.
fn identity(config: &TrainConfig, train: &Dataset, valid: Option<&Dataset>) -> Result<Value, TrainError> {
    let mut tree = serde_json::to_value(config).expect("a configuration is plain data");
    let mut add = |key: &str, checksum: String| tree["data"][key] = checksum.into();
    add(TRAIN_CHECKSUM, train.fingerprint().to_owned());
    if let Some(valid) = valid {
        add(VALID_CHECKSUM, valid.fingerprint().to_owned());
    }
    if let Some(tokenizer) = &config.data.tokenizer {
        add(TOKENIZER_CHECKSUM, tokenizer_checksum(tokenizer)?);
    }
    Ok(tree)
}
