//! One query over cached keys and values: bound by the bandwidth of reading them once.

use std::ops::Range;

use super::element::Element;
use crate::Isa;
use crate::bf16::Bf16;
use crate::gemm::pack::Scratch;
use crate::simd::{Simd, dispatch};
use crate::softmax::{exp_into, largest};

/// The most heads of a view: their accumulators stay in registers.
pub(super) const MOST_HEADS: usize = 4;

/// One query of some heads that share a KV head, and the keys that it attends to. Key `j` is position `j % block_len` of
/// block `j / block_len`.
pub(super) struct QueryView<'a, E> {
    /// `[heads, dim]`, like the output.
    pub(super) q: *const f32,
    /// At most [`MOST_HEADS`].
    pub(super) heads: usize,
    /// First key and first value of each block.
    pub(super) blocks: &'a [(*const E, *const E)],
    pub(super) block_len: usize,
    /// From a key of a block to the next, and from a value to the next.
    pub(super) kv_stride: usize,
    /// The attended keys.
    pub(super) seen: Range<usize>,
    pub(super) dim: usize,
    pub(super) scale: f32,
    /// Bias of the first head and key 0; that of key `j` is `j` elements before it. Null without bias.
    pub(super) bias: *const f32,
    /// From a head's bias to that of the next.
    pub(super) bias_stride: usize,
}

/// Maximum of a query's scores, and sum of `exp(score - maximum)`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuerySum {
    /// 0 if the query attends to no key.
    pub(super) max: f32,
    pub(super) sum: f32,
}

/// The attended part of a block.
#[derive(Clone, Copy)]
struct Part<E> {
    /// Attended keys before it.
    before: usize,
    keys: usize,
    /// First key and first value.
    start: (*const E, *const E),
    /// First key and first value of the next block.
    next: (*const E, *const E),
}

impl<E: Element> Part<E> {
    /// Prefetch address: the key or value some positions after `j`; any address if there is none.
    #[inline(always)]
    fn ahead(&self, j: usize, which: impl Fn((*const E, *const E)) -> *const E, stride: usize) -> *const E {
        /// Covers memory latency: a key takes a few nanoseconds.
        const AHEAD: usize = 40;
        match j + AHEAD < self.keys {
            true => which(self.start).wrapping_add((j + AHEAD) * stride),
            false => which(self.next).wrapping_add((j + AHEAD - self.keys) * stride),
        }
    }
}

impl<E: Element> QueryView<'_, E> {
    #[inline(always)]
    fn parts(&self) -> impl Iterator<Item = Part<E>> {
        let Range { start, end } = self.seen.clone();
        let blocks = start / self.block_len..end.div_ceil(self.block_len);
        blocks.map(move |block| {
            let first = start.max(block * self.block_len);
            let keys = end.min((block + 1).saturating_mul(self.block_len)) - first;
            let (k, v) = self.blocks[block];
            let step = (first - block * self.block_len) * self.kv_stride;
            let start_of = (k.wrapping_add(step), v.wrapping_add(step));
            let next = self.blocks.get(block + 1).copied().unwrap_or(start_of);
            Part { before: first - start, keys, start: start_of, next }
        })
    }

    /// Bias of a head and the `j`-th attended key.
    ///
    /// # Safety
    /// The head and the key exist, and the view is readable.
    #[inline(always)]
    unsafe fn bias_of(&self, head: usize, j: usize) -> f32 {
        let of_head = self.bias.wrapping_add(head * self.bias_stride);
        // SAFETY: the caller's promise.
        if self.bias.is_null() { 0.0 } else { unsafe { *of_head.wrapping_sub(self.seen.start + j) } }
    }
}

dispatch! {
    /// # Safety
    /// The view, `out` and `sums` are readable and writable as the sizes say.
    unsafe fn one_query_f32(view: &QueryView<f32>, out: *mut f32, sums: *mut QuerySum) = plain | vector;
}
dispatch! {
    /// # Safety
    /// The view, `out` and `sums` are readable and writable as the sizes say.
    unsafe fn one_query_bf16(view: &QueryView<Bf16>, out: *mut f32, sums: *mut QuerySum) = plain | vector;
}

/// An element type of cached keys and values, with the kernel compiled for it.
pub(super) trait Cached: Element {
    /// The attention output of one query, and the softmax denominator of each head.
    ///
    /// # Safety
    /// The view, `out` and `sums` are readable and writable as the sizes say.
    unsafe fn one_query(isa: Isa, view: &QueryView<Self>, out: *mut f32, sums: *mut QuerySum);
}

impl Cached for f32 {
    unsafe fn one_query(isa: Isa, view: &QueryView<Self>, out: *mut f32, sums: *mut QuerySum) {
        // SAFETY: the caller's promise.
        unsafe { one_query_f32(isa, view, out, sums) };
    }
}

impl Cached for Bf16 {
    unsafe fn one_query(isa: Isa, view: &QueryView<Self>, out: *mut f32, sums: *mut QuerySum) {
        // SAFETY: the caller's promise.
        unsafe { one_query_bf16(isa, view, out, sums) };
    }
}

/// # Safety
/// As for [`Cached::one_query`].
unsafe fn plain<E: Element>(view: &QueryView<E>, out: *mut f32, sums: *mut QuerySum) {
    let QueryView { q, kv_stride, dim, scale, .. } = *view;
    for head in 0..view.heads {
        let (mut scores, mut values) = (Vec::new(), Vec::new());
        // SAFETY: keys and widths are below the sizes of the view.
        unsafe {
            let q = std::slice::from_raw_parts(q.add(head * dim), dim);
            for Part { before, keys, start: (k, v), .. } in view.parts() {
                for j in 0..keys {
                    let key = std::slice::from_raw_parts(k.add(j * kv_stride), dim);
                    let product: f64 =
                        q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(k.widen())).sum();
                    scores.push(product * f64::from(scale) + f64::from(view.bias_of(head, before + j)));
                    values.push(std::slice::from_raw_parts(v.add(j * kv_stride), dim));
                }
            }
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let max = if max >= f64::from(f32::MIN) { max } else { 0.0 };
            scores.iter_mut().for_each(|score| *score = (*score - max).exp());
            let sum: f64 = scores.iter().sum();
            *sums.add(head) = QuerySum { max: max as f32, sum: sum as f32 };
            for d in 0..dim {
                let mean: f64 =
                    values.iter().zip(&scores).map(|(value, p)| f64::from(value[d].widen()) * p).sum();
                *out.add(head * dim + d) = if sum == 0.0 { 0.0 } else { (mean / sum) as f32 };
            }
        }
    }
}

/// # Safety
/// As for [`Cached::one_query`].
#[inline(always)]
unsafe fn vector<S: Simd, E: Element>(s: S, view: &QueryView<E>, out: *mut f32, sums: *mut QuerySum) {
    // SAFETY: the caller's promise.
    unsafe {
        match view.heads {
            1 => heads::<S, E, 1>(s, view, out, sums),
            2 => heads::<S, E, 2>(s, view, out, sums),
            3 => heads::<S, E, 3>(s, view, out, sums),
            4 => heads::<S, E, 4>(s, view, out, sums),
            other => unreachable!("a view has one to four heads, not {other}"),
        }
    }
}

/// # Safety
/// As for [`Cached::one_query`], of `H` heads.
#[inline(always)]
unsafe fn heads<S: Simd, E: Element, const H: usize>(
    s: S,
    view: &QueryView<E>,
    out: *mut f32,
    sums: *mut QuerySum,
) {
    let dim = view.dim;
    let (seen, whole) = (view.seen.len(), dim / S::LANES * S::LANES);
    let mut scratch = Scratch::take(H * seen);
    // SAFETY: the scratch memory has that many elements, all initialised; keys and widths are below the sizes.
    unsafe {
        let scores = std::slice::from_raw_parts_mut(scratch.pointer(), H * seen);
        for part in view.parts() {
            let mut j = 0;
            // As many keys as leave registers for a query and the keys themselves.
            if 4 * H + 5 <= S::REGISTERS {
                while j + 4 <= part.keys {
                    some_scores::<S, E, H, 4>(s, view, part, j, scores);
                    j += 4;
                }
            } else {
                while j + 2 <= part.keys {
                    some_scores::<S, E, H, 2>(s, view, part, j, scores);
                    j += 2;
                }
            }
            while j < part.keys {
                some_scores::<S, E, H, 1>(s, view, part, j, scores);
                j += 1;
            }
        }
        let mut factors = [0.0; H];
        for (head, factor) in factors.iter_mut().enumerate() {
            let scores = &mut scores[head * seen..(head + 1) * seen];
            let max = largest(s, scores);
            let max = if max >= f32::MIN { max } else { 0.0 };
            let sum = exp_into(s, scores, max);
            *sums.add(head) = QuerySum { max, sum };
            *factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        }
        let weights = (&*scores, factors);
        let mut d = 0;
        // Four vectors at a time: with sixteen lanes, a whole head of width 64.
        if (H + 1) * 4 < S::REGISTERS {
            while d + 4 * S::LANES <= whole {
                means::<S, E, H, 4>(s, view, weights, d, out);
                d += 4 * S::LANES;
            }
        }
        while d < whole {
            means::<S, E, H, 1>(s, view, weights, d, out);
            d += S::LANES;
        }
        if whole < dim {
            last_means::<S, E, H>(s, view, weights, whole, out);
        }
    }
}

/// The scores of `N` keys (1, 2 or 4) from key `j` of a part on.
///
/// # Safety
/// As for [`Cached::one_query`], of `H` heads; the keys exist, and `scores` holds each head and attended key.
#[inline(always)]
unsafe fn some_scores<S: Simd, E: Element, const H: usize, const N: usize>(
    s: S,
    view: &QueryView<E>,
    part: Part<E>,
    j: usize,
    scores: &mut [f32],
) {
    let QueryView { q, kv_stride, dim, scale, .. } = *view;
    let (seen, whole) = (view.seen.len(), dim / S::LANES * S::LANES);
    let key = part.start.0.wrapping_add(j * kv_stride);
    let ahead = part.ahead(j, |start| start.0, kv_stride);
    let mut sums = [[s.splat(0.0); N]; H];
    // SAFETY: the caller's promise.
    unsafe {
        for d in (0..whole).step_by(S::LANES) {
            let mut x = [s.splat(0.0); N];
            for (n, x) in x.iter_mut().enumerate() {
                *x = E::load(s, key.add(n * kv_stride + d));
                if d.is_multiple_of(E::LINE) {
                    s.prefetch(ahead.wrapping_add(n * kv_stride + d));
                }
            }
            for (head, sums) in sums.iter_mut().enumerate() {
                let q = s.load_from(q.add(head * dim + d));
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = s.fma(q, x, *sum);
                }
            }
        }
        if whole < dim {
            let mut x = [s.splat(0.0); N];
            for (n, x) in x.iter_mut().enumerate() {
                *x = E::load_part(s, key.add(n * kv_stride + whole), dim - whole);
            }
            for (head, sums) in sums.iter_mut().enumerate() {
                let q = s.load_part_from(q.add(head * dim + whole), dim - whole);
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = s.fma(q, x, *sum);
                }
            }
        }
        for (head, sums) in sums.into_iter().enumerate() {
            let mut of_keys = [0.0; N];
            if N == 4 {
                of_keys.copy_from_slice(&s.sums([sums[0], sums[1 % N], sums[2 % N], sums[3 % N]])[..N]);
            } else {
                for (sum, of_key) in sums.into_iter().zip(&mut of_keys) {
                    *of_key = s.sum(sum);
                }
            }
            for (n, sum) in of_keys.into_iter().enumerate() {
                let key = part.before + j + n;
                scores[head * seen + key] = sum * scale + view.bias_of(head, key);
            }
        }
    }
}

/// `N` vectors of the output, from channel `d` on.
///
/// # Safety
/// As for [`Cached::one_query`]; the channels exist.
#[inline(always)]
unsafe fn means<S: Simd, E: Element, const H: usize, const N: usize>(
    s: S,
    view: &QueryView<E>,
    (scores, factors): (&[f32], [f32; H]),
    d: usize,
    out: *mut f32,
) {
    let seen = view.seen.len();
    let mut sums = [[s.splat(0.0); N]; H];
    // SAFETY: the caller's promise.
    unsafe {
        for part in view.parts() {
            for j in 0..part.keys {
                let value = part.start.1.add(j * view.kv_stride + d);
                let ahead = part.ahead(j, |start| start.1, view.kv_stride).wrapping_add(d);
                let mut x = [s.splat(0.0); N];
                for (n, x) in x.iter_mut().enumerate() {
                    *x = E::load(s, value.add(n * S::LANES));
                    if (n * S::LANES).is_multiple_of(E::LINE) {
                        s.prefetch(ahead.wrapping_add(n * S::LANES));
                    }
                }
                for (head, sums) in sums.iter_mut().enumerate() {
                    let p = s.splat(scores[head * seen + part.before + j]);
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = s.fma(p, x, *sum);
                    }
                }
            }
        }
        for (head, (sums, factor)) in sums.iter().zip(factors).enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                s.store_to(out.add(head * view.dim + d + n * S::LANES), s.mul(*sum, s.splat(factor)));
            }
        }
    }
}

/// The output channels from `d` on, fewer than a vector has lanes.
///
/// # Safety
/// As for [`Cached::one_query`].
#[inline(always)]
unsafe fn last_means<S: Simd, E: Element, const H: usize>(
    s: S,
    view: &QueryView<E>,
    (scores, factors): (&[f32], [f32; H]),
    d: usize,
    out: *mut f32,
) {
    let (seen, rest) = (view.seen.len(), view.dim - d);
    let mut sums = [s.splat(0.0); H];
    // SAFETY: the caller's promise.
    unsafe {
        for part in view.parts() {
            for j in 0..part.keys {
                let x = E::load_part(s, part.start.1.add(j * view.kv_stride + d), rest);
                for (head, sum) in sums.iter_mut().enumerate() {
                    *sum = s.fma(s.splat(scores[head * seen + part.before + j]), x, *sum);
                }
            }
        }
        for (head, (sum, factor)) in sums.iter().zip(factors).enumerate() {
            s.store_part_to(out.add(head * view.dim + d), s.mul(*sum, s.splat(factor)), rest);
        }
    }
}
