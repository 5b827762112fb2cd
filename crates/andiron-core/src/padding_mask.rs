//! Padding: the columns of a batch that belong to each row.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use crate::ids;

/// The columns of each row of a batch; all others are padding, which is not attended to.
///
/// Padding is on either side. With right padding all rows start in column 0 (encoder inputs, and passes over a KV cache);
/// with left padding all rows end in the last column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddingMask {
    spans: Vec<Range<usize>>,
}

impl PaddingMask {
    /// Right padding: rows that start in column 0 and have these lengths.
    pub fn padded_right(lengths: impl IntoIterator<Item = usize>) -> Self {
        Self { spans: lengths.into_iter().map(|len| 0..len).collect() }
    }

    /// Left padding: rows with this many columns of padding before them.
    pub fn padded_left(paddings: impl IntoIterator<Item = usize>) -> Self {
        Self { spans: paddings.into_iter().map(|padding| padding..usize::MAX).collect() }
    }

    pub(crate) fn of(spans: Vec<Range<usize>>) -> Self {
        Self { spans }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The columns of each row.
    pub fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    /// The rows with these indices, in this order; rows may be repeated or left out.
    ///
    /// # Panics
    /// If an index is not below [`PaddingMask::len`].
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { spans: rows.iter().map(|&row| self.spans[row].clone()).collect() }
    }

    /// 1 for each column that belongs to its row, 0 for padding, `[rows, columns]`.
    pub fn weights(&self, columns: usize, device: &Device) -> Tensor<2> {
        let own = self
            .spans
            .iter()
            .flat_map(|span| (0..columns).map(|column| if span.contains(&column) { 1.0f32 } else { 0.0 }));
        Tensor::from_data(TensorData::new(own.collect(), [self.len(), columns]), device)
    }

    /// Additive attention mask, `[rows, 1, t, s]`: 0 where key `j` belongs to row `r` and `sees(r, i, j)`, else a large
    /// negative value.
    pub(crate) fn mask(&self, [t, s]: [usize; 2], sees: impl Fn(usize, usize, usize) -> bool) -> TensorData {
        /// Finite, so that the softmax of a fully masked query is not NaN.
        const HIDDEN: f32 = -1e30;
        let mut mask = Vec::with_capacity(self.len() * t * s);
        for (row, span) in self.spans.iter().enumerate() {
            for i in 0..t {
                mask.extend((0..s).map(|j| if span.contains(&j) && sees(row, i, j) { 0.0 } else { HIDDEN }));
            }
        }
        TensorData::new(mask, [self.len(), 1, t, s])
    }
}

/// One column of each row.
///
/// # Shape
/// `x_btd`: `[rows, columns, d]` → `[rows, d]`.
///
/// # Panics
/// If the number of columns is not the number of rows, or a column does not exist.
pub fn pick(x_btd: Tensor<3>, columns: impl IntoIterator<Item = usize>) -> Tensor<2> {
    let [b, t, d] = x_btd.dims();
    let flat = columns.into_iter().enumerate().map(|(row, column)| {
        assert!(column < t, "row {row} has no column {column}");
        (row * t + column) as u32
    });
    let flat: Vec<u32> = flat.collect();
    assert_eq!(flat.len(), b, "one column for each of {b} rows");
    let at = ids::upload(&flat, [b], &x_btd.device());
    x_btd.reshape([b * t, d]).select(0, at)
}
