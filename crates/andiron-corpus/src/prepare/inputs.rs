//! The files of all sources.

use std::path::PathBuf;

use super::{PrepareConfig, PrepareError};
use andiron_data::source;

/// The files to read, and what was found beside them.
pub(super) struct Inputs {
    /// The index of the source, and the file.
    pub(super) files: Vec<(usize, PathBuf)>,
    /// What was not read, with the reason.
    pub(super) passed_over: Vec<(PathBuf, String)>,
}

impl Inputs {
    pub(super) fn find(config: &PrepareConfig) -> Result<Self, PrepareError> {
        let mut found = Self { files: Vec::new(), passed_over: Vec::new() };
        for (index, source) in config.sources.iter().enumerate() {
            let source::Expanded { files, passed_over } = source::expand(&source.paths, config.on_error)?;
            found.files.extend(files.into_iter().map(|path| (index, path)));
            found.passed_over.extend(passed_over.into_iter().map(|one| (one.path, one.why.to_string())));
        }
        Ok(found)
    }
}
