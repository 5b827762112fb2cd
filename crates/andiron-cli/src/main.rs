//! The program `andiron`: flags become library calls, errors become one paragraph and an exit code.

mod byte_size;
mod exit;
mod flags;
mod grammar;
mod json_lines;
mod launch;
mod lines;
mod machine;
mod memory;
mod model;
mod program;
mod progress;
mod sampling;
mod settings;
mod stop;
mod verbs;

use std::process::ExitCode;

use andiron_kernels::allocator;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    allocator::on_exhausted(memory::end_exhausted);
    exit::report(flags::run())
}
