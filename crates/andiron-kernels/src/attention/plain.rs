//! Attention by its definition, in f64: the reference for the fast versions.

use super::view::{BackwardView, HeadView};

/// # Safety
/// `from` is readable for `len` elements.
unsafe fn row<'a>(from: *const f32, len: usize) -> &'a [f32] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(from, len) }
}

/// # Safety
/// `to` is writable for `len` elements, and nothing else refers to them.
unsafe fn row_mut<'a>(to: *mut f32, len: usize) -> &'a mut [f32] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(to, len) }
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// # Safety
/// The view, `out` and `lse` are readable and writable as the sizes say.
pub(super) unsafe fn head_forward(view: HeadView, out: *mut f32, lse: *mut f32) {
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, dim, .. } = view;
    for i in 0..view.queries {
        let seen = view.keys_of(i);
        // SAFETY: `i` is below the number of queries, `j` below that of keys.
        let (query, key, value, out, lse) = unsafe {
            (
                row(q.add(i * q_stride), dim),
                |j: usize| row(k.add(j * kv_stride), dim),
                |j: usize| row(v.add(j * kv_stride), dim),
                row_mut(out.add(i * out_stride), dim),
                &mut *lse.add(i),
            )
        };
        // SAFETY: query `i` and key `j` exist.
        let bias = |j| f64::from(unsafe { view.bias_of(i, j) });
        let scores: Vec<f64> =
            seen.clone().map(|j| dot(query, key(j)) * f64::from(view.scale) + bias(j)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        let mut mean = vec![0.0; dim];
        for (j, score) in seen.clone().zip(&scores) {
            let weight = (score - max).exp() / sum * view.kept(i, j);
            mean.iter_mut().zip(value(j)).for_each(|(mean, v)| *mean += weight * f64::from(*v));
        }
        out.iter_mut().zip(mean).for_each(|(out, mean)| *out = mean as f32);
        *lse = if seen.is_empty() { f32::NEG_INFINITY } else { (max + sum.ln()) as f32 };
    }
}

/// With `p = exp(score - lse)` and `m` the dropout factor of `p` (1 without dropout): `dv += m p dout`,
/// `ds = p (m dout·v - dout·out) scale`, `dq = Σ ds k`, `dk += ds q`; the gradient of a bias is `ds` without the scale.
///
/// The softmax gradient subtracts from `dp = m dout·v` its mean `Σ p dp` over the query's keys. That mean is
/// `dout · Σ m p v`, and the sum is the output after dropout, so the mean is `dout·out` with or without dropout.
///
/// # Safety
/// The view is readable and writable as the sizes say.
pub(super) unsafe fn head_backward(view: BackwardView) {
    let BackwardView { head, out, lse, dout, dq, dk, dv, dq_stride, dkv_stride, dbias } = view;
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, dim, scale, .. } = head;
    for i in 0..head.queries {
        // SAFETY: `i` is below the number of queries.
        let (query, out, dout, dq, lse) = unsafe {
            (
                row(q.add(i * q_stride), dim),
                row(out.add(i * out_stride), dim),
                row(dout.add(i * out_stride), dim),
                row_mut(dq.add(i * dq_stride), dim),
                *lse.add(i),
            )
        };
        let delta = dot(dout, out);
        let mut dquery = vec![0.0; dim];
        for j in head.keys_of(i) {
            // SAFETY: `j` is below the number of keys.
            let (key, value, dk, dv) = unsafe {
                (
                    row(k.add(j * kv_stride), dim),
                    row(v.add(j * kv_stride), dim),
                    row_mut(dk.add(j * dkv_stride), dim),
                    row_mut(dv.add(j * dkv_stride), dim),
                )
            };
            // SAFETY: query `i` and key `j` exist.
            let bias = f64::from(unsafe { head.bias_of(i, j) });
            let p = (dot(query, key) * f64::from(scale) + bias - f64::from(lse)).exp();
            let kept = head.kept(i, j);
            let ds = p * (kept * dot(dout, value) - delta);
            if !dbias.is_null() {
                // SAFETY: as above; no other thread adds to it.
                unsafe { *dbias.wrapping_add(i).wrapping_sub(j) += ds as f32 };
            }
            let ds = ds * f64::from(scale);
            for c in 0..dim {
                dv[c] += (kept * p * f64::from(dout[c])) as f32;
                dk[c] += (ds * f64::from(query[c])) as f32;
                dquery[c] += ds * f64::from(key[c]);
            }
        }
        dq.iter_mut().zip(dquery).for_each(|(dq, x)| *dq = x as f32);
    }
}
