//! Paged attention has no hand-written gradient: its composed body is differentiated.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;

use super::PagedAttentionOps;

impl<B: PagedAttentionOps, C: CheckpointStrategy> PagedAttentionOps for Autodiff<B, C> {}
