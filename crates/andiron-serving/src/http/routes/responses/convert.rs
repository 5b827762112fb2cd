//! A request for a response as one to chat.

use serde_json::{Value, json};

use crate::http::ApiError;
use crate::http::chat::{Foreign, Messages, function};
use crate::http::fields::Fields;

/// Our names of fields, and those of this route.
const NAMES: &[(&str, &str)] = &[
    ("max_completion_tokens", "max_output_tokens"),
    ("messages", "input"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("logprobs", "include"),
];

/// The request to chat.
pub(super) fn convert(fields: &Fields<'_>) -> Result<Foreign, ApiError> {
    let mut request = Foreign::new(fields, NAMES)?;
    request.refuse(
        "previous_response_id",
        &[],
        ": responses are not stored; send the whole conversation in `input`",
    )?;
    request.refuse("conversation", &[], ": conversations are not stored; send `input`")?;
    request.refuse("prompt", &[], ": prompts are not stored; send `input`")?;
    request.refuse("background", &[json!(false)], "")?;
    request.refuse("truncation", &[json!("disabled")], ": nothing is left out of a conversation")?;
    for name in ["context_management", "moderation", "image", "n"] {
        request.refuse(name, &[json!([]), json!(1)], "")?;
    }
    // Of chat, where they mean the same under other names.
    for (name, hint) in [
        ("messages", "; send `input`"),
        ("max_tokens", "; send `max_output_tokens`"),
        ("max_completion_tokens", "; send `max_output_tokens`"),
        ("response_format", "; send `text.format`"),
        ("logprobs", "; send `top_logprobs`"),
    ] {
        request.refuse(name, &[], hint)?;
    }
    request.rename("max_output_tokens", "max_completion_tokens");
    let include = request.take("include");
    let includes_logprobs = include
        .as_ref()
        .and_then(Value::as_array)
        .is_some_and(|include| include.iter().any(|name| name == "message.output_text.logprobs"));
    if includes_logprobs || request.get("top_logprobs").is_some_and(|top| *top != json!(0)) {
        request.set("logprobs", true);
    }
    if let Some(Value::Object(mut reasoning)) = request.take("reasoning")
        && let Some(effort) =
            reasoning.remove("effort").filter(|effort| !effort.is_null() && effort != "medium")
    {
        request.set("reasoning_effort", effort);
    }
    if let Some(Value::Object(mut text)) = request.take("text") {
        request.set("verbosity", text.remove("verbosity").unwrap_or_default());
        if let Some(format) = text.remove("format").filter(|format| !format.is_null()) {
            request.set("response_format", response_format(format));
        }
    }
    if let Some(Value::Array(tools)) = request.take("tools") {
        request.set("tools", tools.into_iter().map(tool).collect::<Vec<_>>());
    }
    if let Some(choice) = request.take("tool_choice") {
        request.set(
            "tool_choice",
            match (choice.get("type"), choice.get("name")) {
                (Some(kind), Some(name)) if kind == "function" => {
                    json!({"type": "function", "function": {"name": name}})
                }
                _ => choice,
            },
        );
    }
    let stream_options = request.take("stream_options");
    drop(stream_options);
    let messages = conversation(&mut request)?;
    request.set_messages(messages);
    Ok(request)
}

/// The messages of `instructions` and `input`.
pub(in crate::http) fn conversation(request: &mut Foreign) -> Result<Messages, ApiError> {
    let mut messages = Messages::default();
    match request.take("instructions") {
        None => {}
        Some(text @ Value::String(_)) => messages.say("system", text),
        Some(_) => return Err(ApiError::invalid("instructions", "expected a string")),
    }
    match request.take("input") {
        None => return Err(ApiError::invalid("input", "missing, expected a string or an array of items")),
        Some(text @ Value::String(_)) => messages.say("user", text),
        Some(Value::Array(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                messages.of_item(at);
                add(&mut messages, at, item)?;
            }
        }
        Some(_) => return Err(ApiError::invalid("input", "expected a string or an array of items")),
    }
    Ok(messages)
}

/// One item of the input.
fn add(messages: &mut Messages, at: usize, mut item: Value) -> Result<(), ApiError> {
    let invalid = |problem: &str| ApiError::invalid(&format!("input.{at}"), problem);
    let Some(fields) = item.as_object_mut() else { return Err(invalid("expected an object")) };
    let mut take = |name: &str| fields.shift_remove(name).unwrap_or_default();
    let kind = take("type");
    match kind.as_str() {
        None | Some("message") => {
            let Value::String(role) = take("role") else { return Err(invalid("expected a `role`")) };
            messages.say(&role, take("content"));
        }
        Some("function_call") => messages.call(take("call_id"), take("name"), take("arguments")),
        Some("function_call_output") => messages.result(take("call_id"), take("output")),
        Some("reasoning") => {
            let texts = |value: Value| -> String {
                let parts = value.as_array().cloned().unwrap_or_default();
                parts.iter().filter_map(|part| part["text"].as_str()).collect()
            };
            let (content, summary) = (texts(take("content")), texts(take("summary")));
            let text = if content.is_empty() { summary } else { content };
            if !text.is_empty() {
                messages.think(text);
            }
        }
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            return Err(invalid(&format!("the type `{kind}` is not supported")));
        }
    }
    Ok(())
}

fn tool(mut tool: Value) -> Value {
    match tool.as_object_mut() {
        Some(fields)
            if fields.get("type").is_some_and(|kind| kind == "function")
                && !fields.contains_key("function") =>
        {
            let name = fields.remove("name").unwrap_or_default();
            let mut tool = function(name, fields.remove("description"), fields.remove("parameters"));
            if let Some(strict) = fields.remove("strict") {
                tool["function"]["strict"] = strict;
            }
            tool
        }
        _ => tool,
    }
}

/// `{"type": "json_schema", "name", "schema", "strict"}`, which chat nests.
fn response_format(mut format: Value) -> Value {
    match format.as_object_mut() {
        Some(fields) if fields.get("type").is_some_and(|kind| kind == "json_schema") => {
            json!({"type": "json_schema", "json_schema": {"schema": fields.remove("schema")}})
        }
        _ => format,
    }
}
