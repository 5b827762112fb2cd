//! Task `answer`: extractive question answering.

use andiron_pipelines::{AnswerText, EncoderPipeline, FoundAnswer, Question};
use serde_json::json;

use super::rows::{Answer, Row, RowError, answer_parsed, object, take, take_typed_ids};

pub(super) struct FindAnswer {
    pub(super) model: EncoderPipeline,
    /// Longest answer, in tokens.
    pub(super) max_tokens: usize,
}

impl Answer for FindAnswer {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(rows, question, |questions| {
            let found = self.model.answer(&questions, self.max_tokens);
            found.into_iter().map(|found| Ok(row(found?))).collect()
        })
    }

    /// A context may be long.
    fn rows_together(&self) -> usize {
        32
    }
}

fn question(row: &mut Row) -> Result<Question, RowError> {
    if row.contains_key("ids") {
        let (ids, type_ids) = take_typed_ids(row)?;
        return Ok(Question::Ids { ids, type_ids });
    }
    let mut wanted = |key: &str| {
        take::<String>(row, key, "a string")?
            .ok_or_else(|| RowError::invalid(format!("there is no {key}; question and context are needed")))
    };
    Ok(Question::Text { question: wanted("question")?, context: wanted("context")? })
}

fn row(found: FoundAnswer) -> Row {
    let (start, end, score) = (found.span.start, found.span.end, found.score);
    object(match found.answer {
        AnswerText::Text(text) => json!({ "answer": text, "start": start, "end": end, "score": score }),
        AnswerText::Ids(ids) => {
            json!({ "answer": null, "answer_ids": ids, "start": start, "end": end, "score": score })
        }
    })
}
