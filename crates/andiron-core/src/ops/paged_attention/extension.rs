//! Attention over a paged KV cache as backends may override it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{PagedKeyValues, composed};
use crate::ops::{AttentionMask, AttentionOps, OptionalTensor};
use crate::precision::Precision;

/// Attention of new positions over the blocks of a KV cache.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait PagedAttentionOps: AttentionOps + Backend {
    /// `q`: `[rows, t, heads, width]` → the same.
    #[fusion(default)]
    fn paged_attention(
        q: FloatTensor<Self>,
        #[extension_type] cache: PagedKeyValues<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        scale: f32,
        mask: AttentionMask,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::paged_attention::<Self>(q, cache, bias, scale, mask, precision)
    }
}
