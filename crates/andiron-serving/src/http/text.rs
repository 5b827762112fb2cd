//! Tokenizing prompts and compiling grammars, within bounds.

use andiron_data::tokenizer::{ChatInputs, ControlTokens, Message, Special, TokenizerError};
use andiron_models::generate::{Constraint, Grammar, Interrupt};
use andiron_pipelines::TextProcessor;

use super::ApiError;
use super::fields::Fields;

/// Factor by which a normalizer may shorten a text, for example by composing characters or merging spaces.
const NORMALIZED_AWAY: usize = 4;

/// Texts up to this size, in bytes, are always tokenized: it takes a few milliseconds.
const ALWAYS_ENCODED: usize = 16 << 10;

/// How a prompt is tokenized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// Whether the tokenizer's post-processor adds special tokens.
    pub(crate) add_special_tokens: bool,
    /// Whether control tokens spelled out in the text become control tokens.
    pub(crate) parse_special: bool,
}

impl Reading {
    /// The fields `add_special_tokens` and `parse_special`, both true by default.
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let flag = |name| fields.optional(name, "true or false").map(|said| said.unwrap_or(true));
        Ok(Self { add_special_tokens: flag("add_special_tokens")?, parse_special: flag("parse_special")? })
    }
}

/// The prompt of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
}

/// What is done with a text that is longer than a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlong {
    /// It is refused.
    Refused,
    /// Its end is left out.
    Cut,
}

/// Most bytes of a text that `context_len` tokens can spell; `None` if the vocabulary does not tell.
fn most_bytes(processor: &TextProcessor, context_len: usize) -> Option<usize> {
    let longest = processor.longest_token()?;
    Some(longest.saturating_mul(context_len).saturating_mul(NORMALIZED_AWAY).max(ALWAYS_ENCODED))
}

/// The text of the field `param`, of no more bytes than `context_len` tokens can spell: the rest is left out, or it is refused.
pub(super) fn bounded(
    param: &str,
    processor: &TextProcessor,
    mut text: String,
    context_len: usize,
    overlong: Overlong,
) -> Result<String, ApiError> {
    match (overlong, most_bytes(processor, context_len)) {
        (Overlong::Refused, _) => check_bytes(processor, param, &text, context_len)?,
        (Overlong::Cut, Some(most)) if text.len() > most => text.truncate(text.floor_char_boundary(most)),
        (Overlong::Cut, _) => {}
    }
    Ok(text)
}

/// Refuses the text of the field `param` if it has more bytes than `context_len` tokens can spell.
pub(super) fn check_bytes(
    processor: &TextProcessor,
    param: &str,
    text: &str,
    context_len: usize,
) -> Result<(), ApiError> {
    if most_bytes(processor, context_len).is_none_or(|most| text.len() <= most) {
        return Ok(());
    }
    let longest = processor.longest_token().unwrap_or_default();
    let message = format!(
        "this model's context is {context_len} tokens of at most {longest} bytes, which a text of {} bytes cannot fit; \
         shorten the {param}",
        text.len()
    );
    Err(ApiError::context_length_exceeded(param, message))
}

/// The prompt of a conversation, by the model's chat template.
pub(super) fn render_chat(
    processor: &TextProcessor,
    messages: &[Message],
    inputs: &ChatInputs,
    context_len: usize,
) -> Result<Rendered, ApiError> {
    const PARAM: &str = "messages";
    let tokenizer = processor.tokenizer().ok_or_else(|| ApiError::no_tokenizer(PARAM))?;
    let invalid = |error: TokenizerError| ApiError::of_text(PARAM, error.into());
    // What is longer than the context before it is rendered is so afterwards.
    for message in messages {
        check_bytes(processor, PARAM, &message.text(), context_len)?;
    }
    let rendered = tokenizer.render_chat(messages, inputs).map_err(invalid)?;
    let text = rendered.text();
    check_bytes(processor, PARAM, &text, context_len)?;
    Ok(Rendered { ids: rendered.encode().map_err(invalid)?, text })
}

/// The last `bytes` bytes of a text, or a few less.
pub(super) fn tail(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

/// The ids of a prompt.
pub(super) fn encode(processor: &TextProcessor, text: &str, how: Reading) -> Result<Vec<u32>, ApiError> {
    let tokenizer = processor.tokenizer().ok_or_else(|| ApiError::no_tokenizer("prompt"))?;
    let control = if how.parse_special { ControlTokens::Parsed } else { ControlTokens::AsText };
    let tokenizer = tokenizer.clone().with_control_tokens(control);
    let ids = match how.add_special_tokens {
        true => tokenizer.encode_prompt(text),
        false => tokenizer.encode_bare_prompt(text),
    };
    ids.map_err(|error| ApiError::of_text("prompt", error.into()))
}

/// The text of `ids`, control tokens included.
pub(super) fn decode(processor: &TextProcessor, ids: &[u32]) -> Result<String, ApiError> {
    let tokenizer = processor.tokenizer().ok_or_else(|| ApiError::no_tokenizer("tokens"))?;
    tokenizer.decode(ids, Special::Keep).map_err(|error| ApiError::of_text("tokens", error.into()))
}

/// Compiles `grammar`, given in the field `param`, unless it is interrupted.
pub(super) fn constrain(
    processor: &TextProcessor,
    param: &str,
    grammar: Grammar,
    interrupt: &Interrupt,
) -> Result<Constraint, ApiError> {
    processor.constraint_unless(grammar, interrupt).map_err(|error| ApiError::of_text(param, error))
}
