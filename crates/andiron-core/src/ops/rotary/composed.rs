//! Rotary positions composed of Burn's own operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Slice;

use super::Rotation;

pub(super) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    rotation: Rotation,
) -> FloatTensor<B> {
    let [b, t, h, k] = x.shape().dims();
    let pairs = cos.shape()[3];
    let part = |from: usize, to: usize| {
        let slices = [0..b, 0..t, 0..h, from..to].map(Slice::from);
        B::float_slice(x.clone(), &slices)
    };
    let (first, second) = (part(0, pairs), part(pairs, 2 * pairs));
    let sin = match rotation {
        Rotation::Forward => sin,
        Rotation::Inverse => B::float_neg(sin),
    };
    let times = |x: &FloatTensor<B>, by: &FloatTensor<B>| B::float_mul(x.clone(), by.clone());
    let mut turned = vec![
        B::float_sub(times(&first, &cos), times(&second, &sin)),
        B::float_add(times(&second, &cos), times(&first, &sin)),
    ];
    if 2 * pairs < k {
        turned.push(part(2 * pairs, k));
    }
    B::float_cat(turned, 3)
}
