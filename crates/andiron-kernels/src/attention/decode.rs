//! One query over a cache of keys: bound by reading the cache once.

use std::ops::Range;

use super::flash::dot;
use crate::gemm::pack::Scratch;
use crate::simd::{Simd, dispatch};
use crate::softmax::{exp_into, largest};

/// One head of one query, and the keys that it sees. Key `j` is number `j % block_len` of block `j / block_len`.
pub(super) struct QueryView<'a> {
    pub(super) q: *const f32,
    /// The head's first key and first value in each block.
    pub(super) blocks: &'a [(*const f32, *const f32)],
    pub(super) block_len: usize,
    /// Between keys of a block, and between values.
    pub(super) kv_stride: usize,
    /// The keys that are seen.
    pub(super) seen: Range<usize>,
    pub(super) dim: usize,
    pub(super) scale: f32,
    /// What is added to the score of key 0; for key `j` it lies `j` before. Null if nothing is added.
    pub(super) bias: *const f32,
}

impl QueryView<'_> {
    /// The parts of blocks that are seen: how many keys come before each, how many are in it, its first key and value.
    #[inline(always)]
    fn parts(&self) -> impl Iterator<Item = (usize, usize, *const f32, *const f32)> {
        let Range { start, end } = self.seen.clone();
        let blocks = start / self.block_len..end.div_ceil(self.block_len);
        blocks.map(move |block| {
            let first = start.max(block * self.block_len);
            let keys = end.min((block + 1).saturating_mul(self.block_len)) - first;
            let (k, v) = self.blocks[block];
            let step = (first - block * self.block_len) * self.kv_stride;
            (first - start, keys, k.wrapping_add(step), v.wrapping_add(step))
        })
    }

    /// What is added to the score of the `j`-th key that is seen.
    ///
    /// # Safety
    /// There are so many, and the view is readable.
    #[inline(always)]
    unsafe fn bias_of(&self, j: usize) -> f32 {
        // SAFETY: the caller's promise.
        if self.bias.is_null() { 0.0 } else { unsafe { *self.bias.wrapping_sub(self.seen.start + j) } }
    }
}

dispatch! {
    /// The mean of the values, and the logarithm of the sum of exponentials of the scores.
    ///
    /// # Safety
    /// The view, `out` and `lse` are readable and writable as the sizes say.
    pub(super) unsafe fn one_query(view: &QueryView, out: *mut f32, lse: *mut f32) = plain | vector;
}

/// # Safety
/// As for [`one_query`].
unsafe fn plain(view: &QueryView, out: *mut f32, lse: *mut f32) {
    let mut scores = Vec::with_capacity(view.seen.len());
    // SAFETY: keys and widths are below the sizes of the view.
    unsafe {
        for (before, keys, k, _) in view.parts() {
            for j in 0..keys {
                let products = (0..view.dim)
                    .map(|d| f64::from(*view.q.add(d)) * f64::from(*k.add(j * view.kv_stride + d)));
                let score = products.sum::<f64>() * f64::from(view.scale);
                scores.push(score + f64::from(view.bias_of(before + j)));
            }
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let max = if max >= f64::from(f32::MIN) { max } else { 0.0 };
        scores.iter_mut().for_each(|score| *score = (*score - max).exp());
        let sum: f64 = scores.iter().sum();
        *lse = (max + sum.ln()) as f32;
        for d in 0..view.dim {
            let parts = view.parts();
            let values = parts
                .flat_map(|(_, keys, _, v)| (0..keys).map(move |j| v.wrapping_add(j * view.kv_stride + d)));
            let mean: f64 = values.zip(&scores).map(|(value, p)| f64::from(*value) * p).sum();
            *out.add(d) = if sum == 0.0 { 0.0 } else { (mean / sum) as f32 };
        }
    }
}

/// # Safety
/// As for [`one_query`].
#[inline(always)]
unsafe fn vector<S: Simd>(s: S, view: &QueryView, out: *mut f32, lse: *mut f32) {
    let QueryView { q, kv_stride, dim, scale, .. } = *view;
    let mut scratch = Scratch::take(view.seen.len());
    // SAFETY: the scratch memory has that many numbers, all initialised; keys and widths are below the sizes.
    unsafe {
        let scores = std::slice::from_raw_parts_mut(scratch.pointer(), view.seen.len());
        for (before, keys, k, _) in view.parts() {
            for (j, score) in scores[before..before + keys].iter_mut().enumerate() {
                *score = dot(s, q, k.add(j * kv_stride), dim) * scale + view.bias_of(before + j);
            }
        }
        let max = largest(s, scores);
        let max = if max >= f32::MIN { max } else { 0.0 };
        let sum = exp_into(s, scores, max);
        *lse = max + sum.ln();
        let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        let whole = dim / S::LANES * S::LANES;
        let mut d = 0;
        // Four vectors of the width at a time: that covers a head of 64 with sixteen lanes.
        while d + 4 * S::LANES <= whole {
            mean::<S, 4>(s, view, (scores, factor), d, out.add(d));
            d += 4 * S::LANES;
        }
        while d < whole {
            mean::<S, 1>(s, view, (scores, factor), d, out.add(d));
            d += S::LANES;
        }
        if whole < dim {
            let mut last = s.splat(0.0);
            for (before, keys, _, v) in view.parts() {
                for (j, p) in scores[before..before + keys].iter().enumerate() {
                    let value = s.load_part_from(v.add(j * kv_stride + whole), dim - whole);
                    last = s.fma(s.splat(*p), value, last);
                }
            }
            s.store_part_to(out.add(whole), s.mul(last, s.splat(factor)), dim - whole);
        }
    }
}

/// `N` vectors of the mean, from channel `d` on.
///
/// # Safety
/// As for [`one_query`]; so many channels are there, and room for them at `out`.
#[inline(always)]
unsafe fn mean<S: Simd, const N: usize>(
    s: S,
    view: &QueryView,
    (scores, factor): (&[f32], f32),
    d: usize,
    out: *mut f32,
) {
    let mut sums = [s.splat(0.0); N];
    // SAFETY: the caller's promise.
    unsafe {
        for (before, keys, _, v) in view.parts() {
            for (j, p) in scores[before..before + keys].iter().enumerate() {
                let v = v.add(j * view.kv_stride + d);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = s.fma(s.splat(*p), s.load_from(v.add(n * S::LANES)), *sum);
                }
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            s.store_to(out.add(n * S::LANES), s.mul(*sum, s.splat(factor)));
        }
    }
}
