//! A message of a conversation, in the fields of OpenAI's chat API.

use serde_json::{Map, Value, json};

use super::quoting::{map_strings, strings_of};

/// A message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    pub role: String,
    /// What it says; `None` where an assistant only calls tools.
    pub content: Option<Content>,
    /// The name of its author.
    pub name: Option<String>,
    /// The tools that an assistant calls.
    pub tool_calls: Vec<ToolCall>,
    /// The call that the message of a tool answers.
    pub tool_call_id: Option<String>,
    /// What the assistant thought before it answered.
    pub reasoning: Option<String>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A text in parts. Templates that know no parts get them as one text, joined by line breaks.
    Parts(Vec<String>),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Its id, which the tool's message repeats.
    pub id: Option<String>,
    /// The function.
    pub name: String,
    /// Its arguments: an object, or a string where they are not one.
    pub arguments: Value,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct MessageError {
    /// Path of the field within the message; empty if it is the message itself.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl MessageError {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl Message {
    /// A message of `role` that says `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(Content::Text(content.into())), ..Self::default() }
    }

    /// The text, its parts joined by line breaks.
    pub fn text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => parts.join("\n"),
        }
    }

    /// A message as OpenAI's chat API writes it: `role`, `content` (a string, parts of the type `text`, or null), `name`,
    /// `tool_calls`, `tool_call_id`, and `reasoning_content`, also called `reasoning` or `thinking`. Arguments of calls are
    /// objects, or strings of JSON. Other fields are ignored, unless they would change what the model reads.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub fn from_json(message: &Value) -> Result<Self, MessageError> {
        let fields = message.as_object().ok_or_else(|| MessageError::new("", "expected an object"))?;
        let get = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(MessageError::new(name, "expected a string")),
        };
        let role = text("role")?.ok_or_else(|| MessageError::new("role", "missing, expected a string"))?;
        for name in ["function_call", "audio"] {
            if get(name).is_some() {
                return Err(MessageError::new(name, "not supported; send `content` and `tool_calls`"));
            }
        }
        if get("prefix").is_some_and(|value| *value != Value::Bool(false)) {
            return Err(MessageError::new("prefix", "not supported; send `continue_final_message`"));
        }
        let reasoning = ["reasoning_content", "reasoning", "thinking"].into_iter().map(text);
        let reasoning = reasoning.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().next();
        Ok(Self {
            content: get("content").map(content).transpose()?,
            name: text("name")?,
            tool_calls: match get("tool_calls") {
                None => Vec::new(),
                Some(Value::Array(calls)) => calls
                    .iter()
                    .enumerate()
                    .map(|(at, call)| tool_call(at, call))
                    .collect::<Result<_, _>>()?,
                Some(_) => return Err(MessageError::new("tool_calls", "expected an array")),
            },
            tool_call_id: text("tool_call_id")?,
            reasoning,
            role,
        })
    }

    /// Every text in it.
    pub(super) fn strings<'a>(&'a self, found: &mut Vec<&'a str>) {
        found.push(&self.role);
        match &self.content {
            None => {}
            Some(Content::Text(text)) => found.push(text),
            Some(Content::Parts(parts)) => found.extend(parts.iter().map(String::as_str)),
        }
        found.extend(
            [&self.name, &self.tool_call_id, &self.reasoning].into_iter().flatten().map(String::as_str),
        );
        for call in &self.tool_calls {
            found.extend(call.id.as_deref());
            found.push(&call.name);
            strings_of(&call.arguments, found);
        }
    }

    /// The object that a template sees, with `shown` applied to each text in it.
    pub(super) fn to_template(&self, form: Form, shown: &dyn Fn(&str) -> String) -> Value {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        let text = |text: &Option<String>| text.as_deref().map(|text| shown(text).into());
        // transformers gives the reasoning both names, this one first; templates of gpt-oss read it.
        set("thinking", text(&self.reasoning));
        set("role", Some(shown(&self.role).into()));
        set("content", Some(self.content_to_template(form, shown)));
        set("tool_call_id", text(&self.tool_call_id));
        set("name", text(&self.name));
        set("reasoning_content", text(&self.reasoning));
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(|call| call.to_template(form, shown));
            fields.insert("tool_calls".to_owned(), calls.collect());
        }
        Value::Object(fields)
    }

    fn content_to_template(&self, form: Form, shown: &dyn Fn(&str) -> String) -> Value {
        let part = |text: &String| json!({"type": "text", "text": shown(text)});
        match (&self.content, form.parts) {
            (None, _) if form.empty_for_none => "".into(),
            (None, _) => Value::Null,
            (Some(Content::Text(text)), Parts::Required) => Value::Array(vec![part(text)]),
            (Some(Content::Text(text)), _) => shown(text).into(),
            (Some(Content::Parts(parts)), Parts::Unknown) => shown(&parts.join("\n")).into(),
            (Some(Content::Parts(parts)), _) => parts.iter().map(part).collect(),
        }
    }

    /// Adds `tail` to the end of the content; `false` if there is none.
    pub(super) fn extend(&mut self, tail: &str) -> bool {
        match &mut self.content {
            Some(Content::Text(text)) => text.push_str(tail),
            Some(Content::Parts(parts)) => match parts.last_mut() {
                Some(part) => part.push_str(tail),
                None => return false,
            },
            None => return false,
        }
        true
    }
}

impl ToolCall {
    fn to_template(&self, form: Form, shown: &dyn Fn(&str) -> String) -> Value {
        let arguments = match (&self.arguments, form.arguments_as_text) {
            (arguments @ Value::Object(_), true) => shown(&arguments.to_string()).into(),
            (arguments, _) => map_strings(arguments, shown),
        };
        let mut fields = Map::new();
        if let Some(id) = &self.id {
            fields.insert("id".to_owned(), shown(id).into());
        }
        fields.insert("type".to_owned(), "function".into());
        fields.insert("function".to_owned(), json!({"name": shown(&self.name), "arguments": arguments}));
        Value::Object(fields)
    }
}

/// How a template wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) parts: Parts,
    /// Arguments of calls as strings of JSON. Templates print objects by `tojson`, others add strings up.
    pub(super) arguments_as_text: bool,
    /// A missing content as an empty string, for templates that look into it.
    pub(super) empty_for_none: bool,
}

/// What a template does with contents in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// It takes texts only.
    Unknown,
    /// It takes both.
    Known,
    /// It takes parts only.
    Required,
}

impl Parts {
    /// Judged by its loops over contents, and by whether it asks for strings.
    pub(super) fn of(template: &str) -> Self {
        let is_content = |expression: &str| {
            let expression = expression.trim_end_matches(['"', '\'', ']']);
            expression.ends_with("content")
        };
        let loops = template.split("{%").skip(1).filter_map(|tag| tag.split_once("%}")).any(|(tag, _)| {
            let tag = tag.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
            tag.strip_prefix("for ")
                .and_then(|tag| tag.split_once(" in "))
                .is_some_and(|(_, over)| is_content(over.split(" if ").next().unwrap_or(over).trim()))
        });
        match (loops, template.contains("is string")) {
            (false, _) => Self::Unknown,
            (true, true) => Self::Known,
            (true, false) => Self::Required,
        }
    }
}

fn content(content: &Value) -> Result<Content, MessageError> {
    let parts = match content {
        Value::String(text) => return Ok(Content::Text(text.clone())),
        Value::Array(parts) => parts,
        _ => return Err(MessageError::new("content", "expected a string or an array of parts")),
    };
    let part = |(at, part): (usize, &Value)| {
        let wrong = |problem: String| MessageError::new(format!("content.{at}"), problem);
        // A bare string is a part of text in some clients.
        if let Value::String(text) = part {
            return Ok(text.clone());
        }
        let kind = part.get("type").and_then(Value::as_str);
        let text = match kind {
            Some("text" | "input_text" | "output_text") => part.get("text"),
            Some("refusal") => part.get("refusal"),
            Some(kind) => {
                let kind: String = kind.chars().take(40).collect();
                return Err(wrong(format!(
                    "the type `{kind}` is not supported, send parts of the type `text`"
                )));
            }
            None => return Err(wrong("expected an object with `type` and `text`".to_owned())),
        };
        match text.and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => Err(wrong("expected a string in `text`".to_owned())),
        }
    };
    Ok(Content::Parts(parts.iter().enumerate().map(part).collect::<Result<_, _>>()?))
}

fn tool_call(at: usize, call: &Value) -> Result<ToolCall, MessageError> {
    let wrong = |field: &str, problem: &str| MessageError::new(format!("tool_calls.{at}{field}"), problem);
    let id = match call.get("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(wrong(".id", "expected a string")),
    };
    match call.get("type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind == "function" => {}
        Some(_) => return Err(wrong(".type", "expected `function`")),
    }
    let function = call.get("function").ok_or_else(|| wrong("", "expected an object with `function`"))?;
    let name = function.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| wrong(".function.name", "expected a string"))?.to_owned();
    let arguments = match function.get("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(arguments @ Value::Object(_)) => arguments.clone(),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(arguments @ Value::Object(_)) => arguments,
            _ => Value::String(text.clone()),
        },
        Some(_) => return Err(wrong(".function.arguments", "expected a string of JSON")),
    };
    Ok(ToolCall { id, name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_clients_send_it() {
        let message = Message::from_json(&json!({
            "role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null, "function_call": null,
            "reasoning": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}},
                           {"function": {"name": "g", "arguments": "no json"}}, {"function": {"name": "h"}}],
        }))
        .unwrap();
        let call = |id: Option<&str>, name: &str, arguments: Value| ToolCall {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            arguments,
        };
        assert_eq!(
            message.tool_calls,
            [
                call(Some("c1"), "f", json!({"b": 1, "a": 2})),
                call(None, "g", json!("no json")),
                call(None, "h", json!({})),
            ]
        );
        assert_eq!((message.content, message.reasoning), (None, Some("hm".to_owned())));
        let parts = json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]});
        let parts = Message::from_json(&parts).unwrap();
        assert_eq!(
            (parts.text(), &parts.content),
            ("a\nb".to_owned(), &Some(Content::Parts(vec!["a".into(), "b".into()])))
        );
    }

    #[track_caller]
    fn check_refused(message: Value, expected: &str) {
        assert_eq!(Message::from_json(&message).unwrap_err().to_string(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_message_names_its_field() {
        check_refused(json!("x"), ": expected an object");
        check_refused(json!({"content": "x"}), "role: missing, expected a string");
        check_refused(
            json!({"role": "user", "content": 1}),
            "content: expected a string or an array of parts",
        );
        check_refused(
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}),
            "content.0: the type `image_url` is not supported, send parts of the type `text`",
        );
        check_refused(json!({"role": "user", "name": 1}), "name: expected a string");
        check_refused(
            json!({"role": "assistant", "tool_calls": [{}]}),
            "tool_calls.0: expected an object with `function`",
        );
        check_refused(
            json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}),
            "tool_calls.0.function.arguments: expected a string of JSON",
        );
        check_refused(
            json!({"role": "assistant", "prefix": true}),
            "prefix: not supported; send `continue_final_message`",
        );
    }

    #[test]
    fn a_template_that_loops_over_contents_takes_parts() {
        for (template, expected) in [
            ("{{ messages[0].content }}{% for m in messages %}{% endfor %}", Parts::Unknown),
            ("{% for line in message['content'] %}", Parts::Required),
            ("{%- for p in m.content if p.type == 'text' -%}", Parts::Required),
            ("{% if m.content is string %}{% else %}{% for p in content %}", Parts::Known),
        ] {
            assert_eq!(Parts::of(template), expected, "{template}");
        }
    }
}
