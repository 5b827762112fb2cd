//! Serves a toy model that needs no weights: it says the alphabet, with mistakes at higher temperatures.
//!
//! ```sh
//! cargo run --release -p andiron-serving --example parrot [ADDRESS] [API_KEY]
//! ```
//!
//! It shows everything a program does to serve a model of its own: implement [`CausalLm`], start an [`Engine`], put it in a
//! [`Registry`], make a [`Server`], follow the signals, serve.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use andiron_data::tokenizer::{SpecialTokens, train_chars};
use andiron_models::generate::{CausalLm, Logits};
use andiron_pipelines::TextProcessor;
use andiron_serving::engine::{Engine, EngineConfig};
use andiron_serving::http::{ApiKey, Server, ServerConfig, Stopped};
use andiron_serving::registry::{Registry, Served, ServedModel};

const LETTERS: &str = " !?.,abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZé\n";

struct Parrot {
    vocab_size: usize,
}

impl CausalLm for Parrot {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        1024
    }

    fn begin(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        // A model takes its time; this makes the stream visible.
        std::thread::sleep(Duration::from_millis(5));
        let mut rows = Vec::new();
        for &id in ids {
            state.push(id);
            let next = (id as usize + 1) % self.vocab_size;
            rows.extend((0..self.vocab_size).map(|v| if v == next { 6.0 } else { 0.0 }));
        }
        match wanted {
            Logits::All => rows,
            Logits::Last => rows.split_off(rows.len() - self.vocab_size),
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    let tokenizer = train_chars([LETTERS], &SpecialTokens::end_of_text("<|end|>"))?;
    let engine = Engine::start(Parrot { vocab_size: tokenizer.vocab_size() }, EngineConfig::default())?;

    // The standard library's hasher is keyed with fresh entropy.
    let mut config = ServerConfig::new(RandomState::new().build_hasher().finish());
    config.access.keys = arguments.next().and_then(ApiKey::new).into_iter().collect();

    let end_ids = tokenizer.eos_id().into_iter().collect();
    let text = TextProcessor::new(Some(tokenizer), end_ids);
    let created = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let info = ServedModel { created, ..ServedModel::new("parrot") };
    let server = Server::new(Registry::of(Served::owning(info, text, engine)), config);
    let listener = server.bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let signals = tokio::spawn(server.shutdown().follow_signals());
    let stopped = server.serve(listener, server.router()).await?;
    signals.abort();
    Ok(match stopped {
        Stopped::Drained => ExitCode::SUCCESS,
        Stopped::Cut => ExitCode::FAILURE,
    })
}
