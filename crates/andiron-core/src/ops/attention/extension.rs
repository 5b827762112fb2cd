//! Attention as backends may override it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{AttentionOptions, Qkv, SavedAttention, composed};
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

    /// The same, with what [`AttentionOps::attend_backward`] needs.
    #[fusion(default)]
    fn attend_saved(
        #[extension_type] qkv: Qkv<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, SavedAttention<Self>) {
        let (out, lse) = composed::attention_saved::<Self>(qkv.clone(), bias.into_option(), options);
        (out.clone(), SavedAttention::Exact { qkv, out, lse })
    }

    /// Gradients of [`AttentionOps::attend`] with respect to queries, keys and values, and to the bias if there is one.
    #[fusion(default)]
    fn attend_backward(
        #[extension_type] saved: SavedAttention<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        dout: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (Qkv<Self>, Option<FloatTensor<Self>>) {
        composed::attention_backward::<Self>(saved, bias.into_option(), dout, options)
    }
}
