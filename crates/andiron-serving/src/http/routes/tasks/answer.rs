//! `POST /answer`: the span of a context that answers a question.

use std::sync::Arc;

use andiron_pipelines::{AnswerText, Question};
use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;

use super::{Answered, answer, mixed_up};
use crate::http::fields::Fields;
use crate::http::inputs::bounded;
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

/// Tokens of an answer unless the request says so, as in `predict`.
const MAX_ANSWER_TOKENS: usize = 30;

#[derive(Serialize)]
pub(in crate::http::routes) struct Found {
    model: String,
    answer: String,
    /// In characters of the context.
    start: usize,
    end: usize,
    score: f32,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Answer, parse)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Found>, ApiError> {
    let Answered { served, outputs, .. } =
        answer(&app, request, Capability::Answer, "context", parse).await?;
    match outputs.into_iter().next() {
        Some(Output::Answer(found)) => {
            let AnswerText::Text(answer) = found.answer else { return Err(mixed_up()) };
            let (start, end) = (found.span.start, found.span.end);
            Ok(Json(Found { model: served.info.id.clone(), answer, start, end, score: found.score }))
        }
        _ => Err(mixed_up()),
    }
}

fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<((), Vec<Task>), ApiError> {
    let question = fields.required("question", "a string")?;
    let question = bounded("question", question, Overlong::Refused, served)?;
    let context: String = fields.required("context", "a string")?;
    // It is read in windows, however long it is.
    let most = app.config.limits.max_context_bytes;
    if context.len() > most {
        let message = format_args!("{} bytes, at most {most} are allowed", context.len());
        return Err(ApiError::invalid("context", message));
    }
    let limit = served.sizes().context_len;
    let max_tokens = fields.count("max_answer_tokens", 1, limit)?.unwrap_or(MAX_ANSWER_TOKENS);
    Ok(((), vec![Task::Answer(Question::Text { question, context }, max_tokens)]))
}
