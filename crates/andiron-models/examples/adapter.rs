//! Reads an adapter that `peft` or Andiron wrote, over its base model, and writes it again.
//!
//! Run with `cargo run --release -p andiron-models --example adapter -- BASE ADAPTER COPY`, directories all three. Add
//! `--features andiron-core/ndarray` if no other package selects a backend.

use std::path::{Path, PathBuf};

use andiron_core::DeviceSpec;
use andiron_models::{AdapterFiles, AnyBundle, Bundle, FamilyConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [base, adapter, copy] = &paths[..] else { return Err("usage: adapter BASE ADAPTER COPY".into()) };
    let device = DeviceSpec::first_compiled()?.open()?;
    match AnyBundle::open(base, &device)? {
        AnyBundle::Decoder(bundle) => rewrite(bundle, adapter, copy),
        AnyBundle::Classifier(bundle) => rewrite(bundle, adapter, copy),
        AnyBundle::Encoder(bundle) => rewrite(bundle, adapter, copy),
        AnyBundle::EncoderDecoder(bundle) => rewrite(bundle, adapter, copy),
    }
}

fn rewrite<C: FamilyConfig>(
    base: Bundle<C>,
    adapter: &Path,
    copy: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let files = AdapterFiles::open(adapter)?;
    let config = files.config().clone();
    println!("rank {}, {} parameters, for {}", config.rank, files.n_parameters(), files.modules().join(", "));
    let bundle = base.with_adapter_files(files)?;
    Ok(bundle.save_adapter(&config, copy)?)
}
