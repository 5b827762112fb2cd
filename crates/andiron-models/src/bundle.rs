//! A model directory in the Hugging Face layout, opened or written as a whole.

use std::path::Path;

use andiron_core::rows::pick;
use andiron_core::{Forward, KvCache, Rows};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use crate::RunPrecision;
use crate::catalog::{DecoderConfig, DecoderModel, read_object};
use crate::family::Decoder;
use crate::generate::{Batched, GenerationConfig, Logits, NextToken};
use crate::hf_config::ConfigError;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::weights::gguf::{self, GgufFile, GgufWeights};
use crate::weights::{self, FileError, LoadError, SaveError, Storage, TensorSource};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const GENERATION: &str = "generation_config.json";

/// A decoder with everything that its directory says, except the tokenizer.
#[derive(Clone, Debug)]
pub struct DecoderBundle {
    /// `config.json`.
    pub config: DecoderConfig,
    /// The model, with the weights of `model.safetensors`.
    pub model: DecoderModel,
    /// `generation_config.json`, or what `config.json` implies.
    pub generation: GenerationConfig,
    /// Keys of the configuration that nothing reads.
    pub unknown_keys: UnknownKeys,
    precision: RunPrecision,
    device: Device,
}

/// One id or several: Hugging Face writes either. What no token can have, such as -1, is read as no id.
#[derive(Clone, Debug, PartialEq)]
pub enum Ids {
    /// No id.
    None(()),
    /// One id.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl Serialize for Ids {
    /// No id is nothing: `null` in JSON, an absent key in TOML.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None(()) => serializer.serialize_none(),
            Self::One(id) => id.serialize(serializer),
            Self::Many(ids) => ids.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            None(()),
            One(Number),
            Many(Vec<Number>),
        }
        let possible = |number: Number| number.as_u64().and_then(|id| u32::try_from(id).ok());
        Ok(match Written::deserialize(deserializer)? {
            Written::None(()) => Self::None(()),
            Written::One(number) => possible(number).map_or(Self::None(()), Self::One),
            Written::Many(numbers) => Self::Many(numbers.into_iter().filter_map(possible).collect()),
        })
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::None(())
    }
}

impl Ids {
    /// The ids, however many.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None(()) => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    /// Leaves out the ids that are not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&u32) -> bool) {
        match self {
            Self::None(()) => {}
            Self::One(id) if wanted(id) => {}
            Self::One(_) => *self = Self::None(()),
            Self::Many(ids) => ids.retain(wanted),
        }
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

/// What a GGUF file holds besides the model, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct GgufOptions<'a> {
    /// `tokenizer.json`, of a byte-level BPE; without it the file holds no vocabulary.
    pub tokenizer: Option<&'a Value>,
    /// The chat template, in Jinja.
    pub chat_template: Option<&'a str>,
    /// Whether matrices are stored as f16 instead of f32.
    pub half: bool,
}

impl DecoderBundle {
    /// A new model with random weights drawn from `seed`.
    pub fn init(config: DecoderConfig, seed: Seed, device: &Device) -> Self {
        let sizes = config.sizes();
        let generation = GenerationConfig {
            bos_token_id: sizes.bos_token_id,
            eos_token_id: config.end_ids(),
            ..GenerationConfig::default()
        };
        let model = config.init(seed, device);
        let (unknown_keys, precision) = (UnknownKeys::default(), RunPrecision::F32);
        Self { config, model, generation, unknown_keys, precision, device: device.clone() }
    }

    /// Opens the model directory `dir` on `device`, or a file called `.gguf`, whose weights are then dequantised.
    ///
    /// # Errors
    /// If a file is missing, malformed or too new, or if weights and configuration do not belong together.
    pub fn open(dir: &Path, device: &Device) -> Result<Self, LoadError> {
        Self::open_at(dir, RunPrecision::F32, device)
    }

    /// The same, to be run as exact as `precision` says, which is for inference: weights that are
    /// [stored](RunPrecision::is_stored) in few bits cannot be trained. Saved, they are the numbers they stand for.
    ///
    /// # Errors
    /// As [`DecoderBundle::open`].
    pub fn open_at(dir: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        if gguf::is_gguf(dir) && !dir.is_dir() {
            return Self::open_gguf(dir, precision, device);
        }
        let ConfigFile { config, unknown_keys } = read_config(dir, DecoderConfig::read_file)?;
        let mut bundle = Self { precision, unknown_keys, ..Self::init(config, Seed::new(0), device) };
        let (vocab_size, path) = (bundle.config.vocab_size(), dir.join(GENERATION));
        if is_there(&path)? {
            bundle.generation = GenerationConfig::read(&path, vocab_size)?;
            bundle.unknown_keys.extend(bundle.generation.unknown_keys());
        } else {
            let path = dir.join(CONFIG);
            if let (Value::Object(ids), Value::Object(written)) =
                (serde_json::json!(bundle.generation), read_object(&path)?)
            {
                bundle.generation = GenerationConfig::of_model_config(ids, &written, &path)?;
            }
            bundle.generation.settle(vocab_size)?;
        }
        bundle.fill(&mut weights::open(dir)?)?;
        Ok(bundle)
    }

    fn fill<S: TensorSource>(&mut self, files: &mut [S]) -> Result<(), LoadError> {
        let (rules, tables) = (self.config.name_rules(), [self.config.vocab_size()]);
        let storage = Storage { precision: self.precision, tables: &tables };
        self.model = weights::load_from(self.model.clone(), files, rules, storage, &self.device)?;
        Ok(())
    }

    fn open_gguf(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        let file = GgufFile::open(path).map_err(FileError::from)?;
        let json = gguf::config_json(&file).map_err(FileError::from)?;
        let ConfigFile { config, mut unknown_keys } = DecoderConfig::from_json(json, path)?;
        unknown_keys.extend(gguf::unknown_keys(&file).map_err(FileError::from)?);
        let end_ids = gguf::end_ids(&file).map_err(FileError::from)?;
        let weights = GgufWeights::new(file).map_err(FileError::from)?;
        let mut bundle = Self { precision, unknown_keys, ..Self::init(config, Seed::new(0), device) };
        if end_ids.len() > 1 {
            bundle.generation.eos_token_id = Ids::Many(end_ids);
        }
        bundle.generation.settle(bundle.config.vocab_size()).map_err(LoadError::from)?;
        bundle.fill(&mut [weights])?;
        Ok(bundle)
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

    /// Writes the model as a GGUF file, for llama.cpp; the tokenizer and the chat template are the caller's.
    ///
    /// # Errors
    /// If the model or its tokenizer cannot be said in GGUF, or the file cannot be written.
    pub fn save_gguf(&self, path: &Path, options: GgufOptions<'_>) -> Result<(), SaveError> {
        let config = self.config.to_value().expect("configurations are plain data");
        let GgufOptions { tokenizer, chat_template, half } = options;
        let model = gguf::GgufModel { config: &config, tokenizer, chat_template, half };
        let tensor = |(name, parameter): (String, weights::Parameter)| gguf::TensorToWrite {
            name,
            shape: parameter.shape,
            read: parameter.read,
        };
        let tensors: Vec<_> =
            weights::parameters(&self.precision.plain(&self.model)).into_iter().map(tensor).collect();
        Ok(gguf::write(path, &model, &tensors)?)
    }

    /// How exact the model is run.
    pub fn precision(&self) -> RunPrecision {
        self.precision
    }

    /// Hidden states and logits in the bundle's precision.
    fn logits(&self, ids_bt: Tensor<2, Int>, wanted: Logits, mut cx: Forward<'_>) -> Vec<f32> {
        self.precision.run(|| {
            let hidden_btd = self.model.hidden(ids_bt, &mut cx);
            floats(self.model.logits(wanted_columns(hidden_btd, wanted, &cx)))
        })
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

impl NextToken for DecoderBundle {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.config.max_positions()
    }

    fn begin(&self) -> KvCache {
        self.model.new_cache()
    }

    fn extend(&self, cache: &mut KvCache, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.logits(one_row(ids, &self.device), wanted, Forward::cached(cache))
    }

    fn extend_together(&self, caches: &mut [&mut KvCache], ids: &[u32]) -> Option<Vec<f32>> {
        assert_eq!(caches.len(), ids.len(), "an id for each sequence");
        let own = caches.iter_mut().map(|cache| std::mem::replace(*cache, self.begin()));
        let mut joined = KvCache::join(own);
        let cx = Forward::cached(&mut joined);
        let logits = self.logits(one_column(ids, &self.device), Logits::Last, cx);
        for (cache, row) in caches.iter_mut().zip(joined.split()) {
            **cache = row;
        }
        Some(logits)
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.generation)
    }

    fn rewind(&self, cache: &mut KvCache, len: usize) -> bool {
        cache.truncate(len);
        true
    }
}

/// The ids of one sequence's extension, `[1, t]`.
///
/// # Panics
/// If there is none.
pub(crate) fn one_row(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    assert!(!ids.is_empty(), "a sequence is extended by at least one id");
    let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let shape = [1, ids.len()];
    Tensor::from_data(TensorData::new(ids, shape), device)
}

/// One more id for each of several sequences, `[n, 1]`.
pub(crate) fn one_column(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    one_row(ids, device).reshape([ids.len(), 1])
}

/// The hidden states whose logits are wanted; the last ones are those of each row's last own column.
pub(crate) fn wanted_columns(hidden_btd: Tensor<3>, wanted: Logits, cx: &Forward<'_>) -> Tensor<3> {
    let [b, t, d] = hidden_btd.dims();
    match (wanted, cx.rows()) {
        (Logits::Last, None) => hidden_btd.slice([0..b, t - 1..t, 0..d]),
        (Logits::Last, Some(rows)) => {
            pick(hidden_btd, rows.spans().iter().map(|span| span.end.min(t) - 1)).unsqueeze_dim(1)
        }
        (Logits::All, _) => hidden_btd,
    }
}

/// Logits as plain numbers, row by row.
pub(crate) fn floats(logits_btv: Tensor<3>) -> Vec<f32> {
    logits_btv.into_data().try_into_vec::<f32>().expect("logits are f32")
}

impl Batched for DecoderBundle {
    type State = KvCache;

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.config.max_positions()
    }

    fn begin_batch(&self, prompts: &[&[u32]]) -> (KvCache, Vec<f32>) {
        let mut cache = self.begin();
        let (ids_bt, cx) = batch_over(prompts, &mut cache, &self.device);
        let logits = self.logits(ids_bt, Logits::Last, cx);
        (cache, logits)
    }

    fn extend_batch(&self, cache: &mut KvCache, rows: &[usize], ids: &[u32]) -> Vec<f32> {
        cache.select(rows);
        self.logits(one_column(ids, &self.device), Logits::Last, Forward::cached(cache))
    }

    fn generation_config(&self) -> Option<&GenerationConfig> {
        Some(&self.generation)
    }
}

/// Reads the `config.json` of a model directory.
pub(crate) fn read_config<C>(
    dir: &Path,
    read: impl FnOnce(&Path) -> Result<C, ConfigError>,
) -> Result<C, LoadError> {
    let unreadable = |source| ConfigError::Read { path: dir.to_owned(), source };
    if !andiron_files::is_directory(dir).map_err(unreadable)? {
        return Err(LoadError::NotADirectory { path: dir.to_owned() });
    }
    Ok(read(&dir.join(CONFIG))?)
}

/// Writes a model's configuration and weights into the directory `dir`, which is made if need be.
pub(crate) fn save_model<M: Module>(model: &M, config: &Value, dir: &Path) -> Result<(), SaveError> {
    andiron_files::make_directory(dir).map_err(|source| SaveError::Io { path: dir.to_owned(), source })?;
    write_json(&dir.join(CONFIG), config)?;
    weights::save(model, dir)
}

/// Sequences of different lengths as one batch `[sequences, longest]`, each to be continued over its row of `cache`.
///
/// # Panics
/// If there is none, or one is empty.
pub(crate) fn batch_over<'a>(
    sequences: &[&[u32]],
    cache: &'a mut KvCache,
    device: &Device,
) -> (Tensor<2, Int>, Forward<'a>) {
    assert!(sequences.iter().all(|ids| !ids.is_empty()), "a sequence is continued from at least one id");
    // Nobody sees what stands behind a sequence; every vocabulary has the id 0.
    let (ids_bt, rows) = pad_right(sequences, 0, device);
    let columns = ids_bt.dims()[1];
    // Without padding every column counts, which is the faster case.
    let cx = match rows.spans().iter().any(|span| span.len() < columns) {
        true => Forward::cached(cache).over(rows),
        false => Forward::cached(cache),
    };
    (ids_bt, cx)
}

/// Texts of different lengths as one batch `[texts, longest]`, filled up on the right with `padding`.
///
/// # Panics
/// If there is no text.
pub(crate) fn pad_right<R: AsRef<[u32]>>(
    texts: &[R],
    padding: u32,
    device: &Device,
) -> (Tensor<2, Int>, Rows) {
    let columns = texts.iter().map(|ids| ids.as_ref().len()).max().expect("a batch has at least one text");
    let mut flat = Vec::with_capacity(texts.len() * columns);
    for (row, ids) in texts.iter().enumerate() {
        flat.extend(ids.as_ref().iter().map(|&id| id as i32));
        flat.resize((row + 1) * columns, padding as i32);
    }
    let ids_bt = Tensor::from_data(TensorData::new(flat, [texts.len(), columns]), device);
    (ids_bt, Rows::padded_right(texts.iter().map(|ids| ids.as_ref().len())))
}

/// An evaluation over `rows` of a batch of so many columns.
pub(crate) fn evaluation_over<'a>(rows: Rows, columns: usize) -> Forward<'a> {
    // Without padding every column counts, which is the faster case.
    match rows.spans().iter().any(|span| span.len() < columns) {
        true => Forward::evaluation().over(rows),
        false => Forward::evaluation(),
    }
}

/// Whether a file that a model directory may have is there; one that cannot be looked at is an error, not absent.
pub(crate) fn is_there(path: &Path) -> Result<bool, ConfigError> {
    andiron_files::is_there(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &'static str,
) -> Result<T, ConfigError> {
    let text =
        andiron_files::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let path = || path.to_owned();
    serde_json::from_slice(andiron_files::without_mark(&text)).map_err(|source| ConfigError::Json {
        path: path(),
        what,
        source,
    })
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SaveError> {
    let mut text = serde_json::to_string_pretty(value).expect("plain data serializes");
    text.push('\n');
    andiron_files::replace(path, text.as_bytes())
        .map_err(|source| SaveError::Io { path: path.to_owned(), source })
}
