//! Attention through `andiron-kernels`.

use std::borrow::Cow;

use andiron_kernels::attention::{
    self, Attention, AttentionGrads, AttentionSaved, AttentionShape, Qkv as KernelQkv,
};
use andiron_kernels::bf16;
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{AttentionMask, AttentionOps, AttentionOptions, Qkv, SavedAttention, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};
use crate::precision::Precision;
use crate::{Documents, PaddingMask};

impl<B: HostTensors> AttentionOps for B {
    fn attend(
        qkv: Qkv<Self>,
        bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Attention.timer();
        if !has_kernel::<B>(&qkv, bias.as_option(), []) {
            return composed::attention_saved::<B>(qkv, bias.into_option(), options).0;
        }
        forward::<B>(&qkv, bias.as_option(), &options, precision).0
    }

    /// Matmuls that round their operands keep them rounded, in half the memory.
    fn attend_saved(
        qkv: Qkv<Self>,
        bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, SavedAttention<Self>) {
        let _time = OpKind::Attention.timer();
        if !has_kernel::<B>(&qkv, bias.as_option(), []) {
            let (out, lse) = composed::attention_saved::<B>(qkv.clone(), bias.into_option(), options);
            return (out.clone(), SavedAttention::Exact { qkv, out, lse });
        }
        let (out, lse) = forward::<B>(&qkv, bias.as_option(), &options, precision);
        let cpu = cpu().at(precision);
        if !attention::rounds_operands(cpu, shape::<B>(&qkv, options.n_keys).head_dim) {
            return (out.clone(), SavedAttention::Exact { qkv, out, lse });
        }
        let rounded = |x: &FloatTensor<B>| {
            let mut shape = x.shape().to_vec();
            let mut words = output(x.shape().num_elements() / 2);
            bf16::round(cpu, &B::floats(x), &mut words);
            if let Some(width) = shape.last_mut() {
                *width /= 2;
            }
            B::from_vec(words, &shape)
        };
        let qkv = match &qkv {
            Qkv::Separate { q, k, v } => Qkv::Separate { q: rounded(q), k: rounded(k), v: rounded(v) },
            Qkv::Packed { qkv, heads } => Qkv::Packed { qkv: rounded(qkv), heads: *heads },
        };
        (out, SavedAttention::Rounded { qkv, lse })
    }

    fn attend_backward(
        saved: SavedAttention<Self>,
        bias: OptionalTensor<Self>,
        dout: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (Qkv<Self>, Option<FloatTensor<Self>>) {
        let _time = OpKind::Attention.timer();
        let (qkv, out, lse) = match &saved {
            SavedAttention::Exact { qkv, out, lse } => (qkv, Some(out), lse),
            SavedAttention::Rounded { qkv, lse } => (qkv, None, lse),
        };
        if !has_kernel::<B>(qkv, bias.as_option(), [lse, &dout].into_iter().chain(out)) {
            return composed::attention_backward::<B>(saved, bias.into_option(), dout, options);
        }
        let biases = bias.as_option().map_or(Cow::Borrowed(&[][..]), B::floats);
        let mut shape = shape::<B>(qkv, options.n_keys);
        // Words of two elements.
        let per_word = if out.is_some() { 1 } else { 2 };
        shape.head_dim *= per_word;
        let attention = options.attention(shape, &biases);
        let AttentionShape { keys, key_capacity, .. } = attention.shape;
        assert_eq!(keys, key_capacity, "gradients flow only through keys without spare capacity");
        let (lse, dout) = (B::floats(lse), B::floats(&dout));
        let out = out.map(B::floats);
        let run = |qkv: KernelQkv, grads: AttentionGrads| {
            let saved = match &out {
                Some(out) => AttentionSaved::F32 { qkv, out, lse: &lse },
                None => AttentionSaved::Bf16 { qkv, lse: &lse },
            };
            attention::backward(cpu().at(precision), attention, saved, &dout, grads);
        };
        let like = |tensor: &FloatTensor<B>| output(per_word * tensor.shape().num_elements());
        let of = |values, tensor: &FloatTensor<B>| {
            let mut shape = tensor.shape().to_vec();
            if let Some(width) = shape.last_mut() {
                *width *= per_word;
            }
            B::from_vec(values, &shape)
        };
        match qkv {
            Qkv::Separate { q, k, v } => {
                let (mut dq, mut dk, mut dv, mut dbias) = (like(q), like(k), like(v), output(biases.len()));
                let grads =
                    AttentionGrads::Separate { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: &mut dbias };
                run(KernelQkv::Separate { q: &B::floats(q), k: &B::floats(k), v: &B::floats(v) }, grads);
                let dbias = bias.as_option().map(|bias| B::from_vec(dbias, &bias.shape()));
                (Qkv::Separate { q: of(dq, q), k: of(dk, k), v: of(dv, v) }, dbias)
            }
            Qkv::Packed { qkv, heads } => {
                let mut dqkv = like(qkv);
                run(KernelQkv::Packed(&B::floats(qkv)), AttentionGrads::Packed(&mut dqkv));
                (Qkv::Packed { qkv: of(dqkv, qkv), heads: *heads }, None)
            }
        }
    }
}

/// The output, and the log-sum-exp of each query.
fn forward<B: HostTensors>(
    qkv: &Qkv<B>,
    bias: Option<&FloatTensor<B>>,
    options: &AttentionOptions,
    precision: Precision,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let bias = bias.map_or(Cow::Borrowed(&[][..]), B::floats);
    let attention = options.attention(shape::<B>(qkv, options.n_keys), &bias);
    let AttentionShape { batch, queries, heads, head_dim, .. } = attention.shape;
    let mut out = output(batch * queries * heads * head_dim);
    let mut lse = output(batch * heads * queries);
    let cpu = cpu().at(precision);
    let out_shape = match qkv {
        Qkv::Separate { q, k, v } => {
            let qkv = KernelQkv::Separate { q: &B::floats(q), k: &B::floats(k), v: &B::floats(v) };
            attention::forward(cpu, attention, qkv, &mut out, &mut lse);
            vec![batch, queries, heads, head_dim]
        }
        Qkv::Packed { qkv, .. } => {
            attention::forward(cpu, attention, KernelQkv::Packed(&B::floats(qkv)), &mut out, &mut lse);
            vec![batch, queries, heads * head_dim]
        }
    };
    (B::from_vec(out, &out_shape), B::from_vec(lse, &[batch, heads, queries]))
}

/// Whether the kernels support this: all tensors are f32, and packed QKV has no bias.
fn has_kernel<'a, B: HostTensors>(
    qkv: &'a Qkv<B>,
    bias: Option<&'a FloatTensor<B>>,
    saved: impl IntoIterator<Item = &'a FloatTensor<B>>,
) -> bool {
    let others = bias.into_iter().chain(saved);
    match qkv {
        Qkv::Separate { q, k, v } => are_f32::<B>(others.chain([q, k, v])),
        Qkv::Packed { qkv, .. } => bias.is_none() && are_f32::<B>(others.chain([qkv])),
    }
}

fn shape<B: HostTensors>(qkv: &Qkv<B>, keys: usize) -> AttentionShape {
    match qkv {
        Qkv::Separate { q, k, .. } => {
            let [batch, queries, heads, head_dim] = q.shape().dims();
            let [_, key_capacity, kv_heads, _] = k.shape().dims();
            AttentionShape { batch, queries, keys, key_capacity, heads, kv_heads, head_dim }
        }
        &Qkv::Packed { ref qkv, heads } => {
            let [batch, t, width] = qkv.shape().dims();
            let head_dim = width / 3 / heads;
            AttentionShape { batch, queries: t, keys: t, key_capacity: t, heads, kv_heads: heads, head_dim }
        }
    }
}

impl AttentionOptions {
    fn attention<'a>(&'a self, shape: AttentionShape, bias: &'a [f32]) -> Attention<'a> {
        let spans = self.rows.as_ref().map_or(&[][..], PaddingMask::spans);
        let documents = self.documents.as_ref().map_or(&[][..], Documents::starts);
        let AttentionMask { causal, sliding_window } = self.mask;
        let Self { scale, dropout, .. } = *self;
        Attention { shape, causal, sliding_window, scale, bias, spans, documents, dropout }
    }
}
