//! Continues a prompt with a model directory and streams the text.
//!
//! ```sh
//! cargo run --release -p andiron-examples --example 02_generate -- [MODEL_DIR] [PROMPT]
//! ```
//!
//! Without arguments it uses the model of `01_train_tiny`. Any GPT-2 directory in the Hugging Face layout works.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;

use andiron_core::DeviceSpec;
use andiron_data::tokenizer::{Special, StreamDecoder, Tokenizer};
use andiron_models::DecoderBundle;
use andiron_models::generate::{Decoding, GenerateOptions, SamplingParams, WhenFull};
use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let dir = arguments.next().map_or_else(|| PathBuf::from("runs/example-tiny/run/model"), PathBuf::from);
    let prompt = arguments.next().unwrap_or_else(|| "KING".to_owned());

    // 1. The weights, the configuration and the tokenizer of the same directory. The model sees only ids, so text is encoded
    //    and decoded here.
    let device = DeviceSpec::first_compiled()?.open()?;
    let bundle = DecoderBundle::open(&dir, &device)
        .with_context(|| format!("cannot open {}: run the example 01_train_tiny first?", dir.display()))?;
    let tokenizer = Tokenizer::load(&dir)?;
    eprintln!("{} parameters", bundle.n_parameters());

    // 2. Sampling settings. The same seed gives the same text.
    let options = GenerateOptions {
        sampling: SamplingParams { temperature: 0.7, top_k: 20, seed: 7, ..SamplingParams::default() },
        max_new_tokens: 400,
        when_full: WhenFull::Slide,
        ..GenerateOptions::default()
    };

    // 3. One token at a time. The streaming decoder holds back incomplete characters.
    let mut decoding = Decoding::new(&bundle, &tokenizer.encode(&prompt)?, options)?;
    let mut stream = StreamDecoder::new(&tokenizer, Special::Skip);
    let mut out = std::io::stdout();
    write!(out, "{prompt}")?;
    while let Some(token) = decoding.next_token(&bundle)? {
        write!(out, "{}", stream.push(token.id)?)?;
        out.flush()?;
    }
    writeln!(out, "{}", stream.finish()?)?;
    Ok(())
}
