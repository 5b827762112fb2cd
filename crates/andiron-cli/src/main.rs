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

/// Keeps freed pages, which mimalloc would give back after a hundredth of a second: a training step is longer.
#[allow(unsafe_code)] // The bindings are those of C.
fn keep_freed_memory() {
    /// `mi_option_purge_delay`, which the bindings leave out, in milliseconds; -1 is never.
    const PURGE_DELAY: std::ffi::c_int = 15;
    // SAFETY: it sets a number that the allocator reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

fn main() -> ExitCode {
    keep_freed_memory();
    let flags = flags::Flags::parse();
    exit::report(flags.run())
}
