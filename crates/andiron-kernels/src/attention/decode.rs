//! One query over a cache of keys: bound by reading the cache once.

use std::ops::Range;

use crate::gemm::pack::Scratch;
use crate::simd::{Simd, dispatch};
use crate::softmax::{exp_into, largest};

/// Heads that a view has at most, so that their sums stay in registers.
pub(super) const MOST_HEADS: usize = 4;

/// One query of some heads that read the same keys and values, and the keys that it sees. Key `j` is number
/// `j % block_len` of block `j / block_len`.
pub(super) struct QueryView<'a> {
    /// `[heads, dim]`, as is the result.
    pub(super) q: *const f32,
    /// No more than [`MOST_HEADS`].
    pub(super) heads: usize,
    /// The first key and the first value in each block.
    pub(super) blocks: &'a [(*const f32, *const f32)],
    pub(super) block_len: usize,
    /// Between keys of a block, and between values.
    pub(super) kv_stride: usize,
    /// The keys that are seen.
    pub(super) seen: Range<usize>,
    pub(super) dim: usize,
    pub(super) scale: f32,
    /// What is added to the score of the first head and key 0; for key `j` it lies `j` before. Null if nothing is added.
    pub(super) bias: *const f32,
    /// From a head's bias to that of the next.
    pub(super) bias_stride: usize,
}

/// A part of a block that is seen.
#[derive(Clone, Copy)]
struct Part {
    /// Keys that are seen before it.
    before: usize,
    keys: usize,
    /// Its first key and value.
    start: (*const f32, *const f32),
    /// Those of the next block.
    next: (*const f32, *const f32),
}

impl Part {
    /// Where the key or value lies that comes so many after number `j`; anywhere, if there is none.
    #[inline(always)]
    fn ahead(
        &self,
        j: usize,
        which: impl Fn((*const f32, *const f32)) -> *const f32,
        stride: usize,
    ) -> *const f32 {
        /// Enough that memory answers meanwhile: a key takes about 10 ns.
        const AHEAD: usize = 12;
        match j + AHEAD < self.keys {
            true => which(self.start).wrapping_add((j + AHEAD) * stride),
            false => which(self.next).wrapping_add((j + AHEAD - self.keys) * stride),
        }
    }
}

impl QueryView<'_> {
    #[inline(always)]
    fn parts(&self) -> impl Iterator<Item = Part> {
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

    /// What is added to the score of a head and the `j`-th key that is seen.
    ///
    /// # Safety
    /// There are so many, and the view is readable.
    #[inline(always)]
    unsafe fn bias_of(&self, head: usize, j: usize) -> f32 {
        let of_head = self.bias.wrapping_add(head * self.bias_stride);
        // SAFETY: the caller's promise.
        if self.bias.is_null() { 0.0 } else { unsafe { *of_head.wrapping_sub(self.seen.start + j) } }
    }
}

dispatch! {
    /// The means of the values, and the logarithms of the sums of exponentials of the scores.
    ///
    /// # Safety
    /// The view, `out` and `lse` are readable and writable as the sizes say.
    pub(super) unsafe fn one_query(view: &QueryView, out: *mut f32, lse: *mut f32) = plain | vector;
}

/// # Safety
/// As for [`one_query`].
unsafe fn plain(view: &QueryView, out: *mut f32, lse: *mut f32) {
    let QueryView { q, kv_stride, dim, scale, .. } = *view;
    for head in 0..view.heads {
        let (mut scores, mut values) = (Vec::new(), Vec::new());
        // SAFETY: keys and widths are below the sizes of the view.
        unsafe {
            let q = std::slice::from_raw_parts(q.add(head * dim), dim);
            for Part { before, keys, start: (k, v), .. } in view.parts() {
                for j in 0..keys {
                    let key = std::slice::from_raw_parts(k.add(j * kv_stride), dim);
                    let product: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    scores.push(product * f64::from(scale) + f64::from(view.bias_of(head, before + j)));
                    values.push(std::slice::from_raw_parts(v.add(j * kv_stride), dim));
                }
            }
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let max = if max >= f64::from(f32::MIN) { max } else { 0.0 };
            scores.iter_mut().for_each(|score| *score = (*score - max).exp());
            let sum: f64 = scores.iter().sum();
            *lse.add(head) = (max + sum.ln()) as f32;
            for d in 0..dim {
                let mean: f64 = values.iter().zip(&scores).map(|(value, p)| f64::from(value[d]) * p).sum();
                *out.add(head * dim + d) = if sum == 0.0 { 0.0 } else { (mean / sum) as f32 };
            }
        }
    }
}

/// # Safety
/// As for [`one_query`].
#[inline(always)]
unsafe fn vector<S: Simd>(s: S, view: &QueryView, out: *mut f32, lse: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match view.heads {
            1 => heads::<S, 1>(s, view, out, lse),
            2 => heads::<S, 2>(s, view, out, lse),
            3 => heads::<S, 3>(s, view, out, lse),
            4 => heads::<S, 4>(s, view, out, lse),
            other => unreachable!("a view has one to four heads, not {other}"),
        }
    }
}

/// # Safety
/// As for [`one_query`], of `H` heads.
#[inline(always)]
unsafe fn heads<S: Simd, const H: usize>(s: S, view: &QueryView, out: *mut f32, lse: *mut f32) {
    let QueryView { q, kv_stride, dim, scale, .. } = *view;
    let (seen, whole) = (view.seen.len(), dim / S::LANES * S::LANES);
    let mut scratch = Scratch::take(H * seen);
    // SAFETY: the scratch memory has that many numbers, all initialised; keys and widths are below the sizes.
    unsafe {
        let scores = std::slice::from_raw_parts_mut(scratch.pointer(), H * seen);
        for part in view.parts() {
            for j in 0..part.keys {
                let key = part.start.0.add(j * kv_stride);
                let ahead = part.ahead(j, |start| start.0, kv_stride);
                let mut sums = [s.splat(0.0); H];
                for d in (0..whole).step_by(S::LANES) {
                    let x = s.load_from(key.add(d));
                    s.prefetch(ahead.wrapping_add(d));
                    for (head, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(s.load_from(q.add(head * dim + d)), x, *sum);
                    }
                }
                if whole < dim {
                    let x = s.load_part_from(key.add(whole), dim - whole);
                    for (head, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(s.load_part_from(q.add(head * dim + whole), dim - whole), x, *sum);
                    }
                }
                for (head, sum) in sums.into_iter().enumerate() {
                    let score = s.sum(sum) * scale + view.bias_of(head, part.before + j);
                    scores[head * seen + part.before + j] = score;
                }
            }
        }
        let mut factors = [0.0; H];
        for (head, factor) in factors.iter_mut().enumerate() {
            let scores = &mut scores[head * seen..(head + 1) * seen];
            let max = largest(s, scores);
            let max = if max >= f32::MIN { max } else { 0.0 };
            let sum = exp_into(s, scores, max);
            *lse.add(head) = max + sum.ln();
            *factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        }
        let weights = (&*scores, factors);
        let mut d = 0;
        // Four vectors of the width at a time: that covers a head of 64 with sixteen lanes.
        if (H + 1) * 4 < S::REGISTERS {
            while d + 4 * S::LANES <= whole {
                means::<S, H, 4>(s, view, weights, d, out);
                d += 4 * S::LANES;
            }
        }
        while d < whole {
            means::<S, H, 1>(s, view, weights, d, out);
            d += S::LANES;
        }
        if whole < dim {
            last_means(s, view, weights, whole, out);
        }
    }
}

/// `N` vectors of the means, from channel `d` on.
///
/// # Safety
/// As for [`one_query`]; so many channels are there.
#[inline(always)]
unsafe fn means<S: Simd, const H: usize, const N: usize>(
    s: S,
    view: &QueryView,
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
                    *x = s.load_from(value.add(n * S::LANES));
                    s.prefetch(ahead.wrapping_add(n * S::LANES));
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

/// The channels from `d` on, less than a vector.
///
/// # Safety
/// As for [`one_query`].
#[inline(always)]
unsafe fn last_means<S: Simd, const H: usize>(
    s: S,
    view: &QueryView,
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
                let x = s.load_part_from(part.start.1.add(j * view.kv_stride + d), rest);
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
