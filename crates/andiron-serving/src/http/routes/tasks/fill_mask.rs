//! `POST /fill-mask`: the likeliest tokens for each mask in texts.

use std::sync::Arc;

use andiron_pipelines::{FilledMask, MaskedText};
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

/// Candidates for a mask unless the request says so, as in `predict`.
const TOP: usize = 5;

#[derive(Serialize)]
pub(in crate::http::routes) struct Filled {
    model: String,
    results: Vec<Masks>,
}

#[derive(Serialize)]
struct Masks {
    index: usize,
    masks: Vec<Mask>,
}

#[derive(Serialize)]
struct Mask {
    /// Among the token ids of the text.
    position: usize,
    /// Likeliest first.
    top: Vec<Candidate>,
}

#[derive(Serialize)]
struct Candidate {
    token: Option<String>,
    id: u32,
    probability: f32,
}

impl From<FilledMask> for Mask {
    fn from(filled: FilledMask) -> Self {
        let candidates = filled.top.into_iter().map(|guess| Candidate {
            token: guess.token,
            id: guess.id,
            probability: guess.probability,
        });
        Self { position: filled.position, top: candidates.collect() }
    }
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::FillMask, parse)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Filled>, ApiError> {
    let Answered { served, outputs, .. } =
        answer(&app, request, Capability::FillMask, "input", parse).await?;
    let filled = outputs.into_iter().enumerate().map(|(index, output)| match output {
        Output::Masks(masks) => Ok(Masks { index, masks: masks.into_iter().map(Mask::from).collect() }),
        _ => Err(mixed_up()),
    });
    Ok(Json(Filled { model: served.info.id.clone(), results: filled.collect::<Result<_, _>>()? }))
}

fn parse(fields: &Fields<'_>, app: &App, served: &Served) -> Result<((), Vec<Task>), ApiError> {
    let top = fields.count("top", 1, app.config.limits.max_candidates)?.unwrap_or(TOP);
    // A text that is cut could lose its mask.
    let Inputs { inputs, .. } = Inputs::parse(fields, "input", Overlong::Refused, app, served)?;
    let task = |input| Task::FillMask(MaskedText { input, positions: None }, top);
    Ok(((), inputs.into_iter().map(task).collect()))
}
