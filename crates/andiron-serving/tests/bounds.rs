//! What a client can make a server do is bounded in time and memory. Each input is just beyond its bound and harmless.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::time::{Duration, Instant};

use andiron_serving::engine::EngineConfig;
use andiron_serving::http::{Server, Stopped};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::RwLock;

use common::{Call, complete, config, get, post, start, start_with};

/// A test that measures the memory of the process is alone in it, where others would run on other threads.
static PROCESS: RwLock<()> = RwLock::const_new(());

/// Bytes that this process has had at most.
#[cfg(target_os = "linux")]
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[cfg(not(target_os = "linux"))]
fn peak_memory() -> usize {
    0
}

/// Schemas of a few kilobytes, each beyond a bound once it is written out.
fn large_schemas() -> Vec<(&'static str, Value)> {
    let object = |n: usize, of: &Value| {
        let properties: serde_json::Map<String, Value> =
            (0..n).map(|i| (format!("p{i}"), of.clone())).collect();
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    };
    // Each definition holds the next one twice, written out because of the keyword beside it.
    let doubling = |levels: usize| {
        let next = |i: usize| json!({ "$ref": format!("#/$defs/d{}", i + 1), "type": "object" });
        let mut definitions: serde_json::Map<String, Value> = (0..levels)
            .map(|i| {
                (format!("d{i}"), json!({ "type": "object", "properties": { "a": next(i), "b": next(i) } }))
            })
            .collect();
        definitions.insert(format!("d{levels}"), json!({ "type": "object" }));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    };
    let product = |factors: usize, options: usize| {
        let option = |i: usize, j: usize| json!({ "type": "object", "required": [format!("p{i}_{j}")] });
        let factor = |i: usize| json!({ "anyOf": (0..options).map(|j| option(i, j)).collect::<Vec<_>>() });
        json!({ "allOf": (0..factors).map(factor).collect::<Vec<_>>() })
    };
    let chain = |n: usize| {
        let next = |i: usize| json!({ "type": "array", "items": { "$ref": format!("#/$defs/d{}", i + 1) } });
        let mut definitions: serde_json::Map<String, Value> =
            (0..n).map(|i| (format!("d{i}"), next(i))).collect();
        definitions.insert(format!("d{n}"), json!({ "type": "null" }));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    };
    let pattern = json!({ "type": "string", "pattern": format!("^({})$", ["[a-z]{2,9}"; 90].join("|")) });
    let names: serde_json::Map<String, Value> = (0..9).map(|i| (format!("^k{i}$"), json!({}))).collect();
    vec![
        ("parts once", doubling(14)),
        ("parts once", product(6, 5)),
        ("levels", chain(401)),
        ("properties", object(1001, &json!({ "type": "null" }))),
        ("parts once", object(250, &pattern)),
        ("patternProperties", json!({ "type": "object", "patternProperties": names })),
        ("values in one enum", json!({ "enum": (0..2001).collect::<Vec<_>>() })),
        ("multipleOf", json!({ "type": "integer", "multipleOf": 20_001 })),
        (
            "multipleOf",
            json!({ "allOf": [{ "type": "integer", "multipleOf": 997 }, { "type": "integer", "multipleOf": 991 }] }),
        ),
        ("repetitions", json!({ "type": "string", "pattern": "(a{150}){150}" })),
        ("characters and ranges", json!({ "type": "string", "pattern": "\\p{L}".repeat(51) })),
        ("bytes in one pattern", json!({ "type": "string", "pattern": "a".repeat(8193) })),
    ]
}

#[tokio::test]
async fn a_grammar_that_stands_for_too_much_is_a_400_by_name_in_time_and_memory() {
    let _alone = PROCESS.write().await;
    let at = start().await;
    // Whatever is made once is made.
    assert_eq!(complete(at.address, r#"{"prompt":"a","guided_regex":"a"}"#).await.status, 200);
    let before = peak_memory();
    let schemas =
        large_schemas().into_iter().map(|(bound, schema)| (bound, json!({ "guided_json": schema })));
    let others = [
        ("repetitions", json!({ "guided_regex": "(a{150}){150}" })),
        ("bytes in one pattern", json!({ "guided_regex": "a".repeat(8193) })),
        (
            "more than 4000 texts",
            json!({ "guided_choice": (0..4001).map(|i| i.to_string()).collect::<Vec<_>>() }),
        ),
        ("bytes of text", json!({ "guided_choice": ["a".repeat(65_537)] })),
        ("bytes", json!({ "guided_json": { "type": "null", "description": "a".repeat(262_144) } })),
    ];
    for (bound, mut body) in schemas.chain(others) {
        let (field, _) =
            body.as_object().unwrap().iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap();
        body["prompt"] = json!("a");
        let mut best = Duration::MAX;
        // A machine that runs other things may take the processor away for as long.
        for _ in 0..5 {
            let begun = Instant::now();
            let reply = complete(at.address, &body.to_string()).await;
            best = best.min(begun.elapsed());
            assert_eq!(reply.status, 400, "{bound}: {}", reply.body);
            let error = &reply.json()["error"];
            assert_eq!(error["param"], json!(field), "{bound}: {error}");
            assert!(error["message"].as_str().unwrap().contains(bound), "{bound}: {error}");
            if best < Duration::from_millis(500) {
                break;
            }
        }
        assert!(best < Duration::from_millis(500), "{bound}: {best:?}");
    }
    let grown = peak_memory() - before;
    assert!(grown < 64 << 20, "{} MB", grown >> 20);
}

#[tokio::test]
async fn a_text_that_cannot_fit_is_refused_by_its_bytes() {
    let _alone = PROCESS.write().await;
    let at = start().await;
    assert_eq!(post(at.address, "/tokenize", r#"{"prompt":"abc"}"#).await.status, 200);
    let before = peak_memory();
    let body = json!({ "prompt": "ab ".repeat(400_000) }).to_string();
    for path in ["/tokenize", "/v1/completions"] {
        let begun = Instant::now();
        let reply = post(at.address, path, &body).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
        assert!(reply.body.contains("1200000 bytes"), "{}", reply.body);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    let grown = peak_memory() - before;
    assert!(grown < 32 << 20, "{} MB", grown >> 20);
}

#[tokio::test]
async fn a_grammar_is_compiled_no_longer_than_a_request_may_take() {
    let _shared = PROCESS.read().await;
    let mut config = config();
    config.limits.request_timeout = Duration::from_millis(1);
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let fields: serde_json::Map<String, Value> =
        (0..900).map(|at| (format!("field {at}"), json!({ "type": "string" }))).collect();
    let body = json!({ "prompt": "a", "guided_json": { "type": "object", "properties": fields } });
    let reply = complete(at.address, &body.to_string()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("request_timeout")));
}

#[tokio::test]
async fn abandoned_texts_leave_no_work_behind() {
    let _alone = PROCESS.write().await;
    let at = start().await;
    let before = peak_memory();
    let body = json!({ "prompt": "ab".repeat(500_000) }).to_string();
    for _ in 0..100 {
        let head = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
        drop(Call::send(at.address, head, &body).await);
    }
    let begun = Instant::now();
    assert_eq!(post(at.address, "/tokenize", r#"{"prompt":"abc"}"#).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let grown = peak_memory() - before;
    assert!(grown < 160 << 20, "{} MB", grown >> 20);
}

#[tokio::test]
async fn large_bodies_share_a_bounded_memory_and_small_ones_pass() {
    let _shared = PROCESS.read().await;
    let mut config = config();
    config.limits.max_body_bytes_together = 256 << 10;
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let mut slow = TcpStream::connect(at.address).await.unwrap();
    let head = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    slow.write_all(format!("{head}Content-Length: 300000\r\n\r\n").as_bytes()).await.unwrap();
    slow.write_all(&[b' '; 250_000]).await.unwrap();
    let large = json!({ "prompt": "a".repeat(100_000) }).to_string();
    let mut status = 0;
    for _ in 0..200 {
        status = post(at.address, "/tokenize", &large).await.status;
        if status == 429 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, 429);
    assert_eq!(post(at.address, "/tokenize", r#"{"prompt":"abc"}"#).await.status, 200);
    drop(slow);
    for _ in 0..200 {
        status = post(at.address, "/tokenize", &large).await.status;
        if status != 429 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, 400, "there is room again, and the text is too long");
}

#[tokio::test]
async fn silent_connections_of_an_address_make_room_for_those_that_ask() {
    let _shared = PROCESS.read().await;
    let mut config = config();
    config.limits.max_connections = 40;
    config.limits.max_silent_connections = 8;
    let at = start_with(config, EngineConfig::default(), Some(common::tokenizer())).await;
    let mut silent = Vec::new();
    for _ in 0..120 {
        silent.push(TcpStream::connect(at.address).await.unwrap());
    }
    let begun = Instant::now();
    assert_eq!(get(at.address, "/health").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // The first one was closed, the last one was not.
    let closed = tokio::time::timeout(Duration::from_secs(5), silent[0].read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    let mut last = silent.pop().unwrap();
    last.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A server of one large answer, asked for by a client that reads slowly.
async fn large_answer(drain_timeout: Duration) -> (TcpStream, Server, tokio::task::JoinHandle<Stopped>) {
    const BYTES: usize = 24 << 20;
    let mut config = config();
    config.drain_timeout = drain_timeout;
    let at = start_with(config, EngineConfig::default(), None).await;
    let server = at.server.clone();
    let listener = server.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/large", axum::routing::get(|| async { vec![b'x'; BYTES] }));
    let running = server.clone();
    let serving = tokio::spawn(async move {
        let stopped = running.serve(listener, router).await.unwrap();
        drop(at);
        stopped
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 1024]).await.unwrap();
    (stream, server, serving)
}

#[tokio::test]
async fn a_drain_delivers_an_answer_to_its_last_byte() {
    let _shared = PROCESS.read().await;
    let (mut stream, server, serving) = large_answer(Duration::from_secs(30)).await;
    server.shutdown().drain();
    // Slower than the moment that connections have to close.
    let mut read = 1024;
    let mut chunk = vec![0; 2 << 20];
    let begun = Instant::now();
    loop {
        let n = stream.read(&mut chunk).await.unwrap();
        if n == 0 {
            break;
        }
        if read < 12 << 20 && read + n >= 12 << 20 {
            while begun.elapsed() < Duration::from_millis(1800) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        read += n;
    }
    assert!(read > 24 << 20, "{read} bytes came");
    assert_eq!(serving.await.unwrap(), Stopped::Drained);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_no_clean_end() {
    let _shared = PROCESS.read().await;
    let (stream, server, serving) = large_answer(Duration::from_millis(300)).await;
    let begun = Instant::now();
    server.shutdown().drain();
    assert_eq!(serving.await.unwrap(), Stopped::Cut);
    assert!(begun.elapsed() < Duration::from_millis(2300), "{:?}", begun.elapsed());
    drop(stream);
}
