//! Attention probabilities of a forward pass, for looking at a model.

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

/// The layers to record, of each stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionLayers {
    /// All of them.
    #[default]
    All,
    /// The last one.
    Last,
    /// The one with this index, if there is one.
    One(usize),
}

/// What a recording pass has seen.
#[derive(Clone, Debug, Default)]
pub struct AttentionRecord {
    pub(crate) wanted: AttentionLayers,
    /// Layers of the deepest stack that the pass went through.
    pub n_layers: usize,
    /// The probabilities, in the order of computation.
    pub layers: Vec<AttentionProbabilities>,
}

impl AttentionRecord {
    /// Whether the layer with this index is recorded.
    pub(crate) fn wants(&self, layer: usize) -> bool {
        !matches!(self.wanted, AttentionLayers::One(wanted) if wanted != layer)
    }

    /// Adds a layer; of all layers, the last one takes the place of the one before it if only that is wanted.
    pub(crate) fn add(&mut self, layer: AttentionProbabilities) {
        if self.wanted == AttentionLayers::Last {
            self.layers.retain(|earlier| (earlier.stack, earlier.cross) != (layer.stack, layer.cross));
        }
        self.layers.push(layer);
    }
}
