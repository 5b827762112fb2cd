//! The gradients of a linear projection `y = x · w + b` together: each needs the gradient of `y`, which is read once
//! for all.

#[cfg(target_arch = "x86_64")]
mod amx;

use crate::gemm::{Epilogue, MatRef, gemv, matmul};
use crate::{Cpu, reduce};

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
/// If the shapes do not agree.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::affine::{AffineGrads, backward};
/// use andiron_kernels::gemm::MatRef;
/// let w = MatRef::row_major(&[1.0, 2.0], 1, 2);
/// let (mut dx, mut dw, mut db) = ([0.0; 2], [0.0; 2], [0.0; 2]);
/// let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: Some(&mut db) };
/// backward(Cpu::detect(1), &[3.0, 4.0], w, &[1.0, 0.0, 1.0, 1.0], grads);
/// assert_eq!((dx, dw, db), ([1.0, 3.0], [7.0, 4.0], [2.0, 1.0]));
/// ```
pub fn backward(cpu: Cpu, x: &[f32], w: MatRef, dy: &[f32], grads: AffineGrads) {
    w.assert_whole();
    let (d_input, d_output) = (w.rows, w.cols);
    let rows = x.len().checked_div(d_input).or(dy.len().checked_div(d_output)).unwrap_or(0);
    assert_eq!(x.len(), rows * d_input, "x is not {rows} rows of {d_input}");
    assert_eq!(dy.len(), rows * d_output, "dy is not {rows} rows of {d_output}");
    assert_eq!(grads.dx.len(), x.len(), "dx and x differ in length");
    assert_eq!(grads.dw.len(), w.data.len(), "dw and w differ in length");
    assert!(grads.db.as_ref().is_none_or(|db| db.len() == d_output), "db is not {d_output} elements");
    let by_tiles = cfg!(target_arch = "x86_64")
        && cpu.uses_tiles()
        && rows > gemv::GROUP
        && d_input > 0
        && (1..=MOST_GRADIENTS / rows).contains(&d_output);
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
