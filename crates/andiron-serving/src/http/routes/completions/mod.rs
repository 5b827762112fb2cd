//! `POST /v1/completions`: OpenAI's text completions, whole or as a stream.
//!
//! Follows OpenAI's API reference, with vLLM's additions (`top_k`, `min_p`, `repetition_penalty`, `stop_token_ids`, `ignore_eos`,
//! `min_tokens`, `add_special_tokens`, `max_tokens: 0` with `echo`, `structured_outputs`), llama.cpp's `parse_special`, and OpenAI's
//! `response_format`. Fields that would change the answer and are not supported are refused by name (see [`known`]);
//! unknown ones are ignored, as all such servers do.

mod choice;
mod grammar;
mod json;
mod known;
mod merge;
mod plan;
mod request;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::fields::Fields;
use crate::http::limits::read_json;
use crate::http::sse::{self, Events, Gone};
use crate::http::{ApiError, App, Phase};
use crate::registry::Capability;

use merge::Answer;
use request::{CompletionRequest, StreamOptions};

/// Interval of keep-alive comments in an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down());
    }
    let (head, body) = request.into_parts();
    let (body, reserved) = read_json(&app, &head.headers, body).await?;
    let (served, request) = {
        let fields = Fields::parse(&body)?;
        let served = app.served_for(fields.model()?.as_deref(), Capability::Generate)?;
        let request = CompletionRequest::parse(&fields, &app, &served)?;
        (served, request)
    };
    drop(body);
    let stream = request.stream;
    let mut answer = Answer::start(&app, &served, request, app.config.access.client(&head)).await?;
    drop(reserved);
    match stream {
        None => {
            let whole = answer.collect().await?;
            Ok(Json(whole).into_response())
        }
        Some(options) => {
            let (events, response) = sse::channel();
            tokio::spawn(async move {
                let written = AssertUnwindSafe(write(&mut answer, options, &events)).catch_unwind().await;
                let ended = match written {
                    Ok(Err(Gone)) => return,
                    Ok(Ok(Ok(()))) => Ok(()),
                    Ok(Ok(Err(error))) => Err(error),
                    Err(_) => Err(ApiError::internal("the server failed on this request")),
                };
                // The work ends before the last words, which may wait for a slow reader.
                answer.cancel();
                if let Err(error) = ended
                    && events.send(&error.body()).await.is_err()
                {
                    return;
                }
                // A client that has gone needs no farewell.
                drop(events.done().await);
            });
            Ok(response)
        }
    }
}

/// Writes all chunks, unless the client disconnects or the generation fails.
async fn write(
    answer: &mut Answer,
    options: StreamOptions,
    events: &Events,
) -> Result<Result<(), ApiError>, Gone> {
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    keep_alive.reset();
    loop {
        let next = tokio::select! {
            biased;
            () = events.gone() => return Err(Gone),
            next = answer.next() => next,
            _ = keep_alive.tick() => {
                events.keep_alive().await?;
                continue;
            }
        };
        match next {
            Err(error) => return Ok(Err(error)),
            Ok(Some((index, delta))) => {
                events.send(&answer.envelope.chunk(index, delta, options.include_usage)).await?;
            }
            Ok(None) => break,
        }
        keep_alive.reset();
    }
    let usage = answer.usage();
    if options.include_usage {
        events.send(&answer.envelope.usage_chunk(usage)).await?;
    }
    Ok(Ok(()))
}
