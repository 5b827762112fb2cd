//! The receiving side of one generation.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use andiron_models::generate::{FinishReason, GenerateError, Token};
use futures_util::Stream;
use tokio::sync::mpsc;

use super::feed::Backlog;

/// An event of a job. In order: the scored prompt if requested, tokens, then one of the last two.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt was prefilled; its tokens from the second on, with their log-probabilities.
    Prompt(Vec<Token>),
    /// The next token.
    Token(Token),
    /// The last event of a job that succeeded.
    Finished(FinishReason),
    /// The last event of a job that failed.
    Failed(GenerationError),
}

/// Why a job failed after it was accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// The job is invalid.
    #[error(transparent)]
    Invalid(#[from] GenerateError),
    /// The model panicked in a step of this job. The log has details; other jobs continue.
    #[error("the model failed on this request")]
    Panicked,
    /// The client does not read its tokens, so the job was ended to free its slot.
    #[error("the answer is not being read: it was ended {behind} tokens ahead of its reader")]
    Behind {
        /// Unread tokens.
        behind: usize,
    },
    /// The engine was stopped.
    #[error("the engine was stopped before the generation ended")]
    Stopped,
}

/// A running or waiting generation: a stream of [`Event`]s.
///
/// Dropping it cancels the job: a queued job leaves the queue, a running one ends before its next step. The buffer holds at most
/// all requested tokens, so a slow reader blocks no thread.
#[derive(Debug)]
pub struct Generation {
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) over: bool,
}

impl Generation {
    /// Prompt tokens that were not prefilled, because their keys and values were cached; known with the first event.
    pub fn cached_tokens(&self) -> usize {
        self.backlog.cached()
    }

    /// Ends the generation because its text is complete, for example at a stop string. Metrics count it as one that stopped; one
    /// that is dropped counts as aborted.
    pub fn complete(self) {
        self.backlog.complete();
    }

    /// The next event; `None` after the last one.
    pub async fn next_event(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Generation {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.over {
            return Poll::Ready(None);
        }
        // A channel that closes without a last event means that the thread is gone.
        let event = std::task::ready!(self.events.poll_recv(cx));
        if event.is_some() {
            self.backlog.taken();
        }
        let event = event.unwrap_or(Event::Failed(GenerationError::Stopped));
        self.over = matches!(event, Event::Finished(_) | Event::Failed(_));
        Poll::Ready(Some(event))
    }
}
