//! The response as JSON: whole, or in chunks.

use andiron_models::generate::FinishReason;
use serde_json::{Value, json};

use super::choice::Delta;

/// Identifies the server program.
const FINGERPRINT: &str = concat!("andiron-", env!("CARGO_PKG_VERSION"));

/// Fields common to all chunks of a response.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) id: String,
    /// Unix time in seconds.
    pub(super) created: u64,
    pub(super) model: String,
}

/// Token usage of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
}

impl Envelope {
    /// The whole response in one object.
    pub(super) fn whole(&self, choices: Vec<Delta>, usage: Usage) -> Value {
        let choices = choices.into_iter().enumerate().map(|(index, delta)| choice(index, delta));
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices.collect::<Vec<_>>(),
            "usage": usage.to_json(),
            "system_fingerprint": FINGERPRINT,
        })
    }

    /// A chunk of a stream. `with_usage`: the last chunk will have the usage, so this one has `"usage": null`.
    pub(super) fn chunk(&self, index: usize, delta: Delta, with_usage: bool) -> Value {
        let mut chunk = self.with_choices(vec![choice(index, delta)]);
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The last chunk of a stream with usage.
    pub(super) fn usage_chunk(&self, usage: Usage) -> Value {
        let mut chunk = self.with_choices(Vec::new());
        chunk["usage"] = usage.to_json();
        chunk
    }

    fn with_choices(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        })
    }
}

impl Usage {
    fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        })
    }
}

fn choice(index: usize, delta: Delta) -> Value {
    let finish = delta.finish.map(FinishReason::as_str);
    json!({"index": index, "text": delta.text, "logprobs": delta.logprobs, "finish_reason": finish})
}
