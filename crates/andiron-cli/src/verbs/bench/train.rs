//! `andiron bench train`: optimizer steps on random tokens.

use std::time::{Duration, Instant};

use andiron_core::Precision;
use andiron_core::ops::with_op_times;
use andiron_core::precision::with_precision;
use andiron_data::batch::{HostBatch, Labels, Sequences, TokenLabels};
use andiron_kernels::random::Seed;
use andiron_models::summary::Summary;
use andiron_models::weights::describe;
use andiron_models::{
    AnyConfig, Bundle, EncoderBundle, EncoderHead, LoraConfig, RunPrecision, Seq2SeqBundle,
};
use andiron_training::objective::{Causal, Masked, Objective, Seq2Seq};
use andiron_training::optimizer::{Optimizer, OptimizerConfig, OptimizerKind, clip_scale};
use andiron_training::step::{StepOptions, compute_shared};
use burn::module::Module as _;
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use super::{Figures, Measured, Subject, median_ms};
use crate::exit::Ending;
use crate::flags::Common;
use crate::model::RunChoice;

/// Unmeasured steps at the start: they allocate memory, and on a GPU compile kernels.
const WARM_UP: u64 = 3;

/// Share of the tokens that a step of an encoder predicts, as in BERT's pretraining.
const MASKED_SHARE: f32 = 0.15;

/// Measure training: optimizer steps of forward, backward, clipping and update, on random tokens
///
/// A decoder predicts every next token, an encoder masked tokens, an encoder-decoder the tokens of a target. On a CPU, the time of
/// the median step is also given by type of operation, forward and backward together; `other` is the rest.
#[derive(Debug, Args)]
pub struct TrainBench {
    #[command(flatten)]
    subject: Subject,
    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Sequence length in tokens; of an encoder-decoder, that of the sources [default: the model's context, at most 512 of an
    /// encoder-decoder]
    #[arg(long, value_name = "N")]
    ctx: Option<usize>,
    /// Length of the targets of an encoder-decoder, in tokens [default: that of the sources]
    #[arg(long, value_name = "N")]
    target_ctx: Option<usize>,
    /// Precision of matmuls: f32, or mixed (bf16 operands) [default: the faster one on this machine, as in training]
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    /// Train a LoRA adapter of this rank, of all linear projections, in place of the model
    #[arg(long, value_name = "RANK", value_parser = clap::value_parser!(u16).range(1..))]
    lora: Option<u16>,
    /// How the weights below the adapter are stored: f32, bf16, int8 or int4
    #[arg(long, value_name = "PRECISION", default_value_t = RunPrecision::F32, requires = "lora")]
    base_precision: RunPrecision,
    /// Compute the blocks of the model again in the backward pass, which takes less memory and more time
    #[arg(long)]
    activation_checkpointing: bool,
    /// Optimizer
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    optimizer: Moves,
    /// Measured steps, after three to warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

/// Values of `--optimizer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Moves {
    /// AdamW
    #[default]
    Adamw,
    /// Muon for the matrices of the blocks, AdamW for everything else
    Muon,
    /// Adafactor, without a running mean of updates
    Adafactor,
    /// Lion
    Lion,
}

impl TrainBench {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let device = common.open_device()?;
        match self.subject.config()? {
            AnyConfig::EncoderDecoder(config) => {
                let sources = self.columns(config.max_positions(), config.max_positions().min(512))?;
                let targets = self.target_ctx.unwrap_or(sources);
                anyhow::ensure!(
                    (1..=config.max_positions()).contains(&targets),
                    "--target-ctx {targets}: the model reads 1 to {} tokens",
                    config.max_positions()
                );
                let (rows, vocabulary) = (usize::from(self.batch), config.target_vocab_size());
                let inputs =
                    Sequences::full(random("ids", rows * sources, config.vocab_size()), [rows, sources]);
                let decoder_inputs = random("decoder ids", rows * targets, vocabulary);
                let labels = TokenLabels {
                    ids: random("targets", rows * targets, vocabulary),
                    weights: vec![1.0; rows * targets],
                };
                let batch = HostBatch {
                    inputs,
                    decoder_inputs: Some(Sequences::full(decoder_inputs, [rows, targets])),
                    labels: Labels::Tokens(labels),
                };
                // Each token passes one of the stacks only, so the parameters do not tell the operations.
                let work = Work { n_tokens: rows * (sources + targets), parameters: None };
                let bundle: Seq2SeqBundle = self.open(&device)?;
                self.measure(bundle, &Seq2Seq::default(), batch, work, common)
            }
            AnyConfig::Encoder(config) => {
                let bundle: EncoderBundle = self.open(&device)?;
                let bundle = match bundle.config.head() {
                    EncoderHead::MaskedLm => bundle,
                    _ => bundle.with_head(EncoderHead::MaskedLm, Vec::new(), Seed::new(1))?,
                };
                let columns = self.columns(config.max_positions(), config.max_positions())?;
                let mut batch = self.one_sequence(columns, config.vocab_size());
                if let Labels::Tokens(labels) = &mut batch.labels {
                    let seed = Seed::new(1).derive("masked");
                    for (at, weight) in labels.weights.iter_mut().enumerate() {
                        *weight = f32::from(u8::from(seed.uniform(at as u64) < MASKED_SHARE));
                    }
                }
                let parameters = Summary::new(&describe(&bundle.model), false).matmul_parameters;
                let work = Work { n_tokens: batch.inputs.n_tokens(), parameters: Some(parameters as f64) };
                self.measure(bundle, &Masked, batch, work, common)
            }
            AnyConfig::Decoder(config) => {
                let columns = self.columns(config.max_positions(), config.max_positions())?;
                let batch = self.one_sequence(columns, config.vocab_size());
                let bundle = self.open(&device)?;
                let parameters = super::matmul_parameters(&bundle);
                let work = Work { n_tokens: batch.inputs.n_tokens(), parameters: Some(parameters) };
                self.measure(bundle, &Causal, batch, work, common)
            }
            AnyConfig::Classifier(config) => anyhow::bail!(
                "{} predicts labels: bench train measures models that predict tokens",
                config.class_name()
            ),
        }
    }

    fn open<B: Measured>(&self, device: &Device) -> anyhow::Result<B> {
        self.subject.open(RunChoice { precision: self.base_precision, ..RunChoice::default() }, device)
    }

    /// The length of sequences for a model that reads `longest` tokens.
    fn columns(&self, longest: usize, default: usize) -> anyhow::Result<usize> {
        let columns = self.ctx.unwrap_or(default);
        anyhow::ensure!(
            (1..=longest).contains(&columns),
            "--ctx {columns}: the model reads 1 to {longest} tokens"
        );
        Ok(columns)
    }

    /// Random sequences with a target for each token.
    fn one_sequence(&self, columns: usize, vocabulary: usize) -> HostBatch {
        let rows = usize::from(self.batch);
        let n = rows * columns;
        let inputs = Sequences::full(random("ids", n, vocabulary), [rows, columns]);
        HostBatch::tokens(inputs, random("targets", n, vocabulary), vec![1.0; n])
    }

    fn measure<O: Objective>(
        &self,
        mut bundle: Bundle<O::Family>,
        objective: &O,
        batch: HostBatch,
        work: Work,
        common: &Common,
    ) -> anyhow::Result<Ending> {
        let precision = self.precision.map_or_else(|| common.fastest_precision(), Ok)?;
        if let Some(rank) = self.lora {
            let config = LoraConfig::new(rank.into(), f32::from(rank));
            bundle = bundle.with_lora(&config, Seed::new(3))?;
        }
        let kind = match self.optimizer {
            Moves::Adamw => OptimizerKind::Adamw,
            Moves::Muon => OptimizerKind::Muon,
            Moves::Adafactor => OptimizerKind::Adafactor,
            Moves::Lion => OptimizerKind::Lion,
        };
        let settings =
            OptimizerConfig { beta2: Some(0.95), ..OptimizerConfig::constant(1e-3) }.with_kind(kind);
        let device = common.open_device()?;
        let mut model = bundle.model.train();
        let mut optimizer = Optimizer::new(&model, &settings, &device)?;
        let [mut forward, mut backward, mut update] = [const { Vec::<Duration>::new() }; 3];
        let mut steps = Vec::new();
        let mut loss = f32::NAN;
        for number in 0..WARM_UP + self.steps {
            let start = Instant::now();
            let (done, times) = with_op_times(|| {
                let options = StepOptions {
                    dropout: Some(Seed::new(number)),
                    checkpointing: self.activation_checkpointing,
                    ..StepOptions::new(precision)
                };
                let computed = compute_shared(&model, objective, std::slice::from_ref(&batch), options);
                let parts = (computed.loss, computed.forward_time, computed.backward_time);
                let scale = clip_scale(computed.grad_norm, settings.clip_norm);
                let before_update = Instant::now();
                let model = with_precision(precision, || {
                    optimizer.update(model, computed.gradients, settings.lr, scale)
                });
                device.sync()?;
                anyhow::Ok((model, parts, before_update.elapsed()))
            });
            let step = start.elapsed();
            let (updated, (step_loss, forward_time, backward_time), update_time) = done?;
            (model, loss) = (updated, step_loss);
            if number >= WARM_UP {
                forward.push(forward_time);
                backward.push(backward_time);
                update.push(update_time);
                steps.push((step, times));
            }
        }
        let step_ms = median_ms(steps.iter().map(|step| step.0));
        let mut figures = Figures::new();
        figures.number("tokens_per_s", work.n_tokens as f64 / step_ms * 1e3);
        figures.number("step_ms", step_ms);
        figures.number("forward_ms", median_ms(forward));
        figures.number("backward_ms", median_ms(backward));
        figures.number("update_ms", median_ms(update));
        figures.number("loss", loss.into());
        figures.operations(steps, 1.0);
        // Per weight and token, a matmul is one multiplication and one addition; backward is two matmuls, or one below an
        // adapter.
        let matmuls = if self.lora.is_some() { 4.0 } else { 6.0 };
        figures.print(common, (precision, precision), work.parameters.map(|parameters| matmuls * parameters))
    }
}

/// The work of a step.
struct Work {
    n_tokens: usize,
    /// Parameters that take part in a matmul for every token, if that is known.
    parameters: Option<f64>,
}

/// Random ids below `vocabulary`.
fn random(label: &str, n: usize, vocabulary: usize) -> Vec<u32> {
    let seed = Seed::new(1).derive(label);
    (0..n as u64).map(|at| seed.below(at, vocabulary as u64) as u32).collect()
}
