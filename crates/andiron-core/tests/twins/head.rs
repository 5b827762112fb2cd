//! The output head together with its loss.

use andiron_core::ops::{self, Head};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{assert_close, check, devices, random, reference_device};

/// Rows, width, vocabulary.
const SIZES: [[usize; 3]; 3] = [[1, 3, 2], [9, 16, 65], [40, 8, 1031]];

fn targets(n: usize, v: usize, device: &Device) -> Tensor<1, Int> {
    let targets: Vec<i32> = (0..n).map(|at| (at * 7 % v) as i32).collect();
    Tensor::from_data(TensorData::new(targets, [n]), device)
}

fn repeated(weights: [f32; 3], n: usize, device: &Device) -> Tensor<1> {
    let weights: Vec<f32> = weights.into_iter().cycle().take(n).collect();
    Tensor::from_data(TensorData::new(weights, [n]), device)
}

/// Rows that count half, not at all, and more than once.
const WEIGHTS: [f32; 3] = [0.5, 0.0, 1.5];
/// Whether they count.
const COUNTS: [f32; 3] = [1.0, 0.0, 1.0];

/// The loss of each row by its definition, `[n]`.
fn losses(hidden: Tensor<2>, head: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<1> {
    let ([n, _], [v, _], device) = (hidden.dims(), head.dims(), hidden.device());
    let mut logits = hidden.matmul(head.transpose());
    if let Some(bias) = bias {
        logits = logits + bias.reshape([1, v]);
    }
    let max = logits.clone().max_dim(1);
    let lse = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
    (lse - logits.gather(1, targets(n, v, &device).reshape([n, 1]))).reshape([n])
}

#[test]
fn cross_entropy_is_the_weighted_sum_of_losses() {
    for [n, d, v] in SIZES {
        check(
            "head's cross-entropy",
            [[n, d], [v, d]],
            |[hidden, head]| {
                let device = hidden.device();
                let weights_n = repeated(WEIGHTS, n, &device);
                ops::head_cross_entropy(hidden, head, targets(n, v, &device), weights_n)
            },
            |[hidden, head]| {
                let weights_n = repeated(WEIGHTS, n, &hidden.device());
                (losses(hidden, head, None) * weights_n).sum()
            },
        );
    }
}

/// What becomes of the losses of the rows.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// Multiplied by the weights.
    Weighted,
    /// The operation that adds them up.
    CrossEntropy,
    /// Multiplied by factors of any sign, other than the weights.
    Projected,
}

/// The result, and its gradients in hidden states, weight and bias.
fn with_bias([n, d, v]: [usize; 3], what: Use, ours: bool, device: &Device) -> (Tensor<1>, [Tensor<1>; 3]) {
    let device = device.clone().autodiff();
    let hidden = random([n, d], "hidden", &device).require_grad();
    let weight = random([v, d], "head", &device).require_grad();
    let bias = random([v], "bias", &device).require_grad();
    let (weights_n, towards_n) = (repeated(WEIGHTS, n, &device), random([n], "towards", &device));
    let head = Head { weight_vd: weight.clone(), bias_v: Some(bias.clone()) };
    let losses_n = || match ours {
        true => ops::head_losses(hidden.clone(), head.clone(), targets(n, v, &device), weights_n.clone()),
        false => {
            let all = losses(hidden.clone(), weight.clone(), Some(bias.clone()));
            all * repeated(COUNTS, n, &device)
        }
    };
    let result = match what {
        Use::Weighted => losses_n() * weights_n.clone(),
        Use::CrossEntropy if ours => {
            ops::head_cross_entropy(hidden.clone(), head.clone(), targets(n, v, &device), weights_n.clone())
        }
        Use::CrossEntropy => (losses_n() * weights_n.clone()).sum(),
        Use::Projected => losses_n() * towards_n,
    };
    // A gradient other than one comes from above.
    let grads = (result.clone().sum() * 3.0).backward();
    let of_matrices = [&hidden, &weight].map(|x| x.grad(&grads).unwrap().flatten(0, 1));
    let [dhidden, dweight] = of_matrices;
    (result.inner(), [dhidden, dweight, bias.grad(&grads).unwrap()])
}

#[test]
fn losses_of_a_head_with_bias() {
    for sizes in SIZES {
        for what in [Use::Weighted, Use::CrossEntropy, Use::Projected] {
            let (expected, expected_grads) = with_bias(sizes, what, false, &reference_device());
            for device in devices() {
                let (found, grads) = with_bias(sizes, what, true, &device);
                assert_close(&format!("{what:?}"), found, expected.clone());
                for (at, (found, expected)) in grads.into_iter().zip(&expected_grads).enumerate() {
                    assert_close(&format!("{what:?}, gradient {at}"), found, expected.clone());
                }
            }
        }
    }
}

#[test]
fn label_smoothing_spreads_a_share_of_each_target_over_the_vocabulary() {
    for [n, d, v] in SIZES {
        for is_sum in [false, true] {
            check(
                "head's cross-entropy with label smoothing",
                [[n, d], [v, d]],
                |[hidden, head]| {
                    let device = hidden.device();
                    let (targets_n, weights_n) = (targets(n, v, &device), repeated(WEIGHTS, n, &device));
                    match is_sum {
                        true => ops::head_cross_entropy_smoothed(hidden, head, targets_n, weights_n, 0.1),
                        false => ops::head_losses_smoothed(hidden, head, targets_n, weights_n, 0.1),
                    }
                },
                |[hidden, head]| {
                    let device = hidden.device();
                    let nll_n = losses(hidden.clone(), head.clone(), None);
                    let logits = hidden.matmul(head.transpose());
                    let max = logits.clone().max_dim(1);
                    let lse = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
                    let even_n = (lse - logits.mean_dim(1)).reshape([n]);
                    let losses_n = nll_n * 0.9 + even_n * 0.1;
                    match is_sum {
                        true => (losses_n * repeated(WEIGHTS, n, &device)).sum(),
                        false => losses_n * repeated(COUNTS, n, &device),
                    }
                },
            );
        }
    }
}

/// The forward pass without autodiff is an operation of its own.
#[test]
fn losses_without_autodiff() {
    let [n, d, v] = SIZES[1];
    let inputs = |device: &Device| (random([n, d], "hidden", device), random([v, d], "head", device));
    let (hidden, head) = inputs(&reference_device());
    let expected = losses(hidden, head, None) * repeated(COUNTS, n, &reference_device());
    for device in devices() {
        let (hidden, head) = inputs(&device);
        let weights_n = repeated(WEIGHTS, n, &device);
        let found = ops::head_losses(hidden, head, targets(n, v, &device), weights_n);
        assert_close("losses", found, expected.clone());
    }
}
