//! Memory estimate of a run, computed from its configuration before anything is allocated.

use andiron_kernels::random::Seed;
use andiron_models::DecoderBundle;
use andiron_models::weights::names;
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::optimizer::OptimizerKind;

const F32: u64 = 4;

impl TrainConfig {
    /// A lower bound of the bytes that training takes: weights, gradients, the optimizer's moments, and the hidden states of
    /// a micro-batch that the backward pass needs. Buffers of the backend are not included.
    pub fn memory_bytes(&self, device: &Device) -> u64 {
        let tensors = names(&DecoderBundle::init(self.model.clone(), Seed::new(0), device).model);
        let elements =
            |shape: &[usize]| shape.iter().fold(1_u64, |product, &size| product.saturating_mul(size as u64));
        let parameters = tensors.iter().map(|(_, shape)| elements(shape)).fold(0, u64::saturating_add);
        let moments = match self.optimizer.kind {
            OptimizerKind::Adamw => 2,
            // One for matrices, two for the rest: a lower bound.
            OptimizerKind::Muon => 1,
        };
        let states = parameters.saturating_mul(2 + moments);
        let tokens = (self.data.rows as u64).saturating_mul(self.data.context as u64);
        // Each matmul keeps its input, whose width is at least the smaller axis of its matrix.
        let inputs = tensors
            .iter()
            .filter(|(_, shape)| shape.len() == 2)
            .map(|(_, shape)| shape[0].min(shape[1]) as u64);
        let activations = inputs.fold(0, u64::saturating_add).saturating_mul(tokens);
        states.saturating_add(activations).saturating_mul(F32)
    }
}
