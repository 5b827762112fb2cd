//! Printing: results on standard output, everything else on standard error.
//!
//! The standard macros panic when the reader has closed the pipe, as in `andiron doctor | head -1`; these do not.

use std::fmt::Arguments;
use std::io::Write as _;

use anyhow::Context as _;

/// Prints a line of the result.
///
/// # Errors
/// If standard output is closed or its disk is full.
pub fn print_out(line: Arguments<'_>) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Prints a message; a closed standard error is ignored.
pub fn print_note(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
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
