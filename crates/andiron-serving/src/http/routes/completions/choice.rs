//! One choice: tokens in, text, log-probabilities and the reason of its end out.

use andiron_data::tokenizer::StopMatcher;
use andiron_models::generate::{FinishReason, Token};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::http::ApiError;
use crate::http::text::{Detokenizer, TextSide};

/// What JSON has instead of minus infinity, as in vLLM.
const LEAST_LOGPROB: f32 = -9999.0;

/// What a client is told about the tokens of a choice; four lists of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Logprobs {
    tokens: Vec<String>,
    /// `None` for the first token of a prompt, which nothing predicts.
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

/// What became known of a choice.
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

/// How the choices of a request are written.
#[derive(Clone, Debug)]
pub(super) struct ChoiceOptions {
    /// Report log-probabilities.
    pub(super) logprobs: bool,
    /// Strings that end the text.
    pub(super) stops: Vec<String>,
    /// Ids that end the text and are not part of it.
    pub(super) stop_ids: Vec<u32>,
    /// Stop strings within the first so many tokens are text.
    pub(super) min_tokens: usize,
}

pub(super) struct Choice {
    options: ChoiceOptions,
    decoder: Detokenizer,
    stops: Option<StopMatcher>,
    /// Characters of text so far, held-back ones included.
    written: usize,
    tokens: usize,
    /// The prompt's ids and text, until they are echoed.
    echo: Option<(Vec<u32>, String)>,
}

impl Choice {
    /// A choice that continues `prompt`.
    pub(super) fn new(text: &TextSide, prompt: &[u32], options: ChoiceOptions) -> Result<Self, ApiError> {
        let decoder = text.decoder_after(prompt)?;
        let stops = StopMatcher::new(&options.stops).map_err(|error| ApiError::invalid("stop", error))?;
        Ok(Self { options, decoder, stops: Some(stops), written: 0, tokens: 0, echo: None })
    }

    /// Makes the choice begin with its prompt. `text` is what the client sent, if it sent text.
    pub(super) fn echo(
        &mut self,
        side: &TextSide,
        prompt: &[u32],
        text: Option<&str>,
    ) -> Result<(), ApiError> {
        let text = match text {
            Some(text) => text.to_owned(),
            None => {
                let mut decoder = side.decoder();
                let pieces = prompt.iter().map(|&id| decoder.push(id)).collect::<Result<String, _>>()?;
                pieces + &decoder.finish()?
            }
        };
        self.echo = Some((prompt.to_vec(), text));
        Ok(())
    }

    /// Number of tokens generated.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The prompt as the first part of the choice; with the likelihood of its ids from the second one on, if reported.
    pub(super) fn prompt(&mut self, side: &TextSide, scored: &[Token]) -> Result<Delta, ApiError> {
        let Some((ids, text)) = self.echo.take() else {
            return Ok(Delta::default());
        };
        self.written = text.chars().count();
        let logprobs = match self.options.logprobs {
            false => None,
            true => {
                let mut logprobs = Logprobs::default();
                let mut decoder = side.decoder();
                let mut offset = 0;
                for (index, &id) in ids.iter().enumerate() {
                    let known = index.checked_sub(1).and_then(|index| scored.get(index));
                    logprobs.tokens.push(side.token(id));
                    logprobs.token_logprobs.push(known.map(|token| token.logprob.max(LEAST_LOGPROB)));
                    logprobs.top_logprobs.push(known.map(|token| top(side, token)));
                    logprobs.text_offset.push(offset);
                    offset += decoder.push(id)?.chars().count();
                }
                Some(logprobs)
            }
        };
        Ok(Delta { text, logprobs, finish: None })
    }

    /// The next token.
    pub(super) fn token(&mut self, side: &TextSide, token: &Token) -> Result<Delta, ApiError> {
        self.tokens += 1;
        let offset = self.written;
        let piece = match self.options.stop_ids.contains(&token.id) {
            true => String::new(),
            false => self.decoder.push(token.id)?,
        };
        self.written += piece.chars().count();
        let logprobs = self.options.logprobs.then(|| Logprobs {
            tokens: vec![side.token(token.id)],
            token_logprobs: vec![Some(token.logprob.max(LEAST_LOGPROB))],
            top_logprobs: vec![Some(top(side, token))],
            text_offset: vec![offset],
        });
        let mut delta = Delta { text: piece, logprobs, finish: None };
        if self.tokens > self.options.min_tokens {
            self.watch(&mut delta);
        }
        Ok(delta)
    }

    /// The end of the generation.
    pub(super) fn finish(&mut self, reason: FinishReason) -> Result<Delta, ApiError> {
        let mut delta = Delta { text: self.decoder.finish()?, logprobs: None, finish: None };
        self.watch(&mut delta);
        if let Some(stops) = self.stops.take()
            && delta.finish.is_none()
        {
            delta.text.push_str(&stops.finish());
        }
        delta.finish = delta.finish.or(Some(reason));
        Ok(delta)
    }

    /// Lets the text pass the stop strings.
    fn watch(&mut self, delta: &mut Delta) {
        if let Some(stops) = &mut self.stops {
            let passed = stops.push(&delta.text);
            delta.text = passed.text;
            delta.finish = passed.stopped.map(|_| FinishReason::Stop);
        }
    }
}

/// The most likely tokens, and the one that came, each under a name of its own.
fn top(side: &TextSide, token: &Token) -> TopLogprobs {
    let mut named: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
    let chosen = (token.id, token.logprob);
    let is_listed = token.top.iter().any(|&(id, _)| id == token.id);
    for (id, logprob) in token.top.iter().copied().chain((!is_listed).then_some(chosen)) {
        let name = side.token(id);
        let name = if named.iter().any(|(taken, _)| *taken == name) { side.other_name(id) } else { name };
        named.push((name, logprob.max(LEAST_LOGPROB)));
    }
    TopLogprobs(named)
}
