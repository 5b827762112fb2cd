//! An encoder-decoder's model directory in the Hugging Face layout, opened or written as a whole.

use std::path::Path;

use andiron_core::Rows;
use andiron_core::cache::Memory;
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use super::{Seq2SeqConfig, Seq2SeqModel, generation};
use crate::RunPrecision;
use crate::bundle::{CONFIG, GENERATION, evaluation_over, pad_right, read_config, save_model, write_json};
use crate::catalog::read_object;
use crate::family::EncoderDecoder;
use crate::generate::GenerationConfig;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::weights::{self, LoadError, SaveError, Storage};

/// An encoder-decoder with everything that its directory says, except the tokenizer.
#[derive(Clone, Debug)]
pub struct Seq2SeqBundle {
    /// `config.json`.
    pub config: Seq2SeqConfig,
    /// The model, with the weights of `model.safetensors`.
    pub model: Seq2SeqModel,
    /// `generation_config.json`, or what `config.json` implies.
    pub generation: GenerationConfig,
    /// Keys of the configuration that nothing reads.
    pub unknown_keys: UnknownKeys,
    precision: RunPrecision,
    device: Device,
}

impl Seq2SeqBundle {
    /// A new model with random weights drawn from `seed`.
    pub fn init(config: Seq2SeqConfig, seed: Seed, device: &Device) -> Self {
        let model = config.init(seed, device);
        let generation = generation::of(&config);
        let (unknown_keys, precision) = (UnknownKeys::default(), RunPrecision::F32);
        Self { config, model, generation, unknown_keys, precision, device: device.clone() }
    }

    /// Opens the model directory `dir` on `device`.
    ///
    /// # Errors
    /// If a file is missing, malformed or too new, or if weights and configuration do not belong together.
    pub fn open(dir: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::open_at(dir, RunPrecision::F32, device)
    }

    /// The same, to be run as exact as `precision` says: see
    /// [`DecoderBundle::open_at`](crate::DecoderBundle::open_at).
    ///
    /// # Errors
    /// As [`Seq2SeqBundle::open`].
    pub fn open_at(dir: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        let (config_path, generation_path) = (dir.join(CONFIG), dir.join(GENERATION));
        let written = read_config(dir, read_object)?;
        let ConfigFile { mut config, mut unknown_keys } =
            Seq2SeqConfig::from_json(written.clone(), &config_path)?;
        let generation = match &written {
            Value::Object(fields) => generation::read(&config, fields, (&config_path, &generation_path))?,
            _ => generation::of(&config),
        };
        unknown_keys.extend(generation.unknown_keys());
        let mut files = weights::open(dir)?;
        config.settle(&mut weights::Stored(&mut files)).map_err(LoadError::from)?;
        let model = config.init(Seed::new(0), device);
        let (rules, tables) = (config.name_rules(), [config.vocab_size(), config.target_vocab_size()]);
        let storage = Storage { precision, tables: &tables };
        let model = weights::load_from(model, &mut files, rules, storage, device)?;
        Ok(Self { config, model, generation, unknown_keys, precision, device: device.clone() })
    }

    /// Writes the model into the directory `dir`, which is made if need be; files are on the disk on return.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        let config = self.config.to_value().expect("configurations are plain data");
        save_model(&self.precision.plain(&self.model), &config, dir)?;
        write_json(&dir.join(GENERATION), &self.generation)
    }

    /// How exact the model is run.
    pub fn precision(&self) -> RunPrecision {
        self.precision
    }

    /// Where the model's tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The id that a target begins with.
    pub fn start_id(&self) -> u32 {
        self.generation.decoder_start_token_id.unwrap_or_else(|| self.config.decoder_start_token_id())
    }

    /// Number of parameters, tied ones once.
    pub fn n_parameters(&self) -> usize {
        self.model.num_params()
    }

    /// Texts of different lengths as one batch, padded on the right.
    ///
    /// # Shape
    /// `[texts, longest]`.
    ///
    /// # Panics
    /// If there is no text.
    pub fn batch<R: AsRef<[u32]>>(&self, texts: &[R]) -> (Tensor<2, Int>, Rows) {
        pad_right(texts, self.config.pad_token_id(), &self.device)
    }

    /// Reads sources, token ids with the special tokens that the model was trained with, for decoding.
    ///
    /// # Panics
    /// If there is no source, or if one is longer than the model reads.
    pub fn encode<R: AsRef<[u32]>>(&self, sources: &[R]) -> Memory {
        let (ids_bs, rows) = self.batch(sources);
        let mut cx = evaluation_over(rows, ids_bs.dims()[1]);
        self.precision.run(|| self.model.encode(ids_bs, &mut cx))
    }
}
