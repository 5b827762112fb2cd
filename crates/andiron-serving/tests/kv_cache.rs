//! The engine's KV cache: budget, preemption, prefix cache, and what clients leave behind.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use andiron_kernels::random::Seed;
use andiron_models::generate::{CausalLm, GenerateOptions, Logits, SamplingParams, StateBlocks, WhenFull};
use andiron_serving::engine::{
    Engine, EngineConfig, EngineHandle, Event, Generation, GenerationError, Job, KvBudget, SubmitError,
};

use andiron_serving::metrics::Counters;

use common::eventually;

const VOCAB: usize = 23;
const CONTEXT: usize = 64;
/// The model panics when a chunk begins with these.
const BOMB: [u32; 4] = [9; 4];
const PAGE: StateBlocks = StateBlocks { len: 4, bytes: 1000, source_bytes: 100 };

/// What a [`Paged`] model did, and the pages that its states hold.
#[derive(Debug, Default)]
struct Tally {
    prefilled: AtomicUsize,
    /// Prefill steps of several prompts.
    batches: AtomicUsize,
    pages: AtomicUsize,
    most_pages: AtomicUsize,
}

/// A model whose next id depends on every id before, and whose states are made of pages that they share and count.
struct Paged {
    tally: Arc<Tally>,
    /// Time per id of a prompt.
    pause: Duration,
    context: usize,
}

#[derive(Debug)]
struct Page {
    tally: Arc<Tally>,
    ids: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Pages(Vec<Arc<Page>>);

impl Page {
    fn new(tally: &Arc<Tally>, ids: Vec<u32>) -> Arc<Self> {
        let pages = tally.pages.fetch_add(1, Ordering::SeqCst) + 1;
        tally.most_pages.fetch_max(pages, Ordering::SeqCst);
        Arc::new(Self { tally: Arc::clone(tally), ids })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.tally.pages.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Paged {
    fn push(&self, state: &mut Pages, id: u32) -> Vec<f32> {
        match state.0.last_mut().filter(|page| page.ids.len() < PAGE.len) {
            None => state.0.push(Page::new(&self.tally, vec![id])),
            Some(page) => match Arc::get_mut(page) {
                Some(page) => page.ids.push(id),
                None => *page = Page::new(&self.tally, [page.ids.as_slice(), &[id]].concat()),
            },
        }
        let ids: Vec<u32> = state.0.iter().flat_map(|page| page.ids.clone()).collect();
        assert!(ids.len() <= self.context);
        let mut bits = Seed::new(ids.len() as u64);
        for id in ids {
            bits = bits.at(u64::from(id));
        }
        (0..VOCAB as u64).map(|v| (bits.bits(v) % 1000) as f32 / 200.0).collect()
    }
}

impl CausalLm for Paged {
    type State = Pages;

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context_len(&self) -> usize {
        self.context
    }

    fn begin(&self) -> Pages {
        Pages::default()
    }

    fn forward(&self, state: &mut Pages, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.tally.prefilled.fetch_add(ids.len(), Ordering::SeqCst);
        std::thread::sleep(self.pause * ids.len() as u32);
        assert!(!ids.starts_with(&BOMB), "the bomb went off");
        self.decode(state, ids, wanted)
    }

    fn decode(&self, state: &mut Pages, ids: &[u32], wanted: Logits) -> Vec<f32> {
        let rows: Vec<_> = ids.iter().map(|&id| self.push(state, id)).collect();
        match wanted {
            Logits::All => rows.concat(),
            Logits::Last => rows[rows.len() - 1].clone(),
        }
    }

    fn forward_batch(&self, states: &mut [&mut Pages], ids: &[&[u32]]) -> Option<Vec<f32>> {
        assert!(states.len() > 1 && !ids.iter().any(|ids| ids.starts_with(&BOMB)), "a bomb among others");
        self.tally.batches.fetch_add(1, Ordering::SeqCst);
        let rows = states.iter_mut().zip(ids).flat_map(|(state, ids)| self.forward(state, ids, Logits::Last));
        Some(rows.collect())
    }

    fn decode_batch(&self, states: &mut [&mut Pages], ids: &[u32]) -> Option<Vec<f32>> {
        Some(states.iter_mut().zip(ids).flat_map(|(state, &id)| self.push(state, id)).collect())
    }

    fn fork(&self, state: &Pages) -> Option<Pages> {
        Some(state.clone())
    }

    fn state_blocks(&self) -> Option<StateBlocks> {
        Some(PAGE)
    }

    fn block(&self, state: &Pages, index: usize) -> Pages {
        assert_eq!(state.0[index].ids.len(), PAGE.len);
        Pages(vec![Arc::clone(&state.0[index])])
    }

    fn append_block(&self, state: &mut Pages, block: &Pages) {
        assert!(state.0.iter().all(|page| page.ids.len() == PAGE.len));
        state.0.extend_from_slice(&block.0);
    }
}

fn engine(config: EngineConfig) -> (Engine, Arc<Tally>) {
    slow_engine(config, Duration::ZERO, CONTEXT)
}

fn slow_engine(config: EngineConfig, pause: Duration, context: usize) -> (Engine, Arc<Tally>) {
    let tally = Arc::new(Tally::default());
    let model = Paged { tally: Arc::clone(&tally), pause, context };
    (Engine::start(model, config).unwrap(), tally)
}

/// A budget of so many pages, with a little more for the ids of prompts that are kept.
fn config(max_running: usize, pages: usize) -> EngineConfig {
    EngineConfig {
        max_running: NonZeroUsize::new(max_running).unwrap(),
        kv_cache: KvBudget::new(pages * PAGE.bytes),
        ..EngineConfig::default()
    }
}

fn job(prompt: &[u32], max_new_tokens: usize, seed: u64) -> Job {
    let options = GenerateOptions {
        sampling: SamplingParams { seed, ..SamplingParams::default() },
        max_new_tokens,
        prefill_chunk: 8,
        ..GenerateOptions::default()
    };
    Job { prompt: prompt.to_vec(), options, ..Job::default() }
}

/// Jobs with prompts and answers of many lengths, some with a common beginning, some scored, some whose window slides.
fn various(n: u64) -> Vec<Job> {
    let draw = Seed::new(5);
    (0..n)
        .map(|at| {
            let bits = draw.at(at);
            let len = 1 + bits.bits(0) as usize % 30;
            let prompt: Vec<u32> = (0..len as u64)
                .map(|i| if i < 10 && at % 3 == 0 { 7 } else { (bits.bits(9 + i) % VOCAB as u64) as u32 })
                .collect();
            let mut job = job(&prompt, 1 + bits.bits(1) as usize % 30, at);
            job.options.score_prompt = at % 4 == 1;
            if at % 5 == 2 {
                job.options.when_full = WhenFull::Slide;
                job.options.max_new_tokens = 90;
            }
            Job { client: at % 3, cache_scope: at % 2, ..job }
        })
        .collect()
}

async fn all_events(mut generation: Generation) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = generation.next_event().await {
        events.push(event);
    }
    events
}

async fn run_all(handle: &EngineHandle, jobs: Vec<Job>) -> Vec<Vec<Event>> {
    let mut events = Vec::new();
    for generation in handle.submit(jobs).unwrap() {
        events.push(all_events(generation).await);
    }
    handle.idle().await;
    events
}

/// What each job gives alone, from an engine that keeps nothing.
async fn alone(jobs: &[Job]) -> Vec<Vec<Event>> {
    let (engine, _) = engine(EngineConfig { prefix_cache: false, ..config(1, 1000) });
    let mut wanted = Vec::new();
    for job in jobs {
        wanted.extend(run_all(&engine.handle(), vec![job.clone()]).await);
    }
    wanted
}

#[tokio::test]
async fn preempted_jobs_go_on_with_the_same_text_and_the_budget_is_never_exceeded() {
    let jobs = various(60);
    let wanted = alone(&jobs).await;
    for (pages, prefix_cache) in [(16, true), (16, false), (30, true), (200, true)] {
        let (engine, tally) = engine(EngineConfig { prefix_cache, ..config(12, pages) });
        let handle = engine.handle();
        let events = run_all(&handle, jobs.clone()).await;
        for (number, (events, wanted)) in events.iter().zip(&wanted).enumerate() {
            assert_eq!(events, wanted, "job {number}, {pages} pages, prefix cache: {prefix_cache}");
        }
        assert!(tally.most_pages.load(Ordering::SeqCst) <= pages, "{tally:?} of {pages}");
        let Counters { preemptions, prefix_hits, .. } = handle.metrics().counters();
        assert_eq!(preemptions > 0, pages < 100, "{pages} pages: {preemptions} preemptions");
        // With few pages, nothing is kept for long.
        assert!(prefix_hits > 0 || !prefix_cache || pages < 100, "{pages} pages");
        assert!(prefix_hits == 0 || prefix_cache);
        assert_eq!(handle.load().kv_used_bytes, 0);
        assert_eq!(handle.load().kv_total_bytes, Some(pages * PAGE.bytes));
    }
}

/// A scored prompt is read again although its blocks are kept, so the cache keeps copies of them with it.
#[tokio::test]
async fn a_job_that_goes_on_with_a_kept_prompt_has_room_for_its_copies() {
    let (engine, tally) = engine(config(4, 20));
    let handle = engine.handle();
    run_all(&handle, vec![job(&[7; 8], 1, 0)]).await;
    let mut scored = job(&[7; 8], 1, 0);
    scored.options.score_prompt = true;
    run_all(&handle, vec![scored]).await;
    assert_eq!(tally.pages.load(Ordering::SeqCst), 4);
    // Together they need all of the budget, so the prompt is dropped while the first goes on with its copies.
    run_all(&handle, vec![job(&[7; 8], 40, 0), job(&[1; 8], 40, 0)]).await;
    assert_eq!(tally.most_pages.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn a_job_that_could_never_fit_is_refused_before_it_waits() {
    let (engine, _) = engine(config(2, 4));
    let handle = engine.handle();
    let refused = handle.submit(vec![job(&[1; 10], 2, 0), job(&[1; 10], 7, 0)]).unwrap_err();
    assert_eq!(refused, SubmitError::NeverFits { tokens: 17, bytes: 5000, total_bytes: 4000 });
    assert_eq!(handle.load().queued, 0);
    assert_eq!(run_all(&handle, vec![job(&[1; 10], 6, 0)]).await[0].len(), 7);
    // No more than the context is ever held.
    let (engine, _) = self::engine(config(2, CONTEXT / PAGE.len));
    let mut sliding = job(&[1; 10], 200, 0);
    sliding.options.when_full = WhenFull::Slide;
    assert_eq!(run_all(&engine.handle(), vec![sliding]).await[0].len(), 201);
}

#[tokio::test]
async fn a_prompt_is_prefilled_from_where_it_differs_in_its_scope() {
    let (engine, tally) = engine(config(4, 100));
    let handle = engine.handle();
    let of = |scope: u64, tail: &[u32]| {
        let prompt = [&[1, 2, 3, 4, 5, 6, 7, 8, 9], tail].concat();
        vec![Job { cache_scope: scope, ..job(&prompt, 3, 1) }]
    };
    let read = async |jobs: Vec<Job>, wanted: usize| {
        tally.prefilled.store(0, Ordering::SeqCst);
        let expected = alone(&jobs).await;
        let mut generation = handle.submit(jobs).unwrap().remove(0);
        let mut events = Vec::new();
        while let Some(event) = generation.next_event().await {
            events.push(event);
        }
        assert_eq!(events, expected[0]);
        assert_eq!(tally.prefilled.load(Ordering::SeqCst), wanted);
        generation.cached_tokens()
    };
    assert_eq!(read(of(1, &[10, 11]), 11).await, 0);
    assert_eq!(read(of(1, &[12, 13, 14]), 4).await, 8);
    assert_eq!(read(of(1, &[12, 13, 14]), 0).await, 12, "the same again");
    assert_eq!(read(of(2, &[12, 13, 14]), 12).await, 0, "another scope");
    let mut scored = of(1, &[12, 13, 14]);
    scored[0].options.score_prompt = true;
    assert_eq!(read(scored.clone(), 12).await, 0, "it was not scored before");
    assert_eq!(read(scored, 0).await, 12);
    // An answer that ends with the prompt's last chunk.
    let mut short = of(3, &[12, 13]);
    short[0].options.max_new_tokens = 1;
    assert_eq!(read(short, 11).await, 0);
    assert_eq!(read(of(3, &[12, 13]), 0).await, 11);
    let counters = handle.metrics().counters();
    assert_eq!((counters.prefix_queries, counters.prefix_hits), (3 * 11 + 5 * 12, 11 + 8 + 2 * 12));
}

#[tokio::test]
async fn prompts_that_begin_alike_are_read_once_even_if_they_come_together() {
    let (engine, tally) = engine(config(16, 200));
    let jobs: Vec<Job> = (0..10).map(|at| job(&[[5; 21].as_slice(), &[at]].concat(), 4, at.into())).collect();
    let wanted = alone(&jobs).await;
    assert_eq!(run_all(&engine.handle(), jobs).await, wanted);
    assert_eq!(tally.prefilled.load(Ordering::SeqCst), 22 + 9 * 2);
}

#[tokio::test]
async fn prompts_are_prefilled_together_and_a_panic_is_that_of_one() {
    let (engine, tally) = engine(EngineConfig { prefix_cache: false, ..config(16, 200) });
    let handle = engine.handle();
    // Measures the speed of the model, so that a round has time for all of them.
    run_all(&handle, vec![job(&[1; 60], 1, 0)]).await;
    let jobs: Vec<Job> = (10..20).map(|at| job(&[at; 7], 4, at.into())).collect();
    let mut wanted = alone(&jobs).await;
    let mut with_bomb = jobs;
    with_bomb.insert(4, job(&[BOMB[0]; 7], 4, 0));
    wanted.insert(4, vec![Event::Failed(GenerationError::Panicked)]);
    let before = tally.batches.load(Ordering::SeqCst);
    assert_eq!(run_all(&handle, with_bomb).await, wanted);
    assert_eq!(tally.batches.load(Ordering::SeqCst), before);
    let jobs: Vec<Job> = (10..20).map(|at| job(&[at; 7], 4, at.into())).collect();
    wanted.remove(4);
    assert_eq!(run_all(&handle, jobs).await, wanted);
    assert!(tally.batches.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn without_a_prefix_cache_nothing_is_kept() {
    let (engine, tally) = engine(EngineConfig { prefix_cache: false, ..config(4, 100) });
    for _ in 0..2 {
        run_all(&engine.handle(), vec![job(&[3; 12], 2, 0)]).await;
    }
    assert_eq!(tally.prefilled.load(Ordering::SeqCst), 24);
    assert_eq!(tally.pages.load(Ordering::SeqCst), 0);
    assert_eq!(engine.handle().load().kv_idle_bytes, 0);
}

#[tokio::test]
async fn a_thousand_clients_that_go_away_leave_nothing_behind() {
    let (engine, tally) = engine(EngineConfig { max_queued: 2000, ..config(8, 40) });
    let handle = engine.handle();
    let draw = Seed::new(11);
    let mut jobs = various(1000).into_iter();
    for round in 0..100u64 {
        let mut generations: Vec<Generation> = Vec::new();
        for job in jobs.by_ref().take(10) {
            // Each is a client of its own, so that none has used up its share of the queue.
            let client = 10 * round + generations.len() as u64;
            generations.extend(handle.submit(vec![Job { client, ..job }]).unwrap());
        }
        for (at, mut generation) in generations.into_iter().enumerate() {
            for _ in 0..draw.at(round).bits(at as u64) % 12 {
                if generation.next_event().await.is_none() {
                    break;
                }
            }
        }
    }
    handle.idle().await;
    let load = handle.load();
    assert_eq!((load.running, load.queued, load.kv_used_bytes), (0, 0, 0));
    assert!(tally.pages.load(Ordering::SeqCst) * PAGE.bytes <= load.kv_idle_bytes, "{tally:?}, {load:?}");
    assert!(tally.most_pages.load(Ordering::SeqCst) <= 40, "{tally:?}");
    drop(engine);
    assert_eq!(tally.pages.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place_within_a_quarter_of_a_second() {
    // A prompt takes four seconds to read.
    let pause = Duration::from_millis(1);
    let (engine, tally) =
        slow_engine(EngineConfig { prefix_cache: false, ..config(2, 10_000) }, pause, 10_000);
    let handle = engine.handle();
    let long = |at: u32| {
        let mut job = job(&vec![at % 20; 4000], 5000, 0);
        job.options.prefill_chunk = 4000;
        Job { client: at.into(), ..job }
    };
    // Measures the speed of the model.
    run_all(&handle, vec![job(&[1; 64], 2, 0)]).await;
    let mut generations = handle.submit((0..4).map(long).collect()).unwrap();
    eventually("two are being read", || {
        handle.load().running == 2 && tally.pages.load(Ordering::SeqCst) > 60
    })
    .await;
    let freed = async |generation: Generation, running: usize, queued: usize| {
        drop(generation);
        let gone = Instant::now();
        eventually("it is gone", || {
            let load = handle.load();
            let freed = load.kv_used_bytes <= running * 4000 / PAGE.len * PAGE.bytes;
            (load.running, load.queued) == (running, queued) && freed
        })
        .await;
        assert!(gone.elapsed() < Duration::from_millis(250), "{:?}", gone.elapsed());
    };
    freed(generations.remove(3), 2, 1).await;
    freed(generations.remove(2), 2, 0).await;
    freed(generations.remove(1), 1, 0).await;
    freed(generations.remove(0), 0, 0).await;
    assert_eq!(tally.pages.load(Ordering::SeqCst), 0);
    let mut writing = handle.submit(vec![job(&[1], 9000, 0)]).unwrap().remove(0);
    assert!(matches!(writing.next_event().await, Some(Event::Token(_))));
    freed(writing, 0, 0).await;
    assert_eq!(handle.load().kv_used_bytes, 0);
}

#[tokio::test]
async fn engines_share_a_budget_and_none_exceeds_its_share() {
    let shared = config(8, 40);
    let (first, tally) = engine(shared.clone());
    let handle = first.handle();
    let jobs = various(60);
    let wanted = alone(&jobs).await;
    assert_eq!(run_all(&handle, jobs.clone()).await, wanted);
    assert!(tally.pages.load(Ordering::SeqCst) > 20, "prompts are kept: {tally:?}");
    assert_eq!(handle.load().kv_total_bytes, Some(40 * PAGE.bytes));
    // Another model is loaded while the first one runs, and again while it is idle.
    let running = handle.submit(jobs.clone()).unwrap();
    for beside in 0..2 {
        let (second, others) = engine(shared.clone());
        eventually("what is beyond the share is free", || {
            tally.pages.load(Ordering::SeqCst) <= 20 && handle.load().kv_total_bytes == Some(20 * PAGE.bytes)
        })
        .await;
        tally.most_pages.store(0, Ordering::SeqCst);
        assert_eq!(run_all(&second.handle(), jobs.clone()).await, wanted, "beside {beside}");
        assert!(others.most_pages.load(Ordering::SeqCst) <= 20, "{others:?}");
        assert!(tally.most_pages.load(Ordering::SeqCst) <= 20, "{tally:?}");
    }
    for (generation, wanted) in running.into_iter().zip(&wanted) {
        assert_eq!(&all_events(generation).await, wanted);
    }
    eventually("the others have gone", || handle.load().kv_total_bytes == Some(40 * PAGE.bytes)).await;
}

#[tokio::test]
async fn a_job_that_began_in_a_larger_share_goes_on_alone() {
    let shared = config(4, 12);
    let (first, tally) = slow_engine(shared.clone(), Duration::from_millis(2), CONTEXT);
    let handle = first.handle();
    let large = job(&[3; 40], 6, 0);
    let wanted = alone(std::slice::from_ref(&large)).await;
    let generation = handle.submit(vec![large.clone()]).unwrap().remove(0);
    eventually("it is being read", || tally.pages.load(Ordering::SeqCst) > 0).await;
    let (second, _) = engine(shared);
    assert_eq!(all_events(generation).await, wanted[0]);
    // Now it would not be accepted.
    let refused = handle.submit(vec![large.clone()]).unwrap_err();
    assert_eq!(refused, SubmitError::NeverFits { tokens: 46, bytes: 12_000, total_bytes: 6000 });
    drop(second);
    assert_eq!(run_all(&handle, vec![large]).await, wanted);
}

#[tokio::test]
async fn a_stop_fails_preempted_jobs_too() {
    let (engine, _) = engine(config(8, 16));
    let handle = engine.handle();
    let generations = handle.submit((0..8).map(|at| job(&[at; 4], 50, 0)).collect()).unwrap();
    eventually("some are preempted", || handle.metrics().counters().preemptions > 0).await;
    handle.stop();
    for generation in generations {
        let last = all_events(generation).await.pop();
        assert!(
            matches!(last, Some(Event::Failed(GenerationError::Stopped) | Event::Finished(_))),
            "{last:?}"
        );
    }
}
