//! Cross-entropy of next-token predictions, from logits or fused with the output projection.
//!
//! The fused form never materialises all logits: with a vocabulary of 50,000 they can be larger than the model.

use crate::Cpu;
use crate::gemm::{Epilogue, MatRef, matmul};
use crate::parallel::{self, Shared};
use crate::reduce;
use crate::simd::{Simd, dispatch, exp};
use crate::softmax::{exp_sum, largest};

/// Ignored target: the loss and the gradient of the position are 0.
pub const NO_TARGET: u32 = u32::MAX;

/// Logits held at once by the fused head: 4 MiB …
const CHUNK_NUMBERS: usize = 1 << 20;
/// … or this many rows, so that with a large vocabulary each load of the weight is reused often enough.
const MIN_CHUNK_ROWS: usize = 64;

/// Sizes of the fused head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Positions.
    pub rows: usize,
    /// Width of a hidden state.
    pub d: usize,
    /// Number of tokens.
    pub vocab: usize,
}

/// Inputs of the fused head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// `[rows, d]`.
    pub hidden: &'a [f32],
    /// `[vocab, d]`, as a tied embedding is stored.
    pub weight: &'a [f32],
    /// `[vocab]`, added to the logits; empty if there is none.
    pub bias: &'a [f32],
    /// `[rows]`.
    pub targets: &'a [u32],
    /// `[rows]`: the factor of each row's loss. Rows of weight 0 are skipped, whatever their target and hidden state.
    pub row_weights: &'a [f32],
    /// Share of the target that is spread evenly over all tokens, from 0 to 1: the loss of a row is
    /// `(1 - s) nll + s mean(-log p)`, as PyTorch defines it.
    pub label_smoothing: f32,
}

/// Gradients of the fused head; all are overwritten.
#[derive(Debug)]
pub struct HeadGrads<'a> {
    /// `[rows, d]`.
    pub dhidden: &'a mut [f32],
    /// `[vocab, d]`; empty if it is not wanted.
    pub dweight: &'a mut [f32],
    /// The length of the bias.
    pub dbias: &'a mut [f32],
}

/// `nll[i] = lse[i] - logits[i, targets[i]]` with `lse` the log-sum-exp of the row. A row without target
/// ([`NO_TARGET`]) has loss 0.
///
/// # Shape
/// `logits`: `[rows, vocab]`, the others `[rows]`.
///
/// # Panics
/// If the lengths do not agree or a target is not below `vocab`.
pub fn forward(cpu: Cpu, targets: &[u32], logits: &[f32], nll: &mut [f32], lse: &mut [f32]) {
    let rows = targets.len();
    let vocab = vocab_of(rows, logits);
    assert!(nll.len() == rows && lse.len() == rows, "nll or lse does not have one number per row");
    assert_targets(targets.iter().filter(|target| **target != NO_TARGET), vocab);
    log_sum_exp(cpu, vocab, logits, lse);
    for (i, nll) in nll.iter_mut().enumerate() {
        let target = targets[i];
        *nll = if target == NO_TARGET { 0.0 } else { lse[i] - logits[i * vocab + target as usize] };
    }
}

/// Replaces logits by the gradient of `Σ row_weights[i] nll[i]`: `(softmax - onehot) row_weight`. Rows of
/// weight 0 become 0, whatever their logits.
///
/// # Shape
/// `logits`: `[rows, vocab]`, the others `[rows]`; `lse` as computed by [`forward`].
///
/// # Panics
/// If the lengths do not agree or the target of a row whose weight is not 0 is not below `vocab`.
pub fn backward_in_place(cpu: Cpu, targets: &[u32], row_weights: &[f32], lse: &[f32], logits: &mut [f32]) {
    slopes_in_place(cpu, Targets { targets, row_weights, label_smoothing: 0.0 }, lse, logits);
}

/// What rows are to predict.
#[derive(Clone, Copy)]
struct Targets<'a> {
    targets: &'a [u32],
    row_weights: &'a [f32],
    label_smoothing: f32,
}

impl<'a> Targets<'a> {
    fn rows(self, part: std::ops::Range<usize>) -> Self {
        Self { targets: &self.targets[part.clone()], row_weights: &self.row_weights[part], ..self }
    }
}

/// [`backward_in_place`] with label smoothing.
fn slopes_in_place(cpu: Cpu, targets: Targets, lse: &[f32], logits: &mut [f32]) {
    let rows = targets.targets.len();
    let vocab = vocab_of(rows, logits);
    let has_all = targets.row_weights.len() == rows && lse.len() == rows;
    assert!(has_all, "weights or lse do not have one number per row");
    assert_targets(active(targets.targets, targets.row_weights), vocab);
    let logits = Shared::new(logits);
    parallel::rows(cpu, rows, 8 * vocab, 1, |part| {
        // SAFETY: the parts are disjoint.
        let logits = unsafe { logits.range(part.start * vocab..part.end * vocab) };
        gradient(cpu.isa, targets.rows(part.clone()), &lse[part], logits);
    });
}

/// `Σ row_weights[i] nll[i]` of the logits `hidden weightᵀ + bias`, summed in f64.
///
/// # Panics
/// If the lengths do not agree with `shape` or the target of a row whose weight is not 0 is not below
/// `vocab`.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::cross_entropy::{Head, HeadShape, NO_TARGET, head_nll};
/// let shape = HeadShape { rows: 2, d: 1, vocab: 4 };
/// let head = Head {
///     hidden: &[0.0, 5.0],
///     weight: &[1.0, 2.0, 3.0, 4.0],
///     bias: &[],
///     targets: &[2, NO_TARGET],
///     row_weights: &[1.0, 0.0],
///     label_smoothing: 0.0,
/// };
/// let loss = head_nll(Cpu::detect(1), shape, head);
/// assert!((loss - 4f64.ln()).abs() < 1e-6); // a hidden state of 0 predicts all tokens alike
/// ```
pub fn head_nll(cpu: Cpu, shape: HeadShape, head: Head) -> f64 {
    fused(cpu, shape, head, None, None)
}

/// The unweighted loss of each row of [`head_nll`]; 0 in rows of weight 0.
///
/// # Shape
/// `nll`: `[rows]`.
///
/// # Panics
/// As for [`head_nll`], and if `nll` does not have one value per row.
pub fn head_nll_rows(cpu: Cpu, shape: HeadShape, head: Head, nll: &mut [f32]) {
    assert_eq!(nll.len(), shape.rows, "nll does not have one value per row");
    fused(cpu, shape, head, Some(nll), None);
}

/// [`head_nll`] and, in the same pass, its gradients.
///
/// # Panics
/// As for [`head_nll`], and if a gradient differs in length from its operand.
pub fn head_nll_with_grad(cpu: Cpu, shape: HeadShape, head: Head, grads: HeadGrads) -> f64 {
    fused(cpu, shape, head, None, Some(grads))
}

fn fused(
    cpu: Cpu,
    shape: HeadShape,
    head: Head,
    mut nll: Option<&mut [f32]>,
    mut grads: Option<HeadGrads>,
) -> f64 {
    let HeadShape { rows, d, vocab } = shape;
    assert_eq!(head.hidden.len(), rows * d, "hidden is not {rows} x {d}");
    assert_eq!(head.weight.len(), vocab * d, "weight is not {vocab} x {d}");
    assert!([0, vocab].contains(&head.bias.len()), "bias does not have one value per token");
    assert_eq!(head.targets.len(), rows, "targets do not have one number per row");
    assert_eq!(head.row_weights.len(), rows, "row weights do not have one number per row");
    assert_targets(active(head.targets, head.row_weights), vocab);
    if let Some(grads) = &mut grads {
        assert_eq!(grads.dhidden.len(), rows * d, "dhidden is not as long as hidden");
        assert!([0, vocab * d].contains(&grads.dweight.len()), "dweight is not as long as weight");
        assert_eq!(grads.dbias.len(), head.bias.len(), "dbias is not as long as bias");
        grads.dbias.fill(0.0);
    }
    let kept: Vec<usize> = (0..rows).filter(|i| head.row_weights[*i] != 0.0).collect();
    if let Some(grads) = &mut grads {
        if kept.len() < rows {
            grads.dhidden.fill(0.0);
        }
        if kept.is_empty() {
            grads.dweight.fill(0.0);
        }
    }
    if let Some(nll) = &mut nll {
        nll.fill(0.0);
    }
    let chunk = chunk_rows(vocab).min(kept.len());
    let mut buffers = Chunk {
        hidden: vec![0.0; if kept.len() < rows { chunk * d } else { 0 }],
        logits: vec![0.0; chunk * vocab],
        lse: vec![0.0; chunk],
        losses: vec![0.0; chunk],
        column_sums: vec![0.0; if grads.is_some() { head.bias.len() } else { 0 }],
    };
    let mut sum = 0.0;
    for (number, kept) in kept.chunks(chunk.max(1)).enumerate() {
        let grads = grads.as_mut().map(|grads| (grads, number > 0));
        sum += buffers.run(cpu, shape, head, kept, grads);
        if let Some(nll) = &mut nll {
            kept.iter().zip(&buffers.losses).for_each(|(i, loss)| nll[*i] = *loss);
        }
    }
    sum
}

/// Buffers for a chunk of rows.
struct Chunk {
    /// The kept rows, gathered; empty if every row is kept.
    hidden: Vec<f32>,
    logits: Vec<f32>,
    lse: Vec<f32>,
    losses: Vec<f32>,
    /// Column sums of the logits' gradient; empty if the bias gradient is not wanted.
    column_sums: Vec<f32>,
}

impl Chunk {
    /// The loss of the rows `kept` and, if asked for, their gradients; accumulates into `dweight` if asked to.
    fn run(
        &mut self,
        cpu: Cpu,
        shape: HeadShape,
        head: Head,
        kept: &[usize],
        grads: Option<(&mut HeadGrads, bool)>,
    ) -> f64 {
        let HeadShape { d, vocab, .. } = shape;
        let (n, first) = (kept.len(), kept[0]);
        let side_by_side = self.hidden.is_empty();
        if !side_by_side {
            for (i, row) in kept.iter().zip(self.hidden.chunks_exact_mut(d.max(1))) {
                row.copy_from_slice(&head.hidden[i * d..][..d]);
            }
        }
        let hidden = if side_by_side { &head.hidden[first * d..][..n * d] } else { &self.hidden[..n * d] };
        let hidden = MatRef::row_major(hidden, n, d);
        let weight = MatRef::row_major(head.weight, vocab, d);
        let (logits, lse, losses) =
            (&mut self.logits[..n * vocab], &mut self.lse[..n], &mut self.losses[..n]);
        let targets: Vec<u32> = kept.iter().map(|i| head.targets[*i]).collect();
        let row_weights: Vec<f32> = kept.iter().map(|i| head.row_weights[*i]).collect();

        let bias = (!head.bias.is_empty()).then_some(head.bias);
        matmul(cpu, hidden, weight.t(), Epilogue { bias, accumulate: false }, logits);
        log_sum_exp(cpu, vocab, logits, lse);
        let targets =
            Targets { targets: &targets, row_weights: &row_weights, label_smoothing: head.label_smoothing };
        losses_of(cpu, targets, logits, lse, losses);
        let sum = losses.iter().zip(&row_weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        if let Some((grads, accumulate)) = grads {
            slopes_in_place(cpu, targets, lse, logits);
            if !self.column_sums.is_empty() {
                reduce::column_sum(cpu, n, vocab, logits, &mut self.column_sums);
                grads.dbias.iter_mut().zip(&self.column_sums).for_each(|(dbias, sum)| *dbias += sum);
            }
            let dlogits = MatRef::row_major(logits, n, vocab);
            if !grads.dweight.is_empty() {
                matmul(cpu, dlogits.t(), hidden, Epilogue { bias: None, accumulate }, grads.dweight);
            }
            if side_by_side {
                matmul(cpu, dlogits, weight, Epilogue::default(), &mut grads.dhidden[first * d..][..n * d]);
            } else {
                matmul(cpu, dlogits, weight, Epilogue::default(), &mut self.hidden[..n * d]);
                for (i, row) in kept.iter().zip(self.hidden.chunks_exact(d.max(1))) {
                    grads.dhidden[i * d..][..d].copy_from_slice(row);
                }
            }
        }
        sum
    }
}

fn chunk_rows(vocab: usize) -> usize {
    (CHUNK_NUMBERS / vocab.max(1)).max(MIN_CHUNK_ROWS)
}

fn vocab_of(rows: usize, logits: &[f32]) -> usize {
    let vocab = logits.len().checked_div(rows).unwrap_or(0);
    assert_eq!(logits.len(), rows * vocab, "logits are not {rows} rows of equal length");
    vocab
}

fn active<'a>(targets: &'a [u32], row_weights: &'a [f32]) -> impl Iterator<Item = &'a u32> {
    targets.iter().zip(row_weights).filter(|(_, weight)| **weight != 0.0).map(|(target, _)| target)
}

#[track_caller]
fn assert_targets<'a>(mut targets: impl Iterator<Item = &'a u32>, vocab: usize) {
    if let Some(target) = targets.find(|target| **target as usize >= vocab) {
        panic!("target {target} is outside a vocabulary of {vocab}");
    }
}

/// The loss of each row.
fn losses_of(cpu: Cpu, targets: Targets, logits: &[f32], lse: &[f32], losses: &mut [f32]) {
    let (rows, vocab) = (losses.len(), vocab_of(losses.len(), logits));
    let losses = Shared::new(losses);
    let share = targets.label_smoothing;
    // Without smoothing, a row costs the reading of one number.
    parallel::rows(cpu, rows, if share == 0.0 { 1 } else { vocab }, 1, |part| {
        // SAFETY: the parts are disjoint.
        let losses = unsafe { losses.range(part.clone()) };
        for (i, loss) in part.zip(losses) {
            let logits = &logits[i * vocab..][..vocab];
            let target = logits[targets.targets[i] as usize];
            *loss = match share == 0.0 {
                true => lse[i] - target,
                false => (1.0 - share) * (lse[i] - target) + share * (lse[i] - mean(logits)),
            };
        }
    });
}

/// The mean, summed in blocks of f32 so that the compiler vectorizes it, and these in f64.
fn mean(values: &[f32]) -> f32 {
    let mut lanes = [0.0f64; 16];
    for block in values.chunks(1024) {
        let mut sums = [0.0f32; 16];
        for values in block.chunks(16) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        lanes.iter_mut().zip(sums).for_each(|(lane, sum)| *lane += f64::from(sum));
    }
    (lanes.iter().sum::<f64>() / values.len().max(1) as f64) as f32
}

fn log_sum_exp(cpu: Cpu, vocab: usize, logits: &[f32], lse: &mut [f32]) {
    let rows = lse.len();
    let lse = Shared::new(lse);
    parallel::rows(cpu, rows, 6 * vocab, 1, |part| {
        // SAFETY: the parts are disjoint.
        let lse = unsafe { lse.range(part.clone()) };
        row_lse(cpu.isa, vocab, &logits[part.start * vocab..part.end * vocab], lse);
    });
}

dispatch! { fn row_lse(vocab: usize, logits: &[f32], lse: &mut [f32]) = plain_lse | vector_lse; }
dispatch! {
    fn gradient(targets: Targets, lse: &[f32], logits: &mut [f32]) = plain_gradient | vector_gradient;
}

fn plain_lse(vocab: usize, logits: &[f32], lse: &mut [f32]) {
    for (i, lse) in lse.iter_mut().enumerate() {
        let logits = &logits[i * vocab..][..vocab];
        let max = f64::from(logits.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x)));
        let sum: f64 = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum();
        *lse = (max + sum.ln()) as f32;
    }
}

fn plain_gradient(
    Targets { targets, row_weights, label_smoothing }: Targets,
    lse: &[f32],
    logits: &mut [f32],
) {
    let vocab = logits.len().checked_div(targets.len()).unwrap_or(0);
    let share = f64::from(label_smoothing);
    for (i, logits) in logits.chunks_exact_mut(vocab.max(1)).enumerate() {
        let weight = f64::from(row_weights[i]);
        if weight == 0.0 {
            logits.fill(0.0);
            continue;
        }
        for (j, x) in logits.iter_mut().enumerate() {
            let probability = (f64::from(*x) - f64::from(lse[i])).exp();
            let target = if j == targets[i] as usize { 1.0 - share } else { 0.0 };
            *x = ((probability - share / vocab as f64 - target) * weight) as f32;
        }
    }
}

#[inline(always)]
fn vector_lse<S: Simd>(s: S, vocab: usize, logits: &[f32], lse: &mut [f32]) {
    for (i, lse) in lse.iter_mut().enumerate() {
        let logits = &logits[i * vocab..][..vocab];
        let max = largest(s, logits);
        *lse = max + exp_sum(s, logits, max).ln();
    }
}

#[inline(always)]
fn vector_gradient<S: Simd>(
    s: S,
    Targets { targets, row_weights, label_smoothing }: Targets,
    lse: &[f32],
    logits: &mut [f32],
) {
    let vocab = logits.len().checked_div(targets.len()).unwrap_or(0);
    let share = s.splat(label_smoothing / vocab.max(1) as f32);
    for (i, logits) in logits.chunks_exact_mut(vocab.max(1)).enumerate() {
        let weight = row_weights[i];
        if weight == 0.0 {
            logits.fill(0.0);
            continue;
        }
        let (factor, lse) = (s.splat(weight), s.splat(lse[i]));
        let mut chunks = logits.chunks_exact_mut(S::LANES);
        for chunk in &mut chunks {
            let x = s.mul(s.sub(exp(s, s.sub(s.load(chunk), lse)), share), factor);
            s.store(chunk, x);
        }
        let rest = chunks.into_remainder();
        let x = s.mul(s.sub(exp(s, s.sub(s.load_part(rest), lse)), share), factor);
        s.store_part(rest, x);
        logits[targets[i] as usize] -= weight * (1.0 - label_smoothing);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;
    use crate::random::Seed;
    use crate::testing::{assert_close, numbers, wide};

    struct Case {
        shape: HeadShape,
        hidden: Vec<f32>,
        weight: Vec<f32>,
        bias: Vec<f32>,
        targets: Vec<u32>,
        row_weights: Vec<f32>,
        label_smoothing: f32,
    }

    impl Case {
        /// Every third row has weight 0, if asked for.
        fn new(shape: HeadShape, gaps: bool) -> Self {
            let HeadShape { rows, d, vocab } = shape;
            let left_out = |i: usize| gaps && i % 3 == 1;
            let target = |i: usize| Seed::new(6).below(i as u64, vocab as u64) as u32;
            Self {
                shape,
                hidden: numbers(1, rows * d),
                weight: numbers(2, vocab * d),
                bias: Vec::new(),
                targets: (0..rows).map(|i| if left_out(i) { NO_TARGET } else { target(i) }).collect(),
                row_weights: (0..rows)
                    .map(|i| if left_out(i) { 0.0 } else { 0.5 + (i % 7) as f32 / 7.0 })
                    .collect(),
                label_smoothing: 0.0,
            }
        }

        fn with_bias(self) -> Self {
            Self { bias: numbers(3, self.shape.vocab), ..self }
        }

        /// Loss, and gradients of hidden states, weight and bias.
        fn run(&self, cpu: Cpu) -> (f64, Vec<f32>, Vec<f32>, Vec<f32>) {
            let Self { shape, hidden, weight, bias, targets, row_weights, label_smoothing } = self;
            let [mut dhidden, mut dweight, mut dbias] =
                [hidden, weight, bias].map(|x| vec![f32::NAN; x.len()]);
            let head = Head { hidden, weight, bias, targets, row_weights, label_smoothing: *label_smoothing };
            let grads = HeadGrads { dhidden: &mut dhidden, dweight: &mut dweight, dbias: &mut dbias };
            let loss = head_nll_with_grad(cpu, *shape, head, grads);
            assert_eq!(loss, head_nll(cpu, *shape, head));
            let mut nll = vec![f32::NAN; shape.rows];
            head_nll_rows(cpu, *shape, head, &mut nll);
            assert!(nll.iter().zip(row_weights).all(|(nll, weight)| *weight != 0.0 || *nll == 0.0));
            let sum: f64 = nll.iter().zip(row_weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            assert!((sum - loss).abs() <= 1e-6 * loss.abs().max(1.0), "rows sum up to {sum}, not {loss}");
            (loss, dhidden, dweight, dbias)
        }

        /// Loss and gradients by the definition, in f64.
        fn exact(&self) -> (f64, Vec<f64>, Vec<f64>, Vec<f64>) {
            let HeadShape { rows, d, vocab } = self.shape;
            let (hidden, weight, bias) = (wide(&self.hidden), wide(&self.weight), wide(&self.bias));
            let (mut loss, mut dhidden, mut dweight) = (0.0, vec![0.0; rows * d], vec![0.0; vocab * d]);
            let mut dbias = vec![0.0; bias.len()];
            for i in (0..rows).filter(|i| self.row_weights[*i] != 0.0) {
                let w = f64::from(self.row_weights[i]);
                let logit = |j: usize| {
                    let product: f64 = (0..d).map(|l| hidden[i * d + l] * weight[j * d + l]).sum();
                    product + bias.get(j).copied().unwrap_or(0.0)
                };
                let logits: Vec<f64> = (0..vocab).map(logit).collect();
                let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let lse = max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
                let share = f64::from(self.label_smoothing);
                let mean = logits.iter().sum::<f64>() / vocab as f64;
                loss += w * (lse - (1.0 - share) * logits[self.targets[i] as usize] - share * mean);
                for j in 0..vocab {
                    let hit = if j == self.targets[i] as usize { 1.0 - share } else { 0.0 };
                    let slope = w * ((logits[j] - lse).exp() - share / vocab as f64 - hit);
                    if let Some(dbias) = dbias.get_mut(j) {
                        *dbias += slope;
                    }
                    for l in 0..d {
                        dhidden[i * d + l] += slope * weight[j * d + l];
                        dweight[j * d + l] += slope * hidden[i * d + l];
                    }
                }
            }
            (loss, dhidden, dweight, dbias)
        }
    }

    #[track_caller]
    fn check(shape: HeadShape, gaps: bool) {
        check_case(Case::new(shape, gaps));
        check_case(Case::new(shape, gaps).with_bias());
        check_case(Case { label_smoothing: 0.3, ..Case::new(shape, gaps).with_bias() });
    }

    #[track_caller]
    fn check_case(case: Case) {
        let (loss, dhidden, dweight, dbias) = case.exact();
        for isa in Isa::supported() {
            let one = case.run(Cpu::new(isa, 1));
            assert!((one.0 - loss).abs() <= 1e-5 * loss.abs().max(1.0), "{isa}: loss {} not {loss}", one.0);
            assert_close(&format!("{isa} dhidden"), &one.1, &dhidden, 5e-5);
            assert_close(&format!("{isa} dweight"), &one.2, &dweight, 5e-5);
            assert_close(&format!("{isa} dbias"), &one.3, &dbias, 5e-5);
            for threads in [2, 3] {
                assert_eq!(case.run(Cpu::new(isa, threads)), one, "{isa} with {threads} threads");
            }
        }
    }

    #[test]
    fn a_large_vocabulary_is_taken_in_chunks() {
        let shape = HeadShape { rows: 150, d: 5, vocab: 17_000 };
        assert!(chunk_rows(shape.vocab) < shape.rows / 2);
        check(shape, false);
        check(shape, true);
    }

    #[test]
    fn rows_of_weight_0_contribute_exactly_nothing() {
        let shape = HeadShape { rows: 9, d: 20, vocab: 33 };
        let clean = Case::new(shape, true);
        let mut dirty = Case::new(shape, true);
        for i in (1..9).step_by(3) {
            dirty.hidden[i * 20..(i + 1) * 20].fill(f32::NAN);
        }
        for isa in Isa::supported() {
            let cpu = Cpu::new(isa, 1);
            assert_eq!(clean.run(cpu), dirty.run(cpu));
        }
        let nothing = Case { row_weights: vec![0.0; 9], ..clean };
        let (loss, dhidden, dweight, _) = nothing.run(Cpu::detect(1));
        assert!(loss == 0.0 && dhidden.iter().chain(&dweight).all(|x| *x == 0.0));
    }

    #[test]
    fn the_loss_of_logits_is_that_of_the_fused_head() {
        let case = Case::new(HeadShape { rows: 14, d: 1, vocab: 21 }, true);
        let logits: Vec<f32> =
            case.hidden.iter().flat_map(|h| case.weight.iter().map(move |w| h * w)).collect();
        for isa in Isa::supported() {
            let cpu = Cpu::new(isa, 2);
            let (mut nll, mut lse) = ([f32::NAN; 14], [f32::NAN; 14]);
            forward(cpu, &case.targets, &logits, &mut nll, &mut lse);
            let sum: f64 =
                nll.iter().zip(&case.row_weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let (loss, dhidden, ..) = case.run(cpu);
            assert!((sum - loss).abs() < 1e-5);
            let mut dlogits = logits.clone();
            backward_in_place(cpu, &case.targets, &case.row_weights, &lse, &mut dlogits);
            for (row, dhidden) in dlogits.chunks(21).zip(dhidden) {
                let sum: f32 = row.iter().zip(&case.weight).map(|(x, w)| x * w).sum();
                assert!((sum - dhidden).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn huge_logits_and_nan_pass() {
        let logits = [3e38, -3e38, 0.0, f32::NAN, 0.0, 0.0];
        for isa in Isa::supported() {
            let (mut nll, mut lse) = ([0.0; 2], [0.0; 2]);
            forward(Cpu::new(isa, 1), &[0, 1], &logits, &mut nll, &mut lse);
            assert!(nll[0] == 0.0 && nll[1].is_nan(), "{isa}: {nll:?}");
        }
    }

    #[test]
    #[should_panic(expected = "target 3 is outside a vocabulary of 3")]
    fn targets_must_exist() {
        forward(Cpu::detect(1), &[3], &[0.0; 3], &mut [0.0], &mut [0.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_path_equals_the_definition(rows in 0usize..20, d in 1usize..40, vocab in 1usize..70, gaps: bool) {
            check(HeadShape { rows, d, vocab }, gaps);
        }
    }
}
