//! For routes that write requests differently: a request in OpenAI's chat form, made of another.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::http::ApiError;
use crate::http::fields::Fields;
use crate::http::openapi::Notes;

/// Most bytes of `metadata`: OpenAI allows 16 pairs of 64 and 512 characters.
const MAX_METADATA_BYTES: usize = 64 << 10;

/// The fields of a foreign request, some of which are taken out and written differently. What is left stays as it is, so that the
/// checks of chat see it.
pub(in crate::http) struct Foreign {
    fields: Map<String, Value>,
    /// Names of ours, and of theirs, for errors.
    names: &'static [(&'static str, &'static str)],
    /// Which of the client's items each message was made of.
    origins: Vec<Option<usize>>,
    /// Where the fields are described, if that is wanted.
    notes: Option<Arc<Notes>>,
}

impl Foreign {
    pub(in crate::http) fn new(
        fields: &Fields<'_>,
        names: &'static [(&'static str, &'static str)],
    ) -> Result<Self, ApiError> {
        // A response repeats it.
        fields.check_bytes("metadata", MAX_METADATA_BYTES)?;
        Ok(Self { fields: fields.to_map()?, names, origins: Vec::new(), notes: fields.notes().cloned() })
    }

    /// Takes a field out.
    pub(in crate::http) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// A field as it is.
    pub(in crate::http) fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Sets a field of ours.
    pub(in crate::http) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Sets the messages.
    pub(in crate::http) fn set_messages(&mut self, messages: Messages) {
        self.origins = messages.origins;
        self.set("messages", messages.messages);
    }

    /// Gives a field our name.
    pub(in crate::http) fn rename(&mut self, theirs: &str, ours: &str) {
        if let Some(value) = self.take(theirs) {
            self.set(ours, value);
        }
    }

    /// Refuses a field unless it has one of the values `harmless`, and takes it out.
    pub(in crate::http) fn refuse(
        &mut self,
        name: &str,
        harmless: &[Value],
        hint: &str,
    ) -> Result<(), ApiError> {
        match self.take(name).is_some_and(|value| !harmless.contains(&value)) {
            true => Err(ApiError::unsupported(name, hint)),
            false => Ok(()),
        }
    }

    /// Parses the converted request with `parse`; errors name the client's fields.
    pub(in crate::http) fn parse<T>(
        self,
        parse: impl FnOnce(&Fields<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let body = Value::Object(self.fields).to_string();
        let parsed = match &self.notes {
            None => Fields::parse(body.as_bytes()).and_then(|fields| parse(&fields)),
            Some(notes) => Fields::noting(body.as_bytes()).and_then(|fields| {
                let parsed = parse(&fields);
                fields.notes().into_iter().for_each(|inner| notes.absorb(inner, self.names));
                parsed
            }),
        };
        parsed.map_err(|error| {
            let place: Option<usize> = error
                .about()
                .and_then(|param| param.strip_prefix("messages.")?.split('.').next()?.parse().ok());
            let origin = place.and_then(|at: usize| Some((at, (*self.origins.get(at)?)?)));
            let error = match origin {
                Some((at, origin)) => error.renamed(&format!("messages.{at}"), &format!("messages.{origin}")),
                None => error,
            };
            self.names.iter().fold(error, |error, (ours, theirs)| error.renamed(ours, theirs))
        })
    }
}

/// The messages of a converted conversation. Calls in a row belong to one message of the assistant.
#[derive(Default)]
pub(in crate::http) struct Messages {
    messages: Vec<Value>,
    origins: Vec<Option<usize>>,
    /// The client's item that is being converted.
    item: Option<usize>,
    /// Reasoning of the assistant's next message.
    reasoning: Option<String>,
}

impl Messages {
    /// What follows is made of the client's item `at`.
    pub(in crate::http) fn of_item(&mut self, at: usize) {
        self.item = Some(at);
    }

    /// A message of `role`.
    pub(in crate::http) fn say(&mut self, role: &str, content: Value) {
        let mut message = json!({"role": role, "content": content});
        let reasoning = self.reasoning.take();
        if let Some(reasoning) = reasoning.filter(|_| role == "assistant") {
            message["reasoning_content"] = reasoning.into();
        }
        self.push(message);
    }

    fn push(&mut self, message: Value) {
        self.messages.push(message);
        self.origins.push(self.item);
    }

    /// What the assistant thought.
    pub(in crate::http) fn think(&mut self, reasoning: String) {
        self.reasoning = Some(reasoning);
    }

    /// A call of a tool by the assistant.
    pub(in crate::http) fn call(&mut self, id: Value, name: Value, arguments: Value) {
        if self.messages.last().is_none_or(|last| last["role"] != "assistant") {
            self.say("assistant", Value::Null);
        }
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        if let Some(last) = self.messages.last_mut().and_then(Value::as_object_mut)
            && let Some(calls) = last.entry("tool_calls").or_insert_with(|| json!([])).as_array_mut()
        {
            calls.push(call);
        }
    }

    /// The result of a call.
    pub(in crate::http) fn result(&mut self, id: Value, content: Value) {
        self.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
    }

    /// The role of the last message.
    pub(in crate::http) fn last_role(&self) -> Option<&str> {
        self.messages.last().and_then(|last| last["role"].as_str())
    }
}

/// A tool in OpenAI's chat form.
pub(in crate::http) fn function(name: Value, description: Option<Value>, parameters: Option<Value>) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), name);
    function.extend(description.map(|description| ("description".to_owned(), description)));
    function.extend(parameters.map(|parameters| ("parameters".to_owned(), parameters)));
    json!({"type": "function", "function": function})
}
