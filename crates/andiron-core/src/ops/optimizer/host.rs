//! Optimizer steps through `andiron-kernels`.

use andiron_kernels::adafactor::{self, Squares};
use andiron_kernels::{adamw, average, lion, muon, reduce};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{AdafactorStep, AdamWStep, LionStep, Matrices, MuonStep, OptimizerOps, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};
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

    fn adafactor(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        squares: FloatTensor<Self>,
        columns: OptionalTensor<Self>,
        mean: OptionalTensor<Self>,
        step: AdafactorStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        let _time = OpKind::Optimizer.timer();
        let (columns, mean) = (columns.into_option(), mean.into_option());
        if !are_f32::<B>([&value, &grad, &squares].into_iter().chain(&columns).chain(&mean)) {
            return composed::adafactor::<B>([value, grad, squares], columns, mean, step);
        }
        let (shape, of_squares) = (value.shape(), squares.shape());
        let of_columns = columns.as_ref().map(TensorMetadata::shape);
        let (mut value, mut squares) = (B::into_vec(value), B::into_vec(squares));
        let (mut columns, mut mean) = (columns.map(B::into_vec), mean.map(B::into_vec));
        let means = match &mut columns {
            Some(columns) => Squares::Factored { rows: &mut squares, columns },
            None => Squares::Whole(&mut squares),
        };
        adafactor::step(cpu(), step, &mut value, &B::floats(&grad), means, mean.as_deref_mut());
        let columns = columns.zip(of_columns).map(|(columns, shape)| B::from_vec(columns, &shape));
        let mean = mean.map(|mean| B::from_vec(mean, &shape));
        (B::from_vec(value, &shape), B::from_vec(squares, &of_squares), columns, mean)
    }

    fn lion(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        step: LionStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&value, &grad, &mean]) {
            return composed::lion::<B>([value, grad, mean], step);
        }
        let shape = value.shape();
        let (mut value, mut mean) = (B::into_vec(value), B::into_vec(mean));
        lion::step(cpu(), step, &mut value, &B::floats(&grad), &mut mean);
        (B::from_vec(value, &shape), B::from_vec(mean, &shape))
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

    fn lerp(mean: FloatTensor<Self>, x: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&mean, &x]) {
            return composed::lerp::<B>(mean, x, share);
        }
        let shape = mean.shape();
        let mut mean = B::into_vec(mean);
        average::lerp(cpu(), &mut mean, &B::floats(&x), share);
        B::from_vec(mean, &shape)
    }

    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let _time = OpKind::Optimizer.timer();
        if !are_f32::<B>([&x]) {
            return composed::square_sum::<B>(x);
        }
        B::from_vec(vec![reduce::square_sum(cpu(), &B::floats(&x)) as f32], &[1])
    }
}
