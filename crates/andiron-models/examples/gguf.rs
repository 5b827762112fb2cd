//! Turns a model directory into a GGUF file for llama.cpp, or a GGUF file into a model directory:
//!
//! ```text
//! cargo run --release -p andiron-models --example gguf -- DIRECTORY FILE.gguf
//! cargo run --release -p andiron-models --example gguf -- FILE.gguf DIRECTORY
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use andiron_core::DeviceSpec;
use andiron_models::DecoderBundle;
use andiron_models::bundle::GgufOptions;
use andiron_models::weights::gguf::{GgufFile, chat_template, is_gguf, tokenizer_json};

const TOKENIZER: &str = "tokenizer.json";
const TEMPLATE: &str = "chat_template.jinja";

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = paths.as_slice() else {
        return Err("two paths are wanted: from where, and to where".into());
    };
    let bundle = DecoderBundle::open(from, &DeviceSpec::first_compiled()?.open()?)?;
    if is_gguf(to) { into_file(&bundle, from, to) } else { into_directory(&bundle, from, to) }
}

fn into_file(bundle: &DecoderBundle, from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let read = |name: &str| Some(from.join(name)).filter(|path| path.exists()).map(fs::read).transpose();
    let tokenizer = read(TOKENIZER)?.map(|text| serde_json::from_slice(&text)).transpose()?;
    let template = read(TEMPLATE)?.map(String::from_utf8).transpose()?;
    let options =
        GgufOptions { tokenizer: tokenizer.as_ref(), chat_template: template.as_deref(), half: false };
    Ok(bundle.save_gguf(to, options)?)
}

fn into_directory(bundle: &DecoderBundle, from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    bundle.save(to)?;
    let file = GgufFile::open(from)?;
    fs::write(to.join(TOKENIZER), serde_json::to_vec(&tokenizer_json(&file)?)?)?;
    if let Some(template) = chat_template(&file)? {
        fs::write(to.join(TEMPLATE), template)?;
    }
    Ok(())
}
