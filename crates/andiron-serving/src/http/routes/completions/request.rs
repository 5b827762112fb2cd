//! The request of a client, checked field by field.

use super::REFUSED;
use crate::http::fields::Fields;
use crate::http::generation::{Bounds, GenerationOptions, check_known};
use crate::http::openapi::schema_of;
use crate::http::text::Reading;
use crate::http::{ApiError, App};
use crate::registry::Served;

const PROMPT: &str =
    "a string, an array of strings, an array of token ids or an array of arrays of token ids";

/// Default `max_tokens`, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;

/// The prompts of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompts {
    Texts(Vec<String>),
    Ids(Vec<Vec<u32>>),
}

impl Prompts {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Ids(lists) => lists.len(),
        }
    }
}

/// A checked request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CompletionRequest {
    pub(super) prompts: Prompts,
    pub(super) reading: Reading,
    pub(super) echo: bool,
    pub(super) options: GenerationOptions,
}

impl CompletionRequest {
    pub(super) fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<Self, ApiError> {
        let limits = &app.config.limits;
        check_known(fields, REFUSED)?;
        let echo = fields.flag("echo")?;
        let bounds = Bounds {
            prompt: "prompt",
            max_tokens: "max_tokens",
            least: usize::from(!echo),
            usual: Some(DEFAULT_MAX_TOKENS),
        };
        let mut options = GenerationOptions::parse(fields, app, served, bounds)?;
        let n = options.n;
        let best_of = fields.count("best_of", 1, limits.max_n)?;
        if best_of.is_some_and(|best_of| best_of != n) {
            return Err(ApiError::unsupported("best_of", " unless it equals `n`"));
        }
        let prompts = parse_prompts(fields)?;
        if prompts.len() * n > limits.max_choices {
            let message = format_args!(
                "{} prompts with n = {n} are more than {} choices; send fewer at once",
                prompts.len(),
                limits.max_choices
            );
            return Err(ApiError::invalid("prompt", message));
        }
        if matches!(prompts, Prompts::Texts(_)) && served.text.tokenizer().is_none() {
            return Err(ApiError::no_tokenizer("prompt"));
        }
        options.logprobs = fields.count("logprobs", 0, limits.max_logprobs)?;
        Ok(Self { prompts, reading: Reading::parse(fields)?, echo, options })
    }
}

fn parse_prompts(fields: &Fields<'_>) -> Result<Prompts, ApiError> {
    let refuse = || fields.unexpected("prompt", PROMPT);
    fields.one_of(
        "prompt",
        PROMPT,
        &[schema_of::<String>, schema_of::<Vec<String>>, schema_of::<Vec<u32>>, schema_of::<Vec<Vec<u32>>>],
    );
    let raw = fields
        .raw("prompt")
        .ok_or_else(|| ApiError::invalid("prompt", format_args!("missing, expected {PROMPT}")))?;
    let first = raw.bytes().filter(|byte| !byte.is_ascii_whitespace()).take(2).collect::<Vec<u8>>();
    match first.as_slice() {
        [b'"', ..] => Ok(Prompts::Texts(vec![serde_json::from_str(raw).map_err(|_| refuse())?])),
        [b'[', b'"'] => Ok(Prompts::Texts(serde_json::from_str(raw).map_err(|_| refuse())?)),
        [b'[', b'['] => Ok(Prompts::Ids(serde_json::from_str(raw).map_err(|_| refuse())?)),
        [b'[', b']'] => Err(ApiError::invalid("prompt", format_args!("empty, expected {PROMPT}"))),
        [b'[', _] => Ok(Prompts::Ids(vec![serde_json::from_str(raw).map_err(|_| refuse())?])),
        _ => Err(refuse()),
    }
}
