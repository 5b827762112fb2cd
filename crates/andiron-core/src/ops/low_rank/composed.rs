//! Projections with adapters composed of other operations.

use burn::backend::tensor::FloatTensor;

use super::{Factors, LowRankOps, LowRankOptions};
use crate::ops::composed::{reshape, scalar};
use crate::ops::linear::composed::{project, weight_grad};
use crate::ops::{LinearGrads, LinearWeight, OptionalTensor, SavedInput, WeightLayout};

pub(super) fn low_rank_saved<B: LowRankOps>(
    x: FloatTensor<B>,
    weight: LinearWeight<B>,
    Factors { a, b }: Factors<B>,
    bias: OptionalTensor<B>,
    LowRankOptions { scale, dropout, precision }: LowRankOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let y = B::project(x.clone(), weight, bias, precision);
    let read = match dropout {
        Some(rule) => B::dropout(x, rule),
        None => x,
    };
    let inner = project::<B>(read, a, WeightLayout::InOut);
    let inner = B::float_mul_scalar(inner, scalar(scale.into()));
    (B::float_add(y, project::<B>(inner.clone(), b, WeightLayout::InOut)), inner)
}

/// # Panics
/// If `x` is in bf16, or was not kept.
pub(super) fn low_rank_backward<B: LowRankOps>(
    x: SavedInput<B>,
    inner: FloatTensor<B>,
    weight: LinearWeight<B>,
    Factors { a, b }: Factors<B>,
    dy: FloatTensor<B>,
    (LowRankOptions { scale, dropout, precision }, wants_x): (LowRankOptions, bool),
) -> (Option<FloatTensor<B>>, Factors<B>) {
    let db = weight_grad::<B>(inner, dy.clone(), WeightLayout::InOut);
    let dinner = project::<B>(dy.clone(), b, WeightLayout::OutIn);
    let dinner = B::float_mul_scalar(dinner, scalar(scale.into()));
    let x = match x {
        SavedInput::Exact(x) => x,
        SavedInput::Activated { x, up, form, in_bf16: false } => B::activate(x, up, form),
        _ => panic!("the input was not kept as it was"),
    };
    let d_input = burn::backend::TensorMetadata::shape(&a)[0];
    let n = burn::backend::TensorMetadata::shape(&dy)[0];
    let x = reshape::<B>(x, [n, d_input]);
    let drop = |x| match dropout {
        Some(rule) => B::dropout(x, rule),
        None => x,
    };
    let da = weight_grad::<B>(drop(x), dinner.clone(), WeightLayout::InOut);
    let dx = wants_x.then(|| {
        let wanted = LinearGrads { x: true, weight: false, bias: false };
        let (dx, _, _) = B::project_backward(SavedInput::Nothing, weight, dy, wanted, precision);
        B::float_add(dx.expect("just asked for"), drop(project::<B>(dinner, a, WeightLayout::OutIn)))
    });
    (dx, Factors { a: da, b: db })
}
