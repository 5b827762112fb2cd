#![doc = include_str!("../README.md")]

mod answer;
mod attention;
mod batching;
mod chat;
mod classify;
mod continuation;
mod embed;
mod fill;
mod generate;
mod input;
mod label;
mod pipeline;
mod rerank;
pub mod score;
mod seq2seq;
#[cfg(test)]
mod testing;
mod text_processor;
mod text_stream;

pub use answer::{AnswerError, AnswerText, FoundAnswer, Question};
pub use attention::{AttentionError, AttentionRequest, ShownToken, TextAttention};
pub use chat::Conversation;
pub use classify::{Classification, ClassifyTexts, LabelScore};
pub use continuation::{Continuation, ContinuationScore};
pub use embed::Embedding;
pub use fill::{FillError, FilledMask, Guess, MaskedText};
pub use generate::{Completion, CompletionError, GenerateRequest};
pub use input::{InputError, PromptInput, ReadTexts, TextInput};
pub use label::{LabelledEntity, LabelledText};
pub use pipeline::{
    ClassifierPipeline, DecoderPipeline, EncoderPipeline, FamilyError, ModelBundle, OpenError, Pipeline,
    Seq2SeqPipeline,
};
pub use rerank::{RankedDocument, Ranking, RerankRequest};
pub use score::{ScoreError, ScorePair, ScoreTextError, ScoredText, Scores};
pub use seq2seq::{RewriteOptions, Rewritten, SourceError};
pub use text_processor::{TextError, TextProcessor};
pub use text_stream::{TextPiece, TextStream, TextStreamError};
