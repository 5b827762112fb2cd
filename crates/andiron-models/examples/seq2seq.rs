//! Reads sources with an encoder-decoder, as token ids: one JSON object a line on standard input, one on standard output.
//!
//! ```text
//! echo '{"source_ids": [5, 6, 2]}' | cargo run --release -p andiron-models --example seq2seq -- DIRECTORY
//! ```
//!
//! Each answer has the likeliest target, id by id, start id included, in `ids`; if the line has `target_ids`, which begin
//! with a start id, `logprobs` has the log-probability of each of the others. A second directory is where a copy of
//! the model is saved.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use andiron_core::DeviceSpec;
use andiron_models::Seq2SeqBundle;
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{Decoding, GenerateOptions, SamplingParams};
use serde::Deserialize;

/// A target is at most this long, whatever the model is able to.
const LONGEST: usize = 512;

#[derive(Deserialize)]
struct Row {
    source_ids: Vec<u32>,
    target_ids: Option<Vec<u32>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (from, copy): (&Path, Option<&Path>) = match paths.as_slice() {
        [from] => (from, None),
        [from, copy] => (from, Some(copy)),
        _ => return Err("a model directory is wanted, and perhaps one for a copy".into()),
    };
    let bundle = Seq2SeqBundle::open(from, &DeviceSpec::first_compiled()?.open()?)?;
    if let Some(copy) = copy {
        bundle.save(copy)?;
    }
    for line in io::stdin().lines() {
        let row: Row = serde_json::from_str(&line?)?;
        let generator = Seq2SeqGenerator::new(&bundle, &row.source_ids);
        let ids = likeliest(&bundle, &generator)?;
        let logprobs = row.target_ids.map(|target| score(generator.without_rules(), &target)).transpose()?;
        println!("{}", serde_json::json!({ "ids": ids, "logprobs": logprobs }));
    }
    Ok(())
}

/// The likeliest target, id by id, its start included.
fn likeliest(bundle: &Seq2SeqBundle, generator: &Seq2SeqGenerator) -> Result<Vec<u32>, Box<dyn Error>> {
    let options = GenerateOptions {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_new_tokens: LONGEST,
        stop_ids: bundle.generation.eos_token_id.as_slice().to_vec(),
        ..GenerateOptions::default()
    };
    let mut decoding = Decoding::new(generator, &[generator.start()], options)?;
    while decoding.next_token(generator)?.is_some() {}
    Ok([decoding.prompt(), decoding.generated()].concat())
}

/// Log-probability of each id of `target` but the first.
fn score(generator: Seq2SeqGenerator, target: &[u32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let options = GenerateOptions { max_new_tokens: 0, score_prompt: true, ..GenerateOptions::default() };
    let mut decoding = Decoding::new(&generator, target, options)?;
    while decoding.next_token(&generator)?.is_some() {}
    Ok(decoding.prompt_tokens().iter().map(|token| token.logprob).collect())
}
