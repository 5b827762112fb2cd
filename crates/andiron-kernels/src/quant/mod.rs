//! Matmul with quantized weights: f16, bf16, or blocks of small integers with a scale.
//!
//! Generating a token reads every weight once, and reading takes the time: 4-bit weights are read eight times as fast
//! as f32. So weights are never dequantized as a whole: with few rows, [`matmul`] dequantizes them in registers; with
//! more, in parts that fit the caches, and AMX tiles read bf16 weights in place. Weights have exactly the values that
//! the format defines, and at [`Precision::F32`](crate::Precision::F32) activations (`x`) are not rounded.
//!
//! At [`Precision::Mixed`](crate::Precision::Mixed) and with few rows, activations are quantized to int8 if the weights
//! are block-quantized, each row by itself: values -127..=127 with an f32 scale per group of 32, from the group's largest magnitude.
//! Integer sums are exact, so the result is that of the quantized activations. Their error is at most 1/254 of the
//! group's maximum; for normally distributed activations its root mean square is 0.5 % of theirs, three times that of
//! rounding to bf16. Groups whose maximum is below about 1e-37 are treated as zero; a NaN or infinity in a row makes
//! that whole output row NaN.
//!
//! With more rows at mixed precision, activations and weights are rounded to bf16 where bf16 instructions are used (see
//! [`Bf16Dot`](crate::Bf16Dot)); elsewhere both are f32.
//!
//! If the caller [chooses](crate::KernelChoice), the rows of a decode step are few and those of a prompt many; but with
//! AVX-512-VNNI and without AMX tiles those of a prompt are few, too, because int8 is faster than bf16 for any number of them.
//!
//! Else few rows are up to four. For f16 and bf16 weights without AMX tiles they are up to eight if more would be rounded to
//! bf16, else up to sixteen, as for f32 weights. For [`Format::Q8_0`] at mixed precision with AMX they are up to
//! sixteen, with int8 tiles from the third row on. On a fifth-generation Xeon these took 0.6 of the time of bf16 tiles
//! with weights in the caches and 0.75 with weights in memory. With 32 rows they gained nothing, because the cost of
//! scaling each block's sums grows with the rows; and 4-bit weights, which must be unpacked first, gained a sixth or
//! nothing.
//!
//! The layouts are those of GGUF files, so that a mapped file can be used in place. Source: `ggml-quants.c` in
//! <https://github.com/ggml-org/ggml>, which always quantizes activations so, with f16 scales for most formats, and
//! with one scale per 256 values for the formats with blocks of 256.

mod dot;
mod encode;
mod expand;
mod format;
mod gradient;
mod half;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

pub use format::Format;
pub use gradient::input_gradient;

use crate::gemm::{Epilogue, MatRef, gemv, matmul as matmul_f32};
use crate::parallel::{self, Shared};
use crate::{Cpu, Isa, KernelChoice, memory};

/// A quantized matrix in borrowed memory, `[rows, cols]`, row-major: rows are outputs and columns inputs, as in PyTorch's
/// `Linear`.
#[derive(Clone, Copy, Debug)]
pub struct QuantRef<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    data: &'a [u8],
}

impl<'a> QuantRef<'a> {
    /// The matrix of `rows` rows of `cols` values in `data`.
    ///
    /// # Panics
    /// If a row is not whole blocks, or `data` is not exactly `rows` rows long.
    ///
    /// # Example
    /// ```
    /// use andiron_kernels::quant::{Format, QuantRef};
    /// let halves = [0x80, 0x3f, 0x00, 0x40]; // 1 and 2
    /// let matrix = QuantRef::new(Format::Bf16, 1, 2, &halves);
    /// assert_eq!((matrix.rows(), matrix.cols()), (1, 2));
    /// ```
    pub fn new(format: Format, rows: usize, cols: usize, data: &'a [u8]) -> Self {
        let bytes = row_bytes(format, cols);
        assert_eq!(
            Some(data.len()),
            bytes.checked_mul(rows),
            "{rows} rows of {bytes} bytes do not fill the data"
        );
        Self { format, rows, cols, data }
    }

    /// How the values are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of some rows.
    fn bytes(&self, rows: Range<usize>) -> &'a [u8] {
        let bytes = row_bytes(self.format, self.cols);
        &self.data[rows.start * bytes..rows.end * bytes]
    }
}

#[track_caller]
fn row_bytes(format: Format, cols: usize) -> usize {
    format
        .row_bytes(cols)
        .unwrap_or_else(|| panic!("rows of {cols} are not whole blocks of {} ({format})", format.block_len()))
}

/// Quantizes rows of `cols` values.
///
/// f16 and bf16 are the nearest ones, ties to even. The formats with blocks of 32 give the same bytes as ggml's
/// reference functions: the scale is that of the largest value (or of the range, where there is a minimum), and values
/// are rounded to the nearest integer. The formats with blocks of 256 try a few scales and take the one with the
/// smallest squared error. A NaN or infinity spoils its block.
///
/// # Panics
/// If a row is not whole blocks, or `values` not whole rows.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::quant::{self, Format, QuantRef};
/// let cpu = Cpu::detect(1);
/// let values: Vec<f32> = (0..64).map(|i| i as f32 / 8.0).collect();
/// let bytes = quant::quantize(cpu, Format::Q8_0, &values, 32);
/// assert_eq!(bytes.len(), 2 * 34);
/// let mut back = [0.0; 64];
/// quant::dequantize(cpu, QuantRef::new(Format::Q8_0, 2, 32, &bytes), 0..2, &mut back);
/// assert!(values.iter().zip(back).all(|(x, y)| (x - y).abs() < 0.04));
/// ```
pub fn quantize(cpu: Cpu, format: Format, values: &[f32], cols: usize) -> Vec<u8> {
    let bytes = row_bytes(format, cols);
    if values.is_empty() {
        return Vec::new();
    }
    assert!(cols > 0 && values.len().is_multiple_of(cols), "values are not whole rows of {cols}");
    let rows = values.len() / cols;
    let mut data = vec![0; rows * bytes];
    let shared = Shared::new(&mut data);
    parallel::rows(cpu, rows, 16 * cols, 1, |rows| {
        // SAFETY: the ranges of rows are disjoint.
        let data = unsafe { shared.range(rows.start * bytes..rows.end * bytes) };
        encode::encode(cpu.isa, format, &values[rows.start * cols..rows.end * cols], data);
    });
    data
}

/// Writes some rows as f32, exactly as the format defines them.
///
/// # Shape
/// `out`: `[rows.len(), cols]`.
///
/// # Panics
/// If the matrix does not have these rows or `out` another length.
pub fn dequantize(cpu: Cpu, matrix: QuantRef, rows: Range<usize>, out: &mut [f32]) {
    assert!(rows.start <= rows.end && rows.end <= matrix.rows, "rows {rows:?} of {}", matrix.rows);
    assert_eq!(out.len(), rows.len() * matrix.cols, "out is not {} rows of {}", rows.len(), matrix.cols);
    let (first, cols) = (rows.start, matrix.cols);
    let out = Shared::new(out);
    parallel::rows(cpu, rows.len(), 4 * cols, 1, |part| {
        // SAFETY: the ranges of rows are disjoint.
        let out = unsafe { out.range(part.start * cols..part.end * cols) };
        expand::expand(cpu.isa, matrix.format, matrix.bytes(first + part.start..first + part.end), out);
    });
}

/// Writes the rows `ids` as f32, in this order: the embeddings of tokens.
///
/// # Shape
/// `out`: `[ids.len(), cols]`.
///
/// # Panics
/// If an id is not below the number of rows, or `out` has another length.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::quant::{self, Format, QuantRef};
/// let cpu = Cpu::detect(1);
/// let table = quant::quantize(cpu, Format::Bf16, &[1.0, 2.0, 3.0, 4.0], 2);
/// let mut out = [0.0; 4];
/// quant::gather(cpu, QuantRef::new(Format::Bf16, 2, 2, &table), &[1, 1], &mut out);
/// assert_eq!(out, [3.0, 4.0, 3.0, 4.0]);
/// ```
pub fn gather(cpu: Cpu, matrix: QuantRef, ids: &[u32], out: &mut [f32]) {
    let cols = matrix.cols;
    assert_eq!(out.len(), ids.len() * cols, "out is not {} rows of {cols}", ids.len());
    for id in ids {
        assert!((*id as usize) < matrix.rows, "id {id} of {} rows", matrix.rows);
    }
    let out = Shared::new(out);
    parallel::rows(cpu, ids.len(), 4 * cols, 1, |part| {
        for index in part {
            let id = ids[index] as usize;
            // SAFETY: each row of `out` belongs to one index.
            let out = unsafe { out.range(index * cols..(index + 1) * cols) };
            expand::expand(cpu.isa, matrix.format, matrix.bytes(id..id + 1), out);
        }
    });
}

/// `y = x wᵀ`, plus `bias` in every row.
///
/// Sums are f32. At [`Precision::F32`](crate::Precision::F32) nothing is rounded. At
/// [`Precision::Mixed`](crate::Precision::Mixed) and with few rows, `x` is quantized to int8 if the weights are
/// block-quantized, and nothing is rounded if they are f16 or bf16; with more rows, `x` and weights are rounded to bf16
/// where bf16 instructions are used. The [module](self) says how many are few.
///
/// # Shape
/// `x`: `[m, cols]`, `bias`: `[rows]`, `y`: `[m, rows]`, row-major.
///
/// # Panics
/// If the lengths do not agree.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::quant::{self, Format, QuantRef};
/// let cpu = Cpu::detect(1);
/// let weight = quant::quantize(cpu, Format::Q8_0, &[0.5; 2 * 32], 32);
/// let mut y = [0.0; 2];
/// let weight = QuantRef::new(Format::Q8_0, 2, 32, &weight);
/// quant::matmul(cpu, &[1.0; 32], weight, Some(&[0.0, 1.0]), &mut y);
/// assert!((y[0] - 16.0).abs() < 1e-2 && (y[1] - 17.0).abs() < 1e-2);
/// ```
pub fn matmul(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    if let Some(bias) = bias {
        assert_eq!(bias.len(), w.rows, "bias does not have one element per output");
    }
    if w.rows == 0 {
        assert!(y.is_empty(), "y is not rows of 0");
        return;
    }
    assert!(y.len().is_multiple_of(w.rows), "y is not whole rows of {}", w.rows);
    let m = y.len() / w.rows;
    assert_eq!(x.len(), m * w.cols, "x is not {m} rows of {}", w.cols);
    if m == 0 {
        return;
    }
    if w.cols == 0 || has_few_rows(cpu, m, w) {
        dot::few_rows(cpu, x, w, bias, y);
    } else if cpu.isa.available() == Isa::Scalar {
        dot::exact(cpu, x, w, bias, y);
    } else if cfg!(target_arch = "x86_64") && cpu.uses_tiles() {
        // SAFETY: `available` never names a set that this machine lacks; no size is 0, and lengths agree.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            let few = m <= dot::amx::MAX_ROWS && w.cols <= dot::amx::MAX_COLS;
            if w.format == Format::Q8_0 && few && cpu.kernels == KernelChoice::Fastest {
                dot::amx::matmul(cpu, x, w, bias, y);
            } else {
                tiles::matmul(cpu, x, w, bias, y);
            }
        };
    } else {
        many_rows(cpu, x, w, bias, y);
    }
}

/// Whether `m` rows are few: so few, unless that is chosen by the caller, that vectors are faster than AMX tiles, if there are
/// any, or a blocked matmul.
fn has_few_rows(cpu: Cpu, m: usize, w: QuantRef) -> bool {
    let most = match (cpu.kernels, w.format, cpu.uses_tiles()) {
        (KernelChoice::Decode, ..) => usize::MAX,
        (KernelChoice::Prefill, _, false) if dot::has_panels(cpu, w) => usize::MAX,
        (KernelChoice::Prefill, ..) => 0,
        (_, Format::Q8_0, true) => 2,
        // As many as with weights in f32.
        (_, Format::F16 | Format::Bf16, false) => gemv::most_rows(cpu.matmul_precision()),
        _ => dot::MAX_ROWS,
    };
    m <= most
}

/// Weights dequantized at a time by [`many_rows`] and [`input_gradient`]: 4 MiB of f32.
const PANEL: usize = 1 << 20;

/// Dequantizes a panel of weights at a time, once for all rows of `x`.
fn many_rows(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    let m = y.len() / w.rows;
    let step = (PANEL / w.cols).max(1).next_multiple_of(32);
    let mut weights = memory::unspecified(step.min(w.rows) * w.cols);
    let mut part = memory::unspecified(step.min(w.rows) * m);
    for start in (0..w.rows).step_by(step) {
        let count = step.min(w.rows - start);
        let (weights, part) = (&mut weights[..count * w.cols], &mut part[..count * m]);
        dequantize(cpu, w, start..start + count, weights);
        let (x, w_part) = (MatRef::row_major(x, m, w.cols), MatRef::row_major(weights, count, w.cols));
        let epilogue = Epilogue { bias: bias.map(|bias| &bias[start..start + count]), accumulate: false };
        matmul_f32(cpu, x, w_part.t(), epilogue, part);
        for (row, part) in y.chunks_exact_mut(w.rows).zip(part.chunks_exact(count)) {
            row[start..start + count].copy_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests;
