//! Many clients at once, and clients that go away: nothing but 200 and 429, nothing left behind, metrics that agree with the clients.
//!
//! `ANDIRON_LOAD_SECONDS` sets how long the clients keep on; 2 seconds without it.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use andiron_kernels::random::Seed;
use andiron_serving::engine::{EngineConfig, Load};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use common::{Call, complete, config, events, eventually, metrics, start, start_with, tokenizer, total};

/// Streaming clients at once.
const CLIENTS: u64 = 256;

fn seconds() -> f64 {
    std::env::var("ANDIRON_LOAD_SECONDS").map_or(2.0, |text| text.parse().unwrap())
}

/// Bytes in memory of this process, which holds the clients too.
#[cfg(target_os = "linux")]
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

#[cfg(not(target_os = "linux"))]
fn resident() -> f64 {
    0.0
}

/// Open files of this process.
#[cfg(target_os = "linux")]
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(not(target_os = "linux"))]
fn open_files() -> usize {
    0
}

/// Whether nothing runs and nothing waits.
fn is_idle(load: Load) -> bool {
    (load.running, load.queued, load.queued_tokens) == (0, 0, 0)
}

/// A test that measures the memory of the process is alone in it, where others would run on other threads.
static PROCESS: RwLock<()> = RwLock::const_new(());

/// How far the clients are.
#[derive(Default)]
struct Progress {
    /// Clients that have had an answer.
    begun: AtomicU64,
    over: AtomicBool,
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u16, u64>,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// Sends one request after the other, until all is over.
async fn client(address: SocketAddr, number: u64, progress: Arc<Progress>) -> Seen {
    let mut seen = Seen::default();
    let mut round = 0;
    while !progress.over.load(Ordering::Relaxed) {
        let random = Seed::new(number).at(round);
        round += 1;
        let body = json!({
            "prompt": vec![1 + random.bits(0) % 20; 1 + random.bits(1) as usize % 20],
            "max_tokens": 1 + random.bits(2) % 24,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let reply = complete(address, &body.to_string()).await;
        *seen.statuses.entry(reply.status).or_default() += 1;
        progress.begun.fetch_add(u64::from(round == 1), Ordering::Relaxed);
        match reply.status {
            200 => {
                let frames = events(&reply.body);
                let (done, before) = frames.split_last().unwrap();
                assert_eq!(done, "[DONE]");
                let last: Value = serde_json::from_str(before.last().unwrap()).unwrap();
                seen.prompt_tokens +=
                    last["usage"]["prompt_tokens"].as_u64().unwrap_or_else(|| panic!("{last}"));
                seen.completion_tokens += last["usage"]["completion_tokens"].as_u64().unwrap();
            }
            429 => {
                assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
                // A second would be polite; the queue is to stay full.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other}: {}", reply.body),
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streaming_clients_see_200_or_429_and_metrics_agree_with_them() {
    let _alone = PROCESS.write().await;
    // All of them connect at once, from one address.
    let mut config = config();
    config.limits.max_silent_connections = CLIENTS as usize;
    let at = start_with(config, EngineConfig::default(), Some(tokenizer())).await;
    let files_before = open_files();
    let (progress, time) = (Arc::<Progress>::default(), Duration::from_secs_f64(seconds()));
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(client(at.address, number, Arc::clone(&progress)))).collect();
    // However slow the machine is, each has its memory by then.
    eventually("every client has had an answer", || progress.begun.load(Ordering::Relaxed) == CLIENTS).await;
    tokio::time::sleep(time / 4).await;
    let early = resident();
    tokio::time::sleep(time * 3 / 4).await;
    let late = resident();
    progress.over.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for client in clients {
        let seen = client.await.unwrap();
        for (status, count) in seen.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
        all.prompt_tokens += seen.prompt_tokens;
        all.completion_tokens += seen.completion_tokens;
    }
    assert!(all.statuses[&200] > CLIENTS, "{:?}", all.statuses);
    // In a short run, buffers are still growing to their size.
    let slack = if seconds() < 30.0 { 16 << 20 } else { 1 << 20 };
    assert!(late < early * 1.05 + f64::from(slack), "{early} bytes became {late}");
    let page = metrics(at.address).await;
    for (status, count) in &all.statuses {
        let name = format!(
            "andiron:http_requests_total{{method=\"POST\",route=\"/v1/completions\",status=\"{status}\"}}"
        );
        assert_eq!(page[&name], *count as f64, "{status}");
    }
    assert_eq!(total(&page, "andiron:prompt_tokens_total"), all.prompt_tokens as f64);
    assert_eq!(total(&page, "andiron:generation_tokens_total"), all.completion_tokens as f64);
    assert_eq!(total(&page, "andiron:request_success_total"), all.statuses[&200] as f64);
    assert_eq!(total(&page, "andiron:e2e_request_latency_seconds_count"), all.statuses[&200] as f64);
    assert!(is_idle(at.engine.handle().load()));
    eventually("the connections are closed", || open_files() <= files_before + 2).await;
}

/// One client that goes away at a random moment: before it is read, in the queue, in the prompt, in the answer.
async fn hasty(address: SocketAddr, number: u64) {
    let random = Seed::new(77).at(number);
    let stream = random.bits(0).is_multiple_of(2);
    let body = json!({
        "prompt": vec![2; 1 + random.bits(1) as usize % 40],
        "max_tokens": 20,
        "n": if random.bits(2).is_multiple_of(2) { 1 } else { 4 },
        "ignore_eos": true,
        "stream": stream,
    });
    let mut call = Call::completion(address, &body.to_string()).await;
    match random.bits(3) % 3 {
        0 => {}
        1 if stream => {
            drop(tokio::time::timeout(Duration::from_millis(20), call.read_until("\r\n\r\n")).await)
        }
        _ => tokio::time::sleep(Duration::from_micros(random.bits(4) % 5000)).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_go_at_random_free_everything() {
    let _shared = PROCESS.read().await;
    let at = start().await;
    let handle = at.engine.handle();
    for batch in 0..20 {
        let calls: FuturesUnordered<_> =
            (0..50).map(|number| tokio::spawn(hasty(at.address, 50 * batch + number))).collect();
        let gone: Vec<_> = calls.collect().await;
        assert!(gone.iter().all(Result::is_ok));
    }
    let left = Instant::now();
    eventually("all is free", || is_idle(handle.load())).await;
    // A quarter of a second is for the server, the rest for a machine that runs other tests.
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    let page = metrics(at.address).await;
    for gauge in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
        assert_eq!(total(&page, &format!("andiron:{gauge}")), 0.0, "{gauge}");
    }
    let ended = |reason: &str| {
        page[&format!(
            "andiron:request_success_total{{model_name=\"alphabet\",finished_reason=\"{reason}\"}}"
        )]
    };
    assert!(ended("abort") > 0.0 && ended("error") == 0.0, "{page:?}");
    let reply = complete(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0}"#).await;
    assert_eq!(reply.json()["choices"][0]["text"], "bc");
}

#[tokio::test]
async fn a_hundred_panics_cost_a_hundred_requests() {
    let _shared = PROCESS.read().await;
    let at = start().await;
    for _ in 0..100 {
        assert_eq!(complete(at.address, r#"{"prompt":"!"}"#).await.status, 500);
    }
    let page = metrics(at.address).await;
    assert_eq!(
        page["andiron:request_success_total{model_name=\"alphabet\",finished_reason=\"error\"}"],
        100.0
    );
    let reply = complete(at.address, r#"{"prompt":"a","max_tokens":2,"temperature":0}"#).await;
    assert_eq!(reply.json()["choices"][0]["text"], "bc");
}
