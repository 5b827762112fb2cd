//! Loss over a stream of tokens, cut into disjoint windows of the context length.
//!
//! Every token but the first is predicted once. Window `i` reads the tokens from `i · context` and predicts the next token at
//! each position. The last window may have fewer targets; it is extended to the left to the full context length, if the stream
//! is long enough. In the other windows the first target is predicted from one token only, so the loss is an upper bound of
//! that with a sliding window.
//!
//! Source: the rolling log-likelihood of EleutherAI's lm-evaluation-harness 0.4 (`get_rolling_token_windows`). The harness
//! also predicts the first token, from a beginning- or end-of-sequence token; we do not.

use andiron_core::{Forward, ids, ops};
use andiron_data::shard::Dataset;
use andiron_models::Decoder;
use andiron_pipelines::Continuation;
use burn::tensor::{Device, Tensor};

use crate::LossSum;

/// A sequence of tokens that is read in parts.
pub trait TokenStream {
    /// Number of tokens.
    fn tokens(&self) -> u64;

    /// Fills `out` with the tokens from `start` on.
    ///
    /// # Panics
    /// If the range ends beyond the last token.
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

/// Window size, batch size and limit of [`loss_over_windows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Input tokens per window; at most the model's context length.
    pub context: usize,
    /// Windows per batch.
    pub rows: usize,
    /// Stop after this many windows; `None` reads the whole stream.
    pub limit: Option<u64>,
}

impl Windows {
    /// Number of windows for a stream of `tokens` tokens, including a partial last one.
    pub fn count(&self, tokens: u64) -> u64 {
        let all = tokens.saturating_sub(1).div_ceil(self.context as u64);
        self.limit.map_or(all, |limit| all.min(limit))
    }
}

/// Sum of the negative log-likelihoods of the targets of all windows of `stream`.
///
/// `device` is a plain one (no autodiff) and holds the model's weights.
///
/// # Errors
/// If the stream has fewer than two tokens, and so no target.
///
/// # Panics
/// If `context` or `rows` is 0, `context` is longer than the model's, or an id is outside the vocabulary.
pub fn loss_over_windows<S: TokenStream + ?Sized>(
    model: &impl Decoder,
    stream: &S,
    windows: Windows,
    device: &Device,
) -> Result<LossSum, WindowsError> {
    let Windows { context, rows, .. } = windows;
    assert!(context > 0 && rows > 0, "a window has tokens and a batch has rows");
    let tokens = stream.tokens();
    let count = windows.count(tokens);
    if count == 0 {
        return Err(WindowsError::TooShort { tokens });
    }
    let whole = count.min((tokens - 1) / context as u64);
    let mut sum = LossSum::default();
    for first in (0..whole).step_by(rows) {
        let rows = rows.min((whole - first) as usize);
        let n = rows * context;
        let read = Read { start: first * context as u64, rows, len: context, counted: n };
        sum.add(nats(model, stream, read, device), n as u64);
    }
    if count > whole {
        let counted = (tokens - 1 - whole * context as u64) as usize;
        let len = context.min((tokens - 1) as usize);
        let read = Read { start: tokens - 1 - len as u64, rows: 1, len, counted };
        sum.add(nats(model, stream, read, device), counted as u64);
    }
    Ok(sum)
}

/// Windows of one batch.
struct Read {
    /// Position of the first input token.
    start: u64,
    rows: usize,
    /// Input tokens per window.
    len: usize,
    /// Number of targets that count, at the end of each window.
    counted: usize,
}

/// Sum of the negative log-likelihoods of the targets that count.
fn nats<S: TokenStream + ?Sized>(
    model: &impl Decoder,
    stream: &S,
    Read { start, rows, len, counted }: Read,
    device: &Device,
) -> f64 {
    let n = rows * len;
    // One more than is read: the target of the last token.
    let mut tokens = vec![0; n + 1];
    stream.read(start, &mut tokens);
    let ids_bt = ids::upload(&tokens[..n], [rows, len], device);
    let targets = &tokens[n + 1 - counted..];
    let targets_n = ids::upload(targets, [targets.len()], device);
    let hidden_btd = model.hidden(ids_bt, &mut Forward::evaluation());
    let d = hidden_btd.dims()[2];
    let hidden_nd = hidden_btd.reshape([n, d]).slice([n - counted..n, 0..d]);
    let weights_n = Tensor::ones([counted], device);
    let nats = ops::head_cross_entropy(hidden_nd, model.head().val(), targets_n, weights_n);
    f64::from(nats.into_scalar::<f32>())
}

/// The windows of one text: its first token is predicted from `prefix`, and each window begins with the last token of the one
/// before it. The last one is extended to the left.
///
/// Source: `get_rolling_token_windows` of lm-evaluation-harness 0.4.13.
pub(crate) fn rolling(ids: &[u32], prefix: u32, longest: usize) -> Vec<Continuation> {
    let mut windows = Vec::with_capacity(ids.len().div_ceil(longest));
    for start in (0..ids.len()).step_by(longest) {
        let end = ids.len().min(start + longest);
        let context = match start {
            0 => vec![prefix],
            // As many tokens are read as fit.
            _ => ids[end - longest - 1..start].to_vec(),
        };
        windows.push(Continuation { context, continuation: ids[start..end].to_vec() });
    }
    windows
}

/// Why a stream cannot be evaluated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowsError {
    /// The stream is too short to have a target.
    #[error("evaluation needs at least 2 tokens, the stream has {tokens}: give more text")]
    TooShort {
        /// Tokens in the stream.
        tokens: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use andiron_models::DecoderBundle;

    use super::*;
    use crate::task::score::score;
    use crate::testing::{device, stream, tiny};

    #[track_caller]
    fn check_count(tokens: u64, context: usize, expected: u64) {
        assert_eq!(Windows { context, rows: 1, limit: None }.count(tokens), expected);
    }

    #[test]
    fn the_last_window_may_be_a_part_of_one() {
        check_count(0, 4, 0);
        check_count(1, 4, 0);
        check_count(2, 4, 1);
        check_count(5, 4, 1);
        check_count(6, 4, 2);
        check_count(9, 4, 2);
        assert_eq!(Windows { context: 4, rows: 1, limit: Some(1) }.count(6), 1);
    }

    #[test]
    fn a_stream_in_which_nothing_is_predicted_is_refused() {
        let windows = Windows { context: 8, rows: 2, limit: None };
        for tokens in [0, 1] {
            let error = loss_over_windows(&tiny(), &stream(8)[..tokens], windows, &device()).unwrap_err();
            assert_eq!(error, WindowsError::TooShort { tokens: tokens as u64 });
            assert!(error.to_string().contains("at least 2 tokens"), "{error}");
        }
    }

    #[test]
    fn a_stream_of_less_than_a_window_is_scored_whole() {
        let model = tiny();
        let windows = Windows { context: 8, rows: 2, limit: None };
        for tokens in [2, 5, 8] {
            let ids = &stream(8)[..tokens];
            let sum = loss_over_windows(&model, ids, windows, &device()).unwrap();
            let expected = -score(&model, ids, 9, &device()).unwrap().sum_logprob;
            assert_eq!(sum.tokens(), tokens as u64 - 1);
            assert!((sum.nats() - expected).abs() < 1e-4, "{} {expected}", sum.nats());
        }
    }

    #[test]
    fn the_tail_is_predicted_from_a_whole_context() {
        let (model, stream) = (tiny(), stream(30));
        let windows = Windows { context: 8, rows: 2, limit: None };
        for tokens in 26..=30 {
            let sum = loss_over_windows(&model, &stream[..tokens], windows, &device()).unwrap();
            let whole = loss_over_windows(&model, &stream[..25], windows, &device()).unwrap();
            let tail = score(&model, &stream[tokens - 9..tokens], 9, &device()).unwrap();
            let counted = tail.logprobs.iter().rev().take(tokens - 25).flatten();
            let expected = whole.nats() - counted.map(|&logprob| f64::from(logprob)).sum::<f64>();
            assert_eq!(sum.tokens(), tokens as u64 - 1);
            assert!((sum.nats() - expected).abs() < 1e-4, "{tokens}: {} {expected}", sum.nats());
        }
    }

    /// Mean losses of lm-evaluation-harness 0.4.13's windows over transformers 5.24.0, with the first token of the stream as
    /// the prefix token that the harness puts before a text.
    #[test]
    fn losses_are_those_of_the_harness() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../andiron-models/tests/golden/gpt2");
        let bundle = DecoderBundle::open(Path::new(model), &device()).unwrap();
        let ids: Vec<u32> = (0..60).map(|i| (7 * i * i + 3 * i + 1) % 61).collect();
        let expected = [
            (2, 5.04642),
            (12, 4.13336),
            (18, 4.17542),
            (33, 4.15892),
            (34, 4.18372),
            (50, 4.23849),
            (60, 4.25886),
        ];
        let windows = Windows { context: 16, rows: 2, limit: None };
        for (tokens, mean) in expected {
            let sum = loss_over_windows(&bundle.model, &ids[..tokens], windows, &device()).unwrap();
            assert!((sum.mean() - mean).abs() < 2e-5, "{tokens}: {} {mean}", sum.mean());
        }
    }

    /// `get_rolling_token_windows` and `make_disjoint_window` of lm-evaluation-harness 0.4.13.
    #[test]
    fn windows_of_a_text_are_those_of_the_harness() {
        let windows = |len: u32| {
            let ids: Vec<u32> = (1..=len).collect();
            let pairs = rolling(&ids, 0, 4).into_iter().map(|window| (window.context, window.continuation));
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(windows(0), []);
        assert_eq!(windows(3), [(vec![0], vec![1, 2, 3])]);
        assert_eq!(windows(4), [(vec![0], vec![1, 2, 3, 4])]);
        assert_eq!(windows(6), [(vec![0], vec![1, 2, 3, 4]), (vec![2, 3, 4], vec![5, 6])]);
        assert_eq!(windows(8), [(vec![0], vec![1, 2, 3, 4]), (vec![4], vec![5, 6, 7, 8])]);
    }

    #[test]
    fn the_batch_size_does_not_matter() {
        let (model, stream) = (tiny(), stream(100));
        let loss = |rows| {
            loss_over_windows(&model, stream.as_slice(), Windows { context: 8, rows, limit: None }, &device())
                .unwrap()
        };
        let single = loss(1);
        assert_eq!(single.tokens(), 99);
        for rows in [2, 5, 12, 50] {
            let batched = loss(rows);
            assert_eq!(batched.tokens(), 99);
            assert!((batched.mean() - single.mean()).abs() < 1e-5, "{} {}", batched.mean(), single.mean());
        }
    }

    #[test]
    fn windows_give_the_same_as_scoring_each_alone() {
        let (model, stream) = (tiny(), stream(25));
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
