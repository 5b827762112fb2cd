//! Shared by the composed bodies of all families.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::Shape;

/// The last axis as rows, `[n, d]`.
pub(super) fn rows<B: Backend>(x: FloatTensor<B>) -> (FloatTensor<B>, [usize; 2]) {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    let n = shape.num_elements() / d.max(1);
    (reshape::<B>(x, [n, d]), [n, d])
}

pub(super) fn reshape<B: Backend>(x: FloatTensor<B>, shape: impl Into<Shape>) -> FloatTensor<B> {
    B::float_reshape(x, shape.into())
}

pub(super) fn scalar(value: f64) -> Scalar {
    Scalar::Float(value)
}
