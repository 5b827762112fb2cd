//! Linear projections, with dense and with quantized weights.

use andiron_core::ops::{self, WeightLayout};
use andiron_core::quant::{Format, QuantMatrix};
use burn::tensor::{Device, Tensor, TensorData};

use crate::{assert_close, check, devices, floats, random, reference_device};

/// What rounding the activations to 8 bits, as CPU kernels do for quantized weights, may change: the length of the
/// difference over that of the output.
const ROUNDED: f32 = 0.01;

#[test]
fn linear_in_both_layouts() {
    for (rows, d_in, d_out) in [(1, 1, 1), (5, 7, 3), (33, 64, 17), (2, 128, 130)] {
        check(
            "linear in-out",
            [[rows, d_in], [d_in, d_out]],
            |[x, w]| ops::linear(x, w, None, WeightLayout::InOut),
            |[x, w]| x.matmul(w),
        );
        check(
            "linear out-in",
            [[rows, d_in], [d_out, d_in]],
            |[x, w]| ops::linear(x, w, None, WeightLayout::OutIn),
            |[x, w]| x.matmul(w.transpose()),
        );
        check(
            "linear with bias",
            [[rows, d_in], [d_in, d_out], [1, d_out]],
            |[x, w, b]| ops::linear(x, w, Some(b.reshape([d_out])), WeightLayout::InOut),
            |[x, w, b]| x.matmul(w) + b,
        );
    }
}

#[test]
fn linear_keeps_leading_axes() {
    let inputs = |device: &Device| (random([2, 3, 4], "x", device), random([4, 5], "w", device));
    let (x, w) = inputs(&reference_device());
    let reference = x.reshape([6, 4]).matmul(w).reshape([2, 3, 5]);
    for device in devices() {
        let (x, w) = inputs(&device);
        let y = ops::linear(x, w, None, WeightLayout::InOut);
        assert_close("rank 3", y, reference.clone());
    }
}

#[test]
fn linear_reads_transposed_views() {
    check(
        "linear of views",
        [[7, 4], [7, 7]],
        |[x, w]| ops::linear(x.transpose(), w.transpose(), None, WeightLayout::InOut),
        |[x, w]| x.transpose().matmul(w.transpose()),
    );
}

/// Output and gradients, in `x` and the bias if there is one, of a projection by a quantized or a dense weight.
fn quantized_passes(
    matrix: &QuantMatrix,
    (quantized, biased): (bool, bool),
    device: &Device,
) -> (Tensor<2>, Tensor<2>, Option<Tensor<1>>) {
    let (rows, [d_out, d_in], device) = (5, matrix.dims(), device.clone().autodiff());
    let x = random([rows, d_in], "x", &device).require_grad();
    let bias = random([d_out], "bias", &device).require_grad();
    let given = biased.then(|| bias.clone());
    let y = if quantized {
        ops::linear_quantized(x.clone(), matrix, given)
    } else {
        let dense = TensorData::new(matrix.dequantize(0..d_out), [d_out, d_in]);
        ops::linear(x.clone(), Tensor::from_data(dense, &device), given, WeightLayout::OutIn)
    };
    let grads = (y.clone() * random([rows, d_out], "towards", &device)).sum().backward();
    (y.inner(), x.grad(&grads).unwrap(), bias.grad(&grads))
}

#[test]
fn quantized_weights_are_what_they_dequantize_to() {
    let (d_in, d_out) = (64, 40);
    let values = floats(random([d_out, d_in], "weight", &reference_device()));
    for format in [Format::Q8_0, Format::Q4_0, Format::Q5_1, Format::Bf16] {
        let matrix = QuantMatrix::quantize(format, &values, d_in);
        for biased in [false, true] {
            let (y_dense, dx_dense, dbias_dense) =
                quantized_passes(&matrix, (false, biased), &reference_device());
            for device in devices() {
                let (y, dx, dbias) = quantized_passes(&matrix, (true, biased), &device);
                let (y, y_dense) = (floats(y), floats(y_dense.clone()));
                let apart: f32 = y.iter().zip(&y_dense).map(|(a, b)| (a - b).powi(2)).sum();
                let length: f32 = y_dense.iter().map(|y| y.powi(2)).sum();
                let apart = (apart / length).sqrt();
                assert!(apart <= ROUNDED, "{format:?} on {device:?}: {apart}");
                assert_close("dx", dx, dx_dense.clone());
                assert_eq!(dbias.is_some(), biased);
                for (dbias, dense) in dbias.into_iter().zip(dbias_dense.clone()) {
                    assert_close("dbias", dbias, dense);
                }
            }
        }
    }
}
