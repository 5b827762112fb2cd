//! `andiron serve`: a model behind an OpenAI-compatible API and a web page.

mod limits;
mod models;
mod notify;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use andiron_kernels::allocator;
use andiron_models::generate::WhenFull;
use andiron_serving::engine::{EngineConfig, KvBudget};
use andiron_serving::http::{Access, ApiKey, CorsOrigin, Phase, Server, ServerConfig, Shutdown, Stopped};
use andiron_serving::registry::Registry;
use andiron_serving::runner::OneShotConfig;
use anyhow::Context as _;
use clap::Args;

use crate::byte_size::ByteSize;
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::{note, out};
use crate::memory;
use crate::model::RunChoice;
use crate::stop;

use limits::LimitFlags;
use models::ServedChoice;
use notify::Notifier;

/// Serve models over HTTP with an OpenAI-compatible API and a web page
///
/// A decoder continues texts and chats; an encoder embeds, ranks, labels, answers or fills masks, by its head; an encoder-decoder translates
/// and summarizes. GET /v1/models lists what each can do.
///
/// GET /health, /ready and /metrics are for operators, /docs shows the API. While models are loaded, and while the server shuts down, /ready
/// and requests get 503.
///
/// On SIGTERM or Ctrl-C, running requests finish first; a second signal ends the server at once. Under systemd, the server tells when it is
/// ready (Type=notify) and that it is alive (WatchdogSec=). Sampling options that a
/// request does not set come from the model's `generation_config.json`, else from OpenAI's defaults.
///
/// Every option can also be set by an environment variable, and by a key of the TOML file --config: --max-queued is
/// ANDIRON_SERVE_MAX_QUEUED and `max_queued`. Flags come before variables, variables before the file.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    models: ServedChoice,
    /// Address to listen on. Other machines can reach any but a loopback address, so any other needs
    /// --api-key-file or --insecure-no-auth
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 picks a free one and prints it
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// File with one API key per line. Requests then need a key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// API key; may be repeated. Other users of this machine can see flags: prefer --api-key-file or the variable
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Allow a non-loopback address without API keys
    #[arg(long)]
    insecure_no_auth: bool,
    /// Host name that a request without a key may name besides localhost and loopback addresses; may be repeated
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Web origin whose pages may use this server (CORS), such as `https://chat.example.org`, or * for all; may be repeated
    /// [default: none]
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Serve GET /metrics without a key, for programs that read metrics and have none
    #[arg(long)]
    open_metrics: bool,
    /// Give /metrics under vLLM's names (vllm:num_requests_waiting …), too: llm-d's router, recipes for KEDA and dashboards read these. The
    /// numbers of requests and the use of the KV cache are then one sample for all models together
    #[arg(long)]
    vllm_metrics: bool,
    /// Sequences decoded as one batch (continuous batching); further ones wait in the queue
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(8).expect("8 is not 0"))]
    max_running: NonZeroUsize,
    /// Queue length, in requests; beyond it the server answers 429
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(256).expect("256 is not 0"))]
    max_queued: NonZeroUsize,
    /// Prompt tokens of all requests in the queue; beyond them the server answers 429
    #[arg(long, value_name = "N", default_value_t = EngineConfig::default().max_queued_tokens)]
    max_queued_tokens: usize,
    /// Encoders: texts in the queue, of all requests; beyond it the server answers 429
    #[arg(long, value_name = "N", default_value_t = OneShotConfig::default().max_queued)]
    max_queued_texts: usize,
    /// Encoders: tokens of texts that are read as one batch, unless one text is longer
    #[arg(long, value_name = "N", default_value_t = OneShotConfig::default().max_batch_tokens)]
    max_batch_tokens: usize,
    /// Encoders: milliseconds that an idle model waits for more texts to read as one batch
    #[arg(long, value_name = "MS", default_value_t = OneShotConfig::default().window.as_millis() as u64)]
    batch_window: u64,
    /// Prompt tokens per prefill step. While other sequences decode, steps are shorter, so that those wait about 200 ms
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(256).expect("256 is not 0"))]
    prefill_chunk: NonZeroUsize,
    /// Memory for the KV caches of all models, in equal shares, such as 512MiB or 4GB: of running requests, and of prompts that are
    /// kept for later ones that begin in the same way. If it is used up, the latest requests wait and are computed again; one that could never fit is
    /// refused [default: a quarter of the memory that is free when the server starts]
    #[arg(long, value_name = "SIZE")]
    kv_cache_bytes: Option<ByteSize>,
    /// Prefill each prompt whole, instead of keeping prompts for later ones that begin in the same way
    #[arg(long)]
    no_prefix_cache: bool,
    /// Speculative (prompt-lookup) decoding while a single request decodes: number of draft tokens to verify per step. Texts that
    /// repeat their prompt come two to three times as fast with 8, sampled prose a little slower; no text changes; 0 is off
    #[arg(long, value_name = "N", default_value_t = EngineConfig::default().prompt_lookup)]
    prompt_lookup: usize,
    /// Seconds that running requests have to finish after SIGTERM. The process exits at most two seconds later
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_timeout: u64,
    /// Stop a text when the context is full, instead of dropping the oldest tokens and continuing
    #[arg(long)]
    no_slide: bool,
    #[command(flatten)]
    run: RunChoice,
    /// TOML file with settings: the names of these options, with _ in the place of -
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings as a TOML file, with the place that each comes from, and exit
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    limits: LimitFlags,
}

impl Serve {
    /// Serves until a signal.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let keys = self.keys()?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut config = ServerConfig::new(since_epoch.as_nanos() as u64);
        config.access = Access {
            keys,
            insecure_no_auth: self.insecure_no_auth,
            allowed_hosts: self.allowed_host.clone(),
            cors_origins: self.cors_origins()?,
            open_metrics: self.open_metrics,
        };
        config.limits = self.limits.0.clone();
        config.vllm_metrics = self.vllm_metrics;
        config.prefill_chunk = self.prefill_chunk.get();
        config.drain_timeout = Duration::from_secs(self.drain_timeout);
        config.when_full = if self.no_slide { WhenFull::Stop } else { WhenFull::Slide };

        let engine_config = EngineConfig {
            max_running: self.max_running,
            max_queued: self.max_queued.get(),
            max_queued_tokens: self.max_queued_tokens,
            kv_cache: KvBudget::new(
                self.kv_cache_bytes.map_or_else(default_kv_cache_bytes, |ByteSize(bytes)| bytes),
            ),
            prefix_cache: !self.no_prefix_cache,
            prompt_lookup: self.prompt_lookup,
        };
        let one_shot_config = OneShotConfig {
            max_queued: self.max_queued_texts,
            max_batch_tokens: self.max_batch_tokens,
            window: Duration::from_millis(self.batch_window),
            ..OneShotConfig::default()
        };
        let settings = self.models.settings(self.run, engine_config, one_shot_config, common);
        let loader = self.models.loader(&settings)?;
        // A device that does not exist is told before a model that does not.
        self.run.checked(common)?;
        common.open_device()?;
        let drain_timeout = config.drain_timeout;
        let registry = Registry::default();
        let server = Server::new(registry.clone(), config);
        let server = match loader {
            Some(loader) => server.with_loader(loader),
            None => server,
        };
        stop::ensure_files_for_signals().context("cannot start the server")?;
        stop::ensure_threads(WORKERS + OTHER_THREADS).context("cannot start the server's threads")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .context("cannot start the server's threads")?;
        let address = format!("{}:{}", self.host, self.port);
        let listener =
            runtime.block_on(server.bind(&address)).with_context(|| format!("cannot serve on {address}"))?;
        let address = listener.local_addr()?;
        // Before the line is printed, because its reader may send a signal.
        follow_signals(server.shutdown(), drain_timeout)?;
        runtime.spawn(return_freed_memory());
        // While models are being opened, `/ready` and requests get 503.
        let starting = Arc::new(server.starting());
        let (served, begun) = (server.clone(), Arc::downgrade(&starting));
        let serving = runtime.spawn(async move {
            let stopped = served.serve(listener, served.router()).await;
            // Opening a model cannot be interrupted.
            if begun.strong_count() > 0 && stopped.is_ok() {
                std::process::exit(0);
            }
            stopped
        });
        // On this thread, which is one of those that compute.
        self.models.start(&settings, &registry)?;
        drop(starting);
        out!("listening on http://{address}")?;
        if let Some(notifier) = Notifier::from_environment() {
            runtime.spawn(notifier.follow(server.clone()));
        }
        let stopped = runtime.block_on(serving).context("the server failed")??;
        // Tokenization and a step of the model cannot be interrupted; they must not keep the process alive.
        runtime.shutdown_background();
        match stopped {
            Stopped::Drained => drop(server),
            Stopped::Cut => std::mem::forget(server),
        }
        match stopped {
            Stopped::Drained => Ok(Ending::Done),
            Stopped::Cut => anyhow::bail!("some requests were cut off before they were finished"),
        }
    }

    /// The keys of --api-key and of the file.
    fn keys(&self) -> anyhow::Result<Vec<ApiKey>> {
        let given = self.api_key.iter().map(|key| {
            ApiKey::new(key).ok_or_else(|| Usage("--api-key is empty, or has spaces at its ends".to_owned()))
        });
        let mut keys = given.collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = &self.api_key_file {
            keys.extend(read_keys(path)?);
        }
        Ok(keys)
    }

    fn cors_origins(&self) -> Result<Vec<CorsOrigin>, Usage> {
        let read = |origin: &String| {
            CorsOrigin::parse(origin).ok_or_else(|| {
                Usage(format!(
                    "--cors-origin {origin:?} is no origin: write a scheme and a host, as in https://chat.example.org, or *"
                ))
            })
        };
        self.cors_origin.iter().map(read).collect()
    }
}

/// The budget if the system does not say how much memory is free.
const UNKNOWN_KV_CACHE_BYTES: usize = 1 << 30;

/// A quarter of the free memory: the rest is for requests and their answers, for the memory of each step, and for other models.
fn default_kv_cache_bytes() -> usize {
    memory::free_bytes().map_or(UNKNOWN_KV_CACHE_BYTES, |bytes| (bytes / 4) as usize)
}

/// Threads that read requests and write answers.
const WORKERS: usize = 2;

/// The other threads of a server: one that follows signals, two that tokenize, one that compiles grammars, one that loads models.
const OTHER_THREADS: usize = 5;

/// How long after the drain timeout the process may still run.
const GRACE: Duration = Duration::from_millis(1500);

/// How long freed memory is kept for the next step: that of an unloaded model goes back to the system.
const KEPT: Duration = Duration::from_secs(5);

/// Returns freed memory now and then, for ever.
async fn return_freed_memory() {
    allocator::keep_freed_memory_for(KEPT);
    loop {
        tokio::time::sleep(KEPT).await;
        allocator::return_freed_memory();
    }
}

/// Handles signals on a thread of its own, which no other work can block, and ends the process if the service does not end in
/// time. When it returns, the handlers are set.
fn follow_signals(shutdown: Shutdown, drain_timeout: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot follow signals")?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let obey = async move {
        let overdue = async {
            shutdown.reached(Phase::Draining).await;
            tokio::select! {
                () = tokio::time::sleep(drain_timeout) => {}
                () = shutdown.reached(Phase::Cut) => {}
            }
            tokio::time::sleep(GRACE).await;
        };
        let signals = async {
            let mut follow = std::pin::pin!(async {
                if let Err(error) = shutdown.clone().follow_signals().await {
                    tracing::warn!(%error, "cannot follow signals: only a kill will stop the server");
                }
                std::future::pending::<()>().await
            });
            std::future::poll_fn(|cx| {
                let polled = follow.as_mut().poll(cx);
                // The first poll has set the handlers. Nobody waits for more.
                let _ = ready.send(());
                polled
            })
            .await
        };
        tokio::select! {
            () = overdue => {}
            () = signals => {}
        }
        note!("error: some requests were cut off before they were finished");
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("andiron-signals".to_owned())
        .spawn(move || runtime.block_on(obey))
        .context("cannot follow signals")?;
    // Fails only if the thread is gone, and with it the process.
    let _ = is_ready.recv();
    Ok(())
}

fn read_keys(path: &Path) -> anyhow::Result<Vec<ApiKey>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let keys: Vec<ApiKey> =
        text.trim_start_matches('\u{feff}').lines().map(str::trim).filter_map(ApiKey::new).collect();
    if keys.is_empty() {
        return Err(Usage(format!("{} holds no API key: write one on each line", path.display())).into());
    }
    Ok(keys)
}
