//! Near-duplicates in JSON Lines files, on all cores: `near_duplicates OUT FILE…` writes signatures and decisions below the directory
//! OUT, and prints the seconds of each phase and the counts as JSON.
#![allow(missing_docs)] // A program.

use std::path::{Path, PathBuf};
use std::time::Instant;

use andiron_corpus::dedup::{DecideOptions, MinHashConfig, SignatureWriter, Signer, SignerScratch, decide};
use andiron_data::source::{self, SourceOptions};
use rayon::prelude::*;
use serde_json::json;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let Some((out, files)) = arguments.split_first().filter(|(_, files)| !files.is_empty()) else {
        return Err("usage: near_duplicates OUT FILE…".into());
    };
    std::fs::create_dir_all(out)?;
    let begin = Instant::now();
    let signatures: Vec<PathBuf> =
        (0..files.len()).map(|index| out.join(format!("{index:05}.minhash"))).collect();
    let bytes: u64 =
        files.par_iter().zip(&signatures).map(|(file, to)| sign(file, to)).sum::<Result<_, _>>()?;
    let signed = begin.elapsed().as_secs_f64();
    let summary = decide(&signatures, &out.join("decisions"), &DecideOptions::default())?;
    let decided = begin.elapsed().as_secs_f64() - signed;
    println!("{}", json!({ "text_bytes": bytes, "sign_s": signed, "decide_s": decided, "summary": summary }));
    Ok(())
}

/// Signs the documents of a file; returns the bytes of their texts.
fn sign(file: &Path, to: &Path) -> Result<u64, Error> {
    let config = MinHashConfig::default();
    let (signer, mut scratch) = (Signer::new(&config)?, SignerScratch::default());
    let mut writer = SignatureWriter::begin(to, &config)?;
    let mut bytes = 0;
    for document in source::open(file, &SourceOptions::default())? {
        let document = document?;
        bytes += document.text.len() as u64;
        writer.push(&document.id, signer.sign(&document.text, &mut scratch).as_ref())?;
    }
    writer.finish()?;
    Ok(bytes)
}
