//! GPU backends: families without GPU kernels run their composed bodies.

use burn::backend::Cube;

use super::{
    ActivationOps, AttentionOps, DropoutOps, EmbeddingOps, FeedForwardOps, HeadOps, LinearOps, LowRankOps,
    NormOps, OptimizerOps, PagedAttentionOps, RecomputeOps, RotaryOps,
};

impl ActivationOps for Cube {}
impl AttentionOps for Cube {}
impl DropoutOps for Cube {}
impl EmbeddingOps for Cube {}
impl FeedForwardOps for Cube {}
impl HeadOps for Cube {}
impl LinearOps for Cube {}
impl LowRankOps for Cube {}
impl NormOps for Cube {}
impl OptimizerOps for Cube {}
impl PagedAttentionOps for Cube {}
impl RecomputeOps for Cube {}
impl RotaryOps for Cube {}
