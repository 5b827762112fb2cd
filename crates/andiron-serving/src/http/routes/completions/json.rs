//! The response as JSON: whole, or in chunks.

use std::sync::Arc;

use andiron_models::generate::FinishReason;
use serde_json::{Value, json};

use super::logprobs::Logprobs;
use crate::http::FINGERPRINT;
use crate::http::generation::{Delta, Frame, Identity, Renderer, Usage};
use crate::registry::Served;

/// Writes text completions.
pub(super) struct CompletionRenderer {
    pub(super) served: Arc<Served>,
    pub(super) identity: Identity,
    /// The last chunk of a stream has the usage, and others `"usage": null`.
    pub(super) include_usage: bool,
}

impl CompletionRenderer {
    fn choice(&self, index: usize, delta: Delta) -> Value {
        let finish = delta.finish.map(FinishReason::as_str);
        let logprobs = (!delta.tokens.is_empty()).then(|| Logprobs::of(&self.served.text, &delta.tokens));
        json!({"index": index, "text": delta.text, "logprobs": logprobs, "finish_reason": finish})
    }

    fn envelope(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": format!("cmpl-{}", self.identity.id),
            "object": "text_completion",
            "created": self.identity.created,
            "model": self.identity.model,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        })
    }
}

impl Renderer for CompletionRenderer {
    fn whole(&mut self, choices: Vec<Delta>, usage: Usage) -> Value {
        let choices = choices.into_iter().enumerate().map(|(index, delta)| self.choice(index, delta));
        let mut whole = self.envelope(choices.collect());
        whole["usage"] = usage.to_json();
        whole
    }

    fn begin(&mut self, _usage: Usage) -> Vec<Frame> {
        Vec::new()
    }

    fn update(&mut self, index: usize, delta: Delta, _usage: Usage) -> Vec<Frame> {
        let mut chunk = self.envelope(vec![self.choice(index, delta)]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        vec![chunk.into()]
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.envelope(Vec::new());
        chunk["usage"] = usage.to_json();
        vec![chunk.into()]
    }
}
