//! Matmul.
//!
//! A large matmul is cut into blocks that fit the caches; the innermost loop keeps a tile of accumulators in registers.
//! Operands are packed into contiguous panels, except where they can be read in place. A matmul with few rows (decoding)
//! is bound by memory bandwidth instead: it streams the right operand once, unpacked.
//! Source: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication",
//! <https://doi.org/10.1145/1356052.1356053>; Van Zee and van de Geijn 2015, "BLIS",
//! <https://doi.org/10.1145/2764454>.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod block;
pub(crate) mod gemv;
pub(crate) mod pack;
pub(crate) mod panel_format;
pub(crate) mod tile;
#[cfg(target_arch = "x86_64")]
pub(crate) mod words;

use crate::parallel::{self, Shared};
use crate::{Cpu, Isa, KernelChoice, Precision};
use block::{Block, Strided};

/// A matrix in borrowed memory: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    /// The elements; the first is `(0, 0)`.
    pub data: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance between rows, in elements.
    pub row_stride: usize,
    /// Distance between columns, in elements.
    pub col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If `data` does not have `rows * cols` elements.
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} x {cols} matrix has another number of elements");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transposed matrix, without a copy.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    pub(crate) fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }

    /// Requires that this is a whole slice, row-major or transposed.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let row_major = self.col_stride == 1 && self.row_stride == self.cols;
        let transposed = self.row_stride == 1 && self.col_stride == self.rows;
        let whole = self.rows * self.cols == self.data.len();
        assert!(whole && (row_major || transposed), "a matrix is not a whole slice, row-major or transposed");
    }

    fn assert_inside(&self) {
        if self.rows > 0 && self.cols > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride;
            assert!(last < self.data.len(), "matrix reaches element {last} of {}", self.data.len());
        }
    }
}

/// What happens to the result of a matmul before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to every row: one element per column.
    pub bias: Option<&'a [f32]>,
    /// Adds to the old contents instead of replacing them.
    pub accumulate: bool,
}

/// `c = a b`, plus `bias` in every row, plus the old `c` if `accumulate`.
///
/// # Shape
/// `a`: `[m, k]`, `b`: `[k, n]`, `bias`: `[n]`, `c`: `[m, n]`, row-major.
///
/// # Panics
/// If the shapes do not agree or a matrix reaches beyond its memory.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::gemm::{Epilogue, MatRef, matmul};
/// let x = MatRef::row_major(&[1.0, 2.0], 1, 2);
/// let weight = MatRef::row_major(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2); // [out, in]
/// let mut y = [0.0; 3];
/// matmul(Cpu::detect(1), x, weight.t(), Epilogue { bias: Some(&[0.5; 3]), accumulate: false }, &mut y);
/// assert_eq!(y, [5.5, 11.5, 17.5]);
/// ```
pub fn matmul(cpu: Cpu, a: MatRef, b: MatRef, epilogue: Epilogue, c: &mut [f32]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "columns of a and rows of b differ");
    assert_eq!(c.len(), m * n, "c is not {m} x {n}");
    a.assert_inside();
    b.assert_inside();
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), n, "bias does not have one element per column");
    }
    if m == 0 || n == 0 {
        return;
    }
    let precision = cpu.matmul_precision();
    let few_rows = gemv::is_chosen(cpu, m, b);
    let one_column = n == 1 && epilogue.bias.is_none() && (a.col_stride == 1 || a.row_stride == 1);
    if k == 0 || cpu.isa.available() == Isa::Scalar {
        let c = Shared::new(c);
        parallel::rows(cpu, m, 8 * n * k, 1, |rows| {
            // SAFETY: the ranges of rows are disjoint.
            let c = unsafe { c.range(rows.start * n..rows.end * n) };
            for (i, row) in rows.zip(c.chunks_exact_mut(n)) {
                reference_row(a, b, epilogue, i, row);
            }
        });
    } else if few_rows {
        gemv::few_rows(cpu, a, b, epilogue, c);
    } else if one_column {
        gemv::few_rows(cpu, b.t(), a.t(), epilogue, c);
    } else if cpu.kernels == KernelChoice::Decode {
        // The rows of `b` are contiguous, so that it need not be packed for a few rows, and any number has the same sums.
        blocked((cpu, Precision::F32), a, b, epilogue, c);
    } else if cfg!(target_arch = "x86_64") && cpu.uses_tiles() {
        // SAFETY: `available` never names a set that this machine lacks; all operands lie in their slices.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            amx::matmul(cpu, a, b, epilogue, c)
        };
    } else {
        blocked((cpu, precision), a, b, epilogue, c);
    }
}

/// Row `i` of the result in plain Rust, in the order of the definition: the reference for the fast versions.
fn reference_row(a: MatRef, b: MatRef, epilogue: Epilogue, i: usize, row: &mut [f32]) {
    if !epilogue.accumulate {
        row.fill(0.0);
    }
    if let Some(bias) = epilogue.bias {
        row.iter_mut().zip(bias).for_each(|(c, bias)| *c += bias);
    }
    for l in 0..a.cols {
        let x = a.at(i, l);
        row.iter_mut().enumerate().for_each(|(j, c)| *c += x * b.at(l, j));
    }
}

/// Cuts `c` into one rectangle per thread; each thread packs the operands of its rectangle.
fn blocked((cpu, precision): (Cpu, Precision), a: MatRef, b: MatRef, epilogue: Epilogue, c: &mut [f32]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let (row_step, col_step) = cut(cpu.threads, m, k, n);
    let (row_parts, col_parts) = (m.div_ceil(row_step), n.div_ceil(col_step));
    let c = Shared::new(c);
    parallel::tasks(cpu, row_parts * col_parts, |part| {
        let (i, j) = (part / col_parts * row_step, part % col_parts * col_step);
        let block = Block {
            m: row_step.min(m - i),
            n: col_step.min(n - j),
            k,
            a: Strided {
                start: a.data[i * a.row_stride..].as_ptr(),
                lane: a.row_stride,
                depth: a.col_stride,
            },
            b: Strided {
                start: b.data[j * b.col_stride..].as_ptr(),
                lane: b.col_stride,
                depth: b.row_stride,
            },
            c: c.pointer(i * n + j),
            c_stride: n,
            bias: epilogue.bias.map_or(std::ptr::null(), |bias| bias[j..].as_ptr()),
            accumulate: epilogue.accumulate,
        };
        // SAFETY: `matmul` has checked that all operands lie in their slices; the rectangles of `c` are
        // disjoint.
        unsafe { block::multiply((cpu.isa, precision), &block) };
    });
}

/// Rows and columns of a thread's rectangle: those with the least work per thread, packing included.
fn cut(threads: usize, m: usize, k: usize, n: usize) -> (usize, usize) {
    /// Multiply-adds that are worth another thread (about 5 µs).
    const THREAD_WORK: usize = 1 << 18;
    /// Rectangles begin at multiples of the largest tile sizes.
    const ROWS: usize = 6;
    const COLS: usize = 64;
    /// Packing one element costs about as much as this many multiply-adds.
    const PACK: usize = 16;
    let threads = threads.min(m.saturating_mul(k).saturating_mul(n) / THREAD_WORK).max(1);
    let step = |parts: usize| {
        let rows = m.div_ceil(parts).next_multiple_of(ROWS);
        let cols = n.div_ceil(threads / parts).next_multiple_of(COLS);
        (rows, cols)
    };
    (1..=threads).map(step).min_by_key(|(rows, cols)| rows * cols + PACK * (rows + cols)).unwrap_or((m, n))
}

#[cfg(test)]
mod tests;
