//! Overload, clients that go, panics, and the end of the service.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use andiron_serving::engine::{EngineConfig, Load};
use andiron_serving::http::Stopped;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use common::{Call, Fixture, complete, config, events, eventually, get, start, start_with, step_until, text};

fn narrow() -> EngineConfig {
    EngineConfig {
        max_running: NonZeroUsize::new(1).unwrap(),
        max_queued: 3,
        max_queued_tokens: 20,
        ..EngineConfig::default()
    }
}

async fn start_narrow() -> Fixture {
    let at = start_with(config(), narrow(), Some(common::tokenizer())).await;
    at.gate.set(Some(0));
    at
}

const LONG: &str = r#"{"prompt":"a","max_tokens":50,"temperature":0,"ignore_eos":true,"stream":true}"#;

#[tokio::test]
async fn a_full_queue_is_429_with_retry_after_and_holds_exactly_its_bound() {
    let at = start_narrow().await;
    let handle = at.engine.handle();
    let mut waiting = vec![Call::completion(at.address, r#"{"prompt":"a","max_tokens":1}"#).await];
    eventually("one runs", || {
        handle.load() == Load { running: 1, queued: 0, queued_tokens: 0, ..Load::default() }
    })
    .await;
    for queued in 1..=3 {
        waiting.push(Call::completion(at.address, r#"{"prompt":"ab","max_tokens":1}"#).await);
        eventually("it waits", || handle.load().queued == queued).await;
    }
    assert_eq!(get(at.address, "/ready").await.status, 503);
    let begun = Instant::now();
    let reply = complete(at.address, r#"{"prompt":"a","max_tokens":1}"#).await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    let error = &reply.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("server_overloaded")));
    at.gate.set(None);
    for call in waiting {
        assert_eq!(call.reply().await.status, 200);
    }
    assert_eq!(get(at.address, "/ready").await.status, 200);
}

#[tokio::test]
async fn the_queue_is_bounded_in_prompt_tokens_too() {
    let at = start_narrow().await;
    let handle = at.engine.handle();
    let first = Call::completion(at.address, r#"{"prompt":"a","max_tokens":1}"#).await;
    eventually("one runs", || handle.load().running == 1).await;
    let body = |n: usize| json!({"prompt": vec![1; n], "max_tokens": 1}).to_string();
    let second = Call::completion(at.address, &body(15)).await;
    eventually("one waits", || handle.load().queued_tokens == 15).await;
    assert_eq!(complete(at.address, &body(6)).await.status, 429);
    let third = Call::completion(at.address, &body(5)).await;
    eventually("two wait", || handle.load().queued_tokens == 20).await;
    // What could never fit is the client's mistake, not a matter of time.
    let reply = complete(at.address, &body(21)).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("request_too_large")));
    let reply = complete(at.address, r#"{"prompt":"a","n":4,"max_tokens":1}"#).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("request_too_large")));
    at.gate.set(None);
    for call in [first, second, third] {
        assert_eq!(call.reply().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_goes_frees_its_work_within_two_steps() {
    let at = start().await;
    let handle = at.engine.handle();
    for (n, stream) in [(1, true), (4, true), (1, false), (4, false)] {
        at.gate.set(Some(0));
        let body = json!({"prompt": "a", "max_tokens": 60, "n": n, "stream": stream, "ignore_eos": true})
            .to_string();
        let mut call = Call::completion(at.address, &body).await;
        eventually("it runs", || handle.load().running == n).await;
        if stream {
            at.gate.set(Some(2 * n));
            call.read_until("data: ").await;
            at.gate.set(Some(0));
        }
        let steps = at.gate.steps();
        drop(call);
        // The engine hangs in a step, so it can see that the client has gone only after it.
        step_until(&at.gate, "the work ends", || handle.load().running == 0).await;
        // The server learns of it in its own time; what counts is that the work was not done.
        assert!(at.gate.steps() - steps < 10 * n, "{} steps", at.gate.steps() - steps);
    }
    at.gate.set(None);
    assert_eq!(text(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0}"#).await, "bc");
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_leaves_the_queue() {
    let at = start_narrow().await;
    let handle = at.engine.handle();
    let first = Call::completion(at.address, LONG).await;
    eventually("one runs", || handle.load().running == 1).await;
    for stream in [true, false] {
        let body = json!({"prompt": "abc", "max_tokens": 5, "stream": stream, "n": 2}).to_string();
        let waiting = Call::completion(at.address, &body).await;
        eventually("two wait", || handle.load().queued == 2).await;
        drop(waiting);
        eventually("none waits", || {
            handle.load() == Load { running: 1, queued: 0, queued_tokens: 0, ..Load::default() }
        })
        .await;
    }
    drop(first);
}

#[tokio::test]
async fn a_thousand_hasty_clients_leave_nothing_behind() {
    let at = start().await;
    for round in 0..200u64 {
        let calls: Vec<Call> = [
            LONG,
            r#"{"prompt":"abc","max_tokens":40,"n":3,"ignore_eos":true}"#,
            r#"{"prompt":"abc","max_tokens":40,"n":2,"ignore_eos":true,"stream":true}"#,
        ]
        .into_iter()
        .map(|body| Call::completion(at.address, body))
        .collect::<futures_util::stream::FuturesUnordered<_>>()
        .then_collect()
        .await;
        if round % 3 > 0 {
            tokio::time::sleep(Duration::from_micros(300 * (round % 7))).await;
        }
        drop(calls);
    }
    let handle = at.engine.handle();
    eventually("all is free", || handle.load() == Load::default()).await;
    assert_eq!(text(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0}"#).await, "bc");
}

/// Collects a set of futures.
trait ThenCollect: futures_util::Stream + Sized {
    async fn then_collect(self) -> Vec<Self::Item> {
        futures_util::StreamExt::collect(self).await
    }
}

impl<S: futures_util::Stream> ThenCollect for S {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeded_answer_is_the_same_alone_and_among_others() {
    let at = start().await;
    let body = |seed: u64| {
        json!({"prompt": "kind", "max_tokens": 40, "seed": seed, "temperature": 1.3, "top_p": 0.95, "ignore_eos": true})
            .to_string()
    };
    let mut alone = Vec::new();
    for seed in 0..8 {
        alone.push(text(at.address, &body(seed)).await);
    }
    assert_ne!(alone[0], alone[1]);
    for _ in 0..5 {
        let together: Vec<_> = (0..8)
            .map(|seed| {
                let (address, body) = (at.address, body(seed));
                tokio::spawn(async move { text(address, &body).await })
            })
            .collect();
        for (seed, answer) in together.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap(), alone[seed]);
        }
    }
}

#[tokio::test]
async fn a_panic_in_the_model_costs_one_request() {
    let at = start().await;
    at.gate.set(Some(0));
    let mut neighbour = Call::completion(at.address, LONG).await;
    let handle = at.engine.handle();
    eventually("it runs", || handle.load().running == 1).await;
    let bomb = Call::completion(at.address, r#"{"prompt":"!","max_tokens":3}"#).await;
    eventually("both are there", || handle.load().running + handle.load().queued == 2).await;
    at.gate.set(None);
    let reply = bomb.reply().await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!("internal_error")));
    assert!(!reply.body.contains("bomb"), "what the model said stays in the log");
    neighbour.read_until("data: [DONE]").await;
    for _ in 0..100 {
        assert_eq!(complete(at.address, r#"{"prompt":"!"}"#).await.status, 500);
    }
    let streamed = events(&complete(at.address, r#"{"prompt":"!","stream":true}"#).await.body);
    assert!(streamed[0].contains("internal_error"), "{streamed:?}");
    assert_eq!(streamed[1], "[DONE]");
    assert_eq!(get(at.address, "/health").await.status, 200);
    assert_eq!(text(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0}"#).await, "bc");
}

#[tokio::test]
async fn an_engine_that_hangs_is_unhealthy() {
    let mut config = config();
    config.limits.max_heartbeat_age = Duration::from_millis(50);
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    at.gate.set(Some(0));
    let call = Call::completion(at.address, LONG).await;
    let handle = at.engine.handle();
    eventually("it hangs", || {
        handle.load().running == 1 && handle.heartbeat_age() > Duration::from_millis(60)
    })
    .await;
    let reply = get(at.address, "/health").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("not_ready")));
    drop(call);
}

#[tokio::test]
async fn a_server_that_loads_its_models_is_alive_and_not_ready() {
    let at = start().await;
    let starting = at.server.starting();
    assert_eq!(get(at.address, "/health").await.status, 200);
    let ready = get(at.address, "/ready").await;
    assert_eq!((ready.status, &ready.json()["error"]["code"]), (503, &json!("loading")));
    assert!(ready.header("retry-after").is_some());
    let other = complete(at.address, r#"{"prompt":"a","model":"next"}"#).await;
    assert_eq!((other.status, &other.json()["error"]["code"]), (503, &json!("loading")));
    // One that is there already works.
    assert_eq!(text(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0}"#).await, "bc");
    drop(starting);
    assert_eq!(get(at.address, "/ready").await.status, 200);
    assert_eq!(complete(at.address, r#"{"prompt":"a","model":"next"}"#).await.status, 404);
}

#[tokio::test]
async fn a_drain_lets_running_streams_finish_and_refuses_new_work() {
    let at = start().await;
    at.gate.set(Some(0));
    let mut calls = Vec::new();
    for _ in 0..12 {
        calls.push(Call::completion(at.address, LONG).await);
    }
    let handle = at.engine.handle();
    eventually("all are there", || handle.load().running + handle.load().queued == 12).await;
    at.server.shutdown().drain();
    let ready = get(at.address, "/ready").await;
    assert_eq!((ready.status, &ready.json()["error"]["code"]), (503, &json!("shutting_down")));
    let refused = complete(at.address, r#"{"prompt":"a"}"#).await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(get(at.address, "/health").await.status, 200);
    at.gate.set(None);
    for call in calls {
        let frames = events(&call.reply().await.body);
        assert_eq!(frames.len(), 51, "49 letters (the end of text has none), the end, [DONE]");
        assert_eq!(frames.last().unwrap(), "[DONE]");
    }
    assert_eq!(stopped(at).await, Stopped::Drained);
}

#[tokio::test]
async fn a_drain_closes_kept_connections_after_their_next_answer() {
    let at = start().await;
    let mut kept = TcpStream::connect(at.address).await.unwrap();
    // A client that would keep its connection.
    let mut ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        kept.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"}}") && !head.ends_with(b"\"}") {
            let mut chunk = [0; 1024];
            let n = kept.read(&mut chunk).await.unwrap();
            assert!(n > 0, "the connection ended");
            head.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    };
    let before = ask("/health").await;
    assert!(before.starts_with("http/1.1 200") && !before.contains("connection: close"), "{before}");
    at.gate.set(Some(0));
    let call = Call::completion(at.address, LONG).await;
    let handle = at.engine.handle();
    eventually("it runs", || handle.load().running == 1).await;
    at.server.shutdown().drain();
    let refused = ask("/ready").await;
    assert!(refused.starts_with("http/1.1 503"), "{refused}");
    assert!(refused.contains("connection: close") && refused.contains("retry-after"), "{refused}");
    assert_eq!(kept.read(&mut [0; 16]).await.unwrap(), 0, "the server closes it");
    at.gate.set(None);
    assert!(call.reply().await.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(stopped(at).await, Stopped::Drained);
}

async fn stopped(mut at: Fixture) -> Stopped {
    let serving = &mut at.serving;
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it ends").unwrap().unwrap()
}

#[tokio::test]
async fn an_idle_server_stops_at_once_although_connections_are_open() {
    let at = start().await;
    let _idle = TcpStream::connect(at.address).await.unwrap();
    assert_eq!(get(at.address, "/health").await.status, 200);
    let begun = Instant::now();
    at.server.shutdown().drain();
    assert_eq!(stopped(at).await, Stopped::Drained);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

/// The last words of streams and plain requests that cannot finish.
async fn check_cut(at: Fixture, end: impl FnOnce(&Fixture)) {
    at.gate.set(Some(4));
    let handle = at.engine.handle();
    let mut stream = Call::completion(at.address, LONG).await;
    stream.read_until("data: ").await;
    let plain = Call::completion(at.address, r#"{"prompt":"a","max_tokens":50,"ignore_eos":true}"#).await;
    eventually("both are there", || handle.load().running + handle.load().queued == 2).await;
    end(&at);
    let frames = events(&stream.reply().await.body);
    let (done, before) = frames.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let error: Value = serde_json::from_str(before.last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "shutting_down");
    assert_eq!(plain.reply().await.status, 503);
    assert_eq!(stopped(at).await, Stopped::Cut);
}

#[tokio::test]
async fn what_outlasts_the_drain_ends_with_an_error_and_done() {
    let mut config = config();
    config.drain_timeout = Duration::from_millis(200);
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let begun = Instant::now();
    check_cut(at, |at| at.server.shutdown().drain()).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_second_word_ends_everything_now() {
    let at = start().await;
    check_cut(at, |at| {
        at.server.shutdown().drain();
        at.server.shutdown().cut();
    })
    .await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let mut config = config();
    config.limits.write_timeout = Duration::from_millis(100);
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    // About ten megabytes, more than the buffers on the way hold.
    let body = json!({"prompt": vec!["a"; 16], "n": 8, "max_tokens": 60, "logprobs": 20, "ignore_eos": true, "stream": true});
    let mut call = Call::completion(at.address, &body.to_string()).await;
    call.read_until("data: ").await;
    let handle = at.engine.handle();
    eventually("the work ends", || handle.load() == Load::default()).await;
    // The drain would wait for the answer if it were still being written.
    let begun = Instant::now();
    at.server.shutdown().drain();
    assert_eq!(stopped(at).await, Stopped::Drained);
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(call);
}

#[tokio::test]
async fn a_request_has_a_deadline() {
    let mut config = config();
    config.limits.request_timeout = Duration::from_millis(150);
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    at.gate.set(Some(1));
    let streamed = Call::completion(at.address, LONG).await;
    let plain = complete(at.address, r#"{"prompt":"a"}"#).await;
    assert_eq!((plain.status, &plain.json()["error"]["code"]), (504, &json!("request_timeout")));
    let frames = events(&streamed.reply().await.body);
    assert!(frames[frames.len() - 2].contains("request_timeout"), "{frames:?}");
    assert_eq!(frames.last().unwrap(), "[DONE]");
}
