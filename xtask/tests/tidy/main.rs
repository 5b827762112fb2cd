//! The house rules, held by tests: `cargo xtask tidy`.
//!
//! Every failure names a place, the rule and what to do. The rules themselves stand in `crates/ARCHITECTURE.md`.

mod crates;
mod dependencies;
mod findings;
mod readme;
mod report;
mod source;
mod sources;
mod tree;
