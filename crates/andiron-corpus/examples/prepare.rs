//! A pipeline on all cores: `prepare PIPELINE.toml OUT` prints the counts of each step and the seconds of each stage as JSON.
#![allow(missing_docs)] // A program.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use andiron_corpus::prepare::{Existing, PrepareConfig, PrepareOptions, prepare};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [pipeline, out] = arguments.as_slice() else {
        return Err("usage: prepare PIPELINE.toml OUT".into());
    };
    let config = PrepareConfig { output: Some(out.clone()), ..PrepareConfig::load(pipeline)? };
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let options = PrepareOptions { existing: Existing::Replace, threads };
    let (begin, mut stages) = (Instant::now(), Vec::new());
    let report = prepare(&config, &options, &mut |now| {
        if stages.last().is_none_or(|(stage, _)| *stage != now.stage) {
            stages.push((now.stage, begin.elapsed().as_secs_f64()));
        }
    })?;
    let begins: Vec<_> =
        stages.iter().map(|(stage, at)| json!({ "stage": format!("{stage:?}"), "at_s": at })).collect();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", json!({ "steps": report.steps, "stages": begins, "seconds": seconds }));
    Ok(())
}
