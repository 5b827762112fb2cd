//! Each fused operation against its composed twin, forward and backward, through the public API.
//!
//! The twin here is written once more with Burn's tensor operations, so that neither the kernels nor the composed
//! bodies vouch for themselves.

#![allow(clippy::unwrap_used)] // A test fails where it panics.
#![cfg(any(feature = "ndarray", feature = "flex"))]

use andiron_core::ops::{
    self, Activation, AdamWStep, AttentionMask, AttentionOptions, Dropout, FeedForwardOptions, Head,
    Matrices, Moments, Momentum, MuonStep, WeightLayout,
};
use andiron_core::quant::{Format, QuantMatrix};
use andiron_core::{Backend, DeviceSpec, PaddingMask};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// f32 kernels against f32 chains of operations.
const TOLERANCE: f32 = 2e-5;

/// The CPU devices of this build.
fn devices() -> Vec<Device> {
    let cpu = Backend::compiled().into_iter().filter(|backend| backend.is_cpu());
    cpu.map(|backend| DeviceSpec { backend, index: None }.open().unwrap()).collect()
}

fn random<const D: usize>(shape: [usize; D], label: &str, device: &Device) -> Tensor<D> {
    let seed = Seed::new(7).derive(label);
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|at| seed.normal(at)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[track_caller]
fn assert_close<const D: usize>(what: &str, ours: Tensor<D>, twin: Tensor<D>) {
    assert_eq!(ours.dims(), twin.dims(), "{what}: shape");
    for (at, (a, b)) in floats(ours).into_iter().zip(floats(twin)).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * (1.0 + b.abs()), "{what}[{at}]: {a} is not {b}");
    }
}

/// Compares `ours` and `twin`, and the gradients of a random projection of them, in each of `inputs`.
fn check<const D: usize, const N: usize, const O: usize>(
    name: &str,
    shapes: [[usize; D]; N],
    ours: impl Fn([Tensor<D>; N]) -> Tensor<O>,
    twin: impl Fn([Tensor<D>; N]) -> Tensor<O>,
) {
    for device in devices() {
        let device = device.autodiff();
        // Each side has leaves of its own: a graph can be walked back only once.
        let [inputs, inputs_twin] = [0, 1].map(|_| {
            let mut at = 0;
            shapes.map(|shape| {
                at += 1;
                random(shape, &format!("{name}.{at}"), &device).require_grad()
            })
        });
        let (y, y_twin) = (ours(inputs.clone()), twin(inputs_twin.clone()));
        assert_close(name, y.clone().inner(), y_twin.clone().inner());
        let towards = random(y.dims(), "towards", &device);
        let grads = (y * towards.clone()).sum().backward();
        let grads_twin = (y_twin * towards).sum().backward();
        for (at, (input, input_twin)) in inputs.iter().zip(&inputs_twin).enumerate() {
            let what = format!("gradient of {name} in input {at}");
            assert_close(&what, input.grad(&grads).unwrap(), input_twin.grad(&grads_twin).unwrap());
        }
        // Without autodiff the forward pass is the same.
        let plain = inputs.map(Tensor::inner);
        assert_close(name, ours(plain.clone()), twin(plain));
    }
}

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

/// The quantized forward pass rounds its input, so that only gradients are compared.
#[test]
fn gradients_through_a_quantized_weight() {
    let (rows, d_in, d_out) = (5, 64, 40);
    for device in devices() {
        let device = device.autodiff();
        let values = floats(random([d_out, d_in], "weight", &device.clone().inner()));
        let matrix = QuantMatrix::quantize(Format::Q8_0, &values, d_in);
        let dense = TensorData::new(matrix.dequantize(0..d_out), [d_out, d_in]);
        let dense = Tensor::<2>::from_data(dense, &device);
        for biased in [false, true] {
            let run = |quantized: bool| {
                let x = random([rows, d_in], "x", &device).require_grad();
                let bias = random([d_out], "bias", &device).require_grad();
                let given = biased.then(|| bias.clone());
                let y = match quantized {
                    true => ops::linear_quantized(x.clone(), &matrix, given),
                    false => ops::linear(x.clone(), dense.clone(), given, WeightLayout::OutIn),
                };
                let grads = (y * random([rows, d_out], "towards", &device)).sum().backward();
                (x.grad(&grads).unwrap(), bias.grad(&grads))
            };
            let ((dx, dbias), (dx_twin, dbias_twin)) = (run(true), run(false));
            assert_close("dx", dx, dx_twin);
            assert_eq!(dbias.is_some(), biased);
            for (dbias, twin) in dbias.into_iter().zip(dbias_twin) {
                assert_close("dbias", dbias, twin);
            }
        }
    }
}

#[test]
fn feed_forward_in_all_layouts() {
    let options = |layouts| FeedForwardOptions { activation: Activation::Silu, layouts };
    for (rows, d, f, d_out) in [(1, 1, 1, 1), (5, 7, 12, 3), (70, 33, 40, 35)] {
        check(
            "feed-forward in-out",
            [[rows, d], [d, f], [1, f], [f, d_out], [1, d_out]],
            |[x, up, b, down, c]| {
                let biases = [b.reshape([f]), c.reshape([d_out])];
                ops::feed_forward(x, [up, down], biases, options([WeightLayout::InOut; 2]))
            },
            |[x, up, b, down, c]| {
                let before = x.matmul(up) + b;
                (before.clone() / ((-before).exp() + 1.0)).matmul(down) + c
            },
        );
        check(
            "feed-forward out-in",
            [[rows, d], [f, d], [1, f], [d_out, f], [1, d_out]],
            |[x, up, b, down, c]| {
                let biases = [b.reshape([f]), c.reshape([d_out])];
                ops::feed_forward(x, [up, down], biases, options([WeightLayout::OutIn; 2]))
            },
            |[x, up, b, down, c]| {
                let before = x.matmul(up.transpose()) + b;
                (before.clone() / ((-before).exp() + 1.0)).matmul(down.transpose()) + c
            },
        );
    }
}

#[test]
fn linear_keeps_leading_axes() {
    for device in devices() {
        let (x, w) = (random([2, 3, 4], "x", &device), random([4, 5], "w", &device));
        let y = ops::linear(x.clone(), w.clone(), None, WeightLayout::InOut);
        assert_close("rank 3", y, x.reshape([6, 4]).matmul(w).reshape([2, 3, 5]));
    }
}

#[test]
fn linear_reads_transposed_views() {
    for device in devices() {
        let (x, w) = (random([7, 4], "x", &device).transpose(), random([5, 7], "w", &device).transpose());
        let y = ops::linear(x.clone(), w.clone(), None, WeightLayout::InOut);
        assert_close("view", y, x.matmul(w));
    }
}

#[test]
fn layer_norm() {
    for (rows, width) in [(1, 2), (6, 33), (40, 128)] {
        check(
            "layer norm",
            [[rows, width], [1, width], [1, width]],
            |[x, g, b]| ops::layer_norm(x, g.reshape([width]), b.reshape([width]), 1e-5),
            |[x, g, b]| {
                let centred = x.clone() - x.mean_dim(1);
                let variance = (centred.clone() * centred.clone()).mean_dim(1);
                centred / (variance + 1e-5).sqrt() * g + b
            },
        );
    }
}

#[test]
fn rms_norm() {
    for (rows, width) in [(1, 2), (6, 33), (40, 128)] {
        check(
            "RMS norm",
            [[rows, width], [1, width]],
            |[x, g]| ops::rms_norm(x, g.reshape([width]), 1e-5),
            |[x, g]| x.clone() / ((x.clone() * x).mean_dim(1) + 1e-5).sqrt() * g,
        );
    }
}

#[test]
fn norms_at_the_head_of_a_branch() {
    // The gradient of a leaf stays where it is; that of what an operation made is taken and added to.
    for (name, factor) in [("leaf", None), ("made", Some(2.0f32))] {
        let made = |x: Tensor<2>| match factor {
            Some(factor) => x * factor,
            None => x,
        };
        check(
            &format!("layer norm of a branch, {name}"),
            [[3, 20], [1, 20], [1, 20]],
            |[x, gain, offset]| {
                let x = made(x).reshape([1, 3, 20]);
                let (gain, offset) = (gain.reshape([20]), offset.reshape([20]));
                let branch = ops::layer_norm_of_branch(x.clone(), gain, offset, 1e-5);
                ops::residual(x, branch).reshape([3, 20])
            },
            |[x, gain, offset]| {
                let x = made(x);
                let normed = ops::layer_norm(x.clone(), gain.reshape([20]), offset.reshape([20]), 1e-5);
                x + normed
            },
        );
        check(
            &format!("RMS norm of a branch, {name}"),
            [[3, 20], [1, 20]],
            |[x, gain]| {
                let x = made(x);
                let branch = ops::rms_norm_of_branch(x.clone(), gain.reshape([20]), 1e-5);
                ops::residual(x, ops::activate(branch, Activation::Silu))
            },
            |[x, gain]| {
                let x = made(x);
                let normed = ops::rms_norm(x.clone(), gain.reshape([20]), 1e-5);
                x + normed.clone() / ((-normed).exp() + 1.0)
            },
        );
    }
}

#[test]
fn norms_of_sums() {
    check(
        "layer norm of a sum",
        [[6, 20], [6, 20], [1, 20], [1, 20]],
        |[x, added, gain, offset]| {
            let affine = (gain.reshape([20]), offset.reshape([20]));
            ops::layer_norm_of_sum(x.reshape([2, 3, 20]), added.reshape([2, 3, 20]), affine, 1e-5)
                .reshape([6, 20])
        },
        |[x, added, gain, offset]| ops::layer_norm(x + added, gain.reshape([20]), offset.reshape([20]), 1e-5),
    );
    check(
        "layer norm between branches",
        [[6, 20], [6, 20], [1, 20], [1, 20]],
        |[x, added, gain, offset]| {
            let affine = (gain.reshape([20]), offset.reshape([20]));
            let (sum, normed) = ops::layer_norm_between_branches(x, added, affine, 1e-5);
            ops::residual(sum, ops::activate(normed, Activation::Silu))
        },
        |[x, added, gain, offset]| {
            let sum = x + added;
            let normed = ops::layer_norm(sum.clone(), gain.reshape([20]), offset.reshape([20]), 1e-5);
            sum + normed.clone() / ((-normed).exp() + 1.0)
        },
    );
    check(
        "RMS norm between branches",
        [[6, 20], [6, 20], [1, 20]],
        |[x, added, gain]| {
            // What is added has another owner, so that its memory may not become the sum.
            let gain = gain.reshape([20]);
            let (sum, normed) = ops::rms_norm_between_branches(x, added.clone(), gain, 1e-5);
            ops::residual(sum, ops::activate(normed, Activation::Silu)) + added
        },
        |[x, added, gain]| {
            let sum = x + added.clone();
            let normed = ops::rms_norm(sum.clone(), gain.reshape([20]), 1e-5);
            sum + normed.clone() / ((-normed).exp() + 1.0) + added
        },
    );
}

#[test]
fn silu_and_relu() {
    check("silu", [[7, 19]], |[x]| ops::activate(x, Activation::Silu), |[x]| x.clone() / ((-x).exp() + 1.0));
    check("relu", [[7, 19]], |[x]| ops::activate(x, Activation::Relu), |[x]| (x.clone() + x.abs()) * 0.5);
}

#[test]
fn gates() {
    for shape in [[7, 19], [40, 70]] {
        check(
            "gate",
            [shape, shape],
            |[x, up]| ops::gate(x, up, Activation::Silu),
            |[x, up]| x.clone() / ((-x).exp() + 1.0) * up,
        );
    }
}

#[test]
fn gated_feed_forward_in_all_layouts() {
    let options = |layouts| FeedForwardOptions { activation: Activation::Silu, layouts };
    // Numbers as in a model: three maps of numbers around 1 would be sums of thousands, and their rounding as large.
    let small = |x: Tensor<2>| x * 0.125;
    let silu = |x: Tensor<2>| x.clone() / ((-x).exp() + 1.0);
    for (rows, d, f, d_out) in [(1, 1, 1, 1), (5, 7, 12, 3), (70, 33, 40, 35)] {
        check(
            "gated feed-forward in-out",
            [[rows, d], [d, f], [d, f], [f, d_out]],
            |[x, gate, up, down]| {
                ops::gated_feed_forward(small(x), [gate, up, down], options([WeightLayout::InOut; 2]))
            },
            |[x, gate, up, down]| {
                let x = small(x);
                (silu(x.clone().matmul(gate)) * x.matmul(up)).matmul(down)
            },
        );
        check(
            "gated feed-forward out-in",
            [[rows, d], [f, d], [f, d], [d_out, f]],
            |[x, gate, up, down]| {
                ops::gated_feed_forward(small(x), [gate, up, down], options([WeightLayout::OutIn; 2]))
            },
            |[x, gate, up, down]| {
                let x = small(x);
                let inner = silu(x.clone().matmul(gate.transpose())) * x.matmul(up.transpose());
                inner.matmul(down.transpose())
            },
        );
    }
}

#[test]
fn residuals() {
    check("residual", [[9, 31], [9, 31]], |[x, added]| ops::residual(x, added), |[x, added]| x + added);
    // What goes around a layer twice gets both gradients.
    check("residual of itself", [[9, 31]], |[x]| ops::residual(x.clone(), x), |[x]| x * 2.0);
}

#[test]
fn rotation() {
    for (rows, pairs, width) in [(1, 4, 8), (2, 3, 6), (2, 3, 10)] {
        let [b, t, h] = [2, 5, 3];
        let angles = |x: &Tensor<4>| random([rows, t, 1, pairs], "angles", &x.device());
        check(
            "rotation",
            [[b, t, h, width]],
            |[x]| {
                let angles = angles(&x);
                ops::rotate(x, angles.clone().cos(), angles.sin())
            },
            |[x]| {
                let (cos, sin) = (angles(&x).cos(), angles(&x).sin());
                let part = |from, to| x.clone().slice([0..b, 0..t, 0..h, from..to]);
                let (first, second) = (part(0, pairs), part(pairs, 2 * pairs));
                let turned = [
                    first.clone() * cos.clone() - second.clone() * sin.clone(),
                    second * cos + first * sin,
                    part(2 * pairs, width),
                ];
                Tensor::cat(turned.into_iter().filter(|x| x.dims()[3] > 0).collect(), 3)
            },
        );
    }
}

#[test]
fn gelu_in_both_forms() {
    for shape in [[1, 1], [3, 17], [64, 65]] {
        check(
            "gelu erf",
            [shape],
            |[x]| ops::activate(x, Activation::GeluErf),
            |[x]| {
                let phi = (x.clone() / 2f32.sqrt()).erf() * 0.5 + 0.5;
                x * phi
            },
        );
        check(
            "gelu tanh",
            [shape],
            |[x]| ops::activate(x, Activation::GeluTanh),
            |[x]| {
                let inner = (x.clone() + x.clone() * x.clone() * x.clone() * 0.044715) * 0.797_884_6;
                x * (inner.tanh() + 1.0) * 0.5
            },
        );
    }
}

fn attention_twin(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    attention_twin_biased(q, (k, v), None, options)
}

fn attention_twin_biased(
    q: Tensor<4>,
    (k, v): (Tensor<4>, Tensor<4>),
    bias: Option<Tensor<2>>,
    options: AttentionOptions,
) -> Tensor<4> {
    let [_, t, heads, _] = q.dims();
    let [b, s, key_heads, w] = k.dims();
    let spread = |x: Tensor<4>| {
        let x: Tensor<5> = x.swap_dims(1, 2).reshape([b, key_heads, 1, s, w]);
        x.repeat_dim(2, heads / key_heads).reshape([b, heads, s, w])
    };
    let mut scores = q.swap_dims(1, 2).matmul(spread(k).swap_dims(2, 3)) * options.scale;
    if let Some(bias) = bias {
        // A query's row of biases, one after the other: from its distance to key 0 down.
        let row = |i: usize| bias.clone().slice([0..heads, i..i + s]).flip([1]).reshape([1, heads, 1, s]);
        scores = scores + Tensor::cat((0..t).map(row).collect(), 2);
    }
    if let Some(rows) = options.rows {
        let seen: Tensor<4> = rows.weights(s, &scores.device()).reshape([b, 1, 1, s]);
        scores = scores + (seen - 1.0) * 1e30;
    }
    let AttentionMask { causal, sliding_window } = options.mask;
    if causal || sliding_window.is_some() {
        let window = sliding_window.unwrap_or(s + 1);
        let seen = |p: usize, j: usize| p.abs_diff(j) < window && (j <= p || !causal);
        let mask = (0..t * s).map(|at| if seen(s - t + at / s, at % s) { 0.0 } else { -1e30f32 });
        let mask = TensorData::new(mask.collect::<Vec<_>>(), [1, 1, t, s]);
        scores = scores.clone() + Tensor::from_data(mask, &scores.device());
    }
    let exp = (scores.clone() - scores.max_dim(3)).exp();
    let p = exp.clone() / exp.sum_dim(3);
    let p = match options.dropout {
        Some(Dropout { probability, seed }) => ops::dropout(p, probability, seed),
        None => p,
    };
    p.matmul(spread(v)).swap_dims(1, 2)
}

#[test]
fn attention() {
    // batch, queries, keys, heads, key heads, width
    let cases: [(usize, usize, usize, usize, usize, usize); 5] = [
        (1, 1, 1, 1, 1, 4),
        (2, 9, 9, 3, 3, 8),
        (1, 5, 12, 4, 2, 16),
        (2, 33, 70, 2, 1, 32),
        (1, 64, 64, 2, 2, 64),
    ];
    for (b, t, s, h, key_h, w) in cases {
        // Every query sees the first key, or there would be nothing to compare.
        let rows = PaddingMask::padded_right((0..b).map(|row| 1 + s / (row + 2)));
        // Here the last query's window reaches the last key of the shorter row.
        let (near, window) = (PaddingMask::padded_right((0..b).map(|row| s - s / 3 * row)), Some(s / 3 + 1));
        for (causal, rows, sliding_window) in [
            (true, None, None),
            (false, None, None),
            (true, Some(rows.clone()), None),
            (false, Some(rows), None),
            (true, None, window),
            (false, None, window),
            (true, Some(near.clone()), window),
            (false, Some(near), window),
        ] {
            let mask = AttentionMask { causal, sliding_window };
            let options = AttentionOptions { scale: 0.4, mask, n_keys: s, rows, dropout: None };
            let halves = |kv: Tensor<4>| (kv.clone().slice([0..b, 0..s]), kv.slice([0..b, s..2 * s]));
            for device in devices() {
                let device = device.autodiff();
                let run = |attend: fn(Tensor<4>, Tensor<4>, Tensor<4>, AttentionOptions) -> Tensor<4>| {
                    let q = random([b, t, h, w], "q", &device).require_grad();
                    let kv = random([b, 2 * s, key_h, w], "kv", &device).require_grad();
                    let (k, v) = halves(kv.clone());
                    let out = attend(q.clone(), k, v, options.clone());
                    let grads = (out.clone() * random([b, t, h, w], "towards", &device)).sum().backward();
                    (out.inner(), q.grad(&grads).unwrap(), kv.grad(&grads).unwrap())
                };
                let ((out, dq, dkv), (out_twin, dq_twin, dkv_twin)) =
                    (run(ops::attention), run(attention_twin));
                assert_close("attention", out, out_twin);
                assert_close("dq", dq, dq_twin);
                assert_close("dkv", dkv, dkv_twin);
            }
        }
    }
}

#[test]
fn attention_with_biases_by_distance() {
    // batch, queries, keys, heads, key heads, width
    for (b, t, s, h, key_h, w) in [(1, 1, 6, 1, 1, 4), (2, 9, 9, 3, 3, 8), (3, 40, 70, 4, 2, 16)] {
        let rows = PaddingMask::padded_right((0..b).map(|row| s - row));
        for (causal, sliding_window, rows) in
            [(true, None, None), (false, None, Some(rows.clone())), (true, Some(s / 2 + 1), Some(rows))]
        {
            let mask = AttentionMask { causal, sliding_window };
            let options = AttentionOptions { scale: 0.4, mask, n_keys: s, rows, dropout: None };
            for device in devices() {
                let device = device.autodiff();
                let run = |fused: bool| {
                    let of = |shape: [usize; 4], name: &str| random(shape, name, &device).require_grad();
                    let (q, k, v) =
                        (of([b, t, h, w], "q"), of([b, s, key_h, w], "k"), of([b, s, key_h, w], "v"));
                    let bias = random([h, t + s - 1], "bias", &device).require_grad();
                    let (kv, options) = ((k.clone(), v.clone()), options.clone());
                    let out = match fused {
                        true => ops::attention_biased(q.clone(), kv, bias.clone(), options),
                        false => attention_twin_biased(q.clone(), kv, Some(bias.clone()), options),
                    };
                    let grads = (out.clone() * random([b, t, h, w], "towards", &device)).sum().backward();
                    let of_inputs = [q, k, v].map(|x| x.grad(&grads).unwrap());
                    (out.inner(), of_inputs, bias.grad(&grads).unwrap())
                };
                let ((out, of_inputs, dbias), (out_twin, of_inputs_twin, dbias_twin)) =
                    (run(true), run(false));
                assert_close("attention", out, out_twin);
                for ((name, ours), twin) in ["dq", "dk", "dv"].iter().zip(of_inputs).zip(of_inputs_twin) {
                    assert_close(name, ours, twin);
                }
                assert_close("dbias", dbias, dbias_twin);
            }
        }
    }
}

/// Output of an attention, its gradients in queries, keys and values, and that in the biases if it has used them.
fn dropped_attention(
    [b, t, h, w]: [usize; 4],
    key_h: usize,
    options: &AttentionOptions,
    device: &Device,
    attend: impl Fn([Tensor<4>; 3], Tensor<2>, AttentionOptions) -> Tensor<4>,
) -> Vec<Tensor<1>> {
    let s = options.n_keys;
    let of = |shape: [usize; 4], name: &str| random(shape, name, device).require_grad();
    let qkv = [of([b, t, h, w], "q"), of([b, s, key_h, w], "k"), of([b, s, key_h, w], "v")];
    let bias = random([h, t + s - 1], "bias", device).require_grad();
    let out = attend(qkv.clone(), bias.clone(), options.clone());
    let grads = (out.clone() * random([b, t, h, w], "towards", device)).sum().backward();
    let mut found = vec![out.inner().flatten(0, 3)];
    found.extend(qkv.iter().map(|x| x.grad(&grads).unwrap().flatten(0, 3)));
    found.extend(bias.grad(&grads).map(|dbias| dbias.flatten(0, 1)));
    found
}

#[test]
fn attention_drops_probabilities_by_seed_and_place() {
    // batch, queries, keys, heads, key heads, width
    for (b, t, s, h, key_h, w) in [(1, 1, 6, 1, 1, 4), (2, 9, 9, 4, 2, 8), (2, 30, 70, 2, 2, 16)] {
        let rows = PaddingMask::padded_right((0..b).map(|row| s - row * s / 3));
        for (causal, rows) in [(true, None), (false, None), (true, Some(rows.clone())), (false, Some(rows))] {
            let mask = AttentionMask { causal, sliding_window: None };
            let dropout = Some(Dropout { probability: 0.3, seed: Seed::new(5) });
            let options = AttentionOptions { scale: 0.4, mask, n_keys: s, rows, dropout };
            for device in devices() {
                let device = device.autodiff();
                let run = |options: &AttentionOptions, fused: bool, biased: bool| {
                    dropped_attention(
                        [b, t, h, w],
                        key_h,
                        options,
                        &device,
                        |[q, k, v], bias, options| match (fused, biased) {
                            (true, true) => ops::attention_biased(q, (k, v), bias, options),
                            (true, false) => ops::attention(q, k, v, options),
                            (false, biased) => {
                                attention_twin_biased(q, (k, v), biased.then_some(bias), options)
                            }
                        },
                    )
                };
                for biased in [false, true] {
                    let (ours, twin) = (run(&options, true, biased), run(&options, false, biased));
                    assert_eq!(ours.len(), 4 + usize::from(biased));
                    for (at, (ours, twin)) in ours.iter().zip(&twin).enumerate() {
                        assert_close(&format!("with dropout, {at}"), ours.clone(), twin.clone());
                    }
                    let without = run(&AttentionOptions { dropout: None, ..options.clone() }, true, biased);
                    assert!(floats(ours[0].clone()) != floats(without[0].clone()), "nothing was dropped");
                    let never = Some(Dropout { probability: 0.0, seed: Seed::new(5) });
                    let never = run(&AttentionOptions { dropout: never, ..options.clone() }, true, biased);
                    for (at, (never, without)) in never.into_iter().zip(without).enumerate() {
                        assert_close(&format!("dropout of 0, {at}"), never, without);
                    }
                }
            }
        }
    }
}

#[test]
fn packed_attention_drops_as_separate_tensors_do() {
    let (b, t, h, w) = (2, 9, 3, 8);
    let dropout = Some(Dropout { probability: 0.3, seed: Seed::new(5) });
    let options = AttentionOptions {
        scale: 0.4,
        mask: AttentionMask::CAUSAL,
        n_keys: t,
        rows: Some(PaddingMask::padded_right([t, t - 4])),
        dropout,
    };
    check(
        "packed attention with dropout",
        [[b, t, 3 * h * w]],
        |[qkv]| ops::attention_packed(qkv, h, options.clone()),
        |[qkv]| {
            let part = |at: usize| {
                qkv.clone().slice([0..b, 0..t, at * h * w..(at + 1) * h * w]).reshape([b, t, h, w])
            };
            attention_twin(part(0), part(1), part(2), options.clone()).reshape([b, t, h * w])
        },
    );
}

#[test]
fn attention_ignores_spare_capacity() {
    for device in devices() {
        let q = random([1, 2, 2, 8], "q", &device);
        let (k, v) = (random([1, 20, 2, 8], "k", &device), random([1, 20, 2, 8], "v", &device));
        for sliding_window in [None, Some(4)] {
            let mask = AttentionMask { causal: true, sliding_window };
            let options = AttentionOptions { scale: 0.3, mask, n_keys: 7, rows: None, dropout: None };
            let ours = ops::attention(q.clone(), k.clone(), v.clone(), options.clone());
            let (k, v) = (k.clone().slice([0..1, 0..7]), v.clone().slice([0..1, 0..7]));
            assert_close("filled part", ours, attention_twin(q.clone(), k, v, options));
        }
    }
}

fn ids(values: &[i64], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

#[test]
fn embedding_adds_up_repeated_ids() {
    for device in devices() {
        let device = device.autodiff();
        let [table, table_twin] = [0, 1].map(|_| random([6, 5], "table", &device).require_grad());
        let ids_bt = ids(&[1, 3, 3, 0, 1, 1], &device).reshape([2, 3]);
        let y = ops::embedding(table.clone(), ids_bt);
        let twin = table_twin.clone().select(0, ids(&[1, 3, 3, 0, 1, 1], &device)).reshape([2, 3, 5]);
        assert_close("rows", y.clone().inner(), twin.clone().inner());
        let towards = random([2, 3, 5], "towards", &device);
        let (grads, grads_twin) = ((y * towards.clone()).sum().backward(), (twin * towards).sum().backward());
        assert_close("dtable", table.grad(&grads).unwrap(), table_twin.grad(&grads_twin).unwrap());
    }
}

#[test]
#[should_panic(expected = "id 6 is outside a table of 6 entries")]
fn an_id_outside_the_table_panics() {
    let device = devices().remove(0);
    let _ = ops::embedding(random([6, 5], "table", &device), ids(&[6], &device).reshape([1, 1]));
}

#[test]
fn head_cross_entropy() {
    for (n, d, v) in [(1, 3, 2), (9, 16, 65), (40, 8, 1031)] {
        for device in devices() {
            let device = device.autodiff();
            let leaves = || {
                let hidden = random([n, d], "hidden", &device).require_grad();
                (hidden, random([v, d], "head", &device).require_grad())
            };
            let ((hidden, head), (hidden_twin, head_twin)) = (leaves(), leaves());
            let targets: Vec<i64> = (0..n as i64).map(|at| at * 7 % v as i64).collect();
            let weights: Vec<f32> = (0..n).map(|at| [0.5, 0.0, 1.5][at % 3]).collect();
            let weights_n = Tensor::<1>::from_data(TensorData::new(weights, [n]), &device);
            let ours = ops::head_cross_entropy(
                hidden.clone(),
                head.clone(),
                ids(&targets, &device),
                weights_n.clone(),
            );
            let logits = hidden_twin.clone().matmul(head_twin.clone().transpose());
            let max = logits.clone().max_dim(1);
            let lse = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
            let picked = logits.gather(1, ids(&targets, &device).reshape([n, 1]));
            let twin = ((lse - picked).reshape([n]) * weights_n).sum();
            assert_close("loss", ours.clone().inner(), twin.clone().inner());
            // An upstream gradient other than one.
            let (grads, grads_twin) = ((ours * 3.0).backward(), (twin * 3.0).backward());
            assert_close("dhidden", hidden.grad(&grads).unwrap(), hidden_twin.grad(&grads_twin).unwrap());
            assert_close("dhead", head.grad(&grads).unwrap(), head_twin.grad(&grads_twin).unwrap());
        }
    }
}

/// The loss of each row by its definition, `[n]`.
fn losses_twin(hidden: Tensor<2>, head: Tensor<2>, bias: Tensor<1>, targets: &[i64]) -> Tensor<1> {
    let (n, v) = (targets.len(), bias.dims()[0]);
    let device = hidden.device();
    let logits = hidden.matmul(head.transpose()) + bias.reshape([1, v]);
    let max = logits.clone().max_dim(1);
    let lse = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
    (lse - logits.gather(1, ids(targets, &device).reshape([n, 1]))).reshape([n])
}

#[test]
fn losses_of_a_head_with_bias() {
    for (n, d, v) in [(1, 3, 2), (9, 16, 65), (40, 8, 1031)] {
        for device in devices() {
            let device = device.autodiff();
            let leaves = || {
                let hidden = random([n, d], "hidden", &device).require_grad();
                let head = random([v, d], "head", &device).require_grad();
                (hidden, head, random([v], "bias", &device).require_grad())
            };
            let targets: Vec<i64> = (0..n as i64).map(|at| at * 7 % v as i64).collect();
            let weights: Vec<f32> = (0..n).map(|at| [0.5, 0.0, 1.5][at % 3]).collect();
            let counts: Vec<f32> = weights.iter().map(|w| if *w == 0.0 { 0.0 } else { 1.0 }).collect();
            let of = |values: &[f32]| -> Tensor<1> {
                Tensor::from_data(TensorData::new(values.to_vec(), [n]), &device)
            };
            let (weights_n, counts_n) = (of(&weights), of(&counts));
            let towards_n = random([n], "towards", &device);
            // What becomes of the rows: the weighted sum, its own operation, and gradients of any sign.
            for form in 0..3 {
                let ((hidden, head, bias), twins) = (leaves(), leaves());
                let params = || Head { weight_vd: head.clone(), bias_v: Some(bias.clone()) };
                let targets_n = || ids(&targets, &device);
                let losses = || ops::head_losses(hidden.clone(), params(), targets_n(), weights_n.clone());
                let rows = losses_twin(twins.0.clone(), twins.1.clone(), twins.2.clone(), &targets);
                let (ours, twin) = match form {
                    0 => (losses() * weights_n.clone(), rows * weights_n.clone()),
                    1 => (
                        ops::head_cross_entropy(hidden.clone(), params(), targets_n(), weights_n.clone()),
                        (rows * weights_n.clone()).sum(),
                    ),
                    _ => (losses() * towards_n.clone(), rows * counts_n.clone() * towards_n.clone()),
                };
                assert_close("losses", ours.clone().inner(), twin.clone().inner());
                let (grads, grads_twin) = ((ours.sum() * 3.0).backward(), (twin.sum() * 3.0).backward());
                assert_close("dhidden", hidden.grad(&grads).unwrap(), twins.0.grad(&grads_twin).unwrap());
                assert_close("dhead", head.grad(&grads).unwrap(), twins.1.grad(&grads_twin).unwrap());
                assert_close("dbias", bias.grad(&grads).unwrap(), twins.2.grad(&grads_twin).unwrap());
            }
        }
    }
}

#[test]
fn dropout_is_its_own_gradient_and_the_same_everywhere() {
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for device in devices() {
        let device = device.autodiff();
        let x = Tensor::<2>::ones([50, 40], &device).require_grad();
        let y = ops::dropout(x.clone(), 0.25, Seed::new(3));
        let mask = floats(y.clone().inner());
        let dropped = mask.iter().filter(|&&m| m == 0.0).count();
        assert!((400..600).contains(&dropped), "{dropped} of 2000 were dropped at 0.25");
        assert!(mask.iter().all(|&m| m == 0.0 || (m - 4.0 / 3.0).abs() < 1e-6));
        let grads = y.sum().backward();
        assert_eq!(floats(x.grad(&grads).unwrap()), mask);
        seen.push(mask);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn adamw_follows_the_formula() {
    let step = AdamWStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 0.5,
    };
    for device in devices() {
        let one = |value: f32| Tensor::<1>::from_floats([value, -value], &device);
        let mut at = Moments { value: one(1.0), mean: one(0.0), square: one(0.0) };
        let (mut value, mut mean, mut square) = (1.0f64, 0.0f64, 0.0f64);
        for number in 1..=5 {
            let grad = 0.3 * number as f64;
            at = ops::adamw(at, one(grad as f32), AdamWStep { step: number, ..step });
            let scaled = grad * 0.5;
            mean = 0.9 * mean + 0.1 * scaled;
            square = 0.99 * square + 0.01 * scaled * scaled;
            let (m, s) =
                (mean / (1.0 - 0.9f64.powi(number as i32)), square / (1.0 - 0.99f64.powi(number as i32)));
            value = value - 0.01 * 0.1 * value - 0.01 * m / (s.sqrt() + 1e-8);
            let expected = Tensor::<1>::from_floats([value as f32, -value as f32], &device);
            assert_close("value", at.value.clone(), expected);
        }
    }
}

/// The direction of one matrix's step, by its definition.
fn orthogonal(mixed: Tensor<2>, step: MuonStep) -> Tensor<2> {
    let [a, b, c] = step.ns_coefficients;
    let mut x = mixed.clone() / (mixed.clone() * mixed).sum().sqrt().reshape([1, 1]);
    for _ in 0..step.ns_steps {
        let gram = x.clone().matmul(x.clone().transpose());
        let factor = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + factor.matmul(x);
    }
    x
}

#[test]
fn muon_makes_each_matrix_orthogonal_by_itself() {
    let step = MuonStep {
        momentum: 0.9,
        nesterov: true,
        ns_steps: 2,
        ns_coefficients: [3.4445, -4.7750, 2.0315],
        eps: 1e-7,
        grad_scale: 0.5,
    };
    // Alone, wide and tall; three in turn by two rows each; three side by side in each row.
    let side_by_side = Matrices { count: 3, rows: 4, cols: 5, run: 5 };
    let in_turn = Matrices { count: 3, rows: 6, cols: 4, run: 8 };
    let all = [Matrices::one(7, 40), Matrices::one(40, 7), in_turn, side_by_side];
    for device in devices() {
        let tensor = |label: &str, Matrices { count, rows, cols, .. }: Matrices| {
            random([count * rows * cols], &format!("{label} {rows}"), &device)
        };
        let parameter = |matrices: Matrices| Momentum {
            grad: tensor("grad", matrices),
            momentum: tensor("momentum", matrices),
            matrices,
        };
        let found = ops::muon_directions(all.map(parameter).to_vec(), step);
        assert_eq!(found.len(), all.len());
        for ((direction, momentum), matrices) in found.into_iter().zip(all) {
            let grad = tensor("grad", matrices) * 0.5;
            let mean = tensor("momentum", matrices) * 0.9 + grad.clone() * 0.1;
            assert_close("momentum", momentum, mean.clone());
            let Matrices { count, rows, cols, run } = matrices;
            let turns = rows * cols / run;
            let of = |list: Tensor<1>, at: usize| -> Tensor<2> {
                list.reshape([turns, count, run]).slice([0..turns, at..at + 1, 0..run]).reshape([rows, cols])
            };
            for at in 0..count {
                let twin = orthogonal(of(mean.clone() * 0.9 + grad.clone() * 0.1, at), step);
                assert_close(&format!("{matrices:?}, {at}"), of(direction.clone(), at), twin);
            }
        }
        assert!(ops::muon_directions(Vec::new(), step).is_empty());
    }
}

#[test]
fn descending_shortens_and_steps() {
    for device in devices() {
        let (value, direction) = (random([30, 20], "value", &device), random([30, 20], "step", &device));
        let twin = value.clone() * 0.9 - direction.clone() * 0.2;
        assert_close("sgd_step", ops::sgd_step(value, direction, 0.9, 0.2), twin);
    }
}

#[test]
fn square_sum_of_a_view() {
    for device in devices() {
        let x = random([30, 20], "x", &device);
        assert_close("square sum", ops::square_sum(x.clone().transpose()), (x.clone() * x).sum());
    }
}
