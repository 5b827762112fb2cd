//! Text at the edge of the API: the one place that touches the tokenizer.

use std::sync::OnceLock;

use andiron_data::tokenizer::{ControlTokens, Special, StreamDecoder, Tokenizer, TokenizerError};
use andiron_models::generate::{Constraint, Grammar, Vocabulary};

use super::ApiError;
use super::fields::Fields;

/// How much shorter a normalizer may make a text: composed characters take a third of their parts, and runs of spaces may
/// become one.
const NORMALIZED_AWAY: usize = 4;

/// Bytes of a text that is encoded in any case: it takes a few milliseconds.
const ALWAYS_ENCODED: usize = 16 << 10;

/// Characters of what is wrong with a grammar: such messages repeat the grammar.
const MAX_GRAMMAR_MESSAGE: usize = 400;

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

/// The tokenizer, or the lack of one.
#[derive(Clone, Debug)]
pub(crate) struct TextSide {
    tokenizer: Option<Tokenizer>,
    /// Made when first needed.
    vocabulary: OnceLock<Vocabulary>,
    /// Bytes of the longest token; `None` if the vocabulary does not say. Found when first needed.
    longest_token: OnceLock<Option<usize>>,
}

impl TextSide {
    pub(super) fn new(tokenizer: Option<Tokenizer>) -> Self {
        Self { tokenizer, vocabulary: OnceLock::new(), longest_token: OnceLock::new() }
    }

    pub(super) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Refuses a text that cannot fit a context of `context_len` ids whatever its tokens are.
    pub(super) fn check_bytes(&self, text: &str, context_len: usize) -> Result<(), ApiError> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(()) };
        let longest = self.longest_token.get_or_init(|| longest_token(tokenizer));
        let Some(longest) = *longest else { return Ok(()) };
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
    pub(super) fn encode(&self, text: &str, how: Reading) -> Result<Vec<u32>, ApiError> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| ApiError::no_tokenizer("prompt"))?;
        let control = if how.parse_special { ControlTokens::Parsed } else { ControlTokens::AsText };
        let tokenizer = tokenizer.clone().with_control_tokens(control);
        let ids = match how.add_special_tokens {
            true => tokenizer.encode_prompt(text),
            false => tokenizer.encode_bare_prompt(text),
        };
        ids.map_err(|error| match error.is_about_text() {
            true => ApiError::invalid("prompt", error),
            false => failed(error),
        })
    }

    /// Holds texts to `grammar`, which the field `param` asked for.
    pub(super) fn constrain(&self, param: &str, grammar: Grammar) -> Result<Constraint, ApiError> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| ApiError::no_tokenizer(param))?;
        let vocabulary = match self.vocabulary.get() {
            Some(vocabulary) => vocabulary,
            None => {
                let spellings = tokenizer.spellings().map_err(failed)?;
                let made = Vocabulary::new(&spellings.tokens, spellings.drops_first_space);
                let made = made.map_err(|error| ApiError::invalid(param, error))?;
                self.vocabulary.get_or_init(|| made)
            }
        };
        Constraint::new(vocabulary, grammar).map_err(|error| {
            let message: String = error.to_string().chars().take(MAX_GRAMMAR_MESSAGE).collect();
            ApiError::invalid(param, message)
        })
    }

    /// How one id reads on its own: its text, or, where that is only a part of a character, its name in the vocabulary.
    pub(super) fn token(&self, id: u32) -> String {
        let Some(tokenizer) = &self.tokenizer else {
            return format!("token_id:{id}");
        };
        let text = tokenizer.decode(&[id], Special::Keep).unwrap_or_default();
        match text.is_empty() || text.contains('\u{fffd}') {
            true => tokenizer.id_to_token(id).unwrap_or_else(|| format!("token_id:{id}")),
            false => text,
        }
    }

    /// A name for `id` when [`token`](Self::token) gives one that another id has.
    pub(super) fn other_name(&self, id: u32) -> String {
        let spelled = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.id_to_token(id));
        spelled.unwrap_or_else(|| format!("token_id:{id}"))
    }

    /// A decoder that begins with the first id of a text.
    pub(super) fn decoder(&self) -> Detokenizer {
        Detokenizer { stream: self.tokenizer.as_ref().map(|t| StreamDecoder::new(t, Special::Skip)) }
    }

    /// A decoder for what follows `prompt`.
    pub(super) fn decoder_after(&self, prompt: &[u32]) -> Result<Detokenizer, ApiError> {
        let after = |tokenizer| StreamDecoder::after(tokenizer, Special::Skip, prompt).map_err(failed);
        Ok(Detokenizer { stream: self.tokenizer.as_ref().map(after).transpose()? })
    }
}

/// Ids to text, never half a character. Without a tokenizer all text is empty.
pub(super) struct Detokenizer {
    stream: Option<StreamDecoder>,
}

impl Detokenizer {
    pub(super) fn push(&mut self, id: u32) -> Result<String, ApiError> {
        self.stream.as_mut().map_or(Ok(String::new()), |stream| stream.push(id).map_err(failed))
    }

    pub(super) fn finish(&mut self) -> Result<String, ApiError> {
        self.stream.take().map_or(Ok(String::new()), |stream| stream.finish().map_err(failed))
    }
}

/// Bytes of the longest text that one id can stand for.
fn longest_token(tokenizer: &Tokenizer) -> Option<usize> {
    let spelled = tokenizer.spellings().ok()?.tokens.iter().map(Vec::len).max()?;
    // Control tokens spell nothing and have a name.
    let named = (0..u32::try_from(tokenizer.vocab_size()).ok()?)
        .filter(|&id| tokenizer.is_special(id))
        .filter_map(|id| tokenizer.id_to_token(id))
        .map(|name| name.len())
        .max();
    Some(spelled.max(named.unwrap_or(0)).max(1))
}

fn failed(error: TokenizerError) -> ApiError {
    tracing::error!(%error, "the tokenizer failed");
    ApiError::internal("the tokenizer failed on this request")
}
