//! The head's loss through `andiron-kernels`.

use andiron_kernels::cross_entropy::{self, Head, HeadGrads, HeadShape};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{HeadOps, composed};
use crate::ops::OpKind;
use crate::ops::embedding::host::checked_ids;
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::precision::Precision;

impl<B: HostTensors> HeadOps for B {
    fn head_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let _time = OpKind::CrossEntropy.timer();
        if !are_f32::<B>([&hidden, &head, &weights]) {
            return composed::head_cross_entropy::<B>(hidden, head, targets, weights);
        }
        let shape = shape::<B>(&hidden, &head);
        let targets = checked_ids::<B>(&targets, shape.vocab);
        let inputs = Head {
            hidden: &B::floats(&hidden),
            weight: &B::floats(&head),
            targets: &targets,
            row_weights: &B::floats(&weights),
        };
        let loss = cross_entropy::head_nll(cpu().at(precision), shape, inputs);
        B::from_vec(vec![loss as f32], &[1])
    }

    fn head_cross_entropy_with_grad(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _time = OpKind::CrossEntropy.timer();
        if !are_f32::<B>([&hidden, &head, &weights]) {
            return composed::head_cross_entropy_with_grad::<B>(hidden, head, targets, weights);
        }
        let shape = shape::<B>(&hidden, &head);
        let targets = checked_ids::<B>(&targets, shape.vocab);
        let inputs = Head {
            hidden: &B::floats(&hidden),
            weight: &B::floats(&head),
            targets: &targets,
            row_weights: &B::floats(&weights),
        };
        let mut dhidden = output(hidden.shape().num_elements());
        let mut dhead = output(head.shape().num_elements());
        let grads = HeadGrads { dhidden: &mut dhidden, dweight: &mut dhead };
        let loss = cross_entropy::head_nll_with_grad(cpu().at(precision), shape, inputs, grads);
        let loss = B::from_vec(vec![loss as f32], &[1]);
        (loss, B::from_vec(dhidden, &hidden.shape()), B::from_vec(dhead, &head.shape()))
    }
}

fn shape<B: HostTensors>(hidden: &FloatTensor<B>, head: &FloatTensor<B>) -> HeadShape {
    let ([rows, d], [vocab, _]) = (hidden.shape().dims(), head.shape().dims());
    HeadShape { rows, d, vocab }
}
