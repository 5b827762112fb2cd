//! A linear projection `y = x · w + b` in training: its output with what the backward pass needs of the input, and its
//! gradients together, each of which needs the gradient of `y`.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod words;

use crate::gemm::{Epilogue, MatRef, gemv, matmul};
use crate::memory::unspecified;
use crate::{Cpu, bf16, reduce};

/// The input of a projection, as it was kept for the backward pass.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// As it was.
    F32(&'a [f32]),
    /// Rounded to bf16 by [`bf16::round`], if [`rounds_input`] says so: it gives the same gradients.
    Bf16(&'a [f32]),
}

impl Input<'_> {
    /// Number of elements.
    fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(words) => 2 * words.len(),
        }
    }
}

/// Whether a projection of `rows` rows rounds its input to bf16, so that no more need be kept of it.
pub fn rounds_input(cpu: Cpu, rows: usize, w: MatRef) -> bool {
    bf16::rounds(cpu)
        && !gemv::stays_f32(cpu, rows, w)
        && w.rows > 0
        && w.rows.is_multiple_of(2)
        && w.cols > 1
        && rows.saturating_mul(w.cols) <= MOST_GRADIENTS
}

/// `y = x · w + b`, and the input rounded to bf16 as [`Input::Bf16`] holds it, if there is room for it.
///
/// # Shape
/// `x`: `[rows, d_input]`, `w`: `[d_input, d_output]`, a whole slice, row-major or transposed, `bias`: `[d_output]`,
/// `rounded`: half as many as `x`, `y`: `[rows, d_output]`.
///
/// # Panics
/// If the shapes do not agree, or `rounded` is given where [`rounds_input`] is false.
pub fn forward(
    cpu: Cpu,
    x: &[f32],
    w: MatRef,
    bias: Option<&[f32]>,
    rounded: Option<&mut [f32]>,
    y: &mut [f32],
) {
    w.assert_whole();
    let epilogue = Epilogue { bias, accumulate: false };
    let rows = x.len().checked_div(w.rows).unwrap_or(0);
    let Some(rounded) = rounded else {
        return matmul(cpu, MatRef::row_major(x, rows, w.rows), w, epilogue, y);
    };
    assert!(rounds_input(cpu, rows, w), "the input of this projection is not rounded");
    bf16::round(cpu, x, rounded);
    match cpu.isa.available() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has AVX-512-BF16.
        crate::Isa::Avx512Bf16 => unsafe { words::forward(cpu, rounded, w, epilogue, y) },
        _ => matmul(cpu, MatRef::row_major(x, rows, w.rows), w, epilogue, y),
    }
}

/// The gradients, all of which are overwritten.
#[derive(Debug)]
pub struct AffineGrads<'a> {
    /// Of the input, `[rows, d_input]`.
    pub dx: &'a mut [f32],
    /// Of the weight, in its memory layout.
    pub dw: &'a mut [f32],
    /// Of the bias, if there is one, `[d_output]`.
    pub db: Option<&'a mut [f32]>,
}

/// Gradients of `y = x · w + b`: `dx = dy · wᵀ`, `dw = xᵀ · dy`, and `db`, the sums of `dy` over its rows.
///
/// # Shape
/// `x`: `[rows, d_input]`, `w`: `[d_input, d_output]`, a whole slice, row-major or transposed,
/// `dy`: `[rows, d_output]`.
///
/// # Panics
/// If the shapes do not agree, or the input was rounded where [`rounds_input`] is false.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::affine::{AffineGrads, Input, backward};
/// use andiron_kernels::gemm::MatRef;
/// let w = MatRef::row_major(&[1.0, 2.0], 1, 2);
/// let (mut dx, mut dw, mut db) = ([0.0; 2], [0.0; 2], [0.0; 2]);
/// let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: Some(&mut db) };
/// backward(Cpu::detect(1), Input::F32(&[3.0, 4.0]), w, &[1.0, 0.0, 1.0, 1.0], grads);
/// assert_eq!((dx, dw, db), ([1.0, 3.0], [7.0, 4.0], [2.0, 1.0]));
/// ```
pub fn backward(cpu: Cpu, x: Input, w: MatRef, dy: &[f32], grads: AffineGrads) {
    w.assert_whole();
    let (d_input, d_output) = (w.rows, w.cols);
    let rows = x.len().checked_div(d_input).or(dy.len().checked_div(d_output)).unwrap_or(0);
    assert_eq!(x.len(), rows * d_input, "x is not {rows} rows of {d_input}");
    assert_eq!(dy.len(), rows * d_output, "dy is not {rows} rows of {d_output}");
    assert_eq!(grads.dx.len(), x.len(), "dx and x differ in length");
    assert_eq!(grads.dw.len(), w.data.len(), "dw and w differ in length");
    assert!(grads.db.as_ref().is_none_or(|db| db.len() == d_output), "db is not {d_output} elements");
    let words = match x {
        Input::F32(x) => return plain_or_tiles(cpu, rows, (x, w, dy), grads),
        Input::Bf16(words) => words,
    };
    assert!(rounds_input(cpu, rows, w), "the input of this projection is not rounded");
    match cpu.isa.available() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has AVX-512-BF16.
        crate::Isa::Avx512Bf16 => unsafe { words::backward(cpu, (rows, words), w, dy, grads) },
        _ => {
            let mut x = unspecified(2 * words.len());
            bf16::widen(cpu, words, &mut x);
            plain_or_tiles(cpu, rows, (&x, w, dy), grads);
        }
    }
}

fn plain_or_tiles(cpu: Cpu, rows: usize, (x, w, dy): (&[f32], MatRef, &[f32]), grads: AffineGrads) {
    let by_tiles = cfg!(target_arch = "x86_64")
        && cpu.uses_tiles()
        && rows > gemv::GROUP
        && w.rows > 0
        && (1..=MOST_GRADIENTS / rows).contains(&w.cols);
    match by_tiles {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this machine has tiles, and the shapes have been looked at.
        true => unsafe { amx::backward(cpu, x, w, dy, grads) },
        _ => plain_backward(cpu, rows, (x, w, dy), grads),
    }
}

/// Most elements of `dy` that are packed as a whole, twice: 32 MiB of bf16 each time.
const MOST_GRADIENTS: usize = 1 << 24;

fn plain_backward(cpu: Cpu, rows: usize, (x, w, dy): (&[f32], MatRef, &[f32]), grads: AffineGrads) {
    let AffineGrads { dx, dw, db } = grads;
    let replace = Epilogue { bias: None, accumulate: false };
    if let Some(db) = db {
        reduce::column_sum(cpu, rows, w.cols, dy, db);
    }
    let (x, dy) = (MatRef::row_major(x, rows, w.rows), MatRef::row_major(dy, rows, w.cols));
    matmul(cpu, dy, w.t(), replace, dx);
    match w.col_stride {
        1 => matmul(cpu, x.t(), dy, replace, dw),
        _ => matmul(cpu, dy.t(), x, replace, dw),
    }
}

#[cfg(test)]
mod tests;
