//! Loss and gradients of one optimizer step: `accumulate → reduce → norm`; clipping and the update follow.

use std::time::{Duration, Instant};

use andiron_core::ops;
use andiron_core::precision::{Precision, with_precision};
use andiron_data::batch::HostBatch;
use andiron_kernels::random::Seed;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

use crate::collective::{Collective, Single, sum_gradients};
use crate::objective::{ModelOf, Objective, Pass};
use crate::optimizer::{global_norm, is_trainable};

/// Loss and gradients of a step, before the update.
#[derive(Debug)]
pub struct Computed {
    /// Mean loss per target, in nats.
    pub loss: f32,
    /// Global gradient norm.
    pub grad_norm: f64,
    /// Number of targets with a weight above 0.
    pub tokens: u64,
    /// The flattened gradient of each trainable parameter, in the order of the module; `None` if the loss does not depend on
    /// the parameter.
    pub gradients: Vec<Option<Tensor<1>>>,
    /// Time to issue the forward passes; on the CPU, to compute them.
    pub forward_time: Duration,
    /// Time to issue the backward passes; on the CPU, to compute them.
    pub backward_time: Duration,
}

impl Computed {
    /// Whether loss and gradients are finite.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// What a step depends on besides model, objective and data.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions<'a> {
    /// Dropout's random stream, new for each step; `None` drops nothing.
    pub dropout: Option<Seed>,
    /// Precision of matmuls, forward and backward; parameters, gradients and everything else are f32.
    pub precision: Precision,
    /// Whether blocks are computed again in the backward pass, which saves memory and changes no gradient.
    pub checkpointing: bool,
    /// The processes that share the step.
    pub collective: &'a dyn Collective,
    /// Where the rows of this process begin among those of the step.
    pub first: FirstRow,
}

/// A row of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstRow {
    /// The micro-batch, counted from the first of the step.
    pub batch: u64,
    /// The row in that micro-batch.
    pub row: u64,
}

impl StepOptions<'_> {
    /// A step of one process, without dropout.
    pub fn new(precision: Precision) -> Self {
        Self {
            dropout: None,
            precision,
            checkpointing: false,
            collective: &Single,
            first: FirstRow::default(),
        }
    }
}

/// [`compute_shared`] of one process.
///
/// # Panics
/// As [`compute_shared`].
pub fn compute<O: Objective>(
    model: &ModelOf<O>,
    objective: &O,
    batches: &[HostBatch],
    dropout: Seed,
    precision: Precision,
) -> Computed {
    let options = StepOptions { dropout: Some(dropout), ..StepOptions::new(precision) };
    compute_shared(model, objective, batches, options)
}

/// Loss and gradients of `model`, which has autodiff on: accumulated over the micro-batches `batches`, then added up over
/// all processes. `batches` are the rows of this process: consecutive rows of the step, from [`StepOptions::first`] on.
///
/// The weight of each target is normalized by the weight of *all* micro-batches of all processes, so the result does not
/// depend on how rows are divided into them. Values are read from the device once.
///
/// # Panics
/// If there is no batch, or the model has no parameters.
pub fn compute_shared<O: Objective>(
    model: &ModelOf<O>,
    objective: &O,
    batches: &[HostBatch],
    options: StepOptions<'_>,
) -> Computed {
    let mut totals = [
        batches.iter().map(|batch| objective.weight(batch)).sum(),
        batches.iter().map(|batch| batch.n_targets() as f64).sum(),
    ];
    options.collective.sum(&mut totals);
    let [weight, n_targets] = totals;
    let scale = if weight > 0.0 { (1.0 / weight) as f32 } else { 0.0 };
    let accumulated = accumulate(model, objective, batches, scale, options);
    measured(reduce(accumulated, options.collective), n_targets as u64)
}

/// Loss and gradients of this process's micro-batches.
struct Accumulated {
    loss: Tensor<1>,
    gradients: Vec<Option<Tensor<1>>>,
    /// Elements of each gradient.
    lengths: Vec<usize>,
    forward_time: Duration,
    backward_time: Duration,
}

/// Forward and backward passes of all micro-batches, one after the other.
fn accumulate<O: Objective>(
    model: &ModelOf<O>,
    objective: &O,
    batches: &[HostBatch],
    scale: f32,
    options: StepOptions<'_>,
) -> Accumulated {
    let device = model.devices().into_iter().next().expect("a model has parameters").autodiff();
    let mut loss: Option<Tensor<1>> = None;
    let mut sum = GradientSum::default();
    let (mut forward_time, mut backward_time) = (Duration::ZERO, Duration::ZERO);
    for (number, batch) in batches.iter().enumerate() {
        let place = match number {
            0 => options.first,
            _ => FirstRow { batch: options.first.batch + number as u64, row: 0 },
        };
        let dropout = options.dropout.map(|seed| micro_batch_stream(seed, place));
        let start = Instant::now();
        let pass = Pass { device: &device, dropout, scale, checkpointing: options.checkpointing };
        let part = with_precision(options.precision, || objective.loss(model, batch, &pass));
        forward_time += start.elapsed();
        let start = Instant::now();
        sum.add(model, part.backward());
        backward_time += start.elapsed();
        let part = part.inner();
        loss = Some(match loss {
            Some(loss) => loss + part,
            None => part,
        });
    }
    let loss = loss.expect("a step has at least one batch");
    Accumulated { loss, gradients: sum.gradients, lengths: sum.lengths, forward_time, backward_time }
}

/// Dropout's stream of a micro-batch of a step: that of the batch, whichever process has it, or of the part of a batch that begins
/// with a later row.
fn micro_batch_stream(step: Seed, FirstRow { batch, row }: FirstRow) -> Seed {
    match row {
        0 => step.at(batch),
        row => step.at(batch).derive("row").at(row),
    }
}

/// Sums of loss and gradients over all processes.
fn reduce(mut accumulated: Accumulated, collective: &dyn Collective) -> Accumulated {
    if collective.size() > 1 {
        let Accumulated { loss, gradients, lengths, .. } = &mut accumulated;
        *loss = sum_gradients(collective, loss.clone(), gradients, lengths);
    }
    accumulated
}

/// Loss and gradient norm, read from the device.
fn measured(accumulated: Accumulated, tokens: u64) -> Computed {
    let Accumulated { loss, gradients, forward_time, backward_time, .. } = accumulated;
    let mut numbers = vec![loss];
    numbers.extend(gradients.iter().flatten().map(|gradient| ops::square_sum(gradient.clone())));
    let numbers = Tensor::cat(numbers, 0).into_data().convert::<f32>();
    let numbers = numbers.as_slice::<f32>().expect("just converted to f32");
    Computed {
        loss: numbers[0],
        grad_norm: global_norm(&numbers[1..]),
        tokens,
        gradients,
        forward_time,
        backward_time,
    }
}

/// Whether all trained parameters of `model`, which is in training mode, are finite. Values are read from the device once. What
/// no step changes is not read.
pub fn parameters_are_finite<M: Module>(model: &M) -> bool {
    struct Squares(Vec<Tensor<1>>);
    impl ModuleVisitor for Squares {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if is_trainable(param) {
                self.0.push(ops::square_sum(param.val().inner()));
            }
        }
    }
    let mut squares = Squares(Vec::new());
    model.visit(&mut squares);
    if squares.0.is_empty() {
        return true;
    }
    let squares = Tensor::cat(squares.0, 0).into_data().convert::<f32>();
    squares.as_slice::<f32>().expect("just converted to f32").iter().all(|square| square.is_finite())
}

/// `model`, which is in training mode, with a gradient of [`compute`] in place of each trained parameter: saved as a model, its
/// files have the gradients under the names of the parameters. One that the loss does not depend on is 0.
///
/// # Panics
/// If the gradients are those of another model.
pub fn with_gradients<M: Module>(model: M, gradients: Vec<Option<Tensor<1>>>) -> M {
    struct InPlace(std::vec::IntoIter<Option<Tensor<1>>>);
    impl ModuleMapper for InPlace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !is_trainable(&param) {
                return param;
            }
            let gradient = self.0.next().expect("a gradient for each trained parameter");
            param.map(|value| {
                let value = value.inner();
                let shape = value.shape();
                let gradient =
                    gradient.map_or_else(|| value.zeros_like(), |gradient| gradient.reshape(shape));
                Tensor::from_inner(gradient).require_grad()
            })
        }
    }
    let mut gradients = InPlace(gradients.into_iter());
    let model = model.map(&mut gradients);
    assert_eq!(gradients.0.len(), 0, "a gradient for each trained parameter");
    model
}

/// Accumulates gradients over micro-batches.
#[derive(Default)]
struct GradientSum {
    gradients: Vec<Option<Tensor<1>>>,
    /// Elements of each.
    lengths: Vec<usize>,
}

impl GradientSum {
    fn add<M: Module>(&mut self, model: &M, gradients: Gradients) {
        let gradients_of = Vec::with_capacity(self.gradients.len());
        let mut taken = Taken { from: gradients, gradients: gradients_of, lengths: Vec::new() };
        model.visit(&mut taken);
        if self.gradients.is_empty() {
            (self.gradients, self.lengths) = (taken.gradients, taken.lengths);
            return;
        }
        for (sum, new) in self.gradients.iter_mut().zip(taken.gradients) {
            *sum = match (sum.take(), new) {
                (Some(sum), Some(new)) => Some(sum + new),
                (one, other) => one.or(other),
            };
        }
    }
}

struct Taken {
    from: Gradients,
    gradients: Vec<Option<Tensor<1>>>,
    lengths: Vec<usize>,
}

impl ModuleVisitor for Taken {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !is_trainable(param) {
            return;
        }
        let value = param.val();
        let n = value.shape().num_elements();
        self.lengths.push(n);
        self.gradients.push(value.grad_remove(&mut self.from).map(|gradient| gradient.reshape([n])));
    }
}

#[cfg(test)]
mod tests {
    use andiron_data::batch::{Labels, Sequences, TokenLabels};
    use andiron_models::DecoderModel;

    use super::*;
    use crate::collective::threads::on_threads;
    use crate::config::TrainConfig;
    use crate::objective::Causal;
    use crate::testing::{CONFIG, decoder, device};

    fn model() -> DecoderModel {
        let config =
            TrainConfig::parse(CONFIG, &["model.resid_pdrop=0.0", "model.embd_pdrop=0.0"].map(str::to_owned));
        decoder(&config.unwrap()).init(Seed::new(3), &device()).train()
    }

    /// Rows of random ids; row `r` has its first `2 r` targets masked out.
    fn rows(range: std::ops::Range<u64>) -> HostBatch {
        let rows = range.clone().count();
        let of = |label: &str| -> Vec<u32> {
            let at = |row: u64| {
                let seed = Seed::new(1).derive(label).at(row);
                (0..8).map(move |i| seed.below(i, 13) as u32)
            };
            range.clone().flat_map(at).collect()
        };
        let weight = |row: u64| (0..8).map(move |i| f32::from(u8::from(i >= 2 * row)));
        let inputs = Sequences::full(of("ids"), [rows, 8]);
        HostBatch::tokens(inputs, of("targets"), range.clone().flat_map(weight).collect())
    }

    fn floats(gradients: &[Option<Tensor<1>>]) -> Vec<f32> {
        let one = |gradient: &Tensor<1>| gradient.clone().into_data().try_into_vec::<f32>().unwrap();
        gradients.iter().map(|gradient| one(gradient.as_ref().unwrap())).collect::<Vec<_>>().concat()
    }

    #[test]
    fn rows_may_be_spread_over_batches_in_any_way() {
        let model = model();
        let seed = Seed::new(0);
        let together = compute(&model, &Causal, &[rows(0..4)], seed, Precision::F32);
        assert_eq!(together.tokens, 8 + 6 + 4 + 2);
        for split in [vec![rows(0..1), rows(1..4)], vec![rows(0..2), rows(2..3), rows(3..4)]] {
            let apart = compute(&model, &Causal, &split, seed, Precision::F32);
            assert_eq!(apart.tokens, together.tokens);
            assert!((apart.loss - together.loss).abs() < 1e-5, "{} {}", apart.loss, together.loss);
            assert!((apart.grad_norm - together.grad_norm).abs() < 1e-5);
            for (a, b) in floats(&apart.gradients).iter().zip(floats(&together.gradients)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn processes_that_share_a_step_get_the_result_of_one() {
        let model = model();
        let together = compute(&model, &Causal, &[rows(0..4)], Seed::new(0), Precision::F32);
        for parts in [vec![0..1, 1..4], vec![0..1, 1..2, 2..3, 3..4]] {
            let shared = on_threads(parts.len(), |ranks| {
                let options = StepOptions { collective: ranks, ..StepOptions::new(Precision::F32) };
                compute_shared(&model, &Causal, &[rows(parts[ranks.rank()].clone())], options)
            });
            let first = &shared[0];
            for shared in &shared {
                assert_eq!(shared.tokens, together.tokens);
                assert!((shared.loss - together.loss).abs() < 1e-5, "{} {}", shared.loss, together.loss);
                assert!((shared.grad_norm - together.grad_norm).abs() < 1e-5);
                assert_eq!(bits(&shared.gradients), bits(&first.gradients));
            }
        }
    }

    #[test]
    fn whole_micro_batches_have_the_dropout_of_one_process() {
        let model = decoder(&TrainConfig::parse(CONFIG, &[]).unwrap()).init(Seed::new(3), &device()).train();
        let batches = [rows(0..2), rows(2..4)];
        let together = compute(&model, &Causal, &batches, Seed::new(5), Precision::F32);
        let shared = on_threads(2, |ranks| {
            let first = FirstRow { batch: ranks.rank() as u64, row: 0 };
            let options = StepOptions {
                dropout: Some(Seed::new(5)),
                collective: ranks,
                first,
                ..StepOptions::new(Precision::F32)
            };
            compute_shared(&model, &Causal, &batches[ranks.rank()..=ranks.rank()], options)
        });
        // Of two terms the order does not matter.
        assert_eq!(shared[0].loss.to_bits(), together.loss.to_bits());
        assert_eq!(bits(&shared[1].gradients), bits(&together.gradients));
    }

    #[test]
    fn activation_checkpointing_changes_no_bit() {
        let model = decoder(&TrainConfig::parse(CONFIG, &[]).unwrap()).init(Seed::new(3), &device()).train();
        let compute = |precision, checkpointing| {
            let options =
                StepOptions { dropout: Some(Seed::new(5)), checkpointing, ..StepOptions::new(precision) };
            compute_shared(&model, &Causal, &[rows(0..2), rows(2..4)], options)
        };
        for precision in [Precision::F32, Precision::Mixed] {
            let (kept, again) = (compute(precision, false), compute(precision, true));
            assert_eq!(again.loss.to_bits(), kept.loss.to_bits());
            assert_eq!(bits(&again.gradients), bits(&kept.gradients));
        }
    }

    fn bits(gradients: &[Option<Tensor<1>>]) -> Vec<u32> {
        floats(gradients).into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn the_norm_is_that_of_the_gradients() {
        let computed = compute(&model(), &Causal, &[rows(0..3)], Seed::new(0), Precision::F32);
        let squares: f64 = floats(&computed.gradients).iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        assert!((computed.grad_norm - squares.sqrt()).abs() < 1e-5 * squares.sqrt());
        assert!(computed.is_finite());
    }

    #[test]
    fn gradients_take_the_places_of_parameters() {
        let model = model();
        let computed = compute(&model, &Causal, &[rows(0..3)], Seed::new(0), Precision::F32);
        let expected = floats(&computed.gradients);
        struct Values(Vec<f32>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.extend(param.val().into_data().iter::<f32>());
            }
        }
        let mut found = Values(Vec::new());
        with_gradients(model, computed.gradients).visit(&mut found);
        assert_eq!(found.0, expected);
    }

    #[test]
    fn a_step_without_targets_is_zero() {
        let mut batch = rows(0..1);
        batch.labels = Labels::Tokens(TokenLabels { ids: vec![0; 8], weights: vec![0.0; 8] });
        let computed = compute(&model(), &Causal, &[batch], Seed::new(0), Precision::F32);
        assert_eq!((computed.loss, computed.grad_norm, computed.tokens), (0.0, 0.0, 0));
    }

    #[test]
    fn an_infinite_weight_is_noticed() {
        struct Poison;
        impl ModuleMapper for Poison {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|value| Tensor::from_inner(value.inner().mul_scalar(f32::INFINITY)).require_grad())
            }
        }
        assert!(parameters_are_finite(&model()));
        assert!(!parameters_are_finite(&model().map(&mut Poison)));
    }
}
