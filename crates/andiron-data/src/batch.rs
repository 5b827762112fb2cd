//! What a loader hands to a trainer: plain memory, no tensor.

/// Token ids, targets and loss weights: three row-major arrays of `rows × columns`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostBatch {
    /// Input ids.
    pub ids: Vec<u32>,
    /// The target id of each position.
    pub targets: Vec<u32>,
    /// The loss weight of each target. Padding has weight 0.
    pub weights: Vec<f32>,
    /// Number of sequences.
    pub rows: usize,
    /// Number of positions in each sequence.
    pub columns: usize,
}

impl HostBatch {
    /// A batch of nothing but padding.
    pub fn padding(rows: usize, columns: usize, pad: u32) -> Self {
        let n = rows * columns;
        Self { ids: vec![pad; n], targets: vec![pad; n], weights: vec![0.0; n], rows, columns }
    }

    /// Number of targets with a weight above 0.
    pub fn n_targets(&self) -> usize {
        self.weights.iter().filter(|&&weight| weight > 0.0).count()
    }

    /// The ids, targets and weights of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> (&[u32], &[u32], &[f32]) {
        assert!(row < self.rows, "row {row} of a batch of {}", self.rows);
        let at = row * self.columns..(row + 1) * self.columns;
        (&self.ids[at.clone()], &self.targets[at.clone()], &self.weights[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_counts_nothing() {
        let batch = HostBatch::padding(2, 3, 9);
        assert_eq!(batch.n_targets(), 0);
        assert_eq!(batch.row(1), ([9u32; 3].as_slice(), [9u32; 3].as_slice(), [0.0f32; 3].as_slice()));
    }
}
