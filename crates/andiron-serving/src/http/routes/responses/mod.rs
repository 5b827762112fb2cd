//! `POST /v1/responses` and `POST /v1/responses/input_tokens`: OpenAI's responses, whole or as a stream.
//!
//! Nothing is stored: every request brings its whole conversation, and `previous_response_id` is refused by name. A request becomes
//! one of chat (see [`convert`]) and takes its fields too (`seed`, `top_k`, `stop`, `chat_template_kwargs` …). Events come in
//! OpenAI's order and numbered.

mod convert;
mod events;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::http::asked::{self, Asked};
use crate::http::chat::{ChatRequest, ConversationRequest, prepare, render};
use crate::http::fields::Fields;
use crate::http::generation::{Identity, respond};
use crate::http::openapi::schema_of;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};

use events::ResponsesRenderer;

pub(in crate::http) use convert::conversation;

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    fields.one_of("input", "a string or an array of items", &[schema_of::<String>, schema_of::<Vec<Value>>]);
    fields.one_of("instructions", "a string", &[schema_of::<String>]);
    fields.one_of("max_output_tokens", "a number of tokens", &[schema_of::<u32>]);
    fields.one_of("reasoning", "an object with `effort`", &[schema_of::<Map<String, Value>>]);
    fields.one_of("text", "an object with `format`", &[schema_of::<Map<String, Value>>]);
    let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
    convert::convert(fields)?.parse(|fields| ChatRequest::parse(fields, app, &served)).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| {
        let request = convert::convert(fields)?.parse(|fields| ChatRequest::parse(fields, &app, served))?;
        Ok((request, fields.to_map()?))
    };
    let Asked { served, parsed: (request, said), client, reserved } =
        asked::read(&app, request, Capability::Generate, parse).await?;
    let prepared = prepare(&app, &served, request).await?;
    drop(reserved);
    let identity = Identity::next(&app, &served);
    let renderer = ResponsesRenderer::new(Arc::clone(&served), identity.clone(), &prepared, said);
    respond(&app, &served, prepared.work, (&identity, client), renderer).await
}

/// The length of the prompt that a request would have.
pub(super) async fn count(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| {
        convert::convert(fields)?.parse(|fields| ConversationRequest::parse(fields, &app, served))
    };
    let Asked { served, parsed, reserved, .. } =
        asked::read(&app, request, Capability::Generate, parse).await?;
    let rendered = render(&app, &served, parsed).await?;
    drop(reserved);
    Ok(Json(json!({"object": "response.input_tokens", "input_tokens": rendered.ids.len()})))
}
