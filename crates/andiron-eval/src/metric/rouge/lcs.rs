//! Longest common subsequences of words, 64 columns of the table at a time.
//!
//! The table has a row for each word of the reference and a column for each of the prediction. Along a row the length grows by
//! 0 or 1 at each column, so that one bit is enough for an entry. Bits here are 0 where the length grows.
//!
//! Source: Crochemore, Iliopoulos, Pinzon, Reid 2001, "A fast and practical bit-vector algorithm for the longest common
//! subsequence problem", <https://doi.org/10.1016/S0020-0190(00)00214-X>.

use std::collections::HashMap;

/// Rows are kept as long as they take no more 64-bit words than this; longer tables are computed in parts, twice.
const MAX_KEPT: usize = 1 << 22;

/// Length of the longest common subsequence.
pub(super) fn length(reference: &[u32], prediction: &[u32]) -> u64 {
    if reference.is_empty() || prediction.is_empty() {
        return 0;
    }
    let columns = Columns::new(prediction);
    let mut row = columns.first_row();
    let mut matches = row.clone();
    for word in reference {
        columns.next_row(*word, &mut row, &mut matches);
    }
    columns.grown(&row, prediction.len())
}

/// Marks the words of the reference that are in the longest common subsequence which rouge_score finds: from the end of both
/// texts, a step back in the prediction only where that keeps more than one in the reference would.
pub(super) fn mark(reference: &[u32], prediction: &[u32], common: &mut [bool]) {
    mark_in_parts(reference, prediction, common, MAX_KEPT);
}

fn mark_in_parts(reference: &[u32], prediction: &[u32], common: &mut [bool], max_kept: usize) {
    if reference.is_empty() || prediction.is_empty() {
        return;
    }
    let columns = Columns::new(prediction);
    let width = columns.width;
    let part = match reference.len() * width <= max_kept {
        true => reference.len(),
        false => reference.len().isqrt() + 1,
    };
    // The rows at which parts begin.
    let mut begins = Vec::with_capacity(reference.len().div_ceil(part) * width);
    let mut row = columns.first_row();
    let mut matches = row.clone();
    for words in reference.chunks(part) {
        begins.extend_from_slice(&row);
        words.iter().for_each(|&word| columns.next_row(word, &mut row, &mut matches));
    }
    let mut rows = Vec::with_capacity((part + 1) * width);
    let mut column = prediction.len();
    for (index, words) in reference.chunks(part).enumerate().rev() {
        row.copy_from_slice(&begins[index * width..][..width]);
        rows.clear();
        rows.extend_from_slice(&row);
        for &word in words {
            columns.next_row(word, &mut row, &mut matches);
            rows.extend_from_slice(&row);
        }
        let at = |i: usize| &rows[i * width..][..width];
        let grows = |row: &[u64], column: usize| row[column / 64] >> (column % 64) & 1 == 0;
        for (i, &word) in words.iter().enumerate().rev() {
            let (above, row) = (at(i), at(i + 1));
            let (mut here, mut up) = (columns.grown(row, column), columns.grown(above, column));
            while column > 0 {
                if word == prediction[column - 1] {
                    common[index * part + i] = true;
                    column -= 1;
                    break;
                }
                let left = here - u64::from(grows(row, column - 1));
                if left <= up {
                    break;
                }
                column -= 1;
                here = left;
                up -= u64::from(grows(above, column));
            }
        }
    }
}

/// Where each word stands in the prediction.
struct Columns {
    /// 64-bit words of a row.
    width: usize,
    places: HashMap<u32, Places>,
}

/// Columns of one word.
enum Places {
    /// One by one, if they are few.
    Few(Vec<usize>),
    /// As bits. There are at most 64 such words, because each stands at more than `width` places.
    Many(Vec<u64>),
}

impl Columns {
    fn new(prediction: &[u32]) -> Self {
        let width = prediction.len().div_ceil(64);
        let mut lists: HashMap<u32, Vec<usize>> = HashMap::new();
        for (column, &word) in prediction.iter().enumerate() {
            lists.entry(word).or_default().push(column);
        }
        let place = |columns: Vec<usize>| match columns.len() > width {
            true => {
                let mut bits = vec![0; width];
                columns.iter().for_each(|column| bits[column / 64] |= 1 << (column % 64));
                Places::Many(bits)
            }
            false => Places::Few(columns),
        };
        Self { width, places: lists.into_iter().map(|(word, columns)| (word, place(columns))).collect() }
    }

    /// The row of no words: nothing grows.
    fn first_row(&self) -> Vec<u64> {
        vec![u64::MAX; self.width]
    }

    /// Makes `row` the next one, for `word` of the reference. `matches` is memory to work in.
    fn next_row(&self, word: u32, row: &mut [u64], matches: &mut [u64]) {
        let matches = match self.places.get(&word) {
            None => return,
            Some(Places::Many(bits)) => bits.as_slice(),
            Some(Places::Few(columns)) => {
                matches.fill(0);
                columns.iter().for_each(|column| matches[column / 64] |= 1 << (column % 64));
                matches
            }
        };
        let mut carry = false;
        for (bits, &matches) in row.iter_mut().zip(matches) {
            let common = *bits & matches;
            let (sum, first) = bits.overflowing_add(common);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first | second;
            *bits = sum | (*bits & !matches);
        }
    }

    /// Length at the end of the first `columns` columns.
    fn grown(&self, row: &[u64], columns: usize) -> u64 {
        let whole: u32 = row[..columns / 64].iter().map(|bits| bits.count_zeros()).sum();
        let rest = match columns % 64 {
            0 => 0,
            rest => (!row[columns / 64] & ((1 << rest) - 1)).count_ones(),
        };
        u64::from(whole) + u64::from(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table, and the way back through it.
    fn by_table(reference: &[u32], prediction: &[u32]) -> (u64, Vec<bool>) {
        let mut table = vec![vec![0u64; prediction.len() + 1]; reference.len() + 1];
        for (i, a) in (1..).zip(reference) {
            for (j, b) in (1..).zip(prediction) {
                table[i][j] = match a == b {
                    true => table[i - 1][j - 1] + 1,
                    false => table[i - 1][j].max(table[i][j - 1]),
                };
            }
        }
        let (mut i, mut j) = (reference.len(), prediction.len());
        let length = table[i][j];
        let mut common = vec![false; i];
        while i > 0 && j > 0 {
            if reference[i - 1] == prediction[j - 1] {
                (i, j) = (i - 1, j - 1);
                common[i] = true;
            } else if table[i][j - 1] > table[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        (length, common)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn bits_give_what_the_table_gives(
            words in 1u32..40,
            reference in proptest::collection::vec(0u32..1000, 0..150),
            prediction in proptest::collection::vec(0u32..1000, 0..150),
        ) {
            let fold = |text: Vec<u32>| text.into_iter().map(|word| word % words).collect::<Vec<_>>();
            let (reference, prediction) = (fold(reference), fold(prediction));
            let (expected, marks) = by_table(&reference, &prediction);
            prop_assert_eq!(length(&reference, &prediction), expected);
            for max_kept in [0, MAX_KEPT] {
                let mut common = vec![false; reference.len()];
                mark_in_parts(&reference, &prediction, &mut common, max_kept);
                prop_assert_eq!(&common, &marks);
            }
        }
    }
}
