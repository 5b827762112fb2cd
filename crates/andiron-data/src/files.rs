//! Files that are whole or absent, and reads with a bound.

pub(crate) use andiron_files::{
    Operation, PartialDirectory, ReadFile, WriteFile, allow, create, open, read_bounded, replace,
    write_synced,
};

/// A text without the byte order mark that some editors put in front of it.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}
