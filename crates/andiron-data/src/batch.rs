//! What a collator hands to a trainer: plain memory, no tensor.

/// Sequences of token ids, padded on the right to one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequences {
    /// Ids, row-major, `rows × columns`.
    pub ids: Vec<u32>,
    /// Number of sequences.
    pub rows: usize,
    /// Number of positions in each.
    pub columns: usize,
    /// Length of each sequence without its padding; `None` if no row has padding that the model could see: all are full, or
    /// only later positions are padding under a causal mask.
    pub lengths: Option<Vec<usize>>,
    /// Token type id of each position; `None` if all are 0.
    pub type_ids: Option<Vec<u32>>,
    /// The documents packed into each row, as the first position of each, ascending from 0: they do not see each other, and
    /// positions restart with each. `None` if each row is one document.
    pub documents: Option<Vec<Vec<usize>>>,
}

impl Sequences {
    /// Sequences of one length, without padding.
    ///
    /// # Panics
    /// If there are not `rows × columns` ids.
    pub fn full(ids: Vec<u32>, [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(ids.len(), rows * columns, "{rows} rows of {columns} ids");
        Self { ids, rows, columns, lengths: None, type_ids: None, documents: None }
    }

    /// Sequences padded with `pad` to the longest of them, and to at least one position.
    pub fn padded<S: AsRef<[u32]>>(sequences: &[S], pad: u32) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.as_ref().len()).collect();
        let columns = lengths.iter().copied().max().unwrap_or(0).max(1);
        let ids = padded(sequences.iter().map(AsRef::as_ref), columns, pad);
        Self { ids, rows: sequences.len(), columns, lengths: Some(lengths), type_ids: None, documents: None }
    }

    /// Sequences padded with `pad` to `columns` positions.
    ///
    /// # Panics
    /// If a sequence is longer.
    pub fn padded_to<S: AsRef<[u32]>>(sequences: &[S], columns: usize, pad: u32) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.as_ref().len()).collect();
        let ids = padded(sequences.iter().map(AsRef::as_ref), columns, pad);
        let lengths = Some(lengths).filter(|lengths| lengths.iter().any(|&length| length < columns));
        Self { ids, rows: sequences.len(), columns, lengths, type_ids: None, documents: None }
    }

    /// The same with token type ids, one list for each row; padding has type 0.
    ///
    /// # Panics
    /// If a list is longer than the rows.
    #[must_use]
    pub fn with_type_ids<S: AsRef<[u32]>>(self, type_ids: &[S]) -> Self {
        let type_ids = padded(type_ids.iter().map(AsRef::as_ref), self.columns, 0);
        assert_eq!(type_ids.len(), self.ids.len(), "type ids for each row");
        Self { type_ids: Some(type_ids), ..self }
    }

    /// The ids of one row, padding included.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[u32] {
        assert!(row < self.rows, "row {row} of a batch of {}", self.rows);
        &self.ids[row * self.columns..(row + 1) * self.columns]
    }

    /// Number of positions that are not padding.
    pub fn n_tokens(&self) -> usize {
        self.lengths.as_ref().map_or(self.ids.len(), |lengths| lengths.iter().sum())
    }
}

/// Rows of `columns` values each, filled up with `pad`.
///
/// # Panics
/// If a row is longer than that.
pub(crate) fn padded<'a, T: Copy + 'a>(
    rows: impl Iterator<Item = &'a [T]>,
    columns: usize,
    pad: T,
) -> Vec<T> {
    let mut flat = Vec::new();
    for (row, values) in rows.enumerate() {
        assert!(values.len() <= columns, "{} values do not fit {columns} columns", values.len());
        flat.extend_from_slice(values);
        flat.resize((row + 1) * columns, pad);
    }
    flat
}

/// A target id and its loss weight for each position of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLabels {
    /// Target ids, row-major.
    pub ids: Vec<u32>,
    /// Loss weights. Padding, and whatever else is not predicted, has weight 0.
    pub weights: Vec<f32>,
}

impl TokenLabels {
    /// A target and a weight for each position of rows padded to `columns`. Padding has weight 0, and `pad` as its target.
    ///
    /// # Panics
    /// If a row is longer, or has another number of weights than of targets.
    pub(crate) fn padded_to<I: AsRef<[u32]>, W: AsRef<[f32]>>(
        rows: &[(I, W)],
        columns: usize,
        pad: u32,
    ) -> Self {
        for (ids, weights) in rows {
            assert_eq!(ids.as_ref().len(), weights.as_ref().len(), "a weight for each target");
        }
        let ids = padded(rows.iter().map(|(ids, _)| ids.as_ref()), columns, pad);
        let weights = padded(rows.iter().map(|(_, weights)| weights.as_ref()), columns, 0.0);
        Self { ids, weights }
    }

    /// Number of targets with a weight above 0.
    pub fn n_targets(&self) -> usize {
        self.weights.iter().filter(|&&weight| weight > 0.0).count()
    }
}

/// What is to be predicted from a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// A token, or a label of a token, at each position of [`HostBatch::predicted`].
    Tokens(TokenLabels),
    /// One of several classes for each row.
    Classes(Vec<u32>),
    /// `width` numbers for each row, row-major: 0 or 1 for each of several labels, or values to regress to.
    Values {
        /// The numbers.
        values: Vec<f32>,
        /// How many belong to a row.
        width: usize,
    },
    /// First and last token of the answer in each row.
    Spans(Vec<[u32; 2]>),
    /// Each `size` consecutive rows belong together: an anchor, its positive, its negatives.
    Groups {
        /// Rows of a group.
        size: usize,
        /// For each group, how similar its two texts are; absent if the positive is only to be nearest.
        scores: Option<Vec<f32>>,
    },
    /// Rows come in pairs: the chosen answer, then the rejected one.
    Preferences {
        /// The tokens of the answers.
        tokens: TokenLabels,
        /// Log-probability of each row's answer under the reference model.
        reference: Vec<f32>,
    },
}

/// A batch of one training step, or of a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct HostBatch {
    /// What the model reads: the source, for an encoder-decoder.
    pub inputs: Sequences,
    /// What the decoder of an encoder-decoder reads.
    pub decoder_inputs: Option<Sequences>,
    /// What is to be predicted.
    pub labels: Labels,
}

impl HostBatch {
    /// A batch with a target for each position of its inputs.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn tokens(inputs: Sequences, ids: Vec<u32>, weights: Vec<f32>) -> Self {
        assert_eq!([ids.len(), weights.len()], [inputs.ids.len(); 2], "a target for each position");
        Self { inputs, decoder_inputs: None, labels: Labels::Tokens(TokenLabels { ids, weights }) }
    }

    /// The sequences whose positions are predicted: the decoder's, if there are two sides.
    pub fn predicted(&self) -> &Sequences {
        self.decoder_inputs.as_ref().unwrap_or(&self.inputs)
    }

    /// The targets of positions, if that is what is to be predicted.
    pub fn token_labels(&self) -> Option<&TokenLabels> {
        match &self.labels {
            Labels::Tokens(tokens) | Labels::Preferences { tokens, .. } => Some(tokens),
            _ => None,
        }
    }

    /// Number of things to predict: tokens with a weight above 0, rows, groups or pairs.
    pub fn n_targets(&self) -> usize {
        match &self.labels {
            Labels::Tokens(tokens) => tokens.n_targets(),
            Labels::Groups { size, .. } => self.inputs.rows / size,
            Labels::Preferences { .. } => self.inputs.rows / 2,
            Labels::Classes(_) | Labels::Values { .. } | Labels::Spans(_) => self.inputs.rows,
        }
    }

    /// What the sum of this batch's losses is divided by to be a mean: the weight of its tokens, or the number of its targets.
    pub fn weight(&self) -> f64 {
        match &self.labels {
            Labels::Tokens(tokens) => tokens.weights.iter().map(|&weight| f64::from(weight)).sum(),
            _ => self.n_targets() as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_padded_to_the_longest() {
        let sequences =
            Sequences::padded(&[&[1, 2, 3][..], &[], &[4]], 9).with_type_ids(&[&[0, 0, 1][..], &[], &[1]]);
        assert_eq!(sequences.ids, [1, 2, 3, 9, 9, 9, 4, 9, 9]);
        assert_eq!((sequences.row(2), sequences.n_tokens()), (&[4, 9, 9][..], 4));
        assert_eq!(sequences.lengths, Some(vec![3, 0, 1]));
        assert_eq!(sequences.type_ids, Some(vec![0, 0, 1, 0, 0, 0, 1, 0, 0]));
        assert_eq!(Sequences::padded(&[[0; 0]], 9).ids, [9]);
        assert_eq!(Sequences::padded_to(&[&[1][..], &[2, 3]], 3, 9).lengths, Some(vec![1, 2]));
        assert_eq!(Sequences::padded_to(&[[1], [2]], 1, 9), Sequences::full(vec![1, 2], [2, 1]));
    }

    #[test]
    fn a_batch_is_weighted_by_what_it_predicts() {
        let inputs = Sequences::full(vec![0; 8], [4, 2]);
        let of = |labels| HostBatch { inputs: inputs.clone(), decoder_inputs: None, labels };
        let check = |labels, n_targets, weight| {
            let batch = of(labels);
            assert_eq!((batch.n_targets(), batch.weight()), (n_targets, weight), "{batch:?}");
        };
        let tokens = TokenLabels { ids: vec![0; 8], weights: vec![0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0] };
        check(Labels::Tokens(tokens.clone()), 2, 1.5);
        check(Labels::Classes(vec![0; 4]), 4, 4.0);
        check(Labels::Groups { size: 2, scores: None }, 2, 2.0);
        check(Labels::Preferences { tokens, reference: vec![0.0; 4] }, 2, 2.0);
    }
}
