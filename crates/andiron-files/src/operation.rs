//! File operations, each of which can be made to fail in tests.

use std::io;
use std::path::Path;

/// An operation on a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Check whether it exists, and its type.
    Look,
    /// List the names in a directory.
    List,
    /// Open a file to read it.
    Open,
    /// Read from an open file.
    Read,
    /// Create a file or a directory.
    Create,
    /// Write to an open file.
    Write,
    /// Sync it to disk.
    Sync,
    /// Rename it.
    Rename,
    /// Remove it.
    Remove,
}

impl Operation {
    /// Whether it only reads.
    pub fn is_reading(self) -> bool {
        matches!(self, Self::Look | Self::List | Self::Open | Self::Read)
    }
}

/// Announces `operation` on `path`. The functions of this crate do so themselves; code that opens a file in another way, such
/// as by memory-mapping, calls this first.
///
/// # Errors
/// Only in tests that make this operation fail.
pub fn allow(operation: Operation, path: &Path) -> io::Result<()> {
    crate::fault::next(operation, path)
}
