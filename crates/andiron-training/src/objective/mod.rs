//! Training objectives: one file each.

mod causal;

use andiron_core::{Forward, ids};
use andiron_data::batch::HostBatch;
use burn::tensor::{Device, Int, Tensor, TensorData};

pub use causal::Causal;

/// A batch on a device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Input ids, `[rows, columns]`.
    pub ids_bt: Tensor<2, Int>,
    /// Target ids, `[rows · columns]`.
    pub targets_n: Tensor<1, Int>,
    /// Loss weights of the targets, `[rows · columns]`.
    pub weights_n: Tensor<1>,
}

impl Batch {
    /// Uploads a batch, its weights multiplied by `scale`.
    ///
    /// # Panics
    /// If an id does not fit `i32`, or the labels are not tokens.
    pub fn upload(host: &HostBatch, scale: f32, device: &Device) -> Self {
        let labels = host.token_labels().expect("an objective that predicts tokens");
        let weights: Vec<f32> = labels.weights.iter().map(|weight| weight * scale).collect();
        let n = weights.len();
        Self {
            ids_bt: ids::upload(&host.inputs.ids, [host.inputs.rows, host.inputs.columns], device),
            targets_n: ids::upload(&labels.ids, [n], device),
            weights_n: Tensor::from_data(TensorData::new(weights, [n]), device),
        }
    }
}

/// A training objective for a model of type `M`.
pub trait Objective<M> {
    /// The weighted *sum* of the losses of a batch's targets.
    ///
    /// The caller scales the weights so that those of all micro-batches of a step add up to 1. The losses of the micro-batches
    /// then add up to the mean over the step's targets, however many each of them has.
    ///
    /// # Shape
    /// `[1]`.
    fn loss(&self, model: &M, batch: Batch, cx: &mut Forward<'_>) -> Tensor<1>;
}
