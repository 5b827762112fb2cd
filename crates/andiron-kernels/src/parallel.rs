//! Splits work over the threads that a call may use.
//!
//! Results do not depend on the number of threads: parts are independent of each other, or are cut by the shape alone and
//! combined in order by the caller.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Cpu;

/// Up to this much work (about 10 µs) runs on the calling thread: waking another costs more than it saves. The unit is one
/// multiply-add of a vectorised loop, about 0.1 ns.
const SERIAL_WORK: usize = 1 << 17;
/// The least work of a part.
const MIN_PART_WORK: usize = 1 << 15;
/// The longest that a thread that is done spins for the others before it sleeps.
const SPIN: Duration = Duration::from_micros(100);
/// Parts per thread, for load balancing: other threads take over from one that was interrupted.
const PARTS_PER_THREAD: usize = 4;

/// Whether this much work is worth a second thread.
pub(crate) fn pays(work: usize) -> bool {
    work > SERIAL_WORK
}

/// Calls `task` once with each index of `0..count`, on at most `cpu.threads` threads: the caller's and up to
/// `threads - 1` of the pool.
pub(crate) fn tasks(cpu: Cpu, count: usize, task: impl Fn(usize) + Sync) {
    let threads = cpu.threads.min(count);
    if threads <= 1 {
        (0..count).for_each(task);
        return;
    }
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            task(index);
        }
    };
    let (started, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    rayon::in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| {
                started.fetch_add(1, Ordering::Relaxed);
                work();
                finished.fetch_add(1, Ordering::Release);
            });
        }
        work();
        // A thread that waits for the scope sleeps, and waking it takes longer than most parts. Threads that have not started
        // find nothing to do, so nobody spins for them.
        spin_while(|| finished.load(Ordering::Acquire) < started.load(Ordering::Relaxed));
    });
}

/// Spins while `waiting`, for at most [`SPIN`].
fn spin_while(waiting: impl Fn() -> bool) {
    const SPINS_PER_LOOK: usize = 32;
    let start = Instant::now();
    while waiting() && start.elapsed() < SPIN {
        (0..SPINS_PER_LOOK).for_each(|_| std::hint::spin_loop());
    }
}

/// Calls `part` with disjoint ranges that cover `0..rows`. A row costs about `row_work` units of work. Parts start at
/// multiples of `multiple`.
pub(crate) fn rows(
    cpu: Cpu,
    rows: usize,
    row_work: usize,
    multiple: usize,
    part: impl Fn(Range<usize>) + Sync,
) {
    if rows == 0 {
        return;
    }
    let work = rows.saturating_mul(row_work);
    if cpu.threads <= 1 || !pays(work) {
        return part(0..rows);
    }
    let parts = (cpu.threads * PARTS_PER_THREAD).min(work / MIN_PART_WORK).max(1);
    let step = rows.div_ceil(parts).next_multiple_of(multiple);
    tasks(cpu, rows.div_ceil(step), |i| part(i * step..rows.min((i + 1) * step)));
}

/// A mutable slice whose disjoint ranges several threads write at once.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is an exclusive borrow, and by the contract of `range` no two threads reach the same element.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The same slice three times.
    ///
    /// # Safety
    /// No element is accessed through two of them.
    pub(crate) unsafe fn thrice(slice: &'a mut [T]) -> (Self, Self, Self) {
        let (start, len) = (slice.as_mut_ptr(), slice.len());
        let one = || Self { start, len, borrowed: PhantomData };
        (one(), one(), one())
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The part of the slice in `range`.
    ///
    /// # Safety
    /// While the result lives, no other range that overlaps it exists.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range is outside the slice");
        // SAFETY: the range is inside the borrowed slice (just checked) and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The pointer to element `index`, for kernels that write strided tiles.
    pub(crate) fn pointer(&self, index: usize) -> *mut T {
        assert!(index <= self.len, "index is outside the slice");
        // SAFETY: the element (or one past the end) is inside the borrowed slice.
        unsafe { self.start.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_row_is_visited_once_whatever_the_threads() {
        for threads in [0, 1, 2, 3, 7] {
            for n in [0, 1, 5, 64, 1000] {
                let mut seen = vec![0u8; n];
                let shared = Shared::new(&mut seen);
                rows(Cpu::new(Isa::Scalar, threads), n, 100_000, 3, |range| {
                    assert!(range.start % 3 == 0);
                    // SAFETY: `rows` hands out disjoint ranges.
                    unsafe { shared.range(range) }.iter_mut().for_each(|v| *v += 1);
                });
                assert!(seen.iter().all(|v| *v == 1));
            }
        }
    }
}
