//! Attention probabilities of a forward pass, for looking at a model.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::dropout_site::Stack;

/// The attention probabilities of one layer.
#[derive(Clone, Debug)]
pub struct AttentionProbabilities {
    /// The stack of the layer.
    pub stack: Stack,
    /// Index of the layer in its stack.
    pub layer: usize,
    /// Whether the keys are those of the encoder's output, and not of the same sequence.
    pub cross: bool,
    /// `[batch, heads, queries, keys]`; each query's row adds up to 1.
    pub probabilities_bhts: Tensor<4>,
}

/// What a recording pass has seen.
#[derive(Clone, Debug, Default)]
pub struct AttentionRecord {
    /// The layers to record, of each stack.
    pub(crate) wanted: Range<usize>,
    /// Layers of the deepest stack that the pass went through.
    pub n_layers: usize,
    /// The probabilities, in the order of computation.
    pub layers: Vec<AttentionProbabilities>,
}
