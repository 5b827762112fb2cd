//! A sequence has the same tokens and log-probabilities, bit for bit, alone and in any company.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use andiron_kernels::random::Seed;
use andiron_models::encoder_decoder::{Seq2SeqBatch, Seq2SeqGenerator};
use andiron_models::generate::{
    CausalLm, Decoding, GenerateOptions, Logits, Progress, SamplingParams, Token, WhenFull, generate_batch,
};
use andiron_models::{DecoderBundle, DecoderConfig, RunPrecision, Seq2SeqBundle, Seq2SeqConfig};
use common::{device, fixture, widen};

/// A model like a fixture's, with random weights and rows of whole blocks.
fn wide(name: &str, precision: RunPrecision) -> DecoderBundle {
    let dir = tempfile::tempdir().unwrap();
    widen(name, dir.path());
    let config = DecoderConfig::read(&dir.path().join("config.json")).unwrap();
    DecoderBundle::init(config, Seed::new(1), &device()).save(dir.path()).unwrap();
    DecoderBundle::open_at(dir.path(), precision, &device()).unwrap()
}

/// The random numbers of a schedule.
struct Chance {
    seed: Seed,
    at: u64,
}

impl Chance {
    fn new(seed: u64) -> Self {
        Self { seed: Seed::new(seed), at: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.at += 1;
        self.seed.below(self.at, bound as u64) as usize
    }
}

fn prompts(count: usize, longest: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let mut chance = Chance::new(2);
    let mut one = || {
        let len = 1 + chance.below(longest);
        (0..len).map(|_| chance.below(vocabulary) as u32).collect()
    };
    (0..count).map(|_| one()).collect()
}

/// Half of the generations are greedy, and some verify drafts or score their prompt.
fn options(row: usize) -> GenerateOptions {
    let temperature = if row.is_multiple_of(2) { 0.0 } else { 1.0 };
    GenerateOptions {
        sampling: SamplingParams { seed: row as u64, temperature, ..SamplingParams::default() },
        max_new_tokens: 4 + row % 9,
        top_logprobs: 2,
        score_prompt: row.is_multiple_of(5),
        prompt_lookup: if row % 7 == 3 { 4 } else { 0 },
        ..GenerateOptions::default()
    }
}

fn begin(
    bundle: &DecoderBundle,
    (row, prompt): (usize, &Vec<u32>),
) -> Decoding<<DecoderBundle as CausalLm>::State> {
    Decoding::new(bundle, prompt, options(row)).unwrap()
}

/// Every token of every prompt, generated alone.
fn alone(bundle: &DecoderBundle, prompts: &[Vec<u32>]) -> Vec<Vec<Token>> {
    let one = |prompt| {
        let mut decoding = begin(bundle, prompt);
        let mut tokens = Vec::new();
        while let Some(token) = decoding.next_token(bundle).unwrap() {
            tokens.push(token);
        }
        decoding.prompt_tokens().iter().cloned().chain(tokens).collect()
    };
    prompts.iter().enumerate().map(one).collect()
}

/// The same in random company: prompts are read in chunks of any size, between decode steps of those that are running.
fn in_company(bundle: &DecoderBundle, prompts: &[Vec<u32>], most: usize) -> Vec<Vec<Token>> {
    let mut chance = Chance::new(3);
    let mut found = vec![Vec::new(); prompts.len()];
    let mut waiting: Vec<usize> = (0..prompts.len()).rev().collect();
    let mut running: Vec<(usize, Decoding<_>)> = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < most && !waiting.is_empty() && chance.below(3) > 0 {
            let row = waiting.swap_remove(chance.below(waiting.len()));
            let place = chance.below(running.len() + 1);
            running.insert(place, (row, begin(bundle, (row, &prompts[row]))));
        }
        let mut taken = |row: usize, progress: Progress| {
            if let Progress::Token(token) = progress {
                found[row].push(token);
            }
        };
        let together: Vec<usize> =
            (0..running.len()).filter(|&at| running[at].1.is_decoding() && chance.below(4) > 0).collect();
        for (at, (row, decoding)) in running.iter_mut().enumerate() {
            if !together.contains(&at) {
                decoding.set_prefill_chunk(1 + chance.below(9));
                taken(*row, decoding.step(bundle).unwrap());
            }
        }
        let mut jobs: Vec<_> = running
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| together.contains(at))
            .map(|(_, job)| job)
            .collect();
        let rows: Vec<usize> = jobs.iter().map(|job| job.0).collect();
        let mut decodings: Vec<_> = jobs.iter_mut().map(|job| &mut job.1).collect();
        if !decodings.is_empty() {
            let progress = Decoding::decode_step_batch(bundle, &mut decodings).unwrap();
            rows.into_iter().zip(progress).for_each(|(row, progress)| taken(row, progress.unwrap()));
        }
        running.retain(|(row, decoding)| {
            if decoding.finish_reason().is_some() {
                found[*row].splice(0..0, decoding.prompt_tokens().iter().cloned());
            }
            decoding.finish_reason().is_none()
        });
    }
    found
}

/// A token with its log-probability and its alternatives, bit for bit.
type TokenBits = (u32, u32, Vec<(u32, u32)>);

fn bits(tokens: &[Token]) -> Vec<TokenBits> {
    let top = |token: &Token| token.top.iter().map(|(id, logprob)| (*id, logprob.to_bits())).collect();
    tokens.iter().map(|token| (token.id, token.logprob.to_bits(), top(token))).collect()
}

#[track_caller]
fn check(what: &str, bundle: &DecoderBundle, count: usize, most: usize) {
    let prompts = prompts(count, 15, CausalLm::vocab_size(bundle));
    let (alone, company) = (alone(bundle, &prompts), in_company(bundle, &prompts, most));
    for (row, (alone, company)) in alone.iter().zip(&company).enumerate() {
        assert_eq!(bits(company), bits(alone), "{what}: {row} of {count}, up to {most} together");
    }
    // Drafts and scores are for sequences with a state of their own.
    let plain = |row: usize| GenerateOptions { score_prompt: false, prompt_lookup: 0, ..options(row) };
    let requests = prompts.iter().cloned().enumerate().map(|(row, prompt)| (prompt, plain(row)));
    let batch =
        generate_batch(bundle, requests.take(33).collect(), |_, _| std::ops::ControlFlow::Continue(()));
    for (row, (batch, alone)) in batch.into_iter().zip(&alone).enumerate() {
        let batch = batch.unwrap().tokens;
        assert_eq!(
            bits(&batch),
            bits(&alone[alone.len() - batch.len()..]),
            "{what}: {row} of an offline batch"
        );
    }
}

#[test]
fn two_hundred_prompts_are_continued_alone_as_in_company() {
    for precision in RunPrecision::ALL {
        check(&precision.to_string(), &wide("llama", precision), 200, 64);
    }
}

#[test]
fn every_kind_of_decoder_is_batch_invariant() {
    for name in ["gpt2", "mistral", "qwen2", "qwen3-sliding", "gemma3", "neox"] {
        for precision in [RunPrecision::F32, RunPrecision::Mixed, RunPrecision::Int8] {
            check(&format!("{name} {precision}"), &wide(name, precision), 24, 16);
        }
    }
}

#[test]
fn adapters_are_batch_invariant() {
    for (base, adapter) in [("llama", "llama-all-linear"), ("llama", "llama-dora"), ("gpt2", "gpt2-layers")] {
        for precision in [RunPrecision::F32, RunPrecision::Mixed, RunPrecision::Bf16] {
            let bundle = DecoderBundle::open_at(&fixture(base), precision, &device()).unwrap();
            let bundle = bundle.with_adapter(&fixture("adapters").join(adapter)).unwrap();
            check(&format!("{adapter} {precision}"), &bundle, 24, 16);
        }
    }
}

#[test]
fn a_window_that_slides_is_read_anew_in_any_chunks() {
    let bundle = wide("llama", RunPrecision::Int8);
    let run = |prefill_chunk| {
        let (when_full, max_new_tokens) = (WhenFull::Slide, 40);
        let options = GenerateOptions { prefill_chunk, when_full, max_new_tokens, ..options(0) };
        let mut decoding = Decoding::new(&bundle, &[5, 9, 14, 3, 8], options).unwrap();
        while decoding.next_token(&bundle).unwrap().is_some() {}
        decoding.generated().to_vec()
    };
    assert_eq!(run(3), run(256));
}

#[test]
fn targets_of_an_encoder_decoder_do_not_depend_on_their_batch() {
    for name in ["bart", "marian", "t5"] {
        let dir = tempfile::tempdir().unwrap();
        widen(name, dir.path());
        let config = Seq2SeqConfig::read(&dir.path().join("config.json")).unwrap();
        Seq2SeqBundle::init(config, Seed::new(1), &device()).save(dir.path()).unwrap();
        for precision in [RunPrecision::F32, RunPrecision::Mixed, RunPrecision::Int8] {
            let bundle = Seq2SeqBundle::open_at(dir.path(), precision, &device()).unwrap();
            let sources = prompts(12, 11, 40);
            let all = Seq2SeqBatch::new(&bundle, &sources);
            let request = |row| {
                (
                    vec![bundle.start_id()],
                    GenerateOptions { prompt_lookup: 0, score_prompt: false, ..options(row) },
                )
            };
            let together = generate_batch(&all, (0..sources.len()).map(request).collect(), |_, _| {
                std::ops::ControlFlow::Continue(())
            });
            for (row, (together, source)) in together.into_iter().zip(&sources).enumerate() {
                let model = Seq2SeqGenerator::new(&bundle, source);
                let (prompt, options) = request(row);
                let mut decoding = Decoding::new(&model, &prompt, options).unwrap();
                let mut alone = Vec::new();
                while let Some(token) = decoding.next_token(&model).unwrap() {
                    alone.push(token);
                }
                assert_eq!(bits(&together.unwrap().tokens), bits(&alone), "{name} {precision}: source {row}");
            }
        }
    }
}

/// Logits of a prompt, and of ids that were generated, in chunks of these sizes.
#[test]
fn logits_do_not_depend_on_chunks() {
    for precision in RunPrecision::ALL {
        let bundle = wide("llama", precision);
        let ids: Vec<u32> = (0..28).map(|at| at * 7 % 61).collect();
        let run = |chunks: &[usize]| {
            let mut cache = bundle.begin();
            let (mut read, mut logits) = (0, Vec::new());
            for &chunk in chunks {
                let some = &ids[read..read + chunk];
                logits.extend(match read < 14 {
                    true => bundle.forward(&mut cache, some, Logits::All),
                    false => bundle.decode(&mut cache, some, Logits::All),
                });
                read += chunk;
            }
            logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let wanted = run(&[14, 14]);
        for chunks in [&[1; 28][..], &[9, 5, 2, 12], &[2, 12, 7, 7], &[13, 1, 1, 13]] {
            assert!(run(chunks) == wanted, "{precision}: {chunks:?}");
        }
    }
}
