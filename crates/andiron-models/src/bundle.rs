//! A model with its configuration and settings, without the tokenizer: initialized, opened or saved as a whole.
//!
//! One [`Bundle`] serves all families. Methods of one family, such as generation or embedding, are an `impl` of that
//! family's bundle beside its architectures.

use std::fmt;
use std::path::Path;

use andiron_core::{KvCacheDtype, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::RunPrecision;
use crate::adapter::{AdapterNames, Tie};
use crate::any::AnyBundle;
use crate::encoder::{EmbedPipeline, Relevance};
use crate::generate::GenerationConfig;
use crate::hf_config::ConfigError;
pub use crate::hf_config::Ids;
use crate::json_file::write_json;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::model_files::{CONFIG, ModelFiles};
pub use crate::weights::gguf::GgufOptions;
use crate::weights::{self, FileError, LoadError, NameRules, SaveError, StoredTensors};

/// The key that says whether the output head is tied to the token embeddings.
const TIED: &str = "tie_word_embeddings";

/// The configuration of a family of architectures, from which a [`Bundle`] is built.
///
/// Implemented by [`DecoderConfig`](crate::DecoderConfig), [`ClassifierConfig`](crate::ClassifierConfig),
/// [`EncoderConfig`](crate::EncoderConfig) and [`Seq2SeqConfig`](crate::Seq2SeqConfig).
pub trait FamilyConfig: Clone + fmt::Debug + Sized {
    /// The model, by architecture.
    type Model: Module + fmt::Debug;

    /// Parses the object of a `config.json`, or an equivalent one from `path`.
    ///
    /// # Errors
    /// If it does not describe a model of this family that can be built here.
    fn from_object(fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<Self>, ConfigError>;

    /// The bundle of this family that `any` is.
    fn of_any(any: AnyBundle) -> Option<Bundle<Self>>;

    /// The object to write as `config.json` of a bundle.
    fn config_json(bundle: &Bundle<Self>) -> Value;

    /// A model with random weights drawn from `seed`.
    fn init_model(&self, seed: Seed, device: &Device) -> Self::Model;

    /// The weight of the output head, which may be the token embeddings, of a model that can be saved with either.
    fn output_head(_model: &Self::Model) -> Option<Weight> {
        None
    }

    /// How tensor names in files may differ from parameter paths.
    fn name_rules(&self) -> NameRules;

    /// What an adapter must know of a model besides its parameters.
    fn adapter_names(&self) -> AdapterNames;

    /// Infers from the stored tensors what `config.json` leaves open, before the model is built.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn infer_from_checkpoint(&mut self, _stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
        Ok(())
    }

    /// Settings implied by the configuration alone.
    fn implied_settings(&self) -> Settings {
        Settings::default()
    }

    /// Reads the other files.
    ///
    /// # Errors
    /// If one is malformed, or asks for something that is not implemented.
    fn read_settings(&self, _files: &ModelFiles) -> Result<Settings, LoadError> {
        Ok(self.implied_settings())
    }

    /// Writes them into the directory `dir`.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn write_settings(_bundle: &Bundle<Self>, _dir: &Path) -> Result<(), SaveError> {
        Ok(())
    }
}

/// Settings from a model's files other than the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Generation config.
    pub generation: GenerationConfig,
    /// Embedding pipeline: pooling and what follows.
    pub embedding: Option<EmbedPipeline>,
    /// Activation of a cross-encoder's output.
    pub relevance: Relevance,
    /// Unknown keys of these files.
    pub unknown_keys: UnknownKeys,
}

/// A model with its configuration and settings, without the tokenizer.
#[derive(Clone, Debug)]
pub struct Bundle<C: FamilyConfig> {
    /// `config.json`.
    pub config: C,
    /// The model with its weights.
    pub model: C::Model,
    /// `generation_config.json`, or what `config.json` implies; empty for models that do not generate.
    pub generation: GenerationConfig,
    /// Embedding pipeline of `modules.json` and its folders, if the directory has one.
    pub embedding: Option<EmbedPipeline>,
    /// Activation of a cross-encoder's output.
    pub relevance: Relevance,
    /// Unknown keys of the files.
    pub unknown_keys: UnknownKeys,
    pub(crate) precision: RunPrecision,
    pub(crate) kv_cache_dtype: KvCacheDtype,
    pub(crate) device: Device,
}

impl<C: FamilyConfig> Bundle<C> {
    /// A new model with random weights drawn from `seed`.
    pub fn init(config: C, seed: Seed, device: &Device) -> Self {
        let model = config.init_model(seed, device);
        Self::of_model(config, model, device)
    }

    /// A model that there is already, such as one in training, with the settings that its configuration implies.
    pub fn of_model(config: C, model: C::Model, device: &Device) -> Self {
        let settings = config.implied_settings();
        Self::of_parts(config, model, settings, RunPrecision::F32, device)
    }

    /// Opens the model directory `path` on `device`, or a file called `.gguf`, whose weights are then dequantized.
    ///
    /// # Errors
    /// If a file is missing, malformed or too new, or if weights and configuration do not belong together.
    pub fn open(path: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::open_at(path, RunPrecision::F32, device)
    }

    /// As [`open`](Self::open), at a given precision, for inference: weights that are
    /// [stored](RunPrecision::is_stored) in few bits cannot be trained. They are saved dequantized.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open_at(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        Self::open_files(&mut ModelFiles::open(path)?, precision, device)
    }

    /// As above, for files whose configuration has already been read.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open_files(
        files: &mut ModelFiles,
        precision: RunPrecision,
        device: &Device,
    ) -> Result<Self, LoadError> {
        Self::load(files.config_of()?, files, precision, device)
    }

    /// Loads weights and settings; the configuration is `read`.
    pub(crate) fn load(
        read: ConfigFile<C>,
        files: &mut ModelFiles,
        precision: RunPrecision,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let ConfigFile { mut config, mut unknown_keys } = read;
        let mut settings = config.read_settings(files)?;
        unknown_keys.extend(std::mem::take(&mut settings.unknown_keys));
        settings.unknown_keys = unknown_keys;
        let mut files = files.weights()?;
        config.infer_from_checkpoint(&mut StoredTensors(&mut files))?;
        let rules = config.name_rules();
        let model = config.init_model(Seed::new(0), device);
        let model = weights::load_from(model, &mut files, rules, precision, device)?;
        Ok(Self::of_parts(config, model, settings, precision, device))
    }

    fn of_parts(
        config: C,
        model: C::Model,
        settings: Settings,
        precision: RunPrecision,
        device: &Device,
    ) -> Self {
        let Settings { generation, embedding, relevance, unknown_keys } = settings;
        let (kv_cache_dtype, device) = (precision.kv_cache_dtype(), device.clone());
        Self {
            config,
            model,
            generation,
            embedding,
            relevance,
            unknown_keys,
            precision,
            kv_cache_dtype,
            device,
        }
    }

    /// Writes the model into the directory `dir`, creating it if needed: dense, with an adapter merged. Files are synced on
    /// return.
    ///
    /// If an adapter changes one of two uses of a weight, token embeddings tied to the output head, a decoder is saved with a
    /// matrix for each ([`Bundle::split_by_adapter`]).
    ///
    /// # Errors
    /// If a file cannot be written, or an adapter changes one use of a weight that has two in another model than a decoder.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        let mut config = C::config_json(self);
        let split = self.split_by_adapter().and_then(|tie| Some((tie, C::output_head(&self.model)?)));
        let (model, values) = match &split {
            Some((Tie { tied, owner }, head)) => {
                if let Some(fields) = config.as_object_mut() {
                    fields.insert(TIED.to_owned(), false.into());
                }
                let values = [(*owner, head.lookup_val()), (*tied, head.val())];
                (self.precision.plain(&self.model), values.to_vec())
            }
            None => (self.plain_model()?, Vec::new()),
        };
        andiron_files::make_directory(dir)
            .map_err(|source| SaveError::Io { path: dir.to_owned(), source })?;
        write_json(&dir.join(CONFIG), &config)?;
        weights::save(&model, values, dir)?;
        C::write_settings(self, dir)
    }

    /// Precision at which the model runs.
    pub fn precision(&self) -> RunPrecision {
        self.precision
    }

    /// The element type of KV caches.
    pub fn kv_cache_dtype(&self) -> KvCacheDtype {
        self.kv_cache_dtype
    }

    /// Sets the element type of KV caches, in place of the precision's default.
    #[must_use]
    pub fn with_kv_cache_dtype(self, dtype: KvCacheDtype) -> Self {
        Self { kv_cache_dtype: dtype, ..self }
    }

    /// The model's device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of parameters, tied ones once.
    pub fn n_parameters(&self) -> usize {
        self.model.num_params()
    }
}
