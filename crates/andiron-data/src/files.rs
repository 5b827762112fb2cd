//! Atomic writes and bounded reads.

pub(crate) use andiron_files::{
    Operation, PartialDirectory, WriteFile, allow, create, link_or_copy, open, read_bounded, replace,
    without_mark, write_synced,
};
