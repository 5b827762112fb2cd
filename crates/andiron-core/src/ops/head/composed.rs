//! The head's loss of Burn's own operations, in blocks of rows.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape, Slice, TensorData};

use crate::ops::composed::{reshape, scalar};

/// Elements of the largest block of logits that exists at a time: 64 MiB of f32, half of what the smallest GPUs
/// let one buffer be.
const LOGITS_BLOCK: usize = 16 << 20;

/// Logits of one block of rows, with their log denominators `[rows, 1]` and losses `[rows, 1]`.
struct LogitsBlock<B: Backend> {
    logits: FloatTensor<B>,
    lse: FloatTensor<B>,
    losses: FloatTensor<B>,
}

fn logits_block<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
) -> LogitsBlock<B> {
    let logits = B::float_matmul(hidden, B::float_transpose(head));
    let max = B::float_max_dim(logits.clone(), 1);
    let sum = B::float_sum_dim(B::float_exp(B::float_sub(logits.clone(), max.clone())), 1);
    let lse = B::float_add(max, B::float_log(sum));
    let losses = B::float_sub(lse.clone(), B::float_gather(1, logits.clone(), targets));
    LogitsBlock { logits, lse, losses }
}

/// Calls `visit` with hidden states, targets `[rows, 1]` and weights `[rows, 1]` of successive blocks of rows.
fn for_row_blocks<B: Backend>(
    hidden: &FloatTensor<B>,
    vocabulary: usize,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    mut visit: impl FnMut(FloatTensor<B>, IntTensor<B>, FloatTensor<B>),
) {
    let [n, d] = hidden.shape().dims();
    let rows = (LOGITS_BLOCK / vocabulary).clamp(1, n.max(1));
    let targets = B::int_reshape(targets, Shape::new([n, 1]));
    let weights = reshape::<B>(weights, [n, 1]);
    for start in (0..n).step_by(rows) {
        let range = Slice::new(start as isize, Some((start + rows).min(n) as isize), 1);
        let column = Slice::new(0, Some(1), 1);
        visit(
            B::float_slice(hidden.clone(), &[range, Slice::new(0, Some(d as isize), 1)]),
            B::int_slice(targets.clone(), &[range, column]),
            B::float_slice(weights.clone(), &[range, column]),
        );
    }
}

/// Sum of `losses · weights`.
fn weighted_sum<B: Backend>(losses: FloatTensor<B>, weights: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(losses, weights))
}

pub(super) fn head_cross_entropy<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
) -> FloatTensor<B> {
    let vocabulary = head.shape()[0];
    let mut total: Option<FloatTensor<B>> = None;
    for_row_blocks::<B>(&hidden, vocabulary, targets, weights, |hidden, targets, weights| {
        let block = logits_block::<B>(hidden, head.clone(), targets);
        add_to::<B>(&mut total, weighted_sum::<B>(block.losses, weights));
    });
    total.unwrap_or_else(|| zero::<B>(&head))
}

pub(super) fn head_cross_entropy_with_grad<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let vocabulary = head.shape()[0];
    let (mut total, mut dhead) = (None, None);
    let mut dhidden = Vec::new();
    for_row_blocks::<B>(&hidden, vocabulary, targets, weights, |hidden, targets, weights| {
        let LogitsBlock { logits, lse, losses } =
            logits_block::<B>(hidden.clone(), head.clone(), targets.clone());
        add_to::<B>(&mut total, weighted_sum::<B>(losses, weights.clone()));
        let p = B::float_mul(B::float_exp(B::float_sub(logits, lse)), weights.clone());
        let dlogits = B::float_scatter(1, p, targets, B::float_neg(weights), IndexingUpdateOp::Add);
        add_to::<B>(&mut dhead, B::float_matmul(B::float_transpose(dlogits.clone()), hidden));
        dhidden.push(B::float_matmul(dlogits, head.clone()));
    });
    match (total, dhead) {
        (Some(total), Some(dhead)) => (total, B::float_cat(dhidden, 0), dhead),
        _ => {
            let total = zero::<B>(&head);
            (total, hidden, B::float_mul_scalar(head, scalar(0.0)))
        }
    }
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
