//! A question whose answer is a part of a context.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Shape;
use crate::rows::{Row, RowError, RowFault};

/// Rows with a question, a context and the answers in it. The answers are `{"text": […], "answer_start": […]}` (the columns of
/// the `squad` dataset) or `[{"text": …, "answer_start": …}]` (SQuAD's files). Without an answer a question has none in the
/// context, as in SQuAD 2.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuestionFields {
    /// The question's id; rows may lack it.
    pub id: String,
    /// The question.
    pub question: String,
    /// The context.
    pub context: String,
    /// The answers.
    pub answers: String,
}

/// A question and its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its id, or its place if it has none.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// The text that holds the answers.
    pub context: String,
    /// The answers; none if the context has none.
    pub answers: Vec<Answer>,
}

/// An answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The bytes of the context that it is.
    pub bytes: Range<usize>,
}

impl Default for QuestionFields {
    fn default() -> Self {
        let [id, question, context, answers] = ["id", "question", "context", "answers"].map(str::to_owned);
        Self { id, question, context, answers }
    }
}

impl Shape for QuestionFields {
    type Example = Question;

    fn read(&self, row: &Row) -> Result<Question, RowError> {
        let (question, context) = (row.some_text(&self.question)?, row.some_text(&self.context)?);
        let id = match row.find(&self.id) {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => row.origin().to_string(),
        };
        let mut answers = Vec::new();
        for (text, start) in self.answers(row)? {
            let bytes = place(context, text, start).map_err(|nearest| {
                row.fail(RowFault::AnswerPlace { answer: text.to_owned(), start, nearest })
            })?;
            answers.push(Answer { text: text.to_owned(), bytes });
        }
        Ok(Question { id, question: question.to_owned(), context: context.to_owned(), answers })
    }

    fn guess(row: &Row) -> Option<Self> {
        let has = |field: &str| row.names().any(|name| name == field);
        let fields = Self::default();
        (has(&fields.question) && has(&fields.context) && has(&fields.answers)).then_some(fields)
    }
}

impl QuestionFields {
    /// The texts of the answers and where they begin, in characters.
    fn answers<'a>(&self, row: &'a Row) -> Result<Vec<(&'a str, u64)>, RowError> {
        let field = &self.answers;
        let value = row.get(field)?;
        let wrong = || row.wrong(field, value, "answers with `text` and `answer_start`");
        let answer = |text: Option<&'a Value>, start: Option<&Value>| {
            let start =
                start.and_then(|start| row.whole_in(start)).and_then(|start| u64::try_from(start).ok());
            text.and_then(Value::as_str).zip(start).ok_or_else(wrong)
        };
        match value {
            Value::Array(answers) => {
                answers.iter().map(|found| answer(found.get("text"), found.get("answer_start"))).collect()
            }
            Value::Object(fields) => {
                let list = |name: &str| fields.get(name).and_then(Value::as_array).ok_or_else(wrong);
                let (texts, starts) = (list("text")?, list("answer_start")?);
                if texts.len() != starts.len() {
                    return Err(row.fail(RowFault::Lengths {
                        first: format!("{field}.text"),
                        n_first: texts.len(),
                        second: format!("{field}.answer_start"),
                        n_second: starts.len(),
                    }));
                }
                texts.iter().zip(starts).map(|(text, start)| answer(Some(text), Some(start))).collect()
            }
            _ => Err(wrong()),
        }
    }
}

/// The bytes of an answer that begins at a character; else the character at which it is found.
fn place(context: &str, answer: &str, start: u64) -> Result<Range<usize>, Option<u64>> {
    let byte = usize::try_from(start).ok().and_then(|start| context.char_indices().nth(start));
    match byte {
        Some((byte, _)) if !answer.is_empty() && context[byte..].starts_with(answer) => {
            Ok(byte..byte + answer.len())
        }
        _ if answer.is_empty() => Err(None),
        _ => {
            let found = context.match_indices(answer).map(|(at, _)| context[..at].chars().count() as u64);
            Err(found.min_by_key(|at| at.abs_diff(start)))
        }
    }
}
