//! Memory estimate of a run, computed from its configuration before anything is allocated.

use andiron_core::ParamRole;
use andiron_models::adapter::Targets;
use andiron_models::weights::ParamInfo;
use andiron_models::{Family, RunPrecision};
use burn::tensor::Device;

use crate::base::Base;
use crate::config::TrainConfig;
use crate::optimizer::OptimizerKind;
use crate::trainer::TrainError;

const F32: u64 = 4;

impl TrainConfig {
    /// A lower bound of the bytes that training takes: weights, gradients, the optimizer's moments, and the hidden states of
    /// a micro-batch that the backward pass needs. Of a model below an adapter there are the weights only. Buffers of the
    /// backend are not included.
    ///
    /// # Errors
    /// If the model to begin with cannot be read.
    pub fn memory_bytes(&self, device: &Device) -> Result<u64, TrainError> {
        let base = Base::open(self)?;
        let tensors = base.parameters(device);
        let elements =
            |shape: &[usize]| shape.iter().fold(1_u64, |product, &size| product.saturating_mul(size as u64));
        let parameters = tensors.iter().map(|tensor| elements(&tensor.shape)).fold(0, u64::saturating_add);
        let moments = match self.optimizer.kind {
            OptimizerKind::Adamw => 2,
            // One for matrices, two for the rest: a lower bound.
            OptimizerKind::Muon | OptimizerKind::Lion => 1,
            // Those of rows and columns hardly count; `beta1` adds one for each element.
            OptimizerKind::Adafactor => {
                let settings = self.optimizer.adafactor.as_ref();
                u64::from(settings.is_some_and(|settings| settings.beta1.is_some()))
            }
        };
        let is_everywhere = self
            .adapter
            .as_ref()
            .is_none_or(|adapter| adapter.targets == Targets::AllLinear && adapter.exclude.is_none());
        let states = match &self.adapter {
            None => parameters.saturating_mul(2 + moments).saturating_mul(F32),
            Some(adapter) => {
                let rank = adapter.rank as u64;
                let factors = |shape: &[usize]| rank.saturating_mul((shape[0] + shape[1]) as u64);
                let is_matrix =
                    |tensor: &&ParamInfo| tensor.role == ParamRole::Matrix && tensor.shape.len() == 2;
                let matrices = tensors.iter().filter(is_matrix);
                // Other targets are fewer.
                let trained: u64 = match is_everywhere {
                    true => matrices.map(|tensor| factors(&tensor.shape)).fold(0, u64::saturating_add),
                    false => 0,
                };
                let base: f64 = tensors.iter().map(|tensor| stored_bytes(tensor, base.precision)).sum();
                (base as u64).saturating_add(trained.saturating_mul(2 + moments).saturating_mul(F32))
            }
        };
        // The rows of other data may be short.
        let columns = self.data.context.unwrap_or(1) as u64;
        let tokens = (self.data.rows as u64).saturating_mul(columns);
        // Each matmul keeps its input, whose width is at least the smaller axis of its matrix. An encoder-decoder reads the
        // tokens on one of its sides at least.
        let sides = if base.family() == Family::EncoderDecoder { 2 } else { 1 };
        let inputs = tensors
            .iter()
            .filter(|tensor| tensor.shape.len() == 2)
            // Of a block that is computed again only the inputs are kept, and they hardly count.
            .filter(|tensor| !(self.run.activation_checkpointing && tensor.in_block))
            .map(|tensor| tensor.shape[0].min(tensor.shape[1]) as u64);
        let activations = inputs.fold(0, u64::saturating_add).saturating_mul(tokens) / sides;
        // A frozen matrix keeps no input; one with an adapter does.
        let activations = if is_everywhere { activations.saturating_mul(F32) } else { 0 };
        Ok(states.saturating_add(activations))
    }
}

/// Bytes of a weight as it is stored: blocks of 32 numbers have a scale of two bytes.
fn stored_bytes(tensor: &ParamInfo, precision: RunPrecision) -> f64 {
    let bits = match (tensor.role, precision) {
        (ParamRole::Matrix, RunPrecision::Int4) => 4.5,
        // Embeddings and heads take the blocks of int8.
        (_, RunPrecision::Int4 | RunPrecision::Int8) => 8.5,
        (_, RunPrecision::Bf16) => 16.0,
        _ => 32.0,
    };
    tensor.elements() as f64 * bits / 8.0
}
