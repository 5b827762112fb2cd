//! A watchdog over the calls in which the processes of a run meet: one that takes too long ends the job.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use crate::exit::INTERRUPTED;
use crate::lines;

/// How much longer than the first process the others wait: it knows which one is missing, and so comes first.
const GRACE: Duration = Duration::from_secs(5);

/// The longest pause between two looks at the call.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches from a thread of its own.
pub struct Watchdog {
    shared: Arc<Shared>,
    size: usize,
}

struct Shared(Mutex<Call>);

/// The call that the process is in.
struct Call {
    /// Its number; `None` between calls.
    number: Option<u64>,
    /// Calls so far.
    count: u64,
    /// Processes that have not reached it; those that the first process waits for.
    missing: Vec<usize>,
}

impl Watchdog {
    /// Watches the process `rank` of `size`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(rank: usize, size: usize, timeout: Duration) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared(Mutex::new(Call { number: None, count: 0, missing: Vec::new() })));
        let watched = Arc::clone(&shared);
        let limit = if rank == 0 { timeout } else { timeout + GRACE };
        let watch = move || {
            let missing = watched.until_late(limit);
            lines::print_error(format_args!("{}", Late { rank, timeout, missing: &missing }));
            SimpleCommunicator::world().abort(INTERRUPTED.into())
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        thread.spawn(watch).context("cannot start a thread")?;
        Ok(Self { shared, size })
    }

    /// A call begins.
    pub fn watch(&self) {
        let mut call = self.shared.lock();
        call.count += 1;
        call.number = Some(call.count);
        call.missing.clear();
        call.missing.extend(1..self.size);
    }

    /// Another process has reached the call.
    pub fn has_arrived(&self, rank: usize) {
        self.shared.lock().missing.retain(|&missing| missing != rank);
    }

    /// The call is over.
    pub fn rest(&self) {
        self.shared.lock().number = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once a call takes longer than `limit`: the processes that have not reached it.
    ///
    /// Time is counted in pauses of this thread, so that a process that was stopped itself does not blame another one.
    fn until_late(&self, limit: Duration) -> Vec<usize> {
        let pause = (limit / 20).min(LOOK_EVERY);
        let (mut number, mut waited) = (None, Duration::ZERO);
        loop {
            std::thread::sleep(pause);
            let call = self.lock();
            waited = if call.number == number { waited + pause } else { Duration::ZERO };
            number = call.number;
            if number.is_some() && waited >= limit {
                return call.missing.clone();
            }
        }
    }
}

/// What is said at the end.
struct Late<'a> {
    rank: usize,
    timeout: Duration,
    missing: &'a [usize],
}

impl std::fmt::Display for Late<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.timeout.as_secs_f64();
        match (self.rank, self.missing) {
            (0, []) => {
                write!(f, "the processes of the run did not exchange their numbers within {seconds} s")?
            }
            (0, [one]) => write!(f, "process {one} did not finish its part of a step within {seconds} s")?,
            (0, [first, more @ ..]) => {
                write!(f, "processes {first}")?;
                more.iter().try_for_each(|rank| write!(f, ", {rank}"))?;
                write!(f, " did not finish their parts of a step within {seconds} s")?;
            }
            _ => write!(f, "process 0 did not finish its part of a step within {seconds} s")?,
        }
        f.write_str(": ending the run; start it again to go on from the newest checkpoint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(rank: usize, missing: &[usize]) -> String {
        Late { rank, timeout: Duration::from_secs(60), missing }.to_string()
    }

    #[test]
    fn the_late_processes_are_named() {
        assert!(late(0, &[3]).starts_with("process 3 did not finish its part of a step within 60 s: "));
        assert!(late(0, &[1, 2]).starts_with("processes 1, 2 did not"));
        assert!(late(0, &[]).starts_with("the processes of the run did not exchange"));
        assert!(late(2, &[]).starts_with("process 0 did not"));
    }

    #[test]
    fn only_a_call_that_lasts_is_late() {
        let shared = Arc::new(Shared(Mutex::new(Call { number: None, count: 0, missing: Vec::new() })));
        let watchdog = Watchdog { shared: Arc::clone(&shared), size: 3 };
        watchdog.watch();
        watchdog.rest();
        let watching = std::thread::spawn(move || shared.until_late(Duration::from_millis(20)));
        watchdog.watch();
        watchdog.has_arrived(1);
        assert_eq!(watching.join().unwrap(), [2]);
    }
}
