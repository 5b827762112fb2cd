//! The Muon optimizer step: momentum, then orthogonalization by Newton-Schulz iterations.

use crate::Cpu;
use crate::gemm::{Epilogue, MatRef, matmul};
use crate::memory::unspecified;
use crate::parallel::{self, Shared};
use crate::reduce::square_sum;
use crate::simd::{Simd, dispatch};

/// Settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonStep {
    /// Decay of the running mean of gradients, in `[0, 1)`.
    pub momentum: f32,
    /// Nesterov momentum: the running mean is mixed once more with the gradient.
    pub nesterov: bool,
    /// Newton-Schulz iterations.
    pub ns_steps: usize,
    /// Coefficients `a, b, c` of an iteration: a singular value `x` becomes `a x + b x³ + c x⁵`.
    pub ns_coefficients: [f32; 3],
    /// Lower bound of the norm that a matrix is divided by.
    pub eps: f32,
    /// Multiplies the gradient first: gradient clipping.
    pub grad_scale: f32,
}

/// Matrices of one shape interleaved in one parameter: a run of `run` elements of the first, of the second, and so on, then
/// the next run of the first. The runs of a matrix, concatenated, are the matrix in row-major order.
///
/// One matrix alone is one run. A fused QKV weight `[d, 3 d]`, whose rows are `d` elements each of Q, K and V, is three
/// matrices in runs of `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrices {
    /// Number of matrices.
    pub count: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub cols: usize,
    /// Length of a run.
    pub run: usize,
}

impl Matrices {
    /// One matrix.
    pub fn one(rows: usize, cols: usize) -> Self {
        Self { count: 1, rows, cols, run: rows * cols }
    }

    /// Elements of one matrix.
    fn size(self) -> usize {
        self.rows * self.cols
    }

    /// Whether a parameter of `len` elements can hold them.
    pub fn fit(self, len: usize) -> bool {
        let runs_fit = self.run > 0 && self.size().is_multiple_of(self.run) || self.size() == 0;
        runs_fit && len == self.count * self.size()
    }

    /// Ranges of the parameter that are the runs of matrix `at`, in order.
    fn runs(self, at: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let starts = (at * self.run..self.count * self.size()).step_by((self.count * self.run).max(1));
        starts.map(move |start| start..start + self.run)
    }
}

/// Updates the running mean of gradients, `momentum`, and replaces `grad` by the update direction: the mean (or, with
/// `nesterov`, its mixture with the gradient) orthogonalized, so that all singular values of each matrix become about 1.
///
/// With the usual five iterations and coefficients they end between 0.68 and 1.21, unless they were below 1/500 of the
/// Frobenius norm. Matmuls run at the precision of `cpu`.
///
/// Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
/// <https://kellerjordan.github.io/posts/muon/>. As in `torch.optim.Muon`, a gradient enters the running mean
/// with the factor `1 − momentum`. There the matmuls are always bf16.
///
/// # Panics
/// If a length does not match the matrices.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::muon::{Matrices, MuonStep, direction};
/// let step = MuonStep {
///     momentum: 0.95,
///     nesterov: true,
///     ns_steps: 5,
///     ns_coefficients: [3.4445, -4.7750, 2.0315],
///     eps: 1e-7,
///     grad_scale: 1.0,
/// };
/// let (mut grad, mut momentum) = ([3.0, 0.0, 0.0, -0.1], [0.0; 4]);
/// direction(Cpu::detect(1), step, Matrices::one(2, 2), &mut grad, &mut momentum);
/// assert!(grad[0] > 0.68 && grad[0] < 1.2);
/// assert!(grad[3] < -0.68 && grad[3] > -1.2);
/// ```
pub fn direction(cpu: Cpu, step: MuonStep, matrices: Matrices, grad: &mut [f32], momentum: &mut [f32]) {
    assert!(matrices.fit(grad.len()), "{matrices:?} in {} numbers", grad.len());
    assert_eq!(grad.len(), momentum.len(), "gradient and momentum differ in length");
    let mix = Mix {
        grad_scale: step.grad_scale,
        enters: 1.0 - step.momentum,
        momentum: if step.nesterov { step.momentum } else { 1.0 },
    };
    {
        let (grad, momentum) = (Shared::new(grad), Shared::new(momentum));
        parallel::rows(cpu, grad.len(), 4, 64, |part| {
            // SAFETY: the parts are disjoint.
            let (grad, momentum) = unsafe { (grad.range(part.clone()), momentum.range(part)) };
            mixed(cpu.isa, mix, grad, momentum);
        });
    }
    let small = matrices.rows.min(matrices.cols);
    let mut memory = Memory {
        x: unspecified(matrices.size()),
        next: unspecified(matrices.size()),
        gram: unspecified(small * small),
        square: unspecified(small * small),
    };
    for at in 0..matrices.count {
        let mut free = &mut memory.x[..];
        for run in matrices.runs(at) {
            let (to, rest) = free.split_at_mut(matrices.run);
            to.copy_from_slice(&grad[run]);
            free = rest;
        }
        memory.orthogonalize(cpu, step, (matrices.rows, matrices.cols));
        let mut left = &memory.x[..];
        for run in matrices.runs(at) {
            let (from, rest) = left.split_at(matrices.run);
            grad[run].copy_from_slice(from);
            left = rest;
        }
    }
}

/// `param = keep · param − size · direction`: decoupled weight decay and the step.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, muon::sgd_step};
/// let mut param = [1.0, -2.0];
/// sgd_step(Cpu::detect(1), &mut param, &[1.0, 1.0], 0.5, 0.25);
/// assert_eq!(param, [0.25, -1.25]);
/// ```
pub fn sgd_step(cpu: Cpu, param: &mut [f32], direction: &[f32], keep: f32, size: f32) {
    assert_eq!(param.len(), direction.len(), "parameter and direction differ in length");
    let param = Shared::new(param);
    parallel::rows(cpu, direction.len(), 3, 64, |part| {
        // SAFETY: the parts are disjoint.
        let param = unsafe { param.range(part.clone()) };
        moved(cpu.isa, (keep, size), param, &direction[part]);
    });
}

/// Scratch: two matrices of one shape, and two square matrices of the shorter side.
struct Memory {
    x: Vec<f32>,
    next: Vec<f32>,
    gram: Vec<f32>,
    square: Vec<f32>,
}

impl Memory {
    /// Orthogonalizes `x` by Newton-Schulz iterations `(a I + b X Xᵀ + c (X Xᵀ)²) X`.
    fn orthogonalize(&mut self, cpu: Cpu, step: MuonStep, (rows, cols): (usize, usize)) {
        let norm = square_sum(cpu, &self.x).sqrt() as f32;
        let share = norm.max(step.eps).recip();
        times(cpu.isa, share, &self.x, &mut self.next);
        std::mem::swap(&mut self.x, &mut self.next);
        let small = rows.min(cols);
        let plain = Epilogue::default();
        for _ in 0..step.ns_steps {
            let x = MatRef::row_major(&self.x, rows, cols);
            // Gram matrix of the shorter side: it is the smaller one, with the same nonzero singular values.
            if rows <= cols {
                matmul(cpu, x, x.t(), plain, &mut self.gram);
            } else {
                matmul(cpu, x.t(), x, plain, &mut self.gram);
            }
            let gram = MatRef::row_major(&self.gram, small, small);
            matmul(cpu, gram, gram, plain, &mut self.square);
            polynomial(cpu.isa, step.ns_coefficients, small, &self.gram, &mut self.square);
            let factor = MatRef::row_major(&self.square, small, small);
            if rows <= cols {
                matmul(cpu, factor, x, plain, &mut self.next);
            } else {
                matmul(cpu, x, factor, plain, &mut self.next);
            }
            std::mem::swap(&mut self.x, &mut self.next);
        }
    }
}

/// Coefficients of the momentum update.
#[derive(Clone, Copy)]
struct Mix {
    grad_scale: f32,
    /// Factor of the gradient in the new running mean.
    enters: f32,
    /// Factor of the running mean in the result.
    momentum: f32,
}

dispatch! { fn mixed(mix: Mix, grad: &mut [f32], momentum: &mut [f32]) = plain_mixed | vector_mixed; }
dispatch! {
    fn polynomial(coefficients: [f32; 3], size: usize, gram: &[f32], square: &mut [f32])
        = plain_polynomial | vector_polynomial;
}
dispatch! { fn times(factor: f32, x: &[f32], y: &mut [f32]) = plain_times | vector_times; }
dispatch! {
    fn moved(factors: (f32, f32), param: &mut [f32], direction: &[f32]) = plain_moved | vector_moved;
}

#[inline(always)]
fn plain_mixed(mix: Mix, grad: &mut [f32], momentum: &mut [f32]) {
    for (g, m) in grad.iter_mut().zip(momentum) {
        let scaled = *g * mix.grad_scale;
        *m += (scaled - *m) * mix.enters;
        *g = scaled + (*m - scaled) * mix.momentum;
    }
}

/// `square = a I + b gram + c square`.
#[inline(always)]
fn plain_polynomial([a, b, c]: [f32; 3], size: usize, gram: &[f32], square: &mut [f32]) {
    square.iter_mut().zip(gram).for_each(|(square, gram)| *square = b * gram + c * *square);
    square.iter_mut().step_by(size + 1).for_each(|diagonal| *diagonal += a);
}

#[inline(always)]
fn plain_times(factor: f32, x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = factor * x);
}

#[inline(always)]
fn plain_moved((keep, size): (f32, f32), param: &mut [f32], direction: &[f32]) {
    param.iter_mut().zip(direction).for_each(|(p, d)| *p = keep * *p - size * d);
}

/// The plain version, which the compiler vectorizes, as in those below.
#[inline(always)]
fn vector_mixed<S: Simd>(_: S, mix: Mix, grad: &mut [f32], momentum: &mut [f32]) {
    plain_mixed(mix, grad, momentum);
}

#[inline(always)]
fn vector_polynomial<S: Simd>(_: S, coefficients: [f32; 3], size: usize, gram: &[f32], square: &mut [f32]) {
    plain_polynomial(coefficients, size, gram, square);
}

#[inline(always)]
fn vector_times<S: Simd>(_: S, factor: f32, x: &[f32], y: &mut [f32]) {
    plain_times(factor, x, y);
}

#[inline(always)]
fn vector_moved<S: Simd>(_: S, factors: (f32, f32), param: &mut [f32], direction: &[f32]) {
    plain_moved(factors, param, direction);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};
    use crate::{Isa, Precision};

    const STEP: MuonStep = MuonStep {
        momentum: 0.95,
        nesterov: true,
        ns_steps: 5,
        ns_coefficients: [3.4445, -4.7750, 2.0315],
        eps: 1e-7,
        grad_scale: 0.5,
    };

    /// f64 `[rows, cols]` by `[cols, other]`.
    fn product(a: &[f64], b: &[f64], rows: usize, cols: usize, other: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..cols).map(|l| a[i * cols + l] * b[l * other + j]).sum();
        (0..rows * other).map(|place| at(place / other, place % other)).collect()
    }

    fn transposed(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
        (0..rows * cols).map(|place| a[place % rows * cols + place / rows]).collect()
    }

    /// The published algorithm in f64, on the longer side's Gram matrix where ours takes the shorter one's.
    fn orthogonal(step: MuonStep, rows: usize, cols: usize, x: &[f64]) -> Vec<f64> {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::from(step.eps));
        let mut x: Vec<f64> = x.iter().map(|x| x / norm).collect();
        let [a, b, c] = step.ns_coefficients.map(f64::from);
        for _ in 0..step.ns_steps {
            let gram = product(&x, &transposed(&x, rows, cols), rows, cols, rows);
            let square = product(&gram, &gram, rows, rows, rows);
            let factor: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| b * g + c * s).collect();
            let more = product(&factor, &x, rows, rows, cols);
            x = x.iter().zip(more).map(|(x, more)| a * x + more).collect();
        }
        x
    }

    /// Three directions, the last one, by the published algorithm.
    fn exact(step: MuonStep, rows: usize, cols: usize, grads: &[Vec<f64>]) -> Vec<f64> {
        let (mut momentum, mut mixed) = (vec![0.0; rows * cols], Vec::new());
        let beta = f64::from(step.momentum);
        for grad in grads {
            let scaled: Vec<f64> = grad.iter().map(|g| g * f64::from(step.grad_scale)).collect();
            momentum.iter_mut().zip(&scaled).for_each(|(m, g)| *m = beta * *m + (1.0 - beta) * g);
            mixed = match step.nesterov {
                true => momentum.iter().zip(&scaled).map(|(m, g)| beta * m + (1.0 - beta) * g).collect(),
                false => momentum.clone(),
            };
        }
        orthogonal(step, rows, cols, &mixed)
    }

    #[track_caller]
    fn check(step: MuonStep, matrices: Matrices, precision: Precision, tolerance: f64) {
        let Matrices { count, rows, cols, run } = matrices;
        let len = count * rows * cols;
        let grads: Vec<Vec<f32>> = (0..3).map(|number| numbers(number, len)).collect();
        // Index of element `i` of matrix `at`: `i / run` whole rounds of runs, `at` runs of other matrices, the rest.
        let place = |at: usize, i: usize| (i / run * count + at) * run + i % run;
        let one = |grad: &[f32], at: usize| -> Vec<f64> {
            (0..rows * cols).map(|i| f64::from(grad[place(at, i)])).collect()
        };
        let mut wanted = vec![0.0; len];
        for at in 0..count {
            let grads: Vec<Vec<f64>> = grads.iter().map(|grad| one(grad, at)).collect();
            for (i, value) in exact(step, rows, cols, &grads).into_iter().enumerate() {
                wanted[place(at, i)] = value;
            }
        }
        for isa in Isa::supported() {
            let mut first = None;
            for threads in [1, 2, 3] {
                let mut momentum = vec![0.0; len];
                let mut found = Vec::new();
                for grad in &grads {
                    found = grad.clone();
                    let cpu = Cpu::new(isa, threads).at(precision);
                    direction(cpu, step, matrices, &mut found, &mut momentum);
                }
                assert_close(&format!("{matrices:?} {isa}"), &found, &wanted, tolerance);
                assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{isa}, {threads} threads");
            }
        }
    }

    #[test]
    fn directions_follow_the_published_algorithm() {
        for (rows, cols) in [(1, 1), (1, 9), (9, 1), (24, 24), (17, 70), (70, 17)] {
            check(STEP, Matrices::one(rows, cols), Precision::F32, 1e-4);
        }
        let others = MuonStep { nesterov: false, ns_steps: 3, ns_coefficients: [2.0, -1.5, 0.5], ..STEP };
        check(others, Matrices::one(20, 30), Precision::F32, 1e-4);
    }

    #[test]
    fn products_of_bf16_come_close() {
        for (rows, cols) in [(24, 24), (17, 70), (70, 17)] {
            check(STEP, Matrices::one(rows, cols), Precision::Mixed, 0.05);
        }
    }

    #[test]
    fn each_matrix_of_a_parameter_is_made_orthogonal_by_itself() {
        // Concatenated by columns, by rows, and interleaved by heads.
        for run in [8, 12 * 8, 4 * 8] {
            check(STEP, Matrices { count: 3, rows: 12, cols: 8, run }, Precision::F32, 1e-4);
        }
    }

    #[test]
    fn nothing_has_no_direction() {
        let (mut grad, mut momentum) = ([0.0; 12], [0.0; 12]);
        direction(Cpu::detect(1), STEP, Matrices::one(3, 4), &mut grad, &mut momentum);
        assert_eq!((grad, momentum), ([0.0; 12], [0.0; 12]));
    }

    #[test]
    #[should_panic(expected = "Matrices")]
    fn matrices_that_do_not_fill_the_parameter_are_refused() {
        let matrices = Matrices { count: 2, rows: 3, cols: 2, run: 4 };
        direction(Cpu::detect(1), STEP, matrices, &mut [0.0; 12], &mut [0.0; 12]);
    }

    #[test]
    fn every_path_makes_the_same_sgd_step() {
        let n = 30_001;
        let (start, direction) = (numbers(1, n), numbers(2, n));
        let wanted: Vec<f32> = start.iter().zip(&direction).map(|(p, d)| 0.9 * p - 0.1 * d).collect();
        for isa in Isa::supported() {
            let mut found = start.clone();
            sgd_step(Cpu::new(isa, 3), &mut found, &direction, 0.9, 0.1);
            assert_eq!(found, wanted, "{isa}");
        }
    }
}
