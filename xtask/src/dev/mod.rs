//! Development tasks; one file each.

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

/// The packages of the default build, so that the artifacts of `cargo xtask quickstart` are reused.
///
/// The benches are excluded, because criterion turns on a feature (`ciborium/default`) that would build all of Burn a second
/// time.
fn select_default_build(command: &mut Command) {
    command.args(["--release", "--workspace", "--exclude", "andiron-benches"]);
    command.args(["--features", "andiron-cli/ndarray"]);
}

/// All packages, for the tasks that only check them: they share the metadata of dependencies.
fn select_workspace(command: &mut Command) {
    // The release profile, so that build scripts and macros come from the same builds as everything else.
    command.args(["--release", "--workspace", "--features", "andiron-cli/ndarray"]);
}
