//! From a bias per distance to one per query and key, and back.
//!
//! Both use the relative shift of Transformer-XL (Dai et al. 2019, <https://arxiv.org/abs/1901.02860>, appendix B): rows
//! are padded by one element and the buffer is viewed again with the old row length, which shifts row `i` by `i`. So
//! backends need neither gather nor scatter.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

/// `[heads, t + s − 1]`, whose element `s − 1 + i − j` belongs to query `i` and key `j` → `[1, heads, t, s]`.
pub(super) fn spread<B: Backend>(bias: FloatTensor<B>, t: usize, s: usize) -> FloatTensor<B> {
    let ([h, _], n) = (bias.shape().dims(), t + s - 1);
    // Flipped, so that elements ascend with the key.
    let forward = B::float_flip(bias, &[1]);
    let between = B::float_slice(forward.clone(), &[range(0, h), range(0, 1)]);
    let row = B::float_reshape(B::float_cat(vec![forward, between], 1), Shape::new([h, 1, n + 1]));
    let rows = B::float_expand(row, Shape::new([h, t, n + 1]));
    let long = B::float_reshape(rows, Shape::new([h, t * (n + 1)]));
    let cut = B::float_slice(long, &[range(0, h), range(0, t * n)]);
    let cut = B::float_reshape(cut, Shape::new([h, t, n]));
    let of_pairs = B::float_slice(cut, &[range(0, h), range(0, t), range(t - 1, n)]);
    B::float_reshape(of_pairs, Shape::new([1, h, t, s]))
}

/// Sums of `[heads, t, s]` over the queries and keys of each distance, in the layout of [`spread`]'s input.
pub(super) fn gathered<B: Backend>(of_pairs: FloatTensor<B>) -> FloatTensor<B> {
    let [h, t, s] = of_pairs.shape().dims();
    let (n, device, dtype) = (t + s - 1, of_pairs.device(), of_pairs.dtype().into());
    let zeros = |shape: Shape| B::float_zeros(shape, &device, dtype);
    let cut = match t {
        1 => of_pairs,
        _ => B::float_cat(vec![zeros(Shape::new([h, t, t - 1])), of_pairs], 2),
    };
    let long = B::float_reshape(cut, Shape::new([h, t * n]));
    let long = B::float_cat(vec![long, zeros(Shape::new([h, t]))], 1);
    let rows = B::float_reshape(long, Shape::new([h, t, n + 1]));
    let row = B::float_reshape(B::float_sum_dim(rows, 1), Shape::new([h, n + 1]));
    B::float_flip(B::float_slice(row, &[range(0, h), range(0, n)]), &[1])
}

fn range(from: usize, to: usize) -> Slice {
    Slice::new(from as isize, Some(to as isize), 1)
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use burn::backend::Scalar;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::DeviceSpec;
    use crate::PaddingMask;
    use crate::ops::attention::composed;
    use crate::ops::{
        AttentionMask, AttentionOps, AttentionOptions, Dispatch, OptionalTensor, Qkv, SavedAttention,
    };
    use crate::precision::Precision;

    fn tensor<const D: usize>(shape: [usize; D]) -> (Vec<f32>, FloatTensor<Dispatch>) {
        let device =
            DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("tests are built with ndarray");
        let values: Vec<f32> = (0..shape.iter().product()).map(|at: usize| (at * 7 % 31) as f32).collect();
        let tensor = Tensor::<D>::from_data(TensorData::new(values.clone(), shape), &device);
        (values, tensor.into_dispatch())
    }

    fn floats<const D: usize>(tensor: FloatTensor<Dispatch>) -> Vec<f32> {
        Tensor::<D>::from_dispatch(tensor).into_data().try_into_vec().expect("f32")
    }

    #[track_caller]
    fn assert_close<const D: usize>(found: FloatTensor<Dispatch>, wanted: FloatTensor<Dispatch>) {
        for (x, y) in floats::<D>(found).into_iter().zip(floats::<D>(wanted)) {
            assert!((x - y).abs() <= 1e-4 * (1.0 + y.abs()), "{x} is not {y}");
        }
    }

    #[test]
    fn composed_biases_and_windows_are_those_of_the_kernels() {
        let (b, t, s, h, k) = (2, 5, 9, 4, 8);
        let [q, dout] =
            [31.0, 17.0].map(|by| Dispatch::float_div_scalar(tensor([b, t, h, k]).1, Scalar::Float(by)));
        let [keys, values] =
            [23.0, 40.0].map(|by| Dispatch::float_div_scalar(tensor([b, s, h / 2, k]).1, Scalar::Float(by)));
        let bias = Dispatch::float_div_scalar(tensor([h, t + s - 1]).1, Scalar::Float(10.0));
        for (causal, sliding_window) in [(false, None), (true, Some(7)), (false, Some(7))] {
            let options = AttentionOptions {
                scale: 0.3,
                mask: AttentionMask { causal, sliding_window },
                n_keys: s,
                rows: Some(PaddingMask::padded_right([s, s - 2])),
                documents: None,
                dropout: None,
            };
            let qkv = Qkv::Separate { q: q.clone(), k: keys.clone(), v: values.clone() };
            let (out, lse) =
                composed::attention_saved::<Dispatch>(qkv.clone(), Some(bias.clone()), options.clone());
            let present = OptionalTensor::Present(bias.clone());
            let (fused_out, saved) =
                Dispatch::attend_saved(qkv.clone(), present.clone(), options.clone(), Precision::F32);
            assert_close::<4>(out.clone(), fused_out);
            let SavedAttention::Exact { lse: fused_lse, .. } = &saved else { panic!("f32 is kept as it is") };
            assert_close::<3>(lse.clone(), fused_lse.clone());
            let (Qkv::Separate { q: dq, k: dk, v: dv }, dbias) = composed::attention_backward::<Dispatch>(
                SavedAttention::Exact { qkv, out, lse },
                Some(bias.clone()),
                dout.clone(),
                options.clone(),
            ) else {
                panic!("gradients of separate tensors")
            };
            let (Qkv::Separate { q: fused_dq, k: fused_dk, v: fused_dv }, fused_dbias) =
                Dispatch::attend_backward(saved, present, dout.clone(), options, Precision::F32)
            else {
                panic!("gradients of separate tensors")
            };
            for (found, wanted) in [(dq, fused_dq), (dk, fused_dk), (dv, fused_dv)] {
                assert_close::<4>(found, wanted);
            }
            assert_close::<2>(dbias.expect("there is a bias"), fused_dbias.expect("there is a bias"));
        }
    }

    #[test]
    fn every_pair_gets_the_number_of_its_distance_and_gives_it_back() {
        for (h, t, s) in [(1, 1, 1), (2, 1, 5), (1, 4, 4), (3, 2, 7), (2, 7, 9)] {
            let n = t + s - 1;
            let pairs = || (0..h * t * s).map(|at| (at / (t * s), at / s % t, at % s));
            let distance = |(head, i, j): (usize, usize, usize)| head * n + s - 1 + i - j;
            let (values, bias) = tensor([h, n]);
            let expected: Vec<f32> = pairs().map(|pair| values[distance(pair)]).collect();
            assert_eq!(floats::<4>(spread::<Dispatch>(bias, t, s)), expected);
            let (values, of_pairs) = tensor([h, t, s]);
            let mut expected = vec![0.0; h * n];
            pairs().zip(values).for_each(|(pair, value)| expected[distance(pair)] += value);
            assert_eq!(floats::<2>(gathered::<Dispatch>(of_pairs)), expected);
        }
    }
}
