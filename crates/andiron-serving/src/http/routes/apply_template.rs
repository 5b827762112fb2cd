//! `POST /apply-template`: the prompt that a conversation becomes, as llama.cpp's server has it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::http::chat::{ConversationRequest, render};
use crate::http::fields::Fields;
use crate::http::limits::read_json;
use crate::http::{ApiError, App};

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    let served = app.served(fields.model()?.as_deref())?;
    ConversationRequest::parse(fields, app, &served).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(&app, &head.headers, body).await?;
    let (served, conversation) = {
        let fields = Fields::parse(&body)?;
        let served = app.served(fields.model()?.as_deref())?;
        let conversation = ConversationRequest::parse(&fields, &app, &served)?;
        (served, conversation)
    };
    drop(body);
    let rendered = render(&app, &served, conversation).await?;
    drop(reserved);
    Ok(Json(json!({"prompt": rendered.text, "count": rendered.ids.len()})))
}
