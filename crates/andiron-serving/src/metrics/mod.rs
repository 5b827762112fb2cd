//! What a model has done since it was loaded: counters and histograms, for Prometheus.
//!
//! Names, units and buckets are those of vLLM with the prefix `andiron:` in the place of `vllm:`, so that a dashboard made for vLLM works
//! after that one replacement; the server can write them under vLLM's own names, too. There is no global registry: each model has its
//! [`ModelMetrics`], and the page is written from those of the models that are loaded.
//!
//! Source: vLLM, `vllm/v1/metrics/loggers.py`.

mod exposition;
mod histogram;
mod meter;
mod vllm;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use exposition::{Exposition, Kind};
pub(crate) use meter::Meter;
pub(crate) use vllm::write as write_as_vllm;

use histogram::Histogram;

/// Seconds from submission to the first token.
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];

/// Seconds between two tokens of a sequence.
const BETWEEN_TOKENS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];

/// Seconds for a whole request, or in the queue.
const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];

/// Tokens of a request.
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0,
    100000.0, 200000.0,
];

/// How a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A stop id or a stop string.
    Stop,
    /// The maximum number of tokens.
    Length,
    /// Its client went away, or the server was stopped.
    Abort,
    /// It failed.
    Error,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Stop, Self::Length, Self::Abort, Self::Error];

    /// The value of the label `finished_reason`.
    fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// Counters and histograms of one model. Shared by the engine, which writes, and the routes, which read.
#[derive(Debug)]
pub struct ModelMetrics {
    prompt_tokens: AtomicU64,
    generation_tokens: AtomicU64,
    finished: [AtomicU64; 4],
    preemptions: AtomicU64,
    prefix_queries: AtomicU64,
    prefix_hits: AtomicU64,
    /// Bits of an `f64`.
    kv_cache_usage: AtomicU64,
    /// Positions per block of the KV cache; 0 if that is not known.
    kv_block_len: AtomicU64,
    /// Blocks of the KV cache.
    kv_blocks: AtomicU64,
    first_token: Histogram,
    between_tokens: Histogram,
    latency: Histogram,
    queue: Histogram,
    prompt_len: Histogram,
    generation_len: Histogram,
}

impl Default for ModelMetrics {
    fn default() -> Self {
        Self {
            prompt_tokens: AtomicU64::default(),
            generation_tokens: AtomicU64::default(),
            finished: Default::default(),
            preemptions: AtomicU64::default(),
            prefix_queries: AtomicU64::default(),
            prefix_hits: AtomicU64::default(),
            kv_cache_usage: AtomicU64::default(),
            kv_block_len: AtomicU64::default(),
            kv_blocks: AtomicU64::default(),
            first_token: Histogram::new(FIRST_TOKEN),
            between_tokens: Histogram::new(BETWEEN_TOKENS),
            latency: Histogram::new(LATENCY),
            queue: Histogram::new(LATENCY),
            prompt_len: Histogram::new(TOKENS),
            generation_len: Histogram::new(TOKENS),
        }
    }
}

/// The totals of a model since it was loaded. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Prompt tokens read.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens that the prefix cache held, so that they were not computed.
    pub prefix_hits: u64,
    /// Sequences that gave up their KV cache and were computed again.
    pub preemptions: u64,
}

impl ModelMetrics {
    /// The totals.
    pub fn counters(&self) -> Counters {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counters {
            prompt_tokens: read(&self.prompt_tokens),
            generated_tokens: read(&self.generation_tokens),
            prefix_queries: read(&self.prefix_queries),
            prefix_hits: read(&self.prefix_hits),
            preemptions: read(&self.preemptions),
        }
    }

    /// Counts a text that was read whole, to embed, label or rank: its tokens, `None` if that failed, and the time since it was
    /// submitted.
    pub fn add_answer(&self, tokens: Option<usize>, time: Duration) {
        let Some(tokens) = tokens else { return self.add_finished(Outcome::Error) };
        self.add_prompt_tokens(tokens);
        self.add_finished(Outcome::Stop);
        self.latency.observe(time.as_secs_f64());
        self.prompt_len.observe(tokens as f64);
    }

    /// Counts prompt tokens.
    pub(crate) fn add_prompt_tokens(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts a look-up in the prefix cache: `hits` of the `queried` prompt tokens need not be computed.
    pub fn add_prefix_query(&self, queried: usize, hits: usize) {
        self.prefix_queries.fetch_add(queried as u64, Ordering::Relaxed);
        self.prefix_hits.fetch_add(hits as u64, Ordering::Relaxed);
    }

    /// Counts a sequence whose KV cache was given to others.
    pub fn add_preemption(&self) {
        self.preemptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the part of the KV cache that is in use, from 0 to 1.
    pub fn set_kv_cache_usage(&self, part: f64) {
        self.kv_cache_usage.store(part.to_bits(), Ordering::Relaxed);
    }

    /// Sets the size of the KV cache: so many blocks of `block_len` positions.
    pub fn set_kv_blocks(&self, blocks: usize, block_len: usize) {
        self.kv_blocks.store(blocks as u64, Ordering::Relaxed);
        self.kv_block_len.store(block_len as u64, Ordering::Relaxed);
    }

    /// The part of the KV cache that is in use.
    fn kv_cache_usage(&self) -> f64 {
        f64::from_bits(self.kv_cache_usage.load(Ordering::Relaxed))
    }

    fn add_finished(&self, outcome: Outcome) {
        self.finished[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// One model of the page.
pub(crate) struct Shown<'a> {
    /// The value of the label `model_name`.
    pub(crate) name: &'a str,
    pub(crate) metrics: &'a ModelMetrics,
    pub(crate) running: usize,
    pub(crate) queued: usize,
}

/// Reads a number of a model.
type Read<T> = fn(&Shown<'_>) -> T;

/// Reads a histogram of a model.
type ReadHistogram = fn(&ModelMetrics) -> &Histogram;

const RUNNING_HELP: &str = "Sequences being computed.";
const WAITING_HELP: &str = "Sequences waiting in the queue.";
const USAGE_HELP: &str = "Part of the KV cache in use; 1 is all of it.";

/// Gauges and counters: name, help, value.
const NUMBERS: &[(Kind, &str, &str, Read<f64>)] = &[
    (Kind::Gauge, "num_requests_running", RUNNING_HELP, |model| model.running as f64),
    (Kind::Gauge, "num_requests_waiting", WAITING_HELP, |model| model.queued as f64),
    (Kind::Gauge, "kv_cache_usage_perc", USAGE_HELP, |model| model.metrics.kv_cache_usage()),
    (Kind::Counter, "prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", |model| {
        count(&model.metrics.prefix_queries)
    }),
    (Kind::Counter, "prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", |model| {
        count(&model.metrics.prefix_hits)
    }),
    (
        Kind::Counter,
        "num_preemptions_total",
        "Sequences that gave up their KV cache and were computed again.",
        |model| count(&model.metrics.preemptions),
    ),
    (Kind::Counter, "prompt_tokens_total", "Prompt tokens read.", |model| {
        count(&model.metrics.prompt_tokens)
    }),
    (Kind::Counter, "generation_tokens_total", "Tokens generated.", |model| {
        count(&model.metrics.generation_tokens)
    }),
];

const HISTOGRAMS: &[(&str, &str, ReadHistogram)] = &[
    ("time_to_first_token_seconds", "Time from the submission of a sequence to its first token.", |m| {
        &m.first_token
    }),
    ("inter_token_latency_seconds", "Time between two tokens of a sequence.", |m| &m.between_tokens),
    ("e2e_request_latency_seconds", "Time from the submission of a sequence to its last token.", |m| {
        &m.latency
    }),
    ("request_queue_time_seconds", "Time of a sequence in the queue.", |m| &m.queue),
    ("request_prompt_tokens", "Prompt tokens of a sequence.", |m| &m.prompt_len),
    ("request_generation_tokens", "Tokens generated for a sequence.", |m| &m.generation_len),
];

fn count(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

/// Writes the metrics of `models`.
pub(crate) fn write(models: &[Shown<'_>], page: &mut Exposition) {
    write_numbers(models, NUMBERS, page);
    write_totals(models, page);
}

fn write_numbers(models: &[Shown<'_>], numbers: &[(Kind, &str, &str, Read<f64>)], page: &mut Exposition) {
    for (kind, name, help, read) in numbers {
        page.family(*kind, name, help);
        for model in models {
            page.sample(name, &[("model_name", model.name)], read(model));
        }
    }
}

/// Writes how sequences ended, and the histograms.
fn write_totals(models: &[Shown<'_>], page: &mut Exposition) {
    let name = "request_success_total";
    page.family(Kind::Counter, name, "Sequences that ended, by reason.");
    for model in models {
        for outcome in Outcome::ALL {
            let labels = [("model_name", model.name), ("finished_reason", outcome.label())];
            page.sample(name, &labels, count(&model.metrics.finished[outcome as usize]));
        }
    }
    for (name, help, read) in HISTOGRAMS {
        page.family(Kind::Histogram, name, help);
        for model in models {
            read(model.metrics).write(name, &[("model_name", model.name)], page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_share_families_and_differ_in_a_label() {
        let (first, second) = (ModelMetrics::default(), ModelMetrics::default());
        first.add_answer(Some(7), Duration::from_millis(5));
        first.add_finished(Outcome::Abort);
        second.add_prefix_query(10, 4);
        second.set_kv_cache_usage(0.25);
        let shown = |name, metrics, running| Shown { name, metrics, running, queued: 2 };
        let mut page = Exposition::default();
        write(&[shown("a\"b", &first, 3), shown("c", &second, 0)], &mut page);
        let text = page.into_text();
        for line in [
            "# TYPE andiron:num_requests_running gauge",
            "andiron:num_requests_running{model_name=\"a\\\"b\"} 3",
            "andiron:num_requests_waiting{model_name=\"c\"} 2",
            "andiron:kv_cache_usage_perc{model_name=\"c\"} 0.25",
            "andiron:prefix_cache_queries_total{model_name=\"c\"} 10",
            "andiron:prefix_cache_hits_total{model_name=\"c\"} 4",
            "andiron:prompt_tokens_total{model_name=\"a\\\"b\"} 7",
            "andiron:request_success_total{model_name=\"a\\\"b\",finished_reason=\"abort\"} 1",
            "andiron:request_success_total{model_name=\"c\",finished_reason=\"stop\"} 0",
            "andiron:time_to_first_token_seconds_bucket{model_name=\"c\",le=\"+Inf\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for family in ["prompt_tokens_total", "time_to_first_token_seconds"] {
            assert_eq!(text.matches(&format!("# TYPE andiron:{family} ")).count(), 1, "{family}");
        }
    }
}
