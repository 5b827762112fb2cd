//! Conversations: lists of messages, or an instruction and its answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Shape, first_of, first_text};
use crate::rows::{Row, RowError, RowFault};
use crate::tokenizer::{Content, Message, ToolCall};

/// Rows with a conversation: `messages` of `{role, content}`, or `conversations` of `{from, value}` (ShareGPT). The assistant's
/// messages may call tools, in `tool_calls` as in OpenAI's chat API, or as messages from `function_call`; those of a tool may tell
/// the call that they answer in `tool_call_id`, and its `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChatFields {
    /// The list of messages. Their roles may be `human` and `gpt`, which are `user` and `assistant`.
    pub messages: String,
    /// A text for the system, if it stands beside the messages; rows may lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The tools that the assistant may call, a list of JSON schemas; rows may lack it.
    pub tools: String,
}

/// Rows with an instruction, perhaps an input to it, and the answer (Alpaca). They become conversations of two messages: the
/// input stands below the instruction in the user's, as LLaMA-Factory writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstructionFields {
    /// What is asked.
    pub instruction: String,
    /// What it is asked of; rows may lack it or have an empty one.
    pub input: String,
    /// The answer.
    pub output: String,
    /// A text for the system; rows may lack it.
    pub system: String,
}

/// A conversation to learn the assistant's messages of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether each message is to be learned: the assistant's are, but for those with a `weight` of 0, as in OpenAI's format.
    pub learned: Vec<bool>,
    /// The tools that the assistant may call.
    pub tools: Option<Vec<Value>>,
}

impl Default for ChatFields {
    fn default() -> Self {
        Self { messages: "messages".into(), system: None, tools: "tools".into() }
    }
}

impl Default for InstructionFields {
    fn default() -> Self {
        let [instruction, input, output, system] =
            ["instruction", "input", "output", "system"].map(str::to_owned);
        Self { instruction, input, output, system }
    }
}

impl Shape for ChatFields {
    type Example = Conversation;

    fn read(&self, row: &Row) -> Result<Conversation, RowError> {
        let system = self.system.as_deref().map_or(Ok(None), |field| optional_text(row, field))?;
        let mut messages: Vec<Message> =
            system.map(|system| Message::new("system", system)).into_iter().collect();
        let mut learned = vec![false; messages.len()];
        let value = row.get(&self.messages)?;
        for (message, item) in messages_in(row, &self.messages, value)?.into_iter().zip(items(value)) {
            learned.push(message.role == "assistant" && weighs(row, &self.messages, item)?);
            messages.push(message);
        }
        if !learned.contains(&true) {
            return Err(row.fail(RowFault::NoAssistant { field: self.messages.clone() }));
        }
        let tools = match row.find(&self.tools) {
            None => None,
            Some(Value::Array(tools)) => Some(tools.clone()).filter(|tools| !tools.is_empty()),
            // A list as text is how tables of typed columns hold schemas that differ.
            Some(value) => match value.as_str().map(serde_json::from_str) {
                Some(Ok(tools)) => Some(tools).filter(|tools: &Vec<Value>| !tools.is_empty()),
                _ => return Err(row.wrong(&self.tools, value, "a list of tools")),
            },
        };
        Ok(Conversation { messages, learned, tools })
    }

    fn guess(row: &Row) -> Option<Self> {
        let messages = first_of(row, &["messages", "conversations", "conversation", "dialogue"])?;
        row.find(&messages)?.as_array()?.first()?.as_object()?;
        Some(Self { messages, system: first_text(row, &["system"]), ..Self::default() })
    }
}

impl Shape for InstructionFields {
    type Example = Conversation;

    fn read(&self, row: &Row) -> Result<Conversation, RowError> {
        let mut messages = Vec::new();
        if let Some(system) = optional_text(row, &self.system)? {
            messages.push(Message::new("system", system));
        }
        let instruction = row.some_text(&self.instruction)?;
        messages.push(match optional_text(row, &self.input)? {
            Some(input) => Message::new("user", format!("{instruction}\n{input}")),
            None => Message::new("user", instruction),
        });
        messages.push(Message::new("assistant", row.some_text(&self.output)?));
        let learned = messages.iter().map(|message| message.role == "assistant").collect();
        Ok(Conversation { messages, learned, tools: None })
    }

    fn guess(row: &Row) -> Option<Self> {
        let instruction = first_text(row, &["instruction"])?;
        let output = first_text(row, &["output", "response"])?;
        let input = first_text(row, &["input", "context"]).unwrap_or_else(|| "input".into());
        Some(Self { instruction, input, output, ..Self::default() })
    }
}

/// The text of a field that rows may lack or leave empty.
fn optional_text<'a>(row: &'a Row, field: &str) -> Result<Option<&'a str>, RowError> {
    if row.find(field).is_none() {
        return Ok(None);
    }
    row.text(field).map(|text| Some(text).filter(|text| !text.trim().is_empty()))
}

/// The messages of a list, or of one object. There is at least one.
pub(super) fn messages_in(row: &Row, field: &str, value: &Value) -> Result<Vec<Message>, RowError> {
    if !value.is_array() && !value.is_object() {
        return Err(row.wrong(field, value, "a list of messages"));
    }
    let items = items(value);
    if items.is_empty() {
        return Err(row.fail(RowFault::Empty { field: field.to_owned() }));
    }
    let message = |(index, item): (usize, &Value)| message_in(row, &format!("{field}.{index}"), item);
    items.iter().enumerate().map(message).collect()
}

/// The items of a list, or a value as the only one.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// Whether a message counts in the loss, as its `weight` says.
fn weighs(row: &Row, field: &str, message: &Value) -> Result<bool, RowError> {
    match message.get("weight") {
        None | Some(Value::Null) => Ok(true),
        Some(weight) => match weight.as_f64() {
            Some(0.0) => Ok(false),
            Some(1.0) => Ok(true),
            _ => Err(row.wrong(&format!("{field}.weight"), weight, "0 or 1")),
        },
    }
}

fn message_in(row: &Row, field: &str, item: &Value) -> Result<Message, RowError> {
    let wrong = |wanted| row.wrong(field, item, wanted);
    let fields = item.as_object().ok_or_else(|| wrong("a message with a role and a content"))?;
    let role = fields.get("role").or_else(|| fields.get("from")).and_then(Value::as_str);
    let role = role.ok_or_else(|| wrong("a message with a text `role` (or `from`)"))?;
    let said = fields.get("content").or_else(|| fields.get("value")).filter(|said| !said.is_null());
    let content = said.and_then(text_of);
    let no_content = || wrong("a message with a text `content` (or `value`)");
    if role == "function_call" {
        let tool_calls = calls_in_text(row, field, &content.ok_or_else(no_content)?)?;
        return Ok(Message { role: "assistant".to_owned(), tool_calls, ..Message::default() });
    }
    let role = match role {
        "human" => "user",
        "gpt" | "chatgpt" | "bing" | "bard" | "model" => "assistant",
        "observation" | "function_response" => "tool",
        role => role,
    };
    let tool_calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(calls) => calls_in(row, field, calls)?,
    };
    if !tool_calls.is_empty() && role != "assistant" {
        return Err(wrong("a message of the assistant, which alone calls tools"));
    }
    if content.is_none() && (said.is_some() || tool_calls.is_empty()) {
        return Err(no_content());
    }
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(row.wrong(&format!("{field}.{name}"), other, "a text")),
    };
    // Of other messages, names are not told to the model, as before there were tools.
    let (name, tool_call_id) = match role {
        "tool" => (text("name")?, text("tool_call_id")?),
        _ => (None, None),
    };
    let content = content.map(Content::Text);
    Ok(Message { role: role.to_owned(), content, tool_calls, name, tool_call_id, ..Message::default() })
}

/// The calls of a message, as OpenAI's chat API writes them.
fn calls_in(row: &Row, field: &str, calls: &Value) -> Result<Vec<ToolCall>, RowError> {
    let message = Message::from_json(&json!({"role": "assistant", "tool_calls": calls}));
    message.map(|message| message.tool_calls).map_err(|error| {
        let wanted = "a list of calls, each with a `function` of `name` and `arguments`";
        row.wrong(&format!("{field}.{}", error.field), calls, wanted)
    })
}

/// The calls in a text of ShareGPT: a JSON object with `name` and `arguments`, or a list of those.
fn calls_in_text(row: &Row, field: &str, text: &str) -> Result<Vec<ToolCall>, RowError> {
    let wrong = || row.wrong(field, &text.into(), "a call as JSON, with `name` and `arguments`");
    let calls: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let calls: Vec<Value> = items(&calls).iter().map(|call| json!({"function": call})).collect();
    match calls_in(row, field, &calls.into()) {
        Ok(calls) if !calls.is_empty() => Ok(calls),
        _ => Err(wrong()),
    }
}

/// The text of a content: a string, or a list of parts that are all text.
fn text_of(content: &Value) -> Option<String> {
    let part = |part: &Value| {
        let part: &Map<String, Value> = part.as_object()?;
        (part.get("type")?.as_str()? == "text").then(|| part.get("text")?.as_str().map(str::to_owned))?
    };
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) if !parts.is_empty() => parts.iter().map(part).collect(),
        _ => None,
    }
}
