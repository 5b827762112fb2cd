//! Next-token prediction, for decoders.

use std::sync::Arc;

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_data::collate;
use andiron_models::{Decoder as _, DecoderConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass, token_metrics};
use crate::plan::{Plan, Setup};
use crate::trainer::TrainError;

/// Options of [`Causal`]: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CausalConfig {}

/// Cross-entropy of the next tokens, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Causal;

impl Objective for Causal {
    type Family = DecoderConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let labels = batch.token_labels().expect("a collator of tokens");
        let hidden_btd = model.hidden(pass.ids(&batch.inputs), &mut pass.causal_context());
        let [b, t, d] = hidden_btd.dims();
        let (targets_n, weights_n) = pass.targets(labels);
        ops::head_cross_entropy(hidden_btd.reshape([b * t, d]), model.head().val(), targets_n, weights_n)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}

impl FromConfig for Causal {
    type Config = CausalConfig;

    fn plan(_: &CausalConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let model = setup.base.decoder()?;
        let collator = Arc::new(collate::Causal { columns: setup.context()?, pad: 0 });
        let data = setup.windows(collator, model.vocab_size())?;
        Ok(Plan { objective: Self, start: setup.base.start(model.clone()), data })
    }
}
