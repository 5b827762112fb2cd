//! Optimizer steps through `andiron-kernels`.

use andiron_kernels::{adamw, muon, reduce};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{AdamWStep, Matrices, MuonStep, OptimizerOps, composed};
use crate::ops::OpKind;
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::precision::Precision;

impl<B: HostTensors> OptimizerOps for B {
    fn adamw(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&value, &grad, &mean, &square]) {
            return composed::adamw::<B>([value, grad, mean, square], step);
        }
        let shape = value.shape();
        let (mut value, mut mean, mut square) = (B::into_vec(value), B::into_vec(mean), B::into_vec(square));
        adamw::step(cpu(), step, &mut value, &B::floats(&grad), &mut mean, &mut square);
        (B::from_vec(value, &shape), B::from_vec(mean, &shape), B::from_vec(square, &shape))
    }

    fn muon_direction(
        grad: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
        step: MuonStep,
        matrices: Matrices,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&grad, &momentum]) {
            return composed::muon_direction::<B>(grad, momentum, step, matrices);
        }
        let shape = grad.shape();
        let (mut grad, mut momentum) = (B::into_vec(grad), B::into_vec(momentum));
        muon::direction(cpu().at(precision), step, matrices, &mut grad, &mut momentum);
        (B::from_vec(grad, &shape), B::from_vec(momentum, &shape))
    }

    fn sgd_step(
        value: FloatTensor<Self>,
        direction: FloatTensor<Self>,
        keep: f32,
        size: f32,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&value, &direction]) {
            return composed::sgd_step::<B>(value, direction, keep, size);
        }
        let shape = value.shape();
        let mut value = B::into_vec(value);
        muon::sgd_step(cpu(), &mut value, &B::floats(&direction), keep, size);
        B::from_vec(value, &shape)
    }

    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&x]) {
            return composed::square_sum::<B>(x);
        }
        B::from_vec(vec![reduce::square_sum(cpu(), &B::floats(&x)) as f32], &[1])
    }
}
