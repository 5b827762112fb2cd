//! The head's loss composed of Burn's own operations, in blocks of the rows that count.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, read_sync};
use burn::tensor::{IndexingUpdateOp, Shape, Slice, TensorData};

use super::{HeadInputs, HeadOptions};
use crate::ops::OptionalTensor;
use crate::ops::composed::{reshape, scalar};
use crate::ops::linear::composed::column_sum;

/// Elements of the largest block of logits that exists at a time: 64 MiB of f32, half of what the smallest GPUs
/// let one buffer be.
const LOGITS_BLOCK: usize = 16 << 20;

/// The rows whose weight is not 0.
struct Rows<B: Backend> {
    hidden: FloatTensor<B>,
    /// `[rows, 1]`.
    targets: IntTensor<B>,
    /// `[rows, 1]`.
    weights: FloatTensor<B>,
    /// Their indices among all rows; `None` if all rows count, or none.
    at: Option<IntTensor<B>>,
    len: usize,
    /// Number of all rows.
    n: usize,
}

impl<B: Backend> Rows<B> {
    /// Reads the weights, which synchronises with a GPU. It pays: a masked language model skips most rows, and most of the
    /// work.
    fn that_count(hidden: FloatTensor<B>, targets: IntTensor<B>, weights: FloatTensor<B>) -> Self {
        let [n] = weights.shape().dims();
        let data = read_sync(B::float_into_data(weights.clone())).expect("weights can be read");
        let counting = data.iter::<f32>().enumerate().filter(|(_, weight)| *weight != 0.0);
        let counting: Vec<i32> = counting.map(|(row, _)| row as i32).collect();
        let len = counting.len();
        if len == 0 || len == n {
            let column = Shape::new([n, 1]);
            let (targets, weights) =
                (B::int_reshape(targets, column.clone()), B::float_reshape(weights, column));
            return Self { hidden, targets, weights, at: None, len, n };
        }
        let (at, column) = (TensorData::new(counting, [len]), Shape::new([len, 1]));
        let at = B::int_from_data(at, &hidden.device());
        Self {
            hidden: B::float_select(hidden, 0, at.clone()),
            targets: B::int_reshape(B::int_select(targets, 0, at.clone()), column.clone()),
            weights: B::float_reshape(B::float_select(weights, 0, at.clone()), column),
            at: Some(at),
            len,
            n,
        }
    }

    /// Calls `visit` with hidden states, targets and weights of successive blocks.
    fn for_blocks(
        &self,
        vocabulary: usize,
        mut visit: impl FnMut(FloatTensor<B>, IntTensor<B>, FloatTensor<B>),
    ) {
        let (rows, d) = (self.len, self.hidden.shape()[1]);
        let most = (LOGITS_BLOCK / vocabulary.max(1)).clamp(1, rows.max(1));
        for start in (0..rows).step_by(most) {
            let range = Slice::from(start..(start + most).min(rows));
            let column = Slice::from(0..1);
            visit(
                B::float_slice(self.hidden.clone(), &[range, Slice::from(0..d)]),
                B::int_slice(self.targets.clone(), &[range, column]),
                B::float_slice(self.weights.clone(), &[range, column]),
            );
        }
    }

    /// Scatters blocks of rows that count, `[.., width]`, into all rows; the others are 0. `like` gives device and dtype.
    fn among_all(&self, blocks: Vec<FloatTensor<B>>, width: usize, like: &FloatTensor<B>) -> FloatTensor<B> {
        let zeros = || B::float_zeros(Shape::new([self.n, width]), &like.device(), like.dtype().into());
        if blocks.is_empty() {
            return zeros();
        }
        let counting = B::float_cat(blocks, 0);
        match &self.at {
            Some(at) => B::float_select_assign(zeros(), 0, at.clone(), counting, IndexingUpdateOp::Add),
            None => counting,
        }
    }
}

/// Parameters of the head, and label smoothing.
struct Parameters<'a, B: Backend> {
    weight: &'a FloatTensor<B>,
    bias: &'a OptionalTensor<B>,
    label_smoothing: f32,
}

/// Logits of one block of rows, with their log-sum-exp `[rows, 1]` and losses `[rows, 1]`.
struct LogitsBlock<B: Backend> {
    logits: FloatTensor<B>,
    lse: FloatTensor<B>,
    losses: FloatTensor<B>,
}

fn logits_block<B: Backend>(
    hidden: FloatTensor<B>,
    Parameters { weight, bias, label_smoothing }: Parameters<'_, B>,
    targets: IntTensor<B>,
) -> LogitsBlock<B> {
    let logits = B::float_matmul(hidden, B::float_transpose(weight.clone()));
    let logits = match bias.as_option() {
        Some(bias) => B::float_add(logits, reshape::<B>(bias.clone(), [1, bias.shape()[0]])),
        None => logits,
    };
    let max = B::float_max_dim(logits.clone(), 1);
    let sum = B::float_sum_dim(B::float_exp(B::float_sub(logits.clone(), max.clone())), 1);
    let lse = B::float_add(max, B::float_log(sum));
    let target = B::float_gather(1, logits.clone(), targets);
    let target = match label_smoothing == 0.0 {
        true => target,
        false => {
            let mean =
                B::float_mul_scalar(B::float_mean_dim(logits.clone(), 1), scalar(f64::from(label_smoothing)));
            B::float_add(B::float_mul_scalar(target, scalar(f64::from(1.0 - label_smoothing))), mean)
        }
    };
    let losses = B::float_sub(lse.clone(), target);
    LogitsBlock { logits, lse, losses }
}

/// Sum of `losses · weights`.
fn weighted_sum<B: Backend>(losses: FloatTensor<B>, weights: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(losses, weights))
}

pub(super) fn head_cross_entropy<B: Backend>(
    HeadInputs { hidden, weight, bias }: HeadInputs<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    label_smoothing: f32,
) -> FloatTensor<B> {
    let vocabulary = weight.shape()[0];
    let mut total: Option<FloatTensor<B>> = None;
    Rows::<B>::that_count(hidden, targets, weights).for_blocks(vocabulary, |hidden, targets, weights| {
        let head = Parameters { weight: &weight, bias: &bias, label_smoothing };
        let block = logits_block::<B>(hidden, head, targets);
        add_to::<B>(&mut total, weighted_sum::<B>(block.losses, weights));
    });
    total.unwrap_or_else(|| zero::<B>(&weight))
}

pub(super) fn head_losses<B: Backend>(
    HeadInputs { hidden, weight, bias }: HeadInputs<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    label_smoothing: f32,
) -> FloatTensor<B> {
    let vocabulary = weight.shape()[0];
    let mut losses = Vec::new();
    let rows = Rows::<B>::that_count(hidden, targets, weights);
    rows.for_blocks(vocabulary, |hidden, targets, _| {
        let head = Parameters { weight: &weight, bias: &bias, label_smoothing };
        losses.push(logits_block::<B>(hidden, head, targets).losses);
    });
    reshape::<B>(rows.among_all(losses, 1, &weight), [rows.n])
}

pub(super) fn head_cross_entropy_with_grad<B: Backend>(
    HeadInputs { hidden, weight, bias }: HeadInputs<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    HeadOptions { label_smoothing, weight_grad, .. }: HeadOptions,
) -> (FloatTensor<B>, HeadInputs<B>) {
    let [vocabulary, d] = weight.shape().dims();
    let (mut total, mut dweight, mut dbias) = (None, None, None);
    let mut dhidden = Vec::new();
    let rows = Rows::<B>::that_count(hidden, targets, weights);
    rows.for_blocks(vocabulary, |hidden, targets, weights| {
        let head = Parameters { weight: &weight, bias: &bias, label_smoothing };
        let LogitsBlock { logits, lse, losses } = logits_block::<B>(hidden.clone(), head, targets.clone());
        add_to::<B>(&mut total, weighted_sum::<B>(losses, weights.clone()));
        let share = scalar(f64::from(label_smoothing) / vocabulary.max(1) as f64);
        let p = B::float_sub_scalar(B::float_exp(B::float_sub(logits, lse)), share);
        let hits = B::float_mul_scalar(weights.clone(), scalar(f64::from(label_smoothing - 1.0)));
        let dlogits = B::float_scatter(1, B::float_mul(p, weights), targets, hits, IndexingUpdateOp::Add);
        if bias.as_option().is_some() {
            add_to::<B>(&mut dbias, column_sum::<B>(dlogits.clone()));
        }
        if weight_grad {
            add_to::<B>(&mut dweight, B::float_matmul(B::float_transpose(dlogits.clone()), hidden));
        }
        dhidden.push(B::float_matmul(dlogits, weight.clone()));
    });
    let zeros = |like: &FloatTensor<B>| B::float_mul_scalar(like.clone(), scalar(0.0));
    let grads = HeadInputs {
        hidden: rows.among_all(dhidden, d, &weight),
        weight: match weight_grad {
            true => dweight.unwrap_or_else(|| zeros(&weight)),
            false => B::float_empty([0, d].into(), &weight.device(), weight.dtype().into()),
        },
        bias: OptionalTensor::new(bias.as_option().map(|bias| dbias.unwrap_or_else(|| zeros(bias)))),
    };
    (total.unwrap_or_else(|| zero::<B>(&weight)), grads)
}

fn add_to<B: Backend>(total: &mut Option<FloatTensor<B>>, part: FloatTensor<B>) {
    *total = Some(match total.take() {
        Some(total) => B::float_add(total, part),
        None => part,
    });
}

fn zero<B: Backend>(like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(vec![0.0f32], [1]), &like.device())
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use burn::tensor::{Int, Tensor};

    use super::*;
    use crate::ops::{Dispatch, HeadOps};
    use crate::precision::Precision;
    use crate::{DeviceSpec, init};
    use andiron_kernels::random::Seed;

    /// Composed and fused: the sum, its gradients and the rows, for each choice of weights.
    #[test]
    fn rows_of_weight_0_are_skipped_and_the_others_are_those_of_the_kernels() {
        let device = DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("built with ndarray");
        let random = |shape: [usize; 2], label: &str| {
            init::normal(shape, 1.0, Seed::new(3).derive(label), &device).val()
        };
        let (hidden, weight) = (random([6, 5], "hidden"), random([9, 5], "weight"));
        let bias: Tensor<1> = random([1, 9], "bias").reshape([9]);
        let targets = Tensor::<1, Int>::from_ints([0, 8, 3, 3, 1, 7], &device);
        let cases = [[1.0, 0.5, 2.0, 1.0, 1.0, 1.0], [0.0, 0.5, 0.0, 0.0, 2.0, 0.0], [0.0; 6]];
        for (weights, share) in cases.into_iter().flat_map(|weights| [(weights, 0.0), (weights, 0.2)]) {
            let options =
                HeadOptions { precision: Precision::F32, label_smoothing: share, weight_grad: true };
            for bias in [None, Some(bias.clone())] {
                let inputs = || HeadInputs {
                    hidden: hidden.clone().into_dispatch(),
                    weight: weight.clone().into_dispatch(),
                    bias: OptionalTensor::<Dispatch>::new(bias.clone().map(Tensor::into_dispatch)),
                };
                let targets = || targets.clone().into_dispatch();
                let weights = || Tensor::<1>::from_floats(weights, &device).into_dispatch();
                let (sum, grads) =
                    head_cross_entropy_with_grad::<Dispatch>(inputs(), targets(), weights(), options);
                let (fused_sum, fused) =
                    Dispatch::head_cross_entropy_with_grad(inputs(), targets(), weights(), options);
                close::<1>(sum.clone(), fused_sum);
                close::<1>(head_cross_entropy::<Dispatch>(inputs(), targets(), weights(), share), sum);
                // A frozen head: the other gradients are the same, and its own is not computed.
                let frozen = HeadOptions { weight_grad: false, ..options };
                let hidden = || Tensor::<2>::from_dispatch(grads.hidden.clone()).into_dispatch();
                for (_, without) in [
                    head_cross_entropy_with_grad::<Dispatch>(inputs(), targets(), weights(), frozen),
                    Dispatch::head_cross_entropy_with_grad(inputs(), targets(), weights(), frozen),
                ] {
                    assert_eq!(without.weight.shape().dims(), [0, 5]);
                    close::<2>(hidden(), without.hidden);
                }
                close::<2>(grads.hidden, fused.hidden);
                close::<2>(grads.weight, fused.weight);
                assert_eq!(grads.bias.as_option().is_some(), bias.is_some());
                for (found, wanted) in grads.bias.into_option().into_iter().zip(fused.bias.into_option()) {
                    close::<1>(found, wanted);
                }
                let losses = Dispatch::head_losses(inputs(), targets(), weights(), options);
                close::<1>(head_losses::<Dispatch>(inputs(), targets(), weights(), share), losses);
            }
        }
    }

    #[track_caller]
    fn close<const D: usize>(found: FloatTensor<Dispatch>, wanted: FloatTensor<Dispatch>) {
        let [found, wanted] = [found, wanted].map(|tensor| Tensor::<D>::from_dispatch(tensor).into_data());
        found.assert_approx_eq::<f32>(&wanted, burn::tensor::Tolerance::absolute(1e-5));
    }
}
