//! What the model families have in common, seen from training and generation.

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KvCache, PaddingMask, Weight};
use burn::tensor::{Int, Tensor};

use crate::encoder::Head;

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
    fn head(&self) -> &Weight;

    /// An empty cache for one batch of sequences.
    fn new_cache(&self) -> KvCache;

    /// Unnormalised log-probabilities of the next token at each position.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, time, vocabulary]`.
    fn logits(&self, hidden_btd: Tensor<3>) -> Tensor<3> {
        self.head().project(hidden_btd, None)
    }
}

/// A model that reads a whole text at once and gives a vector for each of its tokens.
pub trait Encoder {
    /// Hidden states of the last layer; padding, told by [`Forward::with_padding_mask`], is seen by nobody.
    ///
    /// # Shape
    /// `ids_bt`: `[batch, time]`; `types_bt`, which of two texts each token belongs to, alike, all 0 if absent →
    /// `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If the texts are longer than the model reads.
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3>;

    /// What stands on the backbone, to be called on the hidden states.
    fn head(&self) -> Head<'_>;
}

/// A model that reads a source and predicts each token of a target from the source and the tokens before it.
pub trait EncoderDecoder {
    /// Hidden states of the encoder; padding, told by [`Forward::with_padding_mask`], is seen by nobody.
    ///
    /// # Shape
    /// `[batch, source]` → `[batch, source, d_model]`.
    ///
    /// # Panics
    /// If the sources are longer than the model reads.
    fn encoder_hidden(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3>;

    /// What the decoder's layers ask of the encoder's hidden states; `rows` are those of the encoder's pass.
    ///
    /// # Shape
    /// `[batch, source, d_model]`.
    fn cross_attention_cache(&self, hidden_bsd: Tensor<3>, rows: Option<PaddingMask>) -> CrossAttentionCache;

    /// Reads sources: [`EncoderDecoder::cross_attention_cache`] of [`EncoderDecoder::encoder_hidden`].
    ///
    /// # Shape
    /// `[batch, source]`.
    ///
    /// # Panics
    /// If the sources are longer than the model reads.
    fn encode(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> CrossAttentionCache {
        let hidden_bsd = self.encoder_hidden(ids_bs, cx);
        self.cross_attention_cache(hidden_bsd, cx.padding_mask().cloned())
    }

    /// Hidden states of the decoder, ready for [`EncoderDecoder::logits`].
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If past and new positions together are more than the model has.
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        cross_cache: &CrossAttentionCache,
        cx: &mut Forward<'_>,
    ) -> Tensor<3>;

    /// The output head's weight: one row for each entry of the target vocabulary.
    ///
    /// # Shape
    /// `[vocabulary, d_model]`.
    fn head(&self) -> &Weight;

    /// Added to the logits, `[vocabulary]`, if the model has such a bias.
    fn head_bias(&self) -> Option<Tensor<1>>;

    /// An empty cache for one batch of targets.
    fn new_cache(&self) -> KvCache;

    /// Unnormalised log-probabilities of the next token at each position.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, time, vocabulary]`.
    fn logits(&self, hidden_btd: Tensor<3>) -> Tensor<3> {
        self.head().project(hidden_btd, self.head_bias())
    }
}
