//! The operations on files, each of which a test can let fail.

use std::io;
use std::path::Path;

/// What is done to a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Look whether it is there, and what it is.
    Look,
    /// List the names in a directory.
    List,
    /// Open a file to read it.
    Open,
    /// Read from an open file.
    Read,
    /// Make a file or a directory.
    Create,
    /// Write to an open file.
    Write,
    /// Wait until it is on the disk.
    Sync,
    /// Give it another name.
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

/// Says that `operation` on `path` comes next. Everything in this crate says so by itself; a crate that has to open
/// a file in another way, such as by mapping it into memory, calls this before.
///
/// # Errors
/// In tests that let this operation fail; otherwise never.
pub fn allow(operation: Operation, path: &Path) -> io::Result<()> {
    crate::fault::next(operation, path)
}
