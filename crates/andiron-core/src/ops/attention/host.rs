//! Attention through `andiron-kernels`.

use std::borrow::Cow;

use andiron_kernels::attention::{
    self, Attention, AttentionGrads, AttentionSaved, AttentionShape, Qkv as KernelQkv,
};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{AttentionMask, AttentionOps, AttentionOptions, Qkv, composed};
use crate::PaddingMask;
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};
use crate::precision::Precision;

impl<B: HostTensors> AttentionOps for B {
    fn attend_saved(
        qkv: Qkv<Self>,
        bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _time = OpKind::Attention.timer();
        if !has_kernel::<B>(&qkv, bias.as_option(), []) {
            return composed::attention_saved::<B>(qkv, bias.into_option(), options);
        }
        let bias = bias.as_option().map_or(Cow::Borrowed(&[][..]), B::floats);
        let attention = options.attention(shape::<B>(&qkv, options.n_keys), &bias);
        let AttentionShape { batch, queries, heads, head_dim, .. } = attention.shape;
        let mut out = output(batch * queries * heads * head_dim);
        let mut lse = output(batch * heads * queries);
        let cpu = cpu().at(precision);
        let out_shape = match &qkv {
            Qkv::Separate { q, k, v } => {
                let qkv = KernelQkv::Separate { q: &B::floats(q), k: &B::floats(k), v: &B::floats(v) };
                attention::forward(cpu, attention, qkv, &mut out, &mut lse);
                vec![batch, queries, heads, head_dim]
            }
            Qkv::Packed { qkv, .. } => {
                let qkv = KernelQkv::Packed(&B::floats(qkv));
                attention::forward(cpu, attention, qkv, &mut out, &mut lse);
                vec![batch, queries, heads * head_dim]
            }
        };
        (B::from_vec(out, &out_shape), B::from_vec(lse, &[batch, heads, queries]))
    }

    fn attend_backward(
        qkv: Qkv<Self>,
        bias: OptionalTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (Qkv<Self>, Option<FloatTensor<Self>>) {
        let _time = OpKind::Attention.timer();
        if !has_kernel::<B>(&qkv, bias.as_option(), [&out, &lse, &dout]) {
            return composed::attention_backward::<B>(qkv, bias.into_option(), [out, lse, dout], options);
        }
        let biases = bias.as_option().map_or(Cow::Borrowed(&[][..]), B::floats);
        let attention = options.attention(shape::<B>(&qkv, options.n_keys), &biases);
        let AttentionShape { keys, key_capacity, .. } = attention.shape;
        assert_eq!(keys, key_capacity, "gradients flow only through keys without spare capacity");
        let saved = AttentionSaved { out: &B::floats(&out), lse: &B::floats(&lse) };
        let (saved, cpu) = ((saved, &*B::floats(&dout)), cpu().at(precision));
        match &qkv {
            Qkv::Separate { q, k, v } => {
                let qkv = KernelQkv::Separate { q: &B::floats(q), k: &B::floats(k), v: &B::floats(v) };
                let like = |tensor: &FloatTensor<B>| output(tensor.shape().num_elements());
                let (mut dq, mut dk, mut dv, mut dbias) = (like(q), like(k), like(v), output(biases.len()));
                let grads =
                    AttentionGrads::Separate { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: &mut dbias };
                attention::backward(cpu, attention, qkv, saved, grads);
                let dbias = bias.as_option().map(|bias| B::from_vec(dbias, &bias.shape()));
                let of = |values, tensor: &FloatTensor<B>| B::from_vec(values, &tensor.shape());
                (Qkv::Separate { q: of(dq, q), k: of(dk, k), v: of(dv, v) }, dbias)
            }
            Qkv::Packed { qkv, heads } => {
                let mut dqkv = output(qkv.shape().num_elements());
                let packed = KernelQkv::Packed(&B::floats(qkv));
                attention::backward(cpu, attention, packed, saved, AttentionGrads::Packed(&mut dqkv));
                (Qkv::Packed { qkv: B::from_vec(dqkv, &qkv.shape()), heads: *heads }, None)
            }
        }
    }
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
        let AttentionMask { causal, sliding_window } = self.mask;
        Attention { shape, causal, sliding_window, scale: self.scale, bias, spans, dropout: self.dropout }
    }
}
