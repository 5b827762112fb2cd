//! Size of prefill chunks: a round of them takes a bounded time, for the sequences that decode and the clients that go away.

use std::time::Duration;

/// Time for all prefill chunks of a round.
pub(super) const ROUND: Duration = Duration::from_millis(180);

/// Minimum tokens per round: fewer take nearly as long, because weights are unpacked for each pass.
pub(super) const FEWEST: usize = 64;

/// Weight of the earlier measurements when one is added: later parts of a prompt take longer, so the latest say most.
const DECAY: f64 = 0.8;

/// Measured prefill passes: a straight line through their times, by least squares.
#[derive(Debug, Default)]
pub(super) struct Pace {
    weight: f64,
    /// Sums over the passes: tokens, seconds, tokens², tokens · seconds.
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
}

impl Pace {
    /// A pass of `ids` took `time`.
    pub(super) fn measured(&mut self, ids: usize, time: Duration) {
        let (tokens, seconds) = (ids as f64, time.as_secs_f64().max(1e-6));
        let add = |sum: &mut f64, value: f64| *sum = DECAY * *sum + value;
        add(&mut self.weight, 1.0);
        add(&mut self.tokens, tokens);
        add(&mut self.seconds, seconds);
        add(&mut self.tokens_squared, tokens * tokens);
        add(&mut self.tokens_seconds, tokens * seconds);
    }

    /// Tokens to prefill in a round.
    pub(super) fn tokens(&self) -> usize {
        let Some((pass, token)) = self.line() else { return FEWEST };
        (((ROUND.as_secs_f64() - pass) / token) as usize).max(FEWEST)
    }

    /// Seconds of a pass without tokens, and of each token; `None` before the first measurement.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let spread = self.weight * self.tokens_squared - self.tokens * self.tokens;
        let slope = (self.weight * self.tokens_seconds - self.tokens * self.seconds) / spread;
        let pass = (self.seconds - slope * self.tokens) / self.weight;
        // Passes of about one size tell nothing about others, and noise can turn the line.
        match spread > 1e-3 * self.tokens * self.tokens && slope > 0.0 && pass > 0.0 {
            true => Some((pass, slope)),
            false => Some((0.0, self.seconds / self.tokens.max(1.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs passes of a model that takes `pass` milliseconds and `token` more for each token.
    fn settled(pass: f64, token: f64) -> usize {
        let mut pace = Pace::default();
        for _ in 0..40 {
            let ids = pace.tokens().min(256);
            pace.measured(ids, Duration::from_secs_f64((pass + token * ids as f64) / 1e3));
        }
        pace.tokens()
    }

    #[test]
    fn a_round_takes_a_bounded_time_whatever_a_pass_costs() {
        assert_eq!(Pace::default().tokens(), FEWEST);
        for (pass, token, wanted) in [(0.0, 1.0, 180), (80.0, 1.0, 100), (20.0, 0.2, 800)] {
            let tokens = settled(pass, token);
            assert!(tokens.min(256).abs_diff(wanted.min(256)) <= 3, "{pass} ms + {token} ms: {tokens}");
        }
        // A model that is too slow for that still reads what pays.
        assert_eq!(settled(300.0, 5.0), FEWEST);
    }
}
