//! The files of all sources.

use std::path::PathBuf;

use super::pipeline::failed_to_read;
use super::{PrepareConfig, PrepareError};
use andiron_data::source::{self, SourceError};

/// The files to read, and what was found beside them.
pub(super) struct Inputs {
    /// The index of the source, and the file.
    pub(super) files: Vec<(usize, PathBuf)>,
    /// The name of each file: see [`source::Expanded::names`].
    pub(super) names: Vec<String>,
    /// Bytes of each file.
    pub(super) bytes: Vec<u64>,
    /// What was not read, with the reason.
    pub(super) passed_over: Vec<(PathBuf, String)>,
}

impl Inputs {
    pub(super) fn find(config: &PrepareConfig) -> Result<Self, PrepareError> {
        let mut found =
            Self { files: Vec::new(), names: Vec::new(), bytes: Vec::new(), passed_over: Vec::new() };
        for (index, source) in config.sources.iter().enumerate() {
            let source::Expanded { files, names, passed_over } =
                source::expand(&source.paths, config.on_error)?;
            found.names.extend(names);
            found.files.extend(files.into_iter().map(|path| (index, path)));
            found.passed_over.extend(passed_over.into_iter().map(|one| (one.path, one.why.to_string())));
        }
        for (_, path) in &found.files {
            let metadata = std::fs::metadata(path).map_err(failed_to_read(path))?;
            if !metadata.is_file() {
                return Err(SourceError::NotAFile { path: path.clone() }.into());
            }
            found.bytes.push(metadata.len());
        }
        Ok(found)
    }
}
