//! One example: named columns of token ids and of numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Names of columns that several collators use.
pub mod columns {
    /// Token ids that the model reads.
    pub const IDS: &str = "ids";
    /// Token type id of each of [`IDS`].
    pub const TYPE_IDS: &str = "type_ids";
    /// Token ids of the target side of an encoder-decoder.
    pub const TARGET_IDS: &str = "target_ids";
    /// Class ids: one for a text, or one for each token.
    pub const LABELS: &str = "labels";
    /// Numbers to predict: one for each label of a multi-label text, or values to regress to.
    pub const VALUES: &str = "values";
    /// Loss weight of each of [`IDS`] as a target, or of each of [`LABELS`].
    pub const WEIGHTS: &str = "weights";
    /// Where several texts stand in [`IDS`] one after the other: the number of ids of each. [`TYPE_IDS`] and [`WEIGHTS`] are
    /// divided in the same way.
    pub const LENGTHS: &str = "lengths";
    /// First and last token of an answer, as indices of [`IDS`].
    pub const SPAN: &str = "span";
    /// Log-probabilities of a chosen and of a rejected answer under the reference model.
    pub const REFERENCE: &str = "reference";
}

/// One example: named columns of token ids and of numbers, each of any length.
///
/// # Example
/// ```
/// use andiron_data::records::{Record, columns};
/// let record = Record::default().with_ids(columns::IDS, vec![5, 6, 7]).with_numbers(columns::VALUES, vec![0.5]);
/// assert_eq!(record.ids(columns::IDS), [5, 6, 7]);
/// assert_eq!(record.numbers(columns::VALUES), [0.5]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<'a> {
    ids: BTreeMap<&'a str, Cow<'a, [u32]>>,
    numbers: BTreeMap<&'a str, Cow<'a, [f32]>>,
}

impl<'a> Record<'a> {
    /// The same with a column of ids.
    #[must_use]
    pub fn with_ids(mut self, column: &'a str, ids: impl Into<Cow<'a, [u32]>>) -> Self {
        self.ids.insert(column, ids.into());
        self
    }

    /// The same with a column of numbers.
    #[must_use]
    pub fn with_numbers(mut self, column: &'a str, numbers: impl Into<Cow<'a, [f32]>>) -> Self {
        self.numbers.insert(column, numbers.into());
        self
    }

    /// The ids of a column.
    ///
    /// # Panics
    /// If there is no such column: a collator reads the columns that its objective writes.
    pub fn ids(&self, column: &str) -> &[u32] {
        self.ids.get(column).unwrap_or_else(|| panic!("a record without the ids {column:?}"))
    }

    /// The numbers of a column.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn numbers(&self, column: &str) -> &[f32] {
        self.numbers.get(column).unwrap_or_else(|| panic!("a record without the numbers {column:?}"))
    }

    /// The ids of a column, if the record has it.
    pub fn find_ids(&self, column: &str) -> Option<&[u32]> {
        self.ids.get(column).map(AsRef::as_ref)
    }

    /// The numbers of a column, if the record has it.
    pub fn find_numbers(&self, column: &str) -> Option<&[f32]> {
        self.numbers.get(column).map(AsRef::as_ref)
    }

    /// The columns of ids, by name.
    pub fn id_columns(&self) -> impl Iterator<Item = (&'a str, &[u32])> {
        self.ids.iter().map(|(name, ids)| (*name, ids.as_ref()))
    }

    /// The columns of numbers, by name.
    pub fn number_columns(&self) -> impl Iterator<Item = (&'a str, &[f32])> {
        self.numbers.iter().map(|(name, numbers)| (*name, numbers.as_ref()))
    }
}
