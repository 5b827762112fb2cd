//! Server-sent events: frames in the order they were made, ended by `[DONE]`.
//!
//! Source: WHATWG HTML, section "Server-sent events", <https://html.spec.whatwg.org/multipage/server-sent-events.html>; the
//! `[DONE]` frame is OpenAI's.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::ApiError;

/// Frames that may wait for a slow reader before the producer waits too.
const FRAMES_AHEAD: usize = 32;

/// The writing side of an event stream.
pub(super) struct Events {
    frames: mpsc::Sender<Bytes>,
}

/// The client has gone, so nothing more needs to be made.
#[derive(Debug, PartialEq)]
pub(super) struct Gone;

/// A response that sends what is written to the other half, for as long as the client reads.
pub(super) fn channel() -> (Events, Response) {
    let (frames, received) = mpsc::channel(FRAMES_AHEAD);
    let frames_in_order = stream::unfold(received, |mut received| async {
        received.recv().await.map(|frame| (Ok::<Bytes, Infallible>(frame), received))
    });
    let mut response = Response::new(Body::from_stream(frames_in_order));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies of the nginx family would collect the whole stream first.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (Events { frames }, response)
}

impl Events {
    pub(super) async fn send(&self, data: &impl Serialize) -> Result<(), Gone> {
        // JSON text has no line breaks, which is what a frame needs.
        let json = serde_json::to_string(data).unwrap_or_else(|error| {
            tracing::error!(%error, "an event could not be written as JSON");
            ApiError::internal("the response could not be written").body().to_string()
        });
        self.frame(format!("data: {json}\n\n")).await
    }

    /// Tells proxies and impatient clients that the connection lives.
    pub(super) async fn keep_alive(&self) -> Result<(), Gone> {
        self.frame(": waiting\n\n".to_owned()).await
    }

    pub(super) async fn done(&self) -> Result<(), Gone> {
        self.frame("data: [DONE]\n\n".to_owned()).await
    }

    /// Waits until the client has gone.
    pub(super) async fn gone(&self) {
        self.frames.closed().await;
    }

    async fn frame(&self, text: String) -> Result<(), Gone> {
        self.frames.send(text.into()).await.map_err(|_| Gone)
    }
}
