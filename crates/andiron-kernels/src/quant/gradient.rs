//! Input gradient of a matmul with quantized weights.

use super::{PANEL, QuantRef, dequantize};
use crate::gemm::{Epilogue, MatRef, matmul as matmul_f32};
use crate::{Cpu, memory};

/// `dx = dy w`: the gradient of [`matmul`](super::matmul) for `x`, given that for `y`.
///
/// Rows of `w` are dequantized in panels of 4 MiB, once each, so that the dense matrix never exists. At
/// [`Precision::Mixed`](crate::Precision::Mixed) both operands are rounded to bf16; sums are f32.
///
/// # Shape
/// `dy`: `[m, rows]`, `dx`: `[m, cols]`, row-major.
///
/// # Panics
/// If the lengths do not agree.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::quant::{self, Format, QuantRef};
/// let cpu = Cpu::detect(1);
/// let weight = quant::quantize(cpu, Format::Bf16, &[1.0, 2.0, 3.0, 4.0], 2);
/// let mut dx = [0.0; 2];
/// quant::input_gradient(cpu, &[1.0, 10.0], QuantRef::new(Format::Bf16, 2, 2, &weight), &mut dx);
/// assert_eq!(dx, [31.0, 42.0]);
/// ```
pub fn input_gradient(cpu: Cpu, dy: &[f32], w: QuantRef, dx: &mut [f32]) {
    let (rows, cols) = (w.rows, w.cols);
    if cols == 0 {
        assert!(dx.is_empty(), "dx is not rows of 0");
        return;
    }
    assert!(dx.len().is_multiple_of(cols), "dx is not whole rows of {cols}");
    let m = dx.len() / cols;
    assert_eq!(dy.len(), m * rows, "dy is not {m} rows of {rows}");
    if rows == 0 || m == 0 {
        dx.fill(0.0);
        return;
    }
    let step = (PANEL / cols).max(1).next_multiple_of(32).min(rows);
    let mut weights = memory::unspecified(step * cols);
    let mut part = memory::unspecified(step * m);
    for start in (0..rows).step_by(step) {
        let count = step.min(rows - start);
        let (weights, part) = (&mut weights[..count * cols], &mut part[..count * m]);
        dequantize(cpu, w, start..start + count, weights);
        for (row, part) in dy.chunks_exact(rows).zip(part.chunks_exact_mut(count)) {
            part.copy_from_slice(&row[start..start + count]);
        }
        let (dy, w) = (MatRef::row_major(part, m, count), MatRef::row_major(weights, count, cols));
        matmul_f32(cpu, dy, w, Epilogue { bias: None, accumulate: start > 0 }, dx);
    }
}
