//! Work on several threads whose results do not depend on how many there are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::PrepareError;

/// The threads of a run.
///
/// Files are read and written by the threads of [`each`](Self::each), of which the caller is one; with one thread the caller
/// does all of it. Documents are filtered and encoded by those of a pool, so that one large file occupies all of them too.
pub(super) struct Crew {
    threads: usize,
    pool: Option<rayon::ThreadPool>,
}

impl Crew {
    /// As many threads as asked for, or as the system starts.
    pub(super) fn new(threads: usize) -> Self {
        let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok();
        let pool = if threads > 1 { build() } else { None };
        Self { threads, pool }
    }

    /// Does a work for each number below `n`, several at a time; the results are in order. Of several failures the one with the
    /// lowest number is returned.
    pub(super) fn each<T: Send>(
        &self,
        n: usize,
        work: impl Fn(usize) -> Result<T, PrepareError> + Sync,
    ) -> Result<Vec<T>, PrepareError> {
        let results: Mutex<Vec<Option<Result<T, PrepareError>>>> = Mutex::new((0..n).map(|_| None).collect());
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let run = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                // What comes before a failure is still done, because it may fail as well.
                if number >= n || number > failed.load(Ordering::Relaxed) {
                    break;
                }
                let result = work(number);
                if result.is_err() {
                    failed.fetch_min(number, Ordering::Relaxed);
                }
                results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(n) {
                if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                    break;
                }
            }
            run();
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
    }

    /// Maps each item; the results are in order.
    pub(super) fn map<I: Send, O: Send>(&self, items: Vec<I>, work: impl Fn(I) -> O + Sync + Send) -> Vec<O> {
        use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
        match &self.pool {
            Some(pool) => pool.install(|| items.into_par_iter().map(work).collect()),
            None => items.into_iter().map(work).collect(),
        }
    }

    /// Maps each item while the caller does something else, such as reading the next ones.
    pub(super) fn map_while<I: Send, O: Send, R>(
        &self,
        items: Vec<I>,
        work: impl Fn(I) -> O + Sync + Send,
        meanwhile: impl FnOnce() -> R,
    ) -> (Vec<O>, R) {
        let Some(pool) = &self.pool else {
            let mapped = self.map(items, work);
            return (mapped, meanwhile());
        };
        let mut mapped = Vec::new();
        let done = pool.in_place_scope(|scope| {
            scope.spawn(|_| mapped = self.map(items, work));
            meanwhile()
        });
        (mapped, done)
    }

    /// Does a work that uses the threads of the pool it runs in.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Sorts.
    pub(super) fn sort<T: Ord + Send>(&self, items: &mut [T]) {
        use rayon::slice::ParallelSliceMut as _;
        match &self.pool {
            Some(pool) => pool.install(|| items.par_sort_unstable()),
            None => items.sort_unstable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_failure_counts() {
        for threads in [1, 2, 5] {
            let crew = Crew::new(threads);
            assert_eq!(crew.each(9, |n| Ok(n * n)).unwrap(), [0, 1, 4, 9, 16, 25, 36, 49, 64]);
            let failing =
                |n| if n > 3 { Err(PrepareError::NoText { read: n as u64, dropped: 0 }) } else { Ok(n) };
            assert!(matches!(crew.each(9, failing), Err(PrepareError::NoText { read: 4, .. })));
            let (mapped, other) = crew.map_while((0..100).collect(), |n| n + 1, || "read");
            assert_eq!((mapped, other), ((1..101).collect(), "read"));
            let mut unsorted = vec![3, 1, 2];
            crew.sort(&mut unsorted);
            assert_eq!(unsorted, [1, 2, 3]);
        }
    }
}
