//! Server-sent events, ended by `[DONE]`.
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

/// Frames buffered for a slow reader.
const FRAMES_AHEAD: usize = 32;

/// The writing side of an event stream.
pub(super) struct Events {
    frames: mpsc::Sender<Bytes>,
}

/// The client has disconnected.
#[derive(Debug, PartialEq)]
pub(super) struct Gone;

/// An event stream: its writing side, and the response that sends it.
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
    /// Sends an event, with a name if it has one.
    pub(super) async fn send(&self, name: Option<&str>, data: &impl Serialize) -> Result<(), Gone> {
        // JSON text has no line breaks, which is what a frame needs.
        let json = serde_json::to_string(data).unwrap_or_else(|error| {
            tracing::error!(%error, "an event could not be written as JSON");
            ApiError::internal("the response could not be written").body().to_string()
        });
        let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        self.frame(format!("{name}data: {json}\n\n")).await
    }

    /// Sends a comment, so that proxies and clients keep the connection.
    pub(super) async fn keep_alive(&self) -> Result<(), Gone> {
        self.frame(": waiting\n\n".to_owned()).await
    }

    pub(super) async fn done(&self) -> Result<(), Gone> {
        self.frame("data: [DONE]\n\n".to_owned()).await
    }

    /// Waits until the client has disconnected.
    pub(super) async fn gone(&self) {
        self.frames.closed().await;
    }

    async fn frame(&self, text: String) -> Result<(), Gone> {
        self.frames.send(text.into()).await.map_err(|_| Gone)
    }
}
