//! Losses of tensors: one for each row, group or pair, so that a caller weights and adds them.
//!
//! They are composed of Burn's operations and get their gradients from its autodiff: their inputs are small. Losses over a
//! vocabulary are [`ops::head_cross_entropy`](crate::ops::head_cross_entropy) and [`ops::head_losses`](crate::ops::head_losses),
//! which never have all logits at once.
//!
//! | loss | of | gives |
//! |---|---|---|
//! | [`cross_entropy`] | class logits | `[rows]` |
//! | [`binary_cross_entropy`] | label logits | `[rows]` |
//! | [`mean_squared_error`] | outputs | `[rows]` |
//! | [`span_cross_entropy`] | logits of first and last tokens | `[rows]` |
//! | [`multiple_negatives_ranking`] | groups of embeddings | `[groups]` |
//! | [`cosine_mean_squared_error`] | pairs of embeddings with scores | `[pairs]` |
//! | [`cosent`] | pairs of embeddings with scores | `[1]`, the whole batch |
//! | [`dpo`] | log-probabilities of answers | `[pairs]`, and rewards |

mod cross_entropy;
mod dpo;
mod ranking;
mod scored;
mod span;
mod values;

pub use cross_entropy::cross_entropy;
pub use dpo::{DpoLosses, DpoOptions, dpo, sequence_log_probabilities};
pub use ranking::{cosine_pairs, multiple_negatives_ranking};
pub use scored::{cosent, cosine_mean_squared_error};
pub use span::span_cross_entropy;
pub use values::{binary_cross_entropy, mean_squared_error};
