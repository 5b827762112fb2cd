//! The thread of a one-shot model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::OneShotModel;
use super::queue::{Shared, Ticket};
use super::task::{Output, Task, TaskError};
use crate::metrics::ModelMetrics;

/// Time of a batch: short enough for the next client, and for one that goes away.
const BATCH: Duration = Duration::from_millis(100);

/// Tokens of a batch before the speed is known.
const FIRST: usize = 512;

/// Tokens of a batch at least, where there are so many.
const LEAST: usize = 128;

/// Serves until stopped.
pub(super) fn run<M: OneShotModel>(model: &M, shared: &Shared, metrics: &ModelMetrics, max_tokens: usize) {
    let mut budget = FIRST.min(max_tokens);
    while let Some(batch) = shared.next_batch(budget) {
        let tokens: usize = batch.iter().map(|ticket| ticket.tokens).sum();
        let started = Instant::now();
        answer(model, shared, metrics, batch);
        // What a small batch takes says little about a large one.
        if tokens >= LEAST.min(budget) {
            let rate = tokens as f64 / started.elapsed().as_secs_f64().max(1e-6);
            let fitting = (rate * BATCH.as_secs_f64()) as usize;
            budget = usize::midpoint(budget, fitting).clamp(LEAST.min(max_tokens), max_tokens);
        }
    }
    for ticket in shared.close() {
        ticket.answer(Err(TaskError::Stopped));
    }
}

/// Runs a batch. If the model panics, its tasks run one by one, so that it costs the one whose fault it is.
fn answer<M: OneShotModel>(model: &M, shared: &Shared, metrics: &ModelMetrics, batch: Vec<Ticket>) {
    let tasks: Vec<&Task> = batch.iter().map(|ticket| &ticket.task).collect();
    let waits = |index: usize| {
        shared.status().beat();
        batch[index].is_awaited() && !shared.is_stopped()
    };
    let results = match guarded(model, &tasks, &waits) {
        Some(results) => results,
        None if batch.len() == 1 => vec![Err(TaskError::Panicked)],
        None => {
            // Nobody computes for a client that has gone.
            let alone = |(index, task): (usize, &&Task)| match waits(index) {
                false => Err(TaskError::Stopped),
                true => {
                    let results = guarded(model, std::slice::from_ref(task), &|_| waits(index));
                    results.and_then(|mut results| results.pop()).unwrap_or(Err(TaskError::Panicked))
                }
            };
            tasks.iter().enumerate().map(alone).collect()
        }
    };
    for (ticket, result) in batch.into_iter().zip(results) {
        metrics.add_answer(result.as_ref().ok().map(Output::tokens), ticket.age());
        ticket.answer(result);
    }
}

/// One result per task; `None` if the model panicked.
///
/// The model is only ever borrowed shared, so a panic leaves it as it was.
fn guarded<M: OneShotModel>(
    model: &M,
    tasks: &[&Task],
    waits: &dyn Fn(usize) -> bool,
) -> Option<Vec<Result<Output, TaskError>>> {
    let results = catch_unwind(AssertUnwindSafe(|| model.run(tasks, waits))).ok();
    match results {
        Some(results) if results.len() == tasks.len() => Some(results),
        Some(_) => {
            tracing::error!("a one-shot model did not answer every task");
            None
        }
        None => {
            tracing::error!(tasks = tasks.len(), "the model panicked; what it was asked for runs one by one");
            None
        }
    }
}
