//! Ending the compilation of a grammar early.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llguidance::{CancellationHandle, Matcher};

use super::ConstraintError;

/// Ends the compilation of a grammar from another thread, because nobody waits for it any more.
///
/// It is looked at between the parts of the work, and at every step of the last one, which walks the vocabulary. The part that
/// translates the grammar is not interrupted; bounds on grammars keep it short. A constraint that is complete stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Ends the part that is under way.
    step: Option<CancellationHandle>,
}

impl Interrupt {
    /// Ends the compilation.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        if let Some(step) = state.step.take() {
            step.cancel();
        }
    }

    /// An error if the work was ended.
    pub(super) fn check(&self) -> Result<(), ConstraintError> {
        match self.lock().stopped {
            true => Err(ConstraintError::Interrupted),
            false => Ok(()),
        }
    }

    /// From here on the work is that of `matcher`.
    pub(super) fn follow(&self, matcher: &Matcher) -> Result<(), ConstraintError> {
        let mut state = self.lock();
        state.step = matcher.cancellation_handle();
        match state.stopped {
            true => Err(ConstraintError::Interrupted),
            false => Ok(()),
        }
    }

    /// The work is complete, and can no longer be ended.
    pub(super) fn finish(&self) -> Result<(), ConstraintError> {
        self.lock().step = None;
        self.check()
    }

    /// Nothing can panic while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
