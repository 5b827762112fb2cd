//! Packing: several documents in one row of a batch.

use std::sync::Arc;

/// Where the documents of each row begin.
///
/// Attention stays within a document, and positions restart with each, so that a document has the results that it has alone.
/// Elsewhere this is called padding-free or variable-length attention, and the starts cumulative sequence lengths.
///
/// # Example
/// ```
/// use andiron_core::Documents;
/// let documents = Documents::new([vec![0, 3], vec![0]]);
/// assert_eq!(documents.positions(5), [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    starts: Arc<[Vec<usize>]>,
}

impl Documents {
    /// Documents that begin in these columns of each row; each ends where the next begins, or with the row.
    ///
    /// # Panics
    /// If the columns of a row do not ascend from 0.
    pub fn new(starts: impl IntoIterator<Item = Vec<usize>>) -> Self {
        let starts: Arc<[Vec<usize>]> = starts.into_iter().collect();
        for starts in starts.iter() {
            let ascend = starts.first() == Some(&0) && starts.is_sorted_by(|start, next| start < next);
            assert!(ascend, "documents of a row start in ascending columns from 0, not {starts:?}");
        }
        Self { starts }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The first columns of the documents of each row.
    pub fn starts(&self) -> &[Vec<usize>] {
        &self.starts
    }

    /// Position of each of `columns` tokens of a row in its own document, row by row.
    pub fn positions(&self, columns: usize) -> Vec<Vec<usize>> {
        let of_row = |row: usize| {
            let documents = self.documents_of(row, columns).into_iter();
            documents.flat_map(|document| 0..document.len()).collect()
        };
        (0..self.len()).map(of_row).collect()
    }

    /// Length of the longest document in rows of `columns` tokens.
    pub(crate) fn longest(&self, columns: usize) -> usize {
        let documents = (0..self.len()).flat_map(|row| self.documents_of(row, columns));
        documents.map(|document| document.len()).max().unwrap_or(0)
    }

    /// Index of the document of each of `columns` tokens of a row.
    pub(crate) fn indices(&self, row: usize, columns: usize) -> Vec<usize> {
        let documents = self.documents_of(row, columns).into_iter().enumerate();
        documents.flat_map(|(index, document)| document.map(move |_| index)).collect()
    }

    fn documents_of(&self, row: usize, columns: usize) -> Vec<std::ops::Range<usize>> {
        let starts = &self.starts[row];
        let ends = starts[1..].iter().copied().chain([columns]);
        starts.iter().zip(ends).map(|(&start, end)| start..end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_restart_with_each_document() {
        let documents = Documents::new([vec![0, 1, 4], vec![0]]);
        assert_eq!(documents.positions(6), [[0, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5]]);
        assert_eq!(documents.indices(0, 6), [0, 1, 1, 1, 2, 2]);
        assert_eq!((documents.longest(6), Documents::new([vec![0, 4]]).longest(6)), (6, 4));
    }

    #[test]
    #[should_panic(expected = "ascending columns from 0, not [0, 2, 2]")]
    fn a_document_has_a_token() {
        Documents::new([vec![0, 2, 2]]);
    }
}
