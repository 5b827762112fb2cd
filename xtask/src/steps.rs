//! Runs commands one after another and reports how long each took and which failed.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The steps of one task.
#[derive(Default)]
pub struct Steps {
    failed: Vec<String>,
}

impl Steps {
    /// Runs one step; after a failure the next steps still run.
    pub fn run(&mut self, name: &str, command: &mut Command) {
        eprintln!("== {name}");
        let started = Instant::now();
        let passed = match command.status() {
            Ok(status) => status.success(),
            Err(error) => {
                eprintln!("cannot run {}: {error}", command.get_program().display());
                false
            }
        };
        let result = if passed { "passed" } else { "FAILED" };
        eprintln!("== {name} {result} in {}", duration(started.elapsed()));
        if !passed {
            self.failed.push(name.to_owned());
        }
    }

    /// Reports a step that cannot run here.
    pub fn skip(&self, name: &str, why: &str) {
        eprintln!("== {name} skipped: {why}");
    }

    /// Prints the failed steps on the last line and returns the exit code of the task.
    pub fn finish(self) -> ExitCode {
        if self.failed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("error: failed: {}", self.failed.join(", "));
        ExitCode::FAILURE
    }
}

/// A duration as text: `3.4s`, `4m 12s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_short() {
        assert_eq!(duration(Duration::from_millis(3_440)), "3.4s");
        assert_eq!(duration(Duration::from_secs(252)), "4m 12s");
    }

    #[test]
    fn one_failure_fails_the_task_and_the_others_still_run() {
        let mut steps = Steps::default();
        steps.run("missing", &mut Command::new("no-such-program-anywhere"));
        assert_eq!(steps.failed, ["missing"]);
        assert_eq!(format!("{:?}", steps.finish()), format!("{:?}", ExitCode::FAILURE));
    }
}
