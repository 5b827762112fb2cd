//! Progress reports while the stages run.

use super::inputs::Inputs;
use super::pipeline::failed_to_read;
use super::{PrepareError, PrepareProgress, Stage};
use andiron_data::source::SourceError;

/// Counts bytes and documents, and reports them.
pub(super) struct Tracker<'a> {
    progress: &'a mut (dyn FnMut(PrepareProgress) + Send),
    pub(super) now: PrepareProgress,
}

impl<'a> Tracker<'a> {
    pub(super) fn new(
        inputs: &Inputs,
        progress: &'a mut (dyn FnMut(PrepareProgress) + Send),
    ) -> Result<Self, PrepareError> {
        let mut bytes_total = 0;
        for (_, path) in &inputs.files {
            let found = std::fs::metadata(path).map_err(failed_to_read(path))?;
            if !found.is_file() {
                return Err(SourceError::NotAFile { path: path.clone() }.into());
            }
            bytes_total += found.len();
        }
        let now = PrepareProgress { stage: Stage::Hash, bytes_done: 0, bytes_total, documents: 0, tokens: 0 };
        Ok(Self { progress, now })
    }

    pub(super) fn begin(&mut self, stage: Stage) {
        self.now = PrepareProgress { stage, bytes_done: 0, documents: 0, tokens: 0, ..self.now };
        (self.progress)(self.now);
    }

    pub(super) fn at(&mut self, bytes_done: u64, documents: u64) {
        (self.now.bytes_done, self.now.documents) = (bytes_done, documents);
        (self.progress)(self.now);
    }
}
