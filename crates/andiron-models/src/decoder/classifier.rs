//! A decoder with a sequence-classification head: a linear layer on the hidden state of a text's last token.
//!
//! Hugging Face: `LlamaForSequenceClassification` and its like, for every decoder here. `score.weight` replaces the
//! language-model head.

use std::path::Path;

use andiron_core::linear::LinearConfig;
use andiron_core::ops::WeightLayout;
use andiron_core::padding_mask::pick;
use andiron_core::{Forward, Linear};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde_json::{Map, Value};

use crate::adapter::AdapterNames;
use crate::any::AnyBundle;
use crate::batch::pad_right;
use crate::bundle::{Bundle, FamilyConfig};
use crate::catalog::{self, DecoderConfig, DecoderModel, ReadError, Sizes};
use crate::decoder::DecoderBundle;
use crate::encoder::{EncoderHead, Problem, head};
use crate::family::Decoder;
use crate::hf_config::ConfigError;
use crate::key_rules::ConfigFile;
use crate::model_files::{CONFIG, read_config};
use crate::weights::{NameRules, transplant};

/// Standard deviation of a new head's weights.
const STD: f32 = 0.02;
const TIED: &str = "tie_word_embeddings";

/// `config.json` of a decoder with a sequence-classification head.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// The decoder; its language-model head counts as tied, since there is none.
    decoder: DecoderConfig,
    /// The file's value of [`TIED`], to be written back.
    tied: Option<Value>,
    problem: Problem,
    labels: Vec<String>,
    pad_token_id: Option<u32>,
}

impl ClassifierConfig {
    /// Whether the fields of a decoder's `config.json` ask for a classification head.
    pub(crate) fn is_meant(fields: &Map<String, Value>) -> bool {
        let class = fields.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
        class.is_some_and(|class| class.ends_with("ForSequenceClassification"))
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or does not describe such a model.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::read_file(path)?.config)
    }

    /// Reads a `config.json` and lists its unknown keys.
    ///
    /// # Errors
    /// As [`ClassifierConfig::read`].
    pub fn read_file(path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        Self::from_object(read_config(path)?, path)
    }

    pub(crate) fn from_fields(
        model_type: &str,
        mut fields: Map<String, Value>,
    ) -> Option<Result<ConfigFile<Self>, ReadError>> {
        let tied = fields.insert(TIED.to_owned(), true.into());
        let pad_token_id =
            fields.get("pad_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let (problem, labels) = match head::read_classes(&fields) {
            Ok((EncoderHead::Classify { problem }, labels)) => (problem, labels),
            Ok(_) => {
                let class = fields.get("architectures").unwrap_or(&Value::Null).to_string();
                let known = "…ForSequenceClassification";
                return Some(Err(ConfigError::UnknownHead { class, known }.into()));
            }
            Err(error) => return Some(Err(error.into())),
        };
        let decoder = DecoderConfig::from_fields(model_type, fields)?;
        let whole = |decoder| Self { decoder, tied, problem, labels, pad_token_id };
        Some(decoder.map(|file| file.map(whole)))
    }

    /// The decoder with a classification head in place of its language-model head.
    ///
    /// # Errors
    /// If no labels are given.
    pub fn of_decoder(
        decoder: &DecoderConfig,
        problem: Problem,
        labels: Vec<String>,
        pad_token_id: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let Value::Object(mut fields) = decoder.to_value() else {
            unreachable!("a configuration is an object")
        };
        head::write(EncoderHead::Classify { problem }, &labels, &mut fields);
        fields.insert("architectures".to_owned(), vec![decoder.classifier_class()].into());
        fields.insert("pad_token_id".to_owned(), pad_token_id.into());
        head::validate(EncoderHead::Classify { problem }, &labels)?;
        Ok(Self::from_object(fields, Path::new(CONFIG))?.config)
    }

    /// The same decoder with a head for other labels.
    ///
    /// # Errors
    /// If no labels are given.
    pub fn with_labels(&self, problem: Problem, labels: Vec<String>) -> Result<Self, ConfigError> {
        head::validate(EncoderHead::Classify { problem }, &labels)?;
        Ok(Self { problem, labels, ..self.clone() })
    }

    fn to_value(&self) -> Value {
        let mut value = self.decoder.to_value();
        if let Value::Object(fields) = &mut value {
            head::write(EncoderHead::Classify { problem: self.problem }, &self.labels, fields);
            fields.insert("architectures".to_owned(), vec![self.class_name()].into());
            fields.insert("pad_token_id".to_owned(), self.pad_token_id.into());
            match &self.tied {
                Some(tied) => fields.insert(TIED.to_owned(), tied.clone()),
                None => fields.shift_remove(TIED),
            };
        }
        value
    }

    /// The decoder's `model_type`.
    pub fn model_type(&self) -> &'static str {
        self.decoder.model_type()
    }

    /// Hugging Face's class for the model.
    pub fn class_name(&self) -> &'static str {
        self.decoder.classifier_class()
    }

    /// The sizes that every configuration has.
    pub fn sizes(&self) -> Sizes {
        self.decoder.sizes()
    }

    /// Problem type.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// Label names.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Padding token id; ignored at the end of a text.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.pad_token_id
    }

    /// Position of the token from which a text is classified: its last one that is not padding, as in Hugging Face; 0 if
    /// all are padding.
    pub fn last_token(&self, ids: &[u32]) -> usize {
        ids.iter().rposition(|id| Some(*id) != self.pad_token_id).unwrap_or(0)
    }

    /// A model with random weights drawn from `seed`.
    pub fn init(&self, seed: Seed, device: &Device) -> DecoderClassifier {
        let head = LinearConfig {
            d_input: self.sizes().d_model,
            d_output: self.labels.len(),
            bias: false,
            layout: WeightLayout::OutIn,
        };
        DecoderClassifier {
            inline_: self.decoder.init(seed, device),
            score: head.init(STD, seed.derive("score.weight"), device),
        }
    }
}

/// A decoder with a sequence-classification head.
#[derive(Module, Debug)]
pub struct DecoderClassifier {
    inline_: DecoderModel,
    score: Linear,
}

impl DecoderClassifier {
    /// Label logits of each text, or raw outputs for regression.
    ///
    /// `last` is the column of each text's last token; columns to its right are ignored.
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, labels]`.
    ///
    /// # Panics
    /// If the number of columns differs from that of texts, or the texts exceed the model's maximum length.
    pub fn sequence_logits(&self, ids_bt: Tensor<2, Int>, last: &[usize], cx: &mut Forward<'_>) -> Tensor<2> {
        let hidden_btd = self.inline_.hidden(ids_bt, cx);
        cx.with_adapters(|| self.score.forward(pick(hidden_btd, last.iter().copied())))
    }
}

/// A decoder classifier with its configuration and settings, without the tokenizer.
pub type ClassifierBundle = Bundle<ClassifierConfig>;

impl FamilyConfig for ClassifierConfig {
    type Model = DecoderClassifier;

    fn from_object(fields: Map<String, Value>, path: &Path) -> Result<ConfigFile<Self>, ConfigError> {
        catalog::from_object(fields, path, DecoderConfig::MODEL_TYPES, Self::from_fields)
    }

    fn of_any(any: AnyBundle) -> Option<Bundle<Self>> {
        match any {
            AnyBundle::Classifier(bundle) => Some(bundle),
            _ => None,
        }
    }

    fn config_json(bundle: &ClassifierBundle) -> Value {
        bundle.config.to_value()
    }

    fn init_model(&self, seed: Seed, device: &Device) -> DecoderClassifier {
        self.init(seed, device)
    }

    fn name_rules(&self) -> NameRules {
        self.decoder.name_rules()
    }

    fn adapter_names(&self) -> AdapterNames {
        AdapterNames {
            class: self.class_name(),
            model_type: self.model_type(),
            // There is no language-model head to tie.
            rules: NameRules { tied: &[], ..self.decoder.name_rules() },
            task: Some("SEQ_CLS"),
            head: Some("score"),
        }
    }
}

impl ClassifierBundle {
    /// The decoder with a new classification head, initialized from `seed`: the start of fine-tuning.
    pub fn of_decoder(bundle: &DecoderBundle, config: ClassifierConfig, seed: Seed) -> Self {
        let fresh = Self::init(config, seed, bundle.device());
        Self { model: transplant(fresh.model, &bundle.model), ..fresh }
    }

    /// The same backbone with a new head for other labels, initialized from `seed`.
    pub fn with_head(self, config: ClassifierConfig, seed: Seed) -> Self {
        let score = config.init(seed, &self.device).score;
        Self { model: DecoderClassifier { inline_: self.model.inline_, score }, config, ..self }
    }

    /// Label scores of each text, in label order: probabilities, or raw outputs for regression.
    ///
    /// Uses the last token that is not padding, as in Hugging Face.
    ///
    /// # Panics
    /// If a text is empty or too long, or an id is outside the vocabulary.
    pub fn classify<R: AsRef<[u32]>>(&self, texts: &[R]) -> Vec<Vec<f32>> {
        if texts.is_empty() {
            return Vec::new();
        }
        assert!(texts.iter().all(|ids| !ids.as_ref().is_empty()), "a text has at least one token");
        let last: Vec<usize> = texts.iter().map(|ids| self.config.last_token(ids.as_ref())).collect();
        // Attention is causal, so right padding needs no mask.
        let vocab_size = self.config.sizes().vocab_size;
        let filler = self.config.pad_token_id.filter(|&id| (id as usize) < vocab_size).unwrap_or(0);
        let (ids_bt, _) = pad_right(texts, filler, &self.device);
        let classify = || self.model.sequence_logits(ids_bt, &last, &mut Forward::evaluation());
        self.config.problem.scores(self.precision.run(classify))
    }
}
