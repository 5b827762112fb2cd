//! Direct preference optimization.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

/// The sigmoid loss of direct preference optimization: `−(1 − s) log σ(m) − s log σ(−m)` with `m` the difference of the
/// rewards of the two answers and `s` the label smoothing.
///
/// Label smoothing is that of the paper's authors ("conservative DPO"). TRL ignores it for the sigmoid loss.
///
/// Source: Rafailov et al. 2023, "Direct Preference Optimization", <https://arxiv.org/abs/2305.18290>; Mitchell 2023, "A note on
/// DPO with noisy preferences & relationship to IPO", <https://ericmitchell.ai/cdpo.pdf>.
///
/// # Shape
/// `policy_n`, `reference_n`: log-probabilities of answers under the model and the reference, `[2 · pairs]`, each chosen one
/// before its rejected one → `[pairs]`.
///
/// # Panics
/// If the shapes differ, the rows are not pairs, or the label smoothing is not in `0..0.5`.
pub fn dpo(policy_n: Tensor<1>, reference_n: Tensor<1>, options: DpoOptions) -> DpoLosses {
    let DpoOptions { beta, label_smoothing } = options;
    let [n] = policy_n.dims();
    assert_eq!([n], reference_n.dims(), "a reference for each answer");
    assert_eq!(n % 2, 0, "{n} answers are not pairs");
    assert!((0.0..0.5).contains(&label_smoothing), "label smoothing {label_smoothing} is not in 0..0.5");
    let p = n / 2;
    let rewards_p2 = ((policy_n - reference_n) * beta).reshape([p, 2]);
    let side = |which: usize| rewards_p2.clone().slice([0..p, which..which + 1]).reshape([p]);
    let margins_p = side(0) - side(1);
    let losses_p = log_sigmoid(margins_p.clone()).neg();
    let losses_p = match label_smoothing == 0.0 {
        true => losses_p,
        false => losses_p * (1.0 - label_smoothing) - log_sigmoid(margins_p.neg()) * label_smoothing,
    };
    DpoLosses { losses_p, rewards_p2: rewards_p2.detach() }
}

/// Settings of [`dpo`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpoOptions {
    /// How closely the reference model is followed: 0.1 is usual.
    pub beta: f32,
    /// Probability that a preference is the wrong way round, below 0.5; 0 is usual.
    pub label_smoothing: f32,
}

/// Losses of pairs of answers.
#[derive(Clone, Debug)]
pub struct DpoLosses {
    /// The loss of each pair, `[pairs]`.
    pub losses_p: Tensor<1>,
    /// Rewards of the chosen and of the rejected answer: `beta` times the log-ratio of the model and the reference. Without
    /// gradient, `[pairs, 2]`.
    pub rewards_p2: Tensor<2>,
}

impl DpoLosses {
    /// By how much the chosen answers have a higher reward, `[pairs]`.
    pub fn margins_p(&self) -> Tensor<1> {
        let [p, _] = self.rewards_p2.dims();
        let side = |which: usize| self.rewards_p2.clone().slice([0..p, which..which + 1]).reshape([p]);
        side(0) - side(1)
    }

    /// 1 for each pair whose chosen answer has the higher reward, else 0, `[pairs]`.
    pub fn hits_p(&self) -> Tensor<1> {
        self.margins_p().greater_elem(0.0).float()
    }
}

/// The log-probability of each row's weighted tokens, from the losses of all positions
/// ([`ops::head_losses`](crate::ops::head_losses)).
///
/// # Shape
/// `losses_n`, `weights_n`: `[rows · columns]` → `[rows]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn sequence_log_probabilities(losses_n: Tensor<1>, weights_n: Tensor<1>, rows: usize) -> Tensor<1> {
    let [n] = losses_n.dims();
    assert_eq!([n], weights_n.dims(), "a weight for each position");
    assert!(rows > 0 && n % rows == 0, "{n} positions are not {rows} rows");
    (losses_n * weights_n).reshape([rows, n / rows]).sum_dim(1).reshape([rows]).neg()
}
