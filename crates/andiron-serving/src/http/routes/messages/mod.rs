//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's messages, whole or as a stream.
//!
//! A request becomes one of chat (see [`convert`]) and takes its fields too (`seed`, `min_p`, `chat_template_kwargs` …). A last
//! message of the assistant is continued. Source: Anthropic, "Messages", <https://docs.anthropic.com/en/api/messages>, and
//! "Streaming messages".

mod convert;
mod events;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::asked::{self, Asked};
use crate::http::chat::{ChatRequest, ConversationRequest, prepare, render};
use crate::http::fields::Fields;
use crate::http::generation::{Identity, respond};
use crate::http::openapi::schema_of;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};

use events::MessagesRenderer;

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    fields.one_of(
        "system",
        "a string or an array of blocks",
        &[schema_of::<String>, schema_of::<Vec<Value>>],
    );
    let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
    convert::convert(fields, &served)?.parse(|fields| ChatRequest::parse(fields, app, &served)).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(&app, request).await.unwrap_or_else(|error| events::refusal(&error))
}

/// The length of the prompt that a request would have.
pub(super) async fn count(State(app): State<Arc<App>>, request: Request) -> Response {
    counted(&app, request).await.unwrap_or_else(|error| events::refusal(&error))
}

async fn answer(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| {
        if fields.raw("max_tokens").is_none() {
            return Err(ApiError::invalid("max_tokens", "missing, expected a number of tokens"));
        }
        convert::convert(fields, served)?.parse(|fields| ChatRequest::parse(fields, app, served))
    };
    let Asked { served, parsed, client, reserved } =
        asked::read(app, request, Capability::Generate, parse).await?;
    let prepared = prepare(app, &served, parsed).await?;
    drop(reserved);
    let identity = Identity::next(app, &served);
    let renderer = MessagesRenderer::new(identity.clone(), &prepared);
    respond(app, &served, prepared.work, (&identity, client), renderer).await
}

async fn counted(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| {
        convert::convert(fields, served)?.parse(|fields| ConversationRequest::parse(fields, app, served))
    };
    let Asked { served, parsed, reserved, .. } =
        asked::read(app, request, Capability::Generate, parse).await?;
    let rendered = render(app, &served, parsed).await?;
    drop(reserved);
    Ok(Json(json!({"input_tokens": rendered.ids.len()})).into_response())
}
