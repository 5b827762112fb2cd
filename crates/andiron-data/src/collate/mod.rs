//! Collators, which turn examples into batches: one file per kind of objective.

mod causal;

use std::fmt::Debug;

use crate::batch::HostBatch;
use crate::records::Record;
use crate::seed::Seed;

pub use causal::Causal;

/// One row of a batch before it is collated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<T> {
    /// What the row is made of.
    pub data: T,
    /// The row's own random stream, for collators that draw. It is a function of the run's seed and of how many rows came
    /// before, so that a row does not depend on how rows are divided into batches.
    pub seed: Seed,
}

/// Makes batches from windows of a token stream.
pub trait CollateWindows: Debug + Send + Sync {
    /// Ids in a window.
    fn window(&self) -> usize;

    /// Distance between the beginnings of windows that are read one after the other. It is the window, or one less if its
    /// last id is only a target, which the next window begins with.
    fn stride(&self) -> usize {
        self.window()
    }

    /// One row for each window. A window has at most [`CollateWindows::window`] ids; it has fewer at the end of a stream, and
    /// none in a row that is only padding.
    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch;
}

/// Makes batches from records.
pub trait CollateRecords: Debug + Send + Sync {
    /// One row or several for each record, in their order.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch;
}
