//! `POST /v1/chat/completions`: OpenAI's chat completions, whole or as a stream.
//!
//! Follows OpenAI's API reference, with vLLM's additions (`chat_template_kwargs`, `continue_final_message`,
//! `add_generation_prompt`, `documents`, `reasoning_content`, and those of `/v1/completions`). The prompt is what the model's own
//! chat template makes of the messages. Without a number of tokens, an answer may fill the rest of the context.

mod json;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::http::asked::{self, Asked};
use crate::http::chat::{ChatRequest, prepare};
use crate::http::fields::Fields;
use crate::http::generation::{Identity, respond};
use crate::http::openapi::schema_of;
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};

use json::ChatRenderer;

pub(in crate::http) use json::logprobs;

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    const NUMBER: &str = "a number of tokens";
    fields.one_of("max_tokens", NUMBER, &[schema_of::<u32>]);
    fields.one_of("max_completion_tokens", NUMBER, &[schema_of::<u32>]);
    let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
    ChatRequest::parse(fields, app, &served).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| ChatRequest::parse(fields, &app, served);
    let Asked { served, parsed, client, reserved } =
        asked::read(&app, request, Capability::Generate, parse).await?;
    let prepared = prepare(&app, &served, parsed).await?;
    drop(reserved);
    let identity = Identity::next(&app, &served);
    let renderer = ChatRenderer::new(Arc::clone(&served), identity.clone(), &prepared);
    respond(&app, &served, prepared.work, (&identity, client), renderer).await
}
