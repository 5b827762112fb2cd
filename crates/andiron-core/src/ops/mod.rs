//! Fused tensor operations: one function per operation, one gradient each, the same on every backend.
//!
//! A folder is a family of operations. Its `mod.rs` has the options and the public functions, which take and return
//! [`Tensor`](burn::tensor::Tensor)s and check shapes. They call the family's extension trait (`extension.rs`), whose
//! default bodies (`composed.rs`) are chains of Burn's own operations: what GPU backends run, and the oracle that
//! overrides are tested against. On `ndarray` and `flex` the trait is implemented by `host.rs`, which hands the tensors'
//! memory to `andiron-kernels`. Gradients are written by hand, once for all backends, in `autodiff.rs`: the method whose
//! name ends in `_saved` is the forward pass of training, the one in `_backward` its gradient.
//!
//! Arguments that come in several forms, such as a weight that is dense or quantized, are sum types
//! ([`ExtensionType`](burn::backend::ExtensionType)).

// `NdArray` is deprecated in Burn 0.22; it stays a supported choice here.
#![allow(deprecated)]
// Without a backend there is nothing to dispatch to, and the generated methods leave their arguments unused.
#![cfg_attr(not(any(feature = "cube", feature = "flex", feature = "ndarray")), allow(unused_variables))]

#[macro_use]
mod autodiff;
mod composed;
#[cfg(feature = "cube")]
mod cube;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod op_times;
mod tensors;

mod activation;
mod attention;
mod dropout;
mod embedding;
mod feed_forward;
mod head;
mod linear;
mod low_rank;
mod norm;
mod optimizer;
mod paged_attention;
mod recompute;
mod rotary;

pub use activation::{Activation, ActivationOps, activate, activate_kept, gate, gate_kept};
#[cfg(test)]
pub(crate) use attention::spread_biases;
pub use attention::{
    AttentionMask, AttentionOps, AttentionOptions, Qkv, SavedAttention, attention, attention_biased,
    attention_packed, attention_probabilities,
};
pub use dropout::{Dropout, DropoutOps, dropout};
pub use embedding::{EmbeddingOps, embedding, embedding_quantized};
pub use feed_forward::{
    FeedForwardOps, FeedForwardOptions, FeedForwardParams, feed_forward, gated_feed_forward,
};
pub use head::{
    Head, HeadInputs, HeadOps, HeadOptions, head_cross_entropy, head_cross_entropy_smoothed, head_losses,
    head_losses_smoothed,
};
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) use host::with_elements;
pub use linear::{LinearGrads, LinearOps, LinearWeight, SavedInput, WeightLayout, linear, linear_quantized};
pub use low_rank::{
    Factors, FrozenWeight, KeptInput, LowRank, LowRankOps, LowRankOptions, keep_input, low_rank,
};
pub use norm::{
    NormOps, NormOptions, NormParams, SavedNorm, layer_norm, layer_norm_between_branches,
    layer_norm_of_branch, layer_norm_of_sum, residual, rms_norm, rms_norm_between_branches,
    rms_norm_of_branch,
};
pub use op_times::{OpKind, OpTimes, with_op_times};
pub use optimizer::{
    Adafactor, AdafactorStep, AdamWStep, LionStep, Matrices, Moments, Momentum, MuonStep, OptimizerOps,
    SquaredGradients, adafactor, adamw, lerp, lion, muon_directions, sgd_step, square_sum,
};
pub(crate) use paged_attention::attention_blocks;
#[cfg(not(any(feature = "flex", feature = "ndarray")))]
pub(crate) use paged_attention::with_elements;
pub use paged_attention::{PagedAttentionOps, PagedKeyValues, PagedRow};
pub(crate) use recompute::{BlockGradients, backward_from, leaf, recomputed};
pub use recompute::{GradientSlot, Recompute, RecomputeOps};
pub use rotary::{RotaryOps, Rotation, rotate};
pub use tensors::{OptionalTensor, Tensors};

type Dispatch = burn::backend::Dispatch;

/// All families of operations: what a backend offers.
pub trait FusedOps:
    ActivationOps
    + AttentionOps
    + DropoutOps
    + EmbeddingOps
    + FeedForwardOps
    + HeadOps
    + LinearOps
    + LowRankOps
    + NormOps
    + OptimizerOps
    + PagedAttentionOps
    + RecomputeOps
    + RotaryOps
{
}

impl<B> FusedOps for B where
    B: ActivationOps
        + AttentionOps
        + DropoutOps
        + EmbeddingOps
        + FeedForwardOps
        + HeadOps
        + LinearOps
        + LowRankOps
        + NormOps
        + OptimizerOps
        + PagedAttentionOps
        + RecomputeOps
        + RotaryOps
{
}
