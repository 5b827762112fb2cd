//! The head's loss through `andiron-kernels`.

use std::borrow::Cow;

use andiron_kernels::cross_entropy::{self, Head, HeadGrads, HeadShape};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{HeadInputs, HeadOps, HeadOptions, composed};
use crate::ops::embedding::host::checked_ids;
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};

impl<B: HostTensors> HeadOps for B {
    fn head_cross_entropy(
        inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> FloatTensor<Self> {
        let _time = OpKind::CrossEntropy.timer();
        if !is_f32::<B>(&inputs, &weights) {
            return composed::head_cross_entropy::<B>(inputs, targets, weights, options.label_smoothing);
        }
        let loss = with_slices::<B, _>(&inputs, &targets, &weights, options, |shape, head| {
            cross_entropy::head_nll(cpu().at(options.precision), shape, head)
        });
        B::from_vec(vec![loss as f32], &[1])
    }

    fn head_cross_entropy_with_grad(
        inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> (FloatTensor<Self>, HeadInputs<Self>) {
        let _time = OpKind::CrossEntropy.timer();
        if !is_f32::<B>(&inputs, &weights) {
            return composed::head_cross_entropy_with_grad::<B>(inputs, targets, weights, options);
        }
        with_slices::<B, _>(&inputs, &targets, &weights, options, |shape, head| {
            let mut dhidden = output(head.hidden.len());
            let [vocab, d] = inputs.weight.shape().dims();
            let n_rows = if options.weight_grad { vocab } else { 0 };
            let mut dweight = output(n_rows * d);
            let mut dbias = output(head.bias.len());
            let grads = HeadGrads { dhidden: &mut dhidden, dweight: &mut dweight, dbias: &mut dbias };
            let loss = cross_entropy::head_nll_with_grad(cpu().at(options.precision), shape, head, grads);
            let bias = inputs.bias.as_option().map(|bias| B::from_vec(dbias, &bias.shape()));
            let grads = HeadInputs {
                hidden: B::from_vec(dhidden, &inputs.hidden.shape()),
                weight: B::from_vec(dweight, &[n_rows, d]),
                bias: OptionalTensor::new(bias),
            };
            (B::from_vec(vec![loss as f32], &[1]), grads)
        })
    }

    fn head_losses(
        inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> FloatTensor<Self> {
        let _time = OpKind::CrossEntropy.timer();
        if !is_f32::<B>(&inputs, &weights) {
            return composed::head_losses::<B>(inputs, targets, weights, options.label_smoothing);
        }
        with_slices::<B, _>(&inputs, &targets, &weights, options, |shape, head| {
            let mut losses = output(shape.rows);
            cross_entropy::head_nll_rows(cpu().at(options.precision), shape, head, &mut losses);
            B::from_vec(losses, &[shape.rows])
        })
    }
}

fn is_f32<B: HostTensors>(inputs: &HeadInputs<B>, weights: &FloatTensor<B>) -> bool {
    let HeadInputs { hidden, weight, bias } = inputs;
    are_f32::<B>([hidden, weight, weights].into_iter().chain(bias.as_option()))
}

/// Calls `run` with all inputs as slices.
fn with_slices<B: HostTensors, T>(
    HeadInputs { hidden, weight, bias }: &HeadInputs<B>,
    targets: &IntTensor<B>,
    weights: &FloatTensor<B>,
    options: HeadOptions,
    run: impl FnOnce(HeadShape, Head) -> T,
) -> T {
    let ([rows, d], [vocab, _]) = (hidden.shape().dims(), weight.shape().dims());
    let head = Head {
        hidden: &B::floats(hidden),
        weight: &B::floats(weight),
        bias: &bias.as_option().map_or(Cow::Borrowed(&[][..]), B::floats),
        targets: &checked_ids::<B>(targets, vocab),
        row_weights: &B::floats(weights),
        label_smoothing: options.label_smoothing,
    };
    run(HeadShape { rows, d, vocab }, head)
}
