//! Building blocks of a softmax over a slice.

use crate::simd::{Simd, exp};

/// The maximum of `x`, `-∞` if `x` is empty; NaN may be ignored.
#[inline(always)]
pub(crate) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut chunks = x.chunks_exact(S::LANES);
    let mut max = s.splat(f32::NEG_INFINITY);
    for chunk in &mut chunks {
        max = s.max(s.load(chunk), max);
    }
    chunks.remainder().iter().fold(s.largest(max), |max, x| max.max(*x))
}

/// `Σ exp(x - max)`.
#[inline(always)]
pub(crate) fn exp_sum<S: Simd>(s: S, x: &[f32], max: f32) -> f32 {
    let mut chunks = x.chunks_exact(S::LANES);
    let (mut sum, max) = (s.splat(0.0), s.splat(max));
    for chunk in &mut chunks {
        sum = s.add(sum, exp(s, s.sub(s.load(chunk), max)));
    }
    let rest = chunks.remainder();
    // Lanes beyond the slice add nothing: e^-∞ is 0.
    let is_there = s.at_least(s.splat(rest.len() as f32 - 0.5), s.indices());
    let last = s.select(is_there, s.sub(s.load_part(rest), max), s.splat(f32::NEG_INFINITY));
    s.sum(s.add(sum, exp(s, last)))
}

/// Replaces `x` by `exp(x - max)` and returns the sum.
#[inline(always)]
pub(crate) fn exp_into<S: Simd>(s: S, x: &mut [f32], max: f32) -> f32 {
    let shift = s.splat(max);
    let mut sum = s.splat(0.0);
    let mut chunks = x.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let e = exp(s, s.sub(s.load(chunk), shift));
        sum = s.add(sum, e);
        s.store(chunk, e);
    }
    let rest = chunks.into_remainder();
    s.store_part(rest, exp(s, s.sub(s.load_part(rest), shift)));
    s.sum(sum) + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::dispatch;
    use crate::testing::{assert_close, numbers, wide};

    dispatch! { fn run(x: &mut [f32]) -> [f32; 3] = plain | vector; }

    fn plain(x: &mut [f32]) -> [f32; 3] {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        x.iter_mut().for_each(|x| *x = (f64::from(*x) - f64::from(max)).exp() as f32);
        let sum = x.iter().map(|x| f64::from(*x)).sum::<f64>() as f32;
        [max, sum, sum]
    }

    #[inline(always)]
    fn vector<S: Simd>(s: S, x: &mut [f32]) -> [f32; 3] {
        let max = largest(s, x);
        [max, exp_sum(s, x, max), exp_into(s, x, max)]
    }

    #[track_caller]
    fn check(x: &[f32]) {
        let mut wanted = x.to_vec();
        wanted.extend(run(Isa::Scalar, &mut wanted.clone()));
        plain(&mut wanted[..x.len()]);
        for isa in Isa::supported() {
            let mut found = x.to_vec();
            let results = run(isa, &mut found);
            found.extend(results);
            assert_close(&format!("{isa}"), &found, &wide(&wanted), 1e-5);
        }
    }

    #[test]
    fn every_path_equals_the_plain_one() {
        for len in (1..70).chain([300, 1000]) {
            check(&numbers(len as u64, len));
        }
    }

    #[test]
    fn huge_and_masked_scores_are_weighed() {
        let inf = f32::INFINITY;
        check(&[1e30, 1e30, -1e30, -inf, -3e38]);
        check(&[0.0, 1.0, -inf, 89.0, -89.0]);
    }
}
