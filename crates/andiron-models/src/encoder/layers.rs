//! What the encoders share below their blocks: fresh parameters, attention over whole texts, output over the
//! vocabulary.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend, attend_packed};
use andiron_core::embedding::EmbeddingConfig;
use andiron_core::linear::{self, LinearConfig};
use andiron_core::norm::LayerNormConfig;
use andiron_core::ops::WeightLayout;
use andiron_core::{Embedding, Forward, LayerNorm, Linear};
use andiron_kernels::random::Seed;
use burn::module::Param;
use burn::tensor::{Device, Tensor};

/// Makes parameters, each drawn from a stream of its own name.
pub(crate) struct Fresh<'a> {
    pub(crate) std: f32,
    pub(crate) eps: f64,
    pub(crate) seed: Seed,
    pub(crate) device: &'a Device,
}

impl Fresh<'_> {
    pub(crate) fn linear(&self, name: &str, d_input: usize, d_output: usize, bias: bool) -> Linear {
        let seed = self.seed.derive(&format!("{name}.weight"));
        LinearConfig { d_input, d_output, bias, layout: WeightLayout::OutIn }.init(
            self.std,
            seed,
            self.device,
        )
    }

    pub(crate) fn table(&self, name: &str, n_entries: usize, d_model: usize) -> Embedding {
        let seed = self.seed.derive(&format!("{name}.weight"));
        EmbeddingConfig { n_entries, d_model }.init(self.std, seed, self.device)
    }

    pub(crate) fn norm(&self, d_model: usize) -> LayerNorm {
        LayerNormConfig { d_model, eps: self.eps }.init(self.device)
    }
}

/// Every position attends to every other of its own row, by its maps to queries, keys and values.
///
/// # Shape
/// `[batch, t, heads · width]` → the same.
pub(super) fn attend_all(
    x_btd: Tensor<3>,
    maps: [&Linear; 3],
    (n_heads, dropout): (usize, f32),
    cx: &mut Forward<'_>,
) -> Tensor<3> {
    let [b, t, d] = x_btd.dims();
    let width = d / n_heads;
    let config =
        AttentionConfig { dropout, ..AttentionConfig::new(1.0 / (width as f32).sqrt(), AttentionMask::FULL) };
    if let Some(qkv_bt3d) = linear::fused_qkv(&x_btd, maps) {
        return attend_packed(qkv_bt3d, (0, n_heads), config, cx);
    }
    let [q_bthk, k_bthk, v_bthk] = maps.map(|map| map.forward(x_btd.clone()).reshape([b, t, n_heads, width]));
    let past = cx.past(0, k_bthk, v_bthk);
    attend(q_bthk, past, config, cx).reshape([b, t, d])
}

/// Scores of the vocabulary's entries: by a decoder of their own, or by the embedding table and a bias.
pub(super) fn vocabulary_scores(
    x_nd: Tensor<2>,
    decoder: Option<&Linear>,
    table: &Embedding,
    bias: &Param<Tensor<1>>,
) -> Tensor<2> {
    match decoder {
        Some(decoder) => decoder.forward(x_nd),
        None => table.weight.project(x_nd, Some(bias.val())),
    }
}

/// The first column of every row.
pub(super) fn first(hidden_btd: Tensor<3>) -> Tensor<2> {
    let [b, _, d] = hidden_btd.dims();
    hidden_btd.slice([0..b, 0..1, 0..d]).reshape([b, d])
}
