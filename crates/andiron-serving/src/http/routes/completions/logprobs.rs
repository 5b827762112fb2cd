//! Log-probabilities in the form of text completions.

use andiron_pipelines::TextProcessor;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::http::generation::ScoredToken;

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
    pub(super) fn of(side: &TextProcessor, tokens: &[ScoredToken]) -> Self {
        let mut logprobs = Self::default();
        for token in tokens {
            logprobs.tokens.push(side.token_text(token.id));
            logprobs.token_logprobs.push(token.logprob);
            logprobs.top_logprobs.push(token.logprob.map(|logprob| top(side, token, logprob)));
            logprobs.text_offset.push(token.offset);
        }
        logprobs
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

/// The likeliest tokens and the chosen one, each with a unique name.
fn top(side: &TextProcessor, token: &ScoredToken, logprob: f32) -> TopLogprobs {
    let mut named: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
    let chosen = (token.id, logprob);
    let is_listed = token.top.iter().any(|&(id, _)| id == token.id);
    for (id, logprob) in token.top.iter().copied().chain((!is_listed).then_some(chosen)) {
        let name = side.token_text(id);
        let name = if named.iter().any(|(taken, _)| *taken == name) { side.token_name(id) } else { name };
        named.push((name, logprob));
    }
    TopLogprobs(named)
}
