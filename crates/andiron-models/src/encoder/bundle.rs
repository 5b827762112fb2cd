//! An encoder's model directory in the Hugging Face layout, opened or written as a whole.

use std::cmp::Reverse;
use std::path::Path;

use andiron_core::Rows;
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::{EmbedPipeline, EncoderConfig, EncoderHead, EncoderModel, Relevance};
use crate::RunPrecision;
use crate::bundle::{evaluation_over, pad_right, read_config, save_model};
use crate::family::Encoder;
use crate::hf_config::ConfigError;
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::weights::gguf::{self, GgufFile, GgufWeights};
use crate::weights::{self, FileError, LoadError, SaveError, Storage, TensorSource};

/// Most tokens that are embedded together, padding included, unless one text is longer.
const TOKENS_TOGETHER: usize = 1 << 13;

/// An encoder with everything that its directory says, except the tokenizer.
#[derive(Clone, Debug)]
pub struct EncoderBundle {
    /// `config.json`.
    pub config: EncoderConfig,
    /// The model, with the weights of `model.safetensors`.
    pub model: EncoderModel,
    /// `modules.json` with its folders, if the directory has it: how hidden states become one vector.
    pub embedding: Option<EmbedPipeline>,
    /// What a cross-encoder's output goes through.
    pub relevance: Relevance,
    /// Keys of the configuration that nothing reads.
    pub unknown_keys: UnknownKeys,
    pub(super) precision: RunPrecision,
    device: Device,
}

impl EncoderBundle {
    /// A new model with random weights drawn from `seed`.
    pub fn init(config: EncoderConfig, seed: Seed, device: &Device) -> Self {
        let model = config.init(seed, device);
        let (relevance, precision) = (Relevance::default(), RunPrecision::F32);
        let unknown_keys = UnknownKeys::default();
        Self { config, model, embedding: None, relevance, unknown_keys, precision, device: device.clone() }
    }

    /// Opens the model directory `dir` on `device`, or a file called `.gguf`, whose weights are then dequantised.
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
    /// As [`EncoderBundle::open`].
    pub fn open_at(dir: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        if gguf::is_gguf(dir) && !dir.is_dir() {
            return Self::open_gguf(dir, precision, device);
        }
        let ConfigFile { config, mut unknown_keys } = read_config(dir, EncoderConfig::read_file)?;
        let embedding = EmbedPipeline::read(dir)?;
        if let Some(pipeline) = &embedding {
            pipeline.check(config.d_model(), dir)?;
            unknown_keys.extend(pipeline.unread.iter().cloned());
        }
        let relevance = Relevance::open(dir)?;
        let bundle = Self::load(config, &mut weights::open(dir)?, precision, device)?;
        Ok(Self { embedding, relevance, unknown_keys, ..bundle })
    }

    fn open_gguf(path: &Path, precision: RunPrecision, device: &Device) -> Result<Self, LoadError> {
        let file = GgufFile::open(path).map_err(FileError::from)?;
        let json = gguf::config_json(&file).map_err(FileError::from)?;
        let ConfigFile { config, mut unknown_keys } = EncoderConfig::from_json(json, path)?;
        unknown_keys.extend(gguf::unknown_keys(&file).map_err(FileError::from)?);
        let embedding = EmbedPipeline::of_gguf(&file)?;
        let weights = GgufWeights::new(file).map_err(FileError::from)?;
        Ok(Self { embedding, unknown_keys, ..Self::load(config, &mut [weights], precision, device)? })
    }

    fn load<S: TensorSource>(
        mut config: EncoderConfig,
        files: &mut [S],
        precision: RunPrecision,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let names = files.iter().flat_map(|file| file.tensors()).map(|(name, _)| name);
        config.settle(&names.collect::<Vec<_>>());
        let bundle = Self::init(config, Seed::new(0), device);
        let (rules, tables) = (bundle.config.name_rules(), [bundle.config.vocab_size()]);
        let storage = Storage { precision, tables: &tables };
        let model = weights::load_from(bundle.model, files, rules, storage, device)?;
        Ok(Self { model, precision, ..bundle })
    }

    /// The same model with another head, whose weights are drawn from `seed`: where fine-tuning begins.
    ///
    /// # Errors
    /// If the head has labels and none are given.
    pub fn with_head(self, head: EncoderHead, labels: Vec<String>, seed: Seed) -> Result<Self, ConfigError> {
        let config = self.config.with_head(head, labels)?;
        let model = config.init_head(self.model, seed, &self.device);
        Ok(Self { config, model, ..self })
    }

    /// Writes the model into the directory `dir`, which is made if need be; files are on the disk on return.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        let mut config = self.config.to_value().expect("configurations are plain data");
        if let (EncoderHead::Classify { .. }, 1, Some(fields)) =
            (self.config.head(), self.config.labels().len(), config.as_object_mut())
        {
            self.relevance.write(fields);
        }
        save_model(&self.precision.plain(&self.model), &config, dir)?;
        match &self.embedding {
            Some(pipeline) => pipeline.write(self.config.d_model(), dir),
            None => Ok(()),
        }
    }

    /// How exact the model is run.
    pub fn precision(&self) -> RunPrecision {
        self.precision
    }

    /// Where the model's tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of parameters, tied ones once.
    pub fn n_parameters(&self) -> usize {
        self.model.num_params()
    }

    /// Longest text for [`EncoderBundle::embed`], in tokens.
    pub fn max_tokens(&self) -> usize {
        let limit = self.embedding.as_ref().and_then(|pipeline| pipeline.max_tokens);
        limit.unwrap_or(usize::MAX).min(self.config.max_positions())
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

    /// One vector for each text, made as [`EncoderBundle::embedding`] says, or by the mean if it says nothing.
    ///
    /// Texts are token ids with the special tokens that the model was trained with. Those of similar lengths are read
    /// together, some thousand tokens at a time, so that any number of texts takes little memory and little padding.
    ///
    /// # Panics
    /// If a text is empty or longer than the model reads, or an id is not in the vocabulary.
    pub fn embed<R: AsRef<[u32]>>(&self, texts: &[R]) -> Vec<Vec<f32>> {
        self.embed_after(texts, 0)
    }

    /// [`embed`](Self::embed) of texts whose first `n_prompt` ids are a prompt's, which a pipeline may leave out when it
    /// pools.
    ///
    /// # Panics
    /// As [`embed`](Self::embed), and if a text has no id beyond a prompt that is left out.
    pub fn embed_after<R: AsRef<[u32]>>(&self, texts: &[R], n_prompt: usize) -> Vec<Vec<f32>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| Reverse(texts[text].as_ref().len()));
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rest = &order[..];
        while let Some(&longest) = rest.first() {
            let rows = TOKENS_TOGETHER / texts[longest].as_ref().len().max(1);
            let (group, others) = rest.split_at(rows.clamp(1, rest.len()));
            rest = others;
            let together: Vec<&[u32]> = group.iter().map(|&text| texts[text].as_ref()).collect();
            group
                .iter()
                .zip(self.embed_together(&together, n_prompt))
                .for_each(|(&text, vector)| vectors[text] = vector);
        }
        vectors
    }

    /// [`embed_after`](Self::embed_after) of one batch.
    fn embed_together(&self, texts: &[&[u32]], n_prompt: usize) -> Vec<Vec<f32>> {
        let (ids_bt, rows) = self.batch(texts);
        let mut cx = evaluation_over(rows, ids_bt.dims()[1]);
        let hidden_btd = self.precision.run(|| self.model.hidden(ids_bt, None, &mut cx));
        let usual = EmbedPipeline::default();
        let pipeline = self.embedding.as_ref().unwrap_or(&usual);
        let embedded = pipeline.apply(hidden_btd, cx.rows(), n_prompt);
        let d = embedded.dims()[1];
        let values = embedded.into_data().try_into_vec::<f32>().expect("embeddings are f32");
        values.chunks_exact(d).map(<[f32]>::to_vec).collect()
    }
}
