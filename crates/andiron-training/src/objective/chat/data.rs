//! Rows of conversations, instructions and completions.

use std::sync::Arc;

use andiron_data::collate;
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{
    ChatFields, Completion, CompletionFields, Conversation, InstructionFields, Row, RowError, Shape,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Chat, ChatConfig, Learn};
use crate::objective::FromConfig;
use crate::objective::weighted_text::WeightedText;
use crate::plan::{Plan, Setup};
use crate::rows::{EncodeFault, Encoding};
use crate::trainer::TrainError;

/// The fields of a row to learn an answer from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected fields of conversations (messages, system, tools), of instructions (instruction, input, output, \
                 system) or of completions (prompt, completion)"
)]
pub enum ChatRows {
    /// A conversation.
    Chat(ChatFields),
    /// An instruction and its answer.
    Instruction(InstructionFields),
    /// A prompt and its completion.
    Completion(CompletionFields),
}

/// What is read from such a row.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatExample {
    /// A conversation.
    Conversation(Conversation),
    /// A prompt and its completion.
    Completion(Completion),
}

impl Shape for ChatRows {
    type Example = ChatExample;

    fn read(&self, row: &Row) -> Result<ChatExample, RowError> {
        match self {
            Self::Chat(fields) => fields.read(row).map(ChatExample::Conversation),
            Self::Instruction(fields) => fields.read(row).map(ChatExample::Conversation),
            Self::Completion(fields) => fields.read(row).map(ChatExample::Completion),
        }
    }

    fn guess(row: &Row) -> Option<Self> {
        ChatFields::guess(row)
            .map(Self::Chat)
            .or_else(|| InstructionFields::guess(row).map(Self::Instruction))
            .or_else(|| CompletionFields::guess(row).map(Self::Completion))
    }
}

impl FromConfig for Chat {
    type Config = ChatConfig;

    fn plan(config: &ChatConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let model = setup.base.decoder()?;
        let tokenizer = setup.open_tokenizer()?;
        let max_length = setup.max_length(model.max_positions());
        let shape: ChatRows = setup.fields(
            "messages (or conversations), an instruction with its output, or a prompt with its completion: name them in \
             data.fields",
        )?;
        let encode = |example: ChatExample| -> Result<Record<'static>, EncodeFault> {
            let text = match example {
                ChatExample::Conversation(conversation) => {
                    WeightedText::of_conversation(&tokenizer, conversation)?
                }
                ChatExample::Completion(Completion { prompt, completion }) => {
                    WeightedText::of_answer(&tokenizer, prompt, completion)?
                }
            };
            let text = match config.learn {
                Learn::Answers => text,
                Learn::All => text.learned_whole(),
            };
            Ok(text.truncated(max_length)?.into_record())
        };
        let encoding = Encoding {
            shape,
            columns: &[(columns::IDS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)],
            settings: json!({ "learn": config.learn, "max_length": max_length }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let collator = collate::Supervised { limit: max_length, pad: 0 };
        let data = setup.packable_records(&encoding, Arc::new(collator))?;
        Ok(Plan { objective: Self, start: setup.base.start(model.clone()), data })
    }
}
