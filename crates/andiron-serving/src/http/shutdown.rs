//! Shutdown of the service, in two phases: drain, then cut.

use tokio::sync::watch;

/// The phase of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are accepted.
    Serving,
    /// New requests get 503; running ones continue.
    Draining,
    /// Running streams end now with an error event and `[DONE]`.
    Cut,
}

/// Starts and observes the shutdown of a service. Clones share one state, which only moves forward.
#[derive(Clone, Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Starts in [`Phase::Serving`].
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving) }
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Stops accepting requests; running ones may finish within the drain timeout.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends running requests too.
    pub fn cut(&self) {
        self.advance(Phase::Cut);
    }

    /// Waits until `phase` is reached or passed.
    pub async fn reached(&self, phase: Phase) {
        // Fails only if the sender is gone, and `self` holds it.
        drop(self.phase.subscribe().wait_for(|&now| now >= phase).await);
    }

    /// Handles the process's signals for as long as it is polled: the first interrupt (Ctrl-C) or SIGTERM drains, the next one
    /// cuts. Call it once, in the program: signals belong to the process.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub async fn follow_signals(self) -> std::io::Result<()> {
        #[cfg(unix)]
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        for step in [Self::drain, Self::cut] {
            #[cfg(unix)]
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted?,
                _ = terminate.recv() => {}
            }
            #[cfg(not(unix))]
            tokio::signal::ctrl_c().await?;
            step(&self);
        }
        Ok(())
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            *phase = (*phase).max(to);
            forward
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_switch_only_moves_forward() {
        let shutdown = Shutdown::new();
        let seen_elsewhere = shutdown.clone();
        assert_eq!(shutdown.phase(), Phase::Serving);
        shutdown.cut();
        shutdown.drain();
        seen_elsewhere.reached(Phase::Draining).await;
        assert_eq!(seen_elsewhere.phase(), Phase::Cut);
    }
}
