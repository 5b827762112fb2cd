//! Attention layers: masks, padding, position biases and attention dropout.

use burn::tensor::Tensor;

use crate::cache::{CrossAttentionCache, KeysValues};
pub use crate::ops::AttentionMask;
use crate::ops::{self, AttentionOptions};
use crate::{Documents, DropoutSite, Forward, PaddingMask};

/// Configuration of a layer's attention.
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Multiplies the scores; usually `1 / √(head width)`.
    pub scale: f32,
    /// Causal mask and sliding window.
    pub mask: AttentionMask,
    /// Relative position bias, added to the scores by distance, as in T5: `[heads, t + s − 1]`, laid out as in
    /// [`ops::attention_biased`].
    pub bias_hr: Option<Tensor<2>>,
    /// Dropout probability of the attention probabilities in training.
    pub dropout: f32,
}

impl AttentionConfig {
    /// Scaled attention without position bias or dropout.
    pub fn new(scale: f32, mask: AttentionMask) -> Self {
        Self { scale, mask, bias_hr: None, dropout: 0.0 }
    }

    /// Options of a call over `n_keys` keys, with padding and documents; draws the dropout mask of `site`.
    fn options(
        &self,
        n_keys: usize,
        (rows, documents): (Option<PaddingMask>, Option<Documents>),
        site: DropoutSite,
        cx: &mut Forward<'_>,
    ) -> AttentionOptions {
        let dropout = cx.draw_dropout(self.dropout, site);
        AttentionOptions { scale: self.scale, mask: self.mask, n_keys, rows, documents, dropout }
    }
}

/// Self-attention of new positions over themselves and their context. Grouped-query attention if there are fewer KV heads.
///
/// # Shape
/// `q_bthk`: `[batch, t, heads, width]` → the same.
///
/// # Panics
/// If the shapes do not fit.
pub fn attend(
    q_bthk: Tensor<4>,
    keys_values: KeysValues,
    config: AttentionConfig,
    cx: &mut Forward<'_>,
) -> Tensor<4> {
    let (keys_bshk, values_bshk) = match keys_values {
        KeysValues::Whole { keys_bshk, values_bshk } => (keys_bshk, values_bshk),
        KeysValues::Blocks(blocks) => {
            let AttentionConfig { scale, mask, bias_hr, .. } = config;
            return ops::attention_blocks(q_bthk, &blocks, bias_hr, (scale, mask));
        }
    };
    let parts = (cx.padding_mask().cloned(), cx.documents().cloned());
    let options = config.options(keys_bshk.dims()[1], parts, DropoutSite::AttentionProbabilities, cx);
    if cx.records_attention() {
        let bias_hr = config.bias_hr.clone();
        let qkv = [q_bthk.clone(), keys_bshk.clone(), values_bshk.clone()];
        cx.record_attention(false, ops::attention_probabilities(qkv, bias_hr, &options));
    }
    match config.bias_hr {
        Some(bias_hr) => ops::attention_biased(q_bthk, (keys_bshk, values_bshk), bias_hr, options),
        None => ops::attention(q_bthk, keys_bshk, values_bshk, options),
    }
}

/// [`attend`] of new positions from the output of one fused QKV projection.
///
/// # Shape
/// `qkv_bt3d`: `[batch, t, 3 · heads · width]`, all queries first, then all keys → `[batch, t, heads · width]`.
///
/// # Panics
/// If the last axis is not a multiple of `3 · heads`.
pub fn attend_packed(
    qkv_bt3d: Tensor<3>,
    (layer, heads): (usize, usize),
    config: AttentionConfig,
    cx: &mut Forward<'_>,
) -> Tensor<3> {
    let [b, t, width] = qkv_bt3d.dims();
    let d = width / 3;
    if !cx.is_cached() && config.bias_hr.is_none() && !cx.records_attention() {
        let parts = (cx.padding_mask().cloned(), cx.documents().cloned());
        let options = config.options(t, parts, DropoutSite::AttentionProbabilities, cx);
        return ops::attention_packed(qkv_bt3d, heads, options);
    }
    let [q_bthk, k_bthk, v_bthk] = [0, 1, 2].map(|part| {
        let part_btd = qkv_bt3d.clone().slice([0..b, 0..t, part * d..(part + 1) * d]);
        part_btd.reshape([b, t, heads, d / heads])
    });
    let keys_values = cx.keys_values(layer, k_bthk, v_bthk);
    attend(q_bthk, keys_values, config, cx).reshape([b, t, d])
}

/// Cross-attention of decoder positions over the encoder's output. A batch may have several rows for each source, one after
/// another, such as the beams of a search: each source is then read once for all of its rows.
///
/// # Shape
/// `q_bthk`: `[batch, t, heads, width]` → the same.
///
/// # Panics
/// If the shapes do not fit, or the batch is no multiple of the number of sources.
pub fn cross_attend(
    q_bthk: Tensor<4>,
    cross_cache: &CrossAttentionCache,
    layer: usize,
    (scale, dropout): (f32, f32),
    cx: &mut Forward<'_>,
) -> Tensor<4> {
    let (keys_bshk, values_bshk) = cross_cache.layer(layer);
    let [b, t, h, k] = q_bthk.dims();
    let sources = keys_bshk.dims()[0];
    if b != sources {
        assert!(b.is_multiple_of(sources.max(1)), "{b} rows of {sources} sources");
        // Positions do not see each other, so those of one source are as many positions of one row.
        let q_bthk = q_bthk.reshape([sources, b / sources * t, h, k]);
        return cross_attend(q_bthk, cross_cache, layer, (scale, dropout), cx).reshape([b, t, h, k]);
    }
    let config = AttentionConfig { dropout, ..AttentionConfig::new(scale, AttentionMask::FULL) };
    let parts = (cross_cache.padding_mask().cloned(), None);
    let options = config.options(keys_bshk.dims()[1], parts, DropoutSite::CrossAttentionProbabilities, cx);
    if cx.records_attention() {
        let qkv = [q_bthk.clone(), keys_bshk.clone(), values_bshk.clone()];
        cx.record_attention(true, ops::attention_probabilities(qkv, None, &options));
    }
    ops::attention(q_bthk, keys_bshk, values_bshk, options)
}
