//! The stages in order, into a directory that appears when all are done.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::encode::encode;
use super::progress::Tracker;
use super::read::survey;
use super::report::PrepareReport;
use super::reuse::{REPORT, VERSION, hash_inputs, reuse, settings};
use super::split::plan;
use super::train::make_tokenizer;
use super::{PrepareError, PrepareOptions, PrepareProgress, TokenizerChoice};
use andiron_data::source::{self, SourceError};
use andiron_data::tokenizer::Tokenizer;
use andiron_files::{PartialDirectory, write_synced};

/// Writes the output directory, unless it exists and was made from the same inputs and settings.
///
/// `progress` is called after each document.
///
/// # Errors
/// If an input cannot be read, a setting is invalid, or writing fails. The output directory is then unchanged.
pub fn prepare(
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<PrepareReport, PrepareError> {
    let fraction = options.split.fraction;
    if !(0.0..1.0).contains(&fraction) {
        return Err(PrepareError::Fraction { fraction });
    }
    let source::Expanded { files, passed_over } = source::expand(&options.inputs, options.on_error)?;
    let passed_over: Vec<(PathBuf, String)> =
        passed_over.into_iter().map(|one| (one.path, one.why.to_string())).collect();
    let loaded = match &options.tokenizer {
        TokenizerChoice::Load(path) => Some(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(_) | TokenizerChoice::Characters(_) => None,
    };
    let mut tracker = Tracker::new(&files, progress)?;
    let inputs = hash_inputs(&files, &mut tracker)?;
    let settings = settings(options, loaded.as_ref());
    let settings_blake3 = blake3::hash(settings.to_string().as_bytes()).to_hex().to_string();
    if let Some(report) = reuse(options, &settings_blake3, &inputs)? {
        return Ok(PrepareReport { passed_over, ..report });
    }

    let directory = PartialDirectory::begin(&options.output).map_err(failed_to_write(&options.output))?;
    let documents = survey(options, &files, &mut tracker)?;
    let plan = plan(options, &documents)?;
    let tokenizer = match loaded {
        Some(tokenizer) => tokenizer,
        None => make_tokenizer(options, &files, &plan, &mut tracker)?,
    };
    tokenizer.save(&directory.path().join("tokenizer"))?;
    let encoded = encode(options, &files, &plan, &tokenizer, (directory.path(), &mut tracker))?;
    if encoded.counts != documents {
        return Err(PrepareError::InputChanged);
    }
    let report = PrepareReport {
        version: VERSION,
        settings_blake3,
        settings,
        inputs,
        documents,
        tokenizer_blake3: tokenizer.fingerprint().to_owned(),
        vocab_size: tokenizer.vocab_size(),
        train: encoded.train,
        valid: encoded.valid,
        reused: false,
        passed_over,
    };
    let path = directory.path().join(REPORT);
    write_synced(&path, format!("{:#}\n", json!(report)).as_bytes()).map_err(failed_to_write(&path))?;
    directory.publish().map_err(failed_to_write(&options.output))?;
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
