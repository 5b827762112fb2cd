//! The training state: everything that the next step depends on, saved and loaded bit for bit.

use std::path::Path;

use andiron_files::PartialDirectory;
use andiron_models::weights::LoadError;
use andiron_models::{AdapterError, Bundle, FamilyConfig, LoraConfig};
use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::collective::{Collective, Single};
use crate::config::{Difference, TrainConfig, first_difference};
use crate::files::{self, FileError};
use crate::optimizer::{Ema, GroupError, Optimizer, OptimizerError, Share};
use crate::step::{Computed, parameters_are_finite};
use crate::tokenizer::TokenizerSource;
use crate::trainer::{SaveError, TrainError};

const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";
const STATE: &str = "state.json";

const MAX_STATE: u64 = 16 << 20;

/// Non-finite steps are counted over this many steps.
const SKIP_WINDOW: u64 = 100;

/// Progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done, skipped ones included.
    pub step: u64,
    /// Steps that changed the weights.
    pub updates: u64,
    /// Targets trained on.
    pub tokens: u64,
    /// Index of the next batch, which is the loader's whole position.
    pub next_batch: u64,
    /// Which of the last hundred steps were skipped.
    pub recent_skips: Vec<u64>,
    /// Number of rollbacks to an earlier state.
    pub rollbacks: u32,
    /// Seconds of training so far, over all processes of the run.
    pub elapsed_s: f64,
}

impl Progress {
    /// Records that `step` was skipped; returns how many of the last hundred steps were skipped.
    pub(crate) fn skip(&mut self, step: u64) -> usize {
        self.recent_skips.retain(|&earlier| earlier + SKIP_WINDOW > step);
        self.recent_skips.push(step);
        self.recent_skips.len()
    }
}

/// Weights, optimizer and progress. The learning rate and the random streams are functions of progress and seed.
#[derive(Clone, Debug)]
pub struct TrainState<C: FamilyConfig> {
    /// The model, with autodiff on, and its settings.
    pub bundle: Bundle<C>,
    /// The adapter that is trained of the model, and saved in its place.
    pub adapter: Option<LoraConfig>,
    /// The optimizer's moments.
    pub optimizer: Optimizer,
    /// The moving average of the weights, if the run has one.
    pub ema: Option<Ema>,
    /// The progress of the run.
    pub progress: Progress,
}

/// A model below an adapter, and the adapter.
pub(crate) type Adapted<C> = (Bundle<C>, LoraConfig);

/// The content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    progress: Progress,
    /// The configuration, with checksums of the data.
    identity: Value,
}

impl<C: FamilyConfig> TrainState<C> {
    /// The initial state: the weights of `bundle`, zero moments, step 0. With `adapter`, `bundle` has that adapter, and
    /// everything else is frozen.
    ///
    /// # Errors
    /// If a parameter group does not fit the model.
    pub fn new(
        bundle: Bundle<C>,
        adapter: Option<LoraConfig>,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<Self, GroupError> {
        Self::with_share((bundle, adapter), config, Share::WHOLE, device)
    }

    /// The same with a share of the optimizer's moments.
    pub(crate) fn with_share(
        (mut bundle, adapter): (Bundle<C>, Option<LoraConfig>),
        config: &TrainConfig,
        share: Share,
        device: &Device,
    ) -> Result<Self, GroupError> {
        bundle.model = config.optimizer.freeze(bundle.model)?.train();
        let optimizer = Optimizer::divided(&bundle.model, &config.optimizer, share, device)?;
        let ema = config.optimizer.ema_decay.map(|decay| Ema::new(&bundle.model, decay));
        Ok(Self { bundle, adapter, optimizer, ema, progress: Progress::default() })
    }

    /// The state after an update with the result of a step.
    pub fn updated(self, computed: Computed, lr: f64, grad_scale: f32) -> Self {
        self.updated_shared(computed, lr, grad_scale, &Single)
    }

    /// The same for one of several processes, which may each have a share of the optimizer.
    pub(crate) fn updated_shared(
        mut self,
        computed: Computed,
        lr: f64,
        grad_scale: f32,
        collective: &dyn Collective,
    ) -> Self {
        let model = self.bundle.model;
        let scale = f64::from(grad_scale);
        self.bundle.model = self.optimizer.update_shared(model, computed.gradients, [lr, scale], collective);
        self.progress.updates = self.optimizer.updates();
        if let Some(ema) = &mut self.ema {
            ema.update(&self.bundle.model);
        }
        self
    }

    /// The model for evaluation and export, without autodiff: with averaged weights, if the run has them.
    pub fn plain_model(&self) -> C::Model {
        let model = self.bundle.model.valid();
        match &self.ema {
            Some(ema) => ema.apply(model),
            None => model,
        }
    }

    /// Writes the checkpoint into `dir`.
    pub(crate) fn save(
        &self,
        dir: &Path,
        tokenizer: Option<&TokenizerSource>,
        identity: &Value,
    ) -> Result<(), SaveError> {
        if !parameters_are_finite(&self.bundle.model) {
            return Err(SaveError::NotFinite);
        }
        match &self.adapter {
            Some(adapter) => {
                self.bundle.save_adapter_with(adapter, &tokenizer_files(tokenizer)?, &dir.join(MODEL))?;
            }
            None => save_model(&self.bundle, &dir.join(MODEL), tokenizer)?,
        }
        self.optimizer.save(&dir.join(OPTIMIZER))?;
        if let Some(ema) = &self.ema {
            ema.save(&dir.join(EMA))?;
        }
        let saved = Saved { progress: self.progress.clone(), identity: identity.clone() };
        let text = serde_json::to_string_pretty(&saved).expect("a state is plain data") + "\n";
        Ok(files::write_synced(&dir.join(STATE), text.as_bytes())?)
    }

    /// Writes the trained model, or its adapter, as the directory `target`, in the place of an earlier one, with the tokenizer's
    /// files.
    pub(crate) fn export(&self, target: &Path, tokenizer: Option<&TokenizerSource>) -> Result<(), SaveError> {
        let mut bundle = self.bundle.clone();
        bundle.model = self.plain_model();
        if let Some(adapter) = &self.adapter {
            return Ok(bundle.save_adapter_with(adapter, &tokenizer_files(tokenizer)?, target)?);
        }
        let building = PartialDirectory::begin(target).map_err(files::failed("write", target))?;
        save_model(&bundle, building.path(), tokenizer)?;
        Ok(building.publish().map_err(files::failed("write", target))?)
    }

    /// Loads a checkpoint from `dir`, which was compared with its manifest before. Its configuration must match this one.
    /// `base` opens the model below the adapter, if the run trains one.
    pub(crate) fn load(
        dir: &Path,
        config: &TrainConfig,
        identity: &Value,
        (share, device): (Share, &Device),
        base: &dyn Fn() -> Result<Option<Adapted<C>>, TrainError>,
    ) -> Result<Self, TrainError> {
        let failed = |source: StateError| TrainError::Load { path: dir.to_owned(), source: Box::new(source) };
        let text = files::read_bounded(&dir.join(STATE), MAX_STATE).map_err(|error| failed(error.into()))?;
        let saved: Saved = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        let may_change = |field: &str| config.may_change(field);
        if let Some(difference) = first_difference(&saved.identity, identity, &may_change) {
            let Difference { field, before, now } = difference;
            let (before, now) = (before.to_string(), now.to_string());
            return Err(TrainError::Mismatch { path: dir.to_owned(), field, before, now });
        }
        let model = dir.join(MODEL);
        let (bundle, adapter) = match base()? {
            Some((bundle, adapter)) => {
                (bundle.with_adapter(&model).map_err(|error| failed(error.into()))?, Some(adapter))
            }
            None => (Bundle::open(&model, device).map_err(|error| failed(error.into()))?, None),
        };
        let mut state = Self::with_share((bundle, adapter), config, share, device)?;
        state
            .optimizer
            .load(&dir.join(OPTIMIZER), saved.progress.updates, device)
            .map_err(|error| failed(error.into()))?;
        if let Some(ema) = &mut state.ema {
            ema.load(&dir.join(EMA), device).map_err(|error| failed(error.into()))?;
        }
        state.progress = saved.progress;
        Ok(state)
    }
}

/// Writes the model directory `dir` with the tokenizer's files.
fn save_model<C: FamilyConfig>(
    bundle: &Bundle<C>,
    dir: &Path,
    tokenizer: Option<&TokenizerSource>,
) -> Result<(), SaveError> {
    bundle.save(dir).map_err(|source| SaveError::Model { source: Box::new(source) })?;
    for (name, bytes) in tokenizer_files(tokenizer)? {
        files::write_synced(&dir.join(name), &bytes)?;
    }
    Ok(())
}

/// The files of the tokenizer, if there is one.
fn tokenizer_files(tokenizer: Option<&TokenizerSource>) -> Result<Vec<(&'static str, Vec<u8>)>, FileError> {
    tokenizer.map_or(Ok(Vec::new()), TokenizerSource::files)
}

/// Why an intact checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// `state.json` is not of the form that this version writes.
    #[error("{STATE} is not understood")]
    State(#[from] serde_json::Error),
    /// The model cannot be opened.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The adapter cannot be opened, or is not one of the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The optimizer's state cannot be read or does not fit the model.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONFIG, decoder, device};
    use andiron_kernels::random::Seed;
    use andiron_models::{DecoderBundle, DecoderConfig};

    fn fresh(group: &str) -> Result<TrainState<DecoderConfig>, GroupError> {
        let set = format!("optimizer.groups=[{{ {group} }}]");
        let config = TrainConfig::parse(CONFIG, &[set]).unwrap();
        let bundle = DecoderBundle::init(decoder(&config).clone(), Seed::new(3), &device());
        TrainState::new(bundle, None, &config, &device())
    }

    #[test]
    fn a_run_freezes_what_its_groups_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        fresh(r#"match = "transformer.w?e.*", freeze = true"#).unwrap().optimizer.save(&path).unwrap();
        let saved = std::fs::read(&path).unwrap();
        let saved = safetensors::SafeTensors::deserialize(&saved).unwrap();
        assert!(saved.tensor("transformer.h.0.ln_1.weight.mean").is_ok());
        assert!(saved.names().iter().all(|name| !name.contains(".wte.") && !name.contains(".wpe.")));
    }

    #[test]
    fn groups_that_do_not_fit_the_model_are_an_error() {
        let error = fresh(r#"match = "bert.*", lr_scale = 0.1"#).unwrap_err();
        assert!(error.to_string().contains("\"bert.*\" matches no parameter"), "{error}");
    }

    #[test]
    fn skips_are_counted_over_the_last_hundred_steps() {
        let mut progress = Progress::default();
        assert_eq!([7, 8, 9].map(|step| progress.skip(step)), [1, 2, 3]);
        assert_eq!(progress.skip(106), 4);
        // Step 7 is a hundred steps back and no longer counts.
        assert_eq!(progress.skip(107), 4);
        assert_eq!(progress.recent_skips, [8, 9, 106, 107]);
        assert_eq!(progress.skip(1000), 1);
    }
}
