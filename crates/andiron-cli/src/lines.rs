//! Printing: results on standard output, everything else on standard error.
//!
//! The standard macros panic when the reader has closed the pipe, as in `andiron doctor | head -1`; these do not.

use std::fmt::Arguments;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;

/// Index of this process among those of its run. All but the first are silent: they would say the same.
static RANK: AtomicUsize = AtomicUsize::new(0);

/// From now on this process, of this rank, prints nothing but errors, unless it is the first one.
pub fn silence_all_but_first(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

/// Prints a line of the result.
///
/// # Errors
/// If standard output is closed or its disk is full.
pub fn print_out(line: Arguments<'_>) -> anyhow::Result<()> {
    if RANK.load(Ordering::Relaxed) > 0 {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Prints a message; a closed standard error is ignored.
pub fn print_note(line: Arguments<'_>) {
    if RANK.load(Ordering::Relaxed) == 0 {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Prints an error, with the rank of the process that has it if there are several.
pub fn print_error(error: Arguments<'_>) {
    let _ = match RANK.load(Ordering::Relaxed) {
        0 => writeln!(std::io::stderr(), "error: {error}"),
        rank => writeln!(std::io::stderr(), "error: process {rank}: {error}"),
    };
}

/// [`print_out`] with the arguments of `println!`.
macro_rules! out {
    ($($arguments:tt)*) => { $crate::lines::print_out(format_args!($($arguments)*)) };
}

/// [`print_note`] with the arguments of `eprintln!`.
macro_rules! note {
    ($($arguments:tt)*) => { $crate::lines::print_note(format_args!($($arguments)*)) };
}

pub(crate) use {note, out};
