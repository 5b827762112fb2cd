//! Cross-entropy over many tokens, and the perplexity and bits per token or byte derived from it.

use std::f64::consts::LN_2;

/// A running sum of negative log-likelihoods. Each token has the same weight, however the tokens were batched.
///
/// The sum is kept in f64, because a sum of millions of terms loses precision in f32.
///
/// Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks",
/// <https://doi.org/10.1121/1.2016299>.
///
/// # Example
/// ```
/// use andiron_eval::LossSum;
/// let mut sum = LossSum::default();
/// sum.add(2.0, 1); // one token, 2 nats
/// sum.add(3.0, 4); // four tokens, 3 nats together
/// assert_eq!(sum.mean(), 1.0);
/// assert_eq!(sum.perplexity(), std::f64::consts::E);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    nats: f64,
    tokens: u64,
}

impl LossSum {
    /// Adds `tokens` tokens whose negative log-likelihoods sum to `nats`.
    pub fn add(&mut self, nats: f64, tokens: u64) {
        self.nats += nats;
        self.tokens += tokens;
    }

    /// Sum of negative log-likelihoods, in nats.
    pub fn nats(&self) -> f64 {
        self.nats
    }

    /// Number of predicted tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Mean negative log-likelihood of a token, in nats; NaN for no tokens.
    pub fn mean(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// `exp` of the mean: the effective number of equally likely next tokens.
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// The mean in bits.
    pub fn bits_per_token(&self) -> f64 {
        self.mean() / LN_2
    }

    /// Bits per byte, where `bytes` is the length of the predicted tokens as text; comparable between tokenizers.
    pub fn bits_per_byte(&self, bytes: u64) -> f64 {
        self.nats / LN_2 / bytes as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fair_choice_between_eight_has_perplexity_eight() {
        let mut sum = LossSum::default();
        for _ in 0..5 {
            sum.add(8f64.ln(), 1);
        }
        assert!((sum.perplexity() - 8.0).abs() < 1e-12);
        assert!((sum.bits_per_token() - 3.0).abs() < 1e-12);
        // Five tokens of three bits each over ten bytes.
        assert!((sum.bits_per_byte(10) - 1.5).abs() < 1e-12);
        assert_eq!((sum.tokens(), sum.nats()), (5, 5.0 * 8f64.ln()));
    }

    #[test]
    fn tokens_weigh_the_same_in_batches_of_any_size() {
        let mut batched = LossSum::default();
        batched.add(1.0 + 2.0 + 3.0, 3);
        batched.add(10.0, 1);
        assert_eq!(batched.mean(), 4.0);
    }

    #[test]
    fn the_mean_of_nothing_is_not_a_number() {
        assert!(LossSum::default().mean().is_nan());
    }
}
