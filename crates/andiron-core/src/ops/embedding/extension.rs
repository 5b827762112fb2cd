//! Lookups in tables as backends may override them; the composed bodies are Burn's own operations.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

/// Lookups in a table, `[entries, d]`.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait EmbeddingOps: Backend {
    /// The rows `ids`.
    #[fusion(default)]
    fn embedding_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::embedding(table, ids)
    }

    /// Gradient of [`EmbeddingOps::embedding_rows`] with respect to the table.
    #[fusion(default)]
    fn embedding_rows_backward(
        table: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        ids: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::embedding_backward(table, dy, ids)
    }
}
