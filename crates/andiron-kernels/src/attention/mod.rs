//! Scaled dot-product attention, forward and backward, without the matrix of all scores.
//!
//! A thread computes one head, a block of queries at a time. The scores of a block are `[keys, queries]`: the lanes of
//! a vector are queries, so the softmax never reduces across lanes, and the matmuls are tiles of
//! [`gemm`](crate::gemm). The backward pass recomputes the probabilities from the saved log-sum-exp of each query.
//! Memory is linear in the number of keys.
//!
//! Source: Dao et al. 2022, "FlashAttention", <https://arxiv.org/abs/2205.14135>. Unlike there, the softmax has all
//! scores of a query at once, so nothing is rescaled. Only when the scores would no longer fit the L2 cache are keys
//! taken in tiles, with online softmax (`long`).

#[cfg(target_arch = "x86_64")]
mod amx;
mod bias;
mod blocks;
mod decode;
mod dropout;
mod element;
mod flash;
mod long;
mod plain;
mod scores;
mod split;
mod view;
mod widened;

use std::ops::Range;

pub use crate::bf16::Bf16;
use crate::dropout::{Dropout, Rule};
use crate::parallel::{self, Shared};
use crate::{Cpu, Isa, Precision, bf16, reduce};
pub use blocks::{BlockAttention, BlockRow, KvBlocks, forward_blocks};
use decode::QuerySum;
use dropout::HeadDropout;
use view::{AttentionMask, BackwardView, HeadView, from};
use widened::Widened;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Queries of each sequence.
    pub queries: usize,
    /// Keys that are attended to: the first of `key_capacity`.
    pub keys: usize,
    /// Positions in the buffers of keys and values; at least `keys`.
    pub key_capacity: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`. Query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// An attention: sizes, mask, bias, dropout, and the scale of the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention<'a> {
    /// Sizes.
    pub shape: AttentionShape,
    /// The causal mask: query `i` is at position `keys - queries + i` and attends to keys up to that position. The output
    /// of a query that attends to no key is 0.
    pub causal: bool,
    /// The sliding window, in positions, the query's own included: a query attends to keys less than this many positions
    /// before it and, unless `causal`, after it. `None` is no window. Keys outside the windows of a whole block of queries
    /// cost nothing. Sources: Beltagy et al. 2020, "Longformer", <https://arxiv.org/abs/2004.05150>; Jiang et al. 2023,
    /// "Mistral 7B", <https://arxiv.org/abs/2310.06825>.
    pub sliding_window: Option<usize>,
    /// Multiplies the scores; usually `1 / √head_dim`.
    pub scale: f32,
    /// Relative position bias, added to the scores: `[heads, queries + keys - 1]`, where element `queries - 1 + n` belongs
    /// to keys `n` positions before their query (`n` is negative for keys after it). Empty is no bias. Source: Raffel et al.
    /// 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    /// <https://arxiv.org/abs/1910.10683>, section 2.1.
    pub bias: &'a [f32],
    /// The padding mask, `[batch]`: the keys of each sequence that are no padding; an end beyond the last key is the last
    /// key. Empty is no padding. Padding counts as positions in the causal mask and the window.
    pub spans: &'a [Range<usize>],
    /// Documents that were packed into one sequence, `[batch]`: the first position of each, ascending from 0. A query attends
    /// only to keys of its own document, as if each were a sequence of its own: causal mask, window, bias and cost are those of
    /// its length. Needs as many queries as keys. Empty is one document per sequence. Other programs call them "cumulative
    /// sequence lengths" (`cu_seqlens`).
    pub documents: &'a [Vec<usize>],
    /// Dropout of the probabilities after the softmax; denominators include what is dropped. The probability of
    /// query `i` on key `j` is element `[b, h, i, j]` of a row-major `[batch, heads, queries, keys]` tensor and is
    /// dropped where [`dropout::apply`](crate::dropout::apply) drops that element. The backward pass takes the same seed.
    pub dropout: Option<Dropout>,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum Qkv<'a> {
    /// Separate tensors.
    Separate {
        /// `[batch, queries, heads, head_dim]`.
        q: &'a [f32],
        /// `[batch, key_capacity, kv_heads, head_dim]`.
        k: &'a [f32],
        /// `[batch, key_capacity, kv_heads, head_dim]`.
        v: &'a [f32],
    },
    /// The output of a fused QKV projection: `[batch, positions, 3, heads, head_dim]`. Here `queries`, `keys` and
    /// `key_capacity` are the same, and so are `heads` and `kv_heads`.
    Packed(&'a [f32]),
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub enum AttentionSaved<'a> {
    /// Inputs and outputs as they were.
    F32 {
        /// Queries, keys and values.
        qkv: Qkv<'a>,
        /// The output, `[batch, queries, heads, head_dim]`.
        out: &'a [f32],
        /// The log-sum-exp of each query's scores, `[batch, heads, queries]`.
        lse: &'a [f32],
    },
    /// Without the output, and with operands rounded to bf16 by [`bf16::round`], if [`rounds_operands`] says so: it gives the
    /// same gradients.
    Bf16 {
        /// Queries, keys and values, each slice half as long.
        qkv: Qkv<'a>,
        /// As of `F32`.
        lse: &'a [f32],
    },
}

/// Whether the backward pass of heads of this width rounds queries, keys and values to bf16, and does without the output, so
/// that no more need be kept.
pub fn rounds_operands(cpu: Cpu, head_dim: usize) -> bool {
    bf16::rounds(cpu) && head_dim.is_multiple_of(2)
}

/// Gradients, each in the layout of its operand. All are overwritten; those of keys beyond [`AttentionShape::keys`] are 0.
#[derive(Debug)]
pub enum AttentionGrads<'a> {
    /// Of [`Qkv::Separate`].
    Separate {
        /// Of the queries.
        dq: &'a mut [f32],
        /// Of the keys.
        dk: &'a mut [f32],
        /// Of the values.
        dv: &'a mut [f32],
        /// Of the bias, summed over the sequences; empty if there is none.
        dbias: &'a mut [f32],
    },
    /// Of [`Qkv::Packed`].
    Packed(&'a mut [f32]),
}

/// `out = dropout(softmax(scale q kᵀ + bias)) v` for each sequence and head, and `lse`, the log-sum-exp of each query's
/// scores (`-∞` for a query that attends to no key).
///
/// # Shape
/// `out`: `[batch, queries, heads, head_dim]`, `lse`: `[batch, heads, queries]`.
///
/// # Panics
/// If a length does not match the sizes, `kv_heads` does not divide `heads`, `keys` is above `key_capacity`, the number of
/// spans or biases is wrong, the documents do not divide the sequences, the sliding window is 0, or the dropout probability is
/// outside `[0, 1]`.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::attention::{Attention, AttentionShape, Qkv, forward};
/// let shape = AttentionShape {
///     batch: 1, queries: 2, keys: 2, key_capacity: 2, heads: 1, kv_heads: 1, head_dim: 1,
/// };
/// let qkv = Qkv::Separate { q: &[0.0, 0.0], k: &[1.0, 2.0], v: &[4.0, 6.0] };
/// let (mut out, mut lse) = ([0.0; 2], [0.0; 2]);
/// let attention = Attention {
///     shape, causal: true, sliding_window: None, scale: 1.0, bias: &[], spans: &[], documents: &[], dropout: None,
/// };
/// forward(Cpu::detect(1), attention, qkv, &mut out, &mut lse);
/// assert_eq!(out, [4.0, 5.0]); // the first query attends to one key, the second to both
/// ```
pub fn forward(cpu: Cpu, attention: Attention, qkv: Qkv, out: &mut [f32], lse: &mut [f32]) {
    let shape = attention.shape;
    attention.assert_sizes();
    shape.assert_lengths((qkv, 1), out, lse);
    if shape.queries == 0 {
        return;
    }
    let (places, how) = (shape.places(matches!(qkv, Qkv::Packed(_))), matmul_path(cpu));
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let drops = attention.dropout_rule().is_some();
    let has_vectors = cpu.isa.available() != Isa::Scalar;
    let one_by_one = |queries| !drops && has_vectors && split::one_by_one(cpu.kernels, queries);
    // Whether a document takes the online softmax, which is chosen by its own length.
    let is_long = |document: &Document| {
        !one_by_one(document.queries.len()) && !drops && long::pays(how, document.keys.len())
    };
    let long: Vec<_> = attention.all_documents().filter(is_long).collect();
    if !long.is_empty() {
        long::forward_contiguous(cpu, how, (attention, qkv), &long, (&out, &lse));
    }
    if attention.documents.is_empty() && !long.is_empty() {
        return;
    }
    parallel::rows(cpu, shape.batch * shape.heads, attention.work(), 1, |part| {
        for index in part {
            let (batch, head) = (index / shape.heads, index % shape.heads);
            for document in attention.documents_of(batch).filter(|document| !is_long(document)) {
                let view = attention.head(qkv, places, &document, head);
                // SAFETY: the lengths were checked; each document of each head writes its own part of `out` and `lse`.
                unsafe {
                    let out = out.pointer(shape.out_start(&document, head));
                    let lse = lse.pointer(shape.lse_start(&document, head));
                    if one_by_one(view.queries) {
                        let block = [(view.k, view.v)];
                        for i in 0..view.queries {
                            let (query, mut sum) = (view.query(i, &block), QuerySum::default());
                            let out = out.wrapping_add(i * view.out_stride);
                            decode::Cached::one_query(cpu.isa, &query, out, &mut sum);
                            *lse.add(i) = sum.max + sum.sum.ln();
                        }
                    } else {
                        head_forward(how, view, out, lse);
                    }
                }
            }
        }
    });
}

/// Gradients of [`forward`] from the gradient `dout` of its output.
///
/// # Panics
/// As for [`forward`], for the saved values, `dout` and the gradients too; if there is a bias and queries, keys and values
/// are packed; if operands are saved rounded where [`rounds_operands`] is false.
pub fn backward(cpu: Cpu, attention: Attention, saved: AttentionSaved, dout: &[f32], grads: AttentionGrads) {
    let shape = attention.shape;
    attention.assert_sizes();
    let (qkv, all_lse, per_word) = match saved {
        AttentionSaved::F32 { qkv, out, lse } => {
            assert_eq!(out.len(), dout.len(), "out is not as long as dout");
            (qkv, lse, 1)
        }
        AttentionSaved::Bf16 { qkv, lse } => {
            assert!(rounds_operands(cpu, shape.head_dim), "these operands are not rounded");
            (qkv, lse, 2)
        }
    };
    shape.assert_lengths((qkv, per_word), dout, all_lse);
    let (places, how) = (shape.places(matches!(qkv, Qkv::Packed(_))), matmul_path(cpu));
    let no_bias: &mut [f32] = &mut [];
    let (dq, dk, dv, dbias) = match (grads, qkv) {
        (AttentionGrads::Separate { dq, dk, dv, dbias }, Qkv::Separate { q, k, .. }) => {
            assert_eq!(dq.len(), per_word * q.len(), "dq is not as long as q");
            let len = per_word * k.len();
            assert!(dk.len() == len && dv.len() == len, "dk or dv is not as long as k");
            (Shared::new(dq), Shared::new(dk), Shared::new(dv), dbias)
        }
        (AttentionGrads::Packed(grads), Qkv::Packed(qkv)) => {
            assert_eq!(grads.len(), per_word * qkv.len(), "the gradients are not as long as qkv");
            // SAFETY: the three share one slice; by their layouts no element is reached through two of them.
            let (dq, dk, dv) = unsafe { Shared::thrice(grads) };
            (dq, dk, dv, no_bias)
        }
        _ => panic!("qkv is packed and its gradients are separate, or the other way round"),
    };
    assert_eq!(dbias.len(), attention.bias.len(), "dbias is not as long as the bias");
    if shape.queries == 0 || shape.keys == 0 {
        dbias.fill(0.0);
        for all in [dq, dk, dv] {
            // SAFETY: one at a time, on this thread alone.
            unsafe { all.range(0..all.len()) }.fill(0.0);
        }
        return;
    }
    let group = shape.heads / shape.kv_heads.max(1);
    // One per sequence, added in order.
    let mut dbias_parts = vec![0.0; shape.batch * dbias.len()];
    let dbias_shared = Shared::new(&mut dbias_parts);
    // A thread takes all query heads of a key head, because they add to the same gradients.
    parallel::rows(cpu, shape.batch * shape.kv_heads, 3 * group * attention.work(), 1, |part| {
        let mut wide = Widened::default();
        for index in part {
            let (batch, kv_head) = (index / shape.kv_heads, index % shape.kv_heads);
            let [k_start, v_start] = [places.k, places.v].map(|place| place.start(shape, batch, kv_head));
            for position in 0..shape.key_capacity {
                let step = position * places.k.stride;
                // SAFETY: each key head writes its own part of the gradients.
                unsafe {
                    dk.range(k_start + step..k_start + step + shape.head_dim).fill(0.0);
                    dv.range(v_start + step..v_start + step + shape.head_dim).fill(0.0);
                }
            }
            for document in attention.documents_of(batch) {
                let span = attention.span(&document);
                if per_word == 2 {
                    wide.take_keys(cpu.isa, (qkv, places), (shape, span.clone()), (batch, kv_head));
                }
                for head in kv_head * group..(kv_head + 1) * group {
                    let out_start = shape.out_start(&document, head);
                    let dbias = match attention.bias.is_empty() {
                        true => std::ptr::null_mut(),
                        false => {
                            dbias_shared.pointer(attention.bias_start(batch * shape.heads + head, &document))
                        }
                    };
                    let view = BackwardView {
                        head: match saved {
                            AttentionSaved::F32 { .. } => attention.head(qkv, places, &document, head),
                            AttentionSaved::Bf16 { .. } => {
                                wide.take_queries(cpu.isa, (qkv, places), shape, (&document, head));
                                wide.view(&attention, (&document, head))
                            }
                        },
                        out: match saved {
                            AttentionSaved::F32 { out, .. } => from(out, out_start),
                            AttentionSaved::Bf16 { .. } => std::ptr::null(),
                        },
                        lse: from(all_lse, shape.lse_start(&document, head)),
                        dout: from(dout, out_start),
                        dq: dq.pointer(
                            places.q.start(shape, batch, head) + document.queries.start * places.q.stride,
                        ),
                        dk: dk.pointer(k_start + span.start * places.k.stride),
                        dv: dv.pointer(v_start + span.start * places.v.stride),
                        dq_stride: places.q.stride,
                        dkv_stride: places.k.stride,
                        dbias,
                    };
                    // SAFETY: the lengths were checked; each key head, with its query heads, is one thread's.
                    unsafe {
                        match how {
                            #[cfg(target_arch = "x86_64")]
                            (Isa::Amx, Precision::Mixed) => amx::head_backward(view),
                            _ => flash::head_backward(how, view),
                        }
                    }
                }
            }
        }
    });
    reduce::column_sum(cpu, shape.batch, dbias.len(), &dbias_parts, dbias);
}

/// Some positions of one sequence, whose queries attend to its own keys only: those of one document, or of the whole sequence.
#[derive(Clone, Debug)]
struct Document {
    batch: usize,
    queries: Range<usize>,
    keys: Range<usize>,
}

/// The offset of the first position of the first head, the stride of positions, and their number in a sequence.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    stride: usize,
    positions: usize,
}

impl Place {
    fn start(self, shape: AttentionShape, batch: usize, head: usize) -> usize {
        self.first + batch * self.positions * self.stride + head * shape.head_dim
    }
}

#[derive(Clone, Copy)]
struct Places {
    q: Place,
    k: Place,
    v: Place,
}

impl AttentionShape {
    fn out_stride(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_stride(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn out_start(&self, document: &Document, head: usize) -> usize {
        (document.batch * self.queries + document.queries.start) * self.out_stride() + head * self.head_dim
    }

    fn lse_start(&self, document: &Document, head: usize) -> usize {
        (document.batch * self.heads + head) * self.queries + document.queries.start
    }

    fn places(&self, packed: bool) -> Places {
        let width = self.out_stride();
        if packed {
            let place = |part| Place { first: part * width, stride: 3 * width, positions: self.queries };
            return Places { q: place(0), k: place(1), v: place(2) };
        }
        let kv = Place { first: 0, stride: self.kv_stride(), positions: self.key_capacity };
        Places { q: Place { first: 0, stride: width, positions: self.queries }, k: kv, v: kv }
    }

    #[track_caller]
    fn assert_lengths(&self, (qkv, per_word): (Qkv, usize), out: &[f32], lse: &[f32]) {
        let Self { batch, queries, keys, key_capacity, heads, kv_heads, head_dim } = *self;
        assert!(keys <= key_capacity, "{keys} keys do not fit a capacity of {key_capacity}");
        let divides = heads == 0 && kv_heads == 0 || kv_heads > 0 && heads % kv_heads == 0;
        assert!(divides, "{kv_heads} key heads do not divide {heads} heads");
        let (q_len, kv_len) =
            (batch * queries * heads * head_dim, batch * key_capacity * kv_heads * head_dim);
        match qkv {
            Qkv::Separate { q, k, v } => {
                assert_eq!(per_word * q.len(), q_len, "q is not [{batch}, {queries}, {heads}, {head_dim}]");
                assert_eq!(
                    per_word * k.len(),
                    kv_len,
                    "k is not [{batch}, {key_capacity}, {kv_heads}, {head_dim}]"
                );
                assert_eq!(
                    per_word * v.len(),
                    kv_len,
                    "v is not [{batch}, {key_capacity}, {kv_heads}, {head_dim}]"
                );
            }
            Qkv::Packed(qkv) => {
                let alike = heads == kv_heads && queries == keys && keys == key_capacity;
                assert!(alike, "packed queries, keys and values are of the same positions and heads");
                let len = 3 * q_len;
                assert_eq!(
                    per_word * qkv.len(),
                    len,
                    "qkv is not [{batch}, {queries}, 3, {heads}, {head_dim}]"
                );
            }
        }
        assert_eq!(out.len(), q_len, "out is not as long as q");
        assert_eq!(lse.len(), batch * heads * queries, "lse is not [{batch}, {heads}, {queries}]");
    }
}

impl Attention<'_> {
    #[track_caller]
    fn assert_sizes(&self) {
        let (spans, batch, heads) = (self.spans.len(), self.shape.batch, self.shape.heads);
        assert!(spans == 0 || spans == batch, "{spans} spans of keys for {batch} sequences");
        let (biases, distances) = (self.bias.len(), self.distances());
        assert!(biases == 0 || biases == heads * distances, "{biases} biases, not [{heads}, {distances}]");
        let (documents, queries, keys) = (self.documents.len(), self.shape.queries, self.shape.keys);
        assert!(documents == 0 || documents == batch, "documents of {documents} sequences, not of {batch}");
        assert!(documents == 0 || queries == keys, "documents of {queries} queries and {keys} keys");
        for starts in self.documents {
            let ascend = starts.first() == Some(&0) && starts.is_sorted_by(|start, next| start < next);
            assert!(
                ascend && starts.last() < Some(&keys),
                "documents that start at {starts:?} do not divide {keys} positions"
            );
        }
        assert_ne!(self.sliding_window, Some(0), "a sliding window holds at least the query's own position");
        self.dropout_rule();
    }

    /// `None` if no probability is dropped.
    #[track_caller]
    fn dropout_rule(&self) -> Option<Rule> {
        self.dropout.and_then(Rule::new)
    }

    fn distances(&self) -> usize {
        (self.shape.queries + self.shape.keys).saturating_sub(1)
    }

    /// The documents of a sequence, in order.
    fn documents_of(&self, batch: usize) -> impl Iterator<Item = Document> {
        let AttentionShape { queries, keys, .. } = self.shape;
        let starts = self.documents.get(batch).map_or(&[0][..], Vec::as_slice);
        let ends = starts[1..].iter().map(|&end| [end; 2]).chain(std::iter::once([queries, keys]));
        starts.iter().zip(ends).map(move |(&start, [queries, keys])| Document {
            batch,
            queries: start..queries,
            keys: start..keys,
        })
    }

    fn all_documents(&self) -> impl Iterator<Item = Document> {
        (0..self.shape.batch).flat_map(|batch| self.documents_of(batch))
    }

    /// Index in row `row` of biases of a document's first query and the first key of its span.
    fn bias_start(&self, row: usize, document: &Document) -> usize {
        let first = row * self.distances() + self.shape.keys + document.queries.start;
        first.saturating_sub(1 + self.span(document).start)
    }

    /// Cost of a head in units of [`parallel::rows`].
    fn work(&self) -> usize {
        let AttentionShape { batch, head_dim, .. } = self.shape;
        let attended =
            |keys: usize| self.sliding_window.map_or(keys, |window| keys.min(window.saturating_mul(2) - 1));
        let scores =
            self.all_documents().map(|document| document.queries.len() * attended(document.keys.len()));
        scores.sum::<usize>() / batch.max(1) * (head_dim / 4 + 8)
    }

    /// The mask of a query of a document, where keys are counted from the document's first.
    fn mask(&self, document: &Document, query: usize) -> AttentionMask {
        let position = document.keys.len() as isize - document.queries.len() as isize + query as isize;
        AttentionMask::new(position, self.causal, self.sliding_window)
    }

    /// The keys of a document, as positions of its sequence, that any of its queries attends to; there are queries.
    fn span(&self, document: &Document) -> Range<usize> {
        let (queries, keys) = (document.queries.len(), document.keys.len());
        let span = self.spans.get(document.batch).cloned().unwrap_or(0..usize::MAX);
        let (first, last) =
            (self.mask(document, 0).among(keys), self.mask(document, queries - 1).among(keys));
        let at = document.keys.start;
        let (start, end) = (span.start.max(at + first.start), span.end.min(at + last.end));
        if start < end { start..end } else { at..at }
    }

    fn head(&self, qkv: Qkv, places: Places, document: &Document, head: usize) -> HeadView {
        let shape = self.shape;
        let kv_head = head / (shape.heads / shape.kv_heads);
        let [q, k, v] = qkv.slices();
        let first = self.span(document).start;
        let operands = [
            from(q, places.q.start(shape, document.batch, head) + document.queries.start * places.q.stride),
            from(k, places.k.start(shape, document.batch, kv_head) + first * places.k.stride),
            from(v, places.v.start(shape, document.batch, kv_head) + first * places.v.stride),
        ];
        self.view(operands, (places.q.stride, places.k.stride), (document, head))
    }

    /// A head whose first query, key of its span, and value are at these pointers, with the strides of queries and keys.
    fn view(
        &self,
        [q, k, v]: [*const f32; 3],
        (q_stride, kv_stride): (usize, usize),
        (document, head): (&Document, usize),
    ) -> HeadView {
        let shape = self.shape;
        let span = self.span(document);
        let bias = match self.bias.is_empty() {
            true => std::ptr::null(),
            // A pointer into the whole slice, because elements before it are read as well.
            false => self.bias.as_ptr().wrapping_add(self.bias_start(head, document)),
        };
        let (row, keys) = ((document.batch * shape.heads + head) as u64, shape.keys as u64);
        let first = (row * shape.queries as u64 + document.queries.start as u64) * keys + span.start as u64;
        let dropout = self.dropout_rule().map(|rule| HeadDropout { rule, first, stride: keys });
        HeadView {
            q,
            k,
            v,
            q_stride,
            kv_stride,
            out_stride: shape.out_stride(),
            queries: document.queries.len(),
            keys: span.len(),
            dim: shape.head_dim,
            mask: self.mask(document, 0).relative_to_key(span.start - document.keys.start),
            scale: self.scale,
            bias,
            dropout,
        }
    }
}

impl<'a> Qkv<'a> {
    /// Those of queries, keys and values: three times the same, if they are packed.
    fn slices(self) -> [&'a [f32]; 3] {
        match self {
            Self::Separate { q, k, v } => [q, k, v],
            Self::Packed(qkv) => [qkv; 3],
        }
    }
}

/// # Safety
/// The view, `out` and `lse` are readable and writable as the sizes say.
unsafe fn head_forward(how: (Isa, Precision), view: HeadView, out: *mut f32, lse: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match how {
            #[cfg(target_arch = "x86_64")]
            (Isa::Amx, Precision::Mixed) => amx::head_forward(view, out, lse),
            _ => flash::head_forward(how, view, out, lse),
        }
    }
}

/// Instruction set and precision of the matmuls.
fn matmul_path(cpu: Cpu) -> (Isa, Precision) {
    (cpu.isa.available(), cpu.matmul_precision())
}

#[cfg(test)]
mod tests;
