//! The engine without HTTP.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use andiron_models::generate::{
    CausalLm, FinishReason, GenerateError, GenerateOptions, Logits, SamplingParams,
};
use andiron_serving::engine::{
    Engine, EngineConfig, Event, Generation, GenerationError, Job, Load, SubmitError,
};

use andiron_serving::metrics::Counters;

use common::{Alphabet, BOMB, CONTEXT, Copyist, Gate, eventually};

fn engine(max_running: usize) -> (Engine, Gate) {
    let gate = Gate::default();
    let max_running = NonZeroUsize::new(max_running).unwrap();
    let config =
        EngineConfig { max_running, max_queued: 4, max_queued_tokens: 100, ..EngineConfig::default() };
    (Engine::start(Alphabet { gate: gate.clone(), context: CONTEXT }, config).unwrap(), gate)
}

fn job(prompt: &[u32], max_new_tokens: usize) -> Job {
    let options =
        GenerateOptions { sampling: SamplingParams::greedy(), max_new_tokens, ..GenerateOptions::default() };
    Job { prompt: prompt.to_vec(), options, ..Job::default() }
}

async fn all_events(mut generation: Generation) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = generation.next_event().await {
        events.push(event);
    }
    events
}

fn ids(events: &[Event]) -> Vec<u32> {
    let token = |event: &Event| if let Event::Token(token) = event { Some(token.id) } else { None };
    events.iter().filter_map(token).collect()
}

#[tokio::test]
async fn tokens_come_in_order_and_the_reason_is_last() {
    let (engine, _gate) = engine(2);
    let events = all_events(engine.handle().submit(vec![job(&[1], 3)]).unwrap().remove(0)).await;
    assert_eq!(ids(&events), [2, 3, 4]);
    assert_eq!(events.last(), Some(&Event::Finished(FinishReason::Length)));
}

#[tokio::test]
async fn counters_tell_prompt_and_generated_tokens() {
    let (engine, _gate) = engine(2);
    let handle = engine.handle();
    for generation in handle.submit(vec![job(&[1], 3), job(&[1, 2, 3, 4], 5)]).unwrap() {
        all_events(generation).await;
    }
    let wanted = Counters { prompt_tokens: 5, generated_tokens: 8, ..Counters::default() };
    assert_eq!(handle.metrics().counters(), wanted);
}

#[tokio::test]
async fn running_jobs_take_turns_while_a_long_prompt_is_read() {
    let (engine, gate) = engine(2);
    gate.set(Some(0));
    let mut long = job(&[1; 40], 1);
    long.options.prefill_chunk = 4;
    let mut generations = engine.handle().submit(vec![long, job(&[1], 8)]).unwrap();
    let short = generations.remove(1);
    // Ten steps for the prompt, eight for the short job: after seventeen in turn the short one is done.
    gate.set(Some(17));
    assert_eq!(ids(&all_events(short).await).len(), 8);
    gate.set(None);
    assert_eq!(ids(&all_events(generations.remove(0)).await).len(), 1);
}

#[tokio::test]
async fn jobs_are_taken_together_or_not_at_all() {
    let (engine, gate) = engine(1);
    let handle = engine.handle();
    gate.set(Some(0));
    let running = handle.submit(vec![job(&[1], 9)]).unwrap();
    eventually("it runs", || handle.load().running == 1).await;
    let waiting = handle.submit(vec![job(&[1, 2], 1), job(&[1], 1)]).unwrap();
    let refused = handle.submit(vec![job(&[1], 1), job(&[1], 1), job(&[1], 1)]).err();
    assert_eq!(refused, Some(SubmitError::Full { queued: 2, queued_tokens: 3 }));
    let too_many = (0..5).map(|_| job(&[1], 1)).collect();
    assert!(matches!(
        handle.submit(too_many).err(),
        Some(SubmitError::TooLarge { jobs: 5, max_jobs: 4, .. })
    ));
    let too_long = handle.submit(vec![job(&[1; 101], 1)]).err();
    assert!(matches!(too_long, Some(SubmitError::TooLarge { tokens: 101, max_tokens: 100, .. })));
    assert_eq!(handle.load(), Load { running: 1, queued: 2, queued_tokens: 3, ..Load::default() });
    drop(waiting);
    assert_eq!(handle.load(), Load { running: 1, queued: 0, queued_tokens: 0, ..Load::default() });
    drop(running);
    gate.set(None);
    handle.idle().await;
}

#[tokio::test]
async fn one_client_cannot_fill_the_queue_and_each_new_one_finds_room() {
    let gate = Gate::default();
    gate.set(Some(0));
    let config = EngineConfig {
        max_running: NonZeroUsize::new(1).unwrap(),
        max_queued: 64,
        max_queued_tokens: 1000,
        ..EngineConfig::default()
    };
    let engine = Engine::start(Alphabet { gate: gate.clone(), context: CONTEXT }, config).unwrap();
    let handle = engine.handle();
    let of = |client: u64, prompt: &[u32]| vec![Job { client, ..job(prompt, 1) }];
    let running = handle.submit(of(0, &[1])).unwrap();
    eventually("it runs", || handle.load().running == 1).await;
    let mut waiting = Vec::new();
    let mut fill = |client: u64| {
        let before = waiting.len();
        let refused = loop {
            match handle.submit(of(client, &[1])) {
                Ok(generations) => waiting.extend(generations),
                Err(error) => break error,
            }
        };
        let own = waiting.len() - before;
        assert_eq!(refused, SubmitError::ShareFull { waiting: own, waiting_tokens: own });
        own
    };
    // Three quarters of 64, of the 16 that are left, of 4, and the last one.
    assert_eq!([fill(1), fill(2), fill(3)], [48, 12, 3]);
    waiting.extend(handle.submit(of(4, &[1])).unwrap());
    assert_eq!(handle.submit(of(5, &[1])).err(), Some(SubmitError::Full { queued: 64, queued_tokens: 64 }));
    drop(waiting);
    // The same of prompt tokens.
    let mut waiting = handle.submit(of(1, &[1; 700])).unwrap();
    assert!(matches!(
        handle.submit(of(1, &[1; 100])).err(),
        Some(SubmitError::ShareFull { waiting: 1, waiting_tokens: 700 })
    ));
    waiting.extend(handle.submit(of(2, &[1; 100])).unwrap());
    drop((running, waiting));
    gate.set(None);
    handle.idle().await;
}

#[tokio::test]
async fn a_dropped_generation_makes_at_most_two_more_steps() {
    let (engine, gate) = engine(1);
    let handle = engine.handle();
    gate.set(Some(5));
    let mut generation = handle.submit(vec![job(&[1], 60)]).unwrap().remove(0);
    for _ in 0..5 {
        assert!(matches!(generation.next_event().await, Some(Event::Token(_))));
    }
    drop(generation);
    gate.set(None);
    handle.idle().await;
    assert!(gate.steps() <= 7, "{} steps", gate.steps());
}

#[tokio::test]
async fn what_the_model_cannot_do_fails_that_job_alone() {
    let (engine, _gate) = engine(4);
    let jobs = vec![job(&[BOMB], 3), job(&[], 3), job(&[1; 65], 3), job(&[1], 3)];
    let mut last = Vec::new();
    for generation in engine.handle().submit(jobs).unwrap() {
        last.push(all_events(generation).await.pop().unwrap());
    }
    let too_long = GenerateError::PromptTooLong { prompt: 65, wanted: 1, context: CONTEXT };
    assert_eq!(
        last,
        [
            Event::Failed(GenerationError::Panicked),
            Event::Failed(GenerateError::EmptyPrompt.into()),
            Event::Failed(too_long.into()),
            Event::Finished(FinishReason::Length),
        ]
    );
}

#[tokio::test]
async fn the_scored_prompt_comes_before_the_first_token() {
    let (engine, _gate) = engine(1);
    let mut scored = job(&[1, 2, 4], 1);
    scored.options.score_prompt = true;
    scored.options.prefill_chunk = 2;
    let events = all_events(engine.handle().submit(vec![scored]).unwrap().remove(0)).await;
    let Event::Prompt(tokens) = &events[0] else { panic!("{events:?}") };
    assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(ids(&events), [5]);
}

#[tokio::test]
async fn a_drain_finishes_what_waits_and_takes_nothing_new() {
    let (engine, gate) = engine(1);
    let handle = engine.handle();
    gate.set(Some(0));
    let generations = handle.submit(vec![job(&[1], 2), job(&[1], 2)]).unwrap();
    handle.drain();
    assert_eq!(handle.submit(vec![job(&[1], 1)]).err(), Some(SubmitError::Draining));
    assert!(!handle.accepts_work());
    gate.set(None);
    for generation in generations {
        assert_eq!(ids(&all_events(generation).await).len(), 2);
    }
    handle.idle().await;
}

#[tokio::test]
async fn a_stop_fails_what_runs_and_what_waits() {
    let (engine, gate) = engine(1);
    let handle = engine.handle();
    gate.set(Some(1));
    let generations = handle.submit(vec![job(&[1], 50), job(&[1], 50)]).unwrap();
    eventually("it runs", || handle.load().running == 1).await;
    handle.stop();
    gate.set(None);
    for generation in generations {
        assert_eq!(all_events(generation).await.pop(), Some(Event::Failed(GenerationError::Stopped)));
    }
    drop(engine);
    assert_eq!(handle.submit(vec![job(&[1], 1)]).err(), Some(SubmitError::Stopped));
    assert_eq!(handle.load(), Load::default());
}

#[tokio::test]
async fn an_idle_engine_gives_signs_of_life() {
    let (engine, _gate) = engine(1);
    let handle = engine.handle();
    let mut beats = 0;
    let mut before = handle.heartbeat_age();
    eventually("two more signs", || {
        let now = handle.heartbeat_age();
        beats += usize::from(now < before);
        before = now;
        beats == 2
    })
    .await;
    assert!(handle.heartbeat_age() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_model_that_hangs_does_not_keep_its_owner() {
    let (engine, gate) = engine(1);
    gate.set(Some(0));
    let handle = engine.handle();
    let generations = handle.submit(vec![job(&[1], 1)]).unwrap();
    eventually("it hangs", || handle.load().running == 1).await;
    let begun = Instant::now();
    drop(engine);
    assert!(begun.elapsed() < Duration::from_secs(5));
    gate.set(None);
    for generation in generations {
        all_events(generation).await;
    }
}

/// An [`Alphabet`] that several sequences go through in one call, and that stumbles there over [`STUMBLE`].
struct Chorus(Alphabet);

const STUMBLE: u32 = 26;

impl CausalLm for Chorus {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.0.context_len()
    }

    fn begin(&self) -> Vec<u32> {
        self.0.begin()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.0.forward(state, ids, wanted)
    }

    fn decode_batch(&self, states: &mut [&mut Vec<u32>], ids: &[u32]) -> Option<Vec<f32>> {
        assert!(!ids.contains(&STUMBLE), "it stumbled");
        let open = Alphabet { gate: Gate::default(), context: self.0.context };
        self.0.gate.pass();
        let rows = states.iter_mut().zip(ids).map(|(state, id)| open.forward(state, &[*id], Logits::Last));
        Some(rows.collect::<Vec<_>>().concat())
    }
}

fn chorus() -> (Engine, Gate) {
    let gate = Gate::default();
    let max_running = NonZeroUsize::new(3).unwrap();
    let config =
        EngineConfig { max_running, max_queued: 4, max_queued_tokens: 100, ..EngineConfig::default() };
    (Engine::start(Chorus(Alphabet { gate: gate.clone(), context: CONTEXT }), config).unwrap(), gate)
}

#[tokio::test]
async fn sequences_that_write_go_through_the_model_together() {
    // Two prompts of one call each, one of three; then seven rounds, in which the third sequence writes from the third on.
    let (together, gate) = chorus();
    gate.set(Some(0));
    let mut long = job(&[5; 12], 5);
    long.options.prefill_chunk = 4;
    let mut drawn = job(&[3], 8);
    drawn.options.sampling = SamplingParams { seed: 9, ..SamplingParams::default() };
    let jobs = vec![job(&[1], 8), drawn, long];
    let (single, _gate) = engine(1);
    let mut wanted = Vec::new();
    for job in &jobs {
        wanted.push(all_events(single.handle().submit(vec![job.clone()]).unwrap().remove(0)).await);
    }
    let generations = together.handle().submit(jobs).unwrap();
    gate.set(None);
    for (generation, wanted) in generations.into_iter().zip(wanted) {
        assert_eq!(all_events(generation).await, wanted);
    }
    assert_eq!(gate.steps(), 2 + 3 + 7);
}

#[tokio::test]
async fn a_panic_of_some_together_is_theirs_alone() {
    let (engine, gate) = chorus();
    gate.set(Some(0));
    let mut reading = job(&[5; 40], 1);
    reading.options.prefill_chunk = 1;
    let generations = engine.handle().submit(vec![job(&[STUMBLE - 3], 8), job(&[1], 8), reading]).unwrap();
    gate.set(None);
    let mut events = Vec::new();
    for generation in generations {
        events.push(all_events(generation).await);
    }
    for failed in &events[..2] {
        assert_eq!(ids(failed).len(), 3);
        assert_eq!(failed.last(), Some(&Event::Failed(GenerationError::Panicked)));
    }
    assert_eq!(events[2].last(), Some(&Event::Finished(FinishReason::Length)));
    let after = engine.handle().submit(vec![job(&[1], 2)]).unwrap().remove(0);
    assert_eq!(ids(&all_events(after).await), [2, 3]);
}

#[tokio::test]
async fn a_client_with_many_jobs_does_not_keep_another_waiting() {
    let (engine, gate) = engine(1);
    let handle = engine.handle();
    gate.set(Some(0));
    let of = |client: u64| Job { client, ..job(&[1], 1) };
    let first = handle.submit(vec![of(1)]).unwrap().remove(0);
    eventually("it runs", || handle.load().running == 1).await;
    let mut waiting = handle.submit(vec![of(1), of(1), of(1), of(2)]).unwrap();
    let other = waiting.pop().unwrap();
    // One step for the job that runs, one for the next: the other client's, though it came last.
    gate.set(Some(2));
    assert_eq!(ids(&all_events(first).await), [2]);
    assert_eq!(ids(&all_events(other).await), [2]);
    // The place is counted until the thread looks for more work.
    eventually("three are left", || {
        handle.load() == Load { running: 1, queued: 2, queued_tokens: 2, ..Load::default() }
    })
    .await;
    gate.set(None);
    for generation in waiting {
        assert_eq!(ids(&all_events(generation).await), [2]);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_place() {
    let (engine, gate) = engine(1);
    let handle = engine.handle();
    gate.set(Some(8));
    let unread = handle.submit(vec![Job { max_behind: Some(5), ..job(&[1], 60) }]).unwrap().remove(0);
    eventually("it is ahead of its reader", || gate.steps() == 8).await;
    // A step now and then; it would take three seconds for all of them.
    let begun = Instant::now();
    while handle.load().running == 1 {
        gate.set(Some(1));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let events = all_events(unread).await;
    assert_eq!(events.last(), Some(&Event::Failed(GenerationError::Behind { behind: 5 })));
    assert!(ids(&events).len() < 50, "{}", ids(&events).len());
}

fn copyist(max_running: usize) -> (Engine, Gate, Arc<AtomicUsize>) {
    let (gate, prefilled) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let inner = Alphabet { gate: gate.clone(), context: CONTEXT };
    let config = EngineConfig {
        max_running: NonZeroUsize::new(max_running).unwrap(),
        max_queued: 16,
        max_queued_tokens: 400,
        ..EngineConfig::default()
    };
    let model = Copyist { inner, prefilled: Arc::clone(&prefilled) };
    (Engine::start(model, config).unwrap(), gate, prefilled)
}

/// Choices of one prompt, with seeds of their own.
fn choices(n: u64, cache_scope: u64) -> Vec<Job> {
    let choice = |seed| {
        let mut job = job(&[7; 12], 5);
        job.options.sampling = SamplingParams { seed, temperature: 1.5, ..SamplingParams::default() };
        job.options.prefill_chunk = 4;
        job.options.score_prompt = true;
        Job { cache_scope, ..job }
    };
    (0..n).map(choice).collect()
}

#[tokio::test]
async fn choices_of_one_prompt_read_it_once_and_say_what_each_says_alone() {
    for max_running in [1, 2, 3, 8] {
        let (engine, _gate, prefilled) = copyist(max_running);
        let mut wanted = Vec::new();
        for (scope, mut job) in (10..).zip(choices(5, 0)) {
            job.cache_scope = scope;
            wanted.push(all_events(engine.handle().submit(vec![job]).unwrap().remove(0)).await);
        }
        assert_eq!(prefilled.swap(0, Ordering::SeqCst), 5 * 12);
        let mut jobs = choices(5, 1);
        jobs.extend(choices(2, 2));
        let generations = engine.handle().submit(jobs).unwrap();
        for (generation, wanted) in generations.into_iter().zip(wanted.iter().chain(&wanted[..2])) {
            assert_eq!(&all_events(generation).await, wanted, "{max_running} running");
        }
        assert_eq!(prefilled.load(Ordering::SeqCst), 2 * 12, "{max_running} running");
    }
}

#[tokio::test]
async fn a_prompt_is_read_by_another_choice_when_its_reader_leaves() {
    let (engine, gate, prefilled) = copyist(3);
    let wanted = all_events(engine.handle().submit(choices(2, 1)).unwrap().remove(1)).await;
    eventually("both are over", || engine.handle().load().running == 0).await;
    prefilled.store(0, Ordering::SeqCst);
    gate.set(Some(0));
    let mut generations = engine.handle().submit(choices(3, 2)).unwrap();
    eventually("a chunk is being read", || prefilled.load(Ordering::SeqCst) == 4).await;
    // The reader goes after a part of the prompt; one of those that wait goes, too.
    drop(generations.remove(0));
    drop(generations.remove(1));
    gate.set(None);
    assert_eq!(all_events(generations.remove(0)).await, wanted);
    let read = prefilled.load(Ordering::SeqCst);
    assert!((12 + 4..=12 + 8).contains(&read), "{read}");
}
