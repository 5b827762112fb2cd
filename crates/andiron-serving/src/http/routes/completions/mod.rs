//! `POST /v1/completions`: OpenAI's text completions, whole or as a stream.
//!
//! Follows OpenAI's API reference, with vLLM's additions (`top_k`, `min_p`, `repetition_penalty`, `stop_token_ids`, `ignore_eos`,
//! `min_tokens`, `add_special_tokens`, `max_tokens: 0` with `echo`, `structured_outputs`), llama.cpp's `parse_special`, and OpenAI's
//! `response_format`. Fields that would change the answer and are not supported are refused by name; unknown ones are ignored, as
//! all such servers do.

mod json;
mod logprobs;
mod request;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::http::asked::{self, Asked};
use crate::http::fields::Fields;
use crate::http::generation::{Identity, Prompt, Refused, Work, respond};
use crate::http::{ApiError, App};
use crate::registry::{Capability, Served};

use json::CompletionRenderer;
use request::{CompletionRequest, Prompts};

/// Fields of other routes.
const REFUSED: &Refused = &[("messages", &[]), ("max_completion_tokens", &[])];

/// Reads a request, for the description of the API.
pub(super) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
    CompletionRequest::parse(fields, app, &served).map(drop)
}

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let parse = |fields: &Fields<'_>, served: &Served| CompletionRequest::parse(fields, &app, served);
    let Asked { served, parsed, client, reserved } =
        asked::read(&app, request, Capability::Generate, parse).await?;
    let CompletionRequest { prompts, reading, echo, options } = parsed;
    let prompts = match prompts {
        Prompts::Ids(lists) => lists.into_iter().map(|ids| Prompt { ids, text: None }).collect(),
        Prompts::Texts(texts) => {
            let mut prompts = Vec::with_capacity(texts.len());
            for text in texts {
                let ids = app.encode(&served, text.clone(), reading).await?;
                prompts.push(Prompt { ids, text: Some(text) });
            }
            prompts
        }
    };
    let constraint = app.constrain_if(&served, options.grammar.clone()).await?;
    let identity = Identity::next(&app, &served);
    let renderer = CompletionRenderer {
        served: Arc::clone(&served),
        identity: identity.clone(),
        include_usage: options.stream.is_some_and(|stream| stream.include_usage),
    };
    let work = Work { prompts, options, constraint, echo, markers: Vec::new() };
    drop(reserved);
    respond(&app, &served, work, (&identity, client), renderer).await
}
