//! Feed-forward layers composed of Burn's own operations.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::{FeedForwardOptions, FeedForwardParams};
use crate::ops::Tensors;
use crate::ops::activation::composed::{activate, activate_backward};
use crate::ops::linear::composed::{column_sum, project, project_biased, weight_grad};

/// Saved are the inputs of the activation and, of a gated layer, of the gate, then the layer's input.
pub(super) fn feed_forward_saved<B: Backend>(
    x: FloatTensor<B>,
    params: FeedForwardParams<B>,
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> (FloatTensor<B>, Tensors<B>) {
    match params {
        FeedForwardParams::Plain { up, up_bias, down, down_bias } => {
            let before = project_biased::<B>(x.clone(), up, up_bias, layouts[0]);
            let inner = activate::<B>(before.clone(), None, activation);
            (project_biased::<B>(inner, down, down_bias, layouts[1]), Tensors(vec![before, x]))
        }
        FeedForwardParams::Gated { gate, up, down } => {
            let gate = project::<B>(x.clone(), gate, layouts[0]);
            let up = project::<B>(x.clone(), up, layouts[0]);
            let inner = activate::<B>(gate.clone(), Some(up.clone()), activation);
            (project::<B>(inner, down, layouts[1]), Tensors(vec![gate, up, x]))
        }
    }
}

/// # Panics
/// If `saved` is not what [`feed_forward_saved`] returned for these parameters.
pub(super) fn feed_forward_backward<B: Backend>(
    params: FeedForwardParams<B>,
    saved: Tensors<B>,
    dy: FloatTensor<B>,
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> (FloatTensor<B>, FeedForwardParams<B>) {
    let mut saved = saved.0.into_iter();
    let mut saved = || saved.next().expect("what the forward pass saved");
    let before = saved();
    match params {
        FeedForwardParams::Plain { up, down, .. } => {
            let x = saved();
            let inner = activate::<B>(before.clone(), None, activation);
            let ddown = weight_grad::<B>(inner, dy.clone(), layouts[1]);
            let dinner = project::<B>(dy.clone(), down, layouts[1].transposed());
            let (dbefore, _) = activate_backward::<B>(before, None, dinner, activation);
            let grads = FeedForwardParams::Plain {
                up: weight_grad::<B>(x, dbefore.clone(), layouts[0]),
                up_bias: column_sum::<B>(dbefore.clone()),
                down: ddown,
                down_bias: column_sum::<B>(dy),
            };
            (project::<B>(dbefore, up, layouts[0].transposed()), grads)
        }
        FeedForwardParams::Gated { gate, up, down } => {
            let (gated, x) = (saved(), saved());
            let value = activate::<B>(before.clone(), None, activation);
            let inner = B::float_mul(value.clone(), gated.clone());
            let ddown = weight_grad::<B>(inner, dy.clone(), layouts[1]);
            let dinner = project::<B>(dy, down, layouts[1].transposed());
            let dgated = B::float_mul(value, dinner.clone());
            let dvalue = B::float_mul(dinner, gated);
            let (dbefore, _) = activate_backward::<B>(before, None, dvalue, activation);
            let grads = FeedForwardParams::Gated {
                gate: weight_grad::<B>(x.clone(), dbefore.clone(), layouts[0]),
                up: weight_grad::<B>(x, dgated.clone(), layouts[0]),
                down: ddown,
            };
            let back = |slopes, weight| project::<B>(slopes, weight, layouts[0].transposed());
            (B::float_add(back(dbefore, gate), back(dgated, up)), grads)
        }
    }
}
