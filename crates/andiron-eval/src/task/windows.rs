//! Loss over a whole stream of tokens, cut into disjoint windows of the context length.
//!
//! A stream of `len` tokens has `(len − 1) / context` windows. Window `i` reads the tokens from `i · context` and
//! predicts each one's successor, so every target is predicted once and the tail that fills no window is left
//! out. Within a window the first token is predicted from one token only: the figure is an upper bound of what
//! a sliding window would give.

use andiron_core::{Forward, ops};
use andiron_data::shard::Dataset;
use andiron_models::Decoder;
use burn::tensor::{Device, Tensor};

use super::batch::{upload, upload_rows};
use crate::LossSum;

/// Tokens in a row, read piece by piece.
pub trait TokenStream {
    /// How many there are.
    fn tokens(&self) -> u64;

    /// Fills `out` with the tokens from `start` on.
    ///
    /// # Panics
    /// If that goes beyond the end.
    fn read(&self, start: u64, out: &mut [u32]);
}

impl TokenStream for [u32] {
    fn tokens(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, start: u64, out: &mut [u32]) {
        let start = start as usize;
        out.copy_from_slice(&self[start..start + out.len()]);
    }
}

impl TokenStream for Dataset {
    fn tokens(&self) -> u64 {
        Dataset::tokens(self)
    }

    fn read(&self, start: u64, out: &mut [u32]) {
        Dataset::read(self, start, out);
    }
}

/// How [`loss_over_windows`] walks a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens a window reads; at most the model's longest sequence.
    pub context: usize,
    /// Windows computed at once.
    pub rows: usize,
    /// Stop after this many windows; `None` walks the whole stream.
    pub limit: Option<u64>,
}

impl Windows {
    /// How many windows are read of a stream of `tokens` tokens.
    pub fn count(&self, tokens: u64) -> u64 {
        let whole = tokens.saturating_sub(1) / self.context as u64;
        self.limit.map_or(whole, |limit| whole.min(limit))
    }
}

/// Sum of the negative log-likelihoods of the targets of all windows of `stream`.
///
/// `device` is a plain one (no autodiff) and holds the model's weights.
///
/// # Errors
/// If the stream is shorter than one window and its last target.
///
/// # Panics
/// If `context` or `rows` is 0, the context is longer than the model's, or an id is outside the vocabulary.
pub fn loss_over_windows<S: TokenStream + ?Sized>(
    model: &impl Decoder,
    stream: &S,
    windows: Windows,
    device: &Device,
) -> Result<LossSum, WindowsError> {
    let Windows { context, rows, .. } = windows;
    assert!(context > 0 && rows > 0, "a window has tokens and a batch has rows");
    let count = windows.count(stream.tokens());
    if count == 0 {
        return Err(WindowsError::TooShort { tokens: stream.tokens(), context });
    }
    let mut sum = LossSum::default();
    for first in (0..count).step_by(rows) {
        let rows = rows.min((count - first) as usize);
        let n = rows * context;
        // One more than is read: the target of the last token.
        let mut tokens = vec![0; n + 1];
        stream.read(first * context as u64, &mut tokens);
        let ids_bt = upload_rows(&tokens[..n], rows, device);
        let targets_n = upload(&tokens[1..], device);
        let hidden_btd = model.hidden(ids_bt, &mut Forward::evaluation());
        let d = hidden_btd.dims()[2];
        let weights_n = Tensor::ones([n], device);
        let nats =
            ops::head_cross_entropy(hidden_btd.reshape([n, d]), model.head().val(), targets_n, weights_n);
        sum.add(f64::from(nats.into_scalar::<f32>()), n as u64);
    }
    Ok(sum)
}

/// Why a stream cannot be evaluated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowsError {
    /// Not even one window fits.
    #[error(
        "evaluation needs at least {needed} tokens, the stream has {tokens}: give more text or a shorter context",
        needed = context + 1
    )]
    TooShort {
        /// Tokens in the stream.
        tokens: u64,
        /// Tokens a window reads.
        context: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::score::score;
    use crate::testing::{device, stream, tiny};

    #[track_caller]
    fn check_count(tokens: u64, context: usize, expected: u64) {
        assert_eq!(Windows { context, rows: 1, limit: None }.count(tokens), expected);
    }

    #[test]
    fn every_window_needs_a_token_after_it() {
        check_count(0, 4, 0);
        check_count(4, 4, 0);
        check_count(5, 4, 1);
        check_count(8, 4, 1);
        check_count(9, 4, 2);
    }

    #[test]
    fn a_stream_without_a_window_is_refused() {
        let windows = Windows { context: 8, rows: 2, limit: None };
        let error = loss_over_windows(&tiny(), stream(8).as_slice(), windows, &device()).unwrap_err();
        assert_eq!(error, WindowsError::TooShort { tokens: 8, context: 8 });
        assert!(error.to_string().contains("at least 9 tokens"), "{error}");
    }

    #[test]
    fn the_batch_size_does_not_matter() {
        let (model, stream) = (tiny(), stream(100));
        let loss = |rows| {
            loss_over_windows(&model, stream.as_slice(), Windows { context: 8, rows, limit: None }, &device())
                .unwrap()
        };
        let single = loss(1);
        assert_eq!(single.tokens(), 96);
        for rows in [2, 5, 12, 50] {
            let batched = loss(rows);
            assert_eq!(batched.tokens(), 96);
            assert!((batched.mean() - single.mean()).abs() < 1e-5, "{} {}", batched.mean(), single.mean());
        }
    }

    #[test]
    fn windows_give_the_same_as_scoring_each_alone() {
        let (model, stream) = (tiny(), stream(27));
        let windows = Windows { context: 8, rows: 2, limit: None };
        let sum = loss_over_windows(&model, stream.as_slice(), windows, &device()).unwrap();
        let mut expected = 0.0;
        for window in 0..3 {
            // Nine tokens: eight of them predicted, the last from eight before it, which is the whole context.
            let ids = &stream[window * 8..window * 8 + 9];
            expected -= score(&model, ids, 9, &device()).unwrap().sum_logprob;
        }
        assert_eq!(sum.tokens(), 24);
        assert!((sum.nats() - expected).abs() < 1e-4, "{} {expected}", sum.nats());
    }

    #[test]
    fn a_limit_reads_only_the_first_windows() {
        let (model, stream) = (tiny(), stream(100));
        let limited = Windows { context: 8, rows: 4, limit: Some(3) };
        let whole = Windows { context: 8, rows: 4, limit: None };
        let first = loss_over_windows(&model, stream.as_slice(), limited, &device()).unwrap();
        let short = loss_over_windows(&model, &stream[..25], whole, &device()).unwrap();
        assert_eq!(first.tokens(), 24);
        assert!((first.nats() - short.nats()).abs() < 1e-4);
    }
}
