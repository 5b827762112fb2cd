//! A prompt and its completion.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chat::messages_in;
use super::{Shape, first_of};
use crate::rows::{Row, RowError, RowFault};
use crate::tokenizer::Message;

/// Rows with a prompt and its completion: two texts, or two lists of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompletionFields {
    /// The prompt.
    pub prompt: String,
    /// The completion, from which the model learns.
    pub completion: String,
}

/// Text, or messages for a chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Text as it is.
    Text(String),
    /// Messages.
    Messages(Vec<Message>),
}

/// A prompt and its completion. Either both are text or both are messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The prompt.
    pub prompt: Turns,
    /// The completion.
    pub completion: Turns,
}

impl Default for CompletionFields {
    fn default() -> Self {
        Self { prompt: "prompt".into(), completion: "completion".into() }
    }
}

impl Shape for CompletionFields {
    type Example = Completion;

    fn read(&self, row: &Row) -> Result<Completion, RowError> {
        let (prompt, completion) = (turns_in(row, &self.prompt)?, answer_in(row, &self.completion)?);
        let (prompt, completion) = alike(prompt, completion);
        Ok(Completion { prompt, completion })
    }

    fn guess(row: &Row) -> Option<Self> {
        let prompt = first_of(row, &["prompt", "question", "instruction"])?;
        let completion = first_of(row, &["completion", "response", "answer", "output"])?;
        Some(Self { prompt, completion })
    }
}

/// Text or messages.
pub(super) fn turns_in(row: &Row, field: &str) -> Result<Turns, RowError> {
    match row.find(field) {
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            messages_in(row, field, value).map(Turns::Messages)
        }
        _ => row.text(field).map(|text| Turns::Text(text.to_owned())),
    }
}

/// Text that is not empty, or messages with one of the assistant.
pub(super) fn answer_in(row: &Row, field: &str) -> Result<Turns, RowError> {
    let answer = turns_in(row, field)?;
    match &answer {
        Turns::Text(_) => {
            row.some_text(field)?;
        }
        Turns::Messages(messages) if !messages.iter().any(|message| message.role == "assistant") => {
            return Err(row.fail(RowFault::NoAssistant { field: field.to_owned() }));
        }
        Turns::Messages(_) => {}
    }
    Ok(answer)
}

/// Makes messages of a text if the other side has messages: a text is the user's as a prompt, the assistant's as an answer.
pub(super) fn alike(prompt: Turns, answer: Turns) -> (Turns, Turns) {
    let message = |role, text| Turns::Messages(vec![Message::new(role, text)]);
    match (prompt, answer) {
        (Turns::Text(prompt), answer @ Turns::Messages(_)) => (message("user", prompt), answer),
        (prompt @ Turns::Messages(_), Turns::Text(answer)) => (prompt, message("assistant", answer)),
        same => same,
    }
}
