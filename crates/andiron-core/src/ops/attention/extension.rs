//! Attention as backends may override it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{AttentionOptions, Qkv, composed};
use crate::ops::{DropoutOps, OptionalTensor};
use crate::precision::Precision;

/// Attention over heads. A bias is `[heads, t + n_keys − 1]`, by distance, as in
/// [`attention_biased`](super::attention_biased).
// Composed bodies ignore the precision: they run in the tensors' dtype.
#[allow(clippy::too_many_arguments, clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait AttentionOps: DropoutOps + Backend {
    /// `[batch, t, heads, width]`, or `[batch, t, heads · width]` from packed queries, keys and values.
    #[fusion(default)]
    fn attend(
        #[extension_type] qkv: Qkv<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::attend_saved(qkv, bias, options, precision).0
    }

    /// The same, with the log-sum-exp of each query, `[batch, heads, t]`.
    #[fusion(default)]
    fn attend_saved(
        #[extension_type] qkv: Qkv<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::attention_saved::<Self>(qkv, bias.into_option(), options)
    }

    /// Gradients of [`AttentionOps::attend`] with respect to queries, keys and values, and to the bias if there is one.
    /// `out` and `lse` are those of [`AttentionOps::attend_saved`].
    #[fusion(default)]
    fn attend_backward(
        #[extension_type] qkv: Qkv<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (Qkv<Self>, Option<FloatTensor<Self>>) {
        composed::attention_backward::<Self>(qkv, bias.into_option(), [out, lse, dout], options)
    }
}
