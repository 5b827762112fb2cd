//! A model that reads whole texts, with what its files say about reading.

use std::borrow::Cow;

use andiron_data::tokenizer::Tokenizer;
use andiron_models::{ClassifierBundle, EncoderBundle};

use super::RowError;
use super::input::Input;
use crate::model::Opened;

const TYPES: &str = "token_type_ids";
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
    /// The model that was opened.
    pub(super) fn new(opened: Opened<B>) -> Self {
        let (bundle, tokenizer) = opened.into_parts();
        let names = tokenizer.as_ref().and_then(Tokenizer::model_input_names);
        // Where the files name neither inputs nor a class, transformers takes the class that the architecture has there.
        let named =
            names.map_or(bundle.model_type() == "bert", |names| names.iter().any(|name| name == TYPES));
        let gives_types = bundle.n_token_types() > 1 && named;
        let max_tokens = tokenizer.as_ref().and_then(Tokenizer::model_max_length);
        Self { bundle, tokenizer, max_tokens, gives_types }
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
    /// Longest text of which a vector is made, or pair of texts that a cross-encoder reads, in tokens: by the pipeline's
    /// files, else by the tokenizer's, and no more than the model reads.
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
