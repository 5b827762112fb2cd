//! `andiron bench train`: optimizer steps on random tokens.

use std::time::{Duration, Instant};

use andiron_core::Precision;
use andiron_core::ops::with_op_times;
use andiron_core::precision::with_precision;
use andiron_data::batch::{HostBatch, Sequences};
use andiron_kernels::random::Seed;
use andiron_models::DecoderBundle;
use andiron_training::objective::Causal;
use andiron_training::optimizer::{Optimizer, OptimizerConfig, OptimizerKind, clip_scale};
use andiron_training::step::compute;
use burn::module::Module as _;
use clap::{Args, ValueEnum};

use super::{Figures, Subject, matmul_parameters, median_ms};
use crate::exit::Ending;
use crate::flags::Common;
use crate::model::RunChoice;

/// Unmeasured steps at the start: they allocate memory, and on a GPU compile kernels.
const WARM_UP: u64 = 3;

/// Measure training: optimizer steps of forward, backward, clipping and update, on random tokens
///
/// On a CPU, the time of the median step is also given by type of operation, forward and backward together; `other` is the rest.
#[derive(Debug, Args)]
pub struct TrainBench {
    #[command(flatten)]
    subject: Subject,
    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Sequence length in tokens [default: the model's context]
    #[arg(long, value_name = "N")]
    ctx: Option<usize>,
    /// Precision of matmuls: f32, or mixed (bf16 operands) [default: the faster one on this machine, as in training]
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
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
        let bundle: DecoderBundle = self.subject.open(RunChoice::default(), &device)?;
        let longest = bundle.config.max_positions();
        let columns = self.ctx.unwrap_or(longest);
        anyhow::ensure!(
            (1..=longest).contains(&columns),
            "--ctx {columns}: the model reads 1 to {longest} tokens"
        );
        let precision = self.precision.map_or_else(|| common.fastest_precision(), Ok)?;
        let rows = usize::from(self.batch);
        let vocabulary = bundle.config.vocab_size() as u64;
        let random = |label| {
            let seed = Seed::new(1).derive(label);
            (0..(rows * columns) as u64).map(|at| seed.below(at, vocabulary) as u32).collect()
        };
        let inputs = Sequences::full(random("ids"), [rows, columns]);
        let batch = HostBatch::tokens(inputs, random("targets"), vec![1.0; rows * columns]);
        let kind = match self.optimizer {
            Moves::Adamw => OptimizerKind::Adamw,
            Moves::Muon => OptimizerKind::Muon,
            Moves::Adafactor => OptimizerKind::Adafactor,
            Moves::Lion => OptimizerKind::Lion,
        };
        let settings =
            OptimizerConfig { beta2: Some(0.95), ..OptimizerConfig::constant(1e-3) }.with_kind(kind);
        let parameters = matmul_parameters(&bundle);
        let mut model = bundle.model.train();
        let mut optimizer = Optimizer::new(&model, &settings, &device)?;
        let [mut forward, mut backward, mut update] = [const { Vec::<Duration>::new() }; 3];
        let mut steps = Vec::new();
        let mut loss = f32::NAN;
        for number in 0..WARM_UP + self.steps {
            let start = Instant::now();
            let (done, times) = with_op_times(|| {
                let computed =
                    compute(&model, &Causal, std::slice::from_ref(&batch), Seed::new(number), precision);
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
        let tokens = (rows * columns) as f64;
        let mut figures = Figures::new();
        figures.number("tokens_per_s", tokens / step_ms * 1e3);
        figures.number("step_ms", step_ms);
        figures.number("forward_ms", median_ms(forward));
        figures.number("backward_ms", median_ms(backward));
        figures.number("update_ms", median_ms(update));
        figures.number("loss", loss.into());
        figures.operations(steps, 1.0);
        // Per weight and token, a matmul is one multiplication and one addition; backward is two matmuls.
        figures.print(common, (precision, precision), 6.0 * parameters)
    }
}
