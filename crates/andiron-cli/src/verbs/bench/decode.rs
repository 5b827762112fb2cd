//! `andiron bench decode` and `bench prefill`.

use andiron_kernels::random::Seed;
use andiron_models::DecoderBundle;
use andiron_models::generate::{BatchedLm as _, CausalLm, Logits};
use clap::Args;

use super::{Figures, Measure, Subject, matmul_parameters, measure, median_ms};
use crate::exit::Ending;
use crate::flags::Common;
use crate::model::RunChoice;

/// Measure greedy decoding of one sequence or a batch
///
/// On a CPU, the time of a decode step (one token of each sequence) is also given by type of operation; `other` is the rest.
#[derive(Debug, Args)]
pub struct DecodeBench {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    run: RunChoice,
    /// Prompt length in tokens
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to generate per sequence
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Sequences in the batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Measured runs, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

/// Measure prefill: processing a prompt
///
/// On a CPU, the time of the median prefill is also given by type of operation; `other` is the rest.
#[derive(Debug, Args)]
pub struct PrefillBench {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    run: RunChoice,
    /// Prompt length in tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Measured runs, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

/// A prompt of `count` random ids, if it and `room_for` more fit the context.
fn prompt(bundle: &DecoderBundle, count: u32, room_for: u32) -> anyhow::Result<Vec<u32>> {
    let (vocabulary, context) = (CausalLm::vocab_size(bundle) as u64, CausalLm::context_len(bundle));
    let wanted = count as usize + room_for as usize;
    anyhow::ensure!(wanted <= context, "{wanted} tokens do not fit the model's context of {context}");
    let seed = Seed::new(2);
    Ok((0..u64::from(count)).map(|at| seed.below(at, vocabulary) as u32).collect())
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

impl DecodeBench {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let precision = self.run.checked(common)?;
        let bundle: DecoderBundle = self.subject.open(self.run, &common.open_device()?)?;
        let bundle = bundle.with_kv_cache_dtype(self.run.kv_cache_dtype());
        let prompt = prompt(&bundle, self.prompt, self.tokens)?;
        let prompts = vec![prompt.as_slice(); self.batch as usize];
        let rows: Vec<usize> = (0..prompts.len()).collect();
        let likeliest = |logits: Vec<f32>| -> Vec<u32> {
            logits.chunks_exact(CausalLm::vocab_size(&bundle)).map(likeliest).collect()
        };
        let mut cache_bytes = 0;
        let [mut prefill, mut decode] = [const { Vec::<Measure>::new() }; 2];
        // One run to warm up.
        for number in 0..=self.steps {
            let mut begun = None;
            let read = measure(|| {
                let (state, logits) = bundle.prefill(&prompts);
                begun = Some((state, likeliest(logits)));
            });
            let (mut state, mut ids) = begun.expect("the prompts were read");
            let continued = measure(|| {
                for _ in 0..self.tokens {
                    ids = likeliest(bundle.decode_step(&mut state, &rows, &ids));
                }
            });
            cache_bytes = state.n_bytes();
            if number > 0 {
                prefill.push(read);
                decode.push(continued);
            }
        }
        let (steps, decode_ms) = (f64::from(self.tokens), median_ms(decode.iter().map(|run| run.0)));
        let tokens = steps * f64::from(self.batch);
        let mut figures = Figures::new();
        figures.number("tokens_per_s", tokens / decode_ms * 1e3);
        figures.number("prefill_ms", median_ms(prefill.iter().map(|run| run.0)));
        figures.number("kv_cache_mb", cache_bytes as f64 / 1e6);
        figures.operations(decode, steps);
        figures.print(common, (precision, precision.matmul_precision()), 2.0 * matmul_parameters(&bundle))
    }
}

impl PrefillBench {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let precision = self.run.checked(common)?;
        let bundle: DecoderBundle = self.subject.open(self.run, &common.open_device()?)?;
        let bundle = bundle.with_kv_cache_dtype(self.run.kv_cache_dtype());
        let prompt = prompt(&bundle, self.tokens, 0)?;
        let mut runs = Vec::new();
        for number in 0..=self.steps {
            let run = measure(|| drop(bundle.forward(&mut bundle.begin(), &prompt, Logits::Last)));
            if number > 0 {
                runs.push(run);
            }
        }
        let milliseconds = median_ms(runs.iter().map(|run| run.0));
        let mut figures = Figures::new();
        figures.number("tokens_per_s", f64::from(self.tokens) / milliseconds * 1e3);
        figures.number("prefill_ms", milliseconds);
        figures.operations(runs, 1.0);
        figures.print(common, (precision, precision.matmul_precision()), 2.0 * matmul_parameters(&bundle))
    }
}
