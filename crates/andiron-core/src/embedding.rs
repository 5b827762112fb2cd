//! A table of vectors, looked up by id.

use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::{init, ops};

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
        ops::embedding(self.weight.val(), ids_bt)
    }

    /// The vectors of consecutive entries, as positions are looked up.
    ///
    /// # Shape
    /// `[1, count, d_model]`.
    ///
    /// # Panics
    /// If the entries do not exist.
    pub fn range(&self, start: usize, count: usize) -> Tensor<3> {
        let [n_entries, d_model] = self.weight.val().dims();
        assert!(start + count <= n_entries, "entries {start}..{} of {n_entries}", start + count);
        self.weight.val().slice([start..start + count, 0..d_model]).unsqueeze()
    }
}
