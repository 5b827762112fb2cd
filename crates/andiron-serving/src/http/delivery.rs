//! Tracks the delivery of responses: one is delivered when its last byte has reached the socket.
//!
//! A large response sits in the connection's buffer while its client reads. So each response holds a guard: first the body has it;
//! after the last frame it moves to the connection, which drops it when its buffer is flushed or it closes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Response;
use hyper::body::{Frame, SizeHint};

use super::Answering;

/// Guards of responses in the connection's buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    written: Arc<Mutex<Vec<Answering>>>,
}

impl Outbox {
    /// The buffer is empty.
    pub(super) fn flushed(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Answering>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops `answering` when `response` has been sent by the connection of `outbox`.
pub(super) fn track(response: Response<Body>, answering: Answering, outbox: Outbox) -> Response<Body> {
    response.map(|body| Body::new(Tracked { body, answering: Some(answering), outbox }))
}

/// A body that hands over its guard when the connection drops it, after the last frame.
struct Tracked {
    body: Body,
    answering: Option<Answering>,
    outbox: Outbox,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.outbox.lock().extend(self.answering.take());
    }
}
