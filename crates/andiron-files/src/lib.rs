#![doc = include_str!("../README.md")]

pub mod fault;
mod operation;
mod partial;
mod read;
mod write;

pub use operation::{Operation, allow};
pub use partial::{PartialDirectory, PartialFile};
pub use read::{ReadFile, is_directory, is_there, list, open, read, read_bounded, without_mark};
pub use write::{
    WriteFile, create, link_or_copy, make_directory, parent, remove_directory, remove_file, rename, replace,
    sibling, sync, sync_tree, write_synced,
};
