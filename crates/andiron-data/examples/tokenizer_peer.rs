//! Trains and encodes for `tests/check_training.py`, which does the same in Python.

use std::path::Path;
use std::time::Instant;

use andiron_data::tokenizer::{
    BpeOptions, Tokenizer, UnigramOptions, WordPieceOptions, train_bpe, train_unigram, train_word_piece,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["train", kind, size, texts, out] => train(kind, size.parse()?, &lines(texts)?, Path::new(out)),
        ["encode", tokenizer, texts, out] => encode(&Tokenizer::load(Path::new(tokenizer))?, &lines(texts)?, out),
        ["time", tokenizer, texts, rounds] => {
            time(&Tokenizer::load(Path::new(tokenizer))?, &lines(texts)?, rounds.parse()?)
        }
        _ => Err("usage: tokenizer_peer train KIND SIZE TEXTS OUT | encode TOKENIZER TEXTS OUT | time TOKENIZER TEXTS ROUNDS".into()),
    }
}

/// The texts in a file of JSON strings, one a line.
fn lines(path: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let content = std::fs::read_to_string(path)?;
    Ok(content.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn train(kind: &str, size: usize, texts: &[String], out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let tokenizer = match kind {
        "bpe" => train_bpe(texts, &BpeOptions::new(size))?,
        "wordpiece" => train_word_piece(texts, &WordPieceOptions::new(size))?,
        "unigram" => train_unigram(texts, &UnigramOptions::new(size))?,
        _ => return Err("kinds are bpe, wordpiece and unigram".into()),
    };
    println!("{}", json!({ "seconds": start.elapsed().as_secs_f64() }));
    tokenizer.save(out)?;
    Ok(())
}

fn encode(tokenizer: &Tokenizer, texts: &[String], out: &str) -> Result<(), Box<dyn std::error::Error>> {
    let ids = tokenizer.encode_batch(texts)?;
    let lines: Vec<String> = ids.iter().map(|ids| json!(ids).to_string()).collect();
    std::fs::write(out, lines.join("\n"))?;
    Ok(())
}

fn time(tokenizer: &Tokenizer, texts: &[String], rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let seconds: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let ids = tokenizer.encode_batch(texts)?;
            let elapsed = start.elapsed().as_secs_f64();
            assert_eq!(ids.len(), texts.len());
            Ok(elapsed)
        })
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    println!("{}", json!({ "seconds": seconds }));
    Ok(())
}
