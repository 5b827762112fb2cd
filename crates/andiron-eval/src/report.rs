//! The report of an evaluation, for printing and storing.

use serde::{Deserialize, Serialize};

use crate::LossSum;

/// Loss, perplexity and bits of a model on a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossReport {
    /// Mean negative log-likelihood of a token, in nats.
    pub loss: f64,
    /// `exp` of the loss.
    pub perplexity: f64,
    /// The loss in bits.
    pub bits_per_token: f64,
    /// Bits per byte of the text, if its length is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Number of predicted tokens.
    pub tokens: u64,
}

impl LossReport {
    /// Summarises `sum`; `bytes` is the length of the predicted tokens as text, if it is known.
    ///
    /// # Example
    /// ```
    /// use andiron_eval::{LossReport, LossSum};
    /// let mut sum = LossSum::default();
    /// sum.add(std::f64::consts::LN_2 * 6.0, 3);
    /// let report = LossReport::new(sum, Some(12));
    /// assert!((report.bits_per_token - 2.0).abs() < 1e-12);
    /// assert!((report.bits_per_byte.unwrap() - 0.5).abs() < 1e-12);
    /// ```
    pub fn new(sum: LossSum, bytes: Option<u64>) -> Self {
        Self {
            loss: sum.mean(),
            perplexity: sum.perplexity(),
            bits_per_token: sum.bits_per_token(),
            bits_per_byte: bytes.map(|bytes| sum.bits_per_byte(bytes)),
            tokens: sum.tokens(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_length_is_left_out_of_the_json() {
        let mut sum = LossSum::default();
        sum.add(4.0, 2);
        let report = LossReport::new(sum, None);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.starts_with(r#"{"loss":2.0,"#) && !json.contains("byte"), "{json}");
        assert_eq!(serde_json::from_str::<LossReport>(&json).unwrap(), report);
    }
}
