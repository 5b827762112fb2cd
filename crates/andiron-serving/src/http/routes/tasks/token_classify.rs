//! `POST /token-classify`: labelled spans of texts, such as named entities.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;

use super::{Answered, answer, mixed_up};
use crate::http::fields::Fields;
use crate::http::inputs::Inputs;
use crate::http::text::Overlong;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};
use crate::runner::{Output, Task};

#[derive(Serialize)]
pub(in crate::http::routes) struct TokenClassified {
    model: String,
    results: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    index: usize,
    entities: Vec<Entity>,
    truncated: bool,
}

#[derive(Serialize)]
struct Entity {
    label: String,
    score: f32,
    /// In characters of the text, or in tokens if ids were given.
    start: usize,
    end: usize,
    text: Option<String>,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::TokenClassify, parse)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<TokenClassified>, ApiError> {
    let Answered { served, outputs, .. } =
        answer(&app, request, Capability::TokenClassify, "input", parse).await?;
    let found = outputs.into_iter().enumerate().map(|(index, output)| {
        let Output::Entities(found) = output else { return Err(mixed_up()) };
        let entities = found.entities.into_iter().map(|entity| Entity {
            label: entity.label,
            score: entity.score,
            start: entity.span.start,
            end: entity.span.end,
            text: entity.text,
        });
        Ok(Found { index, entities: entities.collect(), truncated: found.truncated })
    });
    Ok(Json(TokenClassified { model: served.info.id.clone(), results: found.collect::<Result<_, _>>()? }))
}

fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<((), Vec<Task>), ApiError> {
    let Inputs { inputs, .. } = Inputs::parse(fields, "input", Overlong::Cut, app, served)?;
    Ok(((), inputs.into_iter().map(Task::TokenClassify).collect()))
}
