//! Prompts as conversations, by a model's chat template, as lm-evaluation-harness 0.4.13 makes them with `--apply_chat_template`.

use andiron_data::Tokenizer;
use andiron_data::tokenizer::{ChatEnd, ChatInputs, Message, TokenizerError};

/// Makes prompts conversations.
#[derive(Clone, Copy, Debug)]
pub struct Chat<'a> {
    /// The tokenizer whose chat template is applied.
    pub tokenizer: &'a Tokenizer,
    /// Whether few-shot examples are messages of their own. Else they and the question are one message of the user.
    pub multiturn: bool,
}

/// Who says a part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

/// A part of a prompt: a message of a conversation, or a text with what stands between it and the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) text: String,
    /// What follows where it is no message.
    pub(super) delimiter: String,
}

impl Turn {
    pub(super) fn new(role: Role, text: impl Into<String>, delimiter: impl Into<String>) -> Self {
        Self { role, text: text.into(), delimiter: delimiter.into() }
    }

    fn message(&self) -> Message {
        let role = match self.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        Message::new(role, self.text.clone())
    }
}

/// A prompt that is no conversation.
pub(super) fn plain(turns: &[Turn]) -> String {
    turns.iter().flat_map(|turn| [turn.text.as_str(), turn.delimiter.as_str()]).collect()
}

impl Chat<'_> {
    /// The conversation `turns`, up to where the model goes on: the beginning of its message, or what it is to continue.
    pub(super) fn text(&self, turns: &[Turn]) -> Result<String, TokenizerError> {
        let messages =
            if self.multiturn { turns.iter().map(Turn::message).collect() } else { single_turn(turns) };
        match self.render(&messages) {
            // As the harness does: many templates know no system message.
            Err(TokenizerError::ChatTemplate { .. }) if messages.iter().any(|of| of.role == "system") => {
                self.render(&messages.into_iter().filter(|of| of.role != "system").collect::<Vec<_>>())
            }
            result => result,
        }
    }

    fn render(&self, messages: &[Message]) -> Result<String, TokenizerError> {
        let begun = messages.last().is_some_and(|last| last.role == "assistant");
        let end = if begun { ChatEnd::Continued } else { ChatEnd::GenerationPrompt };
        self.tokenizer.chat_text_with(messages, &ChatInputs { end, ..ChatInputs::default() })
    }
}

/// Examples and question as one message of the user, between the system's and the beginning of the answer.
fn single_turn(turns: &[Turn]) -> Vec<Message> {
    let (system, turns) = match turns.split_first() {
        Some((first, rest)) if first.role == Role::System => (Some(first), rest),
        _ => (None, turns),
    };
    let (beginning, asked) = match turns.split_last() {
        Some((last, rest)) if last.role == Role::Assistant => (Some(last), rest),
        _ => (None, turns),
    };
    let mut text = plain(asked);
    if let Some(last) = asked.last() {
        text.truncate(text.len() - last.delimiter.len());
    }
    let asked = Turn::new(Role::User, text, "");
    system.into_iter().chain([&asked]).chain(beginning).map(Turn::message).collect()
}
