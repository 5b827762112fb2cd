//! Prediction of target tokens, for encoder-decoders: translations, summaries.

mod scoring;

use std::sync::Arc;

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_data::collate;
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{Seq2SeqFields, SourceTarget};
use andiron_models::encoder_decoder::Seq2SeqModel;
use andiron_models::{EncoderDecoder as _, Seq2SeqConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass, token_metrics};
use crate::config::check;
use crate::plan::{Plan, Setup};
use crate::rows::{EncodeFault, Encoding};
use crate::trainer::TrainError;

pub use scoring::{Scoring, Seq2SeqTally};

/// Options of [`Seq2Seq`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seq2SeqObjectiveConfig {
    /// Share of each target that is spread evenly over the vocabulary, in training and validation.
    pub label_smoothing: f32,
    /// Text before each source, such as T5's `"summarize: "`.
    pub prefix: String,
    /// Rows of the validation data for which the likeliest target is written token by token, and scored: see [`Scoring`].
    pub scored_rows: usize,
}

/// Cross-entropy of each target token, given the source and the target tokens before it, in nats.
#[derive(Clone, Debug, Default)]
pub struct Seq2Seq {
    /// Share of each target that is spread evenly over the vocabulary. The loss is divided by the targets of the step, as
    /// that without smoothing.
    pub label_smoothing: f32,
    /// How targets that the model writes are scored in validation; `None` writes none.
    pub scoring: Option<Scoring>,
}

/// The sum of the losses of the target tokens of a batch.
///
/// # Shape
/// `[1]`.
pub(super) fn target_loss(
    model: &Seq2SeqModel,
    batch: &HostBatch,
    pass: &Pass<'_>,
    label_smoothing: f32,
) -> Tensor<1> {
    let labels = batch.token_labels().expect("a collator of tokens");
    let decoder_inputs = batch.decoder_inputs.as_ref().expect("a collator of sources and targets");
    let cross_cache = model.encode(pass.ids(&batch.inputs), &mut pass.context(&batch.inputs));
    let mut cx = pass.side("decoder").causal_context();
    let hidden_btd = model.hidden(pass.ids(decoder_inputs), &cross_cache, &mut cx);
    let [b, t, d] = hidden_btd.dims();
    let (targets_n, weights_n) = pass.targets(labels);
    let head = pass.head(ops::Head { weight_vd: model.head().val(), bias_v: model.head_bias() });
    let hidden_nd = hidden_btd.reshape([b * t, d]);
    ops::head_cross_entropy_smoothed(hidden_nd, head, targets_n, weights_n, label_smoothing)
}

impl Objective for Seq2Seq {
    type Family = Seq2SeqConfig;
    type Tally = Seq2SeqTally;
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        target_loss(model, batch, pass, self.label_smoothing)
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut Seq2SeqTally,
    ) -> Tensor<1> {
        if let Some(scoring) = &self.scoring {
            scoring.score(model, batch, pass.device, tally);
        }
        self.loss(model, batch, pass)
    }

    fn metrics(&self, measured: &Measured, tally: &Seq2SeqTally) -> Metrics {
        let mut metrics = token_metrics(measured);
        metrics.values.extend(tally.metrics());
        metrics
    }
}

impl FromConfig for Seq2Seq {
    type Config = Seq2SeqObjectiveConfig;

    fn plan(config: &Seq2SeqObjectiveConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let smoothing = config.label_smoothing;
        check((0.0..1.0).contains(&smoothing), "objective.label_smoothing", smoothing, "in 0..1")?;
        let model = setup.base.encoder_decoder()?;
        let tokenizer = setup.open_tokenizer()?;
        let of_targets = tokenizer.for_targets().map_err(|source| setup.tokenizer_error(source))?;
        let longest = model.max_positions();
        let max_length = setup.max_length(longest);
        let max_target_length = setup.config.data.max_target_length.unwrap_or(max_length).min(longest);
        let fields: Seq2SeqFields = setup.fields("a source and a target: name them in data.fields")?;
        let encode = |SourceTarget { source, target }: SourceTarget| -> Result<Record<'static>, EncodeFault> {
            let source = tokenizer.frame(&format!("{}{source}", config.prefix), None, max_length)?;
            let target = of_targets.frame(&target, None, max_target_length)?;
            Ok(Record::default().with_ids(columns::IDS, source.ids).with_ids(columns::TARGET_IDS, target.ids))
        };
        let encoding = Encoding {
            shape: fields,
            columns: &[(columns::IDS, ColumnType::Ids), (columns::TARGET_IDS, ColumnType::Ids)],
            settings: json!({
                "prefix": config.prefix, "max_length": max_length, "max_target_length": max_target_length,
            }),
            vocabularies: &[
                (columns::IDS, model.vocab_size()),
                (columns::TARGET_IDS, model.target_vocab_size()),
            ],
            encode: &encode,
        };
        let scoring = (config.scored_rows > 0).then(|| Scoring {
            config: model.clone(),
            tokenizer: of_targets.clone(),
            rows: config.scored_rows,
            max_new_tokens: max_target_length,
        });
        let (decoder_start, pad) = (model.decoder_start_token_id(), model.pad_token_id());
        let data = setup.records(&encoding, Arc::new(collate::Seq2Seq { decoder_start, pad }))?;
        Ok(Plan {
            objective: Self { label_smoothing: smoothing, scoring },
            start: setup.base.start(model.clone()),
            data,
        })
    }
}
