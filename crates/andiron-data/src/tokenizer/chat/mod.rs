//! Conversations as text: the chat template that comes with a tokenizer.
//!
//! A template is a Jinja program from a model's author. It gives what `transformers` makes of it, with bounded work and
//! memory, and what people say in a conversation never turns into control tokens, whatever they write.

mod filters;
mod json;
mod python;
mod quoting;
mod render;
mod source;
mod strings;
mod time;

use std::time::SystemTime;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use super::{Tokenizer, TokenizerError};
use quoting::{Part, Quoting};

/// Who said what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`, or whatever else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// `content`, said by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// What a chat template is given besides the conversation.
#[derive(Clone, Debug)]
pub struct ChatInputs {
    /// Tools that the assistant may call, as JSON schemas. With them the template `tool_use` is used, if there is one.
    pub tools: Option<Vec<serde_json::Value>>,
    /// Documents to answer from.
    pub documents: Option<Vec<serde_json::Value>>,
    /// The time that `strftime_now` tells the model, in UTC.
    pub now: SystemTime,
}

/// No tools, no documents, and the present.
impl Default for ChatInputs {
    fn default() -> Self {
        Self { tools: None, documents: None, now: SystemTime::now() }
    }
}

impl Tokenizer {
    /// The text that the model's chat template makes of a conversation, ready for the assistant to continue.
    ///
    /// # Errors
    /// [`TokenizerError::NoChatTemplate`], or [`TokenizerError::ChatTemplate`] if the template is malformed, does too
    /// much, or refuses the conversation, which it says in its own words.
    pub fn chat_text(&self, messages: &[Message]) -> Result<String, TokenizerError> {
        self.chat_text_with(messages, &ChatInputs::default())
    }

    /// [`chat_text`](Self::chat_text) with tools, documents or a time.
    ///
    /// # Errors
    /// As for [`chat_text`](Self::chat_text).
    pub fn chat_text_with(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> Result<String, TokenizerError> {
        self.render(messages, inputs, &|text| text.to_owned())
    }

    /// The ids of [`chat_text`](Self::chat_text). Control tokens of the template are control ids; those that somebody
    /// wrote in a message are ordinary text.
    ///
    /// # Errors
    /// As for [`chat_text`](Self::chat_text) and [`encode`](Self::encode).
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerError> {
        self.encode_chat_with(messages, &ChatInputs::default())
    }

    /// [`encode_chat`](Self::encode_chat) with tools, documents or a time.
    ///
    /// # Errors
    /// As for [`encode_chat`](Self::encode_chat).
    pub fn encode_chat_with(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut given: Vec<&str> =
            messages.iter().flat_map(|m| [m.role.as_str(), m.content.as_str()]).collect();
        for value in inputs.tools.iter().chain(&inputs.documents).flatten() {
            quoting::strings_of(value, &mut given);
        }
        let quoting = Quoting::avoiding(&given, self.inner.control_tokens());
        let text = self.render(messages, inputs, &|text| quoting.quote(text))?;
        let mut ids = Vec::new();
        for part in quoting.parts(&text) {
            match part {
                Part::Written(part) => ids.extend(self.encode_markup(part)?),
                Part::Quoted(token) => ids.extend(self.encode(&token)?),
            }
        }
        Ok(ids)
    }

    /// Runs the template, with each string that it is given as `shown` has it.
    fn render(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
        shown: &dyn Fn(&str) -> String,
    ) -> Result<String, TokenizerError> {
        let template = self.inner.files.template(inputs.tools.is_some())?;
        let conversation: Vec<Value> = messages
            .iter()
            .map(|m| Value::from_pairs([("role", shown(&m.role)), ("content", shown(&m.content))]))
            .collect();
        let list = |values: &Option<Vec<serde_json::Value>>| match values {
            Some(values) => {
                values.iter().map(|value| Value::from(Serde(quoting::map_strings(value, shown)))).collect()
            }
            None => Value::from(()),
        };
        let mut variables = vec![
            ("messages", Value::from(conversation)),
            ("tools", list(&inputs.tools)),
            ("documents", list(&inputs.documents)),
            ("add_generation_prompt", Value::from(true)),
        ];
        // A token that is not set is undefined, which templates ask for.
        let set = |(name, token): (&'static str, &Option<String>)| Some((name, Value::from(token.clone()?)));
        variables.extend(self.special_tokens().roles().into_iter().filter_map(set));
        let bytes = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let work = render::Work { template, variables, now: inputs.now, n_messages: messages.len(), bytes };
        work.run().map_err(|message| TokenizerError::ChatTemplate { message })
    }
}

#[cfg(test)]
mod tests;
