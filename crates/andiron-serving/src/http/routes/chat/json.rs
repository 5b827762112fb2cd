//! The response as JSON: whole, or in chunks.

use std::sync::Arc;

use andiron_pipelines::TextProcessor;
use serde_json::{Map, Value, json};

use crate::http::FINGERPRINT;
use crate::http::chat::{Finish, Part, Prepared, Turn, TurnUpdate};
use crate::http::generation::{Delta, Frame, Identity, Renderer, ScoredToken, Usage};
use crate::registry::Served;

/// Writes chat completions.
pub(super) struct ChatRenderer {
    served: Arc<Served>,
    identity: Identity,
    turns: Vec<Turn>,
    /// Whether each choice has said its role.
    begun: Vec<bool>,
    /// Tokens of each choice whose text is held back.
    held: Vec<Vec<ScoredToken>>,
    logprobs: bool,
    /// The last chunk of a stream has the usage, and others `"usage": null`.
    include_usage: bool,
}

impl ChatRenderer {
    pub(super) fn new(served: Arc<Served>, identity: Identity, prepared: &Prepared) -> Self {
        let options = &prepared.work.options;
        let turns: Vec<Turn> =
            (0..options.n).map(|choice| Turn::new(&prepared.reading, &identity.id, choice)).collect();
        Self {
            served,
            identity,
            begun: vec![false; turns.len()],
            held: vec![Vec::new(); turns.len()],
            turns,
            logprobs: options.logprobs.is_some(),
            include_usage: options.stream.is_some_and(|stream| stream.include_usage),
        }
    }

    fn envelope(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": format!("chatcmpl-{}", self.identity.id),
            "object": object,
            "created": self.identity.created,
            "model": self.identity.model,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        })
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let mut chunk = self.envelope("chat.completion.chunk", choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The chunk of one choice that says its role.
    fn role(&self, index: usize) -> Frame {
        let delta = json!({"role": "assistant", "content": ""});
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
        self.chunk(vec![choice]).into()
    }

    /// A chunk of one choice. The tokens held for it go with it.
    fn delta(&mut self, index: usize, delta: Value, finish: Option<Finish>) -> Frame {
        let logprobs = self.logprobs_of(index);
        let finish = finish.map(reason);
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        self.chunk(vec![choice]).into()
    }

    fn logprobs_of(&mut self, index: usize) -> Option<Value> {
        let tokens = std::mem::take(&mut self.held[index]);
        let shown = self.logprobs && !tokens.is_empty();
        shown.then(|| logprobs(&self.served.text, &tokens))
    }

    fn choice(&mut self, index: usize, delta: Delta) -> Value {
        let TurnUpdate { parts, tokens, finish } = self.turns[index].take(delta);
        let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Content(text) => content.push_str(&text),
                Part::Reasoning(text) => reasoning.push_str(&text),
                Part::Call { id, name, arguments, .. } => calls.push(call(&id, &name, &arguments)),
            }
        }
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        let is_silent = content.is_empty() && !calls.is_empty();
        message.insert("content".to_owned(), if is_silent { Value::Null } else { content.into() });
        message.insert("refusal".to_owned(), Value::Null);
        if !reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), reasoning.into());
        }
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), calls.into());
        }
        self.held[index] = tokens;
        let logprobs = match self.logprobs {
            true => self.logprobs_of(index).unwrap_or_else(|| logprobs(&self.served.text, &[])),
            false => Value::Null,
        };
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish.map(reason)})
    }
}

impl Renderer for ChatRenderer {
    fn whole(&mut self, choices: Vec<Delta>, usage: Usage) -> Value {
        let choices: Vec<Value> =
            choices.into_iter().enumerate().map(|(index, delta)| self.choice(index, delta)).collect();
        let mut whole = self.envelope("chat.completion", choices);
        whole["usage"] = usage.to_json();
        whole
    }

    fn begin(&mut self, _usage: Usage) -> Vec<Frame> {
        Vec::new()
    }

    fn update(&mut self, index: usize, delta: Delta, _usage: Usage) -> Vec<Frame> {
        let TurnUpdate { parts, mut tokens, finish } = self.turns[index].take(delta);
        if self.logprobs {
            self.held[index].append(&mut tokens);
        }
        let mut frames = Vec::new();
        // With the first token, so that its time is the time to the first token.
        if !std::mem::replace(&mut self.begun[index], true) {
            frames.push(self.role(index));
        }
        for part in parts {
            match part {
                Part::Content(text) => frames.push(self.delta(index, json!({"content": text}), None)),
                Part::Reasoning(text) => {
                    frames.push(self.delta(index, json!({"reasoning_content": text}), None));
                }
                Part::Call { index: at, id, name, arguments } => {
                    let mut head = call(&id, &name, "");
                    head["index"] = at.into();
                    let rest = json!({"index": at, "function": {"arguments": arguments}});
                    frames.push(self.delta(index, json!({"tool_calls": [head]}), None));
                    frames.push(self.delta(index, json!({"tool_calls": [rest]}), None));
                }
            }
        }
        if let Some(finish) = finish {
            frames.push(self.delta(index, json!({}), Some(finish)));
        }
        frames
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        if !self.include_usage {
            return Vec::new();
        }
        let mut chunk = self.chunk(Vec::new());
        chunk["usage"] = usage.to_json();
        vec![chunk.into()]
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopString(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    // Ids of nine characters stay as they are: templates that ask for those get them back.
    let id = if id.len() == 9 { id.to_owned() } else { format!("call_{id}") };
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// Log-probabilities of tokens, as chat writes them.
pub(in crate::http) fn logprobs(side: &TextProcessor, tokens: &[ScoredToken]) -> Value {
    let content: Vec<Value> = tokens.iter().map(|token| scored(side, token)).collect();
    json!({"content": content, "refusal": null})
}

fn scored(side: &TextProcessor, token: &ScoredToken) -> Value {
    let one = |id: u32, logprob: Option<f32>| json!({"token": side.token_text(id), "logprob": logprob, "bytes": side.token_bytes(id)});
    let mut shown = one(token.id, token.logprob);
    shown["top_logprobs"] = token.top.iter().map(|&(id, logprob)| one(id, Some(logprob))).collect();
    shown
}
