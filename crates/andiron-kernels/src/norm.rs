//! Layer normalisation and RMS normalisation over the last axis.

use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};
use crate::{Cpu, residual};

/// Rows whose contributions to `dweight` and `dbias` are summed first; fixed, so that the sums do not depend on the
/// number of threads.
const BLOCK_ROWS: usize = 64;
/// Cost of an element in units of [`parallel::rows`].
const WORK: usize = 3;
/// Elements of a residual sum that are computed before they are normalised: few enough to stay in the L1 cache.
const SUMMED: usize = 1 << 12;

/// Parameters of a norm, and its `eps`.
#[derive(Clone, Copy, Debug)]
pub struct NormParams<'a> {
    /// Scale, `[width]`; its length is the width of a row.
    pub weight: &'a [f32],
    /// Offset, `[width]`; RMS normalisation has none.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance (or mean square) before the root.
    pub eps: f32,
}

/// Outputs of layer normalisation.
#[derive(Debug)]
pub struct LayerNormOut<'a> {
    /// `[rows, width]`.
    pub y: &'a mut [f32],
    /// Mean of each row, `[rows]`; needed again by the backward pass.
    pub mean: &'a mut [f32],
    /// `1 / √(variance + eps)` of each row, `[rows]`; needed again by the backward pass.
    pub rstd: &'a mut [f32],
}

/// Inputs of the backward pass of layer normalisation.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormSaved<'a> {
    /// The forward pass's input, `[rows, width]`.
    pub x: &'a [f32],
    /// Scale, `[width]`.
    pub weight: &'a [f32],
    /// As computed by [`layer_norm`].
    pub mean: &'a [f32],
    /// As computed by [`layer_norm`].
    pub rstd: &'a [f32],
}

/// Gradients of layer normalisation.
#[derive(Debug)]
pub struct LayerNormGrads<'a> {
    /// `[rows, width]`.
    pub dx: &'a mut [f32],
    /// Whether to accumulate into `dx` instead of overwriting it.
    pub accumulate: bool,
    /// `[width]`.
    pub dweight: &'a mut [f32],
    /// `[width]`.
    pub dbias: &'a mut [f32],
}

/// Inputs of the backward pass of RMS normalisation.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormSaved<'a> {
    /// The forward pass's input, `[rows, width]`.
    pub x: &'a [f32],
    /// Scale, `[width]`.
    pub weight: &'a [f32],
    /// As computed by [`rms_norm`].
    pub rstd: &'a [f32],
}

/// Gradients of RMS normalisation.
#[derive(Debug)]
pub struct RmsNormGrads<'a> {
    /// `[rows, width]`.
    pub dx: &'a mut [f32],
    /// Whether to accumulate into `dx` instead of overwriting it.
    pub accumulate: bool,
    /// `[width]`.
    pub dweight: &'a mut [f32],
}

/// `y = (x - mean) rstd weight + bias`, row by row, with the population variance.
///
/// Source: Ba, Kiros, Hinton 2016, "Layer Normalization", <https://arxiv.org/abs/1607.06450>.
///
/// # Shape
/// `x`: `[rows, width]` with `width = params.weight.len()`.
///
/// # Panics
/// If the lengths do not agree.
pub fn layer_norm(cpu: Cpu, params: NormParams, x: &[f32], out: LayerNormOut) {
    forward::<true>(cpu, params, Input::Rows(x), (out.y, out.mean, out.rstd));
}

/// `sum += x`, and [`layer_norm`] of the sum.
///
/// # Panics
/// If the lengths do not agree.
pub fn layer_norm_of_sum(cpu: Cpu, params: NormParams, x: &[f32], sum: &mut [f32], out: LayerNormOut) {
    forward::<true>(cpu, params, Input::Sum(x, sum), (out.y, out.mean, out.rstd));
}

/// Gradients of [`layer_norm`].
///
/// # Panics
/// If the lengths do not agree.
pub fn layer_norm_backward(cpu: Cpu, saved: LayerNormSaved, dy: &[f32], grads: LayerNormGrads) {
    backward::<true>(cpu, saved, dy, grads);
}

/// `y = x rstd weight` with `rstd = 1 / √(mean of x² + eps)`, row by row.
///
/// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization",
/// <https://arxiv.org/abs/1910.07467>.
///
/// # Shape
/// `x`, `y`: `[rows, width]` with `width = params.weight.len()`; `rstd`: `[rows]`.
///
/// # Panics
/// If the lengths do not agree or `params.bias` is given.
pub fn rms_norm(cpu: Cpu, params: NormParams, x: &[f32], y: &mut [f32], rstd: &mut [f32]) {
    assert!(params.bias.is_none(), "RMS normalisation has no offset");
    forward::<false>(cpu, params, Input::Rows(x), (y, &mut [], rstd));
}

/// `sum += x`, and [`rms_norm`] of the sum.
///
/// # Panics
/// If the lengths do not agree or `params.bias` is given.
pub fn rms_norm_of_sum(
    cpu: Cpu,
    params: NormParams,
    x: &[f32],
    sum: &mut [f32],
    (y, rstd): (&mut [f32], &mut [f32]),
) {
    assert!(params.bias.is_none(), "RMS normalisation has no offset");
    forward::<false>(cpu, params, Input::Sum(x, sum), (y, &mut [], rstd));
}

/// Gradients of [`rms_norm`].
///
/// # Panics
/// If the lengths do not agree.
pub fn rms_norm_backward(cpu: Cpu, saved: RmsNormSaved, dy: &[f32], grads: RmsNormGrads) {
    let saved = LayerNormSaved { x: saved.x, weight: saved.weight, mean: &[], rstd: saved.rstd };
    let RmsNormGrads { dx, accumulate, dweight } = grads;
    let grads = LayerNormGrads { dx, accumulate, dweight, dbias: &mut [] };
    backward::<false>(cpu, saved, dy, grads);
}

/// Some rows of a forward pass. Without centring `mean` is empty.
struct Rows<'a> {
    params: NormParams<'a>,
    x: &'a [f32],
    y: &'a mut [f32],
    mean: &'a mut [f32],
    rstd: &'a mut [f32],
}

/// Some rows of a backward pass. Without centring `mean` and `dbias` are empty.
struct BackwardRows<'a> {
    saved: LayerNormSaved<'a>,
    dy: &'a [f32],
    dx: &'a mut [f32],
    accumulate: bool,
    /// Accumulated into.
    dweight: &'a mut [f32],
    /// Accumulated into.
    dbias: &'a mut [f32],
}

/// Input of a norm.
enum Input<'a> {
    Rows(&'a [f32]),
    /// A residual connection: the first is added to the second, which is then normalised.
    Sum(&'a [f32], &'a mut [f32]),
}

fn forward<const CENTRED: bool>(
    cpu: Cpu,
    params: NormParams,
    input: Input,
    (y, mean, rstd): (&mut [f32], &mut [f32], &mut [f32]),
) {
    let (width, rows) = (params.weight.len(), rstd.len());
    let (x, sum) = match input {
        Input::Rows(x) => (x, None),
        Input::Sum(x, sum) => (x, Some(sum)),
    };
    assert_eq!(x.len(), rows * width, "x is not {rows} rows of {width}");
    assert!(sum.as_ref().is_none_or(|sum| sum.len() == x.len()), "x and the sum differ in length");
    assert_eq!(y.len(), x.len(), "x and y differ in length");
    assert!(params.bias.is_none_or(|bias| bias.len() == width), "bias is not as long as weight");
    assert!(!CENTRED || mean.len() == rows, "mean does not have one number per row");
    let (y, mean, rstd, sum) = (Shared::new(y), Shared::new(mean), Shared::new(rstd), sum.map(Shared::new));
    let rows_at_a_time = match sum {
        Some(_) => (SUMMED / width.max(1)).max(1),
        None => rows.max(1),
    };
    parallel::rows(cpu, rows, WORK * width, 1, |part| {
        for start in part.clone().step_by(rows_at_a_time) {
            let part = start..part.end.min(start + rows_at_a_time);
            let elements = part.start * width..part.end * width;
            let means = if CENTRED { part.clone() } else { 0..0 };
            // SAFETY: the parts are disjoint.
            let (y, mean, rstd) = unsafe { (y.range(elements.clone()), mean.range(means), rstd.range(part)) };
            let mut x = &x[elements.clone()];
            if let Some(sum) = &sum {
                // SAFETY: as above.
                let sum = unsafe { sum.range(elements) };
                residual::add_part(cpu.isa, x, sum);
                x = sum;
            }
            let rows = Rows { params, x, y, mean, rstd };
            if CENTRED { centred(cpu.isa, rows) } else { uncentred(cpu.isa, rows) }
        }
    });
}

fn backward<const CENTRED: bool>(cpu: Cpu, saved: LayerNormSaved, dy: &[f32], grads: LayerNormGrads) {
    let (width, rows) = (saved.weight.len(), saved.rstd.len());
    let LayerNormGrads { dx, accumulate, dweight, dbias } = grads;
    assert_eq!(saved.x.len(), rows * width, "x is not {rows} rows of {width}");
    assert!(dy.len() == rows * width && dx.len() == rows * width, "dy or dx is not as long as x");
    assert_eq!(dweight.len(), width, "dweight is not as long as weight");
    assert!(!CENTRED || saved.mean.len() == rows, "mean does not have one number per row");
    assert!(!CENTRED || dbias.len() == width, "dbias is not as long as weight");
    let blocks = rows.div_ceil(BLOCK_ROWS);
    // For each block its dweight and its dbias.
    let mut partial = vec![0.0; blocks * 2 * width];
    {
        let (dx, partial) = (Shared::new(dx), Shared::new(&mut partial));
        parallel::rows(cpu, blocks, 3 * WORK * BLOCK_ROWS * width, 1, |part| {
            for block in part {
                let part = block * BLOCK_ROWS..rows.min((block + 1) * BLOCK_ROWS);
                let elements = part.start * width..part.end * width;
                // SAFETY: the blocks are disjoint.
                let (dx, sums) = unsafe {
                    (dx.range(elements.clone()), partial.range(block * 2 * width..(block + 1) * 2 * width))
                };
                let (dweight, dbias) = sums.split_at_mut(width);
                let saved = LayerNormSaved {
                    x: &saved.x[elements.clone()],
                    weight: saved.weight,
                    mean: if CENTRED { &saved.mean[part.clone()] } else { &[] },
                    rstd: &saved.rstd[part],
                };
                let rows = BackwardRows { saved, dy: &dy[elements], dx, accumulate, dweight, dbias };
                if CENTRED { centred_backward(cpu.isa, rows) } else { uncentred_backward(cpu.isa, rows) }
            }
        });
    }
    dweight.fill(0.0);
    dbias.fill(0.0);
    for sums in partial.chunks_exact((2 * width).max(1)) {
        dweight.iter_mut().zip(&sums[..width]).for_each(|(sum, x)| *sum += x);
        dbias.iter_mut().zip(&sums[width..]).for_each(|(sum, x)| *sum += x);
    }
}

dispatch! { fn centred(rows: Rows) = plain::<true> | vector::<_, true>; }
dispatch! { fn uncentred(rows: Rows) = plain::<false> | vector::<_, false>; }
dispatch! {
    fn centred_backward(rows: BackwardRows) = plain_backward::<true> | vector_backward::<_, true>;
}
dispatch! {
    fn uncentred_backward(rows: BackwardRows) = plain_backward::<false> | vector_backward::<_, false>;
}

/// The definition, in f64.
fn plain<const CENTRED: bool>(rows: Rows) {
    let Rows { params, x, y, mean: means, rstd } = rows;
    let width = params.weight.len();
    for (i, rstd) in rstd.iter_mut().enumerate() {
        let x = &x[i * width..][..width];
        let mean = if CENTRED { x.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64 } else { 0.0 };
        let square = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + f64::from(params.eps)).sqrt();
        for (j, y) in y[i * width..][..width].iter_mut().enumerate() {
            let offset = params.bias.map_or(0.0, |bias| f64::from(bias[j]));
            *y = ((f64::from(x[j]) - mean) * scale * f64::from(params.weight[j]) + offset) as f32;
        }
        *rstd = scale as f32;
        if CENTRED {
            means[i] = mean as f32;
        }
    }
}

/// The chain rule, in f64: with `g = weight dy` and `z = (x - mean) rstd`,
/// `dx = rstd (g - mean(g) - z mean(g z))`; without centring the middle term is absent.
fn plain_backward<const CENTRED: bool>(rows: BackwardRows) {
    let BackwardRows { saved, dy, dx, accumulate, dweight, dbias } = rows;
    let width = saved.weight.len();
    for (i, rstd) in saved.rstd.iter().enumerate() {
        let rstd = f64::from(*rstd);
        let mean = if CENTRED { f64::from(saved.mean[i]) } else { 0.0 };
        let (x, dy) = (&saved.x[i * width..][..width], &dy[i * width..][..width]);
        let z = |j: usize| (f64::from(x[j]) - mean) * rstd;
        let g = |j: usize| f64::from(dy[j]) * f64::from(saved.weight[j]);
        let mean_g = if CENTRED { (0..width).map(g).sum::<f64>() / width as f64 } else { 0.0 };
        let mean_gz = (0..width).map(|j| g(j) * z(j)).sum::<f64>() / width as f64;
        for (j, dx) in dx[i * width..][..width].iter_mut().enumerate() {
            let old = if accumulate { f64::from(*dx) } else { 0.0 };
            *dx = (old + rstd * (g(j) - mean_g - z(j) * mean_gz)) as f32;
            dweight[j] += (f64::from(dy[j]) * z(j)) as f32;
            dbias[j] += dy[j];
        }
    }
}

#[inline(always)]
fn vector<S: Simd, const CENTRED: bool>(s: S, rows: Rows) {
    let Rows { params, x, y, mean: means, rstd } = rows;
    let width = params.weight.len();
    let whole = width / S::LANES * S::LANES;
    let shrink = 1.0 / width as f32;
    for (i, rstd) in rstd.iter_mut().enumerate() {
        let (x, y) = (&x[i * width..][..width], &mut y[i * width..][..width]);
        let mut mean = 0.0;
        if CENTRED {
            let mut sum = s.splat(0.0);
            for j in (0..whole).step_by(S::LANES) {
                sum = s.add(sum, s.load(&x[j..]));
            }
            mean = s.sum(s.add(sum, s.load_part(&x[whole..]))) * shrink;
            means[i] = mean;
        }
        let centre = s.splat(mean);
        let mut sum = s.splat(0.0);
        for j in (0..whole).step_by(S::LANES) {
            let x = s.sub(s.load(&x[j..]), centre);
            sum = s.fma(x, x, sum);
        }
        let mut square = s.sum(sum);
        for x in &x[whole..] {
            square += (x - mean) * (x - mean);
        }
        *rstd = 1.0 / (square * shrink + params.eps).sqrt();
        let scale = s.splat(*rstd);
        for j in (0..whole).step_by(S::LANES) {
            let z = s.mul(s.sub(s.load(&x[j..]), centre), scale);
            let offset = params.bias.map_or(s.splat(0.0), |bias| s.load(&bias[j..]));
            s.store(&mut y[j..], s.fma(z, s.load(&params.weight[j..]), offset));
        }
        let z = s.mul(s.sub(s.load_part(&x[whole..]), centre), scale);
        let offset = params.bias.map_or(s.splat(0.0), |bias| s.load_part(&bias[whole..]));
        s.store_part(&mut y[whole..], s.fma(z, s.load_part(&params.weight[whole..]), offset));
    }
}

#[inline(always)]
fn vector_backward<S: Simd, const CENTRED: bool>(s: S, rows: BackwardRows) {
    let BackwardRows { saved, dy, dx, accumulate, dweight, dbias } = rows;
    let weight = saved.weight;
    let width = weight.len();
    let whole = width / S::LANES * S::LANES;
    let shrink = 1.0 / width as f32;
    for (i, rstd) in saved.rstd.iter().enumerate() {
        let (x, dy) = (&saved.x[i * width..][..width], &dy[i * width..][..width]);
        let dx = &mut dx[i * width..][..width];
        let centre = s.splat(if CENTRED { saved.mean[i] } else { 0.0 });
        let scale = s.splat(*rstd);
        let (mut sum_g, mut sum_gz) = (s.splat(0.0), s.splat(0.0));
        for j in (0..whole).step_by(S::LANES) {
            let z = s.mul(s.sub(s.load(&x[j..]), centre), scale);
            let dy = s.load(&dy[j..]);
            let g = s.mul(dy, s.load(&weight[j..]));
            sum_g = s.add(sum_g, g);
            sum_gz = s.fma(g, z, sum_gz);
            let (dweight, dbias) = (&mut dweight[j..], &mut dbias[j..]);
            s.store(dweight, s.fma(dy, z, s.load(dweight)));
            s.store(dbias, s.add(s.load(dbias), dy));
        }
        let last_z = s.mul(s.sub(s.load_part(&x[whole..]), centre), scale);
        let last_dy = s.load_part(&dy[whole..]);
        let last_g = s.mul(last_dy, s.load_part(&weight[whole..]));
        sum_g = s.add(sum_g, last_g);
        sum_gz = s.fma(last_g, last_z, sum_gz);
        let (last_dweight, last_dbias) = (&mut dweight[whole..], &mut dbias[whole..]);
        s.store_part(last_dweight, s.fma(last_dy, last_z, s.load_part(last_dweight)));
        s.store_part(last_dbias, s.add(s.load_part(last_dbias), last_dy));

        let mean_g = s.splat(if CENTRED { s.sum(sum_g) * shrink } else { 0.0 });
        let mean_gz = s.splat(-s.sum(sum_gz) * shrink);
        for j in (0..whole).step_by(S::LANES) {
            let z = s.mul(s.sub(s.load(&x[j..]), centre), scale);
            let g = s.mul(s.load(&dy[j..]), s.load(&weight[j..]));
            let dx = &mut dx[j..];
            let old = if accumulate { s.load(dx) } else { s.splat(0.0) };
            s.store(dx, s.fma(scale, s.fma(z, mean_gz, s.sub(g, mean_g)), old));
        }
        let dx = &mut dx[whole..];
        let old = if accumulate { s.load_part(dx) } else { s.splat(0.0) };
        s.store_part(dx, s.fma(scale, s.fma(last_z, mean_gz, s.sub(last_g, mean_g)), old));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers, wide};

    /// The outputs of a forward pass and, for `dy`, of the backward pass.
    fn run(cpu: Cpu, centred: bool, rows: usize, width: usize) -> Vec<Vec<f32>> {
        let x = numbers(1, rows * width);
        let (weight, bias) = (numbers(2, width), numbers(3, width));
        let dy = numbers(4, rows * width);
        let dirty = |n: usize| vec![f32::NAN; n];
        let (mut y, mut mean, mut rstd) = (dirty(rows * width), dirty(rows), dirty(rows));
        let (mut dx, mut dweight, mut dbias) = (dirty(rows * width), dirty(width), dirty(width));
        let weight = &weight[..];
        let mut more = numbers(5, rows * width);
        if centred {
            let params = NormParams { weight, bias: Some(&bias), eps: 1e-5 };
            layer_norm(cpu, params, &x, LayerNormOut { y: &mut y, mean: &mut mean, rstd: &mut rstd });
            let saved = LayerNormSaved { x: &x, weight, mean: &mean, rstd: &rstd };
            for (dx, accumulate) in [(&mut dx, false), (&mut more, true)] {
                let (dweight, dbias) = (&mut dweight, &mut dbias);
                layer_norm_backward(cpu, saved, &dy, LayerNormGrads { dx, accumulate, dweight, dbias });
            }
            vec![y, mean, rstd, dx, dweight, dbias, more]
        } else {
            rms_norm(cpu, NormParams { weight, bias: None, eps: 1e-5 }, &x, &mut y, &mut rstd);
            let saved = RmsNormSaved { x: &x, weight, rstd: &rstd };
            for (dx, accumulate) in [(&mut dx, false), (&mut more, true)] {
                rms_norm_backward(cpu, saved, &dy, RmsNormGrads { dx, accumulate, dweight: &mut dweight });
            }
            vec![y, rstd, dx, dweight, more]
        }
    }

    #[track_caller]
    fn check(rows: usize, width: usize) {
        for centred in [true, false] {
            let plain = run(Cpu::new(Isa::Scalar, 1), centred, rows, width);
            // Rounding errors of a row scale with the factors of its elements.
            let rstd = &plain[if centred { 2 } else { 1 }];
            let tolerance = 1e-5 * f64::from(rstd.iter().copied().fold(1.0, f32::max));
            for isa in Isa::supported() {
                let one = run(Cpu::new(isa, 1), centred, rows, width);
                for (found, wanted) in one.iter().zip(&plain) {
                    assert_close(&format!("{isa} {rows}x{width}"), found, &wide(wanted), tolerance);
                }
                for threads in [2, 3] {
                    assert_eq!(
                        run(Cpu::new(isa, threads), centred, rows, width),
                        one,
                        "{isa} {threads} threads"
                    );
                }
            }
        }
    }

    #[test]
    fn many_rows_are_summed_in_a_fixed_order() {
        check(300, 130);
        check(1, 384);
        check(0, 16);
    }

    #[test]
    fn norms_of_sums_are_those_of_their_sums() {
        for (rows, width) in [(0, 8), (1, 1), (7, 33), (100, 384), (3, 5000)] {
            let (x, added) = (numbers(1, rows * width), numbers(6, rows * width));
            let (weight, bias) = (numbers(2, width), numbers(3, width));
            let summed: Vec<f32> = x.iter().zip(&added).map(|(x, y)| x + y).collect();
            for isa in Isa::supported() {
                let cpu = Cpu::new(isa, 3);
                let normed = |x: &[f32], of_sum: Option<&mut [f32]>, centred: bool| {
                    let (mut y, mut mean, mut rstd) = (vec![9.0; x.len()], vec![9.0; rows], vec![9.0; rows]);
                    if centred {
                        let params = NormParams { weight: &weight, bias: Some(&bias), eps: 1e-5 };
                        let out = LayerNormOut { y: &mut y, mean: &mut mean, rstd: &mut rstd };
                        match of_sum {
                            Some(sum) => layer_norm_of_sum(cpu, params, x, sum, out),
                            None => layer_norm(cpu, params, x, out),
                        }
                    } else {
                        let params = NormParams { weight: &weight, bias: None, eps: 1e-5 };
                        match of_sum {
                            Some(sum) => rms_norm_of_sum(cpu, params, x, sum, (&mut y, &mut rstd)),
                            None => rms_norm(cpu, params, x, &mut y, &mut rstd),
                        }
                    }
                    [y, mean, rstd]
                };
                for centred in [true, false] {
                    let mut sum = added.clone();
                    let found = normed(&x, Some(&mut sum), centred);
                    assert_eq!(sum, summed, "{isa} {rows}x{width}");
                    assert_eq!(found, normed(&summed, None, centred), "{isa} {rows}x{width}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_slopes_of_the_output() {
        let (rows, width) = (3, 10);
        let x = numbers(1, rows * width);
        let (weight, dy) = (numbers(2, width), numbers(4, rows * width));
        for centred in [true, false] {
            // In f64, so that the differences are exact enough.
            let loss = |x: &[f64], weight: &[f64]| -> f64 {
                let mut loss = 0.0;
                for i in 0..rows {
                    let x = &x[i * width..][..width];
                    let mean = if centred { x.iter().sum::<f64>() / width as f64 } else { 0.0 };
                    let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                    for j in 0..width {
                        let z = (x[j] - mean) / (square + f64::from(1e-5f32)).sqrt();
                        loss += z * weight[j] * f64::from(dy[i * width + j]);
                    }
                }
                loss
            };
            let (x, weight) = (wide(&x), wide(&weight));
            let slope = |k: usize, of_x: bool| {
                let shifted = |step: f64| {
                    let (mut x, mut weight) = (x.clone(), weight.clone());
                    if of_x {
                        x[k] += step
                    } else {
                        weight[k] += step
                    }
                    loss(&x, &weight)
                };
                (shifted(1e-5) - shifted(-1e-5)) / 2e-5
            };
            let dx: Vec<f64> = (0..rows * width).map(|k| slope(k, true)).collect();
            let dweight: Vec<f64> = (0..width).map(|k| slope(k, false)).collect();
            for isa in Isa::supported() {
                let found = run(Cpu::new(isa, 1), centred, rows, width);
                let first = if centred { 3 } else { 2 };
                assert_close("dx", &found[first], &dx, 1e-5);
                assert_close("dweight", &found[first + 1], &dweight, 1e-5);
            }
        }
    }

    #[test]
    fn a_bad_row_spoils_only_itself() {
        let (rows, width) = (3, 20);
        let mut x = numbers(1, rows * width);
        x[width] = f32::NAN;
        for isa in Isa::supported() {
            let (mut y, mut rstd) = (vec![0.0; rows * width], vec![0.0; rows]);
            let params = NormParams { weight: &[1.0; 20], bias: None, eps: 1e-5 };
            rms_norm(Cpu::new(isa, 1), params, &x, &mut y, &mut rstd);
            assert!(y[width..2 * width].iter().all(|y| y.is_nan()));
            assert!(y[..width].iter().chain(&y[2 * width..]).all(|y| y.is_finite()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_path_equals_the_plain_one(rows in 0usize..20, width in 2usize..70) {
            check(rows, width);
        }
    }
}
