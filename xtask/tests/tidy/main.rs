//! The house rules as tests: `cargo xtask tidy`.
//!
//! Every failure names the place, the rule and the remedy. The rules are described in `crates/ARCHITECTURE.md`.

mod crates;
mod dependencies;
mod findings;
mod readme;
mod report;
mod source;
mod sources;
mod tree;
