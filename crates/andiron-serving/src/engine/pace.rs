//! Size of prefill chunks while other sequences decode.

use std::time::Duration;

/// Time for all prefill chunks of a round while sequences decode.
const ROUND: Duration = Duration::from_millis(200);

/// Minimum chunk, in tokens: smaller ones take nearly as long.
const FEWEST: usize = 16;

/// Measured prefill speed.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Tokens per second; `None` before the first prompt.
    rate: Option<f64>,
}

impl Pace {
    /// A chunk of `ids` took `time`.
    pub(super) fn measured(&mut self, ids: usize, time: Duration) {
        let rate = ids as f64 / time.as_secs_f64().max(1e-6);
        // Later parts of a prompt take longer, so the latest chunks say most.
        self.rate = Some(self.rate.map_or(rate, |before| (before + rate) / 2.0));
    }

    /// Tokens to prefill now: at most `most`, with `readers` prompts in this round.
    pub(super) fn chunk(&self, most: usize, readers: usize) -> usize {
        let rate = self.rate.unwrap_or(FEWEST as f64 * 4.0 / ROUND.as_secs_f64());
        let fitting = rate * ROUND.as_secs_f64() / readers.max(1) as f64;
        (fitting as usize).max(FEWEST).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_takes_about_a_fifth_of_a_second_whatever_the_model() {
        let mut pace = Pace::default();
        assert_eq!(pace.chunk(256, 1), 64);
        pace.measured(64, Duration::from_millis(320));
        assert_eq!(pace.chunk(256, 1), 40);
        assert_eq!(pace.chunk(256, 2), 20);
        assert_eq!(pace.chunk(256, 8), 16, "never less than pays");
        assert_eq!(pace.chunk(4, 1), 4, "never more than asked for");
        pace.measured(64, Duration::from_millis(1));
        assert_eq!(pace.chunk(256, 1), 256);
    }
}
