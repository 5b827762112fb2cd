//! The processes that share a run: what they tell each other, and which rows of a step each of them takes.

mod division;
mod flat;
mod own_batches;
#[cfg(test)]
pub(crate) mod threads;

use std::fmt::Debug;

use crate::trainer::TrainError;

pub(crate) use division::{Part, Unit, part_of};
pub(crate) use flat::{BUCKET, floats, sum_gradients, tensor};
pub(crate) use own_batches::OwnBatches;

/// The processes (ranks) that train one model together. Each computes the gradients of its own rows of a step; their sums over all
/// of them make the step that of one process with all rows.
///
/// All processes make the same calls in the same order. Results are the same on every process, bit for bit, so that models that
/// begin equal stay equal. A process that cannot reach the others ends the job: no method returns an error.
pub trait Collective: Debug {
    /// Index of this process, from 0. The first one owns the files of the run.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Replaces each number by its sum over all processes.
    fn sum(&self, numbers: &mut [f64]);

    /// The same of many numbers: loss and gradients.
    fn sum_gradients(&self, numbers: &mut [f32]);

    /// Replaces the numbers by those of the process `from`.
    fn broadcast(&self, numbers: &mut [f32], from: usize);

    /// Joins the parts of all processes: `numbers` holds a part for each, one after the other, of these lengths. Each process has
    /// filled in its own, and gets those of the others.
    ///
    /// # Panics
    /// If there is not a length for each process, or they do not add up.
    fn all_gather(&self, numbers: &mut [f32], lengths: &[usize]);

    /// Returns once all processes have called this, however long that takes: the first one may be encoding rows, validating or
    /// saving. It should leave the processor to others meanwhile.
    fn wait_for_all(&self);
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) {}

    fn sum_gradients(&self, _: &mut [f32]) {}

    fn broadcast(&self, _: &mut [f32], _: usize) {}

    fn all_gather(&self, _: &mut [f32], _: &[usize]) {}

    fn wait_for_all(&self) {}
}

/// What follows from the methods of a [`Collective`].
pub(crate) trait CollectiveExt: Collective {
    /// Whether this process owns the files of the run.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The number that the first process gives.
    fn of_first(&self, number: f64) -> f64 {
        let mut numbers = [if self.is_first() { number } else { 0.0 }];
        self.sum(&mut numbers);
        numbers[0]
    }

    /// Which of the flags any process has set.
    fn any<const N: usize>(&self, flags: [bool; N]) -> [bool; N] {
        let mut numbers = flags.map(|flag| f64::from(u8::from(flag)));
        self.sum(&mut numbers);
        numbers.map(|number| number > 0.0)
    }
}

impl<C: Collective + ?Sized> CollectiveExt for C {}

/// The result of this process, unless another one has failed. Waits for all of them, as long as it takes. Of several errors, that of
/// the lowest rank is returned there; the others return [`TrainError::Elsewhere`].
///
/// # Errors
/// If any process has one.
pub fn agree<T, E: From<TrainError>>(collective: &dyn Collective, result: Result<T, E>) -> Result<T, E> {
    if collective.size() == 1 {
        return result;
    }
    collective.wait_for_all();
    let mut failed = vec![0.0; collective.size()];
    failed[collective.rank()] = f64::from(u8::from(result.is_err()));
    collective.sum(&mut failed);
    match failed.iter().position(|&failed| failed > 0.0) {
        Some(rank) if rank != collective.rank() => Err(TrainError::Elsewhere { rank }.into()),
        _ => result,
    }
}

#[cfg(test)]
mod tests {
    use super::threads::on_threads;
    use super::*;

    #[test]
    fn every_process_gets_the_same() {
        let all = on_threads(3, |ranks| {
            let rank = ranks.rank();
            let mut sums = [rank as f64, 1.0];
            ranks.sum(&mut sums);
            let mut gradients = [rank as f32 + 0.5];
            ranks.sum_gradients(&mut gradients);
            let mut copied = [rank as f32];
            ranks.broadcast(&mut copied, 2);
            let mut joined = [0.0; 4];
            // Parts of 1, 0 and 3 numbers.
            match rank {
                0 => joined[0] = 7.0,
                2 => joined[1..].copy_from_slice(&[8.0, 9.0, 10.0]),
                _ => {}
            }
            ranks.all_gather(&mut joined, &[1, 0, 3]);
            let any = ranks.any([rank == 1, false]);
            (sums, gradients, copied, joined, any, ranks.of_first(rank as f64 + 4.0))
        });
        let expected = ([3.0, 3.0], [4.5], [2.0], [7.0, 8.0, 9.0, 10.0], [true, false], 4.0);
        assert_eq!(all, [expected; 3]);
    }

    #[test]
    fn the_error_of_one_process_ends_all() {
        let all = on_threads(3, |ranks| {
            let result = if ranks.rank() > 0 { Err(TrainError::NoValidation) } else { Ok(()) };
            agree(ranks, result).unwrap_err().to_string()
        });
        let own = TrainError::NoValidation.to_string();
        assert_eq!(all[1], own);
        assert!(all[0].contains("process 1") && all[0] == all[2], "{all:?}");
        assert_eq!(on_threads(2, |ranks| agree::<_, TrainError>(ranks, Ok(ranks.rank())).unwrap()), [0, 1]);
    }
}
