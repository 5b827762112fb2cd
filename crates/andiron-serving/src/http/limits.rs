//! Limits on connections and requests, checked before anything is allocated.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

use super::work::{BodyMemory, Reserved};
use super::{ApiError, App, Phase};

/// Limits on connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// Open connections of one address without a request yet; one more closes the oldest of them. All addresses together may have
    /// half of `max_connections`.
    pub max_silent_connections: usize,
    /// Header fields in a request; more give 431.
    pub max_headers: usize,
    /// Bytes of a request's head, at least 8192; more give 431.
    pub max_header_bytes: usize,
    /// Time for a request's head to arrive, and for an idle connection to send the next one.
    pub header_timeout: Duration,
    /// Bytes of a request's body; more give 413.
    pub max_body_bytes: usize,
    /// Total bytes of bodies being read or waiting for the tokenizer, not counting those below 32 KiB; beyond that 429.
    pub max_body_bytes_together: usize,
    /// Time for a request's body to arrive.
    pub body_timeout: Duration,
    /// Time in which a client must read something of what is sent to it.
    pub write_timeout: Duration,
    /// Time for a request as a whole.
    pub request_timeout: Duration,
    /// Completions of one prompt (`n`).
    pub max_n: usize,
    /// Generations of one request: prompts times `n`.
    pub max_choices: usize,
    /// Tokens generated for one choice, besides the bound that the model's context sets.
    pub max_tokens: usize,
    /// Alternatives reported with each token (`logprobs`).
    pub max_logprobs: usize,
    /// Log-probabilities in one response: choices times tokens times alternatives.
    pub max_logprob_entries: usize,
    /// Stop strings.
    pub max_stops: usize,
    /// Bytes of one stop string.
    pub max_stop_bytes: usize,
    /// Stop token ids.
    pub max_stop_ids: usize,
    /// Entries of `logit_bias`.
    pub max_logit_bias: usize,
    /// Age of the engine's heartbeat from which `/health` reports it dead.
    pub max_heartbeat_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_silent_connections: 64,
            max_headers: 64,
            max_header_bytes: 16 << 10,
            header_timeout: Duration::from_secs(10),
            max_body_bytes: 2 << 20,
            max_body_bytes_together: 64 << 20,
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(600),
            max_n: 8,
            max_choices: 128,
            max_tokens: 32 << 10,
            max_logprobs: 20,
            max_logprob_entries: 2 << 20,
            max_stops: 4,
            max_stop_bytes: 256,
            max_stop_ids: 128,
            max_logit_bias: 1024,
            max_heartbeat_age: Duration::from_secs(10),
        }
    }
}

/// The whole body of a JSON request.
///
/// The content type is required because a web page of another origin cannot send it without a CORS preflight, so it cannot use a
/// local server.
///
/// Dropping the second value releases the body's memory budget. A service that shuts down does not wait for bodies.
pub(super) async fn read_json(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Reserved), ApiError> {
    let limits = &app.config.limits;
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::not_json());
    }
    tokio::select! {
        biased;
        read = read(limits.max_body_bytes, &app.bodies, headers, body) => read,
        () = tokio::time::sleep(limits.body_timeout) => Err(ApiError::body_too_slow()),
        () = app.shutdown.reached(Phase::Draining) => Err(ApiError::shutting_down()),
    }
}

async fn read(
    limit: usize,
    memory: &BodyMemory,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Reserved), ApiError> {
    let mut reserved = Reserved::default();
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_long = length.is_some_and(|length| length > limit as u64);
    // A client that asks first is told at once, and one that claims an absurd length is not worth waiting for.
    let absurd = length.is_some_and(|length| length > 8 * limit as u64);
    if too_long && (absurd || headers.contains_key(header::EXPECT)) {
        return Err(ApiError::body_too_large(limit));
    }
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::with_capacity(length.unwrap_or(0).min(limit as u64).min(64 << 10) as usize);
    let mut seen = 0usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::malformed("the request body ended early"))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            memory.grow(&mut reserved, seen)?;
            whole.extend_from_slice(&chunk);
        } else {
            // Read on a little without keeping it: closing a socket with unread bytes would throw the answer away.
            whole = Vec::new();
            reserved = Reserved::default();
            if seen > 8 * limit {
                break;
            }
        }
    }
    match seen <= limit {
        true => Ok((whole.into(), reserved)),
        false => Err(ApiError::body_too_large(limit)),
    }
}
