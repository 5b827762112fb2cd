//! Traits of the model families, used by training and generation.

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, KvCache, PaddingMask, Weight};
use burn::tensor::{Int, Tensor};

use crate::encoder::Head;

/// A causal language model: predicts each token from those before it.
pub trait Decoder {
    /// Hidden states after the final norm.
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If cached and new positions together exceed the model's maximum.
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3>;

    /// The output head's weight, one row per vocabulary entry.
    ///
    /// # Shape
    /// `[vocabulary, d_model]`.
    fn head(&self) -> &Weight;

    /// An empty cache for one batch of sequences.
    fn new_cache(&self) -> KvCache;

    /// Logits of the next token at each position.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, time, vocabulary]`.
    fn logits(&self, hidden_btd: Tensor<3>) -> Tensor<3> {
        self.head().project(hidden_btd, None)
    }
}

/// A bidirectional model: computes a vector for each token from the whole text.
pub trait Encoder {
    /// Hidden states of the last layer. Padding is masked by [`Forward::with_padding_mask`].
    ///
    /// # Shape
    /// `ids_bt`: `[batch, time]`; `types_bt`: token type ids of the same shape, all 0 if absent → `[batch, time,
    /// d_model]`.
    ///
    /// # Panics
    /// If the texts exceed the model's maximum length.
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3>;

    /// The head, to be applied to the hidden states.
    fn head(&self) -> Head<'_>;
}

/// An encoder-decoder: predicts each target token from the source and the target tokens before it.
pub trait EncoderDecoder {
    /// Hidden states of the encoder. Padding is masked by [`Forward::with_padding_mask`].
    ///
    /// # Shape
    /// `[batch, source]` → `[batch, source, d_model]`.
    ///
    /// # Panics
    /// If the sources exceed the model's maximum length.
    fn encoder_hidden(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3>;

    /// Keys and values of every decoder layer's cross-attention, from the encoder's hidden states; `rows` is the
    /// encoder's padding mask.
    ///
    /// # Shape
    /// `[batch, source, d_model]`.
    fn cross_attention_cache(&self, hidden_bsd: Tensor<3>, rows: Option<PaddingMask>) -> CrossAttentionCache;

    /// Encodes sources: [`EncoderDecoder::cross_attention_cache`] of [`EncoderDecoder::encoder_hidden`].
    ///
    /// # Shape
    /// `[batch, source]`.
    ///
    /// # Panics
    /// If the sources exceed the model's maximum length.
    fn encode(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> CrossAttentionCache {
        let hidden_bsd = self.encoder_hidden(ids_bs, cx);
        cx.with_adapters(|| self.cross_attention_cache(hidden_bsd, cx.padding_mask().cloned()))
    }

    /// Hidden states of the decoder, ready for [`EncoderDecoder::logits`].
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// If cached and new positions together exceed the model's maximum.
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        cross_cache: &CrossAttentionCache,
        cx: &mut Forward<'_>,
    ) -> Tensor<3>;

    /// The output head's weight, one row per target vocabulary entry.
    ///
    /// # Shape
    /// `[vocabulary, d_model]`.
    fn head(&self) -> &Weight;

    /// The output bias, `[vocabulary]`, if the model has one.
    fn head_bias(&self) -> Option<Tensor<1>>;

    /// An empty cache for one batch of targets.
    fn new_cache(&self) -> KvCache;

    /// Logits of the next token at each position.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, time, vocabulary]`.
    fn logits(&self, hidden_btd: Tensor<3>) -> Tensor<3> {
        self.head().project(hidden_btd, self.head_bias())
    }
}
