//! Multi-head attention, without the full score matrix where that is faster.

mod autodiff;
mod composed;
mod distances;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(super) mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};
use burn::tensor::Tensor;

pub use extension::AttentionOps;

use super::{Dispatch, Dropout, OptionalTensor};
use crate::{Documents, PaddingMask, precision};

/// Causal mask and sliding window. Padding is masked separately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionMask {
    /// Whether a query attends only to keys up to its own position. Queries are the last positions: query `i` of `t` is at
    /// position `n_keys − t + i`.
    pub causal: bool,
    /// The window in positions, the query's own included: a query attends to keys fewer than this many positions before it
    /// and, unless `causal`, after it. `None` is no window.
    ///
    /// Source: Beltagy et al. 2020, "Longformer: The Long-Document Transformer", <https://arxiv.org/abs/2004.05150>;
    /// Jiang et al. 2023, "Mistral 7B", <https://arxiv.org/abs/2310.06825>.
    pub sliding_window: Option<usize>,
}

impl AttentionMask {
    /// No mask: encoders.
    pub const FULL: Self = Self { causal: false, sliding_window: None };
    /// Causal: decoders.
    pub const CAUSAL: Self = Self { causal: true, sliding_window: None };

    /// Whether the window, if any, spans all of `n` keys.
    pub(crate) fn spans(self, keys: usize) -> bool {
        self.sliding_window.is_none_or(|window| keys <= window)
    }

    /// Whether the query at this position attends to a key. Positions are below 0 if there are more queries than keys.
    pub(crate) fn sees(self, query: isize, key: usize) -> bool {
        let ahead = key as isize - query;
        (!self.causal || ahead <= 0) && self.sliding_window.is_none_or(|window| ahead.unsigned_abs() < window)
    }
}

/// Options of an attention operation.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Multiplies the scores before the softmax; usually `1 / √(head width)`.
    pub scale: f32,
    /// Causal mask and sliding window.
    pub mask: AttentionMask,
    /// Number of filled keys; the buffers may be longer.
    pub n_keys: usize,
    /// Padding mask: the keys of each sequence that are no padding; `None` is no padding. The output of a fully masked query
    /// is unspecified.
    pub rows: Option<PaddingMask>,
    /// Documents packed into rows: a query attends only to keys of its own document. Needs queries and keys of the same
    /// positions.
    pub documents: Option<Documents>,
    /// Dropout of the probabilities, `[batch, heads, t, n_keys]` in row-major order.
    pub dropout: Option<Dropout>,
}

impl AttentionOptions {
    #[track_caller]
    fn assert_fit(&self, q_bthk: &Tensor<4>, k_bshk: &Tensor<4>, v_bshk: &Tensor<4>) {
        let [b, t, h, k] = q_bthk.dims();
        let [key_b, capacity, key_h, key_k] = k_bshk.dims();
        assert_eq!(k_bshk.dims(), v_bshk.dims(), "keys and values have one shape");
        assert_eq!((b, k), (key_b, key_k), "queries and keys have one batch and one width");
        assert!(h.is_multiple_of(key_h), "{h} query heads cannot share {key_h} key heads evenly");
        assert!(self.n_keys <= capacity, "{} keys in a buffer for {capacity}", self.n_keys);
        assert_ne!(self.mask.sliding_window, Some(0), "a window has a position");
        assert!(
            self.mask == AttentionMask::FULL || t <= self.n_keys,
            "{t} queries at positions of {} keys",
            self.n_keys
        );
        assert!(self.rows.as_ref().is_none_or(|rows| rows.len() == b), "rows of keys for {b} sequences");
        if self.documents.is_some() {
            assert_eq!(
                [t, t],
                [self.n_keys, capacity],
                "documents of queries and keys of the same positions"
            );
        }
        self.assert_documents(b, t);
    }

    #[track_caller]
    fn assert_documents(&self, b: usize, t: usize) {
        let Some(documents) = &self.documents else { return };
        assert_eq!(documents.len(), b, "documents of each of {b} sequences");
        let fit = documents.starts().iter().all(|starts| starts.last().is_none_or(|&start| start < t));
        assert!(fit, "documents of {t} positions");
    }
}

/// Queries, keys and values; also their gradients.
#[derive(Clone, Debug, ExtensionType)]
pub enum Qkv<B: Backend> {
    /// Separate tensors.
    Separate {
        /// `[batch, t, heads, width]`.
        q: FloatTensor<B>,
        /// `[batch, capacity, key heads, width]`.
        k: FloatTensor<B>,
        /// `[batch, capacity, key heads, width]`.
        v: FloatTensor<B>,
    },
    /// The output of one fused QKV projection, for self-attention.
    Packed {
        /// `[batch, t, 3 · heads · width]`.
        qkv: FloatTensor<B>,
        /// Heads of each.
        heads: usize,
    },
}

/// What [`AttentionOps::attend_saved`] keeps for the backward pass.
#[derive(Clone, Debug, ExtensionType)]
pub enum SavedAttention<B: Backend> {
    /// Inputs and output as they were.
    Exact {
        /// Queries, keys and values.
        #[extension_type]
        qkv: Qkv<B>,
        /// The output.
        out: FloatTensor<B>,
        /// The log-sum-exp of each query's scores, `[batch, heads, t]`.
        lse: FloatTensor<B>,
    },
    /// Without the output, and rounded to bf16, two elements in each 32-bit word, so that last axes are half as wide. Of no
    /// use outside the host kernels.
    Rounded {
        /// Queries, keys and values.
        #[extension_type]
        qkv: Qkv<B>,
        /// As of `Exact`.
        lse: FloatTensor<B>,
    },
}

/// `dropout(softmax(q · kᵀ · scale)) · v`, per head. Query heads share KV heads in equal groups.
///
/// # Shape
/// `q_bthk`: `[batch, t, heads, width]`; `k_bshk`, `v_bshk`: `[batch, capacity, key heads, width]` of which the
/// first `options.n_keys` positions are read → `[batch, t, heads, width]`.
///
/// # Panics
/// If the shapes or documents do not fit, a window is 0, or there is a mask and there are more queries than keys.
pub fn attention(
    q_bthk: Tensor<4>,
    k_bshk: Tensor<4>,
    v_bshk: Tensor<4>,
    options: AttentionOptions,
) -> Tensor<4> {
    options.assert_fit(&q_bthk, &k_bshk, &v_bshk);
    separate([q_bthk, k_bshk, v_bshk], None, options)
}

/// [`attention`] with a relative position bias: `dropout(softmax(q · kᵀ · scale + bias)) · v`.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
/// <https://arxiv.org/abs/1910.10683>, section 2.1.
///
/// # Shape
/// As for [`attention`], and `bias_hr`: `[heads, t + n_keys − 1]`, whose element `t − 1 + n` belongs to keys `n` positions
/// before their query (`n` is negative for keys after it).
///
/// # Panics
/// If the shapes do not fit, or there are more queries than keys.
pub fn attention_biased(
    q_bthk: Tensor<4>,
    (k_bshk, v_bshk): (Tensor<4>, Tensor<4>),
    bias_hr: Tensor<2>,
    options: AttentionOptions,
) -> Tensor<4> {
    options.assert_fit(&q_bthk, &k_bshk, &v_bshk);
    let [_, t, h, _] = q_bthk.dims();
    assert!(t <= options.n_keys, "{t} queries at positions of {} keys", options.n_keys);
    assert_eq!(bias_hr.dims(), [h, t + options.n_keys - 1], "biases of {h} heads by distance");
    separate([q_bthk, k_bshk, v_bshk], Some(bias_hr), options)
}

fn separate(qkv: [Tensor<4>; 3], bias_hr: Option<Tensor<2>>, options: AttentionOptions) -> Tensor<4> {
    let [q, k, v] = qkv.map(Tensor::into_dispatch);
    let bias = OptionalTensor::new(bias_hr.map(Tensor::into_dispatch));
    let qkv = Qkv::Separate { q, k, v };
    Tensor::from_dispatch(Dispatch::attend(qkv, bias, options, precision::current()))
}

/// The probabilities that [`attention`] and [`attention_biased`] multiply the values with, in full and before dropout:
/// `softmax(q · kᵀ · scale + bias)`. Composed, for looking at a model.
///
/// # Shape
/// As for these, queries, keys and values → `[batch, heads, t, n_keys]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn attention_probabilities(
    qkv: [Tensor<4>; 3],
    bias_hr: Option<Tensor<2>>,
    options: &AttentionOptions,
) -> Tensor<4> {
    let [q_bthk, k_bshk, v_bshk] = &qkv;
    options.assert_fit(q_bthk, k_bshk, v_bshk);
    let bias = bias_hr.map(Tensor::into_dispatch);
    Tensor::from_dispatch(composed::probabilities::<Dispatch>(qkv.map(Tensor::into_dispatch), bias, options))
}

/// The biases of [`attention_biased`] for each query and key, `[1, heads, t, n_keys]`.
#[cfg(test)]
pub(crate) fn spread_biases(bias_hr: Tensor<2>, t: usize, n_keys: usize) -> Tensor<4> {
    Tensor::from_dispatch(distances::spread::<Dispatch>(bias_hr.into_dispatch(), t, n_keys))
}

/// Self-[`attention`] from the output of one fused QKV projection, without splitting it into copies; its gradient is one
/// tensor, too.
///
/// # Shape
/// `qkv_bt3d`: `[batch, t, 3 · heads · width]`, all queries first, then all keys → `[batch, t, heads · width]`.
///
/// # Panics
/// If the last axis is not a multiple of `3 · heads`, or `options.n_keys` is not `t`.
pub fn attention_packed(qkv_bt3d: Tensor<3>, heads: usize, options: AttentionOptions) -> Tensor<3> {
    let [b, t, width] = qkv_bt3d.dims();
    assert!(width.is_multiple_of(3 * heads), "{width} is not three times {heads} heads");
    assert!(options.rows.as_ref().is_none_or(|rows| rows.len() == b), "rows of keys for {b} sequences");
    assert_eq!(t, options.n_keys, "positions look at themselves");
    options.assert_documents(b, t);
    let qkv = Qkv::Packed { qkv: qkv_bt3d.into_dispatch(), heads };
    let absent = OptionalTensor::Absent;
    Tensor::from_dispatch(Dispatch::attend(qkv, absent, options, precision::current()))
}
