//! Task `answer`: extractive question answering over a context of any length.

use std::borrow::Borrow;
use std::ops::Range;

use andiron_models::encoder::Span;

use crate::EncoderPipeline;
use crate::batching::{BATCH_TOKENS, in_batches};
use crate::input::{Encoded, InputError, TextInput, Types, characters};

/// Overlap of consecutive windows of a long context, in tokens.
const OVERLAP: usize = 128;

/// A question and the context to find its answer in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// As text.
    Text {
        /// The question.
        question: String,
        /// The context, of any length.
        context: String,
    },
    /// As ids: the answer is among tokens of type 1, or among all if there is one type only.
    Ids {
        /// The ids, special tokens included.
        ids: Vec<u32>,
        /// Token type of each.
        type_ids: Option<Vec<u32>>,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundAnswer {
    /// Its text or ids.
    pub answer: AnswerText,
    /// Its range: in characters of the context, or in tokens if ids were given.
    pub span: Range<usize>,
    /// Probability of its start times that of its end, within its window.
    pub score: f32,
}

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerText {
    /// A part of the context.
    Text(String),
    /// Some of the ids.
    Ids(Vec<u32>),
}

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The texts or ids cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The context is empty.
    #[error("context has no token in which an answer could be")]
    EmptyContext,
    /// No token may be part of an answer.
    #[error("there is no token in which an answer could be")]
    NothingAllowed,
}

/// The windows of one question.
type Windows = Vec<Window>;

/// A question with a part of its context.
struct Window {
    input: Encoded,
    /// Which tokens may be part of an answer.
    allowed: Vec<bool>,
}

impl EncoderPipeline {
    /// The best answer to each question, of `max_tokens` tokens at most.
    ///
    /// # Panics
    /// If the model has no question answering head.
    pub fn answer<Q: Borrow<Question>>(
        &self,
        questions: &[Q],
        max_tokens: usize,
    ) -> Vec<Result<FoundAnswer, AnswerError>> {
        let read: Vec<Result<Windows, AnswerError>> =
            questions.iter().map(|question| self.windows(question.borrow())).collect();
        let all: Vec<&Window> = read.iter().flatten().flatten().collect();
        let spans = in_batches(
            &all,
            |window| window.input.len(),
            BATCH_TOKENS,
            |batch| {
                let views: Vec<_> = batch.iter().map(|window| window.input.view()).collect();
                let allowed: Vec<&[bool]> = batch.iter().map(|window| window.allowed.as_slice()).collect();
                self.bundle.spans(&views, &allowed, max_tokens)
            },
        );
        let mut spans = spans.into_iter();
        let mut found = |(windows, question): (&Windows, &Question)| {
            let mut best: Option<(&Window, Span)> = None;
            for (window, span) in windows.iter().zip(spans.by_ref()) {
                let Some(span) = span else { continue };
                if best.as_ref().is_none_or(|(_, best)| span.score > best.score) {
                    best = Some((window, span));
                }
            }
            found_answer(question, best)
        };
        read.into_iter()
            .zip(questions)
            .map(|(windows, question)| found((&windows?, question.borrow())))
            .collect()
    }

    fn windows(&self, question: &Question) -> Result<Windows, AnswerError> {
        let (reader, limit) = (self.reader(), self.bundle.config.max_positions());
        match question {
            Question::Text { question, context } => {
                let overlap = OVERLAP.min(limit / 4);
                let windows = reader
                    .tokenizer()?
                    .frame_windows(question, context, limit, overlap)
                    .map_err(InputError::from)?;
                let window = |framed| {
                    let input = reader.framed(framed, limit)?;
                    Ok(Window { allowed: input.own(|place| place.text == 1), input })
                };
                windows.into_iter().map(window).collect()
            }
            Question::Ids { ids, type_ids } => {
                let input = TextInput::Ids { ids: ids.clone(), type_ids: type_ids.clone() };
                let input = reader.read(&input, limit, Types::MarkTokens)?;
                let types = &input.framed.type_ids;
                let two = types.iter().any(|&id| id != 0);
                Ok(vec![Window { allowed: types.iter().map(|&id| !two || id == 1).collect(), input }])
            }
        }
    }
}

fn found_answer(question: &Question, best: Option<(&Window, Span)>) -> Result<FoundAnswer, AnswerError> {
    match (question, best) {
        (Question::Text { .. }, None) => Err(AnswerError::EmptyContext),
        (Question::Ids { .. }, None) => Err(AnswerError::NothingAllowed),
        (Question::Text { context, .. }, Some((window, Span { tokens, score }))) => {
            let (span, text) = characters(context, window.input.bytes(tokens));
            Ok(FoundAnswer { answer: AnswerText::Text(text), span, score })
        }
        (Question::Ids { ids, .. }, Some((_, Span { tokens, score }))) => {
            Ok(FoundAnswer { answer: AnswerText::Ids(ids[tokens.clone()].to_vec()), span: tokens, score })
        }
    }
}
