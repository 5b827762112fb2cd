//! Atomic, checksummed checkpoints.
//!
//! A checkpoint is a directory `step-000500` with a manifest of checksums. It is written under a temporary name and renamed
//! when every file is synced to disk; then the file `latest` is updated. A crash at any point leaves the older checkpoints
//! unchanged. On loading, every file is compared with the manifest. A damaged checkpoint (changed bytes, a missing file) is
//! renamed to `step-000500.corrupt`, and the next older one is tried. An unreadable one (permissions, a failing disk) is not
//! treated as damaged: it is an error, and nothing is renamed.

mod manifest;
mod store;

pub use manifest::Damage;
pub use store::{CheckpointError, Checkpoints, SetAside, steps_in};

#[cfg(test)]
mod tests;
