//! The channel from a job to its client, and how far the client lags behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use andiron_models::generate::FinishReason;
use tokio::sync::mpsc;

use super::generation::{Event, Generation, GenerationError};
use crate::metrics::{Meter, Outcome};

/// A client that lags behind and has read nothing for this long is stuck. Without the time, a fast model would look like a stuck client.
const STALL: Duration = Duration::from_secs(1);

/// The sending side of a [`Generation`].
#[derive(Debug)]
pub(super) struct Feed {
    events: mpsc::UnboundedSender<Event>,
    backlog: Arc<Backlog>,
    meter: Meter,
}

/// Sent and unread events.
#[derive(Debug)]
pub(super) struct Backlog {
    unread: AtomicUsize,
    /// Prompt tokens that were not prefilled.
    cached: AtomicUsize,
    born: Instant,
    /// Milliseconds from `born` to the client's latest read.
    taken_ms: AtomicU64,
    /// Whether the client ended the generation because its text is complete.
    complete: AtomicBool,
}

/// Both ends of a channel; `meter` measures what passes.
pub(super) fn feed(meter: Meter) -> (Feed, Generation) {
    let (events, receiver) = mpsc::unbounded_channel();
    let backlog = Arc::new(Backlog {
        unread: AtomicUsize::new(0),
        cached: AtomicUsize::new(0),
        born: Instant::now(),
        taken_ms: AtomicU64::new(0),
        complete: AtomicBool::new(false),
    });
    let generation = Generation { events: receiver, backlog: Arc::clone(&backlog), over: false };
    (Feed { events, backlog, meter }, generation)
}

impl Feed {
    /// The job leaves the queue.
    pub(super) fn started(&self) {
        self.meter.started();
    }

    /// A disconnected client is noticed before the job's next step.
    pub(super) fn tell(&self, event: Event) {
        // Before the event is sent, so that a client that has read it finds it counted.
        match &event {
            Event::Prompt(_) => self.meter.prompt_read(),
            Event::Token(_) => self.meter.token(),
            Event::Finished(FinishReason::Stop) => self.meter.end(Outcome::Stop),
            Event::Finished(FinishReason::Length) => self.meter.end(Outcome::Length),
            Event::Failed(GenerationError::Stopped) => self.meter.end(Outcome::Abort),
            Event::Failed(_) => self.meter.end(Outcome::Error),
        }
        self.backlog.unread.fetch_add(1, Ordering::Relaxed);
        drop(self.events.send(event));
    }

    /// Tells how many of the prompt's tokens are not prefilled; before the first event.
    pub(super) fn tell_cached(&self, tokens: usize) {
        self.backlog.cached.store(tokens, Ordering::Relaxed);
    }

    /// Whether the client has disconnected.
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the client has more than `most` unread events and reads none.
    pub(super) fn is_stuck(&self, most: usize) -> bool {
        self.backlog.unread.load(Ordering::Relaxed) > most && self.backlog.idle() > STALL
    }
}

impl Drop for Feed {
    /// The client ended the generation, unless it has ended already.
    fn drop(&mut self) {
        let complete = self.backlog.complete.load(Ordering::Relaxed);
        self.meter.end(if complete { Outcome::Stop } else { Outcome::Abort });
    }
}

impl Backlog {
    /// The client needs no more.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    /// The client read an event.
    pub(super) fn taken(&self) {
        self.unread.fetch_sub(1, Ordering::Relaxed);
        self.taken_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn cached(&self) -> usize {
        self.cached.load(Ordering::Relaxed)
    }

    fn idle(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.taken_ms.load(Ordering::Relaxed)))
    }
}
