//! The stages in order, into a directory that appears when all are done.

use std::path::Path;

use serde_json::json;

use super::encode::encode;
use super::inputs::Inputs;
use super::progress::Tracker;
use super::read::survey;
use super::report::{DocumentCounts, PrepareReport};
use super::reuse::{REPORT, SETTINGS, VERSION, hash_inputs, reuse, settings};
use super::split::plan;
use super::train::make_tokenizer;
use super::{PrepareConfig, PrepareError, PrepareOptions, PrepareProgress, TokenizerChoice};
use andiron_data::source::SourceError;
use andiron_data::tokenizer::Tokenizer;
use andiron_files::{PartialDirectory, write_synced};

/// Writes the output directory, unless it exists and was made from the same inputs and settings.
///
/// `progress` is called after each document.
///
/// # Errors
/// If an input cannot be read, a setting is invalid, or writing fails. The output directory is then unchanged.
pub fn prepare(
    config: &PrepareConfig,
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<PrepareReport, PrepareError> {
    config.validate()?;
    let output = config.output.as_deref().ok_or(PrepareError::NoOutput)?;
    let found = Inputs::find(config)?;
    let loaded = match &config.tokenizer {
        TokenizerChoice::Load { path } => Some(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(_) | TokenizerChoice::Characters(_) => None,
    };
    let mut tracker = Tracker::new(&found, progress)?;
    let inputs = hash_inputs(&found, &mut tracker)?;
    let settings = settings(config, loaded.as_ref());
    let settings_blake3 = blake3::hash(settings.to_string().as_bytes()).to_hex().to_string();
    if let Some(report) = reuse((output, options.existing), &settings_blake3, &inputs)? {
        return Ok(PrepareReport { passed_over: found.passed_over, ..report });
    }

    let directory = PartialDirectory::begin(output).map_err(failed_to_write(output))?;
    let steps = survey(config, &found, &mut tracker)?;
    let documents = DocumentCounts::of(&steps);
    let plan = plan(config, documents.kept)?;
    let tokenizer = match loaded {
        Some(tokenizer) => tokenizer,
        None => make_tokenizer(config, &found, &plan, &mut tracker)?,
    };
    tokenizer.save(&directory.path().join("tokenizer"))?;
    let how = (config, options.threads.get());
    let encoded = encode(how, &found, &plan, &tokenizer, (directory.path(), &mut tracker))?;
    if encoded.steps != steps {
        return Err(PrepareError::InputChanged);
    }
    let report = PrepareReport {
        version: VERSION,
        settings_blake3,
        settings,
        inputs,
        documents,
        steps,
        tokenizer_blake3: tokenizer.fingerprint().to_owned(),
        vocab_size: tokenizer.vocab_size(),
        train: encoded.train,
        valid: encoded.valid,
        reused: false,
        passed_over: found.passed_over,
    };
    let write = |name: &str, content: String| {
        let path = directory.path().join(name);
        write_synced(&path, content.as_bytes()).map_err(failed_to_write(&path))
    };
    // Without the output: the directory may be moved, and is the same wherever it was made.
    write(SETTINGS, PrepareConfig { output: None, ..config.clone() }.to_toml())?;
    write(REPORT, format!("{:#}\n", json!(report)))?;
    directory.publish().map_err(failed_to_write(output))?;
    Ok(report)
}

pub(super) fn failed_to_read(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
    let path = path.to_owned();
    move |source| PrepareError::Source(SourceError::Read { path, source })
}

pub(super) fn failed_to_write(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
    let path = path.to_owned();
    move |source| PrepareError::Write { path, source }
}
