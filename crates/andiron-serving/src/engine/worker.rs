//! The engine's thread.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use andiron_models::generate::{CausalLm, Decoding, GenerateError, Progress};

use super::counters::Totals;
use super::feed::Feed;
use super::generation::{Event, GenerationError};
use super::pace::Pace;
use super::prefills::Prefills;
use super::queue::{Shared, Ticket, Work};
use super::{Job, SharedPrompt};

/// One running job.
struct Running<S> {
    decoding: Decoding<S>,
    feed: Feed,
    prompt_len: usize,
    scores_prompt: bool,
    deterministic: bool,
    client: u64,
    max_behind: Option<usize>,
    /// Maximum prompt tokens per prefill step.
    prefill_chunk: usize,
    /// The prompt it shares with other jobs, until it is prefilled.
    shared_prompt: Option<SharedPrompt>,
    role: Role,
}

/// How a job gets its prompt prefilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// By itself, or it is done.
    Own,
    /// By itself, and for the jobs that share it.
    Leads,
    /// It waits for another job to do it.
    Waits,
}

/// Whether a job continues.
enum Turn {
    Again,
    Over,
}

/// Serves until stopped.
pub(super) fn run<M: CausalLm>(model: &M, shared: &Shared, max_running: NonZeroUsize) {
    let mut running: Vec<Running<M::State>> = Vec::with_capacity(max_running.get());
    let mut pace = Pace::default();
    let mut prefills = Prefills::new(max_running.get());
    // A state that cannot be copied is not worth waiting for.
    let forks = model.fork(&model.begin()).is_some();
    loop {
        let clients: Vec<u64> = running.iter().map(|job| job.client).collect();
        let Work::Go(started) = shared.next_work(&clients) else { break };
        running.extend(started.into_iter().filter_map(|ticket| start(model, ticket, forks, &shared.totals)));
        share_prompts(model, &mut running, &prefills, &shared.totals);
        prefills.sweep();
        let mut turns = together(model, &mut running, &shared.totals).into_iter();
        let mut index = 0;
        let readers = running.iter().filter(|job| job.reads_prompt()).count();
        let waiting = running.iter().filter(|job| job.role == Role::Waits).count();
        let others_write = readers + waiting < running.len();
        // Each job waits for every other one once a round.
        while index < running.len() {
            shared.beat();
            let job = &mut running[index];
            let turn = turns.next().flatten().unwrap_or_else(|| match job.reads_prompt() {
                true => read(model, job, &mut pace, others_write.then_some(readers), &shared.totals),
                false => advance(model, job, &shared.totals),
            });
            job.leave_prefill(&mut prefills);
            match turn {
                Turn::Again => index += 1,
                Turn::Over => discard(running.remove(index)),
            }
        }
    }
    let waiting = shared.close();
    let feeds = running.into_iter().map(|job| job.feed).chain(waiting.into_iter().map(|ticket| ticket.feed));
    for feed in feeds {
        feed.tell(Event::Failed(GenerationError::Stopped));
    }
}

/// Decodes a step of all batchable jobs as one batch; `None` for the jobs that still have to take their step.
fn together<M: CausalLm>(model: &M, running: &mut [Running<M::State>], totals: &Totals) -> Vec<Option<Turn>> {
    let stuck = |job: &Running<M::State>| job.max_behind.is_some_and(|most| job.feed.is_stuck(most));
    let goes = |job: &Running<M::State>| {
        !job.deterministic && !stuck(job) && !job.feed.is_closed() && job.decoding.is_decoding()
    };
    let chosen: Vec<bool> = running.iter().map(goes).collect();
    let mut jobs: Vec<_> =
        running.iter_mut().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(job, _)| job).collect();
    if jobs.len() < 2 {
        return Vec::new();
    }
    let progress = {
        let mut decodings: Vec<_> = jobs.iter_mut().map(|job| &mut job.decoding).collect();
        guarded(|| Ok(Decoding::decode_step_batch(model, &mut decodings)))
    };
    let mut turns: Vec<Turn> = match progress {
        Ok(None) => return Vec::new(),
        Ok(Some(progress)) => {
            let told = |(job, progress): (&&mut Running<M::State>, Result<Progress, GenerateError>)| {
                job.tell(progress.map_err(GenerationError::from), totals)
            };
            jobs.iter().zip(progress).map(told).collect()
        }
        // Nobody knows whose fault it was, and none of them can go on.
        Err(error) => jobs.iter().map(|job| job.tell(Err(error.clone()), totals)).collect(),
    };
    turns.reverse();
    chosen.into_iter().map(|chosen| if chosen { turns.pop() } else { None }).collect()
}

/// Decides which job prefills a shared prompt, and hands finished prefills to the jobs that wait for them.
fn share_prompts<M: CausalLm>(
    model: &M,
    running: &mut [Running<M::State>],
    prefills: &Prefills<M::State>,
    totals: &Totals,
) {
    for at in 0..running.len() {
        let (before, rest) = running.split_at_mut(at);
        let Some((job, after)) = rest.split_first_mut() else { return };
        let Some(prompt) = job.shared_prompt.as_ref().filter(|_| job.role != Role::Leads) else { continue };
        if let Some(prefill) = prefills.find(prompt) {
            // Otherwise it reads its prompt itself.
            let adopted = job.decoding.adopt_prefill(model, prefill);
            let hits = if adopted { job.prompt_len } else { 0 };
            totals.looked_up(job.prompt_len, hits);
            job.feed.tell_cached(hits);
            (job.shared_prompt, job.role) = (None, Role::Own);
            continue;
        }
        let leads = |other: &Running<M::State>| {
            other.role == Role::Leads && other.shared_prompt.as_ref() == Some(prompt)
        };
        job.role = match before.iter().chain(&*after).any(leads) {
            true => Role::Waits,
            false => Role::Leads,
        };
        if job.role == Role::Leads {
            job.decoding.share_prefill();
        }
    }
}

fn start<M: CausalLm>(model: &M, ticket: Ticket, forks: bool, totals: &Totals) -> Option<Running<M::State>> {
    let Ticket { job, feed } = ticket;
    let Job { prompt, options, deterministic, shared_prompt, client, max_behind } = job;
    let (prompt_len, scores_prompt) = (prompt.len(), options.score_prompt);
    let prefill_chunk = options.prefill_chunk;
    totals.started(prompt_len);
    match guarded(|| Decoding::new(model, &prompt, options).map_err(GenerationError::from)) {
        Ok(decoding) => Some(Running {
            decoding,
            feed,
            prompt_len,
            scores_prompt,
            deterministic,
            client,
            max_behind,
            prefill_chunk,
            shared_prompt: shared_prompt.filter(|_| forks),
            role: Role::Own,
        }),
        Err(error) => {
            feed.tell(Event::Failed(error));
            None
        }
    }
}

/// One prefill step. With `readers`, that many jobs are prefilling while others decode, so chunks are short.
fn read<M: CausalLm>(
    model: &M,
    job: &mut Running<M::State>,
    pace: &mut Pace,
    readers: Option<usize>,
    totals: &Totals,
) -> Turn {
    // The chunks decide how numbers are rounded, so they are fixed where an answer is to be the same each time.
    let chunk = match readers {
        Some(readers) if !job.deterministic => pace.chunk(job.prefill_chunk, readers),
        _ => job.prefill_chunk,
    };
    job.decoding.set_prefill_chunk(chunk);
    let (before, started) = (job.decoding.unread(), Instant::now());
    let turn = advance(model, job, totals);
    let ids = before.saturating_sub(job.decoding.unread());
    // The last few ids of a prompt say little about many.
    if ids >= 8 {
        pace.measured(ids, started.elapsed());
    }
    turn
}

/// One step of one job.
fn advance<M: CausalLm>(model: &M, job: &mut Running<M::State>, totals: &Totals) -> Turn {
    if job.feed.is_closed() {
        return Turn::Over;
    }
    if let Some(behind) = job.max_behind.filter(|&most| job.feed.is_stuck(most)) {
        job.feed.tell(Event::Failed(GenerationError::Behind { behind }));
        return Turn::Over;
    }
    if job.role == Role::Waits {
        return Turn::Again;
    }
    let progress = guarded(|| job.decoding.step(model).map_err(GenerationError::from));
    if job.scores_prompt && job.decoding.prompt_tokens().len() + 1 == job.prompt_len {
        job.scores_prompt = false;
        job.feed.tell(Event::Prompt(job.decoding.prompt_tokens().to_vec()));
    }
    job.tell(progress, totals)
}

impl<S> Running<S> {
    /// Whether its next step is a prefill step.
    fn reads_prompt(&self) -> bool {
        self.role != Role::Waits && self.decoding.unread() > 1
    }

    /// Hands the prompt it has just prefilled to the jobs that share it.
    fn leave_prefill(&mut self, prefills: &mut Prefills<S>) {
        if let Some(prefill) = self.decoding.take_prefill()
            && let Some(prompt) = self.shared_prompt.take()
        {
            self.role = Role::Own;
            prefills.keep(&prompt, prefill);
        }
    }

    /// Sends the outcome of a step to the client.
    fn tell(&self, progress: Result<Progress, GenerationError>, totals: &Totals) -> Turn {
        match progress {
            Ok(Progress::Prefill { .. }) => return Turn::Again,
            Ok(Progress::Token(token)) => {
                totals.generated(1);
                self.feed.tell(Event::Token(token));
            }
            Ok(Progress::Finished(_)) => {}
            Err(error) => {
                self.feed.tell(Event::Failed(error));
                return Turn::Over;
            }
        }
        match self.decoding.finish_reason() {
            Some(reason) => {
                self.feed.tell(Event::Finished(reason));
                Turn::Over
            }
            None => Turn::Again,
        }
    }
}

/// Runs a step of one job or of a batch; a panic fails only these jobs.
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

/// Drops a job; after a failure, the destructor of its state may panic.
fn discard<S>(job: Running<S>) {
    if catch_unwind(AssertUnwindSafe(|| drop(job))).is_err() {
        tracing::error!("a decoding state panicked when it was freed");
    }
}
