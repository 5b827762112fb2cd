//! With AVX-512-BF16: the input is kept in words, and the gradient of the output is rounded once for both matmuls.

use super::AffineGrads;
use crate::gemm::words::{Operand, matmul};
use crate::gemm::{Epilogue, MatRef};
use crate::memory::unspecified;
use crate::{Cpu, bf16, reduce};

/// # Safety
/// The machine has AVX-512-BF16; all sizes are those that [`super::forward`] has looked at.
pub(super) unsafe fn forward(cpu: Cpu, x: &[f32], w: MatRef, epilogue: Epilogue, y: &mut [f32]) {
    let rows = 2 * x.len() / w.rows;
    // SAFETY: the caller's promise; operands are as long as their sizes say.
    unsafe { matmul(cpu, Operand::rows_of_words(x, rows, w.rows), Operand::columns(w), epilogue, y) };
}

/// # Safety
/// The machine has AVX-512-BF16; all sizes are those that [`super::backward`] has looked at.
pub(super) unsafe fn backward(
    cpu: Cpu,
    (rows, x): (usize, &[f32]),
    w: MatRef,
    dy: &[f32],
    AffineGrads { dx, dw, db }: AffineGrads,
) {
    if let Some(db) = db {
        reduce::column_sum(cpu, rows, w.cols, dy, db);
    }
    let mut rounded = Vec::new();
    let (dy_rows, dy_columns) = match w.cols.is_multiple_of(2) {
        true => {
            rounded = unspecified(dy.len() / 2);
            bf16::round(cpu, dy, &mut rounded);
            let of = |operand: fn(&[f32], usize, usize) -> Operand| operand(&rounded, rows, w.cols);
            (of(Operand::rows_of_words), of(Operand::columns_of_words))
        }
        false => {
            let dy = MatRef::row_major(dy, rows, w.cols);
            (Operand::rows(dy), Operand::columns(dy))
        }
    };
    let x = Operand::columns_of_words(x, rows, w.rows);
    let (left, right) = if w.col_stride == 1 { (x, dy_columns) } else { (dy_columns, x) };
    // SAFETY: the caller's promise; operands are as long as their sizes say, and `rounded` lives.
    unsafe {
        matmul(cpu, dy_rows, Operand::columns(w.t()), Epilogue::default(), dx);
        matmul(cpu, left, right, Epilogue::default(), dw);
    }
    drop(rounded);
}
