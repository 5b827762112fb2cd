//! A response as JSON, and its events.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::http::ApiError;
use crate::http::chat::{Finish, Part, Prepared, Turn};
use crate::http::generation::{Delta, Frame, Identity, Renderer, ScoredToken, Usage};
use crate::http::routes::chat::logprobs;
use crate::registry::Served;

/// Fields of a request that its response repeats.
const REPEATED: [&str; 14] = [
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "user",
];

/// Writes responses.
pub(super) struct ResponsesRenderer {
    served: Arc<Served>,
    identity: Identity,
    turn: Turn,
    /// The response without its output.
    shell: Map<String, Value>,
    /// Finished items.
    output: Vec<Value>,
    open: Option<Open>,
    /// Tokens whose text is held back.
    held: Vec<ScoredToken>,
    logprobs: bool,
    /// All of the reasoning, for the count of its tokens.
    reasoning: String,
    finish: Option<Finish>,
    sequence_number: u64,
}

/// An item that is being written.
struct Open {
    kind: Kind,
    id: String,
    text: String,
    tokens: Vec<ScoredToken>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl ResponsesRenderer {
    pub(super) fn new(
        served: Arc<Served>,
        identity: Identity,
        prepared: &Prepared,
        mut said: Map<String, Value>,
    ) -> Self {
        let sampling = &prepared.work.options.sampling;
        let mut shell = Map::new();
        let mut set = |name: &str, value: Value| shell.insert(name.to_owned(), value);
        set("id", format!("resp_{}", identity.id).into());
        set("object", "response".into());
        set("created_at", identity.created.into());
        set("model", identity.model.clone().into());
        set("background", false.into());
        set("error", Value::Null);
        set("incomplete_details", Value::Null);
        set("previous_response_id", Value::Null);
        set("store", false.into());
        set("truncation", "disabled".into());
        set("temperature", json!(sampling.temperature));
        set("top_p", json!(sampling.top_p));
        for name in REPEATED {
            let usual = match name {
                "metadata" => json!({}),
                "parallel_tool_calls" => true.into(),
                "reasoning" => json!({"effort": null, "summary": null}),
                "text" => json!({"format": {"type": "text"}}),
                "tool_choice" => "auto".into(),
                "tools" => json!([]),
                "top_logprobs" => 0.into(),
                _ => Value::Null,
            };
            set(name, said.remove(name).unwrap_or(usual));
        }
        Self {
            turn: Turn::new(&prepared.reading, &identity.id, 0),
            served,
            identity,
            shell,
            output: Vec::new(),
            open: None,
            held: Vec::new(),
            logprobs: prepared.work.options.logprobs.is_some(),
            reasoning: String::new(),
            finish: None,
            sequence_number: 0,
        }
    }

    fn event(&mut self, name: &'static str, mut data: Value) -> Frame {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence_number.into();
        self.sequence_number += 1;
        Frame { name: Some(name), data }
    }

    fn response(&self, status: &str, usage: Option<Usage>) -> Value {
        let mut response = self.shell.clone();
        response.insert("status".to_owned(), status.into());
        response.insert("output".to_owned(), self.output.clone().into());
        let usage = usage.map(|usage| {
            json!({
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens()},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            })
        });
        response.insert("usage".to_owned(), usage.unwrap_or_default());
        response.into()
    }

    fn reasoning_tokens(&self) -> usize {
        let ids = self.served.text.tokenizer().and_then(|tokenizer| tokenizer.encode(&self.reasoning).ok());
        ids.map_or(0, |ids| ids.len())
    }

    fn item(&self, open: &Open, status: &str) -> Value {
        match open.kind {
            Kind::Reasoning => {
                let content = json!([{"type": "reasoning_text", "text": open.text}]);
                let content = if open.text.is_empty() { json!([]) } else { content };
                json!({"type": "reasoning", "id": open.id, "summary": [], "content": content, "status": status})
            }
            Kind::Message => {
                let content = if open.text.is_empty() { json!([]) } else { json!([self.text_part(open)]) };
                json!({"type": "message", "id": open.id, "role": "assistant", "content": content, "status": status})
            }
        }
    }

    fn text_part(&self, open: &Open) -> Value {
        json!({"type": "output_text", "text": open.text, "annotations": [], "logprobs": self.scored(&open.tokens)})
    }

    fn scored(&self, tokens: &[ScoredToken]) -> Value {
        match self.logprobs {
            true => logprobs(&self.served.text, tokens)["content"].take(),
            false => json!([]),
        }
    }

    /// Adds to the open item, or opens one.
    fn write(&mut self, kind: Kind, text: &str, frames: &mut Vec<Frame>) {
        if self.open.as_ref().is_some_and(|open| open.kind != kind) {
            self.close("completed", frames);
        }
        let index = self.output.len();
        if self.open.is_none() {
            let prefix = if kind == Kind::Message { "msg" } else { "rs" };
            let id = format!("{prefix}_{}{index:02x}", self.identity.id);
            let open = Open { kind, id: id.clone(), text: String::new(), tokens: Vec::new() };
            let item = self.item(&open, "in_progress");
            frames
                .push(self.event("response.output_item.added", json!({"output_index": index, "item": item})));
            let part = match kind {
                Kind::Reasoning => json!({"type": "reasoning_text", "text": ""}),
                Kind::Message => self.text_part(&open),
            };
            let added = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
            frames.push(self.event("response.content_part.added", added));
            self.open = Some(open);
        }
        let tokens = std::mem::take(&mut self.held);
        let scored = self.scored(&tokens);
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        open.tokens.extend(tokens);
        let mut delta = json!({"item_id": open.id, "output_index": index, "content_index": 0, "delta": text});
        let name = match kind {
            Kind::Reasoning => "response.reasoning_text.delta",
            Kind::Message => {
                delta["logprobs"] = scored;
                "response.output_text.delta"
            }
        };
        frames.push(self.event(name, delta));
    }

    /// Ends the open item.
    fn close(&mut self, status: &str, frames: &mut Vec<Frame>) {
        let Some(open) = self.open.take() else { return };
        let index = self.output.len();
        let at = |mut data: Value| {
            data["item_id"] = open.id.clone().into();
            data["output_index"] = index.into();
            data["content_index"] = 0.into();
            data
        };
        let part = match open.kind {
            Kind::Reasoning => {
                let done = at(json!({"text": open.text}));
                frames.push(self.event("response.reasoning_text.done", done));
                json!({"type": "reasoning_text", "text": open.text})
            }
            Kind::Message => {
                let done = at(json!({"text": open.text, "logprobs": self.scored(&open.tokens)}));
                frames.push(self.event("response.output_text.done", done));
                self.text_part(&open)
            }
        };
        frames.push(self.event("response.content_part.done", at(json!({"part": part}))));
        let item = self.item(&open, status);
        frames.push(self.event("response.output_item.done", json!({"output_index": index, "item": item})));
        self.output.push(item);
    }

    fn call(&mut self, id: &str, name: &str, arguments: &str, frames: &mut Vec<Frame>) {
        self.close("completed", frames);
        let index = self.output.len();
        let item_id = format!("fc_{id}");
        let call_id = if id.len() == 9 { id.to_owned() } else { format!("call_{id}") };
        let item = |arguments: &str, status: &str| {
            json!({"type": "function_call", "id": item_id, "call_id": call_id, "name": name, "arguments": arguments,
                "status": status})
        };
        let added = json!({"output_index": index, "item": item("", "in_progress")});
        frames.push(self.event("response.output_item.added", added));
        let delta = json!({"item_id": item_id, "output_index": index, "delta": arguments});
        frames.push(self.event("response.function_call_arguments.delta", delta));
        let done = json!({"item_id": item_id, "output_index": index, "name": name, "arguments": arguments});
        frames.push(self.event("response.function_call_arguments.done", done));
        let done = item(arguments, "completed");
        frames.push(self.event("response.output_item.done", json!({"output_index": index, "item": done})));
        self.output.push(done);
    }

    /// The last event, which has the whole response.
    fn finished(&mut self, usage: Usage) -> (Vec<Frame>, Value) {
        let mut frames = Vec::new();
        // An answer without a word is a message without a word.
        if self.output.is_empty() && self.open.is_none() {
            self.write(Kind::Message, "", &mut frames);
        }
        let is_cut = self.finish == Some(Finish::Length);
        self.close(if is_cut { "incomplete" } else { "completed" }, &mut frames);
        let (name, status) = match is_cut {
            true => ("response.incomplete", "incomplete"),
            false => ("response.completed", "completed"),
        };
        if is_cut {
            self.shell.insert("incomplete_details".to_owned(), json!({"reason": "max_output_tokens"}));
        }
        let response = self.response(status, Some(usage));
        frames.push(self.event(name, json!({"response": response})));
        (frames, response)
    }
}

impl Renderer for ResponsesRenderer {
    fn whole(&mut self, choices: Vec<Delta>, usage: Usage) -> Value {
        for delta in choices.into_iter().take(1) {
            self.update(0, delta, usage);
        }
        self.finished(usage).1
    }

    fn begin(&mut self, _usage: Usage) -> Vec<Frame> {
        let response = self.response("in_progress", None);
        let created = self.event("response.created", json!({"response": response}));
        vec![created, self.event("response.in_progress", json!({"response": response}))]
    }

    fn update(&mut self, _index: usize, delta: Delta, _usage: Usage) -> Vec<Frame> {
        let mut update = self.turn.take(delta);
        self.held.append(&mut update.tokens);
        let mut frames = Vec::new();
        for part in update.parts {
            match part {
                Part::Reasoning(text) => {
                    self.reasoning.push_str(&text);
                    self.write(Kind::Reasoning, &text, &mut frames);
                }
                Part::Content(text) => self.write(Kind::Message, &text, &mut frames),
                Part::Call { id, name, arguments, .. } => self.call(&id, &name, &arguments, &mut frames),
            }
        }
        self.finish = self.finish.or(update.finish);
        frames
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        self.finished(usage).0
    }

    fn fail(&mut self, error: &ApiError) -> Frame {
        let code = error.code_name().unwrap_or("server_error");
        self.shell.insert("error".to_owned(), json!({"code": code, "message": error.message()}));
        let response = self.response("failed", None);
        self.event("response.failed", json!({"response": response}))
    }

    fn says_done(&self) -> bool {
        false
    }
}
