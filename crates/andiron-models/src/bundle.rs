//! A model with everything that its files say, except the tokenizer: made, opened or saved as a whole.
//!
//! One [`Bundle`] serves all families. What a family has of its own stands beside its architectures: what a decoder's
//! bundle continues, an encoder's reads and an encoder-decoder's writes is an `impl` of that bundle.

use std::fmt;
use std::path::Path;

use andiron_core::KvCacheDtype;
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value};

use crate::RunPrecision;
use crate::encoder::{EmbedPipeline, Relevance};
use crate::generate::GenerationConfig;
use crate::hf_config::ConfigError;
pub use crate::hf_config::Ids;
use crate::json_file::write_json;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::model_files::{CONFIG, ModelFiles};
pub use crate::weights::gguf::GgufOptions;
use crate::weights::{self, FileError, LoadError, NameRules, SaveError, StoredTensors};

/// The configuration of a family of architectures: what a [`Bundle`] is made from.
///
/// The four of this crate implement it: [`DecoderConfig`](crate::DecoderConfig),
/// [`ClassifierConfig`](crate::ClassifierConfig), [`EncoderConfig`](crate::EncoderConfig) and
/// [`Seq2SeqConfig`](crate::Seq2SeqConfig).
pub trait FamilyConfig: Clone + fmt::Debug + Sized {
    /// The model, by architecture.
    type Model: Module + fmt::Debug;

    /// Reads the object in a `config.json`, or one like it that comes from `path`.
    ///
    /// # Errors
    /// If it does not describe a model of this family that can be built here.
    fn from_object(fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<Self>, ConfigError>;

    /// The object to write as `config.json` of a bundle.
    fn config_json(bundle: &Bundle<Self>) -> Value;

    /// A model with random weights drawn from `seed`.
    fn init_model(&self, seed: Seed, device: &Device) -> Self::Model;

    /// How names in files may differ from those of the model's parameters.
    fn name_rules(&self) -> NameRules;

    /// Decides by the tensors in the files what `config.json` leaves open, before a model is made.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn infer_from_checkpoint(&mut self, _stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
        Ok(())
    }

    /// What the configuration alone implies of the other files.
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

/// What the files of a model say besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How a text is generated.
    pub generation: GenerationConfig,
    /// How hidden states become one vector.
    pub embedding: Option<EmbedPipeline>,
    /// What the output of a cross-encoder goes through.
    pub relevance: Relevance,
    /// Keys of these files that nothing reads.
    pub unknown_keys: UnknownKeys,
}

/// A model with everything that its files say, except the tokenizer.
#[derive(Clone, Debug)]
pub struct Bundle<C: FamilyConfig> {
    /// `config.json`.
    pub config: C,
    /// The model, with the weights of its files.
    pub model: C::Model,
    /// `generation_config.json`, or what `config.json` implies. Of a model that generates nothing it says nothing.
    pub generation: GenerationConfig,
    /// `modules.json` with its folders, if an encoder's directory has it: how hidden states become one vector.
    pub embedding: Option<EmbedPipeline>,
    /// What the output of an encoder goes through that is a cross-encoder.
    pub relevance: Relevance,
    /// Keys of the files that nothing reads.
    pub unknown_keys: UnknownKeys,
    pub(crate) precision: RunPrecision,
    pub(crate) kv_cache_dtype: KvCacheDtype,
    pub(crate) device: Device,
}

impl<C: FamilyConfig> Bundle<C> {
    /// A new model with random weights drawn from `seed`.
    pub fn init(config: C, seed: Seed, device: &Device) -> Self {
        let settings = config.implied_settings();
        let model = config.init_model(seed, device);
        Self::of_parts(config, model, settings, RunPrecision::F32, device)
    }

    /// Opens the model directory `path` on `device`, or a file called `.gguf`, whose weights are then dequantized.
    ///
    /// # Errors
    /// If a file is missing, malformed or too new, or if weights and configuration do not belong together.
    pub fn open(path: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::open_at(path, RunPrecision::F32, device)
    }

    /// The same, to be run as exact as `precision` says, which is for inference: weights that are
    /// [stored](RunPrecision::is_stored) in few bits cannot be trained. Saved, they are the numbers they stand for.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn open_at(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        Self::open_files(&mut ModelFiles::open(path)?, precision, device)
    }

    /// The same of files whose configuration has been read.
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

    /// Reads everything but the configuration, which is `read`.
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

    /// Writes the model into the directory `dir`, which is made if need be; files are on the disk on return.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        andiron_files::make_directory(dir)
            .map_err(|source| SaveError::Io { path: dir.to_owned(), source })?;
        write_json(&dir.join(CONFIG), &C::config_json(self))?;
        weights::save(&self.precision.plain(&self.model), dir)?;
        C::write_settings(self, dir)
    }

    /// How exact the model is run.
    pub fn precision(&self) -> RunPrecision {
        self.precision
    }

    /// The element type of KV caches.
    pub fn kv_cache_dtype(&self) -> KvCacheDtype {
        self.kv_cache_dtype
    }

    /// The same with KV caches in `dtype`, whatever goes with the precision.
    #[must_use]
    pub fn with_kv_cache_dtype(self, dtype: KvCacheDtype) -> Self {
        Self { kv_cache_dtype: dtype, ..self }
    }

    /// Where the model's tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of parameters, tied ones once.
    pub fn n_parameters(&self) -> usize {
        self.model.num_params()
    }
}
