//! One query over a cache of keys: bound by reading the cache once.

use super::flash::dot;
use super::plain;
use super::view::HeadView;
use crate::gemm::pack::Scratch;
use crate::simd::{Simd, dispatch};
use crate::softmax::{exp_into, largest};

dispatch! {
    /// # Safety
    /// The view has one query; it, `out` and `lse` are readable and writable as the sizes say.
    pub(super) unsafe fn one_query(view: HeadView, out: *mut f32, lse: *mut f32)
        = plain::head_forward | vector;
}

/// # Safety
/// As for [`one_query`].
#[inline(always)]
unsafe fn vector<S: Simd>(s: S, view: HeadView, out: *mut f32, lse: *mut f32) {
    let HeadView { q, k, v, kv_stride, keys, dim, scale, .. } = view;
    // A single query sees every key of the view, or it would not be there.
    let mut scratch = Scratch::take(keys);
    // SAFETY: the scratch memory has that many numbers, all initialised; keys and widths are below the sizes.
    unsafe {
        let scores = std::slice::from_raw_parts_mut(scratch.pointer(), keys);
        for (j, score) in scores.iter_mut().enumerate() {
            *score = dot(s, q, k.add(j * kv_stride), dim) * scale + view.bias_of(0, j);
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
            mean::<S, 4>(s, scores, factor, (v.add(d), kv_stride), out.add(d));
            d += 4 * S::LANES;
        }
        while d < whole {
            mean::<S, 1>(s, scores, factor, (v.add(d), kv_stride), out.add(d));
            d += S::LANES;
        }
        let mut last = s.splat(0.0);
        for (j, p) in scores.iter().enumerate() {
            let value = s.load_part_from(v.add(j * kv_stride + whole), dim - whole);
            last = s.fma(s.splat(*p), value, last);
        }
        s.store_part_to(out.add(whole), s.mul(last, s.splat(factor)), dim - whole);
    }
}

/// # Safety
/// `v` has `N` vectors for every score, `out` room for them.
#[inline(always)]
unsafe fn mean<S: Simd, const N: usize>(
    s: S,
    scores: &[f32],
    factor: f32,
    (v, stride): (*const f32, usize),
    out: *mut f32,
) {
    let mut sums = [s.splat(0.0); N];
    // SAFETY: the caller's promise.
    unsafe {
        for (j, p) in scores.iter().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(s.splat(*p), s.load_from(v.add(j * stride + n * S::LANES)), *sum);
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            s.store_to(out.add(n * S::LANES), s.mul(*sum, s.splat(factor)));
        }
    }
}
