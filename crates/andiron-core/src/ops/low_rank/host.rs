//! Projections with adapters through `andiron-kernels`.

use std::borrow::Cow;

use andiron_kernels::gemm::{Epilogue, MatRef, matmul};
use andiron_kernels::memory::unspecified as output;
use andiron_kernels::{bf16, dropout as masks};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{Factors, LowRankOps, LowRankOptions, composed};
use crate::ops::activation::host::activated;
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{Dropout, LinearGrads, LinearOps as _, LinearWeight, OpKind, OptionalTensor, SavedInput};
use crate::precision::Precision;

const REPLACE: Epilogue<'_> = Epilogue { bias: None, accumulate: false };
const ADD: Epilogue<'_> = Epilogue { bias: None, accumulate: true };

impl<B: HostTensors> LowRankOps for B {
    fn kept_input(x: FloatTensor<Self>, precision: Precision) -> SavedInput<Self> {
        match rounded::<B>(&x, precision) {
            Some(words) => SavedInput::Rounded(words),
            None => SavedInput::Exact(x),
        }
    }

    fn low_rank_saved(
        x: FloatTensor<Self>,
        weight: LinearWeight<Self>,
        factors: Factors<Self>,
        bias: OptionalTensor<Self>,
        options: LowRankOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let Factors { a, b } = &factors;
        if !are_f32::<B>([&x, a, b].into_iter().chain(bias.as_option())) || !is_f32(&weight) {
            return composed::low_rank_saved::<B>(x, weight, factors, bias, options);
        }
        let LowRankOptions { scale, dropout, precision } = options;
        let mut y = B::into_vec(B::project(x.clone(), weight, bias, precision));
        let _time = OpKind::Matmul.timer();
        let cpu = cpu().at(precision);
        let ([n, d_input], [rank, d_output]) = (x.shape().dims(), b.shape().dims());
        let mut inner = output(n * rank);
        let xs = dropped(B::floats(&x), dropout);
        let a = B::floats(a);
        let a = MatRef::row_major(&a, d_input, rank);
        matmul(cpu, MatRef::row_major(&xs, n, d_input), a, REPLACE, &mut inner);
        inner.iter_mut().for_each(|value| *value *= scale);
        let b = B::floats(b);
        let b = MatRef::row_major(&b, rank, d_output);
        matmul(cpu, MatRef::row_major(&inner, n, rank), b, ADD, &mut y);
        (B::from_vec(y, &[n, d_output]), B::from_vec(inner, &[n, rank]))
    }

    fn low_rank_backward(
        x: SavedInput<Self>,
        inner: FloatTensor<Self>,
        weight: LinearWeight<Self>,
        factors: Factors<Self>,
        dy: FloatTensor<Self>,
        options: LowRankOptions,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, Factors<Self>) {
        let Factors { a, b } = &factors;
        if !are_f32::<B>([a, b, &dy, &inner]) || !is_f32(&weight) {
            return composed::low_rank_backward::<B>(x, inner, weight, factors, dy, (options, wants_x));
        }
        let LowRankOptions { scale, dropout, precision } = options;
        let cpu = cpu().at(precision);
        let ([d_input, rank], [n, d_output]) = (a.shape().dims(), dy.shape().dims());
        let dx = wants_x.then(|| {
            let wanted = LinearGrads { x: true, weight: false, bias: false };
            let (dx, _, _) = B::project_backward(SavedInput::Nothing, weight, dy.clone(), wanted, precision);
            B::into_vec(dx.expect("just asked for"))
        });
        let _time = OpKind::Matmul.timer();
        let (a_values, b_values, dys) = (B::floats(a), B::floats(b), B::floats(&dy));
        let a = MatRef::row_major(&a_values, d_input, rank);
        let b = MatRef::row_major(&b_values, rank, d_output);
        let dy = MatRef::row_major(&dys, n, d_output);
        let inner = B::floats(&inner);
        let mut db = output(rank * d_output);
        matmul(cpu, MatRef::row_major(&inner, n, rank).t(), dy, REPLACE, &mut db);
        let mut dinner = output(n * rank);
        matmul(cpu, dy, b.t(), REPLACE, &mut dinner);
        dinner.iter_mut().for_each(|value| *value *= scale);
        let dinner = MatRef::row_major(&dinner, n, rank);
        let mut da = output(d_input * rank);
        let xs = dropped(kept::<B>(&x), dropout);
        matmul(cpu, MatRef::row_major(&xs, n, d_input).t(), dinner, REPLACE, &mut da);
        drop(xs);
        let dx = dx.map(|mut dx| {
            match dropout {
                None => matmul(cpu, dinner, a.t(), ADD, &mut dx),
                Some(_) => {
                    let mut added = output(n * d_input);
                    matmul(cpu, dinner, a.t(), REPLACE, &mut added);
                    let added = dropped(Cow::Owned(added), dropout);
                    dx.iter_mut().zip(&*added).for_each(|(sum, added)| *sum += added);
                }
            }
            B::from_vec(dx, &[n, d_input])
        });
        (dx, Factors { a: B::from_vec(da, &[d_input, rank]), b: B::from_vec(db, &[rank, d_output]) })
    }
}

fn is_f32<B: HostTensors>(weight: &LinearWeight<B>) -> bool {
    match weight {
        LinearWeight::Dense { weight, .. } => are_f32::<B>([weight]),
        LinearWeight::Quantized { .. } => true,
    }
}

/// The tensor in bf16, two elements in each 32-bit word, if matmuls round to it.
pub(in crate::ops) fn rounded<B: HostTensors>(
    x: &FloatTensor<B>,
    precision: Precision,
) -> Option<FloatTensor<B>> {
    let (cpu, len) = (cpu().at(precision), x.shape().num_elements());
    if !bf16::rounds(cpu) || !are_f32::<B>([x]) || !len.is_multiple_of(2) {
        return None;
    }
    let mut words = output(len / 2);
    bf16::round(cpu, &B::floats(x), &mut words);
    Some(B::from_vec(words, &[len / 2]))
}

/// The elements of [`rounded`].
pub(in crate::ops) fn widened<B: HostTensors>(words: &FloatTensor<B>) -> Vec<f32> {
    let words = B::floats(words);
    let mut x = output(2 * words.len());
    bf16::widen(cpu(), &words, &mut x);
    x
}

/// The input of a projection, from what was kept of it.
fn kept<B: HostTensors>(x: &SavedInput<B>) -> Cow<'_, [f32]> {
    match x {
        SavedInput::Exact(x) => B::floats(x),
        SavedInput::Rounded(words) => Cow::Owned(widened::<B>(words)),
        SavedInput::Activated { x, up, form, in_bf16 } => {
            Cow::Owned(activated::<B>(x, up.as_option(), *form, *in_bf16))
        }
        SavedInput::Nothing => panic!("the input was not kept"),
    }
}

fn dropped(x: Cow<'_, [f32]>, dropout: Option<Dropout>) -> Cow<'_, [f32]> {
    let Some(rule) = dropout else { return x };
    let mut y = output(x.len());
    masks::apply(cpu(), rule, &x, &mut y);
    Cow::Owned(y)
}
