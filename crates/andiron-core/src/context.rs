//! What a forward pass is told beside its input: the past, and where randomness comes from.

use andiron_kernels::random::Seed;
use burn::tensor::Tensor;

use crate::{KvCache, cache::Past, ops};

/// The context of one forward pass.
///
/// There is one forward per layer; training, prefill and decoding differ only by this argument.
///
/// | use | cache | dropout |
/// |---|---|---|
/// | training | none | a seed that is new for every step |
/// | evaluation | none | none |
/// | prefill, decoding | the sequence's own | none |
#[derive(Debug, Default)]
pub struct Forward<'a> {
    cache: Option<&'a mut KvCache>,
    dropout: Option<Seed>,
    draws: u64,
}

impl<'a> Forward<'a> {
    /// Whole sequences, no randomness: evaluation.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Whole sequences with dropout drawn from `seed`, which must differ from step to step.
    pub fn training(seed: Seed) -> Self {
        Self { dropout: Some(seed), ..Self::default() }
    }

    /// Sequences that continue what `cache` holds.
    pub fn cached(cache: &'a mut KvCache) -> Self {
        Self { cache: Some(cache), ..Self::default() }
    }

    /// Position of the first new token: how many the cache holds.
    pub fn start(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// All keys and values that layer `layer` may attend to, given those of the new positions.
    ///
    /// # Shape
    /// `[batch, new positions, heads, head width]` each.
    pub fn past(&mut self, layer: usize, keys_bshk: Tensor<4>, values_bshk: Tensor<4>) -> Past {
        match self.cache.as_mut() {
            Some(cache) => cache.append(layer, keys_bshk, values_bshk),
            None => {
                let len = keys_bshk.dims()[1];
                Past { keys_bshk, values_bshk, len }
            }
        }
    }

    /// Records that all layers have computed `positions` new positions.
    pub fn advance(&mut self, positions: usize) {
        if let Some(cache) = self.cache.as_mut() {
            cache.advance(positions);
        }
    }

    /// Zeroes a share `probability` of the elements and scales the others, while training; otherwise `x`.
    ///
    /// Each call in a pass draws its own mask, in call order, so a pass is a function of its seed.
    ///
    /// # Panics
    /// If `probability` is not in `0..1`.
    pub fn dropout<const D: usize>(&mut self, x: Tensor<D>, probability: f32) -> Tensor<D> {
        assert!((0.0..1.0).contains(&probability), "dropout probability {probability} is not in 0..1");
        match self.dropout {
            Some(seed) if probability > 0.0 => {
                let seed = seed.at(self.draws);
                self.draws += 1;
                ops::dropout(x, probability, seed)
            }
            _ => x,
        }
    }
}
