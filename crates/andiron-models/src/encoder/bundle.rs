//! The bundle of encoders: heads, embeddings, sentence-transformers files.

use std::cmp::Reverse;
use std::path::Path;

use andiron_core::PaddingMask;
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};
use serde_json::{Map, Value};

use super::{EmbedPipeline, EncoderConfig, EncoderHead, EncoderModel, Relevance};
use crate::adapter::AdapterNames;
use crate::any::AnyBundle;
use crate::batch::{evaluation_over, pad_right};
use crate::bundle::{Bundle, FamilyConfig, Settings};
use crate::family::Encoder;
use crate::hf_config::ConfigError;
use crate::key_rules::ConfigFile;
use crate::model_files::ModelFiles;
use crate::weights::{FileError, LoadError, NameRules, SaveError, StoredTensors};

/// Maximum tokens of an embedding batch, padding included, unless one text is longer.
const TOKENS_TOGETHER: usize = 1 << 13;

/// Padding of a text in a batch: at most one in so many positions, or [`MIN_PADDING`]. Texts of other lengths are other batches.
const PADDING_PART: usize = 5;

/// So few padded positions always pay, because a batch of few tokens takes about as long as one of fewer.
const MIN_PADDING: usize = 4;

/// An encoder with its configuration and settings, without the tokenizer.
pub type EncoderBundle = Bundle<EncoderConfig>;

impl FamilyConfig for EncoderConfig {
    type Model = EncoderModel;

    fn from_object(fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        Self::from_object(fields, path)
    }

    fn of_any(any: AnyBundle) -> Option<Bundle<Self>> {
        match any {
            AnyBundle::Encoder(bundle) => Some(bundle),
            _ => None,
        }
    }

    fn config_json(bundle: &EncoderBundle) -> Value {
        let mut config = bundle.config.to_value();
        if let (EncoderHead::Classify { .. }, 1, Some(fields)) =
            (bundle.config.head(), bundle.config.labels().len(), config.as_object_mut())
        {
            bundle.relevance.write(fields);
        }
        config
    }

    fn init_model(&self, seed: Seed, device: &Device) -> EncoderModel {
        self.init(seed, device)
    }

    fn name_rules(&self) -> NameRules {
        self.name_rules()
    }

    fn adapter_names(&self) -> AdapterNames {
        let (task, head) = match self.head() {
            EncoderHead::None => (Some("FEATURE_EXTRACTION"), None),
            EncoderHead::MaskedLm => (None, None),
            EncoderHead::Classify { .. } => (Some("SEQ_CLS"), Some("classifier")),
            EncoderHead::TokenClassify => (Some("TOKEN_CLS"), Some("classifier")),
            EncoderHead::Span => (Some("QUESTION_ANS"), Some("qa_outputs")),
        };
        let (class, model_type, rules) = (self.class_name(), self.model_type(), self.name_rules());
        AdapterNames { class, model_type, rules, task, head }
    }

    fn infer_from_checkpoint(&mut self, stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
        self.infer_from_checkpoint(stored);
        Ok(())
    }

    fn read_settings(&self, files: &ModelFiles) -> Result<Settings, LoadError> {
        let mut settings = self.implied_settings();
        if let Some(file) = files.gguf() {
            settings.embedding = EmbedPipeline::of_gguf(file)?;
            return Ok(settings);
        }
        let (embedding, activation) = EmbedPipeline::read(files.path(), files.folder())?.unzip();
        if let Some(pipeline) = &embedding {
            pipeline.check(self.d_model(), files.path())?;
            settings.unknown_keys.extend(pipeline.unread.iter().cloned());
        }
        settings.embedding = embedding;
        settings.relevance = Relevance::of_files(activation.flatten().as_ref(), files.config_fields())?;
        Ok(settings)
    }

    fn write_settings(bundle: &EncoderBundle, dir: &Path) -> Result<(), SaveError> {
        match &bundle.embedding {
            Some(pipeline) => pipeline.write(bundle.config.d_model(), dir),
            None => Ok(()),
        }
    }
}

impl EncoderBundle {
    /// The same backbone with a new head, initialized from `seed`: the start of fine-tuning.
    ///
    /// # Errors
    /// If the head has labels and none are given.
    pub fn with_head(self, head: EncoderHead, labels: Vec<String>, seed: Seed) -> Result<Self, ConfigError> {
        let config = self.config.with_head(head, labels)?;
        let model = config.init_head(self.model, seed, &self.device);
        Ok(Self { config, model, ..self })
    }

    /// Maximum length of a text for [`EncoderBundle::embed`], in tokens.
    pub fn max_tokens(&self) -> usize {
        let limit = self.embedding.as_ref().and_then(|pipeline| pipeline.max_tokens);
        limit.unwrap_or(usize::MAX).min(self.config.max_positions())
    }

    /// Right-pads texts to one batch.
    ///
    /// # Shape
    /// `[texts, longest]`.
    ///
    /// # Panics
    /// If there is no text.
    pub fn batch<R: AsRef<[u32]>>(&self, texts: &[R]) -> (Tensor<2, Int>, PaddingMask) {
        pad_right(texts, self.config.pad_token_id(), &self.device)
    }

    /// One embedding per text, by the pipeline [`EncoderBundle::embedding`], or by mean pooling without one.
    ///
    /// Texts are token ids with the special tokens that the model was trained with. They are sorted by length and
    /// embedded in batches of some thousand tokens, so memory and padding stay small for any number of texts.
    ///
    /// # Panics
    /// If a text is empty or longer than the model reads, or an id is not in the vocabulary.
    pub fn embed<R: AsRef<[u32]>>(&self, texts: &[R]) -> Vec<Vec<f32>> {
        self.embed_after(texts, 0)
    }

    /// [`embed`](Self::embed) for texts whose first `n_prompt` ids are a prompt, which a pipeline may exclude from
    /// pooling.
    ///
    /// # Panics
    /// As [`embed`](Self::embed), and if a text has no id beyond a prompt that is left out.
    pub fn embed_after<R: AsRef<[u32]>>(&self, texts: &[R], n_prompt: usize) -> Vec<Vec<f32>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| Reverse(texts[text].as_ref().len()));
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rest = &order[..];
        while let Some(&longest) = rest.first() {
            let len = |text: usize| texts[text].as_ref().len();
            let rows = TOKENS_TOGETHER / len(longest).max(1);
            let least = len(longest).saturating_sub((len(longest) / PADDING_PART).max(MIN_PADDING));
            let alike = rest.partition_point(|&text| len(text) >= least);
            let (group, others) = rest.split_at(rows.clamp(1, alike));
            rest = others;
            let together: Vec<&[u32]> = group.iter().map(|&text| texts[text].as_ref()).collect();
            group
                .iter()
                .zip(self.embed_together(&together, n_prompt))
                .for_each(|(&text, vector)| vectors[text] = vector);
        }
        vectors
    }

    /// [`embed_after`](Self::embed_after) for one batch.
    fn embed_together(&self, texts: &[&[u32]], n_prompt: usize) -> Vec<Vec<f32>> {
        let (ids_bt, rows) = self.batch(texts);
        let mut cx = evaluation_over(rows, ids_bt.dims()[1]);
        let hidden_btd = self.precision.run(|| self.model.hidden(ids_bt, None, &mut cx));
        let usual = EmbedPipeline::default();
        let pipeline = self.embedding.as_ref().unwrap_or(&usual);
        let embedded = pipeline.apply(hidden_btd, cx.padding_mask(), n_prompt);
        let d = embedded.dims()[1];
        let values = embedded.into_data().try_into_vec::<f32>().expect("embeddings are f32");
        values.chunks_exact(d).map(<[f32]>::to_vec).collect()
    }
}
