//! Prompts and answers as tokens with weights, for objectives that learn answers.

use std::time::{Duration, SystemTime};

use andiron_data::records::{Record, columns};
use andiron_data::reply::described;
use andiron_data::rows::{Conversation, Turns};
use andiron_data::tokenizer::{ChatInputs, Message, Tokenizer, TokenizerError};

use crate::rows::EncodeFault;

/// The date that chat templates are given: 26 July 2024, to which those of Llama 3 default. With today's, the same rows would
/// make other records tomorrow.
const DATE: Duration = Duration::from_secs(1_721_952_000);

/// Role of the messages that are learned.
const ASSISTANT: &str = "assistant";

/// The tokens of a text, and the weight of each as a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WeightedText {
    pub(super) ids: Vec<u32>,
    pub(super) weights: Vec<f32>,
}

impl WeightedText {
    /// A conversation by the model's chat template; the messages that it says are learned.
    pub(super) fn of_conversation(
        tokenizer: &Tokenizer,
        conversation: Conversation,
    ) -> Result<Self, TokenizerError> {
        let Conversation { messages, mut learned, tools } = conversation;
        let inputs = ChatInputs { tools, now: SystemTime::UNIX_EPOCH + DATE, ..ChatInputs::default() };
        let template = tokenizer.chat_template_for(inputs.tools.is_some())?;
        // As the server tells them.
        let (messages, inputs) = described::for_template(template, messages, inputs);
        // Tools that are told in words may need a message of the system before the others.
        learned.splice(0..0, vec![false; messages.len() - learned.len()]);
        let rendered = tokenizer.encode_conversation(&messages, &inputs)?;
        let of_assistant: Vec<bool> = messages
            .iter()
            .zip(learned)
            .filter_map(|(message, learned)| (message.role == ASSISTANT).then_some(learned))
            .collect();
        if !of_assistant.contains(&false) {
            return Ok(Self { weights: rendered.weights(), ids: rendered.ids });
        }
        let (n_spans, n_messages) = (rendered.assistant.len(), of_assistant.len());
        if n_spans != n_messages {
            let message = format!(
                "it marks {n_spans} parts of a conversation with {{% generation %}}, which has {n_messages} messages of \
                 the assistant: single ones cannot be left out"
            );
            return Err(TokenizerError::ChatTemplate { message });
        }
        let mut weights = vec![0.0; rendered.ids.len()];
        for (span, learned) in rendered.assistant.into_iter().zip(of_assistant) {
            if learned {
                weights[span].fill(1.0);
            }
        }
        Ok(Self { ids: rendered.ids, weights })
    }

    /// A prompt and its answer, which is learned: of messages, those of the assistant.
    ///
    /// # Panics
    /// If one is text and the other messages.
    pub(super) fn of_answer(
        tokenizer: &Tokenizer,
        prompt: Turns,
        answer: Turns,
    ) -> Result<Self, TokenizerError> {
        match (prompt, answer) {
            (Turns::Text(prompt), Turns::Text(answer)) => {
                let completion = tokenizer.encode_completion(&prompt, &answer)?;
                Ok(Self { weights: completion.weights(), ids: completion.ids })
            }
            (Turns::Messages(prompt), Turns::Messages(answer)) => {
                let learned = |message: &Message| message.role == ASSISTANT;
                let learned = prompt.iter().map(|_| false).chain(answer.iter().map(learned)).collect();
                let messages = [prompt, answer].concat();
                Self::of_conversation(tokenizer, Conversation { messages, learned, tools: None })
            }
            sides => panic!("a prompt and an answer of one kind, not {sides:?}"),
        }
    }

    /// The same with all tokens learned.
    pub(super) fn learned_whole(mut self) -> Self {
        self.weights.fill(1.0);
        self
    }

    /// Parts of at most `max_length` tokens. Each but the first begins with the last token of the one before, so that every
    /// token but the first of the text is a target once.
    ///
    /// # Errors
    /// If there is no target.
    pub(super) fn divided(self, max_length: usize) -> Result<Vec<Self>, EncodeFault> {
        if self.ids.len() < 2 || max_length < 2 {
            return Err(EncodeFault::NothingToLearn);
        }
        let part = |start: usize| {
            let range = start..self.ids.len().min(start + max_length);
            Self { ids: self.ids[range.clone()].to_vec(), weights: self.weights[range].to_vec() }
        };
        Ok((0..self.ids.len() - 1).step_by(max_length - 1).map(part).collect())
    }

    /// The record of a text: its ids and their weights.
    pub(super) fn into_record(self) -> Record<'static> {
        Record::default().with_ids(columns::IDS, self.ids).with_numbers(columns::WEIGHTS, self.weights)
    }

    /// The first `max_length` tokens.
    ///
    /// # Errors
    /// If none of them is a target: the first token is predicted by nothing.
    pub(super) fn truncated(mut self, max_length: usize) -> Result<Self, EncodeFault> {
        self.ids.truncate(max_length);
        self.weights.truncate(max_length);
        match self.weights.iter().skip(1).any(|&weight| weight > 0.0) {
            true => Ok(self),
            false => Err(EncodeFault::NothingToLearn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_a_long_text_is_a_target_once() {
        for n in 2..12 {
            for max_length in 2..6 {
                let text = WeightedText { ids: (0..n).collect(), weights: vec![1.0; n as usize] };
                let parts = text.divided(max_length).unwrap();
                assert!(parts.iter().all(|part| (2..=max_length).contains(&part.ids.len())), "{parts:?}");
                let targets: Vec<u32> = parts.iter().flat_map(|part| &part.ids[1..]).copied().collect();
                assert_eq!(targets, (1..n).collect::<Vec<_>>());
            }
        }
        let one = WeightedText { ids: vec![1], weights: vec![1.0] };
        assert!(matches!(one.divided(5), Err(EncodeFault::NothingToLearn)));
    }
}
