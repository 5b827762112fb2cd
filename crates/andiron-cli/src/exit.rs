//! Exit codes, and the error message of a failure.

use std::io;
use std::process::ExitCode;

use andiron_training::TrainError;

use crate::lines;

/// How a verb ended without failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything was done.
    Done,
    /// Some rows of the input could not be answered; the output says which.
    SomeFailed,
    /// A signal stopped the work after a checkpoint; running it again resumes.
    Interrupted,
}

/// An invalid value on a well-formed command line: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code of a failure.
pub const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// `EX_TEMPFAIL` of sysexits: schedulers run such a job again.
pub const INTERRUPTED: u8 = 75;

/// Prints what went wrong, if anything, and gives the exit code.
pub fn report(result: anyhow::Result<Ending>) -> ExitCode {
    match result {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::SomeFailed) => ExitCode::from(FAILED),
        Ok(Ending::Interrupted) => ExitCode::from(INTERRUPTED),
        // The reader of standard output has closed it, as `head` does; no message is needed.
        Err(error) if reader_gone(&error) => ExitCode::from(FAILED),
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Stopped)) => {
            lines::note!("{error}; run the same command again to go on");
            ExitCode::from(INTERRUPTED)
        }
        // That process says why.
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Elsewhere { .. })) => {
            ExitCode::from(FAILED)
        }
        Err(error) => {
            lines::print_error(format_args!("{}", paragraph(&error)));
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
        }
    }
}

fn reader_gone(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// The error and its causes in one paragraph: without empty lines, and without a cause that its effect already quotes.
fn paragraph(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        let lines: Vec<&str> = part.lines().filter(|line| !line.trim().is_empty()).collect();
        let part = lines.join("\n");
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_paragraph_without_repetition() {
        let error = anyhow::anyhow!("no such file")
            .context("cannot read a.json: no such file")
            .context("cannot load");
        assert_eq!(paragraph(&error), "cannot load: cannot read a.json: no such file");
    }

    #[test]
    fn a_cause_of_several_lines_stays_one_paragraph() {
        let error = anyhow::anyhow!("3 | lrr = 1\n  | ^^^\n\nunknown field\n").context("a.toml is wrong");
        assert_eq!(paragraph(&error), "a.toml is wrong: 3 | lrr = 1\n  | ^^^\nunknown field");
    }

    #[test]
    fn a_reader_that_went_away_is_recognised() {
        let error = |kind| anyhow::Error::new(io::Error::from(kind)).context("cannot write");
        assert!(reader_gone(&error(io::ErrorKind::BrokenPipe)));
        assert!(!reader_gone(&error(io::ErrorKind::StorageFull)));
    }
}
