//! One-shot models: batches of all clients' tasks, bounds, panics, clients that go, ends.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;
mod toy;

use std::time::Duration;

use andiron_pipelines::TextInput;
use andiron_serving::engine::SubmitError;
use andiron_serving::registry::Capability;
use andiron_serving::runner::{OneShotConfig, Output, Task, TaskError};

use common::eventually;
use toy::{BOMB, ENDLESS, Toy};

fn embed(text: &str) -> Task {
    Task::Embed(TextInput::from(text))
}

fn config() -> OneShotConfig {
    OneShotConfig { window: Duration::ZERO, ..OneShotConfig::default() }
}

fn first(output: Result<Output, TaskError>) -> f32 {
    match output.unwrap() {
        Output::Embedding(embedding) => embedding.vector[0],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_waits_becomes_one_batch_whoever_sent_it() {
    let toy = Toy::new(&[Capability::Embed]);
    toy.gate.set(Some(0));
    let model = toy.start(config());
    let mut replies = model.submit(0, vec![embed("a")]).unwrap();
    eventually("the first runs", || model.load().running == 1).await;
    for client in 1..5 {
        replies.extend(model.submit(client, vec![embed("aa"), embed("aaa")]).unwrap());
    }
    replies.extend(model.submit(5, vec![Task::Classify(TextInput::from("a"))]).unwrap());
    assert_eq!(model.load().queued, 9);
    toy.gate.set(None);
    let mut outputs = Vec::new();
    for reply in replies {
        outputs.push(reply.output().await);
    }
    assert!(matches!(outputs.pop(), Some(Ok(Output::Labels(_)))));
    let counts: Vec<f32> = outputs.into_iter().map(first).collect();
    assert_eq!(counts, [0.1, 0.2, 0.3, 0.2, 0.3, 0.2, 0.3, 0.2, 0.3]);
    assert_eq!(toy.batches(), [1, 8, 1], "another kind is another batch");
}

#[tokio::test]
async fn a_batch_has_a_bounded_number_of_tokens_and_clients_take_turns() {
    let toy = Toy::new(&[Capability::Embed]);
    toy.gate.set(Some(0));
    // A text of 30 bytes counts as 9 tokens.
    let model = toy.start(OneShotConfig { max_batch_tokens: 27, ..config() });
    let text = "a".repeat(30);
    let opening = model.submit(0, vec![embed("a")]).unwrap();
    eventually("the first runs", || model.load().running == 1).await;
    let many = model.submit(1, (0..4).map(|_| embed(&text)).collect()).unwrap();
    let other = model.submit(2, vec![embed(&text)]).unwrap().pop().unwrap();
    toy.gate.set(Some(2));
    other.output().await.unwrap();
    toy.gate.set(None);
    for reply in opening.into_iter().chain(many) {
        reply.output().await.unwrap();
    }
    assert_eq!(toy.batches(), [1, 3, 2]);
}

#[tokio::test]
async fn an_idle_model_waits_a_moment_for_more() {
    let toy = Toy::new(&[Capability::Embed]);
    let model = toy.start(OneShotConfig { window: Duration::from_millis(300), ..config() });
    let mut replies = model.submit(0, vec![embed("a")]).unwrap();
    replies.extend(model.submit(1, vec![embed("aa")]).unwrap());
    for reply in replies {
        reply.output().await.unwrap();
    }
    assert_eq!(toy.batches(), [2]);
}

#[tokio::test]
async fn a_panic_costs_the_task_whose_fault_it_is() {
    let toy = Toy::new(&[Capability::Embed]);
    let model = toy.start(config());
    for _ in 0..20 {
        let tasks = ["a", BOMB, "aa", "aaa"].map(embed).to_vec();
        let mut outputs = Vec::new();
        for reply in model.submit(0, tasks).unwrap() {
            outputs.push(reply.output().await);
        }
        let failed: Vec<bool> =
            outputs.iter().map(|output| matches!(output, Err(TaskError::Panicked))).collect();
        assert_eq!(failed, [false, true, false, false]);
    }
    // The last answer goes out before its batch counts as ended.
    model.idle().await;
    assert_eq!((model.load().running, model.load().queued), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_takes_its_tasks_along() {
    let toy = Toy::new(&[Capability::Embed]);
    toy.gate.set(Some(0));
    let model = toy.start(config());
    let first = model.submit(0, vec![embed("a")]).unwrap();
    eventually("the first runs", || model.load().running == 1).await;
    drop(model.submit(1, (0..100).map(|_| embed("a")).collect()).unwrap());
    let last = model.submit(2, vec![embed("a")]).unwrap();
    assert_eq!(model.load().queued, 1);
    toy.gate.set(None);
    for reply in first.into_iter().chain(last) {
        reply.output().await.unwrap();
    }
    assert_eq!(toy.batches(), [1, 1]);
}

#[tokio::test]
async fn long_work_ends_when_nobody_waits_for_it_any_more() {
    let toy = Toy::new(&[Capability::Embed]);
    let model = toy.start(config());
    let endless = model.submit(0, vec![embed(ENDLESS)]).unwrap();
    eventually("it runs", || model.load().running == 1).await;
    let gone = std::time::Instant::now();
    drop(endless);
    let next = model.submit(1, vec![embed("a")]).unwrap().pop().unwrap();
    assert_eq!(first(next.output().await), 0.1);
    assert!(gone.elapsed() < Duration::from_millis(250));
    let stopped = model.submit(0, vec![embed(ENDLESS)]).unwrap();
    eventually("it runs", || model.load().running == 1).await;
    model.stop();
    model.idle().await;
    drop(stopped);
}

#[tokio::test]
async fn the_queue_is_bounded_in_tasks_and_tokens_and_shared() {
    let toy = Toy::new(&[Capability::Embed]);
    toy.gate.set(Some(0));
    let model = toy.start(OneShotConfig { max_queued: 8, max_queued_tokens: 100, ..config() });
    let many = |count: usize, text: &str| (0..count).map(|_| embed(text)).collect::<Vec<_>>();
    assert!(matches!(model.submit(0, many(9, "a")), Err(SubmitError::TooLarge { jobs: 9, .. })));
    let opening = model.submit(0, many(1, "a")).unwrap();
    eventually("the first runs", || model.load().running == 1).await;
    let mine = model.submit(1, many(6, "a")).unwrap();
    assert!(matches!(model.submit(1, many(1, "a")), Err(SubmitError::ShareFull { waiting: 6, .. })));
    let theirs = model.submit(2, many(2, "a")).unwrap();
    assert!(matches!(model.submit(3, many(1, "a")), Err(SubmitError::Full { queued: 8, .. })));
    assert!(!model.accepts_work());
    drop((opening, mine, theirs));
    assert!(model.accepts_work());
    // 32 bytes are 10 tokens.
    let long = "a".repeat(32);
    assert!(model.submit(1, many(8, &long)).is_ok_and(|replies| replies.len() == 8));
    toy.gate.set(None);
}

#[tokio::test]
async fn a_drain_finishes_what_there_is_and_a_stop_does_not() {
    let toy = Toy::new(&[Capability::Embed]);
    toy.gate.set(Some(0));
    let model = toy.start(config());
    let running = model.submit(0, vec![embed("a")]).unwrap().pop().unwrap();
    eventually("the first runs", || model.load().running == 1).await;
    let waiting = model.submit(0, vec![Task::Classify(TextInput::from("a"))]).unwrap().pop().unwrap();
    model.drain();
    assert!(matches!(model.submit(0, vec![embed("a")]), Err(SubmitError::Draining)));
    toy.gate.set(Some(1));
    assert!(running.output().await.is_ok());
    model.stop();
    toy.gate.set(None);
    // It had begun, or not.
    assert!(matches!(waiting.output().await, Err(TaskError::Stopped) | Ok(_)));
    model.idle().await;
    assert!(matches!(model.submit(0, vec![embed("a")]), Err(SubmitError::Stopped)));
    assert!(model.heartbeat_age() < Duration::from_secs(10));
}
