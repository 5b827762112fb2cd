//! Prediction of what was taken out of a text, whatever took it out.

use std::marker::PhantomData;

use andiron_data::batch::HostBatch;
use andiron_models::Seq2SeqConfig;
use burn::tensor::Tensor;

use super::seq2seq::target_loss;
use super::{Measured, Metrics, ModelOf, Objective, Pass, token_metrics};

/// Cross-entropy, in nats, of what is to be told of a text given the text damaged. `Damage` is the configuration of the damage,
/// which the collator does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restore<Damage>(pub(super) PhantomData<Damage>);

impl<Damage: std::fmt::Debug> Objective for Restore<Damage> {
    type Family = Seq2SeqConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        target_loss(model, batch, pass, 0.0)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}
