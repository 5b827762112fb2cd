//! The engine's thread.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use andiron_models::generate::{Decoding, GenerateError, NextToken, Progress};
use tokio::sync::mpsc;

use super::generation::{Event, GenerationError};
use super::queue::{Shared, Ticket, Work};

/// One running job.
struct Running<S> {
    decoding: Decoding<S>,
    events: mpsc::UnboundedSender<Event>,
    prompt_len: usize,
    scores_prompt: bool,
    alone: bool,
}

/// Whether a job has more to do.
enum Turn {
    Again,
    Over,
}

/// Serves until stopped.
pub(super) fn run<M: NextToken>(model: &M, shared: &Shared, max_running: NonZeroUsize) {
    let mut running: Vec<Running<M::State>> = Vec::with_capacity(max_running.get());
    while let Work::Go(started) = shared.next_work(running.len()) {
        running.extend(started.into_iter().filter_map(|ticket| start(model, ticket)));
        let mut turns = together(model, &mut running).into_iter();
        let mut index = 0;
        // Each job waits for every other one once a round.
        while index < running.len() {
            shared.beat();
            let job = &mut running[index];
            let turn = turns.next().flatten().unwrap_or_else(|| advance(model, job));
            match turn {
                Turn::Again => index += 1,
                Turn::Over => discard(running.remove(index)),
            }
        }
    }
    let waiting = shared.close();
    for events in
        running.into_iter().map(|job| job.events).chain(waiting.into_iter().map(|ticket| ticket.events))
    {
        tell(&events, Event::Failed(GenerationError::Stopped));
    }
}

/// A step of all jobs that can be taken together; `None` for those that have yet to take theirs.
fn together<M: NextToken>(model: &M, running: &mut [Running<M::State>]) -> Vec<Option<Turn>> {
    let goes = |job: &Running<M::State>| !job.alone && !job.events.is_closed() && job.decoding.takes_one_id();
    let chosen: Vec<bool> = running.iter().map(goes).collect();
    let mut jobs: Vec<_> =
        running.iter_mut().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(job, _)| job).collect();
    if jobs.len() < 2 {
        return Vec::new();
    }
    let progress = {
        let mut decodings: Vec<_> = jobs.iter_mut().map(|job| &mut job.decoding).collect();
        guarded(|| Ok(Decoding::step_together(model, &mut decodings)))
    };
    let mut turns: Vec<Turn> = match progress {
        Ok(None) => return Vec::new(),
        Ok(Some(progress)) => {
            let told = |(job, progress): (&&mut Running<M::State>, Result<Progress, GenerateError>)| {
                job.tell(progress.map_err(GenerationError::from))
            };
            jobs.iter().zip(progress).map(told).collect()
        }
        // Nobody knows whose fault it was, and none of them can go on.
        Err(error) => jobs.iter().map(|job| job.tell(Err(error.clone()))).collect(),
    };
    turns.reverse();
    chosen.into_iter().map(|chosen| if chosen { turns.pop() } else { None }).collect()
}

fn start<M: NextToken>(model: &M, ticket: Ticket) -> Option<Running<M::State>> {
    let Ticket { job, events } = ticket;
    let (prompt_len, scores_prompt, alone) = (job.prompt.len(), job.options.score_prompt, job.alone);
    match guarded(|| Decoding::new(model, &job.prompt, job.options).map_err(GenerationError::from)) {
        Ok(decoding) => Some(Running { decoding, events, prompt_len, scores_prompt, alone }),
        Err(error) => {
            tell(&events, Event::Failed(error));
            None
        }
    }
}

/// One step of one job.
fn advance<M: NextToken>(model: &M, job: &mut Running<M::State>) -> Turn {
    if job.events.is_closed() {
        return Turn::Over;
    }
    let progress = guarded(|| job.decoding.step(model).map_err(GenerationError::from));
    if job.scores_prompt && job.decoding.prompt_tokens().len() + 1 == job.prompt_len {
        job.scores_prompt = false;
        tell(&job.events, Event::Prompt(job.decoding.prompt_tokens().to_vec()));
    }
    job.tell(progress)
}

impl<S> Running<S> {
    /// Tells the client what a step did.
    fn tell(&self, progress: Result<Progress, GenerationError>) -> Turn {
        match progress {
            Ok(Progress::Prefill { .. }) => return Turn::Again,
            Ok(Progress::Token(token)) => tell(&self.events, Event::Token(token)),
            Ok(Progress::Finished(_)) => {}
            Err(error) => {
                tell(&self.events, Event::Failed(error));
                return Turn::Over;
            }
        }
        match self.decoding.finish_reason() {
            Some(reason) => {
                tell(&self.events, Event::Finished(reason));
                Turn::Over
            }
            None => Turn::Again,
        }
    }
}

/// Runs a piece of one job, or of some together, so that its panic stays their own.
///
/// The model is only ever borrowed shared, so a panic leaves it as it was unless it has interior mutability; the job's
/// state may be broken and is thrown away by the caller.
fn guarded<T>(work: impl FnOnce() -> Result<T, GenerationError>) -> Result<T, GenerationError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let message = payload.downcast_ref::<&str>().copied().map(str::to_owned);
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(message, "the model panicked; the request fails, the engine goes on");
        Err(GenerationError::Panicked)
    })
}

/// Frees a job, whose state may panic in its destructor after a failure.
fn discard<S>(job: Running<S>) {
    if catch_unwind(AssertUnwindSafe(|| drop(job))).is_err() {
        tracing::error!("a decoding state panicked when it was freed");
    }
}

/// A client that is gone is noticed at the job's next turn.
fn tell(events: &mpsc::UnboundedSender<Event>, event: Event) {
    drop(events.send(event));
}
