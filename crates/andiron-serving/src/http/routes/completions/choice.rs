//! One choice: takes tokens; gives text, log-probabilities and the finish reason.

use andiron_models::generate::{FinishReason, Token};
use andiron_pipelines::{TextProcessor, TextStream};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::http::ApiError;

/// Stands for minus infinity in JSON, as in vLLM.
const LEAST_LOGPROB: f32 = -9999.0;

/// Log-probabilities of the tokens of a choice; four lists of equal length.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Logprobs {
    tokens: Vec<String>,
    /// `None` for the first token of a prompt.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<TopLogprobs>>,
    /// In characters from the beginning of the choice's text.
    text_offset: Vec<usize>,
}

impl Logprobs {
    pub(super) fn append(&mut self, mut other: Self) {
        self.tokens.append(&mut other.tokens);
        self.token_logprobs.append(&mut other.token_logprobs);
        self.top_logprobs.append(&mut other.top_logprobs);
        self.text_offset.append(&mut other.text_offset);
    }
}

/// Tokens and log-probabilities, best first; an object in JSON.
///
/// Numbers stay `f32` so that the chosen token's one reads exactly as in `token_logprobs`: lm-eval compares them.
#[derive(Clone, Debug, PartialEq)]
struct TopLogprobs(Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(token, logprob)| map.serialize_entry(token, logprob))?;
        map.end()
    }
}

/// An update of a choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delta {
    pub(super) text: String,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) finish: Option<FinishReason>,
}

impl Delta {
    /// Whether a stream may leave it out.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.is_none() && self.finish.is_none()
    }
}

/// A choice in progress.
pub(super) struct Choice {
    /// Whether log-probabilities are reported.
    logprobs: bool,
    stream: TextStream,
    /// Characters of text so far, held-back ones included.
    written: usize,
    /// The prompt's ids and text, until they are echoed.
    echo: Option<(Vec<u32>, String)>,
}

impl Choice {
    /// A choice that continues `prompt` with `stream`.
    pub(super) fn new(stream: TextStream, logprobs: bool) -> Self {
        Self { logprobs, stream, written: 0, echo: None }
    }

    /// Echoes the prompt at the start of the choice. `text` is the client's text, if it sent text.
    pub(super) fn echo(
        &mut self,
        side: &TextProcessor,
        prompt: &[u32],
        text: Option<&str>,
    ) -> Result<(), ApiError> {
        let text = match text {
            Some(text) => text.to_owned(),
            None => side.continuation(&[], prompt)?,
        };
        self.echo = Some((prompt.to_vec(), text));
        Ok(())
    }

    /// Number of tokens generated.
    pub(super) fn tokens(&self) -> usize {
        self.stream.tokens()
    }

    /// The echoed prompt; with log-probabilities of its tokens from the second on, if requested.
    pub(super) fn prompt(&mut self, side: &TextProcessor, scored: &[Token]) -> Result<Delta, ApiError> {
        let Some((ids, text)) = self.echo.take() else {
            return Ok(Delta::default());
        };
        self.written = text.chars().count();
        let logprobs = match self.logprobs {
            false => None,
            true => {
                let mut logprobs = Logprobs::default();
                let mut decoder = TextStream::new(side, &[], &[], &[])?;
                let mut offset = 0;
                for (index, &id) in ids.iter().enumerate() {
                    let known = index.checked_sub(1).and_then(|index| scored.get(index));
                    logprobs.tokens.push(side.token_text(id));
                    logprobs.token_logprobs.push(known.map(|token| token.logprob.max(LEAST_LOGPROB)));
                    logprobs.top_logprobs.push(known.map(|token| top(side, token)));
                    logprobs.text_offset.push(offset);
                    offset += decoder.push(id)?.decoded_chars;
                }
                Some(logprobs)
            }
        };
        Ok(Delta { text, logprobs, finish: None })
    }

    /// The next token.
    pub(super) fn token(&mut self, side: &TextProcessor, token: &Token) -> Result<Delta, ApiError> {
        let offset = self.written;
        let piece = self.stream.push(token.id)?;
        self.written += piece.decoded_chars;
        let logprobs = self.logprobs.then(|| Logprobs {
            tokens: vec![side.token_text(token.id)],
            token_logprobs: vec![Some(token.logprob.max(LEAST_LOGPROB))],
            top_logprobs: vec![Some(top(side, token))],
            text_offset: vec![offset],
        });
        let finish = piece.stopped.then_some(FinishReason::Stop);
        Ok(Delta { text: piece.text, logprobs, finish })
    }

    /// The end of the generation.
    pub(super) fn finish(&mut self, reason: FinishReason) -> Result<Delta, ApiError> {
        let piece = self.stream.finish()?;
        let reason = if piece.stopped { FinishReason::Stop } else { reason };
        Ok(Delta { text: piece.text, logprobs: None, finish: Some(reason) })
    }
}

/// The likeliest tokens and the chosen one, each with a unique name.
fn top(side: &TextProcessor, token: &Token) -> TopLogprobs {
    let mut named: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
    let chosen = (token.id, token.logprob);
    let is_listed = token.top.iter().any(|&(id, _)| id == token.id);
    for (id, logprob) in token.top.iter().copied().chain((!is_listed).then_some(chosen)) {
        let name = side.token_text(id);
        let name = if named.iter().any(|(taken, _)| *taken == name) { side.token_name(id) } else { name };
        named.push((name, logprob.max(LEAST_LOGPROB)));
    }
    TopLogprobs(named)
}
