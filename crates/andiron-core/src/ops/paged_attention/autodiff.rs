//! Decoding has no gradient of its own: the composed body, of operations that have.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;

use super::PagedAttentionOps;

impl<B: PagedAttentionOps, C: CheckpointStrategy> PagedAttentionOps for Autodiff<B, C> {}
