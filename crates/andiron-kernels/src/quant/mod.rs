//! Products with weights that stay as they are stored: halves, or blocks of small whole numbers with a scale.
//!
//! A model's weights are read once for every token it generates, and reading is what takes the time: weights of
//! 4 bits are read eight times as fast as weights of 32. So nothing is expanded in memory: with few rows, [`matmul`]
//! multiplies weights as it reads them; with more, it expands as many at a time as fit the caches, and tiles of bf16 take
//! rows of bf16 as they lie. The weights are the very numbers that the format defines, and at [`Precision::F32`](crate::Precision::F32) `x` is not
//! rounded.
//!
//! At [`Precision::Mixed`](crate::Precision::Mixed) a product with few rows rounds `x`, where weights have blocks, to whole numbers of -127..=127
//! with an f32 scale for each run of 32, that of the run's largest magnitude. Products of whole numbers are exact, so the
//! result is that of the rounded `x`. The error of a number of `x` is at most 1/254 of the largest of its run; for normal
//! numbers its root mean square is 0.5 % of theirs, three times that of rounding to bf16. Where all of a run are below 1e-37
//! or so, they count as 0; where a number is not finite, every product with its row is not a number.
//!
//! Few are up to four; of halves up to eight, sixteen where nothing is rounded, without tiles (AMX); at mixed precision with
//! tiles up to sixteen of [`Format::Q8_0`], whose products
//! are tiles of whole numbers from the third row on. On a fifth-generation Xeon these took 0.6 of the time of bf16 with
//! weights in the caches and 0.75 with weights in memory. With 32 rows they gained nothing, because scaling the sums of each
//! block costs the more the more rows there are; and 4-bit numbers, which must be unpacked for them, gained a sixth or
//! nothing.
//!
//! The layouts are those of GGUF files, so that a mapped file can be used as it lies on the disk.
//! Source: `ggml-quants.c` in <https://github.com/ggml-org/ggml>, whose products always round `x` so, with scales in
//! f16 for most formats, and with one scale for 256 numbers for the formats with blocks of 256.

mod dot;
mod encode;
mod expand;
mod format;
mod half;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

pub use format::Format;

use crate::gemm::{Epilogue, MatRef, gemv, matmul as matmul_f32};
use crate::parallel::{self, Shared};
use crate::{Cpu, Isa, memory};

/// A matrix in borrowed memory, `[rows, cols]`, row by row: rows are outputs and columns inputs, as in PyTorch's
/// `Linear`.
#[derive(Clone, Copy, Debug)]
pub struct QuantRef<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    data: &'a [u8],
}

impl<'a> QuantRef<'a> {
    /// The matrix of `rows` rows of `cols` numbers that `data` holds.
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

    /// How the numbers are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
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

/// Stores rows of `cols` numbers in a format.
///
/// Halves are the nearest ones, ties to even. The formats with blocks of 32 give the same bytes as ggml's reference
/// functions: the scale is that of the largest number (or of the range, where there is a minimum) and numbers go to
/// the nearest whole one. The formats with blocks of 256 choose among a few scales the one with the smallest squared
/// error. A number that is not finite spoils its block.
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
/// Sums are f32. At [`Precision::F32`](crate::Precision::F32) nothing is rounded. At [`Precision::Mixed`](crate::Precision::Mixed) products with few rows round `x` to 8 bits
/// if the weights have blocks, and nothing if they are halves; those with more round `x` and weights to bf16. The
/// [module](self) says how many are few. Plain Rust, without vector instructions, rounds nothing with more than four rows.
///
/// # Shape
/// `x`: `[m, cols]`, `bias`: `[rows]`, `y`: `[m, rows]`, row by row.
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
        assert_eq!(bias.len(), w.rows, "bias does not have one number per output");
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
    if w.cols == 0 || m <= few(cpu, w.format) || cpu.isa.available() == Isa::Scalar {
        dot::few_rows(cpu, x, w, bias, y);
    } else if cfg!(target_arch = "x86_64") && cpu.uses_tiles() {
        // SAFETY: `available` never names a set that this machine lacks; no size is 0, and lengths agree.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            let few = m <= dot::amx::MAX_ROWS && w.cols <= dot::amx::MAX_COLS;
            if w.format == Format::Q8_0 && few {
                dot::amx::matmul(cpu, x, w, bias, y);
            } else {
                tiles::matmul(cpu, x, w, bias, y);
            }
        };
    } else {
        many_rows(cpu, x, w, bias, y);
    }
}

/// The most rows that vectors multiply sooner than tiles, if there are such, or a blocked product.
fn few(cpu: Cpu, format: Format) -> usize {
    match (format, cpu.uses_tiles()) {
        (Format::Q8_0, true) => 2,
        // As many as with weights in f32.
        (Format::F16 | Format::Bf16, false) => gemv::most_rows(cpu.matmul_precision()),
        _ => dot::MAX_ROWS,
    }
}

/// Weights that are expanded at a time for [`many_rows`]: 4 MiB of f32.
const PANEL: usize = 1 << 20;

/// Expands a panel of weights at a time, once for all rows of `x`.
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
