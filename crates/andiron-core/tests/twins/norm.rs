//! Norms, alone, of sums and between residual branches; residual additions.

use andiron_core::ops::{self, Activation};
use burn::tensor::Tensor;

use crate::{activation, check};

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
                x + activation::reference(normed, Activation::Silu)
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
            sum + activation::reference(normed, Activation::Silu)
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
            sum + activation::reference(normed, Activation::Silu) + added
        },
    );
}

#[test]
fn residuals() {
    check("residual", [[9, 31], [9, 31]], |[x, added]| ops::residual(x, added), |[x, added]| x + added);
    // What goes around a layer twice gets both gradients.
    check("residual of itself", [[9, 31]], |[x]| ops::residual(x.clone(), x), |[x]| x * 2.0);
}
