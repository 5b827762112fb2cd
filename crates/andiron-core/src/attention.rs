//! Attention as layers call it: who sees whom, padding, biases and dropout of the probabilities.

use burn::tensor::{Tensor, activation};

use crate::cache::{Memory, Past};
pub use crate::ops::AttentionMask;
use crate::ops::{self, AttentionOptions};
use crate::{Forward, Rows};

/// How a layer attends.
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Multiplies the scores; usually `1 / √(head width)`.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: AttentionMask,
    /// Added to the scores by how far a key is before its query, as T5's relative positions are: `[heads, t + s − 1]` as
    /// in [`ops::attention_biased`].
    pub bias_hr: Option<Tensor<2>>,
    /// Share of the probabilities that is dropped in training.
    pub dropout: f32,
}

impl AttentionConfig {
    /// Scores times `scale`, nothing else.
    pub fn new(scale: f32, mask: AttentionMask) -> Self {
        Self { scale, mask, bias_hr: None, dropout: 0.0 }
    }

    fn options(&self, n_keys: usize, rows: Option<Rows>) -> AttentionOptions {
        AttentionOptions { scale: self.scale, mask: self.mask, n_keys, rows }
    }
}

/// [`AttentionMask`] as models call it.
pub type Sight = AttentionMask;
/// [`AttentionConfig`] as models call it.
pub type Scoring = AttentionConfig;

/// Self-attention of new positions over themselves and their past; query heads share key heads in equal groups.
///
/// # Shape
/// `q_bthk`: `[batch, t, heads, width]` → the same.
///
/// # Panics
/// If the shapes do not fit.
pub fn attend(q_bthk: Tensor<4>, past: Past, config: AttentionConfig, cx: &mut Forward<'_>) -> Tensor<4> {
    let (keys_bshk, values_bshk) = match past {
        Past::Whole { keys_bshk, values_bshk } => (keys_bshk, values_bshk),
        Past::Blocks(blocks) => {
            let AttentionConfig { scale, mask, bias_hr, .. } = config;
            return ops::attention_blocks(q_bthk, &blocks, bias_hr, (scale, mask));
        }
    };
    let (t, s) = (q_bthk.dims()[1], keys_bshk.dims()[1]);
    if !cx.drops(config.dropout) {
        let options = config.options(s, cx.rows().cloned());
        return match config.bias_hr {
            Some(bias_hr) => ops::attention_biased(q_bthk, (keys_bshk, values_bshk), bias_hr, options),
            None => ops::attention(q_bthk, keys_bshk, values_bshk, options),
        };
    }
    let mask = cx.mask(config.mask, t, s, &q_bthk.device());
    let mask = match mask {
        None if config.mask.causal && t > 1 => {
            let past = Tensor::<2>::full([t, s], f32::MIN / 4.0, &q_bthk.device());
            Some(past.triu((s - t + 1) as i64).unsqueeze())
        }
        mask => mask,
    };
    let added = match (mask, config.bias_hr.map(|bias_hr| ops::spread_biases(bias_hr, t, s))) {
        (Some(mask), Some(bias)) => Some(mask + bias),
        (mask, bias) => mask.or(bias),
    };
    mix(q_bthk, (keys_bshk, values_bshk), added, (config.scale, config.dropout), cx)
}

/// [`attend`] of new positions whose queries, keys and values lie side by side, as one projection makes them.
///
/// # Shape
/// `qkv_bt3d`: `[batch, t, 3 · heads · width]`, all queries first, then all keys → `[batch, t, heads · width]`.
///
/// # Panics
/// If the last axis cannot be cut so.
pub fn attend_packed(
    qkv_bt3d: Tensor<3>,
    (layer, heads): (usize, usize),
    config: AttentionConfig,
    cx: &mut Forward<'_>,
) -> Tensor<3> {
    let [b, t, width] = qkv_bt3d.dims();
    let d = width / 3;
    if !cx.is_cached() && config.bias_hr.is_none() && !cx.drops(config.dropout) {
        let options = config.options(t, cx.rows().cloned());
        return ops::attention_packed(qkv_bt3d, heads, options);
    }
    let [q_bthk, k_bthk, v_bthk] = [0, 1, 2].map(|part| {
        let part_btd = qkv_bt3d.clone().slice([0..b, 0..t, part * d..(part + 1) * d]);
        part_btd.reshape([b, t, heads, d / heads])
    });
    let past = cx.past(layer, k_bthk, v_bthk);
    attend(q_bthk, past, config, cx).reshape([b, t, d])
}

/// Cross-attention of a decoder's positions over what an encoder left.
///
/// # Shape
/// `q_bthk`: `[batch, t, heads, width]` → the same.
///
/// # Panics
/// If the shapes do not fit.
pub fn attend_memory(
    q_bthk: Tensor<4>,
    memory: &Memory,
    layer: usize,
    (scale, dropout): (f32, f32),
    cx: &mut Forward<'_>,
) -> Tensor<4> {
    let (keys_bshk, values_bshk) = memory.layer(layer);
    let s = keys_bshk.dims()[1];
    if !cx.drops(dropout) {
        let options = AttentionConfig::new(scale, AttentionMask::FULL).options(s, memory.rows().cloned());
        return ops::attention(q_bthk, keys_bshk, values_bshk, options);
    }
    let mask = memory.rows().map(|rows| Forward::mask_over(rows, s, &q_bthk.device()));
    mix(q_bthk, (keys_bshk, values_bshk), mask, (scale, dropout), cx)
}

/// `dropout(softmax(q · kᵀ · scale + added)) · v`.
fn mix(
    q_bthk: Tensor<4>,
    (keys_bshk, values_bshk): (Tensor<4>, Tensor<4>),
    added: Option<Tensor<4>>,
    (scale, dropout): (f32, f32),
    cx: &mut Forward<'_>,
) -> Tensor<4> {
    let h = q_bthk.dims()[2];
    let [k_bhsk, v_bhsk] = [keys_bshk, values_bshk].map(|x_bshk| {
        let [b, s, key_h, k] = x_bshk.dims();
        let x_bhsk = x_bshk.swap_dims(1, 2);
        match h / key_h {
            1 => x_bhsk,
            group => {
                let shared: Tensor<5> = x_bhsk.unsqueeze_dim(2);
                shared.expand([b, key_h, group, s, k]).reshape([b, h, s, k])
            }
        }
    });
    let scores_bhts = q_bthk.swap_dims(1, 2).matmul(k_bhsk.swap_dims(2, 3)) * scale;
    let scores_bhts = match added {
        Some(added) => scores_bhts + added,
        None => scores_bhts,
    };
    let probabilities = cx.dropout(activation::softmax(scores_bhts, 3), dropout);
    probabilities.matmul(v_bhsk).swap_dims(1, 2)
}
