//! Fused tensor operations: one function per operation, one gradient each, the same on every backend.
//!
//! The bridge has three layers. The functions here take and return [`Tensor`]s and check shapes. They call the
//! extension trait [`FusedOps`], whose default bodies (`composed`) are chains of Burn's own operations, which
//! is what GPU backends run. On `ndarray` and `flex` the trait is implemented by `host`, which hands the
//! tensors' memory to `andiron-kernels`. Gradients are written by hand, once for all backends, in `autodiff`.

mod autodiff;
mod blocks;
mod composed;
mod distances;
// Without a backend there is nothing to dispatch to, and the generated methods leave their arguments unused.
#[cfg_attr(not(any(feature = "cube", feature = "flex", feature = "ndarray")), allow(unused_variables))]
mod fused;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod muon;
mod norms;
mod op_times;

use andiron_kernels::random::Seed;
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

pub use andiron_kernels::rotary::Turn;
pub(crate) use blocks::attention_blocks;
pub use fused::FusedOps;
pub use muon::{Matrices, Momentum, MuonStep, descend, muon_directions};
pub use norms::*;
pub use op_times::{OpKind, OpTimes, with_op_times};

use crate::Rows;
use crate::precision::{self, Precision};
use crate::quant::QuantMatrix;

type Dispatch = burn::backend::Dispatch;

/// How the weight of an affine map lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// `[d_input, d_output]`, as in GPT-2's `Conv1D`.
    InOut,
    /// `[d_output, d_input]`, as in PyTorch's `Linear`, and an embedding table used as output head.
    OutIn,
}

impl WeightLayout {
    /// The layout of the same memory read as the transposed map.
    pub fn transposed(self) -> Self {
        match self {
            Self::InOut => Self::OutIn,
            Self::OutIn => Self::InOut,
        }
    }

    /// Width of the input and of the output of a weight of this shape.
    fn sizes(self, [rows, columns]: [usize; 2]) -> (usize, usize) {
        match self {
            Self::InOut => (rows, columns),
            Self::OutIn => (columns, rows),
        }
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · Φ(x)`, the Gaussian error linear unit: Hugging Face's `gelu`.
    ///
    /// Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", <https://arxiv.org/abs/1606.08415>.
    GeluErf,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`, the usual approximation of it: Hugging Face's `gelu_new`.
    GeluTanh,
    /// `x / (1 + exp(−x))`, also called swish.
    ///
    /// Source: Elfwing, Uchibe and Doya 2018, <https://arxiv.org/abs/1702.03118>.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// How queries look at keys.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Multiplies the scores before the softmax; usually `1 / √(head width)`.
    pub scale: f32,
    /// Whether a query sees only keys at its own position and before. Queries are the last of the keys: query
    /// `i` of `t` sees keys `0 ..= n_keys − t + i`.
    pub causal: bool,
    /// A query sees only keys at most this many positions before it and, unless `causal`, after it, its own position
    /// being `n_keys − t + i`; `None` is any distance. A sliding window of `w` positions, the query's own included, is a
    /// reach of `w − 1`.
    ///
    /// Source: Beltagy et al. 2020, "Longformer: The Long-Document Transformer", <https://arxiv.org/abs/2004.05150>;
    /// Jiang et al. 2023, "Mistral 7B", <https://arxiv.org/abs/2310.06825>.
    pub reach: Option<usize>,
    /// How many keys are filled; the buffers may be longer.
    pub n_keys: usize,
    /// Which keys of each sequence anybody sees, the others being padding; `None` is all. What a query that sees none
    /// gets is not specified.
    pub rows: Option<Rows>,
}

impl AttentionOptions {
    #[track_caller]
    fn assert_fit(&self, q_bthk: &Tensor<4>, k_bshk: &Tensor<4>, v_bshk: &Tensor<4>) {
        let [b, t, h, k] = q_bthk.dims();
        let [key_b, capacity, key_h, key_k] = k_bshk.dims();
        assert_eq!(k_bshk.dims(), v_bshk.dims(), "keys and values have one shape");
        assert_eq!((b, k), (key_b, key_k), "queries and keys have one batch and one width");
        assert!(h.is_multiple_of(key_h), "{h} query heads cannot share {key_h} key heads evenly");
        assert!(self.n_keys <= capacity, "{} keys in a buffer for {capacity}", self.n_keys);
        let anywhere = !self.causal && self.reach.is_none();
        assert!(anywhere || t <= self.n_keys, "{t} queries at positions of {} keys", self.n_keys);
        assert!(self.rows.as_ref().is_none_or(|rows| rows.len() == b), "rows of keys for {b} sequences");
    }
}

/// How the parts of a [`feed_forward`] or [`gated_feed_forward`] layer are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardOptions {
    /// The function between the maps.
    pub activation: Activation,
    /// How the weights before and behind the activation lie in memory.
    pub layouts: [WeightLayout; 2],
}

/// One update of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the running mean of gradients.
    pub beta1: f32,
    /// Decay of the running mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Share of the parameter that is taken away per unit of learning rate, apart from the gradient.
    pub weight_decay: f32,
    /// Number of this update, from 1.
    pub step: u64,
    /// Multiplies the gradient first: clipping.
    pub grad_scale: f32,
}

/// `x · W + b` on the last axis; see [`WeightLayout`] for the order of `weight`'s axes, and
/// [`with_precision`](crate::precision::with_precision) for what the factors are rounded to.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    layout: WeightLayout,
) -> Tensor<D> {
    let mut shape = x.dims();
    let (d_input, d_output) = layout.sizes(weight.dims());
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_output}");
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let (x, weight) = (x_nd.into_dispatch(), weight.into_dispatch());
    let y = match bias {
        Some(bias) => {
            assert_eq!([d_output], bias.dims(), "bias of a map to {d_output}");
            Dispatch::affine_bias(x, weight, bias.into_dispatch(), layout, precision::current())
        }
        None => Dispatch::affine(x, weight, layout, precision::current()),
    };
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}

/// [`linear`] by a matrix in blocks, `[d_output, d_input]`.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn linear_quantized<const D: usize>(
    x: Tensor<D>,
    weight: &QuantMatrix,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [d_output, d_input] = weight.dims();
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_output}");
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let (x, weight) = (x_nd.into_dispatch(), weight.clone());
    let y = match bias {
        Some(bias) => {
            assert_eq!([d_output], bias.dims(), "bias of a map to {d_output}");
            Dispatch::affine_quantized_bias(x, bias.into_dispatch(), weight, precision::current())
        }
        None => Dispatch::affine_quantized(x, weight, precision::current()),
    };
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}

/// An activation function, element by element.
pub fn activate<const D: usize>(x: Tensor<D>, form: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), form))
}

/// `activate(x) · up`, element by element: what a gated feed-forward layer does between its maps.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Panics
/// If the shapes differ.
pub fn gate<const D: usize>(x: Tensor<D>, up: Tensor<D>, form: Activation) -> Tensor<D> {
    assert_eq!(x.dims(), up.dims(), "both sides of a gate have one shape");
    Tensor::from_dispatch(Dispatch::gate(x.into_dispatch(), up.into_dispatch(), form))
}

/// `activate(x · W₁ + b₁) · W₂ + b₂` on the last axis, as one piece: where that is faster, what lies between the maps is
/// never in memory as a whole, and the backward pass computes the activation again.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.3, <https://arxiv.org/abs/1706.03762>.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn feed_forward<const D: usize>(
    x: Tensor<D>,
    weights: [Tensor<2>; 2],
    biases: [Tensor<1>; 2],
    options: FeedForwardOptions,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [(d_input, d_inner), (d_inner_too, d_output)] =
        [0, 1].map(|at| options.layouts[at].sizes(weights[at].dims()));
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_inner}");
    assert_eq!(d_inner, d_inner_too, "one map makes what the other takes");
    assert_eq!([d_inner, d_output], biases.each_ref().map(|bias| bias.dims()[0]), "biases of the maps");
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let ([up, down], [up_bias, down_bias]) =
        (weights.map(Tensor::into_dispatch), biases.map(Tensor::into_dispatch));
    let how = (options, precision::current());
    let y = Dispatch::feed_forward(x_nd.into_dispatch(), up, up_bias, down, down_bias, how);
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}

/// `(activate(x · W₁) · (x · W₂)) · W₃` on the last axis, as one piece as [`feed_forward`] is.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn gated_feed_forward<const D: usize>(
    x: Tensor<D>,
    [gate, up, down]: [Tensor<2>; 3],
    options: FeedForwardOptions,
) -> Tensor<D> {
    let mut shape = x.dims();
    let (d_input, d_inner) = options.layouts[0].sizes(up.dims());
    let (d_inner_too, d_output) = options.layouts[1].sizes(down.dims());
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_inner}");
    assert_eq!(gate.dims(), up.dims(), "both first maps have one shape");
    assert_eq!(d_inner, d_inner_too, "one map makes what the other takes");
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let [x, gate, up, down] = [x_nd, gate, up, down].map(Tensor::into_dispatch);
    let y = Dispatch::gated_feed_forward(x, gate, up, down, (options, precision::current()));
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}

/// Turns pairs of channels of every head, `i` and `i + pairs`, by the angles of their position; further channels stay.
///
/// # Shape
/// `x_bthk`: `[batch, t, heads, width]`; cosines and sines: `[batch or 1, t, 1, pairs]`, which get no gradient.
///
/// # Panics
/// If the shapes do not fit.
pub fn rotate(x_bthk: Tensor<4>, cos_bt1k: Tensor<4>, sin_bt1k: Tensor<4>) -> Tensor<4> {
    let ([b, t, _, k], [rows, columns, one, pairs]) = (x_bthk.dims(), cos_bt1k.dims());
    assert_eq!(cos_bt1k.dims(), sin_bt1k.dims(), "as many sines as cosines");
    assert!((rows == b || rows == 1) && columns == t && one == 1, "angles do not fit {b} x {t} positions");
    assert!(2 * pairs <= k, "{} channels cannot be turned in heads of width {k}", 2 * pairs);
    let (cos, sin) = (cos_bt1k.into_dispatch(), sin_bt1k.into_dispatch());
    Tensor::from_dispatch(Dispatch::rotate(x_bthk.into_dispatch(), cos, sin, Turn::Forth))
}

/// `softmax(q · kᵀ · scale) · v`, per head; query heads share key heads in equal groups.
///
/// # Shape
/// `q_bthk`: `[batch, t, heads, width]`; `k_bshk`, `v_bshk`: `[batch, capacity, key heads, width]` of which the
/// first `options.n_keys` positions are read → `[batch, t, heads, width]`.
///
/// # Panics
/// If the shapes do not fit, or `causal` or a `reach` is asked for with more queries than keys.
pub fn attention(
    q_bthk: Tensor<4>,
    k_bshk: Tensor<4>,
    v_bshk: Tensor<4>,
    options: AttentionOptions,
) -> Tensor<4> {
    options.assert_fit(&q_bthk, &k_bshk, &v_bshk);
    Tensor::from_dispatch(Dispatch::attention_heads(
        q_bthk.into_dispatch(),
        k_bshk.into_dispatch(),
        v_bshk.into_dispatch(),
        options,
        precision::current(),
    ))
}

/// [`attention`] where what is added to a score depends on how far the key is before its query:
/// `softmax(q · kᵀ · scale + bias) · v`.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
/// <https://arxiv.org/abs/1910.10683>, section 2.1.
///
/// # Shape
/// Those of [`attention`], and `bias_hr`: `[heads, t + n_keys − 1]`, of which number `t − 1 + n` is for keys `n` positions
/// before their query, `n` below 0 for those after it.
///
/// # Panics
/// If the shapes do not fit, or there are more queries than keys.
pub fn attention_biased(
    q_bthk: Tensor<4>,
    (k_bshk, v_bshk): (Tensor<4>, Tensor<4>),
    bias_hr: Tensor<2>,
    options: AttentionOptions,
) -> Tensor<4> {
    options.assert_fit(&q_bthk, &k_bshk, &v_bshk);
    let [_, t, h, _] = q_bthk.dims();
    assert!(t <= options.n_keys, "{t} queries at positions of {} keys", options.n_keys);
    assert_eq!(bias_hr.dims(), [h, t + options.n_keys - 1], "biases of {h} heads by distance");
    Tensor::from_dispatch(Dispatch::attention_biased(
        q_bthk.into_dispatch(),
        k_bshk.into_dispatch(),
        v_bshk.into_dispatch(),
        bias_hr.into_dispatch(),
        options,
        precision::current(),
    ))
}

/// The biases of [`attention_biased`] for each query and key, `[1, heads, t, n_keys]`.
pub(crate) fn spread_biases(bias_hr: Tensor<2>, t: usize, n_keys: usize) -> Tensor<4> {
    Tensor::from_dispatch(distances::spread::<Dispatch>(bias_hr.into_dispatch(), t, n_keys))
}

/// [`attention`] of positions over themselves, from one tensor of queries, keys and values side by side, as one
/// projection makes them: nothing is taken apart, and one gradient comes back.
///
/// # Shape
/// `qkv_bt3d`: `[batch, t, 3 · heads · width]`, all queries first, then all keys → `[batch, t, heads · width]`.
///
/// # Panics
/// If the last axis cannot be cut so, or `options.n_keys` is not `t`.
pub fn attention_packed(qkv_bt3d: Tensor<3>, heads: usize, options: AttentionOptions) -> Tensor<3> {
    let [b, t, width] = qkv_bt3d.dims();
    assert!(width.is_multiple_of(3 * heads), "{width} is not three times {heads} heads");
    assert!(options.rows.as_ref().is_none_or(|rows| rows.len() == b), "rows of keys for {b} sequences");
    assert_eq!(t, options.n_keys, "positions look at themselves");
    Tensor::from_dispatch(Dispatch::attention_packed(
        qkv_bt3d.into_dispatch(),
        heads,
        options,
        precision::current(),
    ))
}

/// Looks rows of a table up.
///
/// # Shape
/// `[entries, d]` and `[batch, time]` → `[batch, time, d]`.
///
/// # Panics
/// On the CPU backends, if an id is not below the number of entries.
pub fn embedding(table_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::embedding_rows(table_vd.into_dispatch(), ids_bt.into_dispatch()))
}

/// [`embedding`] in a table in blocks, `[entries, d]`.
///
/// # Shape
/// `[batch, time]` → `[batch, time, d]`.
///
/// # Panics
/// If an id is not below the number of entries.
pub fn embedding_quantized(table: &QuantMatrix, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    let _time = OpKind::Embedding.timer();
    let ([b, t], [entries, d], device) = (ids_bt.dims(), table.dims(), ids_bt.device());
    let ids: Vec<u32> =
        ids_bt.into_data().iter::<i64>().map(|id| id.try_into().unwrap_or(u32::MAX)).collect();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= entries) {
        panic!("id {id} is outside a table of {entries} entries");
    }
    Tensor::from_data(TensorData::new(table.gather(&ids), [b, t, d]), &device)
}

/// Weighted sum of cross-entropies between an output head's predictions and `targets_n`, in nats.
///
/// The logits `hidden · headᵀ` are computed in blocks of rows and never exist as a whole.
///
/// # Shape
/// `hidden_nd`: `[n, d]`; `head_vd`: `[vocabulary, d]`; `targets_n`, `weights_n`: `[n]` → `[1]`.
/// A row whose weight is 0 contributes nothing; its target must still be a valid id.
///
/// # Panics
/// If the shapes do not fit.
pub fn head_cross_entropy(
    hidden_nd: Tensor<2>,
    head_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
) -> Tensor<1> {
    let [n, d] = hidden_nd.dims();
    assert_eq!(d, head_vd.dims()[1], "hidden width and head width");
    assert_eq!([n], targets_n.dims(), "one target a row");
    assert_eq!([n], weights_n.dims(), "one weight a row");
    Tensor::from_dispatch(Dispatch::head_cross_entropy(
        hidden_nd.into_dispatch(),
        head_vd.into_dispatch(),
        targets_n.into_dispatch(),
        weights_n.into_dispatch(),
        precision::current(),
    ))
}

/// Zeroes a share `probability` of the elements and divides the others by `1 − probability`.
///
/// Which elements is a function of `seed` and their place alone: the same on every backend and in the backward
/// pass, so no mask is stored.
///
/// Source: Srivastava et al. 2014, "Dropout", <https://jmlr.org/papers/v15/srivastava14a.html>.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f32, seed: Seed) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), probability, seed.value()))
}

/// A parameter with its running moments, all of one shape.
#[derive(Clone, Debug)]
pub struct Moments<const D: usize> {
    /// The parameter.
    pub value: Tensor<D>,
    /// Running mean of gradients.
    pub mean: Tensor<D>,
    /// Running mean of squared gradients.
    pub square: Tensor<D>,
}

/// One step of Adam with decoupled weight decay, as `torch.optim.AdamW` computes it.
///
/// On the CPU backends memory that nobody else holds is updated in place.
///
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>.
pub fn adamw<const D: usize>(at: Moments<D>, grad: Tensor<D>, step: AdamWStep) -> Moments<D> {
    let (value, mean, square) = Dispatch::adamw(
        at.value.into_dispatch(),
        grad.into_dispatch(),
        at.mean.into_dispatch(),
        at.square.into_dispatch(),
        step,
    );
    Moments {
        value: Tensor::from_dispatch(value),
        mean: Tensor::from_dispatch(mean),
        square: Tensor::from_dispatch(square),
    }
}

/// Sum of squares of all elements, `[1]`.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::square_sum(x.into_dispatch()))
}
