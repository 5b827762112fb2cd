//! A model that reads whole texts, with what its files say about reading.

use std::borrow::Cow;
use std::path::Path;

use andiron_data::tokenizer::Tokenizer;
use andiron_models::{ClassifierBundle, EncoderBundle};
use serde_json::{Map, Value};

use super::RowError;
use super::input::Input;
use crate::model::Opened;

const TYPES: &str = "token_type_ids";
/// A `model_max_length` from here on means that there is no limit: `transformers` writes 1e30 then.
const NO_LIMIT: f64 = 1e20;

/// Classes of `transformers` whose tokenizers give token types if `model_input_names` says nothing; with or without `Fast`.
const TYPED_CLASSES: &[&str] = &[
    "BertTokenizer",
    "ConvBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
];

/// A model that reads whole texts.
pub(super) trait Reads {
    /// The architecture's name.
    fn model_type(&self) -> &'static str;

    /// Entries of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Entries of the table of token types, 0 if there is none.
    fn n_token_types(&self) -> usize;
}

impl Reads for EncoderBundle {
    fn model_type(&self) -> &'static str {
        self.config.model_type()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn n_token_types(&self) -> usize {
        self.config.n_token_types()
    }
}

impl Reads for ClassifierBundle {
    fn model_type(&self) -> &'static str {
        self.config.model_type()
    }

    fn vocab_size(&self) -> usize {
        self.config.sizes().vocab_size
    }

    fn n_token_types(&self) -> usize {
        0
    }
}

/// Such a model, opened.
pub(super) struct Reader<B> {
    pub(super) bundle: B,
    tokenizer: Option<Tokenizer>,
    /// `model_max_length` of the tokenizer.
    pub(super) max_tokens: Option<usize>,
    /// Whether the model is told which of two texts a token belongs to.
    gives_types: bool,
}

/// An encoder, opened.
pub(super) type EncoderReader = Reader<EncoderBundle>;

impl<B: Reads> Reader<B> {
    /// The model that was opened at `path`.
    pub(super) fn new(opened: Opened<B>, path: &Path) -> Self {
        let (bundle, tokenizer) = opened.into_parts();
        let config = match &tokenizer {
            Some(tokenizer) if path.join("tokenizer_config.json").exists() => tokenizer.config(),
            _ => Map::new(),
        };
        let gives_types = bundle.n_token_types() > 1 && gives_types(&config, bundle.model_type());
        Self { bundle, tokenizer, max_tokens: model_max_length(&config), gives_types }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If there is none beside the model.
    pub(super) fn tokenizer(&self) -> Result<&Tokenizer, RowError> {
        let missing = "the model directory has no tokenizer: give token ids instead of text";
        self.tokenizer.as_ref().ok_or_else(|| RowError::failed(missing))
    }

    /// Types as the model is to be given them, of a text that the tokenizer gave `type_ids`.
    pub(super) fn types_of_text(&self, type_ids: Vec<u32>) -> Result<Vec<u32>, RowError> {
        if !self.gives_types {
            return Ok(vec![0; type_ids.len()]);
        }
        let n_types = self.bundle.n_token_types();
        match type_ids.iter().find(|&&id| id as usize >= n_types) {
            Some(id) => Err(RowError::failed(format!(
                "the tokenizer gives the token type {id}: the model has {n_types} types"
            ))),
            None => Ok(type_ids),
        }
    }

    /// Checks the types that a row gives. `mark` says that they tell which tokens count as well, so that a model may have
    /// no such types itself.
    pub(super) fn check_types(&self, type_ids: &[u32], mark: bool) -> Result<(), RowError> {
        let n_types = match self.bundle.n_token_types() {
            0 | 1 if mark => 2,
            n_types => n_types.max(1),
        };
        match type_ids.iter().enumerate().find(|&(_, &id)| id as usize >= n_types) {
            None => Ok(()),
            Some((at, id)) if n_types == 1 => Err(RowError::invalid(format!(
                "type_ids has {id} at position {at}: the model has no token types, leave type_ids out"
            ))),
            Some((at, id)) => Err(RowError::invalid(format!(
                "type_ids has {id} at position {at}: there are the types 0 to {}",
                n_types - 1
            ))),
        }
    }
}

impl EncoderReader {
    /// Longest text of which a vector is made, or pair of texts that a cross-encoder reads, in tokens: by the pipeline's files, else by the tokenizer's, and no more than
    /// the model reads.
    pub(super) fn embed_limit(&self) -> usize {
        let own = self.bundle.embedding.as_ref().and_then(|pipeline| pipeline.max_tokens);
        own.or(self.max_tokens).unwrap_or(usize::MAX).min(self.bundle.config.max_positions())
    }

    /// A text in the case in which the model reads it.
    pub(super) fn cased<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bundle.embedding.as_ref().is_some_and(|pipeline| pipeline.lower_case) {
            // Character by character, as the reference's normalizer has it.
            true => text.chars().flat_map(char::to_lowercase).collect(),
            false => text.into(),
        }
    }

    /// A text of which a vector is to be made, after a prompt; and how many tokens the prompt has, if they are to be left
    /// out.
    pub(super) fn embed_input(&self, prompt: &str, text: &str) -> Result<(Input, usize), RowError> {
        let (limit, tokenizer) = (self.embed_limit(), self.tokenizer()?);
        let frame = |text: &str| tokenizer.frame(&self.cased(text), None, limit).map_err(RowError::failed);
        let input = Input::of_text(frame(&format!("{prompt}{text}"))?, self, limit)?;
        let skips = self.bundle.embedding.as_ref().is_some_and(|pipeline| pipeline.skips_prompt);
        if prompt.is_empty() || !skips {
            return Ok((input, 0));
        }
        let alone = frame(prompt)?;
        let closes = alone.ids.last().is_some_and(|&id| tokenizer.is_special(id));
        let n_prompt = alone.ids.len() - usize::from(closes);
        if input.framed.ids.len() <= n_prompt {
            let message = format!("the prompt takes all of the {limit} tokens that are read");
            return Err(RowError::invalid(message));
        }
        Ok((input, n_prompt))
    }
}

/// The tokens that a tokenizer's file says the model reads at most; `max_len` is the older name.
fn model_max_length(config: &Map<String, Value>) -> Option<usize> {
    let limit = ["model_max_length", "max_len"].iter().find_map(|key| config.get(*key)?.as_f64())?;
    (1.0..NO_LIMIT).contains(&limit).then_some(limit as usize)
}

/// Whether a model is told which of two texts a token belongs to: by `model_input_names`, else by the tokenizer's class in
/// `transformers` 5, else by the class that an architecture has there.
fn gives_types(config: &Map<String, Value>, model_type: &str) -> bool {
    match (config.get("model_input_names"), config.get("tokenizer_class")) {
        (Some(Value::Array(names)), _) => names.iter().any(|name| name == TYPES),
        (_, Some(Value::String(class))) => {
            TYPED_CLASSES.contains(&class.strip_suffix("Fast").unwrap_or(class))
        }
        _ => model_type == "bert",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn token_types_are_given_as_transformers_gives_them() {
        let gives = |value: Value| gives_types(&config(value), "bert");
        assert!(gives(json!({})) && gives(json!({ "tokenizer_class": "BertTokenizerFast" })));
        assert!(!gives(json!({ "tokenizer_class": "PreTrainedTokenizerFast" })));
        assert!(!gives(json!({ "tokenizer_class": "RobertaTokenizer" })));
        let names = json!({ "tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids"] });
        assert!(!gives(names) && gives(json!({ "model_input_names": ["input_ids", "token_type_ids"] })));
        assert!(!gives_types(&Map::new(), "roberta"));
    }

    #[test]
    fn a_length_limit_is_a_number_that_a_text_can_have() {
        let limit = |value: Value| model_max_length(&config(value));
        assert_eq!(limit(json!({ "model_max_length": 512 })), Some(512));
        assert_eq!(limit(json!({ "max_len": 512.0 })), Some(512));
        for none in [json!({}), json!({ "model_max_length": null }), json!({ "model_max_length": 1e30 })] {
            assert_eq!(limit(none), None);
        }
    }
}
