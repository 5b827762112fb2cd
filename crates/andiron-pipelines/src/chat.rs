//! Task `chat`: answer the messages of a conversation.

use andiron_core::KvCache;
use andiron_data::tokenizer::Message;
use andiron_models::generate::{Decoding, GenerateOptions, Prefix};

use crate::DecoderPipeline;
use crate::generate::{Completion, CompletionError, complete};
use crate::text_processor::TextError;

/// Default maximum number of tokens in an answer.
const MAX_TOKENS: usize = 512;

/// A conversation so far, and its KV cache.
///
/// Each turn's prompt is the whole conversation in the model's chat template. Only new tokens are prefilled: the KV cache of the
/// prefix that a turn shares with the one before is kept.
#[derive(Debug)]
pub struct Conversation {
    /// All messages, answers included.
    messages: Vec<Message>,
    /// How answers are generated; `max_new_tokens` is ignored.
    options: GenerateOptions,
    /// Maximum tokens of an answer; `None` is that of the model's files, else 512.
    max_tokens: Option<usize>,
    read: Option<Prefix<KvCache>>,
    prompt_tokens: usize,
    read_tokens: usize,
}

impl Conversation {
    /// A conversation that begins with the messages `opening`, such as a system message. An answer has at most `max_tokens`
    /// tokens; `None` is the limit of the model's files, else 512.
    pub fn new(opening: Vec<Message>, options: GenerateOptions, max_tokens: Option<usize>) -> Self {
        Self { messages: opening, options, max_tokens, read: None, prompt_tokens: 0, read_tokens: 0 }
    }

    /// Starts over with the messages `opening`; the KV cache of the common prefix is kept.
    pub fn reset(&mut self, opening: Vec<Message>) {
        self.messages = opening;
    }

    /// All messages, answers included.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Length of the latest turn's prompt, the whole conversation, in tokens.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// How many of them were prefilled in that turn; the others were in the KV cache.
    pub fn read_tokens(&self) -> usize {
        self.read_tokens
    }
}

impl DecoderPipeline {
    /// Checks that the model can chat, and begin with `opening`.
    ///
    /// # Errors
    /// If there is no tokenizer or no chat template, or the template refuses such messages.
    pub fn check_chat(&self, opening: &[Message]) -> Result<(), TextError> {
        let probe = [opening, &[Message::new("user", "?")]].concat();
        self.text.require_tokenizer()?.chat_text(&probe)?;
        Ok(())
    }

    /// Answers `message`, calling `show` with each piece of text as soon as it is final. Message and answer are added to the
    /// conversation; an error leaves its messages unchanged.
    ///
    /// # Errors
    /// If there is no tokenizer or no chat template, or the conversation does not fit the model's context.
    pub fn reply(
        &self,
        conversation: &mut Conversation,
        message: String,
        show: impl FnMut(&str),
    ) -> Result<Completion, CompletionError> {
        conversation.messages.push(Message::new("user", message));
        let done = self.next_turn(conversation, show);
        match &done {
            Ok(done) => conversation.messages.push(Message::new("assistant", done.text.clone())),
            Err(_) => drop(conversation.messages.pop()),
        }
        done
    }

    fn next_turn(
        &self,
        conversation: &mut Conversation,
        show: impl FnMut(&str),
    ) -> Result<Completion, CompletionError> {
        let tokenizer = self.text.require_tokenizer()?;
        let ids = tokenizer.encode_chat(&conversation.messages).map_err(TextError::from)?;
        let by_files = || self.bundle.generation.max_new(ids.len());
        let mut options = conversation.options.clone();
        options.max_new_tokens = conversation.max_tokens.or_else(by_files).unwrap_or(MAX_TOKENS);
        options.stop_ids.extend(self.end_ids());
        let text = self.text_stream(&ids, &options.stop_ids, None)?;
        let mut decoding = match conversation.read.take() {
            Some(prefix) => Decoding::after(&self.bundle, prefix, &ids, options)?,
            None => Decoding::new(&self.bundle, &ids, options)?,
        };
        conversation.prompt_tokens = ids.len();
        conversation.read_tokens = decoding.unread();
        let done = complete(&self.bundle, &mut decoding, text, show)?;
        conversation.read = decoding.into_prefix();
        Ok(done)
    }
}
