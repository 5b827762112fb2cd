//! A request for a message as one to chat.

use serde_json::{Map, Value, json};

use crate::http::ApiError;
use crate::http::chat::{Foreign, Messages, function};
use crate::http::fields::Fields;
use crate::registry::Served;

/// Our names of fields, and those of this route.
const NAMES: &[(&str, &str)] = &[("stop", "stop_sequences"), ("response_format", "output_config.format")];

/// The request to chat.
pub(super) fn convert(fields: &Fields<'_>, served: &Served) -> Result<Foreign, ApiError> {
    let mut request = Foreign::new(fields, NAMES)?;
    for name in ["mcp_servers", "container", "context_management", "output_format"] {
        request.refuse(name, &[json!([])], "")?;
    }
    for (name, hint) in [
        ("max_completion_tokens", "; send `max_tokens`"),
        ("response_format", "; send `output_config.format`"),
        ("stop", "; send `stop_sequences`"),
        ("n", ""),
        ("logprobs", ""),
    ] {
        request.refuse(name, &[], hint)?;
    }
    request.rename("stop_sequences", "stop");
    if let Some(Value::Object(mut output)) = request.take("output_config") {
        if let Some(mut format) = output.remove("format").filter(|format| !format.is_null()) {
            let schema = format.get_mut("schema").map(Value::take);
            request
                .set("response_format", json!({"type": format["type"], "json_schema": {"schema": schema}}));
        }
        if let Some(effort) = output.remove("effort").filter(|effort| !effort.is_null()) {
            request.set("reasoning_effort", effort);
        }
    }
    if let Some(thinking) = request.take("thinking") {
        think(&mut request, &thinking, served)?;
    }
    if let Some(tools) = request.take("tools") {
        let Value::Array(tools) = tools else { return Err(ApiError::invalid("tools", "expected an array")) };
        let tools: Result<Vec<Value>, ApiError> =
            tools.into_iter().enumerate().map(|(at, given)| tool(at, given)).collect();
        request.set("tools", tools?);
    }
    if let Some(choice) = request.take("tool_choice") {
        if choice["disable_parallel_tool_use"] == true {
            request.set("parallel_tool_calls", false);
        }
        request.set(
            "tool_choice",
            match (choice["type"].as_str(), choice.get("name")) {
                (Some("any"), _) => json!("required"),
                (Some("tool"), Some(name)) => json!({"type": "function", "function": {"name": name}}),
                (Some(kind @ ("auto" | "none")), _) => json!(kind),
                _ => {
                    return Err(ApiError::invalid(
                        "tool_choice",
                        "expected an object with `type`: auto, any, tool or none",
                    ));
                }
            },
        );
    }
    let mut messages = Messages::default();
    match request.take("system") {
        None => {}
        Some(text @ Value::String(_)) => messages.say("system", text),
        Some(Value::Array(blocks)) => messages.say("system", texts("system", &blocks)?),
        Some(_) => return Err(ApiError::invalid("system", "expected a string or an array of blocks")),
    }
    let given = match request.take("messages") {
        Some(Value::Array(given)) => given,
        _ => return Err(ApiError::invalid("messages", "expected an array of messages")),
    };
    for (at, message) in given.into_iter().enumerate() {
        messages.of_item(at);
        add(&mut messages, at, message)?;
    }
    if messages.last_role() == Some("assistant") {
        request.set("continue_final_message", true);
    }
    request.set_messages(messages);
    Ok(request)
}

/// Models that reason as their template is told are told; others do as they do.
fn think(request: &mut Foreign, thinking: &Value, served: &Served) -> Result<(), ApiError> {
    let enabled = match thinking["type"].as_str() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => {
            return Err(ApiError::invalid(
                "thinking",
                "expected an object with `type`: enabled, adaptive or disabled",
            ));
        }
    };
    let template = served.text.tokenizer().and_then(|tokenizer| tokenizer.chat_template_for(false).ok());
    if template.is_some_and(|template| template.contains("enable_thinking")) {
        let mut variables = match request.take("chat_template_kwargs") {
            Some(Value::Object(variables)) => variables,
            _ => Map::new(),
        };
        variables.entry("enable_thinking").or_insert(enabled.into());
        request.set("chat_template_kwargs", variables);
    }
    Ok(())
}

fn tool(at: usize, mut tool: Value) -> Result<Value, ApiError> {
    let invalid = |problem: &str| ApiError::invalid(&format!("tools.{at}"), problem);
    let fields = tool.as_object_mut().ok_or_else(|| invalid("expected an object"))?;
    match fields.get("type").and_then(Value::as_str) {
        None | Some("custom") => {}
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            return Err(invalid(&format!(
                "the type `{kind}` is not supported, send tools with `input_schema`"
            )));
        }
    }
    let name = fields.remove("name").unwrap_or_default();
    Ok(function(name, fields.remove("description"), fields.remove("input_schema")))
}

/// The texts of blocks as parts.
fn texts(place: &str, blocks: &[Value]) -> Result<Value, ApiError> {
    let part = |(at, block): (usize, &Value)| match (block["type"].as_str(), &block["text"]) {
        (Some("text"), text @ Value::String(_)) => Ok(json!({"type": "text", "text": text})),
        (kind, _) => Err(unsupported(&format!("{place}.{at}"), kind)),
    };
    blocks.iter().enumerate().map(part).collect::<Result<Vec<Value>, ApiError>>().map(Value::from)
}

fn unsupported(place: &str, kind: Option<&str>) -> ApiError {
    let kind: String = kind.unwrap_or("none").chars().take(40).collect();
    ApiError::invalid(place, format_args!("a block of the type `{kind}` is not supported here, send text"))
}

/// One message: its texts, and the calls and results in it, become messages of their own roles.
fn add(messages: &mut Messages, at: usize, mut message: Value) -> Result<(), ApiError> {
    let place = format!("messages.{at}");
    let role = match message["role"].as_str() {
        Some(role @ ("user" | "assistant")) => role.to_owned(),
        _ => return Err(ApiError::invalid(&format!("{place}.role"), "expected `user` or `assistant`")),
    };
    let blocks = match message["content"].take() {
        text @ Value::String(_) => {
            messages.say(&role, text);
            return Ok(());
        }
        Value::Array(blocks) => blocks,
        _ => {
            return Err(ApiError::invalid(
                &format!("{place}.content"),
                "expected a string or an array of blocks",
            ));
        }
    };
    let (mut parts, mut calls) = (Vec::new(), Vec::new());
    for (index, mut block) in blocks.into_iter().enumerate() {
        let place = format!("{place}.content.{index}");
        let kind = block["type"].take();
        match (role.as_str(), kind.as_str()) {
            (_, Some("text")) => parts.push(json!({"type": "text", "text": block["text"].take()})),
            ("assistant", Some("thinking")) => {
                messages.think(block["thinking"].as_str().unwrap_or_default().to_owned());
            }
            // Encrypted for another provider.
            ("assistant", Some("redacted_thinking")) => {}
            ("assistant", Some("tool_use")) => {
                calls.push((block["id"].take(), block["name"].take(), block["input"].take()));
            }
            ("user", Some("tool_result")) => {
                let content = match block["content"].take() {
                    Value::Array(blocks) => texts(&format!("{place}.content"), &blocks)?,
                    Value::Null => "".into(),
                    text => text,
                };
                messages.result(block["tool_use_id"].take(), content);
            }
            (_, kind) => return Err(unsupported(&place, kind)),
        }
    }
    if !parts.is_empty() || (role == "assistant" && calls.is_empty()) {
        messages.say(&role, parts.into());
    }
    calls.into_iter().for_each(|(id, name, input)| messages.call(id, name, input));
    Ok(())
}
