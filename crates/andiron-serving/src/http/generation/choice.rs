//! One choice: takes tokens; gives text, scored tokens and the finish reason.

use andiron_models::generate::{FinishReason, Token};
use andiron_pipelines::{TextProcessor, TextStream};

use crate::http::ApiError;

/// Stands for minus infinity in JSON, as in vLLM.
const LEAST_LOGPROB: f32 = -9999.0;

/// A token and its log-probability, if the request wants them.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct ScoredToken {
    pub(in crate::http) id: u32,
    /// `None` for the first token of a prompt.
    pub(in crate::http) logprob: Option<f32>,
    /// The likeliest tokens, best first, as many as were asked for.
    pub(in crate::http) top: Vec<(u32, f32)>,
    /// Where it begins, in characters from the beginning of the choice's text.
    pub(in crate::http) offset: usize,
    /// Whether it ended the text and is no part of it.
    pub(in crate::http) ends: bool,
}

/// An update of a choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::http) struct Delta {
    pub(in crate::http) text: String,
    /// Empty unless log-probabilities were asked for.
    pub(in crate::http) tokens: Vec<ScoredToken>,
    pub(in crate::http) finish: Option<FinishReason>,
    /// The stop string that ended the text, by its index.
    pub(in crate::http) stop: Option<usize>,
}

impl Delta {
    /// Whether a stream may leave it out.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty() && self.finish.is_none()
    }

    /// Adds the next update.
    pub(super) fn append(&mut self, mut next: Self) {
        self.text.push_str(&next.text);
        self.tokens.append(&mut next.tokens);
        self.finish = self.finish.or(next.finish);
        self.stop = self.stop.or(next.stop);
    }
}

/// A choice in progress.
pub(super) struct Choice {
    /// Whether log-probabilities are reported.
    logprobs: bool,
    stream: TextStream,
    /// The ids that end the text.
    end_ids: Vec<u32>,
    /// Characters of text so far, held-back ones included.
    written: usize,
    /// The prompt's ids and text, until they are echoed.
    echo: Option<(Vec<u32>, String)>,
}

impl Choice {
    /// A choice whose text is made by `stream` and ended by `end_ids`.
    pub(super) fn new(stream: TextStream, end_ids: &[u32], logprobs: bool) -> Self {
        Self { logprobs, stream, end_ids: end_ids.to_vec(), written: 0, echo: None }
    }

    /// Echoes the prompt, and its text, at the start of the choice.
    pub(super) fn echo(&mut self, prompt: &[u32], text: String) {
        self.echo = Some((prompt.to_vec(), text));
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
        let mut tokens = Vec::new();
        if self.logprobs {
            let mut decoder = TextStream::new(side, &[], &[], &[])?;
            let mut offset = 0;
            for (index, &id) in ids.iter().enumerate() {
                let known = index.checked_sub(1).and_then(|index| scored.get(index));
                tokens.push(ScoredToken {
                    id,
                    logprob: known.map(|token| token.logprob.max(LEAST_LOGPROB)),
                    top: known.map(top).unwrap_or_default(),
                    offset,
                    ends: false,
                });
                offset += decoder.push(id)?.decoded_chars;
            }
        }
        Ok(Delta { text, tokens, ..Delta::default() })
    }

    /// The next token.
    pub(super) fn token(&mut self, token: &Token) -> Result<Delta, ApiError> {
        let offset = self.written;
        let piece = self.stream.push(token.id)?;
        self.written += piece.decoded_chars;
        let scored = || ScoredToken {
            id: token.id,
            logprob: Some(token.logprob.max(LEAST_LOGPROB)),
            top: top(token),
            offset,
            ends: self.end_ids.contains(&token.id),
        };
        let tokens = self.logprobs.then(scored).into_iter().collect();
        let finish = piece.stopped.then_some(FinishReason::Stop);
        Ok(Delta { text: piece.text, tokens, finish, stop: self.stream.stopped_by() })
    }

    /// The end of the generation.
    pub(super) fn finish(&mut self, reason: FinishReason) -> Result<Delta, ApiError> {
        let piece = self.stream.finish()?;
        let reason = if piece.stopped { FinishReason::Stop } else { reason };
        let stop = self.stream.stopped_by();
        Ok(Delta { text: piece.text, tokens: Vec::new(), finish: Some(reason), stop })
    }
}

fn top(token: &Token) -> Vec<(u32, f32)> {
    token.top.iter().map(|&(id, logprob)| (id, logprob.max(LEAST_LOGPROB))).collect()
}
