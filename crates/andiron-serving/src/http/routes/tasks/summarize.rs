//! `POST /summarize`: summaries of texts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;

use super::rewrite::Rewriting;
use crate::http::asked::{self, Asked};
use crate::http::fields::Fields;
use crate::http::inputs::{check_count, texts};
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};

#[derive(Serialize)]
pub(in crate::http::routes) struct Summarized {
    model: String,
    results: Vec<Summary>,
}

#[derive(Serialize)]
struct Summary {
    index: usize,
    summary: String,
    finish_reason: &'static str,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    super::describe(fields, app, Capability::Summarize, |fields, app, _| parse(fields, app))
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Summarized>, ApiError> {
    let parse = |fields: &Fields<'_>, _: &Served| parse(fields, &app);
    let Asked { served, parsed: rewriting, client, reserved } =
        asked::read(&app, request, Capability::Summarize, parse).await?;
    let written = rewriting.write(&app, &served, client).await?;
    drop(reserved);
    let summaries = written.into_iter().enumerate().map(|(index, mut written)| Summary {
        index,
        summary: written.texts.swap_remove(0),
        finish_reason: if written.cut { "length" } else { "stop" },
    });
    Ok(Json(Summarized { model: served.info.id.clone(), results: summaries.collect() }))
}

fn parse(fields: &Fields<'_>, app: &App) -> Result<Rewriting, ApiError> {
    let sources = texts(fields, "input")?.texts;
    check_count("input", sources.len(), app.config.limits.max_sources)?;
    Ok(Rewriting {
        wanted: Capability::Summarize,
        param: "input",
        sources,
        max_tokens: fields.count("max_tokens", 1, app.config.limits.max_tokens)?,
        alternatives: 0,
    })
}
