//! Attention of a text: which token attends to which, by layer and head.

use andiron_data::tokenizer::{Framed, Tokenizer};
use andiron_models::AnyBundle;
use andiron_models::attention::{Attention, AttentionLayers};
use andiron_models::generate::{GenerateOptions, SamplingParams};

use crate::input::{Encoded, InputError, PromptInput, ReadTexts, TextInput, Types};
use crate::text_processor::TextError;
use crate::{
    ClassifierPipeline, DecoderPipeline, EncoderPipeline, Pipeline, Seq2SeqPipeline, SourceError,
    TextProcessor,
};

/// A text to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionRequest {
    /// The text, or the source of an encoder-decoder.
    pub text: String,
    /// The target of an encoder-decoder; `None` is what the model generates greedily.
    pub target: Option<String>,
    /// The layers to show, of each stack.
    pub layers: AttentionLayers,
    /// Maximum tokens of a text. Longer texts are refused; a generated target ends there.
    pub max_tokens: usize,
}

/// The attention of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextAttention {
    /// Tokens of the text, or of the source.
    pub tokens: Vec<ShownToken>,
    /// What an encoder-decoder's decoder reads: the start token and the target.
    pub target_tokens: Option<Vec<ShownToken>>,
    /// Probabilities between these tokens.
    pub attention: Attention,
}

/// A token to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownToken {
    /// Its id.
    pub id: u32,
    /// Its text. Tokens that are parts of one character all have the whole character.
    pub text: String,
    /// Whether it is one that the tokenizer or the model adds, such as `[CLS]`.
    pub special: bool,
}

/// Why there is no attention to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// The text cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The text cannot become tokens.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The target cannot be generated.
    #[error(transparent)]
    Target(#[from] SourceError),
    /// A text is longer than asked for.
    #[error("{what} has more than {limit} tokens, for which attention is shown: give a shorter one")]
    TooLong {
        /// The text or the target.
        what: &'static str,
        /// The most.
        limit: usize,
    },
    /// The layers asked for are not in the model.
    #[error("there is no layer {layer}: the model has the layers 0 to {last}")]
    NoLayer {
        /// The first layer asked for.
        layer: usize,
        /// The last layer.
        last: usize,
    },
    /// A target was given to a model that has none.
    #[error("the model has no target: it is no encoder-decoder")]
    NoTarget,
}

impl Pipeline {
    /// The attention of a text, for a model of any family.
    ///
    /// # Errors
    /// If the text cannot be read or is too long, or the model has none of the layers.
    pub fn attention(&self, request: &AttentionRequest) -> Result<TextAttention, AttentionError> {
        let text = self.text.clone();
        match self.bundle.clone() {
            AnyBundle::Decoder(bundle) => Pipeline { bundle, text }.attention(request),
            AnyBundle::Classifier(bundle) => Pipeline { bundle, text }.attention(request),
            AnyBundle::Encoder(bundle) => Pipeline { bundle, text }.attention(request),
            AnyBundle::EncoderDecoder(bundle) => Pipeline { bundle, text }.attention(request),
        }
    }
}

impl DecoderPipeline {
    /// The attention of a prompt.
    ///
    /// # Errors
    /// As [`Pipeline::attention`].
    pub fn attention(&self, request: &AttentionRequest) -> Result<TextAttention, AttentionError> {
        let limit = request.max_tokens.min(self.bundle.config.max_positions());
        let framed = prompt(&self.text, &request.text, limit, self.bundle.config.sizes().vocab_size)?;
        let attention = self.bundle.attention(&framed.ids, request.layers);
        alone(shown(&self.text, &framed, &request.text), attention, request)
    }
}

impl ClassifierPipeline {
    /// The attention of a text.
    ///
    /// # Errors
    /// As [`Pipeline::attention`].
    pub fn attention(&self, request: &AttentionRequest) -> Result<TextAttention, AttentionError> {
        let framed = whole(self, request)?.framed;
        let attention = self.bundle.attention(&framed.ids, request.layers);
        alone(shown(&self.text, &framed, &request.text), attention, request)
    }
}

impl EncoderPipeline {
    /// The attention of a text.
    ///
    /// # Errors
    /// As [`Pipeline::attention`].
    pub fn attention(&self, request: &AttentionRequest) -> Result<TextAttention, AttentionError> {
        let encoded = whole(self, request)?;
        let attention = self.bundle.attention(encoded.view(), request.layers);
        alone(shown(&self.text, &encoded.framed, &request.text), attention, request)
    }
}

impl Seq2SeqPipeline {
    /// The attention of a source and a target, and between them.
    ///
    /// # Errors
    /// As [`Pipeline::attention`]; and if no target was given and none can be generated.
    pub fn attention(&self, request: &AttentionRequest) -> Result<TextAttention, AttentionError> {
        let config = &self.bundle.config;
        let limit = request.max_tokens.min(config.max_positions());
        let source = prompt(&self.text, &request.text, limit, config.vocab_size())?;
        let start = self.bundle.start_id();
        let targets = TextProcessor::new(self.text.target_tokenizer()?.cloned(), Vec::new());
        let start_token = shown_token(&targets, start, None);
        let (ids, tokens) = match &request.target {
            Some(target) => {
                let framed =
                    targets.require_tokenizer()?.frame_prompt(target, limit).map_err(TextError::from)?;
                let framed = checked(framed, "the target", limit, config.target_vocab_size())?;
                let tokens = shown(&targets, &framed, target);
                (framed.ids, tokens)
            }
            None => {
                let options = GenerateOptions {
                    sampling: SamplingParams::greedy(),
                    max_new_tokens: limit.saturating_sub(1).max(1),
                    ..GenerateOptions::default()
                };
                let ids = self.generate(&PromptInput::Ids(source.ids.clone()), options, None)?.ids;
                let tokens = ids.iter().map(|&id| shown_token(&targets, id, None)).collect();
                (ids, tokens)
            }
        };
        // The decoder reads each token but the last, from which nothing follows.
        let n_read = ids.len().saturating_sub(1);
        let read: Vec<u32> = [start].into_iter().chain(ids.into_iter().take(n_read)).collect();
        let target_tokens = [start_token].into_iter().chain(tokens.into_iter().take(n_read)).collect();
        let attention = self.bundle.attention(&source.ids, &read, request.layers);
        let tokens = shown(&self.text, &source, &request.text);
        found(TextAttention { tokens, target_tokens: Some(target_tokens), attention }, request)
    }
}

/// The ids of a prompt.
fn prompt(
    text: &TextProcessor,
    prompt: &str,
    limit: usize,
    vocab_size: usize,
) -> Result<Framed, AttentionError> {
    let framed = text.require_tokenizer()?.frame_prompt(prompt, limit).map_err(TextError::from)?;
    checked(framed, "the text", limit, vocab_size)
}

/// The ids of a text for a model that reads whole texts.
fn whole<B: ReadTexts>(
    pipeline: &Pipeline<B>,
    request: &AttentionRequest,
) -> Result<Encoded, AttentionError> {
    let limit = request.max_tokens.min(pipeline.bundle.max_positions());
    let encoded = pipeline.reader().read(&TextInput::from(request.text.as_str()), limit, Types::ForModel)?;
    match encoded.framed.truncated {
        true => Err(AttentionError::TooLong { what: "the text", limit }),
        false => Ok(encoded),
    }
}

fn checked(
    framed: Framed,
    what: &'static str,
    limit: usize,
    vocab_size: usize,
) -> Result<Framed, AttentionError> {
    match framed.ids.iter().find(|&&id| id as usize >= vocab_size) {
        _ if framed.truncated => Err(AttentionError::TooLong { what, limit }),
        Some(&id) => Err(InputError::UnknownId { id, vocab_size }.into()),
        None if framed.ids.is_empty() => Err(InputError::Empty.into()),
        None => Ok(framed),
    }
}

/// The result for a model without targets.
fn alone(
    tokens: Vec<ShownToken>,
    attention: Attention,
    request: &AttentionRequest,
) -> Result<TextAttention, AttentionError> {
    match request.target {
        Some(_) => Err(AttentionError::NoTarget),
        None => found(TextAttention { tokens, target_tokens: None, attention }, request),
    }
}

fn found(found: TextAttention, request: &AttentionRequest) -> Result<TextAttention, AttentionError> {
    let last = found.attention.n_layers.saturating_sub(1);
    match request.layers {
        AttentionLayers::One(layer) if found.attention.layers.is_empty() => {
            Err(AttentionError::NoLayer { layer, last })
        }
        _ => Ok(found),
    }
}

fn shown(text: &TextProcessor, framed: &Framed, of: &str) -> Vec<ShownToken> {
    let places =
        framed.places.iter().map(|place| place.as_ref().and_then(|place| of.get(place.bytes.clone())));
    framed.ids.iter().zip(places).map(|(&id, place)| shown_token(text, id, place)).collect()
}

fn shown_token(text: &TextProcessor, id: u32, place: Option<&str>) -> ShownToken {
    let special = text.tokenizer().is_some_and(|tokenizer: &Tokenizer| tokenizer.is_special(id));
    let text = match place {
        Some(place) if !place.is_empty() => place.to_owned(),
        _ => text.token_text(id),
    };
    ShownToken { id, text, special }
}
