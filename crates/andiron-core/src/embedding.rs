//! Embedding layers: vectors looked up by id.

use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::ops::WeightLayout;
use crate::role::{ParamRole, WeightKind};
use crate::{Forward, Weight, init};

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
    /// Draws embeddings of tokens from N(0, `std`²).
    pub fn init(&self, std: f32, seed: Seed, device: &Device) -> Embedding {
        let param = init::normal([self.n_entries, self.d_model], std, seed, device);
        let kind = WeightKind::new(ParamRole::Embedding, WeightLayout::OutIn);
        Embedding { weight: Weight::dense(param, kind) }
    }
}

/// `n_entries` vectors of width `d_model`.
#[derive(Module, Debug)]
pub struct Embedding {
    /// The vectors, `[n_entries, d_model]`.
    pub weight: Weight,
}

impl Embedding {
    /// The same layer in another role: position and token-type embeddings are a [`ParamRole::Table`], an output head is a
    /// [`ParamRole::Head`].
    #[must_use]
    pub fn with_role(self, role: ParamRole) -> Self {
        Self { weight: self.weight.with_role(role) }
    }

    /// Looks vectors up.
    ///
    /// # Shape
    /// `[batch, time]` → `[batch, time, d_model]`.
    ///
    /// # Panics
    /// On the CPU backends, if an id is not below `n_entries`.
    pub fn forward(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        self.weight.lookup(ids_bt)
    }

    /// The embeddings of the positions of `columns` new tokens; position 0 is entry `offset`.
    ///
    /// # Shape
    /// `[batch, columns, d_model]`, or `[1, columns, d_model]` if all rows have the same positions.
    ///
    /// # Panics
    /// If the entries do not exist.
    pub fn positions(&self, columns: usize, offset: usize, cx: &Forward<'_>) -> Tensor<3> {
        let [n_entries, d_model] = self.weight.dims();
        let end = cx.end(columns) + offset;
        assert!(end <= n_entries, "position entries up to {end} of {n_entries}");
        match self.weight.as_dense() {
            Some(weight) if cx.rows_agree() => weight.slice([end - columns..end, 0..d_model]).unsqueeze(),
            _ => self.forward(cx.position_ids(columns, offset, &self.weight.device())),
        }
    }
}
