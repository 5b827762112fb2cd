//! Reading calls of tools in the notations of models.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::ToolFormat;

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// The text of a JSON object.
    pub(super) arguments: String,
}

const PYTHON_TAG: &str = "<|python_tag|>";

/// The calls that `text`, marks included, writes in `format`; `None` if it is not written so. There is at least one.
pub(super) fn parse(format: ToolFormat, text: &str, offered: &[Value]) -> Option<Vec<Call>> {
    let calls = match format {
        ToolFormat::Hermes => vec![json_call(within(text)?)?],
        ToolFormat::QwenXml => vec![qwen_call(within(text)?, offered)?],
        ToolFormat::Glm => vec![glm_call(within(text)?, offered)?],
        ToolFormat::Llama => llama_calls(text)?,
        ToolFormat::Mistral => {
            let calls: Option<Vec<_>> = text.split("[TOOL_CALLS]").skip(1).map(mistral_calls).collect();
            calls?.into_iter().flatten().collect()
        }
    };
    (!calls.is_empty()).then_some(calls)
}

/// Whether the beginning of an answer, `text`, begins a call of Llama; `None` if that is not certain yet.
pub(super) fn may_begin(text: &str) -> Option<bool> {
    if text.is_empty() || (text.len() < PYTHON_TAG.len() && PYTHON_TAG.starts_with(text)) {
        return None;
    }
    if text.starts_with(PYTHON_TAG) {
        return Some(true);
    }
    let Some(inside) = text.strip_prefix('{') else { return Some(false) };
    let inside = inside.trim_start();
    let keys = ["\"name\"", "\"type\"", "\"function\""];
    if keys.iter().any(|key| inside.starts_with(key)) {
        return Some(true);
    }
    match keys.iter().any(|key| key.starts_with(inside)) {
        true => None,
        false => Some(false),
    }
}

/// What stands between the tags; the second one may be missing at the end of an answer.
fn within(text: &str) -> Option<&str> {
    let body = text.strip_prefix("<tool_call>")?;
    Some(body.strip_suffix("</tool_call>").unwrap_or(body).trim())
}

/// `{"name": …, "arguments": …}`, where the second may be called `parameters`.
#[derive(Deserialize)]
struct Named<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl Named<'_> {
    fn into_call(self) -> Option<Call> {
        let Some(raw) = self.arguments.map(RawValue::get).filter(|raw| *raw != "null") else {
            return Some(Call { name: self.name, arguments: "{}".to_owned() });
        };
        let arguments = match raw.starts_with('"') {
            // Some write the object as a string.
            true => serde_json::from_str::<String>(raw).ok()?,
            false => raw.to_owned(),
        };
        let is_object = arguments.starts_with('{') && serde_json::from_str::<&RawValue>(&arguments).is_ok();
        is_object.then_some(Call { name: self.name, arguments })
    }
}

fn json_call(text: &str) -> Option<Call> {
    serde_json::from_str::<Named<'_>>(text).ok()?.into_call()
}

fn llama_calls(text: &str) -> Option<Vec<Call>> {
    let mut rest = text.trim();
    rest = rest.strip_prefix(PYTHON_TAG).unwrap_or(rest);
    let mut calls = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        if rest.is_empty() {
            return Some(calls);
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Named<'_>>();
        calls.push(values.next()?.ok()?.into_call()?);
        rest = &rest[values.byte_offset()..];
    }
}

/// What follows a mark of Mistral's.
fn mistral_calls(text: &str) -> Option<Vec<Call>> {
    let text = text.trim();
    if text.starts_with('[') {
        let calls: Vec<Named<'_>> = serde_json::from_str(text).ok()?;
        return calls.into_iter().map(Named::into_call).collect();
    }
    if text.starts_with('{') {
        return Some(vec![json_call(text)?]);
    }
    let brace = text.find('{')?;
    let (head, arguments) = text.split_at(brace);
    let name = head.split(['[', ' ']).next().unwrap_or_default().trim();
    let is_whole = serde_json::from_str::<&RawValue>(arguments).is_ok();
    (!name.is_empty() && is_whole)
        .then(|| vec![Call { name: name.to_owned(), arguments: arguments.to_owned() }])
}

fn qwen_call(text: &str, offered: &[Value]) -> Option<Call> {
    if text.starts_with('{') {
        return json_call(text);
    }
    let (name, mut rest) = text.strip_prefix("<function=")?.split_once('>')?;
    let mut arguments = Map::new();
    while let Some((_, after)) = rest.split_once("<parameter=") {
        let (key, after) = after.split_once('>')?;
        // The end tag may be missing before the next one.
        let ends = ["</parameter>", "<parameter=", "</function>"].iter().filter_map(|end| after.find(end));
        let end = ends.min().unwrap_or(after.len());
        let value = after[..end].strip_prefix('\n').unwrap_or(&after[..end]);
        let value = value.strip_suffix('\n').unwrap_or(value);
        arguments.insert(key.to_owned(), typed(offered, name, key, value));
        rest = &after[end..];
    }
    Some(Call { name: name.to_owned(), arguments: Value::Object(arguments).to_string() })
}

fn glm_call(text: &str, offered: &[Value]) -> Option<Call> {
    if text.starts_with('{') {
        return json_call(text);
    }
    let name = text.split(['\n', '<']).next().unwrap_or_default().trim();
    if name.is_empty() {
        return None;
    }
    let mut rest = &text[name.len()..];
    let mut arguments = Map::new();
    while let Some((_, after)) = rest.split_once("<arg_key>") {
        let (key, after) = after.split_once("</arg_key>")?;
        let (_, after) = after.split_once("<arg_value>")?;
        let (value, after) = after.split_once("</arg_value>")?;
        let key = key.trim();
        arguments.insert(key.to_owned(), typed(offered, name, key, value));
        rest = after;
    }
    Some(Call { name: name.to_owned(), arguments: Value::Object(arguments).to_string() })
}

/// A value written without quotation marks, as the schema of its argument says: a text unless another type is declared.
fn typed(offered: &[Value], function: &str, argument: &str, text: &str) -> Value {
    let functions = offered.iter().map(|tool| tool.get("function").unwrap_or(tool));
    let mut named = functions.filter(|tool| tool.get("name").and_then(Value::as_str) == Some(function));
    let schema = named.next().and_then(|tool| tool.get("parameters")?.get("properties")?.get(argument));
    let may_be_text = match schema.and_then(|schema| schema.get("type")) {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => schema.is_none_or(|schema| schema.get("enum").is_some()),
    };
    match may_be_text {
        true => Value::String(text.to_owned()),
        false => serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}
