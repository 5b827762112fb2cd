//! The program `andiron`: flags become library calls, errors become one paragraph and an exit code.

mod exit;
mod flags;
mod grammar;
mod lines;
mod machine;
mod model;
mod progress;
mod stop;
mod text;
mod verbs;

use std::process::ExitCode;

use clap::Parser as _;

// Tensors of one step are freed and asked for again in the next; handing the pages back to the system in between
// costs more than the arithmetic on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = flags::Flags::parse();
    exit::report(flags.run())
}
