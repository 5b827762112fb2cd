//! Prediction of target tokens, for encoder-decoders: translation, summaries, denoising.

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_models::{EncoderDecoder as _, Seq2SeqConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Measured, Metrics, ModelOf, Objective, Pass, token_metrics};

/// Options of [`Seq2Seq`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seq2SeqObjectiveConfig {}

/// Cross-entropy of each target token, given the source and the target tokens before it, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seq2Seq;

impl Objective for Seq2Seq {
    type Family = Seq2SeqConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let labels = batch.token_labels().expect("a collator of tokens");
        let decoder_inputs = batch.decoder_inputs.as_ref().expect("a collator of sources and targets");
        let cross_cache = model.encode(pass.ids(&batch.inputs), &mut pass.context(&batch.inputs));
        let mut cx = pass.side("decoder").causal_context();
        let hidden_btd = model.hidden(pass.ids(decoder_inputs), &cross_cache, &mut cx);
        let [b, t, d] = hidden_btd.dims();
        let (targets_n, weights_n) = pass.targets(labels);
        let head = ops::Head { weight_vd: model.head().val(), bias_v: model.head_bias() };
        ops::head_cross_entropy(hidden_btd.reshape([b * t, d]), head, targets_n, weights_n)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}
