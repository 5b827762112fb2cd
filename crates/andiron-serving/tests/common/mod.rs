//! A tiny deterministic model, a server around it, and a hand-written HTTP client.
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod script;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use andiron_data::tokenizer::{SpecialTokens, Tokenizer, train_chars};
use andiron_models::generate::{CausalLm, Logits, StateBlocks};
use andiron_pipelines::TextProcessor;
use andiron_serving::engine::{Engine, EngineConfig};
use andiron_serving::http::{ServeError, Server, ServerConfig, Stopped};
use andiron_serving::registry::{Registry, Runner, Served, ServedModel};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Ids in the order of the characters: `!` 0, `a` 1 … `z` 26, `é` 27, the end of text 28.
pub const LETTERS: &str = "!abcdefghijklmnopqrstuvwxyzé";
pub const VOCAB: usize = 29;
pub const END: u32 = 28;
pub const CONTEXT: usize = 64;

/// The model panics when it reads this one.
pub const BOMB: u32 = 0;

pub fn tokenizer() -> Tokenizer {
    train_chars([LETTERS], &SpecialTokens::end_of_text("<|end|>")).unwrap()
}

/// Lets the model make a limited number of steps, so that tests decide what happens when.
#[derive(Clone, Default)]
pub struct Gate {
    inner: Arc<GateState>,
}

#[derive(Default)]
struct GateState {
    /// `None`: open.
    permits: Mutex<Option<usize>>,
    changed: Condvar,
    steps: AtomicUsize,
}

impl Gate {
    pub fn set(&self, permits: Option<usize>) {
        *self.inner.permits.lock().unwrap() = permits;
        self.inner.changed.notify_all();
    }

    /// Calls of the model so far.
    pub fn steps(&self) -> usize {
        self.inner.steps.load(Ordering::SeqCst)
    }

    pub fn pass(&self) {
        let mut permits = self.inner.permits.lock().unwrap();
        while *permits == Some(0) {
            permits = self.inner.changed.wait(permits).unwrap();
        }
        *permits = permits.map(|n| n - 1);
        self.inner.steps.fetch_add(1, Ordering::SeqCst);
    }
}

/// Greedy, it says the alphabet from where the prompt ends; sampled, its noise depends on every id before.
pub struct Alphabet {
    pub gate: Gate,
    pub context: usize,
}

impl Alphabet {
    fn row(seen: &[u32]) -> Vec<f32> {
        let hash = seen.iter().fold(17u64, |hash, &id| (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01b3));
        let next = (seen[seen.len() - 1] as usize + 1) % VOCAB;
        let noise = |v: usize| (hash.wrapping_mul(2 * v as u64 + 1) >> 40) % 1000;
        (0..VOCAB).map(|v| noise(v) as f32 / 400.0 + if v == next { 4.0 } else { 0.0 }).collect()
    }
}

impl CausalLm for Alphabet {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context_len(&self) -> usize {
        self.context
    }

    fn begin(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.gate.pass();
        assert!(state.len() + ids.len() <= self.context);
        let mut rows = Vec::new();
        for &id in ids {
            assert!(id != BOMB || !state.is_empty(), "the bomb went off");
            state.push(id);
            rows.extend(Self::row(state));
        }
        match wanted {
            Logits::All => rows,
            Logits::Last => rows.split_off(rows.len() - VOCAB),
        }
    }
}

/// An [`Alphabet`] whose states can be copied and share blocks of four ids, and that counts the ids it reads in prompts.
pub struct Copyist {
    pub inner: Alphabet,
    pub prefilled: Arc<AtomicUsize>,
}

impl CausalLm for Copyist {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.inner.context_len()
    }

    fn begin(&self) -> Vec<u32> {
        self.inner.begin()
    }

    fn fork(&self, state: &Vec<u32>) -> Option<Vec<u32>> {
        Some(state.clone())
    }

    fn state_blocks(&self) -> Option<StateBlocks> {
        Some(StateBlocks { len: 4, bytes: 16, source_bytes: 0 })
    }

    fn block(&self, state: &Vec<u32>, index: usize) -> Vec<u32> {
        state[4 * index..4 * (index + 1)].to_vec()
    }

    fn append_block(&self, state: &mut Vec<u32>, block: &Vec<u32>) {
        state.extend(block);
    }

    fn decode(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.inner.forward(state, ids, wanted)
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.prefilled.fetch_add(ids.len(), Ordering::SeqCst);
        self.inner.forward(state, ids, wanted)
    }
}

/// A running server on a port of its own.
pub struct Fixture {
    pub address: SocketAddr,
    pub server: Server,
    pub engine: Engine,
    pub gate: Gate,
    pub serving: JoinHandle<Result<Stopped, ServeError>>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // The engine's thread is joined when it is dropped.
        self.gate.set(None);
    }
}

pub fn config() -> ServerConfig {
    ServerConfig::new(5)
}

pub async fn start() -> Fixture {
    start_with(config(), EngineConfig::default(), Some(tokenizer())).await
}

pub async fn start_with(config: ServerConfig, engine: EngineConfig, tokenizer: Option<Tokenizer>) -> Fixture {
    let gate = Gate::default();
    let model = Alphabet { gate: gate.clone(), context: CONTEXT };
    start_model(model, gate, config, engine, tokenizer).await
}

/// A server whose model is described by `info`.
pub async fn start_described(info: ServedModel) -> Fixture {
    let gate = Gate::default();
    let model = Alphabet { gate: gate.clone(), context: CONTEXT };
    let engine = Engine::start(model, EngineConfig::default()).unwrap();
    start_engine(info, engine, gate, config(), Some(tokenizer())).await
}

pub async fn start_model<M: CausalLm + 'static>(
    model: M,
    gate: Gate,
    config: ServerConfig,
    engine: EngineConfig,
    tokenizer: Option<Tokenizer>,
) -> Fixture {
    let engine = Engine::start(model, engine).unwrap();
    start_engine(ServedModel::new("alphabet"), engine, gate, config, tokenizer).await
}

async fn start_engine(
    info: ServedModel,
    engine: Engine,
    gate: Gate,
    config: ServerConfig,
    tokenizer: Option<Tokenizer>,
) -> Fixture {
    let text = TextProcessor::new(tokenizer, vec![END]);
    let served = Served::new(info, text, Runner::Decoder(engine.handle()));
    let server = Server::new(Registry::of(served), config);
    let listener = server.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = server.clone();
    let serving = tokio::spawn(async move { running.serve(listener, running.router()).await });
    Fixture { address, server, engine, gate, serving }
}

/// Waits for a fact that another thread is about to make true.
pub async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if fact() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// Lets the model take one step at a time until `fact` is true: a model that may run on is done before the server learns that its client
/// has gone.
pub async fn step_until(gate: &Gate, what: &str, mut fact: impl FnMut() -> bool) {
    for _ in 0..500 {
        if fact() {
            return;
        }
        gate.set(Some(1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never happened: {what}");
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection with a request sent and the answer not read yet.
pub struct Call {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Call {
    pub async fn send(address: SocketAddr, head: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub async fn completion(address: SocketAddr, body: &str) -> Self {
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
        Self::send(address, head, body).await
    }

    /// Reads until the text so far holds `wanted`, and returns all of it.
    pub async fn read_until(&mut self, wanted: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if text.contains(wanted) {
                return text;
            }
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read(&mut chunk)).await;
            let n = read.unwrap_or_else(|_| panic!("no {wanted:?} in {text}")).unwrap();
            assert!(n > 0, "the connection ended without {wanted:?}: {text}");
            self.buffer.extend_from_slice(&chunk[..n]);
        }
    }

    pub async fn reply(mut self) -> Reply {
        let read =
            tokio::time::timeout(Duration::from_secs(20), self.stream.read_to_end(&mut self.buffer)).await;
        read.expect("the answer ends").unwrap();
        let split = self.buffer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(self.buffer[..split].to_vec()).unwrap();
        let mut body = self.buffer[split + 4..].to_vec();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            body = unchunk(&body);
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Reply { status, head, body: String::from_utf8(body).unwrap() }
    }
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = raw.windows(2).position(|w| w == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        body.extend_from_slice(&raw[line + 2..line + 2 + length]);
        raw = &raw[line + 4 + length..];
    }
    body
}

pub async fn get(address: SocketAddr, path: &str) -> Reply {
    Call::send(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost"), "").await.reply().await
}

pub async fn post(address: SocketAddr, path: &str, body: &str) -> Reply {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json");
    Call::send(address, &head, body).await.reply().await
}

pub async fn complete(address: SocketAddr, body: &str) -> Reply {
    post(address, "/v1/completions", body).await
}

/// The text of the only choice.
pub async fn text(address: SocketAddr, body: &str) -> String {
    let reply = complete(address, body).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["choices"][0]["text"].as_str().unwrap().to_owned()
}

/// The data of each event.
pub fn events(body: &str) -> Vec<String> {
    body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// The samples of `/metrics`, by name with labels.
pub async fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    let reply = get(address, "/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let samples = reply.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap()
        })
        .collect()
}

/// The sum of a metric over its labels.
pub fn total(page: &BTreeMap<String, f64>, name: &str) -> f64 {
    page.iter().filter(|(sample, _)| sample.split('{').next() == Some(name)).map(|(_, value)| value).sum()
}
