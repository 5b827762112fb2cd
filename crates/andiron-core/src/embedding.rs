//! A table of vectors, looked up by id.

use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::quant::QuantWeight;
use crate::{Forward, init, ops};

/// Sizes of an [`Embedding`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// Number of vectors.
    pub n_entries: usize,
    /// Width of a vector.
    pub d_model: usize,
}

impl EmbeddingConfig {
    /// Draws the table from N(0, `std`²).
    pub fn init(&self, std: f32, seed: Seed, device: &Device) -> Embedding {
        Embedding { weight: init::normal([self.n_entries, self.d_model], std, seed, device) }
    }
}

/// A table of `n_entries` vectors of width `d_model`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// The table, `[n_entries, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Looks the vectors up.
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// On the CPU backends, if an id is not below `n_entries`.
    pub fn forward(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        match QuantWeight::of(&self.weight) {
            Some(matrix) => ops::embedding_quantized(matrix, ids_bt),
            None => ops::embedding(self.weight.val(), ids_bt),
        }
    }

    /// The vectors of the positions of `columns` new tokens, position 0 being entry `offset`.
    ///
    /// # Shape
    /// `[batch, columns, d_model]`, or `[1, columns, d_model]` if all rows stand alike.
    ///
    /// # Panics
    /// If the entries do not exist.
    pub fn positions(&self, columns: usize, offset: usize, cx: &Forward<'_>) -> Tensor<3> {
        let [n_entries, d_model] = self.weight.lazy_shape().dims();
        let end = cx.end(columns) + offset;
        assert!(end <= n_entries, "position entries up to {end} of {n_entries}");
        if !cx.rows_agree() || QuantWeight::of(&self.weight).is_some() {
            return self.forward(cx.position_ids(columns, offset, &self.weight.lazy_device()));
        }
        self.weight.val().slice([end - columns..end, 0..d_model]).unsqueeze()
    }
}
