//! Where in a model dropout happens: a mask's seed depends on the place, not on what was drawn before it.

use andiron_kernels::random::Seed;

/// A stack of layers within a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stack {
    /// The layers of a model that has one stack.
    #[default]
    Single,
    /// The encoder of an encoder-decoder.
    Encoder,
    /// The decoder of an encoder-decoder.
    Decoder,
}

/// A place of dropout, within a layer or before and after all layers of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropoutSite {
    /// The sum of embeddings, before the first layer.
    Embeddings,
    /// Probabilities of self-attention.
    AttentionProbabilities,
    /// Output of self-attention, after its projection.
    AttentionOutput,
    /// Probabilities of cross-attention.
    CrossAttentionProbabilities,
    /// Output of cross-attention, after its projection.
    CrossAttentionOutput,
    /// Inner activations of the feed-forward layer.
    FeedForwardInner,
    /// Output of the feed-forward layer.
    FeedForwardOutput,
    /// The hidden states after the last norm.
    FinalNorm,
    /// The pooled vector that a classification head reads.
    Pooled,
    /// The input of a head's last projection.
    Head,
}

impl DropoutSite {
    /// Whether each layer has one, and not each stack.
    fn is_in_layer(self) -> bool {
        !matches!(self, Self::Embeddings | Self::FinalNorm | Self::Pooled | Self::Head)
    }
}

/// A mask that a forward pass has drawn: where, and with which probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutDraw {
    /// The stack of layers.
    pub stack: Stack,
    /// Index of the layer; `None` for a site before or after all layers.
    pub layer: Option<usize>,
    /// The place of the mask.
    pub site: DropoutSite,
    /// Dropout probability.
    pub probability: f32,
}

impl DropoutDraw {
    /// A draw at `site`, while the pass is in `layer` of `stack`.
    ///
    /// # Panics
    /// If the site is one of a layer, and the pass is in none.
    pub(crate) fn new((stack, layer): (Stack, Option<usize>), site: DropoutSite, probability: f32) -> Self {
        let layer = layer.filter(|_| site.is_in_layer());
        assert!(layer.is_some() || !site.is_in_layer(), "dropout of {site:?} is drawn outside of a layer");
        Self { stack, layer, site, probability }
    }

    /// Whether both are masks of the same place.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (self.stack, self.layer, self.site) == (other.stack, other.layer, other.site)
    }

    /// The seed of this mask in the pass with the given seed: another one for every place.
    pub(crate) fn seed(&self, pass: Seed) -> Seed {
        let layer = self.layer.map_or(0, |layer| layer as u64 + 1);
        pass.at(layer << 16 | (self.stack as u64) << 8 | self.site as u64)
    }
}
