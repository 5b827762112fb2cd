//! Bidirectional self-attention, shared by the encoders.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend, attend_packed};
use andiron_core::linear;
use andiron_core::{Forward, Linear};
use burn::tensor::Tensor;

use crate::hf_config::Activation;

/// What the layers of a model have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerSizes {
    pub(super) n_heads: usize,
    pub(super) activation: Activation,
    pub(super) dropout: f32,
    pub(super) attention_dropout: f32,
}

/// Bidirectional self-attention within each row, from projected queries, keys and values.
///
/// # Shape
/// `[batch, t, heads · width]` → the same.
pub(super) fn attend_all(
    x_btd: Tensor<3>,
    maps: [&Linear; 3],
    sizes: LayerSizes,
    cx: &mut Forward<'_>,
) -> Tensor<3> {
    let LayerSizes { n_heads, attention_dropout: dropout, .. } = sizes;
    let [b, t, d] = x_btd.dims();
    let width = d / n_heads;
    let config =
        AttentionConfig { dropout, ..AttentionConfig::new(1.0 / (width as f32).sqrt(), AttentionMask::FULL) };
    if let Some(qkv_bt3d) = linear::fused_qkv(&x_btd, maps) {
        return attend_packed(qkv_bt3d, (0, n_heads), config, cx);
    }
    let [q_bthk, k_bthk, v_bthk] =
        linear::projections(x_btd, maps).map(|y_btd| y_btd.reshape([b, t, n_heads, width]));
    let keys_values = cx.keys_values(0, k_bthk, v_bthk);
    attend(q_bthk, keys_values, config, cx).reshape([b, t, d])
}
