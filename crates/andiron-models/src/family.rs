//! What the model families have in common, seen from training and generation.

use andiron_core::ops::{self, WeightLayout};
use andiron_core::{Forward, KvCache};
use burn::tensor::{Int, Tensor};

/// A model that predicts each token from those before it.
pub trait Decoder {
    /// Hidden states after the final norm.
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If past and new positions together are more than the model has.
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3>;

    /// The output head's weight: one row for each entry of the vocabulary.
    ///
    /// # Shape
    /// `[vocabulary, d_model]`.
    fn head(&self) -> Tensor<2>;

    /// An empty cache for one batch of sequences.
    fn new_cache(&self) -> KvCache;

    /// Unnormalised log-probabilities of the next token at each position.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, time, vocabulary]`.
    fn logits(&self, hidden_btd: Tensor<3>) -> Tensor<3> {
        ops::linear(hidden_btd, self.head(), None, WeightLayout::OutIn)
    }
}
