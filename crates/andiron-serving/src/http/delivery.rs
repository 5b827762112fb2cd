//! When an answer has been delivered: once its last byte is with the socket, not once it has been made.
//!
//! A large answer sits in the connection's buffer while its client reads. Each answer therefore holds a token that travels
//! from the handler into the body, from the body, when it has been taken up whole, to its connection, and is let go when
//! that has flushed its buffer or is closed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Response;
use hyper::body::{Frame, SizeHint};

use super::Answering;

/// Tokens of answers that are in the connection's buffer.
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

/// Lets `answering` go when `response` has left through the connection of `outbox`.
pub(super) fn track(response: Response<Body>, answering: Answering, outbox: Outbox) -> Response<Body> {
    response.map(|body| Body::new(Tracked { body, answering: Some(answering), outbox }))
}

/// A body that hands over its token when it is dropped, which the connection does when it has taken the last frame.
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
