//! Chat templates: a conversation as the text or ids of a prompt.
//!
//! A template is a Jinja program written by a model's author. It renders as in `transformers`, with bounded time and memory.
//! Message contents never turn into control tokens, whatever they spell.

mod conversation;
pub(crate) mod filters;
mod json;
mod message;
pub(crate) mod python;
mod quoting;
mod render;
pub(crate) mod source;
pub(crate) mod strings;
mod time;

use std::time::SystemTime;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::Map;

use super::{Tokenizer, TokenizerError};
use message::{Form, Parts};
use quoting::{Part, Quoting};
use render::Marks;

pub use conversation::Conversation;
pub use message::{Content, Message, MessageError, ToolCall};

/// Inputs of a chat template besides the conversation.
#[derive(Clone, Debug)]
pub struct ChatInputs {
    /// Tools that the assistant may call, as JSON schemas. If there are any, the template `tool_use` is used where it exists.
    pub tools: Option<Vec<serde_json::Value>>,
    /// Documents to answer from.
    pub documents: Option<Vec<serde_json::Value>>,
    /// The time that `strftime_now` formats, in UTC.
    pub now: SystemTime,
    /// What stands at the end.
    pub end: ChatEnd,
    /// Further variables, such as `enable_thinking`. They cannot replace those that the template gets in any case
    /// ([`RESERVED`]).
    pub variables: Map<String, serde_json::Value>,
}

/// What stands at the end of a rendered conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChatEnd {
    /// The generation prompt of the assistant.
    #[default]
    GenerationPrompt,
    /// The last message.
    Closed,
    /// The text of the last message, without what would end it: its author goes on.
    Continued,
}

/// Variables of a template that [`ChatInputs::variables`] cannot set.
pub const RESERVED: &[&str] = &[
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "additional_special_tokens",
    "raise_exception",
    "strftime_now",
    "range",
    "namespace",
    "dict",
    "debug",
];

/// No tools, no documents, no further variables, the current time, and a generation prompt.
impl Default for ChatInputs {
    fn default() -> Self {
        Self {
            tools: None,
            documents: None,
            now: SystemTime::now(),
            end: ChatEnd::default(),
            variables: Map::new(),
        }
    }
}

/// A rendered conversation that knows which of its control tokens are the template's.
#[derive(Debug)]
pub struct RenderedChat<'a> {
    tokenizer: &'a Tokenizer,
    quoting: Quoting<'a>,
    /// With marks in the control tokens that messages spell.
    text: String,
}

impl RenderedChat<'_> {
    /// The text.
    pub fn text(&self) -> String {
        self.quoting.unquote(&self.text)
    }

    /// The ids. Control tokens of the template are control ids; those spelled in a message are ordinary text.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`].
    pub fn encode(&self) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for (_, part) in self.quoting.parts(&self.text) {
            match part {
                Part::Written(part) => ids.extend(self.tokenizer.encode_markup(part)?),
                Part::Quoted(token) => ids.extend(self.tokenizer.encode(&token)?),
            }
        }
        Ok(ids)
    }
}

/// How a conversation is rendered.
#[derive(Clone, Copy, Debug)]
struct Rendering {
    add_generation_prompt: bool,
    /// What `{% generation %}` renders is between these.
    marks: Option<Marks>,
}

impl Rendering {
    const CLOSED: Self = Self { add_generation_prompt: false, marks: None };
    const GENERATION_PROMPT: Self = Self { add_generation_prompt: true, marks: None };
}

impl Tokenizer {
    /// The same tokenizer with another chat template, which has been tried on a short conversation.
    ///
    /// # Errors
    /// [`TokenizerError::ChatTemplate`] if it cannot be rendered.
    pub fn with_chat_template(&self, template: impl Into<String>) -> Result<Self, TokenizerError> {
        let mut files = self.inner.files.clone();
        files.set_chat_template(template.into());
        let tokenizer = Self { inner: Self::from_files(files)?.inner, ..self.clone() };
        tokenizer.chat_text(&[Message::new("user", "Hi")])?;
        Ok(tokenizer)
    }

    /// A conversation rendered by the model's chat template, with the generation prompt of the assistant at the end.
    ///
    /// # Errors
    /// [`TokenizerError::NoChatTemplate`], or [`TokenizerError::ChatTemplate`] if the template is malformed, exceeds a limit,
    /// or rejects the conversation with a message of its own.
    pub fn chat_text(&self, messages: &[Message]) -> Result<String, TokenizerError> {
        self.chat_text_with(messages, &ChatInputs::default())
    }

    /// [`chat_text`](Self::chat_text) with tools, documents, further variables, a time, or another end.
    ///
    /// # Errors
    /// As for [`chat_text`](Self::chat_text), and if a message is to be continued that the template does not show.
    pub fn chat_text_with(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> Result<String, TokenizerError> {
        let quoting = self.quoting(messages, inputs)?;
        self.render_to_end(messages, inputs, quoting.spare[0], &|text| text.to_owned())
    }

    /// A conversation rendered by the model's chat template, to be read as text or as ids.
    ///
    /// # Errors
    /// As for [`chat_text_with`](Self::chat_text_with).
    pub fn render_chat(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> Result<RenderedChat<'_>, TokenizerError> {
        let quoting = self.quoting(messages, inputs)?;
        let text = self.render_to_end(messages, inputs, quoting.spare[0], &|text| quoting.quote(text))?;
        Ok(RenderedChat { tokenizer: self, quoting, text })
    }

    /// The ids of [`chat_text`](Self::chat_text). Control tokens of the template become control ids; those spelled in a
    /// message are ordinary text.
    ///
    /// # Errors
    /// As for [`chat_text`](Self::chat_text) and [`encode`](Self::encode).
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerError> {
        self.encode_chat_with(messages, &ChatInputs::default())
    }

    /// The ids of [`chat_text_with`](Self::chat_text_with), made as [`encode_chat`](Self::encode_chat) makes them.
    ///
    /// # Errors
    /// As for [`chat_text_with`](Self::chat_text_with) and [`encode`](Self::encode).
    pub fn encode_chat_with(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
    ) -> Result<Vec<u32>, TokenizerError> {
        self.render_chat(messages, inputs)?.encode()
    }

    /// The chat template of a conversation, with tools or without.
    ///
    /// # Errors
    /// If there is none, or there are several and none is the default.
    pub fn chat_template_for(&self, with_tools: bool) -> Result<&str, TokenizerError> {
        self.inner.files.template(with_tools)
    }

    /// Marks for the control tokens that a conversation spells.
    fn quoting(&self, messages: &[Message], inputs: &ChatInputs) -> Result<Quoting<'_>, TokenizerError> {
        Quoting::avoiding(&strings_of(messages, inputs), self.inner.control_tokens()).ok_or_else(|| {
            let message = "the conversation uses every character of a private plane of Unicode, of which it needs three";
            TokenizerError::ChatTemplate { message: message.to_owned() }
        })
    }

    /// Renders with the end that `inputs` wants; `mark` is a character that occurs nowhere in them.
    fn render_to_end(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
        mark: char,
        shown: &dyn Fn(&str) -> String,
    ) -> Result<String, TokenizerError> {
        let refused = |message: &str| TokenizerError::ChatTemplate { message: message.to_owned() };
        match inputs.end {
            ChatEnd::GenerationPrompt => self.render(messages, inputs, Rendering::GENERATION_PROMPT, shown),
            ChatEnd::Closed => self.render(messages, inputs, Rendering::CLOSED, shown),
            ChatEnd::Continued => {
                let mut messages = messages.to_vec();
                // The blank tells whether the template takes away blanks at the end, as in transformers.
                let marked = messages.last_mut().is_some_and(|last| last.extend(&format!("{mark} ")));
                if !marked {
                    return Err(refused("there is no final message with a content to continue"));
                }
                let text = self.render(&messages, inputs, Rendering::CLOSED, shown)?;
                let Some((before, after)) = text.rsplit_once(mark) else {
                    return Err(refused(
                        "it does not show the final message, so that it cannot be continued",
                    ));
                };
                let text =
                    if after.starts_with(' ') { before } else { before.trim_end_matches(python::is_space) };
                Ok(text.to_owned())
            }
        }
    }

    /// Renders the template, with `shown` applied to each of its input strings.
    ///
    /// A template that fails on the calls of a conversation gets them again in the other forms that templates want.
    fn render(
        &self,
        messages: &[Message],
        inputs: &ChatInputs,
        rendering: Rendering,
        shown: &dyn Fn(&str) -> String,
    ) -> Result<String, TokenizerError> {
        let template = self.inner.files.template(inputs.tools.is_some())?;
        let form = Form { parts: Parts::of(template), arguments_as_text: false, empty_for_none: false };
        let first = self.render_as(template, messages, inputs, rendering, (form, shown));
        if first.is_ok() || messages.iter().all(|message| message.tool_calls.is_empty()) {
            return first;
        }
        let others = [(false, true), (true, false), (true, true)].into_iter();
        let mut others = others.map(|(arguments_as_text, empty_for_none)| {
            let form = Form { arguments_as_text, empty_for_none, ..form };
            self.render_as(template, messages, inputs, rendering, (form, shown))
        });
        others.find(Result::is_ok).unwrap_or(first)
    }

    fn render_as(
        &self,
        template: &str,
        messages: &[Message],
        inputs: &ChatInputs,
        rendering: Rendering,
        (form, shown): (Form, &dyn Fn(&str) -> String),
    ) -> Result<String, TokenizerError> {
        let value = |value: &serde_json::Value| Value::from(Serde(quoting::map_strings(value, shown)));
        let conversation: Vec<Value> =
            messages.iter().map(|message| Value::from(Serde(message.to_template(form, shown)))).collect();
        let list = |values: &Option<Vec<serde_json::Value>>| match values {
            Some(values) => values.iter().map(value).collect(),
            None => Value::from(()),
        };
        let mut variables: Vec<(&str, Value)> =
            inputs.variables.iter().map(|(name, given)| (name.as_str(), value(given))).collect();
        variables.retain(|(name, _)| !RESERVED.contains(name));
        variables.extend([
            ("messages", Value::from(conversation)),
            ("tools", list(&inputs.tools)),
            ("documents", list(&inputs.documents)),
            ("add_generation_prompt", Value::from(rendering.add_generation_prompt)),
        ]);
        // A token that is not set is undefined, which templates ask for.
        let set = |(name, token): (&'static str, &Option<String>)| Some((name, Value::from(token.clone()?)));
        variables.extend(self.special_tokens().roles().into_iter().filter_map(set));
        let bytes = strings_of(messages, inputs).into_iter().map(str::len).sum();
        let work = render::Work {
            template,
            variables,
            now: inputs.now,
            n_messages: messages.len(),
            bytes,
            marks: rendering.marks,
        };
        work.run().map_err(|message| TokenizerError::ChatTemplate { message })
    }
}

/// Every text that a template is given.
fn strings_of<'a>(messages: &'a [Message], inputs: &'a ChatInputs) -> Vec<&'a str> {
    let mut given = Vec::new();
    messages.iter().for_each(|message| message.strings(&mut given));
    let lists = inputs.tools.iter().chain(&inputs.documents).flatten();
    lists.chain(inputs.variables.values()).for_each(|value| quoting::strings_of(value, &mut given));
    given
}

#[cfg(test)]
mod tests;
