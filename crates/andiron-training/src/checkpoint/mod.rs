//! Checkpoints that are whole or absent.
//!
//! A checkpoint is a directory `step-000500` with a manifest of checksums. It is written under a temporary name;
//! when every file is on the disk it is renamed, and only then does the file `latest` name it. A crash at any
//! point leaves the older checkpoints as they were. When one is read, every byte is compared with the manifest;
//! one that was changed or lacks a file is kept as `step-000500.corrupt` and the next older is tried. One that cannot be
//! read, because of permissions or a failing disk, say, is no damaged one: it is an error, and nothing is renamed.

mod manifest;
mod store;

pub use manifest::Damage;
pub use store::{CheckpointError, Checkpoints, SetAside, steps_in};

#[cfg(test)]
mod tests;
