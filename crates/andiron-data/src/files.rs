//! Files that are whole or absent, and reads with a bound.

pub(crate) use andiron_files::{
    Operation, PartialDirectory, ReadFile, WriteFile, allow, create, open, read_bounded, replace,
    without_mark, write_synced,
};
