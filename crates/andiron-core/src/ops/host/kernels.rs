//! The fused operations over memory: shapes in, a kernel, a tensor out.
//!
//! Tensors that are not f32 take the composed path.

use std::borrow::Cow;

use andiron_kernels::activation;
use andiron_kernels::adamw::AdamW;
use andiron_kernels::affine::{self, AffineGrads};
use andiron_kernels::attention::{self, Attention, AttentionGrads, AttentionSaved, AttentionShape, Qkv};
use andiron_kernels::cross_entropy::{self, Head, HeadGrads, HeadShape};
use andiron_kernels::dropout::{self as masks, Dropout};
use andiron_kernels::gemm::{self, Epilogue, MatRef};
use andiron_kernels::memory::unspecified as output;
use andiron_kernels::random::Seed;
use andiron_kernels::rotary::{self, RotaryShape};
use andiron_kernels::{Cpu, embedding, muon, quant, reduce, residual};
use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;

use super::HostTensors;
use crate::Rows;
use crate::ops::{
    Activation, AdamWStep, AttentionOptions, Matrices, MuonStep, Precision, Turn, WeightLayout, composed,
};
use crate::quant::QuantMatrix;

pub(super) type Three<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// The processor, with as many threads as the pool this call runs in.
pub(super) fn cpu() -> Cpu {
    Cpu::detect(rayon::current_num_threads())
}

pub(super) fn are_f32<B: HostTensors>(tensors: &[&FloatTensor<B>]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// A weight seen as the map `[d_input, d_output]`.
pub(super) fn as_map(weight: &[f32], shape: [usize; 2], layout: WeightLayout) -> MatRef<'_> {
    let stored = MatRef::row_major(weight, shape[0], shape[1]);
    match layout {
        WeightLayout::InOut => stored,
        WeightLayout::OutIn => stored.t(),
    }
}

pub(super) fn affine<B: HostTensors>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    layout: WeightLayout,
    precision: Precision,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &weight]) {
        return composed::affine::<B>(x, weight, layout);
    }
    product::<B>(&x, &weight, None, layout, precision)
}

pub(super) fn affine_bias<B: HostTensors>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    layout: WeightLayout,
    precision: Precision,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &weight, &bias]) {
        return composed::affine_bias::<B>(x, weight, bias, layout);
    }
    product::<B>(&x, &weight, Some(&B::floats(&bias)), layout, precision)
}

fn product<B: HostTensors>(
    x: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    bias: Option<&[f32]>,
    layout: WeightLayout,
    precision: Precision,
) -> FloatTensor<B> {
    let [rows, d_input] = x.shape().dims();
    let (xs, ws) = (B::floats(x), B::floats(weight));
    let map = as_map(&ws, weight.shape().dims(), layout);
    let d_output = map.cols;
    let mut y = output(rows * d_output);
    let epilogue = Epilogue { bias, accumulate: false };
    gemm::matmul(cpu().at(precision), MatRef::row_major(&xs, rows, d_input), map, epilogue, &mut y);
    B::from_vec(y, &[rows, d_output])
}

/// Gradients of input and weight, and of the bias if that is wanted.
pub(super) fn affine_backward<B: HostTensors>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    (layout, precision): (WeightLayout, Precision),
    with_bias: bool,
) -> Three<B> {
    if !are_f32::<B>(&[&x, &weight, &dy]) {
        let dx = composed::affine::<B>(dy.clone(), weight, layout.transposed());
        let dweight = composed::affine_weight_grad::<B>(x, dy.clone(), layout);
        return (dx, dweight, composed::column_sum::<B>(dy));
    }
    let [x_shape, w_shape, [_, d_output]] = [&x, &weight, &dy].map(|tensor| tensor.shape().dims::<2>());
    let (xs, ws) = (B::floats(&x), B::floats(&weight));
    let bias_len = if with_bias { d_output } else { 0 };
    let (mut dx, mut dw, mut db) = (output(xs.len()), output(ws.len()), output(bias_len));
    let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: with_bias.then_some(&mut db) };
    affine::backward(cpu().at(precision), &xs, as_map(&ws, w_shape, layout), &B::floats(&dy), grads);
    (B::from_vec(dx, &x_shape), B::from_vec(dw, &w_shape), B::from_vec(db, &[bias_len]))
}

pub(super) fn affine_quantized<B: HostTensors>(
    x: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    weight: QuantMatrix,
    precision: Precision,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x]) {
        let stored = composed::dequantized::<B>(&x, &weight);
        return match bias {
            Some(bias) => composed::affine_bias::<B>(x, stored, bias, WeightLayout::OutIn),
            None => composed::affine::<B>(x, stored, WeightLayout::OutIn),
        };
    }
    let ([rows, _], [d_output, _]) = (x.shape().dims::<2>(), weight.dims());
    let mut y = output(rows * d_output);
    let bias = bias.as_ref().map(|bias| B::floats(bias));
    quant::matmul(cpu().at(precision), &B::floats(&x), weight.as_ref(), bias.as_deref(), &mut y);
    B::from_vec(y, &[rows, d_output])
}

pub(super) fn affine_weight_grad<B: HostTensors>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    layout: WeightLayout,
    precision: Precision,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &dy]) {
        return composed::affine_weight_grad::<B>(x, dy, layout);
    }
    let ([rows, d_input], [_, d_output]) = (x.shape().dims(), dy.shape().dims());
    let (xs, dys) = (B::floats(&x), B::floats(&dy));
    let (x, dy) = (MatRef::row_major(&xs, rows, d_input), MatRef::row_major(&dys, rows, d_output));
    let (left, right) = match layout {
        WeightLayout::InOut => (x, dy),
        WeightLayout::OutIn => (dy, x),
    };
    let mut dw = output(d_input * d_output);
    let shape = [left.cols, right.cols];
    gemm::matmul(cpu().at(precision), left.t(), right, Epilogue { bias: None, accumulate: false }, &mut dw);
    B::from_vec(dw, &shape)
}

pub(super) fn column_sum<B: HostTensors>(x: FloatTensor<B>) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x]) {
        return composed::column_sum::<B>(x);
    }
    let [rows, columns] = x.shape().dims();
    let mut sums = output(columns);
    reduce::column_sum(cpu(), rows, columns, &B::floats(&x), &mut sums);
    B::from_vec(sums, &[columns])
}

pub(super) fn unit(form: Activation) -> activation::Activation {
    match form {
        Activation::GeluErf => activation::Activation::GeluErf,
        Activation::GeluTanh => activation::Activation::GeluTanh,
        Activation::Silu => activation::Activation::Silu,
        Activation::Relu => activation::Activation::Relu,
    }
}

pub(super) fn activate<B: HostTensors>(x: FloatTensor<B>, form: Activation) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x]) {
        return composed::activate::<B>(x, form);
    }
    let shape = x.shape();
    let mut y = output(shape.num_elements());
    activation::forward(cpu(), unit(form), &B::floats(&x), &mut y);
    B::from_vec(y, &shape)
}

pub(super) fn activate_backward<B: HostTensors>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    form: Activation,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &dy]) {
        return composed::activate_backward::<B>(x, dy, form);
    }
    let shape = x.shape();
    let mut dx = output(shape.num_elements());
    activation::backward(cpu(), unit(form), &B::floats(&x), &B::floats(&dy), &mut dx);
    B::from_vec(dx, &shape)
}

pub(super) fn gate<B: HostTensors>(
    x: FloatTensor<B>,
    up: FloatTensor<B>,
    form: Activation,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &up]) {
        return B::float_mul(composed::activate::<B>(x, form), up);
    }
    let shape = x.shape();
    let mut y = output(shape.num_elements());
    activation::gate(cpu(), unit(form), &B::floats(&x), &B::floats(&up), &mut y);
    B::from_vec(y, &shape)
}

pub(super) fn gate_backward<B: HostTensors>(
    x: FloatTensor<B>,
    up: FloatTensor<B>,
    dy: FloatTensor<B>,
    form: Activation,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if !are_f32::<B>(&[&x, &up, &dy]) {
        let dup = gate::<B>(x.clone(), dy.clone(), form);
        return (composed::activate_backward::<B>(x, B::float_mul(dy, up), form), dup);
    }
    let shape = x.shape();
    let (mut dx, mut dup) = (output(shape.num_elements()), output(shape.num_elements()));
    let inputs = (&*B::floats(&x), &*B::floats(&up));
    activation::gate_backward(cpu(), unit(form), inputs, &B::floats(&dy), (&mut dx, &mut dup));
    (B::from_vec(dx, &shape), B::from_vec(dup, &shape))
}

/// The sum takes the memory of `added`, if nobody else holds that.
pub(super) fn residual<B: HostTensors>(x: FloatTensor<B>, added: FloatTensor<B>) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &added]) {
        return B::float_add(x, added);
    }
    let shape = x.shape();
    let mut sum = B::into_vec(added);
    residual::add(cpu(), &B::floats(&x), &mut sum);
    B::from_vec(sum, &shape)
}

pub(super) fn rotate<B: HostTensors>(
    x: FloatTensor<B>,
    (cos, sin): (FloatTensor<B>, FloatTensor<B>),
    way: Turn,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x, &cos, &sin]) {
        return composed::rotate::<B>(x, cos, sin, way);
    }
    let [batch, time, heads, width] = x.shape().dims();
    let shape = RotaryShape { batch, time, heads, width, pairs: cos.shape()[3] };
    let mut y = output(batch * time * heads * width);
    rotary::turn(cpu(), shape, (&B::floats(&x), way), (&B::floats(&cos), &B::floats(&sin)), &mut y);
    B::from_vec(y, &[batch, time, heads, width])
}

impl AttentionOptions {
    fn attention<'a>(&'a self, shape: AttentionShape, bias: &'a [f32]) -> Attention<'a> {
        let spans = self.rows.as_ref().map_or(&[][..], Rows::spans);
        let Self { causal, reach, scale, .. } = *self;
        Attention { shape, causal, reach, scale, bias, spans, dropout: None }
    }
}

fn attention<'a, B: HostTensors>(
    q: &FloatTensor<B>,
    k: &FloatTensor<B>,
    bias: &'a [f32],
    options: &'a AttentionOptions,
) -> Attention<'a> {
    let [batch, queries, heads, head_dim] = q.shape().dims();
    let [_, key_capacity, kv_heads, _] = k.shape().dims();
    let shape =
        AttentionShape { batch, queries, keys: options.n_keys, key_capacity, heads, kv_heads, head_dim };
    options.attention(shape, bias)
}

/// `tensors`: queries, keys, values. `bias` is that of each head and distance.
pub(super) fn attention_with_lse<B: HostTensors>(
    tensors: [FloatTensor<B>; 3],
    bias: Option<FloatTensor<B>>,
    (options, precision): (AttentionOptions, Precision),
) -> (FloatTensor<B>, FloatTensor<B>) {
    if !tensors.iter().chain(&bias).all(|tensor| tensor.dtype() == DType::F32) {
        return composed::attention_with_lse::<B>(tensors, bias, options);
    }
    let [q, k, v] = tensors;
    let bias = bias.as_ref().map_or(Cow::Borrowed(&[][..]), |bias| B::floats(bias));
    let [b, t, h, _] = q.shape().dims();
    let (mut out, mut lse) = (output(q.shape().num_elements()), output(b * h * t));
    let qkv = Qkv::Apart { q: &B::floats(&q), k: &B::floats(&k), v: &B::floats(&v) };
    let attention = attention::<B>(&q, &k, &bias, &options);
    attention::forward(cpu().at(precision), attention, qkv, &mut out, &mut lse);
    (B::from_vec(out, &q.shape()), B::from_vec(lse, &[b, h, t]))
}

/// `tensors`: queries, keys, values, output, log denominators, gradient of the output. Beside the gradients of the first
/// three, that of the bias if there is one.
pub(super) fn attention_backward<B: HostTensors>(
    tensors: [FloatTensor<B>; 6],
    bias: Option<FloatTensor<B>>,
    (options, precision): (AttentionOptions, Precision),
) -> (Three<B>, Option<FloatTensor<B>>) {
    if !tensors.iter().chain(&bias).all(|tensor| tensor.dtype() == DType::F32) {
        return composed::attention_backward::<B>(tensors, bias, options);
    }
    let [q, k, v, out, lse, dout] = &tensors;
    let biases = bias.as_ref().map_or(Cow::Borrowed(&[][..]), |bias| B::floats(bias));
    let attention = attention::<B>(q, k, &biases, &options);
    let shape = attention.shape;
    assert_eq!(shape.keys, shape.key_capacity, "gradients flow only through keys without spare capacity");
    let qkv = Qkv::Apart { q: &B::floats(q), k: &B::floats(k), v: &B::floats(v) };
    let saved = AttentionSaved { out: &B::floats(out), lse: &B::floats(lse) };
    let like = |tensor: &FloatTensor<B>| output(tensor.shape().num_elements());
    let (mut dq, mut dk, mut dv, mut dbias) = (like(q), like(k), like(v), output(biases.len()));
    let grads = AttentionGrads::Apart { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: &mut dbias };
    attention::backward(cpu().at(precision), attention, qkv, (saved, &B::floats(dout)), grads);
    let dbias = bias.as_ref().map(|bias| B::from_vec(dbias, &bias.shape()));
    ((B::from_vec(dq, &q.shape()), B::from_vec(dk, &k.shape()), B::from_vec(dv, &v.shape())), dbias)
}

fn packed<'a, B: HostTensors>(
    qkv: &FloatTensor<B>,
    heads: usize,
    options: &'a AttentionOptions,
) -> Attention<'a> {
    let [batch, t, width] = qkv.shape().dims();
    let head_dim = width / 3 / heads;
    let shape =
        AttentionShape { batch, queries: t, keys: t, key_capacity: t, heads, kv_heads: heads, head_dim };
    options.attention(shape, &[])
}

pub(super) fn attention_packed_with_lse<B: HostTensors>(
    qkv: FloatTensor<B>,
    heads: usize,
    options: AttentionOptions,
    precision: Precision,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if !are_f32::<B>(&[&qkv]) {
        return composed::attention_packed_with_lse::<B>(qkv, heads, options);
    }
    let [b, t, width] = qkv.shape().dims();
    let (mut out, mut lse) = (output(b * t * width / 3), output(b * heads * t));
    let attention = packed::<B>(&qkv, heads, &options);
    attention::forward(cpu().at(precision), attention, Qkv::Packed(&B::floats(&qkv)), &mut out, &mut lse);
    (B::from_vec(out, &[b, t, width / 3]), B::from_vec(lse, &[b, heads, t]))
}

/// `tensors`: queries, keys and values in one, output, log denominators, gradient of the output.
pub(super) fn attention_packed_backward<B: HostTensors>(
    tensors: [FloatTensor<B>; 4],
    options: AttentionOptions,
    precision: Precision,
) -> FloatTensor<B> {
    if !tensors.iter().all(|tensor| tensor.dtype() == DType::F32) {
        return composed::attention_packed_backward::<B>(tensors, options);
    }
    let [qkv, out, lse, dout] = &tensors;
    let attention = packed::<B>(qkv, lse.shape()[1], &options);
    let saved = AttentionSaved { out: &B::floats(out), lse: &B::floats(lse) };
    let mut dqkv = output(qkv.shape().num_elements());
    let grads = AttentionGrads::Packed(&mut dqkv);
    attention::backward(
        cpu().at(precision),
        attention,
        Qkv::Packed(&B::floats(qkv)),
        (saved, &B::floats(dout)),
        grads,
    );
    B::from_vec(dqkv, &qkv.shape())
}

pub(super) fn embedding_rows<B: HostTensors>(table: FloatTensor<B>, ids: IntTensor<B>) -> FloatTensor<B> {
    if !are_f32::<B>(&[&table]) {
        return B::embedding(table, ids);
    }
    let ([entries, width], [b, t]) = (table.shape().dims(), ids.shape().dims());
    let ids = checked_ids::<B>(&ids, entries);
    let mut rows = output(ids.len() * width);
    embedding::gather(cpu(), width, &ids, &B::floats(&table), &mut rows);
    B::from_vec(rows, &[b, t, width])
}

pub(super) fn embedding_rows_backward<B: HostTensors>(
    table: FloatTensor<B>,
    dy: FloatTensor<B>,
    ids: IntTensor<B>,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&table, &dy]) {
        return B::embedding_backward(table, dy, ids);
    }
    let [entries, width] = table.shape().dims();
    let mut dtable = vec![0.0; entries * width];
    embedding::scatter_add(cpu(), width, &checked_ids::<B>(&ids, entries), &B::floats(&dy), &mut dtable);
    B::from_vec(dtable, &[entries, width])
}

fn checked_ids<B: HostTensors>(ids: &IntTensor<B>, entries: usize) -> Vec<u32> {
    let ids = B::ids(ids);
    if let Some(id) = ids.iter().find(|&&id| id as usize >= entries) {
        panic!("id {id} is outside a table of {entries} entries");
    }
    ids
}

fn head_shape<B: HostTensors>(hidden: &FloatTensor<B>, head: &FloatTensor<B>) -> HeadShape {
    let ([rows, d], [vocab, _]) = (hidden.shape().dims(), head.shape().dims());
    HeadShape { rows, d, vocab }
}

pub(super) fn head_cross_entropy<B: HostTensors>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    precision: Precision,
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&hidden, &head, &weights]) {
        return composed::head_cross_entropy::<B>(hidden, head, targets, weights);
    }
    let shape = head_shape::<B>(&hidden, &head);
    let targets = checked_ids::<B>(&targets, shape.vocab);
    let inputs = Head {
        hidden: &B::floats(&hidden),
        weight: &B::floats(&head),
        targets: &targets,
        row_weights: &B::floats(&weights),
    };
    let loss = cross_entropy::head_nll(cpu().at(precision), shape, inputs);
    B::from_vec(vec![loss as f32], &[1])
}

pub(super) fn head_cross_entropy_with_grad<B: HostTensors>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    precision: Precision,
) -> Three<B> {
    if !are_f32::<B>(&[&hidden, &head, &weights]) {
        return composed::head_cross_entropy_with_grad::<B>(hidden, head, targets, weights);
    }
    let shape = head_shape::<B>(&hidden, &head);
    let targets = checked_ids::<B>(&targets, shape.vocab);
    let inputs = Head {
        hidden: &B::floats(&hidden),
        weight: &B::floats(&head),
        targets: &targets,
        row_weights: &B::floats(&weights),
    };
    let mut dhidden = output(hidden.shape().num_elements());
    let mut dhead = output(head.shape().num_elements());
    let grads = HeadGrads { dhidden: &mut dhidden, dweight: &mut dhead };
    let loss = cross_entropy::head_nll_with_grad(cpu().at(precision), shape, inputs, grads);
    (
        B::from_vec(vec![loss as f32], &[1]),
        B::from_vec(dhidden, &hidden.shape()),
        B::from_vec(dhead, &head.shape()),
    )
}

pub(super) fn dropout<B: HostTensors>(x: FloatTensor<B>, probability: f32, seed: u64) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x]) {
        return composed::dropout::<B>(x, probability, seed);
    }
    let shape = x.shape();
    let mut y = output(shape.num_elements());
    masks::apply(cpu(), Dropout { probability, seed: Seed::new(seed) }, &B::floats(&x), &mut y);
    B::from_vec(y, &shape)
}

/// `tensors`: parameter, gradient, running mean, running square.
pub(super) fn adamw<B: HostTensors>(tensors: [FloatTensor<B>; 4], step: AdamWStep) -> Three<B> {
    if !tensors.iter().all(|tensor| tensor.dtype() == DType::F32) {
        return composed::adamw::<B>(tensors, step);
    }
    let [value, grad, mean, square] = tensors;
    let shape = value.shape();
    let hyper = AdamW {
        lr: step.lr,
        beta1: step.beta1,
        beta2: step.beta2,
        eps: step.eps,
        weight_decay: step.weight_decay,
        step: step.step,
        grad_scale: step.grad_scale,
    };
    let (mut value, mut mean, mut square) = (B::into_vec(value), B::into_vec(mean), B::into_vec(square));
    andiron_kernels::adamw::step(cpu(), hyper, &mut value, &B::floats(&grad), &mut mean, &mut square);
    (B::from_vec(value, &shape), B::from_vec(mean, &shape), B::from_vec(square, &shape))
}

pub(super) fn muon_direction<B: HostTensors>(
    grad: FloatTensor<B>,
    momentum: FloatTensor<B>,
    (step, matrices): (MuonStep, Matrices),
    precision: Precision,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if !are_f32::<B>(&[&grad, &momentum]) {
        return composed::muon_direction::<B>(grad, momentum, (step, matrices));
    }
    let shape = grad.shape();
    let (mut grad, mut momentum) = (B::into_vec(grad), B::into_vec(momentum));
    muon::direction(cpu().at(precision), step, matrices, &mut grad, &mut momentum);
    (B::from_vec(grad, &shape), B::from_vec(momentum, &shape))
}

pub(super) fn descend<B: HostTensors>(
    value: FloatTensor<B>,
    direction: FloatTensor<B>,
    (keep, size): (f32, f32),
) -> FloatTensor<B> {
    if !are_f32::<B>(&[&value, &direction]) {
        return composed::descend::<B>(value, direction, keep, size);
    }
    let shape = value.shape();
    let mut value = B::into_vec(value);
    muon::descend(cpu(), &mut value, &B::floats(&direction), keep, size);
    B::from_vec(value, &shape)
}

pub(super) fn square_sum<B: HostTensors>(x: FloatTensor<B>) -> FloatTensor<B> {
    if !are_f32::<B>(&[&x]) {
        return composed::square_sum::<B>(x);
    }
    B::from_vec(vec![reduce::square_sum(cpu(), &B::floats(&x)) as f32], &[1])
}
