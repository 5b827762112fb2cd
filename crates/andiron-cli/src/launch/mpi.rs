//! Processes that are connected by MPI.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use andiron_training::Collective;
use anyhow::Context as _;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::request::Request;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use mpi::{Count, Tag, Threading};

use super::watchdog::Watchdog;

/// Numbers of one call of MPI, 32 MiB of them: counts are 32 bits, and the sum needs a second buffer of the size.
const PIECE: usize = 32 * (1 << 20) / size_of::<f32>();

/// Messages that say that a process has reached a call.
const ARRIVED: Tag = 1;

/// The longest pause between two looks at whether all are there.
const PAUSE: Duration = Duration::from_millis(10);

/// The processes of an MPI job.
///
/// MPI is called from the thread that started it, which is why this is neither `Send` nor `Sync`.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Until MPI ends, which is when this is dropped.
    universe: Option<Universe>,
    watchdog: Option<Watchdog>,
    /// Number of this call, which all processes count alike.
    call: Cell<u64>,
    /// Where sums are received.
    received: RefCell<Vec<f32>>,
}

impl Mpi {
    /// Connects with the other processes. A call in which they do not meet within `timeout` ends the job.
    ///
    /// # Errors
    /// If MPI was started before, or a thread cannot be started.
    pub fn start(timeout: Option<Duration>) -> anyhow::Result<Self> {
        // The kernels' threads do not call it.
        let (universe, _) =
            mpi::initialize_with_threading(Threading::Funneled).context("MPI has been started before")?;
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let watchdog = timeout.map(|timeout| Watchdog::start(rank, size, timeout)).transpose()?;
        Ok(Self {
            world,
            universe: Some(universe),
            watchdog,
            call: Cell::new(0),
            received: RefCell::new(Vec::new()),
        })
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    /// A call that all processes make at about the same time, watched if there is a watchdog.
    fn meet<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(watchdog) = &self.watchdog else { return call() };
        let number = self.call.replace(self.call.get() + 1);
        watchdog.watch();
        if self.world.rank() > 0 {
            self.world.process_at_rank(0).send_with_tag(&number, ARRIVED);
        } else {
            self.await_others(watchdog);
        }
        let result = call();
        watchdog.rest();
        result
    }

    /// Waits until each of the others has said that it is there, so that those which have not are known.
    fn await_others(&self, watchdog: &Watchdog) {
        for rank in 1..self.world.size() {
            let process = self.world.process_at_rank(rank);
            while process.immediate_probe_with_tag(ARRIVED).is_none() {
                std::thread::yield_now();
            }
            let _: (u64, _) = process.receive_with_tag(ARRIVED);
            watchdog.has_arrived(rank as usize);
        }
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.size()
    }

    fn sum(&self, numbers: &mut [f64]) {
        let mut sums = vec![0.0; numbers.len()];
        self.meet(|| self.world.all_reduce_into(&*numbers, &mut sums[..], SystemOperation::sum()));
        numbers.copy_from_slice(&sums);
    }

    fn sum_gradients(&self, numbers: &mut [f32]) {
        let mut received = self.received.borrow_mut();
        let longest = received.len().max(numbers.len().min(PIECE));
        received.resize(longest, 0.0);
        self.meet(|| {
            for piece in numbers.chunks_mut(PIECE) {
                let sums = &mut received[..piece.len()];
                self.world.all_reduce_into(&*piece, sums, SystemOperation::sum());
                piece.copy_from_slice(sums);
            }
        });
    }

    fn broadcast(&self, numbers: &mut [f32], from: usize) {
        let from = self.world.process_at_rank(from as Count);
        self.meet(|| numbers.chunks_mut(PIECE).for_each(|piece| from.broadcast_into(piece)));
    }

    fn all_gather(&self, numbers: &mut [f32], lengths: &[usize]) {
        assert_eq!(lengths.len(), self.size(), "a part for each process");
        assert_eq!(lengths.iter().sum::<usize>(), numbers.len(), "parts of all processes");
        let ends = lengths.iter().scan(0, |end, &length| {
            *end += length;
            Some(*end)
        });
        let parts: Vec<_> = ends.zip(lengths).map(|(end, &length)| end - length..end).collect();
        if numbers.len() > Count::MAX as usize {
            return parts
                .into_iter()
                .enumerate()
                .for_each(|(from, part)| self.broadcast(&mut numbers[part], from));
        }
        let own = numbers[parts[self.rank()].clone()].to_vec();
        let counts: Vec<Count> = lengths.iter().map(|&length| length as Count).collect();
        let starts: Vec<Count> = parts.iter().map(|part| part.start as Count).collect();
        let mut joined = PartitionMut::new(numbers, counts, starts);
        self.meet(|| self.world.all_gather_varcount_into(&own[..], &mut joined));
    }

    fn wait_for_all(&self) {
        // MPI waits by looking all the time, which would take a processor from the process that has work.
        let mut barrier: Request<'static, ()> = self.world.immediate_barrier();
        let mut pause = Duration::from_micros(20);
        while let Err(unfinished) = barrier.test() {
            barrier = unfinished;
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank()).field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // The end waits for all processes. One that panics must not: its exit ends the others.
        if std::thread::panicking() {
            std::mem::forget(self.universe.take());
        }
    }
}
