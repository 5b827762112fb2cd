//! Quantized matrices, used without dequantizing the whole.
//!
//! A [`Weight`](crate::Weight) may hold one instead of a dense tensor. It is never trained itself.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use andiron_kernels::Cpu;
pub use andiron_kernels::quant::Format;
use andiron_kernels::quant::{self, QuantRef};

/// A quantized matrix `[rows, cols]`, row-major: a row for each output of a projection, or for each embedding. Cheap to
/// clone.
#[derive(Clone, PartialEq)]
pub struct QuantMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    data: Arc<[u8]>,
}

impl QuantMatrix {
    /// Takes rows that are quantized already.
    ///
    /// # Panics
    /// If a row is not a whole number of blocks, or `data` is not as long as the rows.
    pub fn new(format: Format, [rows, cols]: [usize; 2], data: Arc<[u8]>) -> Self {
        QuantRef::new(format, rows, cols, &data);
        Self { format, rows, cols, data }
    }

    /// Quantizes `values`, `[rows, cols]`, row-major.
    ///
    /// # Panics
    /// If a row is not a whole number of blocks, `values` not a whole number of rows, or the format is read-only.
    pub fn quantize(format: Format, values: &[f32], cols: usize) -> Self {
        let data = quant::quantize(cpu(), format, values, cols);
        Self::new(format, [values.len() / cols, cols], data.into())
    }

    /// The storage format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Bytes of the stored values.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Some rows, dequantized.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn dequantize(&self, rows: Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; rows.len() * self.cols];
        quant::dequantize(cpu(), self.as_ref(), rows, &mut values);
        values
    }

    /// The rows `ids`, dequantized.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn gather(&self, ids: &[u32]) -> Vec<f32> {
        let mut values = vec![0.0; ids.len() * self.cols];
        quant::gather(cpu(), self.as_ref(), ids, &mut values);
        values
    }

    /// The matrix as kernels take it.
    pub fn as_ref(&self) -> QuantRef<'_> {
        QuantRef::new(self.format, self.rows, self.cols, &self.data)
    }
}

impl fmt::Debug for QuantMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuantMatrix({} of {} x {})", self.format, self.rows, self.cols)
    }
}

/// The processor, with as many threads as the pool this call runs in.
fn cpu() -> Cpu {
    Cpu::detect(rayon::current_num_threads())
}
