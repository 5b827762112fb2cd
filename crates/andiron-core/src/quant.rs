//! Matrices whose numbers are stored in few bits, and used as they are stored.
//!
//! A parameter carries such a matrix as a Burn [`Reparameterization`]: layers that know it multiply with it in blocks,
//! everything else sees the numbers that it stands for. It is for inference: nothing here is trained.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use andiron_kernels::Cpu;
use andiron_kernels::quant::{self, QuantRef};
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{Tensor, TensorData};

use crate::ops::WeightLayout;

pub use andiron_kernels::quant::Format;

/// `[rows, cols]`, row by row: rows are outputs of a map or entries of a table. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct QuantMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    data: Arc<[u8]>,
}

impl QuantMatrix {
    /// Takes over rows that are stored already.
    ///
    /// # Panics
    /// If a row is no whole number of blocks, or `data` is not as long as the rows.
    pub fn new(format: Format, [rows, cols]: [usize; 2], data: Arc<[u8]>) -> Self {
        QuantRef::new(format, rows, cols, &data);
        Self { format, rows, cols, data }
    }

    /// Stores `values`, `[rows, cols]` row by row.
    ///
    /// # Panics
    /// If a row is no whole number of blocks, `values` no whole number of rows, or nobody writes this format.
    pub fn quantize(format: Format, values: &[f32], cols: usize) -> Self {
        let data = quant::quantize(cpu(), format, values, cols);
        Self::new(format, [values.len() / cols, cols], data.into())
    }

    /// How the numbers are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Bytes that the numbers take.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Some rows as plain numbers.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn dequantize(&self, rows: Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; rows.len() * self.cols];
        quant::dequantize(cpu(), self.as_ref(), rows, &mut values);
        values
    }

    /// The rows `ids` as plain numbers.
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

/// What a parameter stands for instead of its own numbers.
#[derive(Module, Debug)]
pub struct QuantWeight {
    #[module(skip)]
    matrix: QuantMatrix,
    #[module(skip)]
    layout: WeightLayout,
}

impl QuantWeight {
    /// `matrix` has outputs as rows; `layout` is how the parameter has them.
    pub fn new(matrix: QuantMatrix, layout: WeightLayout) -> Self {
        Self { matrix, layout }
    }

    /// The matrix that a parameter carries.
    pub fn of(param: &Param<Tensor<2>>) -> Option<&QuantMatrix> {
        param.reparameterization::<Self>().map(|weight| &weight.matrix)
    }
}

impl Reparameterization for QuantWeight {
    const NAME: &'static str = "quantized";

    /// The numbers that the matrix stands for, in the parameter's own order of axes.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let [rows, cols] = self.matrix.dims();
        let values = TensorData::new(self.matrix.dequantize(0..rows), [rows, cols]);
        let stored = Tensor::<2>::from_data(values, &base.device());
        match self.layout {
            WeightLayout::OutIn => stored,
            WeightLayout::InOut => stored.transpose(),
        }
        .reshape(base.shape())
    }
}
