//! What a run is made of, once its objective has opened the data and prepared the model.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use andiron_data::collate::CollateWindows;
use andiron_data::loader::{BatchSource, Loader, LoaderOptions, Order};
use andiron_data::rows::Skipped;
use andiron_data::shard::Dataset;
use andiron_kernels::random::Seed;
use andiron_models::weights::names;
use andiron_models::{Bundle, Family, FamilyConfig, LoraConfig};
use burn::tensor::Device;
use serde_json::json;

use crate::base::Base;
use crate::collective::{Collective, Single};
use crate::config::{ConfigError, TrainConfig, check};
use crate::files;
use crate::objective::{CausalConfig, Objective, ObjectiveConfig};
use crate::observe::{Observer, Preparation};
use crate::run::{TRAIN_CHECKSUM, VALID_CHECKSUM};
use crate::tokenizer::TokenizerSource;
use crate::trainer::{Requests, TrainError};

/// What a run is made of.
#[derive(Debug)]
pub struct Plan<O: Objective> {
    /// The objective.
    pub objective: O,
    /// The model at the beginning.
    pub start: Start<O::Family>,
    /// The data.
    pub data: TrainingData,
}

/// Uses a plan, whatever its objective.
pub(crate) trait PlanUser {
    type Output;

    fn with<O: Objective>(self, plan: Plan<O>) -> Result<Self::Output, TrainError>;
}

/// A model at the beginning of a run, and which part of it is new.
#[derive(Debug)]
pub struct Beginning<C: FamilyConfig> {
    /// The model.
    pub bundle: Bundle<C>,
    /// Modules that are newly initialized, if the others are read from a model directory.
    pub new_modules: Vec<String>,
}

impl<C: FamilyConfig> Beginning<C> {
    /// A model without new modules.
    pub fn whole(bundle: Bundle<C>) -> Self {
        Self { bundle, new_modules: Vec::new() }
    }

    /// A model with a new head; other parameters are new as well unless they are among those of `before`.
    pub(crate) fn with_new_head(bundle: Bundle<C>, before: &[(String, Vec<usize>)]) -> Self {
        let mut new_modules = bundle.head_modules();
        for param in names(&bundle.model).iter().filter(|param| !before.contains(param)) {
            let module = param.0.rsplit_once('.').map_or(param.0.as_str(), |(module, _)| module);
            let is_in = |of: &String| {
                module.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if !new_modules.iter().any(is_in) {
                new_modules.push(module.to_owned());
            }
        }
        Self { bundle, new_modules }
    }

    /// The adapter that `[adapter]` asks for: new modules and a head for labels are trained in full.
    pub(crate) fn adapter(&self, config: &LoraConfig, base: &str) -> LoraConfig {
        let mut config = config.clone();
        let has_task_head = self.bundle.adapter_names().has_task_head();
        let head = if has_task_head { self.bundle.head_modules() } else { Vec::new() };
        for module in self.new_modules.iter().chain(&head) {
            if !config.modules_to_save.contains(module) {
                config.modules_to_save.push(module.clone());
            }
        }
        config.base_model.get_or_insert_with(|| base.to_owned());
        config
    }
}

/// The model at the beginning of a run.
pub struct Start<C: FamilyConfig> {
    #[allow(clippy::type_complexity)] // Its one use is `Start::model`.
    make: Box<dyn Fn(Seed, &Device) -> Result<Beginning<C>, TrainError>>,
    new_head: Option<&'static str>,
}

impl<C: FamilyConfig> Start<C> {
    /// A model made by `make` from the seed of new weights.
    pub fn new(make: impl Fn(Seed, &Device) -> Result<Beginning<C>, TrainError> + 'static) -> Self {
        Self { make: Box::new(make), new_head: None }
    }

    /// The same, saying that the model gets a new head: `class` is Hugging Face's class with it.
    #[must_use]
    pub(crate) fn with_new_head(self, class: Option<&'static str>) -> Self {
        Self { new_head: class, ..self }
    }

    /// The model.
    ///
    /// # Errors
    /// If its directory cannot be opened.
    pub fn model(&self, seed: Seed, device: &Device) -> Result<Beginning<C>, TrainError> {
        (self.make)(seed, device)
    }

    /// Hugging Face's class of the model, if its head is newly initialized.
    pub(crate) fn new_head(&self) -> Option<&'static str> {
        self.new_head
    }
}

impl<C: FamilyConfig> fmt::Debug for Start<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").field("new_head", &self.new_head).finish_non_exhaustive()
    }
}

/// The data of a run.
#[derive(Debug)]
pub struct TrainingData {
    /// Batches without end.
    pub train: Arc<dyn BatchSource>,
    /// Batches of the validation data, each example once.
    pub valid: Option<Box<dyn BatchSource>>,
    /// Checksums by key: a checkpoint is only resumed with the same data.
    pub fingerprints: Vec<(&'static str, String)>,
    /// Bytes of text that a target of the validation data stands for, if known.
    pub bytes_per_target: Option<f64>,
    /// Whether a batch is made of rows of a file, not of parts of a token stream.
    pub has_rows: bool,
    /// Rows that were skipped, by file.
    pub skipped: Vec<(PathBuf, Skipped)>,
}

/// What objectives plan from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The configuration.
    pub config: &'a TrainConfig,
    /// The model to begin with.
    pub base: Base,
    /// The device of the run, without autodiff.
    pub device: &'a Device,
    tokenizer: Option<TokenizerSource>,
    /// The processes that share the run.
    pub(crate) collective: Rc<dyn Collective>,
    /// Whether the model is measured as it is, so that rows cannot give it other labels.
    pub(crate) is_measured: bool,
    /// Who is told of the encoding of rows, and can stop it.
    watch: Option<Watch<'a>>,
}

struct Watch<'a> {
    observer: RefCell<&'a mut dyn Observer>,
    requests: &'a Requests,
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("requests", self.requests).finish_non_exhaustive()
    }
}

impl<'a> Setup<'a> {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// If the configuration is invalid, or the model to begin with cannot be read.
    pub fn open(config: &'a TrainConfig, device: &'a Device) -> Result<Self, TrainError> {
        config.validate()?;
        let base = Base::open(config)?;
        let longest = base.config.sizes().max_positions;
        config.check_length(longest)?;
        let tokenizer = TokenizerSource::of(config.data.tokenizer.as_deref(), &base)?;
        let collective = Rc::new(Single);
        Ok(Self { config, base, device, tokenizer, collective, is_measured: false, watch: None })
    }

    /// The same for one of the processes that share a run.
    #[must_use]
    pub fn shared(self, collective: Rc<dyn Collective>) -> Self {
        Self { collective, ..self }
    }

    /// The same, telling `observer` how far rows are encoded; a request to stop ends that.
    #[must_use]
    pub fn watched(self, observer: &'a mut dyn Observer, requests: &'a Requests) -> Self {
        Self { watch: Some(Watch { observer: RefCell::new(observer), requests }), ..self }
    }

    /// Tells how far the rows of a file are encoded.
    ///
    /// # Errors
    /// If the run was asked to stop.
    pub(crate) fn tell(&self, preparation: &Preparation<'_>) -> Result<(), TrainError> {
        let Some(watch) = &self.watch else { return Ok(()) };
        watch.observer.borrow_mut().on_prepare(preparation);
        if watch.requests.is_stopped() { Err(TrainError::Stopped) } else { Ok(()) }
    }

    /// Lets `work` have who watches the run; nobody if it is not [`watched`](Self::watched).
    pub(crate) fn with_watch<T>(&self, work: impl FnOnce(&mut dyn Observer, &Requests) -> T) -> T {
        match &self.watch {
            Some(watch) => work(&mut **watch.observer.borrow_mut(), watch.requests),
            None => work(&mut (), &Requests::default()),
        }
    }

    /// The objective: by default next-token prediction, for a decoder.
    pub(crate) fn objective(&self) -> Result<ObjectiveConfig, TrainError> {
        match (&self.config.objective, self.base.family()) {
            (Some(objective), _) => Ok(objective.clone()),
            (None, Family::Decoder) => Ok(ObjectiveConfig::Causal(CausalConfig::default())),
            (None, family) => {
                let kinds = ObjectiveConfig::kinds_for(family).join(", ");
                Err(ConfigError::NoObjective { family, kinds }.into())
            }
        }
    }

    /// Tokens per sequence of a token stream.
    ///
    /// # Errors
    /// If the configuration does not say.
    pub fn context(&self) -> Result<usize, TrainError> {
        let why = "this objective reads token streams in sequences of that many tokens";
        self.config.data.context.ok_or_else(|| ConfigError::Missing { field: "data.context", why }.into())
    }

    /// Token streams that `collator` makes batches of, for a model with this vocabulary.
    ///
    /// # Errors
    /// If a dataset cannot be opened, has another vocabulary or is too short.
    pub fn windows(
        &self,
        collator: Arc<dyn CollateWindows>,
        vocab_size: usize,
    ) -> Result<TrainingData, TrainError> {
        let data = &self.config.data;
        if let Some(share) = data.held_out {
            let wanted = "absent with shards: `prepare` has held out a part, to give as data.valid";
            check(false, "data.held_out", share, wanted)?;
        }
        check(!data.packing, "data.packing", true, "false: the sequences of a token stream are full")?;
        let open = |path: &Path| {
            if files::is_there(path)? && !files::is_directory(path)? {
                return Err(TrainError::NotShards { path: path.to_owned() });
            }
            let dataset =
                Dataset::open(path).map_err(|source| TrainError::Data { source: Box::new(source) })?;
            let found = dataset.vocab_size();
            if found > vocab_size {
                return Err(TrainError::Vocabulary { path: path.to_owned(), data: found, model: vocab_size });
            }
            Ok(Arc::new(dataset))
        };
        let seed = Seed::new(self.config.run.seed);
        let train = open(&data.train)?;
        let valid = data.valid.as_deref().map(open).transpose()?;
        let mut fingerprints = vec![(TRAIN_CHECKSUM, train.fingerprint().to_owned())];
        fingerprints.extend(valid.as_ref().map(|valid| (VALID_CHECKSUM, valid.fingerprint().to_owned())));
        let bytes_per_target = valid.as_ref().map(|valid| valid.stats().bytes as f64 / valid.tokens() as f64);
        let valid = match (valid, &data.valid) {
            (Some(dataset), Some(path)) => {
                let options = LoaderOptions { rows: self.config.evaluation_rows(), order: Order::Sequential };
                let loader = Loader::new(dataset, collator.clone(), options, seed.derive("valid"));
                let failed = |source| TrainError::Evaluate { path: path.clone(), source };
                Some(Box::new(loader.map_err(failed)?) as Box<dyn BatchSource>)
            }
            _ => None,
        };
        let options = LoaderOptions { rows: data.rows_of(self.context()?)?, order: data.order };
        let loader = Loader::new(train, collator, options, seed)
            .map_err(|source| TrainError::Loader { path: data.train.clone(), source })?;
        Ok(TrainingData {
            train: Arc::new(loader),
            valid,
            fingerprints,
            bytes_per_target,
            has_rows: false,
            skipped: Vec::new(),
        })
    }

    /// BLAKE3 of what the weights at the beginning are made from: the files of the model directory, or the configuration of the
    /// model and the seed.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn start_checksum(&self) -> Result<String, TrainError> {
        let Some(path) = &self.base.directory else {
            let made_from = json!([self.config.model, self.config.run.seed]).to_string();
            return Ok(blake3::hash(made_from.as_bytes()).to_hex().to_string());
        };
        if !files::is_directory(path)? {
            return Ok(files::checksum(path)?);
        }
        let holds_weights =
            |name: &String| [".safetensors", ".bin", "config.json"].iter().any(|end| name.ends_with(end));
        let mut hasher = blake3::Hasher::new();
        for name in files::list(path)?.into_iter().filter(holds_weights) {
            hasher.update(files::checksum(&path.join(&name))?.as_bytes());
            hasher.update(name.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The tokenizer: that of `data.tokenizer`, or of the model to begin with, if it has one.
    pub fn tokenizer(&self) -> Option<&TokenizerSource> {
        self.tokenizer.as_ref()
    }

    /// Where the tokenizer is, for errors.
    pub(crate) fn tokenizer_path(&self) -> PathBuf {
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.path().to_owned()).unwrap_or_default()
    }
}
