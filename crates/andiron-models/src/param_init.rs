//! Random initial parameters, each drawn from a stream named after the parameter.

use andiron_core::embedding::EmbeddingConfig;
use andiron_core::linear::LinearConfig;
use andiron_core::norm::{LayerNormConfig, RmsNormConfig};
use andiron_core::ops::WeightLayout;
use andiron_core::{Embedding, LayerNorm, Linear, RmsNorm};
use andiron_kernels::random::Seed;
use burn::tensor::Device;

/// Initializes weights from one distribution, and norms of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParamInit<'a> {
    /// Standard deviation of weights.
    pub(crate) std: f32,
    /// Epsilon of the norms.
    pub(crate) eps: f64,
    /// Whether RMS norm weights are stored as offsets from 1.
    pub(crate) unit_offset: bool,
    pub(crate) seed: Seed,
    pub(crate) device: &'a Device,
}

impl<'a> ParamInit<'a> {
    pub(crate) fn new(std: f64, eps: f64, seed: Seed, device: &'a Device) -> Self {
        Self { std: std as f32, eps, unit_offset: false, seed, device }
    }

    /// The linear layer `name`; its weight is `[out, in]`.
    pub(crate) fn linear(&self, name: &str, d_input: usize, d_output: usize, bias: bool) -> Linear {
        let config = LinearConfig { d_input, d_output, bias, layout: WeightLayout::OutIn };
        config.init(self.std, self.seed_of(name), self.device)
    }

    /// The embedding `name`.
    pub(crate) fn table(&self, name: &str, n_entries: usize, d_model: usize) -> Embedding {
        EmbeddingConfig { n_entries, d_model }.init(self.std, self.seed_of(name), self.device)
    }

    pub(crate) fn layer_norm(&self, d_model: usize) -> LayerNorm {
        LayerNormConfig { d_model, eps: self.eps }.init(self.device)
    }

    pub(crate) fn rms_norm(&self, d_model: usize) -> RmsNorm {
        RmsNormConfig { d_model, eps: self.eps, unit_offset: self.unit_offset }.init(self.device)
    }

    fn seed_of(&self, name: &str) -> Seed {
        self.seed.derive(&format!("{name}.weight"))
    }
}
