//! Tasks of people who work on Andiron; one file each.

mod bench;
mod check;
mod docs;
mod golden;
mod test;
mod tidy;

pub use bench::bench;
pub use check::check;
pub use docs::docs;
pub use golden::golden;
pub use test::test;
pub use tidy::tidy;

use std::process::Command;

/// Everything that the default build is made of: what `cargo xtask quickstart` built is used again here.
///
/// The benches stay out, because criterion turns on a feature (`ciborium/default`) that would build all of Burn a
/// second time.
fn select_default_build(command: &mut Command) {
    command.args(["--release", "--workspace", "--exclude", "andiron-benches"]);
    command.args(["--features", "andiron-cli/ndarray"]);
}

/// Everything there is, for the tasks that only read it: they share what they find out about dependencies.
fn select_workspace(command: &mut Command) {
    // The release profile, so that build scripts and macros come from the same builds as everything else.
    command.args(["--release", "--workspace", "--features", "andiron-cli/ndarray"]);
}
