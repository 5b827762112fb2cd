//! Text at the edge of the API: what clients send, encoded and compiled within bounds.

use andiron_data::tokenizer::ControlTokens;
use andiron_models::generate::{Constraint, Grammar};
use andiron_pipelines::TextProcessor;

use super::ApiError;
use super::fields::Fields;

/// How much shorter a normalizer may make a text: composed characters take a third of their parts, and runs of spaces may
/// become one.
const NORMALIZED_AWAY: usize = 4;

/// Bytes of a text that is encoded in any case: it takes a few milliseconds.
const ALWAYS_ENCODED: usize = 16 << 10;

/// How the text of a prompt becomes ids.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// Whether what the tokenizer's post-processor adds is added.
    pub(crate) add_special_tokens: bool,
    /// Whether control tokens in the text are control tokens.
    pub(crate) parse_special: bool,
}

impl Reading {
    /// The fields `add_special_tokens` and `parse_special`, both true by default.
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let flag = |name| fields.optional(name, "true or false").map(|said| said.unwrap_or(true));
        Ok(Self { add_special_tokens: flag("add_special_tokens")?, parse_special: flag("parse_special")? })
    }
}

/// Refuses a text that cannot fit a context of `context_len` ids whatever its tokens are.
pub(super) fn check_bytes(processor: &TextProcessor, text: &str, context_len: usize) -> Result<(), ApiError> {
    let Some(longest) = processor.longest_token() else { return Ok(()) };
    let most = longest.saturating_mul(context_len).saturating_mul(NORMALIZED_AWAY).max(ALWAYS_ENCODED);
    if text.len() <= most {
        return Ok(());
    }
    let message = format!(
        "this model's context is {context_len} tokens of at most {longest} bytes, which a text of {} bytes cannot fit; \
         shorten the prompt",
        text.len()
    );
    Err(ApiError::context_length_exceeded("prompt", message))
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

/// Constrains texts to `grammar`, which the field `param` asked for.
pub(super) fn constrain(
    processor: &TextProcessor,
    param: &str,
    grammar: Grammar,
) -> Result<Constraint, ApiError> {
    processor.constraint(grammar).map_err(|error| ApiError::of_text(param, error))
}
