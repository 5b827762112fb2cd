//! A message as JSON, and its events.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::ApiError;
use crate::http::chat::{Finish, Part, Prepared, Turn};
use crate::http::generation::{Delta, Frame, Identity, Renderer, Usage};

/// Writes messages.
pub(super) struct MessagesRenderer {
    identity: Identity,
    turn: Turn,
    /// Stop strings of the request, by their index.
    stops: Vec<String>,
    /// Finished blocks.
    content: Vec<Value>,
    open: Option<Open>,
    finish: Option<Finish>,
}

/// A block that is being written.
struct Open {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
}

impl MessagesRenderer {
    pub(super) fn new(identity: Identity, prepared: &Prepared) -> Self {
        Self {
            turn: Turn::new(&prepared.reading, &identity.id, 0),
            identity,
            stops: prepared.work.options.stops.clone(),
            content: Vec::new(),
            open: None,
            finish: None,
        }
    }

    fn message(&self, usage: Usage) -> Value {
        let (reason, stop) = self.stopped();
        json!({
            "id": format!("msg_{}", self.identity.id),
            "type": "message",
            "role": "assistant",
            "model": self.identity.model,
            "content": self.content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": used(usage),
        })
    }

    fn stopped(&self) -> (Option<&'static str>, Option<&str>) {
        match self.finish {
            None => (None, None),
            Some(Finish::Stop) => (Some("end_turn"), None),
            Some(Finish::Length) => (Some("max_tokens"), None),
            Some(Finish::ToolCalls) => (Some("tool_use"), None),
            Some(Finish::StopString(index)) => {
                (Some("stop_sequence"), self.stops.get(index).map(String::as_str))
            }
        }
    }

    fn write(&mut self, kind: Kind, text: &str, frames: &mut Vec<Frame>) {
        if self.open.as_ref().is_some_and(|open| open.kind != kind) {
            self.close(frames);
        }
        let index = self.content.len();
        if self.open.is_none() {
            let block = block(kind, "");
            frames.push(event("content_block_start", json!({"index": index, "content_block": block})));
            self.open = Some(Open { kind, text: String::new() });
        }
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let delta = match kind {
            Kind::Text => json!({"type": "text_delta", "text": text}),
            Kind::Thinking => json!({"type": "thinking_delta", "thinking": text}),
        };
        frames.push(event("content_block_delta", json!({"index": index, "delta": delta})));
    }

    fn close(&mut self, frames: &mut Vec<Frame>) {
        let Some(Open { kind, text }) = self.open.take() else { return };
        frames.push(event("content_block_stop", json!({"index": self.content.len()})));
        self.content.push(block(kind, &text));
    }

    fn call(&mut self, id: &str, name: &str, arguments: &str, frames: &mut Vec<Frame>) {
        self.close(frames);
        let index = self.content.len();
        let id = if id.len() == 9 { id.to_owned() } else { format!("toolu_{id}") };
        let block = |input: Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
        let start = json!({"index": index, "content_block": block(json!({}))});
        frames.push(event("content_block_start", start));
        let delta = json!({"type": "input_json_delta", "partial_json": arguments});
        frames.push(event("content_block_delta", json!({"index": index, "delta": delta})));
        frames.push(event("content_block_stop", json!({"index": index})));
        self.content.push(block(serde_json::from_str(arguments).unwrap_or_default()));
    }
}

impl Renderer for MessagesRenderer {
    fn whole(&mut self, choices: Vec<Delta>, usage: Usage) -> Value {
        for delta in choices.into_iter().take(1) {
            self.update(0, delta, usage);
        }
        self.close(&mut Vec::new());
        self.message(usage)
    }

    fn begin(&mut self, usage: Usage) -> Vec<Frame> {
        vec![event("message_start", json!({"message": self.message(usage)}))]
    }

    fn update(&mut self, _index: usize, delta: Delta, _usage: Usage) -> Vec<Frame> {
        let update = self.turn.take(delta);
        let mut frames = Vec::new();
        for part in update.parts {
            match part {
                Part::Reasoning(text) => self.write(Kind::Thinking, &text, &mut frames),
                Part::Content(text) => self.write(Kind::Text, &text, &mut frames),
                Part::Call { id, name, arguments, .. } => self.call(&id, &name, &arguments, &mut frames),
            }
        }
        self.finish = self.finish.or(update.finish);
        frames
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.close(&mut frames);
        let (reason, stop) = self.stopped();
        let delta = json!({"stop_reason": reason, "stop_sequence": stop});
        frames.push(event("message_delta", json!({"delta": delta, "usage": used(usage)})));
        frames.push(event("message_stop", json!({})));
        frames
    }

    fn fail(&mut self, error: &ApiError) -> Frame {
        Frame { name: Some("error"), data: body(error) }
    }

    fn says_done(&self) -> bool {
        false
    }
}

fn event(name: &'static str, mut data: Value) -> Frame {
    data["type"] = name.into();
    Frame { name: Some(name), data }
}

fn block(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Text => json!({"type": "text", "text": text}),
        // Nobody signs a thought here.
        Kind::Thinking => json!({"type": "thinking", "thinking": text, "signature": ""}),
    }
}

fn used(usage: Usage) -> Value {
    json!({
        // Those that were read anew.
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "output_tokens": usage.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
    })
}

/// An error in Anthropic's form.
fn body(error: &ApiError) -> Value {
    let kind = match error.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    let said =
        json!({"type": kind, "message": error.message(), "param": error.about(), "code": error.code_name()});
    json!({"type": "error", "error": said})
}

/// The response to a request that is refused.
pub(super) fn refusal(error: &ApiError) -> Response {
    let (mut parts, _) = error.clone().into_response().into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    (parts.status, parts.headers, Json(body(error))).into_response()
}
