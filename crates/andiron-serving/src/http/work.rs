//! Blocking work of requests: off the async threads, with bounded concurrency and memory.
//!
//! Running work cannot be interrupted, so a permit belongs to the work: it is released when the work ends, not when its client
//! disconnects. Work whose client has disconnected before it started is skipped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;

/// Bodies below this size, in bytes, do not count: there are at most `max_connections` of them.
const SMALL: usize = 32 << 10;

/// Permits for one type of work.
#[derive(Clone, Debug)]
pub(super) struct Workplace {
    places: Arc<Semaphore>,
}

impl Workplace {
    /// Allows `at_once` concurrent pieces of work.
    pub(super) fn new(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)) }
    }

    /// Waits for a permit and runs `work`; `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        // Lives as long as this future, which is dropped when the client goes.
        let client = Arc::new(());
        let watched = Arc::downgrade(&client);
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            watched.upgrade().map(|_| work())
        });
        let done = task.await.ok().flatten();
        drop(client);
        done
    }
}

/// Memory budget for bodies, and for their texts until they are tokenized.
#[derive(Debug)]
pub(super) struct BodyMemory {
    /// Counts [`SMALL`] units.
    free: Arc<Semaphore>,
}

/// Memory reserved for a body.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    held: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new((bytes / SMALL).clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Extends `reserved` to cover a body of `bytes`.
    pub(super) fn grow(&self, reserved: &mut Reserved, bytes: usize) -> Result<(), ApiError> {
        let has = reserved.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (bytes / SMALL).saturating_sub(has);
        if missing == 0 {
            return Ok(());
        }
        let more = u32::try_from(missing).unwrap_or(u32::MAX);
        let more =
            Arc::clone(&self.free).try_acquire_many_owned(more).map_err(|_| ApiError::bodies_full())?;
        match &mut reserved.held {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_place_belongs_to_the_work_and_not_to_its_client() {
        let workplace = Workplace::new(1);
        let (end, ended) = mpsc::channel::<()>();
        let at_work = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&at_work);
        let mut first = Box::pin(workplace.run(move || {
            seen.fetch_add(1, Ordering::SeqCst);
            let _ = ended.recv();
        }));
        while at_work.load(Ordering::SeqCst) == 0 {
            drop(tokio::time::timeout(Duration::from_millis(1), &mut first).await);
        }
        // The client leaves; the work goes on and keeps its place.
        drop(first);
        let second = tokio::time::timeout(Duration::from_millis(50), workplace.run(|| ())).await;
        assert!(second.is_err(), "there was no place");
        drop(end);
        assert_eq!(workplace.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn work_of_a_client_that_has_left_is_not_begun() {
        let workplace = Workplace::new(1);
        let (end, ended) = mpsc::channel::<()>();
        let begun = Arc::new(AtomicUsize::new(0));
        let mut first = Box::pin(workplace.run(move || ended.recv().is_ok()));
        drop(tokio::time::timeout(Duration::from_millis(20), &mut first).await);
        for _ in 0..20 {
            let begun = Arc::clone(&begun);
            let work = workplace.run(move || begun.fetch_add(1, Ordering::SeqCst));
            assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        }
        drop(end);
        first.await;
        assert_eq!(workplace.run(|| 7).await, Some(7));
        assert_eq!(begun.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn bodies_share_a_bounded_memory_and_small_ones_always_fit() {
        let memory = BodyMemory::new(4 * SMALL);
        let (mut first, mut second) = (Reserved::default(), Reserved::default());
        assert!(memory.grow(&mut first, 2 * SMALL).is_ok());
        assert!(memory.grow(&mut first, 3 * SMALL).is_ok());
        assert!(memory.grow(&mut second, 2 * SMALL).is_err_and(|error| error.status() == 429));
        assert!(memory.grow(&mut second, SMALL - 1).is_ok());
        drop(first);
        assert!(memory.grow(&mut second, 4 * SMALL).is_ok());
    }
}
