//! Chat templates: a conversation as the text or ids of a prompt.
//!
//! A template is a Jinja program written by a model's author. It renders as in `transformers`, with bounded time and memory.
//! Message contents never turn into control tokens, whatever they spell.

mod conversation;
pub(crate) mod filters;
mod json;
pub(crate) mod python;
mod quoting;
mod render;
pub(crate) mod source;
pub(crate) mod strings;
mod time;

use std::time::SystemTime;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use super::{Tokenizer, TokenizerError};
use quoting::{Part, Quoting};
use render::Marks;

pub use conversation::Conversation;

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user`, `assistant`, or another role that the template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message `content` of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Inputs of a chat template besides the conversation.
#[derive(Clone, Debug)]
pub struct ChatInputs {
    /// Tools that the assistant may call, as JSON schemas. If there are any, the template `tool_use` is used where it exists.
    pub tools: Option<Vec<serde_json::Value>>,
    /// Documents to answer from.
    pub documents: Option<Vec<serde_json::Value>>,
    /// The time that `strftime_now` formats, in UTC.
    pub now: SystemTime,
}

/// No tools, no documents, and the current time.
impl Default for ChatInputs {
    fn default() -> Self {
        Self { tools: None, documents: None, now: SystemTime::now() }
    }
}

/// What stands at the end of a rendered conversation.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The generation prompt of the assistant.
    GenerationPrompt,
    /// The last message.
    Closed,
    /// The last message; what `{% generation %}` renders is between marks.
    Marked(Marks),
}

impl Tokenizer {
    /// A conversation rendered by the model's chat template, with the generation prompt of the assistant at the end.
    ///
    /// # Errors
    /// [`TokenizerError::NoChatTemplate`], or [`TokenizerError::ChatTemplate`] if the template is malformed, exceeds a limit,
    /// or rejects the conversation with a message of its own.
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
        self.render(messages, inputs, Ending::GenerationPrompt, &|text| text.to_owned())
    }

    /// The ids of [`chat_text`](Self::chat_text). Control tokens of the template become control ids; those spelled in a
    /// message are ordinary text.
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
        let quoting = self.quoting(messages, inputs);
        let text = self.render(messages, inputs, Ending::GenerationPrompt, &|text| quoting.quote(text))?;
        let mut ids = Vec::new();
        for (_, part) in quoting.parts(&text) {
            match part {
                Part::Written(part) => ids.extend(self.encode_markup(part)?),
                Part::Quoted(token) => ids.extend(self.encode(&token)?),
            }
        }
        Ok(ids)
    }

    /// Marks for the control tokens that a conversation spells.
    fn quoting(&self, messages: &[Message], inputs: &ChatInputs) -> Quoting<'_> {
        let mut given: Vec<&str> =
            messages.iter().flat_map(|m| [m.role.as_str(), m.content.as_str()]).collect();
        for value in inputs.tools.iter().chain(&inputs.documents).flatten() {
            quoting::strings_of(value, &mut given);
        }
        Quoting::avoiding(&given, self.inner.control_tokens())
    }

    /// Renders the template, with `shown` applied to each of its input strings.
    fn render(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
        ending: Ending,
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
            ("add_generation_prompt", Value::from(matches!(ending, Ending::GenerationPrompt))),
        ];
        // A token that is not set is undefined, which templates ask for.
        let set = |(name, token): (&'static str, &Option<String>)| Some((name, Value::from(token.clone()?)));
        variables.extend(self.special_tokens().roles().into_iter().filter_map(set));
        let bytes = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let marks = match ending {
            Ending::Marked(marks) => Some(marks),
            Ending::GenerationPrompt | Ending::Closed => None,
        };
        let work =
            render::Work { template, variables, now: inputs.now, n_messages: messages.len(), bytes, marks };
        work.run().map_err(|message| TokenizerError::ChatTemplate { message })
    }
}

#[cfg(test)]
mod tests;
