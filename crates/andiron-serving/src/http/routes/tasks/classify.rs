//! `POST /classify`: labels of texts, or of pairs of texts, with their scores.

use std::sync::Arc;

use andiron_pipelines::TextInput;
use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;

use super::{Answered, answer, mixed_up};
use crate::http::fields::Fields;
use crate::http::inputs::{Inputs, bounded};
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

#[derive(Serialize)]
pub(in crate::http::routes) struct Classified {
    model: String,
    results: Vec<Labelled>,
}

#[derive(Serialize)]
struct Labelled {
    index: usize,
    /// Best first.
    labels: Vec<Label>,
    truncated: bool,
}

#[derive(Serialize)]
struct Label {
    label: String,
    score: f32,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Classify, parse)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Classified>, ApiError> {
    let Answered { served, outputs, .. } =
        answer(&app, request, Capability::Classify, "input", parse).await?;
    let labelled = outputs.into_iter().enumerate().map(|(index, output)| {
        let Output::Labels(found) = output else { return Err(mixed_up()) };
        let labels = found.labels.into_iter().map(|(label, score)| Label { label, score }).collect();
        Ok(Labelled { index, labels, truncated: found.truncated })
    });
    Ok(Json(Classified { model: served.info.id.clone(), results: labelled.collect::<Result<_, _>>()? }))
}

/// `input` is one or several texts, or their ids; `text_pair` is the second of one pair.
fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<((), Vec<Task>), ApiError> {
    let Inputs { mut inputs, single } = Inputs::parse(fields, "input", Overlong::Cut, app, served)?;
    if let Some(second) = fields.optional::<String>("text_pair", "a string")? {
        match inputs.first_mut() {
            Some(TextInput::Text { pair, .. }) if single => {
                *pair = Some(bounded("text_pair", second, Overlong::Cut, served)?);
            }
            _ => return Err(ApiError::invalid("text_pair", "needs one text in `input`")),
        }
    }
    Ok(((), inputs.into_iter().map(Task::Classify).collect()))
}
